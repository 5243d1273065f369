"""All weights and staircases at once, by gradients of what the quantised network's values differ from the source's.

No labels are needed: the source is the teacher, with its outputs and with what each activation gives. The latter keeps
a network of many layers from drifting where few samples tell of its outputs.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace

import numpy as np
import onnx
import torch

from pconv_onnx.basics.errors import PconvError
from pconv_onnx.basics.progress import track
from pconv_onnx.calibration.functions import function_of, segment_of, thresholds_of
from pconv_onnx.calibration.holding import blocks_of, chosen
from pconv_onnx.calibration.segments import layers_of, with_weights
from pconv_onnx.calibration.sweep import Found
from pconv_onnx.calibration.tuning.parameters import Steps, Weights, names_of
from pconv_onnx.calibration.tuning.program import Program, Step, step_of
from pconv_onnx.calibration.writing import Quantised
from pconv_onnx.data.samples import Data
from pconv_onnx.graph import Network

# Found by measurement on ResNet-20, SqueezeNet and EfficientNet-Lite0 (docs/calibration.md). Batches, samples of each,
# those over which steps grow to their full size, and how far one goes: a share of a level.
_BATCHES, _SIZE, _GROWING, _RATE = 300, 16, 20, 3e-3
# Batches that tell how large values are.
_FEW = 8
# What an activation's error weighs against the outputs'.
_WEIGHT = 1.0
_KL = 0.0
_FLIP = 0.0
_FLOAT = onnx.TensorProto.FLOAT


def tuned(network: Network, found: Found, samples: Data) -> Found:
    """Continue from what a sweep found.

    Args:
        network: the source.
        found: where to begin.
        samples: to tune on.

    Raises:
        PconvError: the network has bodies, or a value is not finite.
    """
    return _Tuning(network, found, samples).found()


class _Tuning:
    def __init__(self, network: Network, found: Found, samples: Data) -> None:
        self._network, self._before, self._samples = network, found, samples
        # Levels that an activation has itself stay.
        self._steps = {entry.activation.output.name: Steps(entry) for entry in found.activations}
        layers = {layer.node.output[0]: layer for layer in layers_of(network)}
        self._weights = {name: Weights(layer, found.corrections.get(name)) for name, layer in layers.items()}
        self._outputs = [
            info.name
            for info in network.proto.graph.output
            if info.type.tensor_type.elem_type == _FLOAT and info.name not in self._steps
        ]
        wanted = [*self._steps, *self._outputs]
        self._reference = Program(network, [step_of(network, node) for node in network.proto.graph.node], wanted)
        self._quantised = Program(network, list(self._quantised_steps()), wanted)
        self._generator = np.random.default_rng(0)
        self._scales = self._sizes()
        self._tune()

    def _quantised_steps(self) -> Iterator[Step]:
        """Those of the source, but for layers that take other weights, and with staircases."""
        ended = {id(one.entry.activation.nodes[-1]): one for one in self._steps.values()}
        for node, proto in zip(self._network.nodes, self._network.proto.graph.node, strict=True):
            output = proto.output[0] if proto.output else ""
            one = ended.get(id(node))
            if one is not None and one.entry.offset is None:
                yield Step(_each(one), (one.entry.activation.input.name,), (output,))
            elif one is not None:
                analog = onnx.NodeProto()
                analog.CopyFrom(proto)
                analog.output[0] = f"{output}/analog"
                yield step_of(self._network, analog)
                yield Step(_each(one), (analog.output[0],), (output,))
            elif output in self._weights:
                names = names_of(self._weights[output])
                for made in with_weights(proto, *names, f"{output}/product"):
                    yield step_of(self._network, made)
            else:
                yield step_of(self._network, proto)

    def _batch(self) -> dict[str, object]:
        """Some samples, drawn."""
        block = self._samples.fixed_batch or 1
        blocks = blocks_of(self._samples)
        drawn = self._generator.choice(blocks, min(max(_SIZE // block, 1), blocks), replace=False)
        part = chosen(self._samples, np.sort(drawn))
        # A model with a fixed batch takes one at a time.
        rows = slice(0, self._samples.fixed_batch or len(part))
        return dict(part.part(rows).feed(slice(None)))

    def _sizes(self) -> Mapping[str, float]:
        """By tensor: mean square of what an activation gives, and variance of an output."""
        totals = dict.fromkeys([*self._steps, *self._outputs], 0.0)
        for _ in range(_FEW):
            with torch.no_grad():
                values = self._reference(self._batch())
            for name in totals:
                value = values[name].double()
                totals[name] += float((value - value.mean() if name in self._outputs else value).square().mean())
        return {name: total / _FEW for name, total in totals.items()}

    def _errors(self, feed: Mapping[str, object]) -> dict[str, torch.Tensor]:
        """What is lost of each activation and output, as a share."""
        with torch.no_grad():
            reference = self._reference(feed)
        own = {name: table for one in self._weights.values()
               for name, table in zip(names_of(one), (one.weights, one.bias), strict=True)}  # fmt: skip
        values = self._quantised({**feed, **own})
        extra={}
        if _KL:
            o=self._outputs[0]
            ls=torch.log_softmax
            extra={"kl":_KL*torch.nn.functional.kl_div(ls(values[o],-1),ls(reference[o],-1),log_target=True,reduction="batchmean")}
        return extra | {
            name: (values[name] - reference[name]).square().mean() / scale
            for name, scale in self._scales.items()
            if scale
        }

    def _tune(self) -> None:
        groups = [group for one in self._weights.values() for group in one.rates(_RATE)]
        groups += [g for one in self._steps.values() if one.entry.activation.unit is None for g in one.rates(_RATE)]
        optimiser = torch.optim.Adam(groups)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, _share_of_rate)
        for _ in track(range(_BATCHES), "tuning", _BATCHES):
            feed = self._batch()
            if _FLIP and self._generator.random()<.5: feed={k:v[...,::-1].copy() for k,v in feed.items()}
            errors = self._errors(feed)
            loss = sum(error * (1.0 if name in self._outputs or name=='kl' else _WEIGHT) for name, error in errors.items())
            assert isinstance(loss, torch.Tensor)  # there are activations
            if not torch.isfinite(loss):
                raise PconvError("a value is not finite while the network is tuned", "choose method 'refit'")
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()

    def found(self) -> Found:
        """What there is now."""
        with torch.no_grad():
            measured = [self._errors(self._batch()) for _ in range(_FEW)]
        errors = [
            float(np.mean([float(batch.get(name, 0.0)) for batch in measured])) for name in self._steps
        ]
        return replace(
            self._before,
            activations=[self._entry(one) for one in self._steps.values()],
            corrections={name: one.correction() for name, one in self._weights.items()},
            errors=errors,
        )

    def _entry(self, one: Steps) -> Quantised:
        """An activation's own, with thresholds where it had such."""
        before = one.entry
        if before.activation.unit is not None:
            return before
        staircase = one.staircase()
        offset = staircase.offset if staircase.zero else before.offset
        if before.thresholds is None:
            return replace(before, staircase=staircase, offset=offset)
        function = function_of(self._network, segment_of(self._network, before.activation))
        thresholds = thresholds_of(function, staircase, before.channels)
        return replace(before, staircase=staircase, offset=offset, thresholds=thresholds)


def _each(one: Steps):  # type: ignore[no-untyped-def]
    return lambda inputs: [one(*inputs)]


def _share_of_rate(batch: int) -> float:
    """How far steps go: growing, and then falling as a cosine does."""
    return min(1.0, (batch + 1) / _GROWING) * max(0.5 * (1 + math.cos(math.pi * batch / _BATCHES)), 0.02)
