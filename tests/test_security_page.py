"""SECURITY.md names a test for each promise, and these tests are there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

_ROOT = Path(__file__).parents[1]
_HOLDS = (_ROOT / "SECURITY.md").read_text().split("## What holds\n")[1].split("\n## ")[0]
_PROMISES = re.split(r"\n(?=- )", _HOLDS.split("\n\n`make ")[0].strip())
# A file, and the tests of it that are named behind it.
_NAMED = re.compile(r"`(tests/[\w/]+\.py)`((?:[:,\s]+`test_\w+`)*)")


def _tests_of(path: str) -> set[str]:
    tree = ast.parse((_ROOT / path).read_text())
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize("promise", _PROMISES, ids=[promise[2:40] for promise in _PROMISES])
def test_each_promise_names_its_tests(promise):
    named = _NAMED.findall(" ".join(promise.split()))
    assert promise.startswith("- **")
    assert named
    for path, tests in named:
        assert set(re.findall(r"test_\w+", tests)) <= _tests_of(path)
