"""The `pconv::ParallelSpike` operator: names, node, executable reference, function body, native library.

The contract is docs/ParallelSpike-1.md.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx.parser

from pconv_onnx.bodies import CONSTANTS, along_channels, element_type
from pconv_onnx.errors import PconvError
from pconv_onnx.graph.tensors import values
from pconv_onnx.neuron import SUM_TYPES, Array, ParallelNeuron, temporal_mean

if TYPE_CHECKING:
    import onnxruntime

DOMAIN = "pconv"
OP_TYPE = "ParallelSpike"
# The mean over time by itself, where a current is decoded; a function of standard operators, no kernel.
MEAN_OP_TYPE = "TemporalMean"
# The means over the first 1, 2, … T time-steps, where an output is asked for step by step; likewise.
RUNNING_MEAN_OP_TYPE = "RunningMean"
VERSION = 1

# GreaterOrEqual, Clip and Split with the signatures that the body and the lowerings use.
MIN_OPSET = 13

# The oldest that tests run with.
MIN_ONNXRUNTIME = "1.20"

# Entry of session options that have the library: onnxruntime refuses a model where it was registered twice.
_REGISTERED = "pconv_onnx.library"

_LIBRARY_FOLDER = Path(__file__).parent / "lib"
_LIBRARY_NAME = "libpconv_ops.so"
# What its build knows of it.
_FACTS_NAME = "pconv_ops.json"


def attributes(neuron: ParallelNeuron, *, input_steps: int, spikes: bool) -> dict[str, int]:
    """The attributes of a node that runs `neuron`; all of them, since a kernel assumes no default."""
    channel_axis = 1 if neuron.channel_axis is None else neuron.channel_axis
    return {"input_steps": input_steps, "channel_axis": channel_axis, "spikes": int(spikes)}


def neuron_of(node: onnx.NodeProto, initializers: Mapping[str, onnx.TensorProto]) -> ParallelNeuron:
    """The neuron that a node runs, from the tables of its model by name.

    Raises:
        KeyError: an attribute is missing, or a table is no initializer.
        ValueError: the tables are not those of a neuron.
    """
    thresholds, levels = (values(initializers[name], None) for name in node.input[1:])
    if levels.ndim != 2:
        raise ValueError(f"levels of shape {levels.shape} are no table")
    channel_axis = attribute(node, "channel_axis")
    return ParallelNeuron(thresholds, levels, channel_axis if len(levels) > 1 else None)


def attribute(node: onnx.NodeProto, name: str) -> int:
    """The value of an attribute of a node.

    Raises:
        KeyError: it is missing.
    """
    return {entry.name: int(entry.i) for entry in node.attribute}[name]


def reference(
    current: Array, thresholds: Array, levels: Array, *, input_steps: int, channel_axis: int, spikes: int
) -> Array:
    """The operator in NumPy, as the specification words it.

    Args:
        current: `[I·B, …]`, time-major.
        thresholds: `[R, S]`.
        levels: `[R, S+1]`.
        input_steps: I.
        channel_axis: axis of `current` for the rows of the tables.
        spikes: 1 for trains `[S·B, …]`, 0 for the temporal mean `[B, …]`.

    Raises:
        ValueError: ranks, shapes or attributes that the specification rules out.
    """
    if current.ndim < 1 or input_steps < 1 or current.shape[0] % input_steps:
        raise ValueError(f"current of shape {list(current.shape)} does not hold {input_steps} time-steps")
    neuron = ParallelNeuron(thresholds, levels, channels_of(current, thresholds, channel_axis))
    batch = current.shape[0] // input_steps
    mean = temporal_mean(current.reshape(input_steps, batch, *current.shape[1:]))
    if not spikes:
        return neuron.value(neuron.search_form(mean))
    return neuron.trains(mean).reshape(neuron.steps * batch, *current.shape[1:])


def channels_of(current: Array, table: Array, channel_axis: int) -> int | None:
    """The axis of `current` that the rows of a table run along; None where there is one row for all.

    Raises:
        ValueError: the rows are not those of its channels.
    """
    rows = len(table)
    if rows == 1:
        return None
    axis = channel_axis + current.ndim if channel_axis < 0 else channel_axis
    if rows < 1 or not 0 < axis < current.ndim or current.shape[axis] != rows:
        raise ValueError(f"a table has {rows} rows, current of shape {list(current.shape)} has no such channels")
    return axis


def functions(opset: int, dtype: np.dtype[Any], max_steps: int) -> list[onnx.FunctionProto]:
    """The operators as model-local functions of standard operators, for models of that opset and type.

    onnxruntime inlines a body under the model's opset and ignores the body's own, hence one for each opset; and no
    operator chooses the type of the time sum by the type of the current, hence one for each type. The first
    operation on a current is a comparison, a Cast or an Identity: onnxruntime would fold a Mul or an Add into the Conv
    before it and change bits.

    Args:
        opset: version of the default domain, at least `MIN_OPSET`.
        dtype: type of the currents, one of `SUM_TYPES`.
        max_steps: the largest T of the model; bounds the depth of the search for the spike count.
    """
    return [_temporal_mean(opset, dtype), _parallel_spike(opset, dtype, max_steps)]


def running_mean(opset: int, dtype: np.dtype[Any]) -> onnx.FunctionProto:
    """`pconv::RunningMean`, `[T·B, …]` to `[T, B, …]`: row t is the mean of the first t time-steps."""
    return onnx.parser.parse_function(f"""
    <opset_import: ["" : {opset}], domain: "{DOMAIN}">
    {RUNNING_MEAN_OP_TYPE} <steps> (current) => (means)
    {{
        {CONSTANTS}
        count = Constant <value_int: int = @steps> ()
        {_running_sum(opset, dtype)}
        after = Add (count, one)
        step = Range (one, after, one)
        rank = Shape (by_time_shape)
        ones = Expand (one, rank)
        divisor_shape = ScatterElements (ones, first, count_1d)
        divisor_by_time = Reshape (step, divisor_shape)
        divisor = Cast <to = {element_type(SUM_TYPES[dtype])}> (divisor_by_time)
        quotient = Div (running, divisor)
        means = Cast <to = {element_type(dtype)}> (quotient)
    }}
    """)


def _reshape(opset: int, name: str, source: str, shape: tuple[str, str, str]) -> str:
    """`name`, the Reshape of `source` to three joined parts; the second is the number of rows, which may be zero.

    A zero there would mean "as in the input" but for an attribute that came with opset 14. Before, the number is left
    open.
    """
    before, rows, after = shape
    if opset < 14:
        rows = f"{name}_open"
    nodes = f"{rows} = Constant <value_ints = [-1]> ()" if opset < 14 else ""
    allow_zero = " <allowzero = 1>" if opset >= 14 else ""
    return f"""
                {nodes}
                {name}_shape = Concat <axis = 0> ({before}{", " if before else ""}{rows}, {after})
                {name} = Reshape{allow_zero} ({source}, {name}_shape)"""


def _running_sum(opset: int, dtype: np.dtype[Any]) -> str:
    """`running` `[T, B, …]` of `current` `[T·B, …]`, in order and in the type of `SUM_TYPES`."""
    return f"""
                shape = Shape (current)
                rows = Slice (shape, first, second)
                sample = Slice (shape, second, end)
                count_1d = Reshape (count, second)
                batch = Div (rows, count_1d)
                wide = Cast <to = {element_type(SUM_TYPES[dtype])}> (current)
                {_reshape(opset, "by_time", "wide", ("count_1d", "batch", "sample"))}
                running = CumSum (by_time, zero)"""


def _temporal_mean(opset: int, dtype: np.dtype[Any]) -> onnx.FunctionProto:
    """`[T·B, …]` to `[B, …]`. A running sum, since the order of ReduceSum is not defined.

    If hands on float32, which it does for every opset, and which holds half types and what is rounded to them.
    """
    return onnx.parser.parse_function(f"""
    <opset_import: ["" : {opset}], domain: "{DOMAIN}">
    {MEAN_OP_TYPE} <steps> (current) => (mean)
    {{
        {CONSTANTS}
        count = Constant <value_int: int = @steps> ()
        no_time_axis = Equal (count, one)
        wide_mean = If (no_time_axis) <
            then_branch = static () => (float[] value)
            {{
                value = Cast <to = 1> (current)
            }},
            else_branch = over_time () => (float[] average)
            {{
                {_running_sum(opset, dtype)}
                last = Sub (count, one)
                total = Gather <axis = 0> (running, last)
                divisor = Cast <to = {element_type(SUM_TYPES[dtype])}> (count)
                quotient = Div (total, divisor)
                average = Cast <to = 1> (quotient)
            }}
        >
        mean = Cast <to = {element_type(dtype)}> (wide_mean)
    }}
    """)


# Up to so many time-steps a comparison with each threshold is faster than a search, whose Gathers are slow.
_FEW_STEPS = 16


def _comparing(steps: int) -> tuple[str, str]:
    """Tables, and `count` of each element: how many of the `padded` thresholds `[R, steps]` it reaches."""
    tables = "".join(
        f"""
        start_{t} = Constant <value_ints = [{t - 1}]> ()
        end_{t} = Constant <value_ints = [{t}]> ()
        column_{t} = Slice (padded, start_{t}, end_{t}, second)
        threshold_{t} = Reshape (column_{t}, along_channels)"""
        for t in range(1, steps + 1)
    )
    # Counts are small enough to be exact in floats, which onnxruntime casts and adds fastest.
    compared = "".join(
        f"""
                reached_{t} = GreaterOrEqual (mean, threshold_{t})
                step_{t} = Cast <to = 1> (reached_{t})
                count_{t} = {f"Add (count_{t - 1}, step_{t})" if t > 1 else f"Identity (step_{t})"}"""
        for t in range(1, steps + 1)
    )
    return (
        tables,
        f"""{compared}
                count = Cast <to = 6> (count_{steps})""",
    )


def _searching(width: int) -> tuple[str, str]:
    """The same by binary search among `width = 2^n − 1` padded thresholds; positions count from the first row."""
    strides = [1 << bit for bit in reversed(range(width.bit_length()))]
    before = dict(zip(strides, ["row", *(f"after_{stride}" for stride in strides)], strict=False))
    probes = {
        stride: f"""
        probe_{stride} = Constant <value = int32 {{{stride - 1}}}> ()
        position_{stride} = Add ({before[stride]}, probe_{stride})
        threshold_{stride} = Gather (table, position_{stride})"""
        for stride in strides
    }
    # The first probe is the same for all elements of a channel, and so a table.
    tables = f"""
        table = Reshape (padded, flat)
        row_start = Mul (channel_index, width)
        row_start_32 = Cast <to = 6> (row_start)
        row = Reshape (row_start_32, along_channels)
        {probes.pop(strides[0])}"""
    halvings = "".join(
        f"""
                {probes.get(stride, "")}
                reached_{stride} = GreaterOrEqual (mean, threshold_{stride})
                weight_{stride} = Cast <to = 6> (reached_{stride})
                stride_{stride} = Constant <value = int32 {{{stride}}}> ()
                step_{stride} = Mul (weight_{stride}, stride_{stride})
                after_{stride} = Add ({before[stride]}, step_{stride})"""
        for stride in strides
    )
    return (
        tables,
        f"""{halvings}
                count = Sub (after_1, row)""",
    )


def _parallel_spike(opset: int, dtype: np.dtype[Any], max_steps: int) -> onnx.FunctionProto:
    """No `[T, …]` tensor is built where only the temporal mean is asked for.

    Tables are made outside the branches: onnxruntime 1.26 loses constants that it has folded within a branch, once it
    puts the branch in the place of its If.

    Everything is compared in float32, which holds each type exactly: few providers compare half types and choose among
    them.
    """
    few = max_steps <= _FEW_STEPS
    width = max_steps if few else (1 << max_steps.bit_length()) - 1
    tables, count = _comparing(width) if few else _searching(width)
    text = f"""
    <opset_import: ["" : {opset}, "{DOMAIN}" : {VERSION}], domain: "{DOMAIN}">
    {OP_TYPE} <input_steps, channel_axis, spikes> (current, thresholds, levels) => (output)
    {{
        {CONSTANTS}
        third = Constant <value_ints = [2]> ()
        wants_spikes = Constant <value_int: int = @spikes> ()

        own_mean = {DOMAIN}.{MEAN_OP_TYPE} <steps: int = @input_steps> (current)
        mean = Cast <to = 1> (own_mean)
        threshold_rows = Cast <to = 1> (thresholds)
        level_rows = Cast <to = 1> (levels)
        {along_channels("mean", "thresholds")}
        out_steps_1d = Slice (table_shape, second, third)

        width = Constant <value_ints = [{width}]> ()
        unused = Sub (width, out_steps_1d)
        padding_shape = Concat <axis = 0> (channels_1d, unused)
        nothing = Constant <value = float {{0.0}}> ()
        never = Div (nothing, nothing)
        padding = Expand (never, padding_shape)
        padded = Concat <axis = 1> (threshold_rows, padding)
        flat = Constant <value_ints = [-1]> ()
        channels = Squeeze (channels_1d)
        channel_index = Range (zero, channels, one)
        {tables}
        level_table = Reshape (level_rows, flat)
        level_end = Add (out_steps_1d, second)
        level_start = Mul (channel_index, level_end)
        level_start_32 = Cast <to = 6> (level_start)
        level_row = Reshape (level_start_32, along_channels)
        by_step = Transpose <perm = [1, 0]> (threshold_rows)
        step_shape = Concat <axis = 0> (out_steps_1d, along_channels)
        threshold = Reshape (by_step, step_shape)
        silent_column = Slice (level_rows, first, second, second)
        silent = Reshape (silent_column, along_channels)
        firing_column = Slice (level_rows, out_steps_1d, level_end, second)
        firing = Reshape (firing_column, along_channels)

        emits_mean = Equal (wants_spikes, zero)
        value = If (emits_mean) <
            then_branch = temporal_mean () => (float[] level)
            {{
                {count}
                level_position = Add (count, level_row)
                level = Gather (level_table, level_position)
            }},
            else_branch = spike_trains () => (float[] trains)
            {{
                fires = GreaterOrEqual (mean, threshold)
                by_time = Where (fires, firing, silent)
                out_batch = Slice (shape, first, second)
                out_rows = Mul (out_batch, out_steps_1d)
                out_sample = Slice (shape, second, end)
                {_reshape(opset, "trains", "by_time", ("", "out_rows", "out_sample"))}
            }}
        >
        output = Cast <to = {element_type(dtype)}> (value)
    }}
    """
    return onnx.parser.parse_function(text)


def library_path() -> Path:
    """Where the native library lies.

    Raises:
        PconvError: this installation has none.
    """
    path = _LIBRARY_FOLDER / _LIBRARY_NAME
    if path.is_file():
        return path
    raise PconvError(
        "this installation of pconv-onnx has no native library",
        "models run through their function body, more slowly; to build it install a C++ compiler and reinstall",
    )


def has_cuda_kernels() -> bool:
    """Whether the native library was built with kernels for onnxruntime's CUDA provider.

    Raises:
        PconvError: this installation has no native library, or one without the file that tells.
    """
    facts = library_path().with_name(_FACTS_NAME)
    try:
        return "cuda" in json.loads(facts.read_bytes())["providers"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise PconvError(
            f"'{facts}' is missing or damaged: it says whether the native library has CUDA kernels",
            "reinstall pconv-onnx, or copy that file too; until then models on CUDA run through their function body",
        ) from error


def register(options: onnxruntime.SessionOptions) -> onnxruntime.SessionOptions:
    """Register the native library with session options, once however often this is called, and return them.

    Raises:
        PconvError: there is no library, or onnxruntime cannot load it.
    """
    path = library_path()
    try:
        options.get_session_config_entry(_REGISTERED)
        return options
    except RuntimeError:  # no such entry
        pass
    try:
        options.register_custom_ops_library(str(path))
    except Exception as error:  # onnxruntime raises its own types for this, without a common base
        raise PconvError(f"onnxruntime cannot load {path}: {error}", "reinstall pconv-onnx on this machine") from error
    options.add_session_config_entry(_REGISTERED, str(path))
    return options


def is_operator(node: onnx.NodeProto) -> bool:
    """Whether a node is this operator."""
    return bool(node.domain == DOMAIN and node.op_type == OP_TYPE)


def is_layer(node: onnx.NodeProto, mode: str | None) -> bool:
    """Whether a node of a network that was rewritten in that mode is a layer of neurons.

    In mode parallel those that emit means are none, but decode trains.

    Raises:
        KeyError: an attribute is missing.
    """
    return is_operator(node) and attribute(node, "spikes") == (mode == "parallel")
