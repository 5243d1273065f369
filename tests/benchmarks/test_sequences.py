"""Sequences as networks take them."""

from __future__ import annotations

import numpy as np
from sequences import ends, files, parts, passages, reference, sentences, varied


def test_the_text_to_test_on_is_the_last_tenth():
    known, new = parts()
    assert (known.tobytes() + new.tobytes()).decode() == reference()
    assert len(new) == -(-len(reference().encode()) // 10)


def test_each_byte_of_a_passage_has_the_next_one_as_its_label():
    tokens, labels = passages(np.frombuffer(b"abcdefghij", np.uint8), 3)
    assert [bytes(row.tolist()) for row in tokens] == [b"abc", b"efg"]
    assert [bytes(row.tolist()) for row in labels] == [b"bcd", b"fgh"]
    assert tokens.dtype == labels.dtype == np.int64


def test_sentences_are_whole_and_of_words_and_there_once():
    text = """The first sentence goes
over two lines here.  It is short.  Is this one a sentence that ends otherwise?  It has (many) words, and "marks".

The first sentence goes over two lines here.
   >>> Code = [that is no sentence at all].

the last begins with no capital letter."""
    assert sentences(text) == ["The first sentence goes over two lines here.", 'It has (many) words, and "marks".']
    assert sentences(" ".join(["A", *["word"] * 29]) + ".") and not sentences(" ".join(["A", *["word"] * 30]) + ".")


def test_files_are_those_that_magika_reads(tmp_path):
    (tmp_path / "below" / "__pycache__").mkdir(parents=True)
    for name, size in {"short": 7, "long": 8, "below/long.py": 9, "below/__pycache__/long.pyc": 9}.items():
        (tmp_path / name).write_bytes(b"x" * size)
    (tmp_path / "link").symlink_to(tmp_path / "long")
    assert sorted(files([tmp_path])) == [tmp_path / "below/long.py", tmp_path / "long"]


def test_files_are_taken_in_turns_of_their_suffixes(tmp_path):
    given = [tmp_path / f"{number}{suffix}" for number in range(3) for suffix in (".c", ".py")] + [tmp_path / "3.PY"]
    taken = varied(given)
    assert sorted(taken) == sorted(given)
    assert [path.suffix.lower() for path in taken] == [".py", ".c"] * 3 + [".py"]
    assert varied(given[::-1]) == taken != varied(given, seed=1)


def test_of_many_suffixes_those_of_most_files_are_taken(tmp_path):
    rare, frequent = tmp_path / "0.rare", [tmp_path / f"{n}.{kind}" for n in range(2) for kind in range(120)]
    assert sorted(varied([rare, *frequent])) == sorted(frequent)


def test_both_ends_of_a_file_are_read_without_white_space_outside(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b" \nab c\t")
    found = ends(path)
    assert found.shape == (2048,) and found.dtype == np.int32
    assert found[:6].tolist() == [*b"ab c\t", 256] and found[-7:].tolist() == [256, *b" \nab c"][-7:]
    assert (found[5:-6] == 256).all()


def test_of_a_long_file_the_ends_are_of_what_is_read(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b" " * 4000 + b"a" * 3000 + b"b" * 3000 + b" " * 4000)
    found = ends(path)
    assert found[:97].tolist() == [*b"a" * 96, 256] and found[-97:].tolist() == [256, *b"b" * 96]
    path.write_bytes(b"a" * 1000 + b"b" * 3000 + b"c" * 1000)
    assert ends(path).astype(np.uint8).tobytes() == b"a" * 1000 + b"b" * 24 + b"b" * 24 + b"c" * 1000
