"""Messages speak of arguments in Python, and of options on the command line."""

from __future__ import annotations

import argparse
import ast
import inspect
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import pconv_onnx
from pconv_onnx.cli.arguments import parser
from pconv_onnx.cli.spelling import as_options, spelled

PACKAGE = Path(pconv_onnx.__file__).parent
# What has a command line of its own, and what names its options.
ELSEWHERE = {"cli/", "deployment/bundle/"}
MENTIONED = re.compile(r"`([a-z_]+=[^`]*)`")


def messages() -> Iterator[tuple[str, str]]:
    """Every text of the package but documentation, and where it stands; values that it takes in are `T`."""
    for path in sorted(PACKAGE.rglob("*.py")):
        tree = ast.parse(path.read_text())
        documentation = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        inside = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in ast.walk(node)}
        for node in ast.walk(tree):
            where = f"{path.relative_to(PACKAGE)}:{getattr(node, 'lineno', 0)}"
            if isinstance(node, ast.JoinedStr):
                yield where, "".join(part.value if isinstance(part, ast.Constant) else "T" for part in node.values)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                if id(node) not in documentation | inside:
                    yield where, node.value


def options_of(command: argparse.ArgumentParser) -> dict[str, argparse.Action]:
    return {option: action for action in command._actions for option in action.option_strings}


COMMANDS = next(action.choices for action in parser()._actions if isinstance(action, argparse._SubParsersAction))
OPTIONS = {option: action for command in COMMANDS.values() for option, action in options_of(command).items()}
FUNCTIONS = [getattr(pconv_onnx, name) for name in COMMANDS] + [pconv_onnx.RayEngine, pconv_onnx.from_nir]
ARGUMENTS = {name for function in FUNCTIONS for name in inspect.signature(function).parameters}
MESSAGES = [entry for entry in messages() if not any(entry[0].startswith(place) for place in ELSEWHERE)]
NAMED = [(where, argument) for where, text in messages() for argument in MENTIONED.findall(text)]


def test_no_message_of_a_function_names_an_option():
    named = re.compile(rf"(^|[^\w-])({'|'.join(map(re.escape, sorted(OPTIONS, key=len, reverse=True)))})(?![\w-])")
    assert [entry for entry in MESSAGES if named.search(entry[1])] == []
    assert len(MESSAGES) > 1000 and len(NAMED) > 30


@pytest.mark.parametrize(("where", "mentioned"), NAMED, ids=[f"{where} {text}" for where, text in NAMED])
def test_arguments_in_messages_exist_and_so_do_the_options_that_they_become(where, mentioned):
    call = ast.parse(f"f({re.sub('=(?=,|$)', '=None', mentioned)})", mode="eval").body
    assert {keyword.arg for keyword in call.keywords} <= ARGUMENTS
    words = as_options(f"`{mentioned}`").split()
    options = [word for word in words if word.startswith("-")]
    assert len(options) == len(call.keywords) and set(options) <= OPTIONS.keys()
    # What needs no value is given none.
    for option, keyword in zip(options, call.keywords, strict=True):
        if OPTIONS[option].nargs == 0:
            assert ast.unparse(keyword.value) in ("True", "None")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("pass `steps=T`", "pass --steps T"),
        ("pass `calibration='data.npz', steps=8`, or", "pass --calibration data.npz --steps 8, or"),
        ("`input_range=(LOW, HIGH)`", "--input-range LOW HIGH"),
        ("`input_range=(0, 1), input_bits=8`", "--input-range 0 1 --input-bits 8"),
        ("`force=True` or `output=`", "--force or -o"),
        ("`batch_axis={'logits': 0}`", "--batch-axis logits=0"),
        ("`batch_axis=None`", "--batch-axis none"),
        ("the reset sets `v_reset`, steps=T is a name", "the reset sets `v_reset`, steps=T is a name"),
    ],
)
def test_arguments_become_options(text, told):
    assert as_options(text) == told
    assert spelled({"reasons": [text, 1, None]}) == {"reasons": [told, 1, None]}
