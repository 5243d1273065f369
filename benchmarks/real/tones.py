"""Tones whose pitch is known, as CREPE takes them, and the pitch that it gives.

A frame is 1,024 samples at 16 kHz, without mean and at a standard deviation of 1; an output has 360 bins, 20 cents
apart (J. W. Kim et al., "CREPE: a convolutional representation for pitch estimation", ICASSP 2018).
"""

from __future__ import annotations

import numpy as np

FRAME, RATE = 1024, 16000
# Of the first bin in cents above 10 Hz, and from bin to bin.
_FIRST, _BIN = 1997.3794084376191, 20
# Bins on either side of the largest that its pitch is a mean of.
_BESIDE = 4
LOWEST, HIGHEST = 60.0, 1000.0


def frames(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """So many frames float32 `[N, 1024]`, each of a tone of its own, and their pitches in Hz `[N]`.

    A tone has up to ten harmonics, a vibrato of 4 to 7 Hz and up to 50 cents to each side, and noise from 20 dB below
    it to 10 dB above. Its pitch is the mean of a frame, in cents.
    """
    made = [_frame(np.random.default_rng((seed, index))) for index in range(count)]
    return np.stack([frame for frame, _ in made]), np.array([pitch for _, pitch in made])


def _frame(chance: np.random.Generator) -> tuple[np.ndarray, float]:
    middle = LOWEST * (HIGHEST / LOWEST) ** chance.random()
    depth, speed, start = chance.uniform(0, 50), chance.uniform(4, 7), chance.uniform(0, 2 * np.pi)
    bent = depth * np.sin(2 * np.pi * speed * np.arange(FRAME) / RATE + start)
    phase = 2 * np.pi * np.cumsum(middle * 2 ** (bent / 1200)) / RATE
    numbers = np.arange(1, chance.integers(1, 11) + 1)
    numbers = numbers[numbers * middle < RATE / 2]
    loudness = numbers ** -chance.uniform(0.5, 2)
    tone = loudness @ np.sin(numbers[:, None] * phase + chance.uniform(0, 2 * np.pi, (len(numbers), 1)))
    tone += chance.normal(0, tone.std() * 10 ** (-chance.uniform(-10, 20) / 20), FRAME)
    return ((tone - tone.mean()) / tone.std()).astype(np.float32), float(middle * 2 ** (bent.mean() / 1200))


def pitches(logits: np.ndarray) -> np.ndarray:
    """In Hz `[N]`: the mean of the bins around the largest, by their sigmoids, of logits `[N, 360]`."""
    bins = np.arange(logits.shape[1])
    near = np.abs(bins - logits.argmax(axis=1)[:, None]) <= _BESIDE
    weights = near / (1 + np.exp(-logits.astype(np.float64)))
    return 10 * 2 ** ((_FIRST + _BIN * (weights @ bins) / weights.sum(axis=1)) / 1200)
