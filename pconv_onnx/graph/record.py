"""The record: what a rewritten file says of itself in its metadata, written and read here alone."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import onnx

from pconv_onnx.basics.choices import CODINGS, MODES
from pconv_onnx.basics.errors import PconvError
from pconv_onnx.basics.version import own_version

# Of keys in metadata that are this project's.
PREFIX = "pconv_onnx."
# In the metadata of a node: the name of the activation that it is a part of.
ACTIVATION = f"{PREFIX}activation"

# The form of records that are written. Those of form 1, which did not say so, have no kinds in time; those of form 2
# know one coding; those of form 3 know levels of neurons as they are.
FORM = 4
# Earlier builds read what does without.
_WITHOUT_WIDENING, _WITHOUT_CODINGS = 3, 2

# Larger than any number of steps, channels or axes that a network has.
_MOST, _MOST_AXES = 1 << 31, 64

# Types that activations compute in.
_FLOATS = ("float16", "bfloat16", "float32", "float64")
# Types that weights are rounded to.
_INTEGERS = ("int8", "int4")


@dataclass(frozen=True)
class Converted:
    """A converted activation.

    Attributes:
        name: of the activation.
        node: name of its neuron's node.
        input: the pre-activation, by the name that it has in the source.
        output: its value, likewise.
        dtype: the type that the source computes it in.
        steps: T of the neuron.
        levels: those of the source.
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
    """A tensor with time-steps; in a file that folds them away, one that stands for such.

    Attributes:
        steps: T.
        levels: of spike trains the neuron whose levels they have, by the name of its node; or, where channels have
            those of several, runs of neuron, first row and number of rows (one row of a neuron may stand for many).
            None of a current.
        channel_axis: the axis along which the rows of `levels` run; None where R = 1.
        coding: of spike trains, how they carry spike counts.
        zero: the spike count of silence.
        highest: the highest spike count, where the levels of neurons are widened to that and `zero`
            (`neuron.widening`), since trains of different ones are side by side; None where they are as they are.
    """

    steps: int
    levels: str | Sequence[tuple[str, int, int]] | None = None
    channel_axis: int | None = None
    coding: str = "rate"
    zero: int = 0
    highest: int | None = None

    @property
    def form(self) -> int:
        """The first form of records that has it."""
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
        source_sha256: digest of the source.
        mode: the name of the mode.
        steps: T; None where neurons differ.
        activations: one row for each of the source's, as in the JSON document of `rewrite`, with the names of `node`,
            `input` and `output` besides.
        per_step_outputs: names of the outputs that hand one of the source's out at each step.
        hybrid: names of the activations that stay analog between neurons.
        potentials: of a serial network, by input the output that the next step takes; the first takes zeros.
        calibration: how levels were found, where the source had none: `method`, `samples`, `random`, and `outputs`, the
            activations that differ from the source's.
        calibrated_form: a sketch of the network that calibration made of the source; neurons stand for its activations.
        integer: where weights are integers: `weights` ("int8" or "int4"), `input_bits` (8, or None where inputs are
            floats) and `islands`, what computes in floats, by name of its node. None where weights are floats.
        kinds: tensors of the file that are in time, by name; None in records of form 1.
        version: of pconv-onnx that wrote it.
        carriers: of a network in mode `integer` a sketch of the same in floats that hold the integers: names of tensors
            and nodes, here too, are its.
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
            ValueError: a row is not as `rewrite` writes it.
        """
        return [_converted(row) for row in self.activations if row["status"] == "converted"]

    @property
    def coding(self) -> str | None:
        """How the trains of neurons carry spike counts where all do so in one way, else None."""
        codings = {str(row.get("coding", "rate")) for row in self.activations if row["status"] == "converted"}
        return codings.pop() if len(codings) == 1 else None

    def write(self, model: onnx.ModelProto) -> None:
        """Put it into a model, in the place of another that may be there."""
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
        """That of a model.

        Raises:
            ValueError: it has none, or not one as `rewrite` writes it.
            PconvError: it is one of a later version.
        """
        return cls.of({entry.key: entry.value for entry in model.metadata_props})

    @classmethod
    def of(cls, metadata: Mapping[str, str]) -> Record:
        """That in the metadata of a model, as `read`."""
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


def has_record(metadata: Mapping[str, str]) -> bool:
    """Whether metadata of a model have anything of a record."""
    return any(key.startswith(PREFIX) for key in metadata)


def is_rewritten(model: onnx.ModelProto) -> bool:
    """Whether a model has anything of a record."""
    return has_record({entry.key: entry.value for entry in model.metadata_props})


def _own(metadata: Mapping[str, str]) -> dict[str, str]:
    """The entries that are this project's, without its prefix."""
    return {key.removeprefix(PREFIX): value for key, value in metadata.items() if key.startswith(PREFIX)}


def _parsed(entry: str, expected: Any) -> Any:
    """An entry that is a JSON document of a type."""
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
