"""Faults that a user can mend, in one line whatever they quote."""

from __future__ import annotations

import pytest

from pconv_onnx.basics.errors import PconvError, cut, listed, printable, warn


@pytest.mark.parametrize(
    ("message", "hint", "told"),
    [
        ("it is wrong", "mend it", "it is wrong; mend it"),
        ("it is wrong", "", "it is wrong"),
        ("it says:\n\n  no.\n", "mend\nit.", "it says: no; mend it"),
        ("it says: ", "", "it says"),
    ],
)
def test_an_error_is_one_line_without_empty_parts(message, hint, told):
    error = PconvError(message, hint)
    assert str(error) == told
    assert "; ".join(filter(None, [error.message, error.hint])) == told


def test_a_message_is_one_line_of_bounded_length_with_both_its_ends():
    for name in ("n" * 1_000_000, "a b " * 250_000, "\n\x1b" * 500_000):
        error = PconvError(f"node '{name}' has no operator", f"rename '{name}'")
        for told, start, end in (
            (error.message, "node '", "' has no operator"),
            (error.hint, "rename '", "'"),
        ):
            assert len(told) <= 2000
            assert told.isprintable()
            assert told.startswith(start)
            assert told.endswith(end)
            assert "…" in told


def test_a_path_is_told_whole():
    source, output = (f"/{'folder/' * 580}{name}.onnx" for name in ("source", "output"))
    error = PconvError(f"cannot copy '{source}' to '{output}': no such file", f"make '{source}'")
    assert error.message == f"cannot copy '{source}' to '{output}': no such file"
    assert error.hint == f"make '{source}'"


@pytest.mark.parametrize("quoted", ["a/" * 2500, "n" * 513, "\0" * 513])
def test_what_is_no_path_is_told_in_part(quoted):
    assert len(printable(f"'{quoted}'")) <= 2048


def test_many_paths_are_told_in_a_bounded_length():
    assert len(printable(" ".join(["a/" * 2000] * 1000))) <= 2000 + 2 * 4096


def test_what_is_short_is_told_as_it_is():
    assert printable("a" * 512) == "a" * 512
    assert cut("a" * 200) == "a" * 200
    assert len(cut("a" * 201)) == 200


def test_a_list_tells_a_few_names_and_how_many_others():
    assert listed(["a", "b"]) == "a, b"
    assert listed([str(index) for index in range(100_000)]) == "0, 1, 2, 3, 4 and 99,995 others"


def test_a_warning_is_one_bounded_line():
    with pytest.warns(UserWarning, match="…") as caught:
        warn("n" * 1_000_000 + "\n is long")
    assert len(str(caught[0].message)) < 600
