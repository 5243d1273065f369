"""torch is an extra."""

from __future__ import annotations

import subprocess
import sys

import pytest


def python(code: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)


@pytest.mark.parametrize(
    "module", ["pconv_onnx", "pconv_onnx.cli", "pconv_onnx.rewriting", "pconv_onnx.measure.verification"]
)
def test_nothing_else_imports_torch(module):
    done = python(f"import sys, {module}; print('torch' in sys.modules, 'pconv_onnx.torch' in sys.modules)")
    assert done.stdout.split() == ["False", "False"]


def test_without_torch_the_error_says_how_to_get_it():
    done = python("import sys; sys.modules['torch'] = None; import pconv_onnx.torch")
    assert done.stderr.splitlines()[-1] == (
        "ImportError: pconv_onnx.torch needs PyTorch; pip install 'pconv-onnx[torch]'"
    )
