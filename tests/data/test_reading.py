"""Samples: read from every source that is promised, and refused with a reason where they do not fit."""

from __future__ import annotations

import pickle
import zipfile

import numpy as np
import onnxruntime
import pytest
from networks import network
from refusals import refusal_of

from pconv_onnx.basics.errors import PconvError
from pconv_onnx.data.reading import load_samples, open_samples, random_samples
from pconv_onnx.data.samples import Samples


def session(inputs: str, nodes: str = "y = Identity (x)", outputs: str = "float[N, 3] y"):
    """An onnxruntime session with the inputs of a declaration in ONNX text form."""
    return onnxruntime.InferenceSession(network(nodes, inputs=inputs, outputs=outputs).SerializeToString())


ONE = "float[N, 3] x"
TWO = "float[N, 3] x, int64[N] i"


def array(*shape: int) -> np.ndarray:
    return np.arange(np.prod(shape), dtype=np.float32).reshape(shape)


def refusal(source, inputs: str = ONE) -> str:
    return refusal_of(load_samples, source, session(inputs))


class Reader:
    """onnxruntime's CalibrationDataReader, by its interface alone."""

    def __init__(self, batches):
        self.batches = iter(batches)

    def get_next(self):
        return next(self.batches, None)


def sources(folder, arrays):
    """The same samples from each kind of source."""
    np.savez(folder / "all.npz", **arrays)
    parts = folder / "parts"
    parts.mkdir()
    for name, part in (("a", slice(0, 2)), ("b", slice(2, 5)), ("c", slice(5, None))):
        np.savez_compressed(parts / f"{name}.npz", **{key: value[part] for key, value in arrays.items()})
    batches = [{key: value[i : i + 3] for key, value in arrays.items()} for i in range(0, 7, 3)]
    return {"npz": folder / "all.npz", "path as text": str(folder / "all.npz"), "directory": parts, "mapping": arrays,
            "reader": Reader(batches)}  # fmt: skip


@pytest.mark.parametrize("kind", ["npz", "path as text", "directory", "mapping", "reader"])
def test_each_source_gives_the_same_samples(kind, tmp_path):
    arrays = {"x": array(7, 3), "i": np.arange(7), "labels": np.arange(7, dtype=np.uint8) % 2}
    samples = load_samples(sources(tmp_path, arrays)[kind], session(TWO))
    assert len(samples) == 7
    assert set(samples.arrays) == {"x", "i"}
    np.testing.assert_array_equal(samples.arrays["x"], arrays["x"])
    np.testing.assert_array_equal(samples.arrays["i"], arrays["i"])
    np.testing.assert_array_equal(samples.labels, arrays["labels"])


def test_arrays_that_the_model_does_not_take_are_ignored(tmp_path):
    np.savez(tmp_path / "d.npz", x=array(2, 3), mean=np.float32(0.5), names=np.array(["a", "b", "c"]))
    with pytest.warns(UserWarning, match="neither an input of the model nor labels: 'mean', 'names'$"):
        samples = load_samples(tmp_path / "d.npz", session(ONE))
    assert (len(samples), samples.labels) == (2, None)


def test_an_input_called_labels_is_an_input():
    samples = load_samples({"labels": array(2, 3)}, session("float[N, 3] labels", "y = Identity (labels)"))
    np.testing.assert_array_equal(samples.arrays["labels"], array(2, 3))
    assert samples.labels is None


@pytest.mark.parametrize(("count", "size"), [(1, 50), (7, 3), (6, 3), (5, 1)])
def test_batches_cover_every_sample_once(count, size):
    samples = load_samples({"x": array(count, 3), "i": np.arange(count)}, session(TWO))
    parts, feeds = zip(*samples.batches(size), strict=True)
    assert [i for part in parts for i in range(count)[part]] == list(range(count))
    assert [part.stop - part.start for part in parts] == [len(feed["x"]) for feed in feeds]
    assert all(0 < len(feed["x"]) <= size for feed in feeds)
    np.testing.assert_array_equal(np.concatenate([feed["x"] for feed in feeds]), samples.arrays["x"])
    np.testing.assert_array_equal(np.concatenate([feed["i"] for feed in feeds]), np.arange(count))


def test_a_fixed_batch_of_the_model_is_kept():
    samples = load_samples({"x": array(6, 3)}, session("float[2, 3] x"))
    assert [len(feed["x"]) for _, feed in samples.batches(50)] == [2, 2, 2]


def test_samples_that_do_not_fill_a_fixed_batch_are_told():
    assert "the model takes batches of 4, and 6 samples are not a multiple" in refusal(
        {"x": array(6, 3)}, "float[4, 3] x"
    )


@pytest.mark.parametrize(
    ("arrays", "told"),
    [
        ({"image": array(2, 3), "z": array(2)}, "no array 'x', which is an input of the model; it has 'image', 'z'"),
        ({}, "no array 'x', which is an input of the model; it has none"),
        ({"x": array(2, 3, 1)}, "'x' in the data has shape [2, 3, 1]; the model takes ['N', 3]"),
        ({"x": array(6)}, "has shape [6]; the model takes ['N', 3]"),
        ({"x": np.float32(1)}, "has shape []; the model takes ['N', 3]"),
        ({"x": array(2, 4)}, "has shape [2, 4]; the model takes ['N', 3]"),
        ({"x": array(2, 3).astype(np.float64)}, "'x' in the data is float64; the model takes float32"),
        ({"x": array(2, 3).astype(">f4")}, "'x' in the data is >f4; the model takes float32"),
        ({"x": np.array([["a", "b", "c"]])}, "is <U1; the model takes float32"),
        ({"x": array(2, 3), "labels": np.arange(3)}, "unequal numbers of samples: 'x' 2, 'labels' 3"),
        ({"x": array(2, 3), "labels": np.zeros((2, 1, 1), int)}, "'labels' in the data is int64 of shape [2, 1, 1]"),
        ({"x": array(2, 3), "labels": np.float32(1)}, "'labels' in the data is float32 of shape []"),
        ({"x": array(2, 3), "labels": np.ones(2, bool)}, "'labels' in the data is bool of shape [2]"),
        ({"x": array(2, 3), "labels": array(3)}, "unequal numbers of samples: 'x' 2, 'labels' 3"),
        ({"x": array(2, 3), "labels": 1}, "'labels' in the data is int64 of shape []"),
        ({"x": array(0, 3)}, "the data hold no samples"),
    ],
)  # fmt: skip
def test_data_that_do_not_fit_are_told(arrays, told):
    assert told in refusal(arrays)


def test_unequal_numbers_of_samples_are_told():
    assert "unequal numbers of samples: 'x' 3, 'i' 2" in refusal({"x": array(3, 3), "i": np.arange(2)}, TWO)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_told_with_their_sample(value):
    x = array(5, 3)
    x[3, 1] = value
    assert refusal({"x": x}) == "'x' in the data has a NaN or an infinity, first in sample 3"


def test_missing_file_is_told(tmp_path):
    assert f"cannot read '{tmp_path}/none.npz': No such file or directory" in refusal(tmp_path / "none.npz")


def test_directory_without_npz_is_told(tmp_path):
    (tmp_path / "x.npy").touch()
    told = refusal(tmp_path)
    assert f"'{tmp_path}' holds no .npz and no Parquet files; " in told
    assert "for pictures, CIFAR's too, pass a recipe, a .json file (docs/scale-out.md)" in told


def test_npz_without_arrays_is_told(tmp_path):
    np.savez(tmp_path / "d.npz")
    assert "d.npz' has no array 'x', which is an input of the model; it has none" in refusal(tmp_path / "d.npz")


def test_npy_is_told(tmp_path):
    np.save(tmp_path / "d.npy", array(2, 3))
    assert "it is not an archive; write it with numpy.savez" in refusal(tmp_path / "d.npy")


@pytest.mark.parametrize("data", [5, None])
def test_what_has_no_samples_is_refused(data):
    told = f"data are given as a path, as arrays or as batches of them, not as {type(data).__name__}; write {{'NAME':"
    assert refusal(data).startswith(told)


def test_pickled_objects_are_refused(tmp_path):
    np.savez(tmp_path / "d.npz", x=np.array([{}, []], dtype=object))
    assert "d.npz' is not an .npz of plain arrays" in refusal(tmp_path / "d.npz")
    (tmp_path / "p.npz").write_bytes(pickle.dumps({"x": 1}))
    assert "p.npz' is not an .npz of plain arrays: it is not an archive; write it" in refusal(tmp_path / "p.npz")


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_a_truncated_or_damaged_npz_is_told(save, tmp_path):
    path = tmp_path / "d.npz"
    save(path, x=array(50, 3))
    content = path.read_bytes()
    for length in range(0, len(content), 23):
        path.write_bytes(content[:length])
        assert "d.npz' is not an .npz of plain arrays" in refusal(path)
    # In the middle of the array's bytes: the checksum, or the decompression, fails.
    for start in range(40, 240, 20):
        path.write_bytes(content[:start] + b"\xff" * 20 + content[start + 20 :])
        assert "d.npz' is not an .npz of plain arrays" in refusal(path)


def test_a_compression_that_python_does_not_know_is_told(tmp_path):
    np.savez(tmp_path / "d.npz", x=array(2, 3))
    content = bytearray((tmp_path / "d.npz").read_bytes())
    content[content.index(b"PK\x01\x02") + 10] = 99
    (tmp_path / "d.npz").write_bytes(content)
    assert "d.npz' is not an .npz of plain arrays: 'x.npy' is compressed by another method" in refusal(
        tmp_path / "d.npz"
    )


def test_a_member_that_is_no_array_is_told(tmp_path):
    with zipfile.ZipFile(tmp_path / "d.npz", "w") as archive:
        archive.writestr("x", b"text")
    assert "has no array 'x', which is an input of the model; it has none" in refusal(tmp_path / "d.npz")


def test_a_file_of_a_directory_is_told_by_its_name(tmp_path):
    np.savez(tmp_path / "a.npz", x=array(2, 3))
    np.savez(tmp_path / "b.npz", z=array(2, 3))
    assert f"'{tmp_path}/b.npz' has no array 'x'" in refusal(tmp_path)


@pytest.mark.parametrize("shape", [(7,), (7, 1), (7, 2, 3)])
def test_labels_that_are_floats_are_targets(shape, tmp_path):
    arrays = {"x": array(7, 3), "labels": array(*shape).astype(np.float64)}
    for source in sources(tmp_path, arrays).values():
        samples = load_samples(source, session(ONE))
        assert samples.labels is None
        np.testing.assert_array_equal(samples.targets, arrays["labels"])
        np.testing.assert_array_equal(samples.part(slice(2, 4)).targets, arrays["labels"][2:4])


@pytest.mark.parametrize("dtype", [np.int8, np.uint16, np.int64])
@pytest.mark.parametrize("tokens", [1, 5])
def test_integers_of_two_axes_are_labels_of_tokens(tokens, dtype, tmp_path):
    arrays = {"x": array(7, 3), "labels": np.arange(7 * tokens, dtype=dtype).reshape(7, tokens)}
    for source in sources(tmp_path, arrays).values():
        samples = load_samples(source, session(ONE))
        assert (samples.labels, samples.targets, samples.labelled) == (None, None, "token_labels")
        np.testing.assert_array_equal(samples.token_labels, arrays["labels"])
        np.testing.assert_array_equal(samples.part(slice(2, 4)).token_labels, arrays["labels"][2:4])


def test_targets_that_are_not_finite_are_told_with_their_sample():
    labels = np.float32([[1, 2], [3, 4], [5, np.nan]])
    told = "'labels' in the data has a NaN or an infinity, first in sample 2; leave such samples out"
    assert refusal({"x": array(3, 3), "labels": labels}) == told


def test_classes_in_some_parts_and_targets_in_others_are_told():
    batches = Reader([{"x": array(2, 3), "labels": labels} for labels in (np.arange(2), array(2))])
    assert refusal(batches).startswith("'labels' are integers in some parts of the data and floats in others; ")


@pytest.mark.parametrize(
    ("kinds", "told"),
    [
        ((np.zeros((2, 4), int), np.arange(2)), "integers in some parts of the data and integers for each token in"),
        ((array(2, 4), np.zeros((2, 4), int)), "integers for each token in some parts of the data and floats in"),
    ],
)
def test_labels_of_tokens_in_some_parts_only_are_told(kinds, told):
    batches = Reader([{"x": array(2, 3), "labels": labels} for labels in kinds])
    assert refusal(batches).startswith(f"'labels' are {told} others; ")


def test_labels_in_some_files_only_are_told(tmp_path):
    np.savez(tmp_path / "a.npz", x=array(2, 3), labels=np.arange(2))
    np.savez(tmp_path / "b.npz", x=array(2, 3))
    assert "some parts of the data have labels and others have none" in refusal(tmp_path)


def test_parts_of_other_shapes_are_told():
    batches = Reader([{"x": array(2, 3)}, {"x": array(2, 4)}])
    assert "the parts of 'x' do not fit together" in refusal(batches, "float[N, M] x")


def test_a_fault_in_a_batch_of_a_reader_is_told_with_its_number():
    batches = Reader([{"x": array(2, 3)}, {"x": array(2, 4)}])
    assert "'x' in batch 1 of the data has shape [2, 4]" in refusal(batches)


def test_a_reader_without_batches_is_told():
    assert refusal(Reader([])) == "the data hold no samples"


def test_a_model_without_inputs_is_told():
    with pytest.raises(PconvError, match="the model has no inputs"):
        random_samples(session("", "y = Constant <value = float[1, 3] {1, 2, 3}> ()"))


@pytest.mark.parametrize("inputs", ["float[N, 3] x, float s", "float[N, 3] x, seq(float[N]) s"])
def test_an_input_without_an_axis_for_samples_is_told(inputs):
    for samples in (random_samples, lambda it: load_samples({"x": array(2, 3), "s": np.float32(1)}, it)):
        with pytest.raises(PconvError, match="input 's' of type .* has no known first axis"):
            samples(session(inputs))


def test_inputs_that_no_number_of_samples_fits_are_told():
    with pytest.raises(PconvError, match="take different numbers of samples: 'x' "):
        random_samples(session("float[2, 3] x, float[4, 3] z"))


def test_an_input_of_no_samples_is_named_as_such():
    with pytest.raises(PconvError, match="the input 'x' is declared to take 0 samples; leave its batch open"):
        random_samples(session("float[0, 3] x"))


def test_random_samples_are_seeded():
    first, second, other = (random_samples(session(TWO), seed) for seed in (0, 0, 1))
    assert first.arrays["x"].dtype == np.float32
    np.testing.assert_array_equal(first.arrays["x"], second.arrays["x"])
    assert (first.arrays["x"] != other.arrays["x"]).any()


@pytest.mark.parametrize("kind", ["int64", "int32", "uint8", "uint32", "bool", "float16", "double"])
def test_random_samples_are_of_the_models_type(kind):
    one = session(f"{kind}[N, 3] x", outputs=f"{kind}[N, 3] y")
    samples = random_samples(one)
    one.run(None, samples.arrays)
    assert np.unique(samples.arrays["x"]).size > 1


def test_random_samples_fill_the_one_batch_of_mixed_inputs():
    samples = random_samples(session("float[N, 3] x, float[2, 3] z"))
    assert {name: value.shape for name, value in samples.arrays.items()} == {"x": (2, 3), "z": (2, 3)}


def test_random_samples_need_known_shapes():
    with pytest.raises(
        PconvError, match=r"for input 'x' of which dimension 'M' is open, shape \['N', 'M'\]; pass `data=`"
    ):
        random_samples(session("float[N, M] x"))


@pytest.mark.parametrize("sizes", ["2147483647, 4, 4", "2147483648, 0, 1099511627776"])
def test_an_input_that_no_memory_holds_is_not_drawn(sizes):
    with pytest.raises(PconvError, match="input 'x' of shape .* are too many; pass `data=`"):
        random_samples(session(f"float[N, {sizes}] x"))


RAGGED = [[1.0], [1.0, 2.0]]


@pytest.mark.parametrize(
    ("arrays", "told"),
    [
        ({"x": RAGGED}, "'x' in the data is a list and no array"),
        ({"x": array(2, 3), "labels": RAGGED}, "'labels' in the data is a list and no array"),
        ({"x": 1.5}, "'x' in the data is float64; the model takes float32"),
        ({"x": None}, "'x' in the data is object"),
        ({"x": [10**400]}, "'x' in the data is object"),
        ({"x": np.zeros((2, 3), complex)}, "'x' in the data is complex128"),
        ({"x": np.zeros((2, 3), "M8[s]")}, "'x' in the data is datetime64[s]"),
        ({"x": np.zeros(2, "f4, i4")}, "'x' in the data is [("),
        ({"x": array(0)}, "'x' in the data has shape [0]"),
        ({"x": array(2, 0)}, "'x' in the data has shape [2, 0]"),
        ({"x": np.float32(1)}, "'x' in the data has shape []"),
        ({"x": array(2, 3), "labels": None}, "'labels' in the data is object of shape []"),
        ({"x": array(2, 3), "labels": np.zeros(2, complex)}, "'labels' in the data is complex128"),
        ({"x": array(2, 3), "labels": np.zeros(2, "M8[s]")}, "'labels' in the data is datetime64[s]"),
        ({"x": array(2, 3), "labels": np.array(["a", "b"])}, "'labels' in the data is <U1"),
        ({"x": array(2, 3), "labels": np.zeros((2, 0), int)}, "'labels' in the data is int64 of shape [2, 0]"),
        ({"x": array(2, 3), "labels": array(2, 0)}, "targets without values"),
    ],
)
def test_what_is_no_array_of_a_model_is_told_however_it_is_read(arrays, told):
    runner = session(ONE)
    assert told in refusal_of(load_samples, arrays, runner)
    assert told in refusal_of(lambda: read_all(open_samples(arrays, runner)))


def read_all(samples) -> Samples:
    return samples.part(slice(0, len(samples)))


@pytest.mark.parametrize("shape", [(0, 3), (0, 0)])
def test_data_without_samples_are_told(shape):
    runner = session("float[N, M] x")
    assert refusal_of(load_samples, {"x": array(*shape)}, runner) == "the data hold no samples"
    assert refusal_of(lambda: read_all(open_samples({"x": array(*shape)}, runner))) == "the data hold no samples"


def test_samples_without_values_are_told():
    runner = session("float[N, M] x")
    told = "the samples of the data hold no values: 'x' [4, 0]"
    assert refusal_of(load_samples, {"x": array(4, 0)}, runner) == told
    assert refusal_of(lambda: read_all(open_samples({"x": array(4, 0)}, runner))) == told


@pytest.mark.parametrize("empty", ["x", "z"])
def test_an_input_without_values_beside_one_with_some_is_taken(empty):
    """The cache of a decoder's first step is one."""
    arrays = {name: array(4, 0 if name == empty else 2) for name in ("x", "z")}
    runner = session("float[N, M] x, float[N, K] z", "y = Concat <axis = 1> (x, z)", "float[N, L] y")
    for samples in (load_samples(arrays, runner), read_all(open_samples(arrays, runner))):
        assert [samples.arrays[name].shape for name in ("x", "z")] == [arrays[name].shape for name in ("x", "z")]


def test_rows_without_bytes_are_not_counted_as_samples(tmp_path):
    """An archive of few bytes may claim any number of them."""
    head = b"{'descr': '<f4', 'fortran_order': False, 'shape': (1099511627776, 0), }\n"
    with zipfile.ZipFile(tmp_path / "d.npz", "w") as archive:
        archive.writestr("x.npy", b"\x93NUMPY\x01\x00" + len(head).to_bytes(2, "little") + head)
    assert "hold no values" in refusal_of(len, open_samples(tmp_path / "d.npz", session("float[N, M] x")))


def test_a_batch_that_is_no_array_is_told():
    told = refusal(Reader([{"x": array(2, 3)}, "x"]))
    assert told == "batch 1 of the data is a str; give arrays, by the names of inputs"


@pytest.mark.parametrize("place", ["pconv_onnx.data.parts.Given.read", "numpy.concatenate"])
def test_what_does_not_fit_in_memory_is_told(place, monkeypatch):
    def fail(*_):
        raise MemoryError

    runner = session(ONE)
    monkeypatch.setattr(place, fail)
    assert "do not fit in memory; give fewer" in refusal_of(load_samples, {"x": array(2, 3)}, runner)


def test_random_values_that_do_not_fit_in_memory_are_told(monkeypatch):
    def fail(*_):
        raise MemoryError

    runner = session(ONE)
    monkeypatch.setattr("numpy.broadcast_to", fail)
    assert "random values for input 'x'" in refusal_of(random_samples, runner)
