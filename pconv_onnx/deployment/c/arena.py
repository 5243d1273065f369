"""Where buffers lie in the arena: two may share bytes where no call needs both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pconv_onnx.deployment.c.program import Call
from pconv_onnx.deployment.c.views import Buffer

# So that an int32 or a float may be anywhere.
ALIGNMENT = 4


def offsets(calls: Sequence[Call]) -> tuple[Mapping[Buffer, int], int]:
    """The place of each buffer that is none elsewhere, and how many bytes all take; the largest are placed first."""
    lives: dict[Buffer, list[int]] = {}
    for index, call in enumerate(calls):
        for buffer in (*call.reads, call.writes):
            if not buffer.name:
                lives.setdefault(buffer, [index, index])[1] = index
    placed: dict[Buffer, int] = {}
    for buffer in sorted(lives, key=lambda one: (-one.bytes, lives[one])):
        first, last = lives[buffer]
        beside = [one for one in placed if lives[one][0] <= last and first <= lives[one][1]]
        place = 0
        for other in sorted(beside, key=placed.__getitem__):
            if place + buffer.bytes <= placed[other]:
                break
            place = max(place, _aligned(placed[other] + other.bytes))
        placed[buffer] = place
    return placed, max((_aligned(place + buffer.bytes) for buffer, place in placed.items()), default=0)


def _aligned(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT
