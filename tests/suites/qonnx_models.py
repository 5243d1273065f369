"""The networks that the qonnx package ships, and what its conversions make of them and of Brevitas' exports."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import qonnx
from qonnx.core.modelwrapper import ModelWrapper
from qonnx.transformation.batchnorm_to_affine import BatchNormToAffine
from qonnx.transformation.change_batchsize import ChangeBatchSize
from qonnx.transformation.channels_last import ConvertToChannelsLastAndClean
from qonnx.transformation.extract_conv_bias import ExtractBiasFromConv
from qonnx.transformation.extract_quant_scale_zeropt import ExtractQuantScaleZeroPt
from qonnx.transformation.gemm_to_matmul import GemmToMatMul
from qonnx.transformation.lower_convs_to_matmul import LowerConvsToMatMul
from qonnx.transformation.qcdq_to_qonnx import QCDQToQuant
from qonnx.transformation.qonnx_to_qcdq import QuantToQCDQ
from qonnx.transformation.quant_constant_folding import FoldTransposeIntoQuantInit
from qonnx.util.cleanup import cleanup_model

from suites import brevitas_models

# Of Brevitas' networks those that are converted, by either exporter of its own encodings.
_NETWORKS = (
    "QuantReLU 2 bits",
    "QuantReLU 4 bits",
    "QuantReLU 8 bits per channel",
    "QuantIdentity 4 bits",
    "QuantIdentity SignedBinaryActPerTensorConst",
    "QuantConv2d Int8WeightPerChannelFloat",
    "BatchNorm2d",
    "MaxPool2d",
    "residual",
    "concatenated",
)
_CONVERSIONS: dict[str, Callable[[ModelWrapper], ModelWrapper]] = {
    "cleanup": lambda model: model,
    "QCDQ": lambda model: model.transform(QuantToQCDQ()),
    "Quant": lambda model: model.transform(QCDQToQuant()),
    "lowered convolutions": lambda model: model.transform(LowerConvsToMatMul()),
    "scales in operators of their own": lambda model: model.transform(ExtractQuantScaleZeroPt()),
    "biases in operators of their own": lambda model: model.transform(ExtractBiasFromConv()),
    "BatchNormalization as Mul and Add": lambda model: model.transform(BatchNormToAffine()),
    "Gemm as MatMul": lambda model: model.transform(GemmToMatMul()),
    "folded transposes": lambda model: model.transform(FoldTransposeIntoQuantInit()),
    "batches of 4": lambda model: model.transform(ChangeBatchSize(4)),
}

# Of small images alone: for 300 pixels qonnx takes minutes.
_CHANNELS_LAST: dict[str, Callable[[ModelWrapper], ModelWrapper]] = {
    "channels last": lambda model: model.transform(ConvertToChannelsLastAndClean(make_input_channels_last=False)),
    "channels last, inputs too": lambda model: model.transform(
        ConvertToChannelsLastAndClean(make_input_channels_last=True)
    ),
}


def files(folder: Path) -> Iterator[tuple[str, Path]]:
    """Name and path of each; what qonnx cannot convert is left out."""
    logging.disable(logging.WARNING)
    shipped = Path(qonnx.__file__).parent / "data" / "onnx"
    sources = [(str(path.relative_to(shipped).with_suffix("")), path) for path in sorted(shipped.rglob("*.onnx"))]
    yield from sources
    exports = folder / "brevitas"
    exports.mkdir()
    conversions = [(source, _CONVERSIONS) for source in sources]
    conversions += [(source, _CONVERSIONS | _CHANNELS_LAST) for source in _exports(exports)]
    for (name, path), chosen in conversions:
        cleaned = cleanup_model(ModelWrapper(str(path)))
        for kind, convert in chosen.items():
            written = folder / f"{name.replace('/', ', ')}, {kind}.onnx"
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    convert(cleaned).save(str(written))
            except Exception:  # qonnx raises what its passes do
                continue
            yield written.stem, written
    logging.disable(logging.NOTSET)


def _exports(folder: Path) -> Iterator[tuple[str, Path]]:
    networks = brevitas_models.networks()
    for network in _NETWORKS:
        for encoding in brevitas_models.EXPORTERS:
            path = folder / f"{network}, {encoding}.onnx"
            try:
                brevitas_models.export(networks[network], path, encoding, dynamo=False)
            except Exception:  # QCDQ has no binary values, for example
                continue
            yield path.stem, path
