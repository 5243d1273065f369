"""Opens models in onnxruntime, with the native library if there is one."""

from __future__ import annotations

import os
import tempfile
import warnings
from collections import Counter
from collections.abc import Sequence
from contextlib import nullcontext
from threading import Lock
from typing import TYPE_CHECKING, Any, Literal, overload

import onnx
from google.protobuf.message import DecodeError, EncodeError

from pconv_onnx.basics.domain import MIN_ONNXRUNTIME
from pconv_onnx.basics.errors import PconvError, warn
from pconv_onnx.basics.foreign_errors import reason_of
from pconv_onnx.graph.checking import newer_operators
from pconv_onnx.graph.expansion import excess_of
from pconv_onnx.graph.external import fits_in_one_file
from pconv_onnx.graph.files import NOT_LOADED, ModelSource, require_source
from pconv_onnx.graph.nesting import captured, every_graph
from pconv_onnx.graph.tensors import references
from pconv_onnx.operators.contents import contents_of
from pconv_onnx.operators.library import has_cuda_kernels, library_path, register
from pconv_onnx.runtime.blocked import stay_blocked
from pconv_onnx.runtime.cuda_graph import GraphSession, capturing
from pconv_onnx.runtime.device_memory import CUDA

if TYPE_CHECKING:
    import onnxruntime


def import_onnxruntime() -> Any:
    """The onnxruntime module.

    Raises:
        PconvError: it is not installed.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise PconvError(
            f"onnxruntime cannot be imported: {error}", "pip install 'pconv-onnx[cpu]', or 'pconv-onnx[gpu]'"
        ) from error
    return onnxruntime


_CPU = ["CPUExecutionProvider"]
# The entry of session options that says where the external data of a model in memory lie.
EXTERNAL_DATA_FOLDER = "session.model_external_initializers_file_folder_path"
# The first version of onnxruntime that takes it.
_KNOWS_FOLDER = 1, 21
# The first version that does not end the process on functions in a branch within a branch, or on looking for what to
# fuse with a convolution that a branch alone reads.
_KNOWS_NESTED = 1, 23
# Options are changed while a session is opened with them, and threads may share them.
_changing_options = Lock()


@overload
def session(
    model: ModelSource,
    *,
    providers: Sequence[Any] | None = None,
    options: onnxruntime.SessionOptions | None = None,
    cuda_graph: Literal[False] = False,
) -> onnxruntime.InferenceSession: ...


@overload
def session(
    model: ModelSource,
    *,
    providers: Sequence[Any] | None = None,
    options: onnxruntime.SessionOptions | None = None,
    cuda_graph: Literal[True],
) -> GraphSession: ...


def session(
    model: ModelSource,
    *,
    providers: Sequence[Any] | None = None,
    options: onnxruntime.SessionOptions | None = None,
    cuda_graph: bool = False,
) -> onnxruntime.InferenceSession | GraphSession:
    """Open a model in onnxruntime, with this project's operators registered.

    Without the native library, or on CUDA if the library has no CUDA kernels, the operators run through their function
    bodies, and a warning says so.

    Args:
        model: path of an ONNX file, or a model in memory.
        providers: execution providers, as onnxruntime takes them; by default the CPU's, or CUDA's for a CUDA graph. One
            that does not start is an error, unless the CPU's is listed as a fallback.
        options: session options to use; the library is registered with them. For spiking networks they also keep
            onnxruntime from fusing weights that are quantised, which would keep convolutions out of its fast layout.
        cuda_graph: capture the network's work on a GPU in the first run and replay it in the others. Shapes must be
            fixed, and every operator run on the GPU.

    Raises:
        PconvError: onnxruntime is missing, or refuses the model or the providers; a shape is open that must be fixed.
        TypeError: `model` is neither.
    """
    runner = inference_session(model, providers=providers, options=options, cuda_graph=cuda_graph)
    return GraphSession(runner) if cuda_graph else runner


def inference_session(
    model: ModelSource,
    *,
    providers: Sequence[Any] | None = None,
    options: onnxruntime.SessionOptions | None = None,
    cuda_graph: bool = False,
    potentials_stay: bool = False,
) -> onnxruntime.InferenceSession:
    """The onnxruntime session behind `session`, without a wrapper for CUDA graphs.

    Args:
        model: as `session` takes it.
        providers: as `session` takes them.
        options: as `session` takes them.
        cuda_graph: as `session` takes it.
        potentials_stay: whether the caller never reads the membrane potentials of a serial network, so that their
            elements may lie in another order than their shape says.
    """
    require_source(model)
    ort = import_onnxruntime()
    changing = nullcontext() if options is None else _changing_options
    options = options or ort.SessionOptions()
    providers = list(providers or ([CUDA] if cuda_graph else _CPU))
    if cuda_graph:
        providers = capturing(providers)
    if isinstance(model, onnx.ModelProto) and references(model):
        if not _has_entry(options, EXTERNAL_DATA_FOLDER):
            raise PconvError(*NOT_LOADED)
        _require_version(ort, _KNOWS_FOLDER, "open a model in memory that keeps tensors in files")
    names = [provider if isinstance(provider, str) else provider[0] for provider in providers]
    for name in names:
        if name not in ort.get_available_providers():
            available = ", ".join(ort.get_available_providers())
            raise PconvError(f"this onnxruntime has no provider '{name}'", f"it has {available}")
    with changing:
        runner = _opened(ort, model, providers, options, potentials_stay)
    for name in names:
        if name not in runner.get_providers() and (cuda_graph or _CPU[0] not in names):
            raise PconvError(f"onnxruntime's '{name}' does not start on this machine", "onnxruntime has logged why")
    return runner


def stock_session(
    model: ModelSource, *, providers: Sequence[Any], options: onnxruntime.SessionOptions
) -> onnxruntime.InferenceSession:
    """Open a model in onnxruntime as it is installed: this project's operators run through their function bodies.

    Raises:
        PconvError: it does not load, or a provider is not there.
    """
    ort = import_onnxruntime()
    content = _content(model)
    without = _without(ort, _without_external_data(model) if _older(ort, _KNOWS_NESTED) else None)
    name = providers[0] if isinstance(providers[0], str) else providers[0][0]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that the provider is missing, which is raised below
            runner = ort.InferenceSession(content, options, providers=providers, **without)
    except Exception as error:  # onnxruntime raises its own types, without a common base
        raise _refused(model, error) from error
    if name not in runner.get_providers():
        raise PconvError(f"onnxruntime's '{name}' is not there or does not start on this machine", "")
    return runner


def _require_version(ort: Any, version: tuple[int, int], what: str) -> None:
    """Raise where onnxruntime is older than what something needs.

    Raises:
        PconvError: it is.
    """
    if _older(ort, version):
        least = ".".join(map(str, version))
        raise PconvError(f"onnxruntime {ort.__version__} cannot {what}", f"install onnxruntime {least} or later")


def _older(ort: Any, version: tuple[int, int]) -> bool:
    return tuple(map(int, ort.__version__.split(".")[:2])) < version


def _opened(
    ort: Any, model: ModelSource, providers: list[Any], options: onnxruntime.SessionOptions, potentials_stay: bool
) -> Any:
    """A session with the library registered, in the fast layout where that can be; the options are put back.

    Raises:
        PconvError: onnxruntime refuses the library or the model.
    """
    names = [provider if isinstance(provider, str) else provider[0] for provider in providers]
    try:
        # With CPU kernels alone every neuron would be copied to the CPU and back.
        library_path()
        registers = CUDA not in names or has_cuda_kernels()
    except PconvError as error:
        warn(str(error))
    else:
        if registers:
            register(options)
        else:
            warn("the native library has no CUDA kernels; models run through their function body")
    content = _content(model)
    proto = _without_external_data(model)
    if proto is not None and (excess := excess_of(proto)):
        raise PconvError(f"onnxruntime is not given the model: {excess[0]}", excess[1])
    if proto is not None and (unknown := newer_operators(proto)):
        raise PconvError(f"the model {unknown[0]}", unknown[1])
    without = _without(ort, proto)
    if proto is not None and contents_of(proto).neurons:
        _set_default(options, "session.disable_quant_qdq", "1")
        if not without and providers == _CPU and _may_stay_blocked(ort, options, proto):
            blocked = _blocked_session(ort, content, options, potentials_stay)
            if blocked is not None:
                return blocked
    try:
        return ort.InferenceSession(content, options, providers=providers, **without)
    except Exception as error:  # onnxruntime raises its own types, without a common base
        raise _refused(model, error) from error


def _without(ort: Any, model: onnx.ModelProto | None) -> dict[str, list[str]]:
    """Arguments of a session that keep an old onnxruntime from ending the process on a model.

    Raises:
        PconvError: nothing does.
    """
    if model is None or not _older(ort, _KNOWS_NESTED):
        return {}
    if contents_of(model).nested:
        _require_version(ort, _KNOWS_NESTED, "run neurons in a branch within a branch")
    return {"disabled_optimizers": ["ConvActivationFusion"]} if _branches_alone_read_a_convolution(model.graph) else {}


def oldest_version(model: onnx.ModelProto) -> str:
    """The oldest onnxruntime that opens a model in any program, which does not know what `session` does for old ones.

    Of what would end a process only: that a version lacks an operator or an opset, it says itself.
    """
    ends = contents_of(model).nested or _branches_alone_read_a_convolution(model.graph)
    return ".".join(map(str, _KNOWS_NESTED)) if ends else MIN_ONNXRUNTIME


def _branches_alone_read_a_convolution(graph: onnx.GraphProto) -> bool:
    for part in every_graph(graph):
        made = {name for node in part.node if node.op_type == "Conv" for name in node.output}
        within = [captured(node) for node in part.node]
        read = Counter(info.name for info in part.output)
        read.update(name for node, names in zip(part.node, within, strict=True) for name in (*node.input, *names))
        if any(read[name] == 1 for name in made & set().union(*within)):
            return True
    return False


def _content(model: ModelSource) -> bytes | str:
    """What onnxruntime is given.

    Raises:
        PconvError: a model in memory is too large for that.
    """
    if not isinstance(model, onnx.ModelProto):
        return os.fspath(model)
    try:
        return model.SerializeToString()
    except (ValueError, EncodeError) as error:
        raise _refused(model, error) from error


def _refused(model: ModelSource, error: Exception) -> PconvError:
    name = "the model" if isinstance(model, onnx.ModelProto) else f"'{model}'"
    return PconvError(f"onnxruntime cannot load {name}: {reason_of(error)}", "")


def _without_external_data(model: ModelSource) -> onnx.ModelProto | None:
    """A model, not its external data; None of a file that cannot be read, which is onnxruntime's to refuse."""
    if isinstance(model, onnx.ModelProto):
        return model
    try:
        # As onnxruntime reads it, whatever its name ends in.
        return onnx.load(os.fspath(model), "protobuf", load_external_data=False)
    except (OSError, DecodeError):
        return None


def _has_entry(options: onnxruntime.SessionOptions, key: str) -> bool:
    try:
        options.get_session_config_entry(key)
    except RuntimeError:  # no such entry
        return False
    return True


def _set_default(options: onnxruntime.SessionOptions, key: str, value: str) -> None:
    """Set an entry that the user has not set."""
    if not _has_entry(options, key):
        options.add_session_config_entry(key, value)


def _may_stay_blocked(ort: Any, options: onnxruntime.SessionOptions, model: onnx.ModelProto) -> bool:
    """Whether the user leaves the optimisation of the graph to onnxruntime, and its result may be had, in one file."""
    full = options.graph_optimization_level == ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    try:
        return full and not options.optimized_model_filepath and fits_in_one_file(model)
    except ValueError:  # a tensor that can have no size, which is onnxruntime's to refuse
        return False


def _blocked_session(
    ort: Any, content: bytes | str, options: onnxruntime.SessionOptions, potentials_stay: bool
) -> Any | None:
    """A session whose neurons stay in the layout of onnxruntime's convolutions, or a plain one where none can.

    The options are put back as they were.

    Returns:
        None where the optimised graph cannot be had: no room, too large, a model that does not load.
    """
    level, severity = options.graph_optimization_level, options.log_severity_level
    try:
        found = _optimised(ort, content, options)
        if found is None:
            return None
        plain, optimised = found
        if not contents_of(optimised).neurons or not stay_blocked(optimised, potentials_stay):
            return plain
        del plain, found  # its weights are not needed beside those of the other
        options.optimized_model_filepath = ""
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        try:
            return ort.InferenceSession(optimised.SerializeToString(), options, providers=_CPU)
        except Exception:  # onnxruntime's own types: an ordinary session does as well
            return None
    finally:
        options.optimized_model_filepath = ""
        options.graph_optimization_level, options.log_severity_level = level, severity


def _optimised(
    ort: Any, content: bytes | str, options: onnxruntime.SessionOptions
) -> tuple[Any, onnx.ModelProto] | None:
    """A session, and the graph that onnxruntime made of its model; None where it cannot be had."""
    try:
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "optimised.onnx")
            options.optimized_model_filepath = path
            # It warns that the file is for this machine only, which is all that it is for.
            options.log_severity_level = max(options.log_severity_level, 3)
            plain = ort.InferenceSession(content, options, providers=_CPU)
            return plain, onnx.load(path)
    except Exception:
        # onnxruntime's own types, or no room: an ordinary session has it too and says so, or does as well.
        return None
