"""What `import pconv_onnx` gives, and that its documentation points to what is there."""

from __future__ import annotations

import ast
import inspect
import logging
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest
from networks import network, qcfs, weight

import pconv_onnx
import pconv_onnx.torch
from pconv_onnx.basics import choices, version
from pconv_onnx.graph.record import Record

PACKAGE = Path(pconv_onnx.__file__).parent
NAME = re.compile(r"`([A-Za-z_][\w.]*)(?:\([^`]*\))?`")
# Names of other projects, and of mathematics.
ELSEWHERE = {"FileMetaData", "PageHeader", "QuantFormat", "QOperator", "quantize_dynamic", "fractions", "Fraction",
             "load_state_dict", "output_0", "output_1", "v_k"}  # fmt: skip
PUBLIC = [(module, name) for module in (pconv_onnx, pconv_onnx.torch) for name in module.__all__]


def test_all_public_names_are_listed_and_are_there():
    assert {*pconv_onnx.__all__, "__version__", "__all__"} <= set(dir(pconv_onnx))
    assert pconv_onnx.__version__.count(".") == 2
    assert not [name for name in pconv_onnx.__all__ if not getattr(pconv_onnx, name).__doc__]
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        pconv_onnx.nothing  # noqa: B018  # the access is what is tested


def test_a_source_tree_that_nobody_installed_has_a_version_and_rewrites(monkeypatch):
    def missing(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(version, "version", missing)
    assert pconv_onnx.__version__ == "0+unknown"
    rewritten = pconv_onnx.rewrite(network(f"c = Conv (x, w) {qcfs('c', 'y')}", weights={"w": weight(3, 3, 1, 1)}))
    assert Record.read(rewritten.model).version == "0+unknown"


def test_the_package_is_typed():
    assert (PACKAGE / "py.typed").exists()
    assert set(pconv_onnx._MODULES) == set(pconv_onnx.__all__)


def test_nothing_is_printed_or_logged_by_a_library():
    code = """
import numpy as np, pconv_onnx
from networks import network, weight
ann = network("a = Conv (x, w) y = Relu (a)", weights={"w": weight(3, 3, 1, 1)}, opset=12)
assert pconv_onnx.rewrite(ann, steps=4, calibration={"x": np.ones((2, 3, 8, 8), np.float32)}).model
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parent, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert any(isinstance(handler, logging.NullHandler) for handler in logging.getLogger("pconv_onnx").handlers)


def documented(thing: object) -> Iterator[object]:
    """A public function or class, and what of the latter is public."""
    yield thing
    if isinstance(thing, type):
        for name, member in vars(thing).items():
            found = member.fget if isinstance(member, property) else getattr(member, "__func__", member)
            if not name.startswith("_") and inspect.isfunction(found):
                yield found


def defined() -> tuple[set[str], set[str]]:
    """Functions, classes and constants of all modules; and what else the package has a name for."""
    definitions, others = set(), set(ELSEWHERE)
    for path in PACKAGE.rglob("*.py"):
        others.add(path.stem)
        tree = ast.parse(path.read_text())
        definitions |= {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
        definitions |= {name.id for node in tree.body if isinstance(node, ast.Assign) for name in node.targets
                        if isinstance(name, ast.Name) and len(name.id) > 1}  # fmt: skip
        documentation = [node.value for node in ast.walk(tree) if isinstance(node, ast.Expr)]
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                others.add(node.name)
            elif isinstance(node, ast.arg | ast.keyword):
                others.add(str(node.arg))
            elif isinstance(node, ast.Name | ast.Attribute):
                others.add(node.id if isinstance(node, ast.Name) else node.attr)
            elif isinstance(node, ast.alias):
                others.update(node.name.split("."))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in documentation:
                others.update([node.value, *re.findall(r"[A-Za-z_]\w*", node.value)])
    return definitions, others


DEFINITIONS, OTHERS = defined()
# What arguments and documents may have.
VALUES = {value for choice in vars(choices).values() if isinstance(choice, tuple) for value in choice} | {"ann", "snn"}


@pytest.mark.parametrize(("module", "name"), PUBLIC, ids=[name for _, name in PUBLIC])
def test_documentation_of_public_names_points_to_public_names(module, name):
    thing = getattr(module, name)
    if not callable(thing):
        return
    known = {name for _, name in PUBLIC} | {"pconv_onnx", "Tensor"}
    for member in documented(thing):
        known |= {"self"} | set(dir(thing)) | set(getattr(thing, "__annotations__", {}))
        known |= set(inspect.signature(member).parameters) if not isinstance(member, type) else set()
    for member in documented(thing):
        for found in NAME.findall(inspect.getdoc(member) or ""):
            first = found.split(".")[0]
            assert first in known or first not in DEFINITIONS - VALUES, f"{member.__qualname__} points to `{found}`"


def test_documentation_points_to_what_is_there():
    missing = []
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
                continue
            for found in NAME.findall(ast.get_docstring(node) or ""):
                parts = found.split(".")
                # One letter is mathematics, and a file has an end.
                if all(len(part) > 1 for part in parts) and not set(parts) <= DEFINITIONS | OTHERS:
                    missing.append(f"{path.relative_to(PACKAGE)}: `{found}`")
    assert not missing, "\n".join(missing)
