"""From PyTorch: train a network with QCFS activations and export it as ONNX that `pconv_onnx.rewrite` understands.

The only package here that imports torch.
"""

try:
    import torch  # noqa: F401  # the modules below need it; here its absence is told
except ModuleNotFoundError as error:
    if error.name != "torch":
        raise
    raise ImportError("pconv_onnx.torch needs PyTorch; pip install 'pconv-onnx[torch]'") from None

from pconv_onnx.torch.exporting import export
from pconv_onnx.torch.qcfs import QCFS
from pconv_onnx.torch.replacement import Finding, replace_relu

__all__ = ["QCFS", "Finding", "export", "replace_relu"]
