"""A mode is one object: whoever wants to know something of it asks that."""

from __future__ import annotations

import ast
import pickle
from pathlib import Path

import pytest

import pconv_onnx
from pconv_onnx.basics import choices
from pconv_onnx.basics.errors import PconvError
from pconv_onnx.lower.modes import LOWERINGS
from pconv_onnx.plan.modes import MODES, mode_of

PACKAGE = Path(pconv_onnx.__file__).parent
TABLES = {"plan/modes.py", "lower/modes.py"}


def test_every_mode_that_can_be_chosen_can_be_planned_and_written():
    assert tuple(MODES) == tuple(LOWERINGS) == choices.MODES
    assert all(mode_of(name).name == name for name in choices.MODES)


@pytest.mark.parametrize("name", choices.MODES)
def test_there_is_one_object_of_each(name):
    assert pickle.loads(pickle.dumps(mode_of(name))) is mode_of(name)
    assert repr(mode_of(name)) == name


@pytest.mark.parametrize("name", ["sideways", "", None, ["parallel"]], ids=str)
def test_another_is_told(name):
    with pytest.raises(PconvError, match="there is no mode .*; choose one of parallel, folded, serial"):
        mode_of(name)


def literals(node: ast.AST) -> set[str]:
    """What is compared as it stands, alone or one of several; keys of what is looked up are none of it."""
    if isinstance(node, ast.Constant):
        return {node.value} if isinstance(node.value, str) else set()
    if isinstance(node, ast.Subscript | ast.Call):
        return set()
    return set().union(*map(literals, ast.iter_child_nodes(node)))


@pytest.mark.parametrize(
    "path",
    [path for path in sorted(PACKAGE.rglob("*.py")) if path.relative_to(PACKAGE).as_posix() not in TABLES],
    ids=str,
)
def test_no_other_module_compares_a_mode_with_a_literal(path):
    for node in ast.walk(ast.parse(path.read_text())):
        compared = isinstance(node, ast.Compare) and literals(node) & set(choices.MODES)
        matched = isinstance(node, ast.MatchValue) and literals(node) & set(choices.MODES)
        assert not compared and not matched, f"line {node.lineno}"
