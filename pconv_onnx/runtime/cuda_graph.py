"""Sessions that replay one CUDA graph: fixed shapes, the same memory in each run, one launch for all kernels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from threading import Lock
from typing import TYPE_CHECKING, Any

from pconv_onnx.basics.arrays import Array
from pconv_onnx.basics.errors import PconvError, listed
from pconv_onnx.graph.record import Record, has_record
from pconv_onnx.runtime.device_memory import CUDA, dtype_of, place_of

if TYPE_CHECKING:
    import onnxruntime


def capturing(providers: Sequence[Any]) -> list[Any]:
    """The execution providers, with graph capture enabled for CUDA's.

    Raises:
        PconvError: CUDA's is not among them.
    """
    split = [(entry, {}) if isinstance(entry, str) else (entry[0], dict(entry[1])) for entry in providers]
    if CUDA not in dict(split):
        raise PconvError("a CUDA graph needs the CUDA provider", f"providers=['{CUDA}']")
    return [(name, {**options, "enable_cuda_graph": "1"} if name == CUDA else options) for name, options in split]


def _potentials(metadata: Mapping[str, str]) -> Mapping[str, str]:
    """The membrane potentials of a model, by input the output that the next step takes; none of one of others.

    Raises:
        PconvError: it was rewritten, and its record is damaged.
    """
    try:
        return Record.of(metadata).potentials if has_record(metadata) else {}
    except ValueError as error:
        raise PconvError("the record of the model is not as rewrite wrote it", "rewrite the model again") from error


class GraphSession:
    """A session whose inputs and outputs stay in one place on a device, which the first run captures.

    The membrane potentials of a serial network have one place for both, so that a replay is a time-step.

    Attributes:
        session: the onnxruntime session.
        inputs: the memory of each input, as onnxruntime's `OrtValue`; `replay` reads it.
        outputs: the memory of each output; `replay` writes it.
        binding: both, for `run_with_iobinding` with run options of the caller's.
    """

    def __init__(self, session: onnxruntime.InferenceSession) -> None:
        """Give every input and output of a session that captures its memory.

        Raises:
            PconvError: a shape is open.
        """
        place = place_of(session)
        self.session = session
        self.inputs = {info.name: _memory("input", info, place) for info in session.get_inputs()}
        kept = _potentials(session.get_modelmeta().custom_metadata_map)
        self.outputs = {after: self.inputs[before] for before, after in kept.items()} | {
            info.name: _memory("output", info, place)
            for info in session.get_outputs()
            if info.name not in kept.values()
        }
        self._names = [info.name for info in session.get_outputs()]
        self.binding = session.io_binding()
        for name, value in self.inputs.items():
            self.binding.bind_ortvalue_input(name, value)
        for name, value in self.outputs.items():
            self.binding.bind_ortvalue_output(name, value)
        self._lock = Lock()

    def run(self, output_names: Sequence[str] | None, feed: Mapping[str, Array]) -> list[Array]:
        """Run the network, like `onnxruntime.InferenceSession.run`.

        Raises:
            PconvError: an input is missing, or has another shape or type than the graph, or there is no such output.
        """
        for name in output_names or ():
            if name not in self.outputs:
                raise PconvError(f"there is no output '{name}'", f"the network has {listed(self._names)}")
        for name, value in self.inputs.items():
            found = f"{feed[name].dtype}{list(feed[name].shape)}" if name in feed else "missing"
            wanted = f"{dtype_of(value.data_type())}{list(value.shape())}"
            if found != wanted:
                raise PconvError(f"input '{name}' is {found}; the CUDA graph takes {wanted}")
        with self._lock:
            for name, value in self.inputs.items():
                value.update_inplace(feed[name])
            self.replay()
            # Of memory on the CPU it would be a view, which later runs write.
            return [self.outputs[name].numpy().copy() for name in output_names or self._names]

    def replay(self) -> None:
        """Run on the contents of `inputs`, for callers whose data are on the device already."""
        self.session.run_with_iobinding(self.binding)


def _memory(kind: str, info: Any, place: tuple[str, int]) -> Any:
    from onnxruntime import OrtValue

    for dim in info.shape:
        if not isinstance(dim, int):
            how = f"options.add_free_dimension_override_by_name('{dim}', 1)" if dim else "give it a size in the model"
            raise PconvError(f"{kind} '{info.name}' has an open dimension, which a CUDA graph cannot have", how)
    return OrtValue.ortvalue_from_shape_and_type(info.shape, dtype_of(info.type), *place)
