"""Shapes and types behind operators that onnx does not know, com.microsoft's for one: what a run shows of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import onnx
from onnx import defs, helper

from pconv_onnx.basics.arrays import Array
from pconv_onnx.basics.errors import PconvError
from pconv_onnx.graph import Network
from pconv_onnx.graph.constants import is_standard
from pconv_onnx.graph.network import Dimension
from pconv_onnx.graph.passes.folding import fold
from pconv_onnx.graph.passes.pipeline import in_standard_operators
from pconv_onnx.graph.view import Node
from pconv_onnx.operators.contents import contents_of
from pconv_onnx.runtime.opening import import_onnxruntime
from pconv_onnx.runtime.side_by_side import open_session, run_session
from pconv_onnx.runtime.trial import FACTORS, Open, feed, sizes

_RUNS = (0, 1)


def with_observed_shapes(network: Network) -> Network:
    """The network with what two runs show as hints; itself where no such operator is in it, or it does not run.

    A size that is the same in both runs is a number, one that follows an open dimension of an input has its name.
    """
    names = _unknown(network)
    if not names or contents_of(network.proto).neurons:
        return network
    tapped = onnx.ModelProto()
    tapped.CopyFrom(in_standard_operators(network).proto)
    outputs = {info.name for info in tapped.graph.output}
    tapped.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names if name not in outputs)
    for factor in FACTORS:
        try:
            level = import_onnxruntime().GraphOptimizationLevel.ORT_DISABLE_ALL
            session = open_session(tapped, network.name, level, folder=network.folder)
            chosen = [sizes(network, run, factor) for run in _RUNS]
            shown = [run_session(session, feed(network, chosen[run], run), names) for run in _RUNS]
        except PconvError:
            continue
        told = {(chosen[0][name], chosen[1][name]): name for name in chosen[0]}
        hints = {name: _hint(name, pair, told) for name, *pair in zip(names, *shown, strict=True) if _is_shown(pair)}
        return fold(replace(network, hints={**network.hints, **hints}))
    return network


def _unknown(network: Network) -> list[str]:
    """Tensors of the main graph of unknown rank or type, where an operator that onnx does not know makes one."""
    made = [(tensor.name, node) for node in network.nodes for tensor in node.outputs if tensor.name]
    unknown = [(name, node) for name, node in made if name not in network.shapes or name not in network.dtypes]
    return [name for name, _ in unknown] if any(not _is_known(node, network.opset) for _, node in unknown) else []


def _is_known(node: Node, opset: int) -> bool:
    return is_standard(node) and bool(defs.has(node.op, opset, ""))


def _is_shown(pair: Sequence[Array]) -> bool:
    return all(isinstance(value, np.ndarray) and value.dtype.kind in "fiubV" for value in pair) and (
        pair[0].ndim == pair[1].ndim
    )


def _hint(name: str, pair: Sequence[Array], told: dict[tuple[int, int], Open]) -> onnx.ValueInfoProto:
    found: list[Dimension] = []
    for one, other in zip(pair[0].shape, pair[1].shape, strict=True):
        follows = told.get((one, other))
        found.append(one if one == other else follows if isinstance(follows, str) else None)
    return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(pair[0].dtype), found)
