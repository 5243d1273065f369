"""The `pconv::ParallelSpike` operator: node, executable reference, function body.

The contract is docs/ParallelSpike-2.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx.parser

from pconv_onnx.basics.arrays import Array
from pconv_onnx.basics.domain import DOMAIN, VERSION
from pconv_onnx.graph.external import values
from pconv_onnx.neuron.parallel import ParallelNeuron
from pconv_onnx.neuron.theory import temporal_mean
from pconv_onnx.operators.bodies import CONSTANTS, along_channels, channels_of, element_type, reshape
from pconv_onnx.operators.domain import MEAN_OP_TYPE, OP_TYPE, attribute
from pconv_onnx.operators.means import temporal_mean_body


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
    return [temporal_mean_body(opset, dtype), _parallel_spike(opset, dtype, max_steps)]


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
                {reshape(opset, "trains", "by_time", ("", "out_rows", "out_sample"))}
            }}
        >
        output = Cast <to = {element_type(dtype)}> (value)
    }}
    """
    return onnx.parser.parse_function(text)
