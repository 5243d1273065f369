"""Workers on Ray: they give what one process gives, whatever happens to them, and leave nothing behind.

`make ray` runs these; Ray is no part of the packages that `make test` installs.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from networks import network, weight
from refusals import refusal_of

pytest.importorskip("ray", reason="needs Ray: make ray")

import ray.cloudpickle

from pconv_onnx import calibrate, evaluate
from pconv_onnx.basics.errors import PconvError
from pconv_onnx.engine import ray as ray_engine
from pconv_onnx.engine.ray import RayEngine
from pconv_onnx.engine.shards import Engine, InProcess

# Workers cannot import this module.
ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])

GENERATOR = np.random.default_rng(0)
# Shards are of 250.
SAMPLES = {
    "x": GENERATOR.normal(size=(1100, 3, 8, 8)).astype(np.float32),
    "labels": GENERATOR.integers(0, 10, 1100),
}
SHARDS = [slice(start, start + 1) for start in range(5)]


@pytest.fixture(scope="module")
def engine() -> Iterator[RayEngine]:
    with RayEngine(workers=2) as running:
        yield running


@pytest.fixture(scope="module")
def model() -> onnx.ModelProto:
    """Two layers of ReLUs and ten classes."""
    nodes = """
        c = Conv (x, w) a = Relu (c) d = Conv (a, v) e = Relu (d) f = Flatten (e) y = MatMul (f, u)
    """
    weights = {"w": 4 * weight(4, 3, 3, 3), "v": 2 * weight(4, 4, 3, 3, seed=1), "u": weight(64, 10, seed=2)}
    return network(nodes, outputs="float[N, 10] y", weights=weights)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """The samples in files whose ends are not those of shards."""
    path = tmp_path_factory.mktemp("shards")
    for start in range(0, 1100, 300):
        np.savez(path / f"{start:04}.npz", **{name: array[start : start + 300] for name, array in SAMPLES.items()})
    return path


class Fragile:
    """An engine whose workers are killed once, or each time, as soon as they are to run a method or a shard."""

    def __init__(self, engine: Engine, what: Any, marker: Path | None) -> None:
        self.engine, self.what, self.marker = engine, what, marker

    def map(self, make: Callable, shards: Sequence[slice], description: str) -> list:
        return self.engine.map(partial(_fragile_work, make, self.what, self.marker), shards, description)

    @contextmanager
    def crew(self, make: Callable, shards: Sequence[slice]) -> Iterator:
        with self.engine.crew(partial(_FragileState, make, self.what, self.marker), shards) as crew:
            yield crew


def _kill_once(marker: Path | None) -> None:
    if marker is None or not marker.exists():
        if marker is not None:
            marker.touch()
        os.kill(os.getpid(), signal.SIGKILL)


def _fragile_work(make: Callable, first: int, marker: Path | None) -> Callable[[slice], Any]:
    work = make()

    def apply(shard: slice) -> Any:
        result = work(shard)
        if shard.start == first:
            _kill_once(marker)
        return result

    return apply


class _FragileState:
    def __init__(self, make: Callable, method: str, marker: Path | None, shards: Sequence[slice]) -> None:
        self.state, self.method, self.marker = make(shards), method, marker

    def __enter__(self) -> _FragileState:
        self.state.__enter__()
        return self

    def __exit__(self, *reason: Any) -> None:
        self.state.__exit__(*reason)

    def __getattr__(self, name: str) -> Any:
        if name == self.method:
            _kill_once(self.marker)
        return getattr(self.state, name)


class Counter:
    """A state that counts the calls of each of its shards."""

    def __init__(self, shards: Sequence[slice]) -> None:
        self.counts = dict.fromkeys((shard.start for shard in shards), 0)

    def __enter__(self) -> Counter:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def count(self, amount: int) -> Iterator[int]:
        for start in self.counts:
            self.counts[start] += amount
            yield self.counts[start]

    def order(self) -> Iterator[str]:
        return map(str, self.counts)


def identity() -> Callable[[slice], int]:
    return lambda shard: shard.start


def refusing() -> Callable[[slice], int]:
    raise PconvError("told by a worker", "and its hint")


@pytest.mark.parametrize("method, mixed", [("refit", False), ("mse+da-qcfs", False), ("refit", True)])
def test_a_calibration_is_that_of_one_process(method, mixed, engine, model, folder):
    alone, together = (
        calibrate(model, data, steps=4, method=method, mixed=mixed, engine=where)
        for data, where in ((SAMPLES, InProcess()), (folder, engine))
    )
    assert together.model.SerializeToString(deterministic=True) == alone.model.SerializeToString(deterministic=True)
    assert together.summary() == alone.summary()
    assert alone.summary()["samples"] == 1100


@pytest.mark.parametrize("method", ["refit", "mse+da-qcfs"])
def test_levels_around_zero_are_those_of_one_process(method, engine, folder):
    nodes = """
        c = Conv (x, w) a = Gelu (c) d = Conv (a, v) e = LeakyRelu <alpha = 0.1> (d) f = Flatten (e) y = MatMul (f, u)
    """
    weights = {"w": 4 * weight(4, 3, 3, 3), "v": 2 * weight(4, 4, 3, 3, seed=1), "u": weight(64, 10, seed=2)}
    model = network(nodes, outputs="float[N, 10] y", weights=weights)
    alone, together = (
        calibrate(model, data, steps=7, coding="radix", method=method, engine=where)
        for data, where in ((SAMPLES, InProcess()), (folder, engine))
    )
    assert together.model.SerializeToString(deterministic=True) == alone.model.SerializeToString(deterministic=True)
    assert all(entry.staircase.zero for entry in alone.found.activations)


def test_an_evaluation_is_that_of_one_process(engine, model, folder):
    alone, together = (
        evaluate(model, data, steps=[2, 4], calibration=SAMPLES, method="max", engine=where).summary()
        for data, where in ((SAMPLES, None), (folder, engine))
    )
    assert together == alone
    assert alone["rows"][0]["mse"] > alone["rows"][1]["mse"] > 0
    assert (alone["rows"][0]["cosine"]["count"], alone["rows"][0]["cosine"]["not_finite"]) == (1100, 0)


def test_results_are_in_the_order_of_shards(engine):
    assert engine.map(identity, SHARDS, "") == [0, 1, 2, 3, 4]
    with engine.crew(Counter, SHARDS) as crew:
        assert crew.call("order") == "01234"


@pytest.mark.parametrize("method", ["faults", "hand_on"])
def test_a_killed_worker_changes_no_calibration(method, engine, model, folder, tmp_path):
    marker = tmp_path / "killed"
    alone = calibrate(model, SAMPLES, steps=4)
    found = calibrate(model, folder, steps=4, engine=Fragile(engine, method, marker))
    assert marker.exists()
    assert found.model.SerializeToString(deterministic=True) == alone.model.SerializeToString(deterministic=True)


def test_a_killed_worker_changes_no_evaluation(engine, model, folder, tmp_path):
    marker = tmp_path / "killed"
    options = {"steps": [4], "calibration": SAMPLES, "method": "max"}
    found = evaluate(model, folder, engine=Fragile(engine, 500, marker), **options)
    assert marker.exists()
    assert found.summary() == evaluate(model, SAMPLES, **options).summary()


def test_what_a_killed_worker_counted_is_counted_once(engine, tmp_path):
    fragile = Fragile(engine, "order", tmp_path / "killed")
    with fragile.crew(Counter, SHARDS) as crew:
        assert [crew.call("count", amount) for amount in (1, 10)] == [5, 55]
        assert crew.call("order") == "01234"
        assert crew.call("count", 100) == 555
    assert (tmp_path / "killed").exists()


def test_a_worker_that_dies_each_time_is_told(engine):
    assert "a worker on Ray died" in refusal_of(Fragile(engine, 2, None).map, identity, SHARDS, "")
    assert engine.map(identity, SHARDS, "") == [0, 1, 2, 3, 4]


def test_a_refusal_of_a_worker_is_told_as_here(engine):
    assert refusal_of(engine.map, refusing, SHARDS, "") == "told by a worker; and its hint"


def test_data_that_a_worker_cannot_read_are_told(engine, model, tmp_path):
    for start in (0, 600):
        np.savez(tmp_path / f"{start}.npz", x=SAMPLES["x"][start : start + 500])
    values = SAMPLES["x"][600:].copy()
    values[-1] = np.nan
    np.savez(tmp_path / "600.npz", x=values)
    assert "'600.npz' has a NaN" in refusal_of(calibrate, model, tmp_path, steps=4, engine=engine).replace(
        f"{tmp_path}/", ""
    )


@pytest.mark.parametrize("address", ["nowhere", "127.0.0.1:", ":6379", "127.0.0.1:port"])
def test_what_is_no_address_is_told(address):
    assert "is not the address of a Ray cluster" in _refusal_of_address(address)


def test_an_address_where_nobody_listens_is_told():
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{unused.getsockname()[1]}"
    started = time.monotonic()
    assert f"no Ray cluster answers at {address}" in _refusal_of_address(address)
    assert time.monotonic() - started < 60


def test_an_address_where_something_else_listens_is_told_in_bounded_time():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        assert f"no Ray cluster answers at {address} within 5 s" in _refusal_of_address(address)


def _refusal_of_address(address: str) -> str:
    """In a process of its own, since in this one Ray runs."""
    code = f"""
from pconv_onnx.engine import ray as ray_engine
ray_engine._ANSWER = 5
with ray_engine.RayEngine({address!r}): pass
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.stdout == ""
    return done.stderr.splitlines()[-1]


def command(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-m", "pconv_onnx", *arguments], capture_output=True, text=True, timeout=300)


def test_a_running_cluster_is_used_and_left_running(engine, model, folder, tmp_path):
    address = ray.get_runtime_context().gcs_address
    onnx.save(model, tmp_path / "model.onnx")
    arguments = ["evaluate", str(tmp_path / "model.onnx"), "--data", str(folder), "--json"]
    done = command(*arguments, "--engine", "ray", "--address", address)
    assert (done.stderr, done.returncode) == ("", 0)
    assert json.loads(done.stdout) == json.loads(command(*arguments).stdout)
    assert engine.map(identity, SHARDS, "") == [0, 1, 2, 3, 4]


def test_commands_print_the_answer_alone(model, folder, tmp_path):
    onnx.save(model, tmp_path / "model.onnx")
    arguments = ["--data", str(folder), "--steps", "4", "--json", "--engine", "ray", "--workers", "2"]
    done = command("calibrate", str(tmp_path / "model.onnx"), "-o", str(tmp_path / "quantised.onnx"), *arguments)
    assert (done.stderr, done.returncode) == ("", 0)
    assert json.loads(done.stdout)["samples"] == 1100


def test_a_scheduler_that_ends_a_job_interrupts_it(model, folder, tmp_path):
    onnx.save(model, tmp_path / "model.onnx")
    arguments = ["--data", str(folder), "--steps", "4", "--engine", "ray", "--workers", "1"]
    code = """
import os, signal, sys
from pconv_onnx.calibration import sweep
from pconv_onnx.cli.main import main
sweep.choose = lambda *given, **options: os.kill(os.getpid(), signal.SIGTERM)
sys.exit(main(sys.argv[1:]))
"""
    command = [sys.executable, "-c", code, "calibrate", str(tmp_path / "model.onnx"), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "pconv-onnx: interrupted\n")


def test_a_local_ray_listens_on_the_loopback_alone_and_leaves_nothing():
    code = """
import json, os, tempfile
from pathlib import Path
from pconv_onnx.engine.ray import RayEngine

folders, mkdtemp = [], tempfile.mkdtemp
def recorded(*arguments, **options):
    folders.append(mkdtemp(*arguments, **options))
    return folders[-1]
tempfile.mkdtemp = recorded

def ours():
    "Processes of this Ray: they were told its folder, and have it as their temporary one."
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            told = (path / "cmdline").read_bytes() + (path / "environ").read_bytes()
        except OSError:
            continue
        if folders[0].encode() in told and path.name != str(os.getpid()):
            found.append(path)
    return found

def listening(processes):
    sockets = {os.readlink(file) for process in processes for file in (process / "fd").iterdir()}
    rows = [line.split() for table in ("tcp", "tcp6") for line in Path("/proc/net", table).read_text().splitlines()[1:]]
    return [row[1].split(":")[0] for row in rows if row[3] == "0A" and f"socket:[{row[9]}]" in sockets]

def identity():
    return lambda shard: shard.start

with RayEngine(workers=1) as engine:
    engine.map(identity, [slice(0, 1)], "")
    running = ours()
    addresses = sorted(set(listening(running)))
print(json.dumps([len(running), addresses, len(ours()), [folder for folder in folders if os.path.exists(folder)]]))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    running, addresses, left, folders = json.loads(done.stdout)
    # At least what manages the cluster, what manages this machine, and a worker.
    assert running >= 3
    assert addresses
    # 127.0.0.1, and as an address of IPv6.
    assert set(addresses) <= {"0100007F", "0000000000000000FFFF00000100007F"}
    assert (left, folders) == (0, [])


def test_a_missing_ray_is_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    told = refusal_of(ray_engine.RayEngine().__enter__)
    assert told == "the engine ray needs Ray; pip install 'pconv-onnx[ray]'"
