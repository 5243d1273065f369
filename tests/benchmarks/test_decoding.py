"""Decoding with keys and values of tokens before."""

from __future__ import annotations

import numpy as np
from decoding import by_pieces, from_nothing, part_way

TOKENS = np.arange(20).reshape(2, 10)
SHAPES = {"keys": ["batch", 1, "past", 1], "values": ["batch", 1, "past", 2]}


def network(fed: list[int]):
    """Logits are of a token and all before it their sum; keys are the tokens, and values these and their doubles."""

    def run(feed):
        tokens = feed["tokens"]
        fed.append(tokens.shape[1])
        new = tokens[:, None, :, None].astype(np.float32)
        keys = np.concatenate([feed["keys"], new], axis=2)
        values = np.concatenate([feed["values"], np.concatenate([new, 2 * new], axis=3)], axis=2)
        np.testing.assert_array_equal(values, np.concatenate([keys, 2 * keys], axis=3))
        return np.cumsum(keys[:, 0], axis=1)[:, -tokens.shape[1] :], keys, values

    return run


def test_all_tokens_are_fed_in_pieces_and_what_is_past_goes_on():
    fed: list[int] = []
    logits = by_pieces(network(fed), from_nothing(TOKENS, SHAPES), count=4)
    assert fed == [4, 4, 2]
    np.testing.assert_array_equal(logits, np.cumsum(TOKENS, axis=1)[..., None])


def test_part_of_the_way_the_tokens_before_are_past():
    fed: list[int] = []
    feed = part_way(network(fed), from_nothing(TOKENS, SHAPES), past=6, count=3)
    assert fed == [6]
    np.testing.assert_array_equal(feed["tokens"], TOKENS[:, 6:9])
    np.testing.assert_array_equal(feed["keys"], TOKENS[:, None, :6, None])
    np.testing.assert_array_equal(feed["values"], TOKENS[:, None, :6, None] * [1, 2])
    assert feed["keys"].dtype == np.float32


def test_a_past_of_none_has_heads_and_sizes():
    feed = from_nothing(TOKENS, SHAPES)
    assert {name: values.shape for name, values in feed.items()} == {
        "tokens": (2, 10),
        "keys": (2, 1, 0, 1),
        "values": (2, 1, 0, 2),
    }
