"""pconv-onnx: pretrained ANNs in ONNX become parallel spiking networks in ONNX.

The public API. Names are imported when first used, so that the command line starts at once.
"""

import logging
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pconv_onnx.basics.errors import PconvError
    from pconv_onnx.calibration import Calibration, calibrate, calibrate_each
    from pconv_onnx.deployment import Deployment, NirReading, deploy, from_nir
    from pconv_onnx.engine.ray import RayEngine
    from pconv_onnx.measure.benchmarking import Benchmark, bench
    from pconv_onnx.measure.evaluation import Evaluation, evaluate
    from pconv_onnx.measure.statistics import Stats, stats
    from pconv_onnx.measure.verification import Verification, verify
    from pconv_onnx.neuron.parallel import ParallelNeuron
    from pconv_onnx.neuron.quantiser import QuantizerSpec
    from pconv_onnx.operators.library import library_path, register
    from pconv_onnx.rewriting import Inspection, Rewriting, inspect, rewrite
    from pconv_onnx.runtime.installation import Installation, doctor
    from pconv_onnx.runtime.opening import session
    from pconv_onnx.runtime.serial_session import SerialSession

    __version__: str

__all__ = [
    "Benchmark",
    "Calibration",
    "Deployment",
    "Evaluation",
    "Inspection",
    "Installation",
    "NirReading",
    "ParallelNeuron",
    "PconvError",
    "QuantizerSpec",
    "RayEngine",
    "Rewriting",
    "SerialSession",
    "Stats",
    "Verification",
    "bench",
    "calibrate",
    "calibrate_each",
    "deploy",
    "doctor",
    "evaluate",
    "from_nir",
    "inspect",
    "library_path",
    "register",
    "rewrite",
    "session",
    "stats",
    "verify",
]

# No module has the name of a function: importing it would put the module in the function's place.
_MODULES = {
    "Benchmark": "measure.benchmarking",
    "Calibration": "calibration",
    "Deployment": "deployment",
    "Evaluation": "measure.evaluation",
    "Inspection": "rewriting",
    "Installation": "runtime.installation",
    "NirReading": "deployment",
    "ParallelNeuron": "neuron.parallel",
    "PconvError": "basics.errors",
    "QuantizerSpec": "neuron.quantiser",
    "RayEngine": "engine.ray",
    "Rewriting": "rewriting",
    "SerialSession": "runtime.serial_session",
    "Stats": "measure.statistics",
    "Verification": "measure.verification",
    "bench": "measure.benchmarking",
    "calibrate": "calibration",
    "calibrate_each": "calibration",
    "deploy": "deployment",
    "doctor": "runtime.installation",
    "evaluate": "measure.evaluation",
    "from_nir": "deployment",
    "inspect": "rewriting",
    "library_path": "operators.library",
    "register": "operators.library",
    "rewrite": "rewriting",
    "session": "runtime.opening",
    "stats": "measure.statistics",
    "verify": "measure.verification",
}

# What is logged is for whoever asks for it: logging.basicConfig(level="INFO").
logging.getLogger(__name__).addHandler(logging.NullHandler())


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return import_module("pconv_onnx.basics.version").own_version()
    if name not in _MODULES:
        raise AttributeError(f"module 'pconv_onnx' has no attribute '{name}'")
    return getattr(import_module(f"pconv_onnx.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    """The public names, which are not there before they are used."""
    return sorted({*globals(), *__all__, "__version__"})
