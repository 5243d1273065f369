"""Lines of text in pictures, as PP-OCR's recognition takes them, and the text that it gives.

A picture is 48 pixels high and 320 wide, blue first, from −1 to 1, and 0 behind the text. Words are of Python's
reference (`sequences.py`), fonts are DejaVu.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import sequences
from PIL import Image, ImageDraw, ImageFont

HEIGHT, WIDTH = 48, 320
FONTS = (
    "DejaVuSans.ttf",
    "DejaVuSans-Bold.ttf",
    "DejaVuSerif.ttf",
    "DejaVuSerif-Bold.ttf",
    "DejaVuSansMono.ttf",
    "DejaVuSansMono-Bold.ttf",
)
_MARGIN = 8


def lines(count: int, seed: int) -> tuple[np.ndarray, list[str]]:
    """So many pictures float32 `[N, 3, 48, 320]`, and what is written in each: two to four words and numbers.

    Font, size, colours and noise are drawn for each line.
    """
    words = sorted(set(re.findall(r"\b[A-Za-z]{2,10}\b", sequences.reference())))
    made = [_line(words, np.random.default_rng((seed, index))) for index in range(count)]
    return np.stack([picture for picture, _ in made]), [text for _, text in made]


def _line(words: Sequence[str], chance: np.random.Generator) -> tuple[np.ndarray, str]:
    font = _font(FONTS[chance.integers(len(FONTS))], int(chance.integers(22, 35)))
    parts = [_part(words, chance) for _ in range(chance.integers(2, 5))]
    while len(parts) > 1 and font.getlength(" ".join(parts)) > WIDTH - 2 * _MARGIN:
        parts.pop()
    text = " ".join(parts)
    width = min(int(font.getlength(text)) + 2 * _MARGIN, WIDTH)
    dark, light = chance.integers(0, 90, 3), chance.integers(170, 256, 3)
    ink, paper = (dark, light) if chance.random() < 0.8 else (light, dark)
    picture = Image.new("RGB", (width, HEIGHT), tuple(map(int, paper)))
    ImageDraw.Draw(picture).text((_MARGIN, HEIGHT // 2), text, tuple(map(int, ink)), font, anchor="lm")
    noisy = np.asarray(picture) + chance.normal(0, chance.uniform(0, 12), (HEIGHT, width, 3))
    return prepared(np.clip(noisy, 0, 255).astype(np.uint8)), text


def _part(words: Sequence[str], chance: np.random.Generator) -> str:
    return str(chance.integers(10000)) if chance.random() < 0.25 else words[chance.integers(len(words))]


def _font(file: str, size: int) -> ImageFont.FreeTypeFont:
    try:
        return ImageFont.truetype(file, size)
    except OSError as error:
        raise SystemExit(f"error: no font '{file}'; on Debian and Ubuntu: apt install fonts-dejavu-core") from error


def prepared(picture: np.ndarray) -> np.ndarray:
    """As the network takes a picture uint8 `[48, W, 3]` in red, green and blue: float32 `[3, 48, 320]`."""
    found = np.zeros((3, HEIGHT, WIDTH), np.float32)
    found[..., : picture.shape[1]] = (picture[..., ::-1].astype(np.float32) / 127.5 - 1).transpose(2, 0, 1)
    return found


def texts(scores: np.ndarray, characters: Sequence[str]) -> list[str]:
    """Of scores `[N, places, 1 + characters]` the best class at each place, repetitions once, without blanks (0).

    The greedy decoding of connectionist temporal classification (A. Graves et al., ICML 2006); spaces at either end are
    no text.
    """
    return ["".join(characters[one - 1] for one in _changes(best) if one).strip() for best in scores.argmax(axis=2)]


def _changes(classes: np.ndarray) -> np.ndarray:
    return classes[np.append(True, classes[1:] != classes[:-1])]
