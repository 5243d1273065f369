"""Attention as PyTorch models write it, small, each with the inputs that it takes."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

TOKENS, WIDTH, HEADS = 6, 16, 4


class Attention(nn.Module):
    """Projections around `attend(q, k, v)`, `[batch, heads, tokens, size]` each."""

    def __init__(self, attend: Callable[..., Tensor], groups: int = HEADS) -> None:
        super().__init__()
        self.attend, self.groups, self.size = attend, groups, WIDTH // HEADS
        self.q, self.project = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)
        self.k, self.v = (nn.Linear(WIDTH, groups * self.size) for _ in range(2))
        self.norm, self.up, self.down = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 24), nn.Linear(24, WIDTH)

    def split(self, x: Tensor, heads: int) -> Tensor:
        return x.view(x.shape[0], x.shape[1], heads, self.size).transpose(1, 2)

    def forward(self, x: Tensor, *more: Tensor) -> Tensor:
        other = more[0] if more and more[0].dim() == 3 else x
        q, k, v = (
            self.split(self.q(x), HEADS),
            self.split(self.k(other), self.groups),
            self.split(self.v(other), self.groups),
        )
        found = self.attend(q, k, v, *(tensor for tensor in more if tensor is not other))
        x = x + self.project(found.transpose(1, 2).reshape(x.shape[0], x.shape[1], WIDTH))
        return self.down(F.gelu(self.up(self.norm(x))))


def fused(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(q, k, v)


def causal(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(q, k, v, is_causal=True)


def masked(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    """A boolean mask, as SDPA takes it."""
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask[:, None, None, :] > 0)


def scaled_before(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    """An additive mask."""
    scores = (q / math.sqrt(q.shape[-1])) @ k.transpose(-1, -2) + (1 - mask[:, None, None, :]) * -1e9
    return scores.softmax(-1) @ v


def scaled_after(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Softmax in float32 whatever the type, as Hugging Face writes it; and dropout."""
    scores = q @ k.transpose(-1, -2) * (q.shape[-1] ** -0.5)
    weights = F.softmax(scores, dim=-1, dtype=torch.float32).to(q.dtype)
    return F.dropout(weights, 0.1, False) @ v


def einsum(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    weights = (torch.einsum("bhid,bhjd->bhij", q, k) * q.shape[-1] ** -0.5).softmax(-1)
    return torch.einsum("bhij,bhjd->bhid", weights, v)


def grouped(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    times = q.shape[1] // k.shape[1]
    return F.scaled_dot_product_attention(
        q, k.repeat_interleave(times, 1), v.repeat_interleave(times, 1), is_causal=True
    )


def batched(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Heads and samples in one axis, as nn.MultiheadAttention has them."""
    batch, heads, tokens, size = q.shape
    q, k, v = (tensor.reshape(batch * heads, -1, size) for tensor in (q, k, v))
    return (torch.bmm(q * size**-0.5, k.transpose(1, 2)).softmax(-1) @ v).view(batch, heads, tokens, size)


class Encoder(nn.Module):
    """PyTorch's own layer."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(WIDTH, HEADS, 24, 0.0, "gelu", batch_first=True, norm_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)


def _x(batch: int = 2) -> Tensor:
    return torch.randn(batch, TOKENS, WIDTH, generator=torch.Generator().manual_seed(0))


def _mask() -> Tensor:
    return (torch.arange(TOKENS) < torch.tensor([[TOKENS], [3]])).float()


CASES: dict[str, tuple[Callable[[], nn.Module], tuple[Tensor, ...]]] = {
    "multi-head": (lambda: Attention(fused), (_x(),)),
    "causal": (lambda: Attention(causal), (_x(),)),
    "masked": (lambda: Attention(masked), (_x(), _mask())),
    "scaled before, additive mask": (lambda: Attention(scaled_before), (_x(), _mask())),
    "scaled after, softmax in float32": (lambda: Attention(scaled_after), (_x(),)),
    "einsum": (lambda: Attention(einsum), (_x(),)),
    "grouped queries": (lambda: Attention(grouped, 2), (_x(),)),
    "cross": (lambda: Attention(fused), (_x(), torch.randn(2, 9, WIDTH))),
    "heads in the batch": (lambda: Attention(batched), (_x(),)),
    "nn.TransformerEncoderLayer": (Encoder, (_x(),)),
}
