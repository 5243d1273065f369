"""The tests that the onnx package has for backends: those that it ships, and those that its code makes."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnx
from onnx import numpy_helper

DATA = Path(onnx.__file__).parent / "backend" / "test" / "data"


def files(folder: Path) -> Iterator[tuple[str, Path]]:
    """Name and path of each, but for networks in full size."""
    shipped = sorted(path for path in DATA.rglob("*.onnx") if path.parent.name != "light")
    yield from ((str(path.relative_to(DATA)), path) for path in shipped)
    known = {path.parent.name for path in shipped}
    for case in _made():
        if case.model is not None and case.name not in known:
            path = folder / case.kind / case.name / "model.onnx"
            _write(case, path)
            yield str(path.relative_to(folder)), path


def _made() -> list[Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from onnx.backend.test.case.model import collect_testcases
        from onnx.backend.test.loader import load_node_model_tests

        return [*load_node_model_tests(), *collect_testcases()]


def _write(case: Any, path: Path) -> None:
    """A model, and its inputs where they are tensors, as onnx's own files are laid out."""
    data = path.parent / "test_data_set_0"
    data.mkdir(parents=True, exist_ok=True)
    path.write_bytes(case.model.SerializeToString())
    for index, value in enumerate(case.data_sets[0][0] if case.data_sets else ()):
        if isinstance(value, onnx.TensorProto) or hasattr(value, "dtype"):
            tensor = value if isinstance(value, onnx.TensorProto) else numpy_helper.from_array(value)
            (data / f"input_{index}.pb").write_bytes(tensor.SerializeToString())
