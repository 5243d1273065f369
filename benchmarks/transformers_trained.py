"""Two small transformers, trained here in minutes: a ViT on CIFAR-10, and a causal decoder on prose.

The ViT is as Dosovitskiy et al. (2021) have it, a class token and LayerNorm in front of each part; the decoder as Llama
(Touvron et al. 2023): RMSNorm, rotary embeddings, grouped queries, SwiGLU. It reads text byte by byte.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

# Bytes of text that the decoder is trained on at once.
CONTEXT = 128


class Block(nn.Module):
    """Attention over all tokens and a GELU network, each behind a LayerNorm."""

    def __init__(self, width: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.project = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))

    def forward(self, x: Tensor) -> Tensor:
        batch, tokens, width = x.shape
        qkv = self.qkv(self.norm1(x)).reshape(batch, tokens, 3, self.heads, width // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        found = F.scaled_dot_product_attention(q, k, v)
        x = x + self.project(found.transpose(1, 2).reshape(batch, tokens, width))
        return x + self.mlp(self.norm2(x))


class ViT(nn.Module):
    """Of images `[batch, 3, 32, 32]` logits `[batch, 10]`: patches of 4 × 4, 64 and a class token."""

    def __init__(self, width: int = 128, depth: int = 4, heads: int = 4, hidden: int = 256) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, width, 4, 4)
        self.token = nn.Parameter(torch.zeros(1, 1, width))
        self.positions = nn.Parameter(torch.randn(1, 65, width) * 0.02)
        self.blocks = nn.ModuleList(Block(width, heads, hidden) for _ in range(depth))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 10)

    def forward(self, image: Tensor) -> Tensor:
        x = self.patches(image).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1) + self.positions
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x)[:, 0])


class RMSNorm(nn.Module):
    """Values by their root mean square, as Llama writes it."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return self.weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6))


class DecoderBlock(nn.Module):
    """Causal attention with grouped queries, rotated by position, and SwiGLU."""

    def __init__(self, width: int, heads: int, groups: int, hidden: int) -> None:
        super().__init__()
        self.heads, self.groups, self.size = heads, groups, width // heads
        self.norm1, self.norm2 = RMSNorm(width), RMSNorm(width)
        self.q = nn.Linear(width, width, bias=False)
        self.k, self.v = (nn.Linear(width, groups * self.size, bias=False) for _ in range(2))
        self.project = nn.Linear(width, width, bias=False)
        self.gate, self.up = (nn.Linear(width, hidden, bias=False) for _ in range(2))
        self.down = nn.Linear(hidden, width, bias=False)

    def forward(
        self, x: Tensor, rotation: tuple[Tensor, Tensor], mask: Tensor, past: tuple[Tensor, Tensor] | None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        batch, tokens, width = x.shape
        read = self.norm1(x)
        q = _rotated(self.q(read).view(batch, tokens, self.heads, self.size).transpose(1, 2), rotation)
        k = _rotated(self.k(read).view(batch, tokens, self.groups, self.size).transpose(1, 2), rotation)
        v = self.v(read).view(batch, tokens, self.groups, self.size).transpose(1, 2)
        if past is not None:
            k, v = torch.cat([past[0], k], 2), torch.cat([past[1], v], 2)
        times = self.heads // self.groups
        found = F.scaled_dot_product_attention(
            q, k.repeat_interleave(times, 1), v.repeat_interleave(times, 1), attn_mask=mask
        )
        x = x + self.project(found.transpose(1, 2).reshape(batch, tokens, width))
        read = self.norm2(x)
        return x + self.down(F.silu(self.gate(read)) * self.up(read)), (k, v)


class Decoder(nn.Module):
    """Of bytes `[batch, tokens]` the logits of each next one, `[batch, tokens, 256]`.

    With the keys and values of the bytes before, `[batch, groups, past, size]` each, a layer after another, it gives
    those that the next ones need as well.
    """

    def __init__(self, width: int = 192, depth: int = 6, heads: int = 6, groups: int = 2, hidden: int = 512) -> None:
        super().__init__()
        self.groups, self.size = groups, width // heads
        self.embed = nn.Embedding(256, width)
        self.blocks = nn.ModuleList(DecoderBlock(width, heads, groups, hidden) for _ in range(depth))
        self.norm, self.head = RMSNorm(width), nn.Linear(width, 256, bias=False)

    def forward(self, tokens: Tensor, *past: Tensor) -> Tensor | tuple[Tensor, ...]:
        before = past[0].shape[2] if past else 0
        count = tokens.shape[1]
        positions = torch.arange(before, before + count)
        mask = torch.arange(before + count)[None, :] <= positions[:, None]
        rates = 10000.0 ** (-torch.arange(0, self.size, 2) / self.size)
        angles = torch.cat([positions[:, None] * rates] * 2, 1)
        rotation = angles.cos(), angles.sin()
        x, present = self.embed(tokens), []
        for index, block in enumerate(self.blocks):
            x, found = block(x, rotation, mask, past[2 * index : 2 * index + 2] if past else None)
            present += found
        logits = self.head(self.norm(x))
        return (logits, *present) if past else logits


def _rotated(x: Tensor, rotation: tuple[Tensor, Tensor]) -> Tensor:
    cosine, sine = rotation
    left, right = x.chunk(2, -1)
    return x * cosine + torch.cat([-right, left], -1) * sine


def train_vit(images: np.ndarray, labels: np.ndarray, epochs: int, seed: int = 0) -> ViT:
    """A ViT, trained on images `[N, 3, 32, 32]`, flipped, shifted and mixed."""
    torch.manual_seed(seed)
    network, x, y = ViT(), torch.from_numpy(images), F.one_hot(torch.from_numpy(labels), 10).float()

    def batches() -> Iterator[Tensor]:
        for _ in range(epochs):
            for chosen in torch.randperm(len(x)).split(100):
                taken = torch.where(torch.rand(len(chosen), 1, 1, 1) < 0.5, x[chosen].flip(3), x[chosen])
                down, right = torch.randint(0, 9, (2,)).tolist()
                taken = F.pad(taken, (4, 4, 4, 4))[:, :, down : down + 32, right : right + 32]
                kept, order = float(torch.distributions.Beta(0.4, 0.4).sample()), torch.randperm(len(chosen))
                target = kept * y[chosen] + (1 - kept) * y[chosen][order]
                yield F.cross_entropy(network(kept * taken + (1 - kept) * taken[order]), target, label_smoothing=0.1)

    return _trained(network, batches(), epochs * math.ceil(len(x) / 100), 1e-3)


def train_decoder(tokens: np.ndarray, updates: int, seed: int = 0) -> Decoder:
    """A decoder, trained on random parts of a text, a byte a token."""
    torch.manual_seed(seed)
    network, whole = Decoder(), torch.from_numpy(tokens.astype(np.int64))

    def batches() -> Iterator[Tensor]:
        for _ in range(updates):
            starts = torch.randint(0, len(whole) - CONTEXT, (16,)).tolist()
            taken = torch.stack([whole[start : start + CONTEXT + 1] for start in starts])
            yield F.cross_entropy(network(taken[:, :-1]).flatten(0, 1), taken[:, 1:].flatten())

    return _trained(network, batches(), updates, 2e-3)


def _trained(network: nn.Module, losses: Iterator[Tensor], updates: int, rate: float) -> nn.Module:
    optimizer = torch.optim.AdamW(network.parameters(), rate, weight_decay=0.05, betas=(0.9, 0.98))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, updates, pct_start=0.1)
    network.train()
    for loss in losses:
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    return network.eval()
