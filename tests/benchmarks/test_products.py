"""The file of the benchmark of products: entries of several commands."""

from __future__ import annotations

from typing import Any

from products import KEY, with_entry


def entry(network: str, steps: int, verdict: str, *, mixed: bool = False) -> dict[str, Any]:
    values = (network, "products", "radix", steps, mixed, "refit", 100, 5000)
    return {**dict(zip(KEY, values, strict=True)), "verdict": verdict}


def test_an_entry_replaces_that_of_the_same_networks_and_no_other():
    entries: list[dict[str, Any]] = []
    for new in (entry("a", 4, "old"), entry("a", 5, "equal"), entry("b", 4, "equal"), entry("a", 4, "new")):
        entries = with_entry(entries, new)
    assert entries == [entry("a", 4, "new"), entry("a", 5, "equal"), entry("b", 4, "equal")]


def test_an_entry_from_before_time_steps_were_mixed_is_of_the_same_networks():
    old = entry("a", 4, "old")
    del old["mixed"]
    new, mixed = entry("a", 4, "new"), entry("a", 4, "equal", mixed=True)
    assert with_entry([old], new) == [new]
    assert with_entry([old], mixed) == [old, mixed]
