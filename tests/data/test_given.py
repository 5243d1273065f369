"""Samples as Python has them: arrays, pairs, batches, and datasets of other libraries."""

from __future__ import annotations

import pickle
import subprocess
import sys

import numpy as np
import onnxruntime
import pytest
from networks import network
from refusals import refusal_of

from pconv_onnx.data import given
from pconv_onnx.data.reading import load_samples, open_samples

X = np.random.default_rng(0).normal(size=(7, 3)).astype(np.float32)
IDS = np.arange(7)
Y = np.arange(7) % 3
CUTS = (slice(0, 3), slice(3, 7))


def session(inputs: str = "float[N, 3] x"):
    model = network("y = Identity (x)", inputs=inputs, outputs="float[N, 3] y")
    return onnxruntime.InferenceSession(model.SerializeToString())


ONE, TWO = session(), session("float[N, 3] x, int64[N] i")


def assert_samples(source, runner=ONE, labels: bool = True) -> None:
    samples = load_samples(source, runner)
    np.testing.assert_array_equal(samples.arrays["x"], X)
    if runner is TWO:
        np.testing.assert_array_equal(samples.arrays["i"], IDS)
    if labels:
        np.testing.assert_array_equal(samples.labels, Y)
    else:
        assert samples.labels is None


def test_one_input_takes_an_array_alone_or_with_labels():
    assert_samples(X, labels=False)
    assert_samples((X,), labels=False)
    assert_samples((X, Y))
    assert_samples((X, Y.tolist()))


def test_several_inputs_take_their_arrays_in_order():
    assert_samples((X, IDS), TWO, labels=False)
    for source in ((X, IDS, Y), ((X, IDS), Y), ({"i": IDS, "x": X}, Y)):
        assert_samples(source, TWO)


def test_batches_come_from_any_iterable_as_arrays_pairs_or_mappings():
    assert_samples((X[cut] for cut in CUTS), labels=False)
    for batches in (
        [(X[cut], Y[cut]) for cut in CUTS],
        [[X[cut], Y[cut]] for cut in CUTS],
        [{"x": X[cut], "label": Y[cut]} for cut in CUTS],
    ):
        assert_samples(batches)
        assert_samples(iter(batches))
    assert_samples([((X[cut], IDS[cut]), Y[cut]) for cut in CUTS], TWO)


@pytest.mark.parametrize("name", ["labels", "label", "targets", "target", "y"])
def test_labels_have_several_names(name, tmp_path):
    assert_samples({"x": X, name: Y})
    np.savez(tmp_path / "d.npz", **{"x": X, name: Y})
    assert_samples(tmp_path / "d.npz")
    # Of the rest nothing is read, and an input of that name is none.
    assert len(open_samples(tmp_path / "d.npz", ONE).part(slice(2, 5)).labels) == 3
    runner = session("float[N, 3] x, int64[N] target")
    assert load_samples({"x": X, "target": Y}, runner).labels is None


def test_batches_that_are_read_once_can_be_kept():
    kept = given.read_again((X[cut], Y[cut]) for cut in CUTS)
    assert_samples(kept)
    assert_samples(kept)
    assert given.read_again("data.npz") == "data.npz" and given.read_again(X) is X


def test_names_that_labels_may_have_twice_are_told():
    told = refusal_of(load_samples, {"x": X, "y": Y, "target": Y}, ONE)
    assert told == "of the data each of 'target', 'y' may be labels; call the right one 'labels'"
    with pytest.warns(UserWarning, match="nor labels: 'label'$"):
        assert_samples({"x": X, "label": Y + 1, "labels": Y})


@pytest.mark.parametrize("name", ["lables", "Label", "classes", "fine_label", "y_true"])
def test_what_may_be_meant_for_labels_is_told(name):
    with pytest.warns(UserWarning, match=f"nor labels: '{name}'; if '{name}' is labels, call it 'labels'$"):
        assert_samples({"x": X, name: Y}, labels=False)


@pytest.mark.parametrize("name", ["mean", "index", "path"])
def test_other_arrays_are_named_without_a_meaning(name):
    with pytest.warns(UserWarning, match=f"nor labels: '{name}'$"):
        assert_samples({"x": X, name: Y}, labels=False)


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ((X, IDS, Y), "the data has 3 arrays, and the model has 1 input: 'x'; give one array for each, and labels"),
        ([(X, IDS, Y)], "batch 0 of the data has 3 arrays, and the model has 1 input: 'x'; give one array for each"),
        ([X, "text"], "batch 1 of the data is a str; give arrays, by the names of inputs"),
        ([], "the data hold no samples"),
    ],
)
def test_what_does_not_fit_is_told(source, told):
    assert refusal_of(load_samples, source, ONE).startswith(told)


def test_nothing_is_imported_for_objects_of_other_libraries():
    code = """
import sys
from pconv_onnx.data.given import given_parts
given_parts([[1.0]], ["x"])
print(sorted({"torch", "datasets", "PIL", "pyarrow"} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


class Dataset:
    """What Hugging Face's Dataset has, by its interface alone."""

    features: dict = {}

    def __init__(self, columns: dict[str, np.ndarray], kind: str | None = None) -> None:
        self.columns, self.format = columns, {"type": kind}

    @property
    def column_names(self) -> list[str]:
        return list(self.columns)

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())))

    def __getitem__(self, rows: slice) -> dict:
        found = {name: column[rows] for name, column in self.columns.items()}
        return found if self.format["type"] else {name: column.tolist() for name, column in found.items()}

    def select_columns(self, names: list[str]) -> Dataset:
        return Dataset({name: self.columns[name] for name in names}, self.format["type"])

    def with_format(self, kind: str) -> Dataset:
        return Dataset(self.columns, kind)


def test_a_dataset_of_hugging_face_is_read_by_columns(monkeypatch):
    monkeypatch.setattr(given, "_AT_ONCE", 3)
    columns = {"x": X, "label": Y, "i": IDS}
    with pytest.warns(UserWarning, match="nor labels: 'i'$"):
        assert_samples(Dataset(columns))
    assert_samples(Dataset(columns, "numpy"), TWO)
    part = open_samples(Dataset(columns), TWO).part(slice(2, 5))
    np.testing.assert_array_equal(part.arrays["x"], X[2:5])
    told = refusal_of(load_samples, {"train": Dataset(columns), "test": Dataset(columns)}, ONE)
    assert told == "the data are splits: 'train', 'test'; give one of them"


def test_datasets_and_loaders_of_pytorch_are_read(monkeypatch):
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(given, "_AT_ONCE", 3)
    pairs = torch.utils.data.TensorDataset(torch.from_numpy(X), torch.from_numpy(Y))

    class Stream(torch.utils.data.IterableDataset):
        def __iter__(self):
            return iter(pairs)

    assert_samples(pairs)
    assert_samples(pickle.loads(pickle.dumps(open_samples(pairs, ONE))).part(slice(0, 7)))
    assert_samples(Stream())
    for batch in (2, 7):
        assert_samples(torch.utils.data.DataLoader(pairs, batch))
    assert_samples((torch.from_numpy(X).requires_grad_(), torch.from_numpy(Y)))
    triples = torch.utils.data.TensorDataset(torch.from_numpy(X), torch.from_numpy(IDS), torch.from_numpy(Y))
    assert_samples(triples, TWO)


def test_samples_that_differ_are_told():
    torch = pytest.importorskip("torch")

    class Uneven(torch.utils.data.Dataset):
        def __len__(self):
            return 2

        def __getitem__(self, row):
            return {"x": X[row], **({"label": 1} if row else {})}

    told = refusal_of(load_samples, Uneven(), ONE)
    assert told == "sample 1 of the data has 'x', 'label', and those before it have 'x'; mend it"
