"""Decoding: tokens go on from the keys and values that a network gave of those before.

Of a feed `tokens` are `[N, count]`, and all else is past, `[N, heads, past, size]`, in the order of the outputs behind
the logits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from subjects import Feed, Run


def from_nothing(tokens: np.ndarray, past: Mapping[str, Sequence[int | str]]) -> dict[str, np.ndarray]:
    """A feed of these tokens, with a past of none of the shape of each input; only heads and size are numbers."""
    empty = {name: np.zeros((len(tokens), shape[1], 0, shape[3]), np.float32) for name, shape in past.items()}
    return {"tokens": tokens, **empty}


def part_way(run: Run, feed: Feed, past: int, count: int) -> dict[str, np.ndarray]:
    """The feed of so many tokens behind so many others."""
    _, known = _step(run, {**feed, "tokens": feed["tokens"][:, :past]})
    return {"tokens": feed["tokens"][:, past : past + count], **known}


def by_pieces(run: Run, feed: Feed, count: int) -> np.ndarray:
    """Logits of all tokens, of which so many are fed at once."""
    tokens, logits = feed["tokens"], list[np.ndarray]()
    for start in range(0, tokens.shape[1], count):
        found, feed = _step(run, {**feed, "tokens": tokens[:, start : start + count]})
        logits.append(found)
    return np.concatenate(logits, axis=1)


def _step(run: Run, feed: Feed) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Logits, and all that is past behind them."""
    logits, *present = run(feed)
    return logits, dict(zip((name for name in feed if name != "tokens"), present, strict=True))
