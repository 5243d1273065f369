"""Error messages of onnx and onnxruntime as one sentence, without error codes and places in their sources."""

from __future__ import annotations

import re

from onnx import TensorProto

from pconv_onnx.basics.errors import shortened

# onnx's failed asserts; the first line has the reason.
_ASSERTION = re.compile(r".*Assertion `.*?` failed: (.+)")
# Text before the reason, to be dropped. No path ends in a colon followed by a letter.
_PREFIXES = re.compile(
    r"\[ONNXRuntimeError\] : \d+ : [A-Z_]+ : |Load model from .*? failed:(?=\S)|This is an invalid model\. |"
    r"Exception during initialization: |\[(?:Shape|Type)InferenceError\] "
)
_IN_NODE = re.compile(r'In Node, \("([^"]*)", (\S*?), "[^"]*", -?\d+\) : .*? -> \((?:"([^"]*)")?.*?\) , Error ')
_RUNNING = re.compile(r"Non-zero status code returned while running (\S+) node\. Name:'(.*?)' Status Message: ")
# A source file and a line. With its folder comes the whole signature of a function, without it only a name.
_PLACE = re.compile(r"(?P<folder>\S*/)?[\w.-]+\.(?:cc|cpp|cu|cuh|h|hpp|inl):\d+:? ")
_QUALIFIERS = re.compile(r"(?: const)?(?: \[.*?\])? ")
# The failed condition of an assert that has a message as well.
_CONDITION = re.compile(r"^.*? was false\. ")
# Onnx's inference, as onnxruntime passes it on.
_OF_NODE = re.compile(r"Node \((.*?)\) Op \((\S+?)\) (?:\[(?:Shape|Type)InferenceError\] )?")
_DECLARED = "correct what is declared (value_info, outputs), or leave it out"
# Their messages for known faults, and each in words of a user, with what to do.
_KNOWN = (
    (r"Fatal error: (?:com\.microsoft|ai\.onnx)?:(\S+?)\(-?\d+\) is not a registered function/op",
     r"this onnxruntime has no operator \1: install the one that it was written for, or export it as standard "
     r"operators"),
    (r"Fatal error: (\S*?):(\S+?)\(-?\d+\) is not a registered function/op",
     r"no operator \2 of the domain \1 is registered: register the library that has it, or export it as standard "
     r"operators"),
    (r"Could not find an implementation for (\S+?)\((\d+)\) node with name '(.*?)'",
     r"\1 '\3': onnxruntime does not compute it (version \2) in the types that it has here: compute it in float32"),
    (r"Type Error: Type parameter \((\S+?)\) of Optype \((\S+?)\) bound to different types \(tensor\((\S+?)\) and "
     r"tensor\((\S+?)\) in node \((.*?)\)\.?",
     r"\2 '\5': its inputs are of different types, \3 and \4: cast one of them"),
    (r"Type Error: Type \((?:tensor\()?(\S+?)\)* of output arg \((.*?)\) of node \(.*?\) does not match expected type "
     r"\((?:tensor\()?(\S+?)\)+\.?",
     rf"'\2' is declared as \1 and is \3: {_DECLARED}"),
    (r"Can't merge shape info\. Both inferred and declared dimension have values but they differ\. Inferred=(\d+) "
     r"Declared=(\d+) Dimension=(\d+)",
     r"axis \3 has two sizes, \1 and \2, by its inputs or by what is declared: correct the shapes"),
    (r"Inferred shape and existing shape differ in rank: \((\d+)\) vs \((\d+)\)",
     rf"a tensor of rank \1 is declared with rank \2: {_DECLARED}"),
    (r"Inferred shape and existing shape differ in dimension (\d+): \((\d+)\) vs \((\d+)\)",
     rf"a tensor whose axis \1 has the size \2 is declared with \3: {_DECLARED}"),
    (r"Incompatible dimensions for matrix multiplication",
     r"the inner sizes of its matrices differ: correct the weights, or the shape of the input"),
)  # fmt: skip
# Numbers of element types, which have names.
_ELEMENTS = re.compile(r"Inferred elem type differs from existing elem type: \((\d+)\) vs \((\d+)\)")
# What the CUDA execution provider adds.
_MACHINE = re.compile(r" ?; GPU=.*")


def reason_of(error: BaseException) -> str:
    """The sentence of such an error that says what is wrong: the node, if one is named, and the reason."""
    text = str(error).strip()
    if assertion := _ASSERTION.match(text):
        text = assertion[1]
    # The expressions take more than twice the time for twice the text, and names in it may be of any length.
    text = _PREFIXES.sub("", shortened(" ".join(text.split())))
    text = _IN_NODE.sub(lambda match: f"{match[2]} '{match[1] or match[3] or ''}': ", text)
    text = _RUNNING.sub(lambda match: f"{match[1]} '{match[2]}': ", text)
    text = _OF_NODE.sub(lambda match: f"{match[2]} '{match[1]}': ", text)
    for theirs, ours in _KNOWN:
        text = re.sub(theirs, ours, text)
    text = _ELEMENTS.sub(_elements, text)
    while place := _PLACE.search(text):
        behind = text[place.end() :]
        behind = _behind_signature(behind) if place["folder"] else behind.partition(" ")[2]
        text = text[: place.start()] + _CONDITION.sub("", behind)
    return _PREFIXES.sub("", _MACHINE.sub("", text)).replace(" '':", ":").strip() or type(error).__name__


def _elements(match: re.Match[str]) -> str:
    found, declared = (str(TensorProto.DataType.Name(int(number))).lower() for number in match.groups())
    return f"a tensor of {found} is declared as {declared}: {_DECLARED}"


def _behind_signature(text: str) -> str:
    """What follows the signature of a function: its last parenthesis, and what qualifies it."""
    depth = 0
    for index, letter in enumerate(text):
        depth += (letter == "(") - (letter == ")")
        if letter == ")" and not depth and text[index + 1 : index + 2] != "(":
            behind = text[index + 1 :]
            qualifiers = _QUALIFIERS.match(behind)
            return behind[qualifiers.end() :] if qualifiers else behind
    return text
