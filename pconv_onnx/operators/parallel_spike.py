"""The `pconv::ParallelSpike` operator: node, executable reference, function body.

The contract is docs/ParallelSpike-2.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import onnx

from pconv_onnx.basics.arrays import Array
from pconv_onnx.basics.domain import DOMAIN
from pconv_onnx.graph.external import values
from pconv_onnx.neuron.coding import CODINGS, Coding, Rate, reach_of
from pconv_onnx.neuron.parallel import ParallelNeuron
from pconv_onnx.neuron.theory import temporal_mean
from pconv_onnx.operators.bodies import CONSTANTS, along_channels, channels_of, element_type, function, reshape
from pconv_onnx.operators.counting import counting
from pconv_onnx.operators.domain import CODED, MEAN_OP_TYPE, OP_TYPE, attribute
from pconv_onnx.operators.means import temporal_mean_body


def attributes(neuron: ParallelNeuron, *, input_steps: int, spikes: bool, version: int) -> dict[str, int]:
    """All attributes of a node that runs `neuron`; no default is assumed."""
    channel_axis = 1 if neuron.channel_axis is None else neuron.channel_axis
    found = {"input_steps": input_steps, "channel_axis": channel_axis, "spikes": int(spikes)}
    if version == 1:
        return found
    coding = neuron.coding
    return found | {"coding": coding.number, "steps": coding.steps, "zero": coding.zero}


def version_for(codings: Iterable[Coding]) -> int:
    """The first version of the domain whose nodes give trains in all these codings."""
    return 1 if all(isinstance(coding, Rate) and not coding.signed for coding in codings) else CODED


def neuron_of(node: onnx.NodeProto, initializers: Mapping[str, onnx.TensorProto]) -> ParallelNeuron:
    """The neuron that a node runs, from the tables of its model by name.

    Raises:
        KeyError: an attribute is missing, or a table is no initializer.
        ValueError: the tables do not describe a neuron.
    """
    thresholds, levels = (values(initializers[name], None) for name in node.input[1:])
    if levels.ndim != 2:
        raise ValueError(f"levels of shape {levels.shape} are no table")
    channel_axis = attribute(node, "channel_axis") if len(levels) > 1 else None
    coding = coding_of(len(levels[0]) - 1, **{name: attribute(node, name, 0) for name in ("coding", "steps", "zero")})
    return ParallelNeuron(thresholds, levels, channel_axis, coding)


def coding_of(highest: int, coding: int, steps: int, zero: int) -> Coding:
    """The coding that the attributes of a node with counts up to `highest` name.

    Raises:
        ValueError: there is none.
    """
    found = next((one for one in CODINGS.values() if one.number == coding), None)
    if found is None:
        raise ValueError(
            f"coding is {coding}, which is none of {', '.join(str(one.number) for one in CODINGS.values())}"
        )
    return found(reach_of(highest, zero) if found is Rate and not steps else steps, zero)


def reference(
    current: Array,
    thresholds: Array,
    levels: Array,
    *,
    input_steps: int,
    channel_axis: int,
    spikes: int,
    coding: int = 0,
    steps: int = 0,
    zero: int = 0,
) -> Array:
    """The operator in NumPy, as the specification words it.

    Args:
        current: `[I·B, …]`, time-major.
        thresholds: `[R, S]`.
        levels: `[R, S+1]`.
        input_steps: I, the number of time-steps of `current`.
        channel_axis: axis of `current` for the rows of the tables.
        spikes: 1 for trains `[T·B, …]`, 0 for the temporal mean `[B, …]`.
        coding: of trains, by the number of one of `CODINGS`.
        steps: T, the number of time-steps of the trains; 0 for that of `rate`.
        zero: k₀, the spike count of a silent neuron.

    Raises:
        ValueError: ranks, shapes or attributes that the specification rules out.
    """
    if current.ndim < 1 or input_steps < 1 or current.shape[0] % input_steps:
        raise ValueError(f"current of shape {list(current.shape)} does not hold {input_steps} time-steps")
    trains = coding_of(thresholds.shape[1], coding, steps, zero) if spikes else Rate(thresholds.shape[1])
    neuron = ParallelNeuron(thresholds, levels, channels_of(current, thresholds, channel_axis), trains)
    batch = current.shape[0] // input_steps
    mean = temporal_mean(current.reshape(input_steps, batch, *current.shape[1:]))
    if not spikes:
        return neuron.value(neuron.search_form(mean))
    return neuron.trains(mean).reshape(neuron.steps * batch, *current.shape[1:])


def functions(opset: int, dtype: np.dtype[Any], highest: int, version: int) -> list[onnx.FunctionProto]:
    """The operators as model-local functions of standard operators, for models of that opset and type.

    onnxruntime inlines a body under the model's opset and ignores the body's own, hence one for each opset; and no
    operator chooses the type of the time sum by the type of the current, hence one for each type. The first
    operation on a current is a comparison, a Cast or an Identity: onnxruntime would fold a Mul or an Add into the Conv
    before it and change bits.

    Args:
        opset: version of the default domain, at least `MIN_OPSET`.
        dtype: type of the currents, one of `SUM_TYPES`.
        highest: the largest S of the model; bounds the depth of the search for the spike count.
        version: the version of the domain that the model declares; it decides which attributes nodes have.
    """
    return [temporal_mean_body(opset, dtype), _parallel_spike(opset, dtype, highest, version)]


def _in_rows(opset: int, steps: str) -> str:
    """`trains` `[T·B, …]` of `by_time` `[T, B, …]`."""
    return f"""
                out_batch = Slice (shape, first, second)
                out_rows = Mul (out_batch, {steps})
                out_sample = Slice (shape, second, end)
                {reshape(opset, "trains", "by_time", ("", "out_rows", "out_sample"))}"""


def _sorted_trains(opset: int) -> tuple[str, str]:
    """Tables, and `trains` of version 1: each threshold is that of a time-step."""
    tables = """
        by_step = Transpose <perm = [1, 0]> (threshold_rows)
        step_shape = Concat <axis = 0> (highest_1d, along_channels)
        threshold = Reshape (by_step, step_shape)
        silent_column = Slice (level_rows, first, second, second)
        silent = Reshape (silent_column, along_channels)
        firing_column = Slice (level_rows, highest_1d, level_end, second)
        firing = Reshape (firing_column, along_channels)"""
    return (
        tables,
        f"""
                fires = GreaterOrEqual (mean, threshold)
                by_time = Where (fires, firing, silent)
                {_in_rows(opset, "highest_1d")}""",
    )


# The number of binary digits with a weight; no count has more.
_DIGITS = 33


def _coded_trains(opset: int, count: str) -> tuple[str, str]:
    """The same for any coding; `Coding` has it in NumPy.

    Digits are computed in floats, which hold counts exactly: there is no bitwise operator before opset 18. Weights are
    looked up, since no provider says that its powers are exact.
    """
    places = range(_DIGITS)
    tables = f"""
        coding = Constant <value_int: int = @coding> ()
        given_steps = Constant <value_int: int = @steps> ()
        silent_count = Constant <value_int: int = @zero> ()
        highest = Squeeze (highest_1d)
        above = Sub (highest, silent_count)
        reach = Max (above, silent_count)
        no_steps = Equal (given_steps, zero)
        steps = Where (no_steps, reach, given_steps)
        steps_1d = Reshape (steps, second)
        is_radix = Equal (coding, one)

        step = Range (zero, steps, one)
        last_step = Sub (steps, one)
        place_of_step = Sub (last_step, step)
        highest_place = Constant <value_int = {_DIGITS - 1}> ()
        place = Min (place_of_step, highest_place)
        weights = Constant <value_ints = {[1 << place for place in places]}> ()
        weight = Gather (weights, place)
        distance_of_digit = Where (is_radix, weight, steps)
        is_reached = LessOrEqual (distance_of_digit, reach)
        distance_or_none = Where (is_reached, distance_of_digit, zero)
        is_mirrored = Greater (distance_or_none, above)
        mirrored_count = Sub (silent_count, distance_or_none)
        own_count = Add (silent_count, distance_or_none)
        told_by = Where (is_mirrored, mirrored_count, own_count)
        told_level = Gather <axis = 1> (level_rows, told_by)
        mirror_level = Neg (told_level)
        worth_in_rate = Where (is_mirrored, mirror_level, told_level)
        silent_column = Gather <axis = 1> (level_rows, silent_count)
        silent_rows = Unsqueeze (silent_column, second)
        factor = Cast <to = 1> (steps)
        excess = Sub (worth_in_rate, silent_rows)
        scaled_excess = Mul (excess, factor)
        worth_in_radix = Add (silent_rows, scaled_excess)
        worth = Where (is_radix, worth_in_radix, worth_in_rate)
        worth_by_step = Transpose <perm = [1, 0]> (worth)
        step_shape = Concat <axis = 0> (steps_1d, along_channels)
        firing = Reshape (worth_by_step, step_shape)
        silent = Reshape (silent_rows, along_channels)

        shares = Constant <value_floats = {[2.0**-place for place in places]}> ()
        share = Gather (shares, place)
        step_in_floats = Cast <to = 1> (step)
        ones = Expand (second, rank_1d)
        digit_shape = Concat <axis = 0> (steps_1d, ones)
        share_by_step = Reshape (share, digit_shape)
        step_by_step = Reshape (step_in_floats, digit_shape)
        silent_in_floats = Cast <to = 1> (silent_count)
        half = Constant <value = float {{0.5}}> ()
        none = Constant <value = float {{0.0}}> ()"""
    return (
        tables,
        f"""
                {count}
                count_in_floats = Cast <to = 1> (count)
                offset = Sub (count_in_floats, silent_in_floats)
                sign = Sign (offset)
                distance = Abs (offset)
                fires = If (is_radix) <
                    then_branch = binary () => (bool[] bit)
                    {{
                        scaled = Mul (distance, share_by_step)
                        whole = Floor (scaled)
                        halved = Mul (whole, half)
                        half_whole = Floor (halved)
                        even = Add (half_whole, half_whole)
                        odd = Sub (whole, even)
                        bit = Greater (odd, none)
                    }},
                    else_branch = unary () => (bool[] reaches)
                    {{
                        reaches = Greater (distance, step_by_step)
                    }}
                >
                signed_firing = Mul (sign, firing)
                by_time = Where (fires, signed_firing, silent)
                {_in_rows(opset, "steps_1d")}""",
    )


def _parallel_spike(opset: int, dtype: np.dtype[Any], highest: int, version: int) -> onnx.FunctionProto:
    """The body of `ParallelSpike`. It builds no `[T, …]` tensor if only the temporal mean is wanted.

    Tables are made outside the branches (counting.py says why).

    Comparisons are in float32, which holds each type exactly: few execution providers compare and select half types.
    """
    count_tables, count = counting("mean", highest)
    train_tables, trains = _sorted_trains(opset) if version == 1 else _coded_trains(opset, count)
    names = "input_steps, channel_axis, spikes" + (", coding, steps, zero" if version > 1 else "")
    text = f"""
    <opset_import: ["" : {opset}, "{DOMAIN}" : {version}], domain: "{DOMAIN}">
    {OP_TYPE} <{names}> (current, thresholds, levels) => (output)
    {{
        {CONSTANTS}
        third = Constant <value_ints = [2]> ()
        wants_spikes = Constant <value_int: int = @spikes> ()

        own_mean = {DOMAIN}.{MEAN_OP_TYPE} <steps: int = @input_steps> (current)
        mean = Cast <to = 1> (own_mean)
        threshold_rows = Cast <to = 1> (thresholds)
        level_rows = Cast <to = 1> (levels)
        {along_channels("mean", "thresholds")}
        highest_1d = Slice (table_shape, second, third)
        {count_tables}
        level_table = Reshape (level_rows, flat)
        level_end = Add (highest_1d, second)
        level_start = Mul (channel_index, level_end)
        level_start_32 = Cast <to = 6> (level_start)
        level_row = Reshape (level_start_32, along_channels)
        {train_tables}

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
                {trains}
            }}
        >
        output = Cast <to = {element_type(dtype)}> (value)
    }}
    """
    return function(text, "A layer of parallel spiking neurons (docs/ParallelSpike-2.md).")
