"""The record in the metadata of a rewritten file: how it was made. Written and read in this module only."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import onnx

from pconv_onnx.basics.choices import CODINGS, MODES
from pconv_onnx.basics.errors import PconvError
from pconv_onnx.basics.version import own_version

# The prefix of this project's keys in metadata.
PREFIX = "pconv_onnx."
# The key in a node's metadata for the name of the activation that it is a part of.
ACTIVATION = f"{PREFIX}activation"
# The key for a further name of that activation.
ALSO_CALLED = f"{PREFIX}also_called"

# The form of records that are written. Records of form 1, which do not state their form, have no kinds in time; those
# of form 2 have one coding; those of form 3 have no widened levels.
FORM = 4
# The newest form of a record without these, so that earlier builds can read it.
_WITHOUT_WIDENING, _WITHOUT_CODINGS = 3, 2

# More steps or channels, and more axes, than any network has.
_MOST, _MOST_AXES = 1 << 31, 64

# Types in which activations are computed.
_FLOATS = ("float16", "bfloat16", "float32", "float64")
# Integer types to which weights are rounded.
_INTEGERS = ("int8", "int4")


@dataclass(frozen=True)
class Converted:
    """A converted activation.

    Attributes:
        name: of the activation.
        node: name of its neuron's node.
        input: name of the pre-activation in the source.
        output: name of its output in the source.
        dtype: the type that the source computes it in.
        steps: the neuron's number of time-steps, T.
        levels: the number of levels of the source's activation; None if there is none.
    """

    name: str
    node: str
    input: str
    output: str
    dtype: str
    steps: int
    levels: int | None


@dataclass(frozen=True)
class InTime:
    """A tensor with time-steps; in mode `folded`, one that stands for such a tensor.

    Attributes:
        steps: number of time-steps, T.
        levels: for spike trains, the name of the neuron's node whose levels they have. If channels have the levels of
            several neurons, runs of neuron, first row and number of rows (one row of a neuron may stand for many).
            None for a current.
        channel_axis: the axis along which the rows of `levels` run; None if there is one row.
        coding: for spike trains, how they carry spike counts.
        zero: the spike count of a silent neuron.
        highest: the highest spike count, if trains of different neurons stand side by side and their levels are widened
            to this and `zero` (`neuron.widening`); None if they are not widened.
    """

    steps: int
    levels: str | Sequence[tuple[str, int, int]] | None = None
    channel_axis: int | None = None
    coding: str = "rate"
    zero: int = 0
    highest: int | None = None

    @property
    def form(self) -> int:
        """The first form of records that can hold it."""
        if self.highest is not None:
            return FORM
        return _WITHOUT_WIDENING if self.coding != InTime.coding or self.zero > 0 else _WITHOUT_CODINGS

    @property
    def neurons(self) -> Sequence[str]:
        """The neurons whose levels they have."""
        if self.levels is None:
            return []
        return [self.levels] if isinstance(self.levels, str) else [name for name, _, _ in self.levels]


@dataclass(frozen=True)
class Record:
    """What `rewrite` did to a network.

    Attributes:
        source_sha256: SHA-256 of the source.
        mode: the name of the mode.
        steps: number of time-steps, T; None if neurons differ.
        activations: one row for each activation of the source, as in the JSON document of `rewrite`, and with the names
            `node`, `input` and `output`.
        per_step_outputs: names of the outputs that give an output of the source at each step.
        hybrid: names of the activations that stay analog between neurons.
        potentials: for a serial network, the names of the membrane potentials: for each input, the output that the next
            step takes there. The first step takes zeros.
        calibration: how levels were found, if the source had none: `method`, `samples`, `random`, and `outputs`, the
            activations that differ from the source's.
        calibrated_form: a sketch of the network that calibration made from the source; neurons replace its activations.
        integer: if weights are integers: `weights` ("int8" or "int4"), `input_bits` (8, or None if inputs are floats)
            and `islands`, the nodes that compute in floats, by name. None if weights are floats.
        kinds: the tensors of the file that are in time, by name; None in records of form 1.
        version: the version of pconv-onnx that wrote it.
        carriers: in mode `integer`, a sketch of the same network with the integers in floats. Names of tensors and
            nodes in this record are those of the sketch.
    """

    source_sha256: str
    mode: str
    steps: int | None
    activations: Sequence[Mapping[str, Any]]
    per_step_outputs: Sequence[str] = ()
    hybrid: Sequence[str] = ()
    potentials: Mapping[str, str] = field(default_factory=dict)
    calibration: Mapping[str, Any] | None = None
    calibrated_form: str | None = None
    integer: Mapping[str, Any] | None = None
    kinds: Mapping[str, InTime] | None = None
    version: str = field(default_factory=own_version)
    carriers: str | None = None

    @property
    def converted(self) -> list[Converted]:
        """The converted activations.

        Raises:
            ValueError: a row does not have the form that `rewrite` writes.
        """
        return [_converted(row) for row in self.activations if row["status"] == "converted"]

    @property
    def coding(self) -> str | None:
        """The coding of the neurons' spike trains; None if they differ."""
        codings = {str(row.get("coding", "rate")) for row in self.activations if row["status"] == "converted"}
        return codings.pop() if len(codings) == 1 else None

    def write(self, model: onnx.ModelProto) -> None:
        """Write it into a model's metadata; it replaces a record that is there."""
        entries = {
            "version": self.version,
            "form": json.dumps(max((kind.form for kind in (self.kinds or {}).values()), default=_WITHOUT_CODINGS)),
            "source_sha256": self.source_sha256,
            "mode": self.mode,
            "steps": json.dumps(self.steps),
            "activations": json.dumps(self.activations),
            "per_step_outputs": json.dumps(self.per_step_outputs),
            "hybrid": json.dumps(self.hybrid),
            "kinds": json.dumps({name: _without_defaults(kind) for name, kind in (self.kinds or {}).items()}),
        }
        if self.potentials:
            entries["potentials"] = json.dumps(self.potentials)
        if self.calibration is not None:
            entries["calibration"] = json.dumps(self.calibration)
        if self.calibrated_form is not None:
            entries["calibrated_form"] = self.calibrated_form
        if self.integer is not None:
            entries["integer"] = json.dumps(self.integer)
        if self.carriers is not None:
            entries["carriers"] = self.carriers
        kept = [entry for entry in model.metadata_props if not entry.key.startswith(PREFIX)]
        del model.metadata_props[:]
        model.metadata_props.extend(kept)
        for key, value in entries.items():
            model.metadata_props.add(key=PREFIX + key, value=value)

    @classmethod
    def read(cls, model: onnx.ModelProto) -> Record:
        """The record of a model.

        Raises:
            ValueError: there is none, or it does not have the form that `rewrite` writes.
            PconvError: a later version of pconv-onnx wrote it.
        """
        return cls.of({entry.key: entry.value for entry in model.metadata_props})

    @classmethod
    def of(cls, metadata: Mapping[str, str]) -> Record:
        """The record in a model's metadata, as `read` gives it."""
        entries = _own(metadata)
        try:
            form = _parsed(entries.get("form", "1"), int)
            if form > FORM:
                raise PconvError(
                    f"the record of the model has form {form}, of a later version of pconv-onnx", "update pconv-onnx"
                )
            if entries["mode"] not in MODES:
                raise ValueError(f"there is no mode '{entries['mode']}'")
            calibration = _parsed(entries.get("calibration", "null"), dict | None)
            if calibration is not None:
                _texts(_listed(calibration.get("outputs", [])))
            return cls(
                source_sha256=entries["source_sha256"],
                mode=entries["mode"],
                steps=_steps(_parsed(entries["steps"], int | None)),
                activations=[_row(row) for row in _parsed(entries["activations"], list)],
                per_step_outputs=_texts(_parsed(entries.get("per_step_outputs", "[]"), list)),
                hybrid=_texts(_parsed(entries.get("hybrid", "[]"), list)),
                potentials=_names(_parsed(entries.get("potentials", "{}"), dict)),
                calibration=calibration,
                calibrated_form=entries.get("calibrated_form"),
                integer=_integer(_parsed(entries.get("integer", "null"), dict | None)),
                carriers=entries.get("carriers"),
                kinds=None if form == 1 else _kinds(_parsed(entries["kinds"], dict)),
                version=entries["version"],
            )
        except KeyError as error:
            raise ValueError(f"there is no {error} in the record") from error


def name_activation(node: onnx.NodeProto, name: str, also_called: str) -> None:
    """Write into a node's metadata which activation it is a part of, and a further name of that, if it has one."""
    node.metadata_props.add(key=ACTIVATION, value=name)
    if also_called:
        node.metadata_props.add(key=ALSO_CALLED, value=also_called)


def has_record(metadata: Mapping[str, str]) -> bool:
    """Whether a model's metadata have any entry of a record."""
    return any(key.startswith(PREFIX) for key in metadata)


def is_rewritten(model: onnx.ModelProto) -> bool:
    """Whether a model has any entry of a record."""
    return has_record({entry.key: entry.value for entry in model.metadata_props})


def _own(metadata: Mapping[str, str]) -> dict[str, str]:
    """The entries that are this project's, without its prefix."""
    return {key.removeprefix(PREFIX): value for key, value in metadata.items() if key.startswith(PREFIX)}


def _parsed(entry: str, expected: Any) -> Any:
    """An entry that is a JSON document of a given type."""
    try:
        found = json.loads(entry)
    except RecursionError as error:
        raise ValueError("an entry is nested too deeply") from error
    if not isinstance(found, expected) or isinstance(found, bool):
        raise ValueError(f"an entry is of type {type(found).__name__}")
    return found


def _steps(found: int | None) -> int | None:
    if found is not None and not _is_number(found, 1, _MOST):
        raise ValueError(f"{found} is not a number of time-steps")
    return found


def _row(row: Any) -> Mapping[str, Any]:
    if not isinstance(row, dict) or not isinstance(row.get("status"), str):
        raise ValueError(f"an activation is {row!r}")
    return row


def _converted(row: Mapping[str, Any]) -> Converted:
    found = Converted(**{entry.name: row.get(entry.name) for entry in fields(Converted)})  # type: ignore[arg-type]
    texts = (found.name, found.node, found.input, found.output, found.dtype)
    if not all(isinstance(text, str) for text in texts) or found.dtype not in _FLOATS:
        raise ValueError(f"the names or the type of an activation are {texts}")
    if not isinstance(found.steps, int) or not isinstance(found.levels, int | None):
        raise ValueError(f"an activation has {found.levels!r} levels in {found.steps!r} steps")
    return found


def _texts(found: list[Any]) -> list[str]:
    if not all(isinstance(text, str) for text in found):
        raise ValueError(f"names are {found!r}")
    return found


def _names(found: dict[str, Any]) -> dict[str, str]:
    _texts(list(found.values()))
    return found


def _integer(found: dict[str, Any] | None) -> dict[str, Any] | None:
    if found is None:
        return None
    right = found.get("weights") in _INTEGERS and found.get("input_bits", 0) in (8, None)
    if not right or not isinstance(found.get("islands"), dict):
        raise ValueError(f"integers are {found!r}")
    return found


def _kinds(found: dict[str, Any]) -> dict[str, InTime]:
    try:
        kinds = {name: InTime(**kind) for name, kind in found.items()}
    except TypeError as error:
        raise ValueError(f"a kind in time is none: {error}") from error
    for name, kind in kinds.items():
        runs = [] if isinstance(kind.levels, str | None) else _listed(kind.levels)
        right = _is_number(kind.steps, 1, _MOST) and all(
            isinstance(run, list) and len(run) == 3 and isinstance(run[0], str)
            and _is_number(run[1], 0, _MOST) and _is_number(run[2], 1, _MOST)
            for run in runs
        ) and kind.coding in CODINGS[1:] and _is_number(kind.zero, 0, _MOST)  # fmt: skip
        right &= kind.highest is None or _is_number(kind.highest, 1, _MOST)
        if not right or not (kind.channel_axis is None or _is_number(kind.channel_axis, 1, _MOST_AXES)):
            raise ValueError(f"the kind in time of '{name}' is none that rewrite writes")
    return kinds


def _is_number(value: Any, least: int, most: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most


def _listed(found: Any) -> list[Any]:
    if not isinstance(found, list):
        raise ValueError(f"no list is {type(found).__name__}")
    return found


def _without_defaults(kind: InTime) -> dict[str, Any]:
    return {entry.name: value for entry in fields(kind) if (value := getattr(kind, entry.name)) != entry.default}
