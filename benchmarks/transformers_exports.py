"""Transformers as each of PyTorch's two exporters writes them, all axes that can be of any size."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import sequences
import torch
from subjects import kept
from torch import Tensor, nn
from transformers_trained import CONTEXT, Decoder, ViT, train_decoder, train_vit

EPOCHS, UPDATES = 40, 1200
# Axes of an input or output that have any size, with their names.
Axes = Mapping[int, str]
_TOKENS = {0: "batch", 1: "tokens"}


def minilm(path: Path, source: Path, dynamo: bool) -> None:
    """Of a folder of Hugging Face's a sentence's embedding: the mean of its tokens, at length 1."""
    from transformers import AutoModel

    # A tensor of the network is called `embedding` already.
    names = ("input_ids", "attention_mask", "token_type_ids")
    shown = {name: (torch.ones(2, 24, dtype=torch.int64), _TOKENS) for name in names}
    _export(_Sentence(AutoModel.from_pretrained(source), names), shown, {"sentence": {0: "batch"}}, path, dynamo)


class _Sentence(nn.Module):
    def __init__(self, network: nn.Module, names: tuple[str, ...]) -> None:
        super().__init__()
        self.network, self.names = network, names

    def forward(self, *inputs: Tensor) -> Tensor:
        given = dict(zip(self.names, inputs, strict=True))
        tokens = self.network(**given)[0]
        real = given["attention_mask"].unsqueeze(-1).to(tokens.dtype)
        return nn.functional.normalize((tokens * real).sum(1) / real.sum(1).clamp(min=1e-9), dim=1)


def vit(path: Path, weights: Path, images: np.ndarray, labels: np.ndarray, dynamo: bool) -> None:
    """The ViT, trained on these images `[N, 3, 32, 32]` where its weights are not kept."""
    network = _trained(ViT(), weights, lambda: train_vit(images, labels, EPOCHS))
    _export(network, {"image": (torch.zeros(2, 3, 32, 32), {0: "batch"})}, {"logits": {0: "batch"}}, path, dynamo)


def decoder(path: Path, weights: Path, dynamo: bool) -> None:
    """The decoder, trained where its weights are not kept, of whole passages."""
    _export(_decoder(weights), {"tokens": (_tokens(CONTEXT), _TOKENS)}, {"logits": _TOKENS}, path, dynamo)


def decoder_with_past(path: Path, weights: Path, dynamo: bool) -> None:
    """The same, of passages that go on: it takes and gives keys and values, `past_0`, … and `present_0`, …."""
    network = _decoder(weights)
    numbers = range(2 * len(network.blocks))
    # Each a tensor of its own: what is one tensor here is one input to the dynamo exporter, whatever its names.
    past = {f"past_{number}": torch.zeros(2, network.groups, 5, network.size) for number in numbers}
    axes = {0: "batch", 2: "past"}
    inputs = {"tokens": (_tokens(3), _TOKENS), **{name: (values, axes) for name, values in past.items()}}
    present = {f"present_{number}": {0: "batch", 2: "whole"} for number in numbers}
    _export(network, inputs, {"logits": _TOKENS, **present}, path, dynamo)


def _decoder(weights: Path) -> Decoder:
    return _trained(Decoder(), weights, lambda: train_decoder(sequences.parts()[0], UPDATES))


def _tokens(count: int) -> Tensor:
    return torch.zeros(2, count, dtype=torch.int64)


def _trained(network: nn.Module, weights: Path, train: Callable[[], nn.Module]) -> nn.Module:
    kept(weights, lambda path: torch.save(train().state_dict(), path))
    network.load_state_dict(torch.load(weights))
    return network


class _OfInputs(nn.Module):
    """A network that takes its inputs by their places, as one description of their sizes needs it."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, *inputs: Tensor) -> Tensor | tuple[Tensor, ...]:
        return self.network(*inputs)


def _export(
    network: nn.Module, inputs: Mapping[str, tuple[Tensor, Axes]], outputs: Mapping[str, Axes], path: Path, dynamo: bool
) -> None:
    """Of values of each input, and of the axes of each input and output."""
    given = tuple(values for values, _ in inputs.values())
    axes = {name: axes for name, (_, axes) in inputs.items()}
    if dynamo:
        sizes = tuple({axis: torch.export.Dim(name) for axis, name in one.items()} for one in axes.values())
        options = {"dynamic_shapes": (sizes,), "external_data": False}
    else:
        options = {"dynamic_axes": {**axes, **outputs}, "opset_version": 17}
    torch.onnx.export(
        _OfInputs(network).eval(), given, path, dynamo=dynamo, input_names=[*inputs], output_names=[*outputs], **options
    )
