"""What onnx and onnxruntime say of a fault, as one sentence: without error codes and places in their sources."""

from __future__ import annotations

import re

# onnx's asserts, whose first line has the reason.
_ASSERTION = re.compile(r".*Assertion `.*?` failed: (.+)")
# What is in front of the reason and says nothing of it. No path ends in a colon with a letter behind it.
_PREFIXES = re.compile(
    r"\[ONNXRuntimeError\] : \d+ : [A-Z_]+ : |Load model from .*? failed:(?=\S)|This is an invalid model\. |"
    r"Exception during initialization: |\[(?:Shape|Type)InferenceError\] "
)
_IN_NODE = re.compile(r'In Node, \("(.*?)", (\S*?), ".*?", -?\d+\) : .*? -> \((?:"(.*?)")?.*?\) , Error ')
_RUNNING = re.compile(r"Non-zero status code returned while running (\S+) node\. Name:'(.*?)' Status Message: ")
# A source file and a line. With its folder comes the whole signature of a function, without it only a name.
_PLACE = re.compile(r"(?P<folder>\S*/)?[\w.-]+\.(?:cc|cpp|cu|cuh|h|hpp|inl):\d+:? ")
_QUALIFIERS = re.compile(r"(?: const)?(?: \[.*?\])? ")
# The failed condition of an assert that has a message as well.
_CONDITION = re.compile(r"^.*? was false\. ")
# What CUDA's provider adds.
_MACHINE = re.compile(r" ?; GPU=.*")


def reason_of(error: BaseException) -> str:
    """The sentence of an error of theirs that says what is wrong: the node, where one is named, and the reason."""
    text = str(error).strip()
    if assertion := _ASSERTION.match(text):
        text = assertion[1]
    text = _PREFIXES.sub("", " ".join(text.split()))
    text = _IN_NODE.sub(lambda match: f"{match[2]} '{match[1] or match[3] or ''}': ", text)
    text = _RUNNING.sub(lambda match: f"{match[1]} '{match[2]}': ", text)
    while place := _PLACE.search(text):
        behind = text[place.end() :]
        behind = _behind_signature(behind) if place["folder"] else behind.partition(" ")[2]
        text = text[: place.start()] + _CONDITION.sub("", behind)
    return _PREFIXES.sub("", _MACHINE.sub("", text)).replace(" '':", ":").strip() or type(error).__name__


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
