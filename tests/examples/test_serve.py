"""The serving example: the protocol, batches, and that nothing is lost when a worker dies."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import http.client
import json
import os
import resource
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h11
import numpy as np
import onnx
import onnxruntime
import pool
import protocol
import pytest
import serve
import tritonclient.http as triton
from bad_requests import bad_requests
from networks import network, qcfs, weight

from pconv_onnx import deploy, register, rewrite

EXAMPLE = Path(__file__).parents[2] / "examples" / "serve"
SECONDS = 60

pytestmark = pytest.mark.usefixtures("library")


@dataclass
class Server:
    """A running serve.py."""

    process: subprocess.Popen[str]
    address: str

    def ask(self, method: str, path: str, body: bytes | dict | None = None, **headers: str) -> tuple[int, Any, Any]:
        """Status, body (JSON where it is) and headers."""
        connection = http.client.HTTPConnection(self.address, timeout=SECONDS)
        content = json.dumps(body) if isinstance(body, dict) else body
        connection.request(method, path, content, {name.replace("_", "-"): value for name, value in headers.items()})
        answer = connection.getresponse()
        text = answer.read()
        connection.close()
        return answer.status, json.loads(text) if text else None, answer.headers

    def infer(self, body: bytes | dict, **headers: str) -> tuple[int, Any, Any]:
        return self.ask("POST", "/v2/models/snn/infer", body, **headers)

    def statistics(self) -> dict[str, Any]:
        return self.ask("GET", "/v2/models/snn/stats")[1]["model_stats"][0]

    def until(self, holds: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """The first statistics of which something holds."""
        end = time.monotonic() + SECONDS
        while time.monotonic() < end:
            if holds(found := self.statistics()):
                return found
        raise AssertionError(f"not within {SECONDS} seconds: {found}")


@contextlib.contextmanager
def serving(bundle: Path, *options: str, program: Path = EXAMPLE / "serve.py") -> Iterator[Server]:
    command = [sys.executable, program, bundle, "--port", "0", "--name", "snn", *options]
    with subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, text=True) as process:
        try:
            assert select.select([process.stdout], [], [], SECONDS)[0], "the server does not start"
            told = process.stdout.readline()
            assert told.startswith("snn is served at http://127.0.0.1:"), told
            yield Server(process, told.split("//")[1].strip())
        finally:
            process.kill()


@pytest.fixture(scope="module")
def bundle(small_network, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("serve") / "bundle"
    deploy(rewrite(small_network).model, folder)
    return folder


@pytest.fixture(scope="module")
def server(bundle) -> Iterator[Server]:
    """One that no test harms."""
    with serving(bundle, "--workers", "2", "--max-batch", "4", "--max-body", "1") as found:
        yield found


@pytest.fixture(scope="module")
def fragile(bundle) -> Iterator[Server]:
    """One whose only worker a test may stop or kill."""
    with serving(bundle, "--workers", "1", "--max-batch", "2", "--delay", "0", "--queue", "3") as found:
        yield found


def images(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, 3, 8, 8)).astype(np.float32)


def asked(x: np.ndarray, **changed: Any) -> dict[str, Any]:
    given = {"name": "x", "shape": list(x.shape), "datatype": "FP32", "data": x.ravel().tolist()}
    return {"inputs": [given | changed]}


@pytest.fixture(scope="module")
def expected(bundle) -> Callable[[np.ndarray], np.ndarray]:
    runner = onnxruntime.InferenceSession(bundle / "model.onnx", register(onnxruntime.SessionOptions()))
    return lambda x: runner.run(None, {"x": x})[0]


def outputs_of(answer: dict[str, Any]) -> np.ndarray:
    (output,) = answer["outputs"]
    assert (output["name"], output["datatype"]) == ("y", "FP32")
    return np.array(output["data"], np.float32).reshape(output["shape"])


def test_the_server_tells_what_it_serves(server):
    assert server.ask("GET", "/v2/health/live")[0] == server.ask("GET", "/v2/health/ready")[0] == 200
    assert server.ask("GET", "/v2/models/snn/ready")[0] == 200
    assert server.ask("GET", "/v2")[1]["extensions"] == ["binary_tensor_data", "statistics"]
    found = server.ask("GET", "/v2/models/snn")[1]
    assert found["inputs"] == [{"name": "x", "datatype": "FP32", "shape": [-1, 3, 8, 8]}]
    assert found["outputs"] == [{"name": "y", "datatype": "FP32", "shape": [-1, 5]}]


def test_an_answer_in_json_has_the_bits_of_an_ordinary_session(server, expected):
    status, answer, _ = server.infer(asked(images(3)) | {"id": "seven"})
    assert (status, answer["id"], answer["model_name"]) == (200, "seven", "snn")
    np.testing.assert_array_equal(outputs_of(answer), expected(images(3)))


@pytest.mark.parametrize("binary_in", [True, False])
@pytest.mark.parametrize("binary_out", [True, False])
def test_the_client_of_triton_is_answered(binary_in, binary_out, server, expected):
    with triton.InferenceServerClient(server.address) as client:
        assert client.is_server_ready()
        assert client.is_model_ready("snn")
        given = triton.InferInput("x", [2, 3, 8, 8], "FP32")
        given.set_data_from_numpy(images(2), binary_data=binary_in)
        wanted = triton.InferRequestedOutput("y", binary_data=binary_out)
        found = client.infer("snn", [given], outputs=[wanted]).as_numpy("y")
        assert client.get_inference_statistics("snn")["model_stats"][0]["name"] == "snn"
    np.testing.assert_array_equal(found, expected(images(2)))


def test_the_client_prints_classes(server, expected, tmp_path):
    np.savez(tmp_path / "in.npz", x=images(6))
    command = [
        sys.executable,
        EXAMPLE / "client.py",
        "snn",
        tmp_path / "in.npz",
        "--url",
        server.address,
        "--batch",
        "4",
    ]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=SECONDS)
    assert done.returncode == 0, done.stderr
    assert list(map(int, done.stdout.split())) == expected(images(6)).argmax(1).tolist()
    done = subprocess.run([*map(str, command), "--url", "127.0.0.1:1"], capture_output=True, text=True, timeout=SECONDS)
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1), done.stderr


@pytest.mark.parametrize(
    ("body", "status", "told"),
    [
        (b"{", 400, "Invalid JSON"),
        (b"", 400, "Invalid JSON"),
        ({"outputs": []}, 400, "inputs: Field required"),
        ({"inputs": []}, 400, "takes the inputs x"),
        ({"inputs": asked(images(1))["inputs"] * 2}, 400, "each once"),
        (asked(images(1), name="z"), 400, "takes the inputs x"),
        (asked(images(1), datatype="FP64"), 400, "'x' is FP32, not FP64"),
        (asked(images(1), shape=[1, 3, 8]), 400, "it takes ['N', 3, 8, 8]"),
        (asked(images(1), shape=[1, 3, 8, 9]), 400, "it takes ['N', 3, 8, 8]"),
        (asked(images(1), shape=[0, 3, 8, 8]), 400, "it takes ['N', 3, 8, 8]"),
        (asked(images(1), shape=[2, 3, 8, 8]), 400, "has 192 values"),
        (asked(images(1), data=None), 400, "has 0 values"),
        (asked(images(1), data=["1"] * 192), 400, "are not all FP32"),
        (asked(images(1), data=[[1.0], [1.0, 2.0]]), 400, "are no array of the shape"),
        (asked(images(1), parameters={"binary_data_size": 768}), 400, "another number of bytes"),
        (asked(images(1), parameters={"binary_data_size": "768"}), 400, "another number of bytes"),
        (asked(images(5)), 400, "5 samples; a request may have 4"),
        (asked(images(1), parameters={"shared_memory_region": "r"}), 400, "does not have shared_memory_region"),
        (asked(images(1)) | {"outputs": [{"name": "y", "parameters": {"classification": 3}}]}, 400,
         "outputs.0.parameters: Value error, this server does not have classification"),
        (asked(images(1)) | {"outputs": [{"name": "z"}]}, 400, "'z' is no output of snn; it has y"),
        (b"0" * (1 << 20) + b"0", 413, "more than 1048576 bytes"),
    ],
)  # fmt: skip
def test_what_is_no_request_is_told_in_one_line(body, status, told, server):
    found, answer, _ = server.infer(body)
    assert found == status
    assert told in answer["error"]
    assert len(answer["error"].splitlines()) == 1


@pytest.mark.parametrize(
    ("dtype", "datatype", "data", "told"),
    [
        ("int64", "INT64", [1, -2], None),
        ("uint8", "UINT8", [1, 255], None),
        ("bool", "BOOL", [True, False], None),
        ("float16", "FP16", [1, 0.5], None),
        ("int64", "INT64", [1, 2.5], "are not all INT64"),
        ("uint8", "UINT8", [1, 256], "are not all UINT8"),
        ("uint8", "UINT8", [1, -1], "are not all UINT8"),
        ("bool", "BOOL", [0, 1], "are not all BOOL"),
    ],
)
def test_values_in_json_are_of_the_type_of_their_input(dtype, datatype, data, told):
    tensors = [protocol.Tensor("x", np.dtype(dtype), ["N"])]
    served = protocol.Network("snn", tensors, tensors, batched=True, max_batch=32)
    body = json.dumps({"inputs": [{"name": "x", "shape": [2], "datatype": datatype, "data": data}]}).encode()
    if told is None:
        found = protocol.read(body, None, served).feed["x"]
        assert (found.dtype, found.tolist()) == (np.dtype(dtype), data)
    else:
        with pytest.raises(protocol.Refused, match=told):
            protocol.read(body, None, served)


def test_what_json_cannot_hold_is_refused():
    tensors = [protocol.Tensor("y", np.dtype("float32"), ["N"])]
    served = protocol.Network("snn", tensors, tensors, batched=True, max_batch=32)
    with pytest.raises(protocol.Refused, match="ask for binary data"):
        protocol.answer(protocol.Request(None, {}, 1, [(0, False)]), [np.array([np.inf], np.float32)], served)


@pytest.mark.parametrize("shape", [(), (1,), (3, 5000)])
@pytest.mark.parametrize("dtype", ["float32", "float16", "uint8", "int64", "bool"])
def test_an_answer_of_any_size_is_json_of_its_values(dtype, shape):
    tensors = [protocol.Tensor("y", np.dtype(dtype), list(shape))]
    served = protocol.Network("snn", tensors, tensors, batched=False, max_batch=1)
    value = np.asarray(np.random.default_rng(0).normal(scale=5, size=shape) ** 2, dtype)
    body, _ = protocol.answer(protocol.Request('a"b', {}, 1, [(0, False)]), [value], served)
    (output,) = json.loads(body)["outputs"]
    assert (json.loads(body)["id"], output["shape"]) == ('a"b', list(shape))
    np.testing.assert_array_equal(np.array(output["data"], dtype).reshape(shape), value)


@pytest.mark.parametrize("length", ["-1", "x", "9999999"])
def test_a_length_of_the_header_that_cannot_be_is_refused(length, server):
    body = json.dumps(asked(images(1), parameters={"binary_data_size": 768}, data=None)).encode()
    status, answer, _ = server.infer(body + b"\0" * 767, Inference_Header_Content_Length=length)
    assert (status, list(answer)) == (400, ["error"])


def test_a_compressed_body_is_refused(server):
    status, answer, _ = server.infer(gzip.compress(json.dumps(asked(images(1))).encode()), Content_Encoding="gzip")
    assert (status, answer) == (415, {"error": "the body is gzip; send it uncompressed"})


@pytest.mark.parametrize("path", ["/v2/models/snn/infer", "/other"])
def test_a_request_of_two_lengths_is_refused_and_nothing_after_it_is_read(path, server):
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n"
    host, port = server.address.split(":")
    with socket.create_connection((host, int(port)), SECONDS) as connection:
        connection.sendall(head.encode() + b"0\r\n\r\nGET /v2 HTTP/1.1\r\nHost: x\r\n\r\n")
        told = b""
        with contextlib.suppress(ConnectionError):
            while part := connection.recv(1000):
                told += part
    assert told.startswith(b"HTTP/1.1 400 ")
    assert b"both Content-Length and Transfer-Encoding" in told
    assert told.count(b"HTTP/1.1") == 1


def test_the_version_that_is_told_is_served(server, expected):
    (version,) = server.ask("GET", "/v2/models/snn")[1]["versions"]
    path = f"/v2/models/snn/versions/{version}"
    assert server.ask("GET", path)[1] == server.ask("GET", "/v2/models/snn")[1]
    assert server.ask("GET", f"{path}/ready")[0] == 200
    with triton.InferenceServerClient(server.address) as client:
        given = triton.InferInput("x", [1, 3, 8, 8], "FP32")
        given.set_data_from_numpy(images(1))
        found = client.infer("snn", [given], model_version=version).as_numpy("y")
    np.testing.assert_array_equal(found, expected(images(1)))


def test_what_is_not_there_is_told(server):
    status, answer, _ = server.ask("POST", "/v2/models/other/infer", {})
    assert (status, answer) == (404, {"error": "/v2/models/other/infer: Not Found"})


def test_every_kind_of_bad_request_is_refused_in_one_line_and_without_much_memory(server):
    feed, before = {"x": images(1)}, peak(server.process.pid)
    for kind, (body, headers) in bad_requests(feed, {"x": "FP32"}).items():
        status, answer, _ = server.infer(body, **headers)
        assert 400 <= status < 500, kind
        assert answer["error"].isprintable(), kind
        assert len(answer["error"]) < 1000, kind
    assert peak(server.process.pid) < before + 200
    assert server.infer(asked(images(1)))[0] == 200


def peak(pid: int) -> int:
    """MiB that a process ever had in memory."""
    (line,) = (line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) >> 10


def test_an_output_is_asked_for_once(server):
    status, answer, _ = server.infer(asked(images(1)) | {"outputs": [{"name": "y"}] * 2})
    assert (status, answer) == (400, {"error": "an output is asked for twice"})


def test_data_may_be_nested_as_the_shape_is(server, expected):
    status, answer, _ = server.infer(asked(images(2), data=images(2).tolist()))
    assert status == 200
    np.testing.assert_array_equal(outputs_of(answer), expected(images(2)))


def test_what_json_cannot_hold_may_come_as_bytes(server):
    x = images(1)
    x[0, 0, 0, 0] = np.nan
    with triton.InferenceServerClient(server.address) as client:
        given = triton.InferInput("x", [1, 3, 8, 8], "FP32")
        given.set_data_from_numpy(x)
        assert client.infer("snn", [given]).as_numpy("y").shape == (1, 5)


def test_a_header_may_be_anything(server):
    for line in (b"Content-Length: " + b"9" * 5000, b"Content-Length: 99999999999999999999", b"X: " + b"y" * 1_000_000):
        assert raw(server, b"POST /v2/models/snn/infer HTTP/1.1\r\nHost: x\r\n" + line + b"\r\n\r\n") in (400, 413)


def raw(server: Server, content: bytes) -> int:
    """The status of what is sent as it is."""
    host, port = server.address.split(":")
    with socket.create_connection((host, int(port)), SECONDS) as connection:
        with contextlib.suppress(OSError):  # the server need not take all of it
            connection.sendall(content)
        return int(connection.recv(100).split()[1])


def stuck(server: Server, threads: ThreadPoolExecutor, count: int) -> tuple[int, list[Future]]:
    """The worker, which is stopped, and requests: it has the first, the others wait."""
    (worker,) = server.until(lambda found: found["workers"])["workers"]
    os.kill(worker, signal.SIGSTOP)
    sent = [threads.submit(server.infer, asked(images(1, 0)))]
    server.until(lambda found: found["in_flight"] == 1)
    sent += [threads.submit(server.infer, asked(images(1, seed))) for seed in range(1, count)]
    server.until(lambda found: found["waiting"] == count - 1)
    return worker, sent


def require_answers(sent: list[Future], expected: Callable[[np.ndarray], np.ndarray]) -> None:
    for seed, future in enumerate(sent):
        status, answer, _ = future.result(SECONDS)
        assert status == 200
        np.testing.assert_allclose(outputs_of(answer), expected(images(1, seed)), rtol=1e-5)


def test_requests_that_wait_are_joined(fragile, expected):
    before = fragile.statistics()
    with ThreadPoolExecutor(3) as threads:
        worker, sent = stuck(fragile, threads, 3)
        os.kill(worker, signal.SIGCONT)
        require_answers(sent, expected)
    after = fragile.statistics()
    assert after["inference_count"] - before["inference_count"] == 3
    assert after["execution_count"] - before["execution_count"] == 2


def test_nothing_is_lost_when_a_worker_is_killed(fragile, expected):
    before = fragile.statistics()
    with ThreadPoolExecutor(3) as threads:
        killed, sent = stuck(fragile, threads, 3)
        os.kill(killed, signal.SIGKILL)
        require_answers(sent, expected)
    after = fragile.statistics()
    assert after["inference_count"] - before["inference_count"] == 3
    assert after["run_again"] - before["run_again"] == after["deaths"] - before["deaths"] == 1
    assert after["workers"] != [killed]


def test_a_worker_that_dies_without_work_is_replaced(fragile):
    (killed,) = fragile.statistics()["workers"]
    os.kill(killed, signal.SIGKILL)
    fragile.until(lambda found: found["workers"] not in ([killed], []))
    assert fragile.infer(asked(images(1)))[0] == 200


def test_a_full_queue_says_when_to_come_again(fragile, expected):
    with ThreadPoolExecutor(3) as threads:
        worker, sent = stuck(fragile, threads, 3)
        status, answer, headers = fragile.infer(asked(images(1)))
        os.kill(worker, signal.SIGCONT)
        require_answers(sent, expected)
    assert (status, headers["Retry-After"]) == (503, "1")
    assert answer == {"error": "the queue of 3 is full; try again later"}


def test_a_server_that_ends_answers_what_it_has_and_leaves_no_process(bundle, expected):
    with serving(bundle, "--workers", "1") as server, ThreadPoolExecutor(1) as threads:
        worker, sent = stuck(server, threads, 1)
        server.process.send_signal(signal.SIGTERM)
        os.kill(worker, signal.SIGCONT)
        require_answers(sent, expected)
        server.process.wait(SECONDS)
        with pytest.raises(ProcessLookupError):
            os.kill(worker, 0)


@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGKILL])
def test_a_stopped_worker_ends_with_the_server(ending, bundle):
    with serving(bundle, "--workers", "1") as server:
        (worker,) = server.statistics()["workers"]
        os.kill(worker, signal.SIGSTOP)
        server.process.send_signal(ending)
        server.process.wait(SECONDS)
        require_gone(worker)


def test_a_server_that_cannot_answer_before_it_ends_says_so(bundle, tmp_path):
    program = altered(tmp_path, END=1)
    with serving(bundle, "--workers", "1", program=program) as server, ThreadPoolExecutor(1) as threads:
        worker, (sent,) = stuck(server, threads, 1)
        server.process.send_signal(signal.SIGTERM)
        status, answer, headers = sent.result(SECONDS)
        assert (status, headers["Retry-After"]) == (503, "1")
        assert answer == {"error": "the server ends; send the request again"}
        server.process.wait(SECONDS)
        require_gone(worker)


def altered(folder: Path, **constants: int) -> Path:
    """A program that is serve.py with other constants."""
    program = folder / "altered.py"
    lines = [f"import sys; sys.path.insert(0, {str(EXAMPLE)!r})", "import serve"]
    lines += [f"serve.{name} = {value}" for name, value in constants.items()]
    program.write_text("\n".join([*lines, "serve.main()"]))
    return program


def require_gone(pid: int) -> None:
    end = time.monotonic() + SECONDS
    while Path(f"/proc/{pid}").exists() and time.monotonic() < end:
        time.sleep(0.01)
    assert not Path(f"/proc/{pid}").exists()


def test_a_stopped_worker_counts_as_dead_though_it_does_not_take_the_batch(bundle, expected, monkeypatch):
    monkeypatch.setattr(pool, "RUN", 1)
    x = images(1000)  # more than a pipe holds

    async def answer() -> list[np.ndarray]:
        workers = pool.Pool(bundle, 1, 1, None, 0)
        await workers.start()
        await asyncio.sleep(0)  # in which its keeper begins
        (stopped,) = workers.pids
        os.kill(stopped, signal.SIGSTOP)
        outputs = await asyncio.wait_for(workers.run({"x": x}, len(x)), SECONDS)
        assert stopped not in workers.pids
        assert workers.deaths == 1
        await workers.stop()
        require_gone(stopped)
        return outputs

    np.testing.assert_allclose(asyncio.run(answer())[0], expected(x), rtol=1e-5)


def test_a_worker_that_has_ended_is_not_killed_by_its_number():
    async def stop() -> None:
        process = await asyncio.create_subprocess_exec("true", stdin=asyncio.subprocess.PIPE)
        worker = pool.Worker(process)
        await worker.ended
        worker.pid = other.pid  # as if the number had gone to another process
        await worker.stop()

    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as other:
        asyncio.run(stop())
        other.stdin.close()
        assert other.wait(SECONDS) == 0


@pytest.fixture(scope="module")
def impatient(tmp_path_factory) -> Iterator[Server]:
    """One that waits a second or two for clients, of a network with large outputs."""
    folder = tmp_path_factory.mktemp("impatient")
    model = network(
        f"{qcfs('x', 'a')} y = MatMul (a, w)",
        inputs="float[N, 3] x",
        outputs="float[N, 200000] y",
        weights={"w": weight(3, 200_000)},
    )
    deploy(rewrite(model).model, folder / "bundle")
    program = altered(folder, READ=1, LATE=2)
    with serving(folder / "bundle", "--workers", "1", "--queue", "4", program=program) as found:
        yield found


HEAD = b"POST /v2/models/snn/infer HTTP/1.1\r\nHost: x\r\n"


SLOW = {
    "nothing": (b"", b""),
    "headers": (HEAD, b"X: y\r\n"),
    "a second request": (b"GET /v2 HTTP/1.1\r\nHost: x\r\n\r\nGET", b"T"),
    "a body": (HEAD + b"Content-Length: 1000\r\n\r\n", b"x"),
    "chunks": (HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n"),
}


def test_a_slow_client_is_left(impatient):
    with ThreadPoolExecutor(len(SLOW)) as threads:
        left = dict(zip(SLOW, threads.map(lambda kind: is_left(impatient, *SLOW[kind]), SLOW), strict=True))
    assert left == dict.fromkeys(SLOW, True)


def is_left(server: Server, begin: bytes, drip: bytes) -> bool:
    """Whether the server ends a connection on which something comes now and then."""
    host, port = server.address.split(":")
    end = time.monotonic() + SECONDS
    with socket.create_connection((host, int(port))) as connection:
        connection.settimeout(0.2)
        try:
            connection.sendall(begin)
            while time.monotonic() < end:
                with contextlib.suppress(TimeoutError):
                    if not connection.recv(1000):
                        return True
                connection.sendall(drip)
        except ConnectionError:
            return True
    return False


def require_left(connection: socket.socket) -> None:
    """Wait until the server has no file for its end, without reading what it sent."""
    ports = [f":{name[1]:04X}" for name in (connection.getpeername(), connection.getsockname())]
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()]
        if not any(row[1].endswith(ports[0]) and row[2].endswith(ports[1]) and row[9] != "0" for row in rows):
            return
        time.sleep(0.1)
    raise AssertionError(f"not left within {SECONDS} seconds")


def test_a_client_that_does_not_take_its_answer_is_left(impatient):
    body = json.dumps(asked(np.ones((32, 3), np.float32)) | {"parameters": {"binary_data_output": True}}).encode()
    host, port = impatient.address.split(":")
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body)
        taken = len(connection.recv(1))  # the answer begins
        require_left(connection)
        with contextlib.suppress(ConnectionError):
            while part := connection.recv(1 << 20):
                taken += len(part)
        assert taken < 32 * 200_000 * 4


def test_connections_that_are_late_make_room_for_others(impatient):
    host, port = impatient.address.split(":")
    files = len(list(Path(f"/proc/{impatient.process.pid}/fd").iterdir()))
    before = resource.prlimit(impatient.process.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(impatient.process.pid, resource.RLIMIT_NOFILE, (files + 10, before[1]))
    try:
        silent = [socket.create_connection((host, int(port))) for _ in range(30)]
        assert impatient.infer(asked(np.ones((1, 3), np.float32), data=[1.0] * 3))[0] == 200
    finally:
        resource.prlimit(impatient.process.pid, resource.RLIMIT_NOFILE, before)
    for connection in silent:
        connection.close()


class Client:
    """A connection as uvicorn has it, at a second of its life."""

    def __init__(self) -> None:
        self.conn = self.transport = self
        self.cycle: object = None
        self.their_state, self.unsent = h11.IDLE, 0

    def get_write_buffer_size(self) -> int:
        return self.unsent


def second_left(life: Callable[[Client, int], None], seconds: int = 400) -> int | None:
    """The second in which the server leaves a client, whose life changes it second by second."""
    client, waits = Client(), {}
    for second in range(seconds):
        life(client, second)
        waits = serve.look([client], waits, second)
        if any(second > end for _, end, _ in waits.values()):
            return second
    return None


def test_a_client_that_asks_again_and_again_is_not_left():
    def life(client: Client, second: int) -> None:
        if second % 30 == 0:
            client.cycle = object()  # asked and answered between two looks

    assert second_left(life) is None


def test_each_step_of_a_request_has_its_own_time():
    steps = [(h11.IDLE, 0)] * 30 + [(h11.SEND_BODY, 0)] * 30 + [(h11.DONE, 0)] * 100 + [(h11.DONE, 9)] * 30
    steps += [(h11.IDLE, 0)] * 100

    def life(client: Client, second: int) -> None:
        client.their_state, client.unsent = steps[second]

    assert second_left(life, len(steps)) == 190 + serve.LATE + 1


@pytest.mark.parametrize(
    ("rate", "left"), [(0, serve.LATE + 1), (100, serve.LATE + 1), (serve.RATE // 2, 71), (50_000, None)]
)
def test_a_large_answer_has_time_while_it_is_taken(rate, left):
    def life(client: Client, second: int) -> None:
        client.their_state, client.unsent = h11.DONE, max(15_000_000 - rate * second, 0)

    assert second_left(life) == left


class FakeWorker:
    """Doubles its input, dies of a NaN, and cannot run what is infinite."""

    pid = 0

    def __init__(self) -> None:
        self.ended = asyncio.get_running_loop().create_future()

    @classmethod
    async def start(cls, bundle: Path, threads: int) -> FakeWorker:
        return cls()

    async def run(self, feed: dict[str, np.ndarray]) -> list[np.ndarray]:
        if np.isnan(feed["x"]).any():
            raise pool.WorkerDied
        if np.isinf(feed["x"]).any():
            raise pool.RunFailed("infinite", invalid=True)
        await asyncio.sleep(0)
        return [2 * feed["x"]]

    async def stop(self) -> None:
        pass


async def answers_of(feeds: list[np.ndarray], most: int | None) -> tuple[list[Any], pool.Pool]:
    """What one worker answers to requests that come at once."""
    workers = pool.Pool(Path(), 1, 1, most, 0)
    await workers.start()
    answers = await asyncio.gather(*(workers.run({"x": x}, len(x)) for x in feeds), return_exceptions=True)
    await workers.stop()
    return answers, workers


@pytest.fixture
def fake_workers(monkeypatch):
    monkeypatch.setattr(pool, "Worker", FakeWorker)


def test_a_request_of_which_workers_die_fails_alone(fake_workers):
    feeds = [np.full((1, 2), value, np.float32) for value in (1, np.nan, 3)]
    (first, second, third), workers = asyncio.run(answers_of(feeds, 8))
    assert (str(second), workers.deaths) == ("3 workers died on this request", 3)
    np.testing.assert_array_equal(first, [[[2.0, 2.0]]])
    np.testing.assert_array_equal(third, [[[6.0, 6.0]]])


def test_a_request_that_cannot_be_run_fails_alone(fake_workers):
    feeds = [np.full((1, 2), value, np.float32) for value in (1, np.inf, 3)]
    (first, second, third), workers = asyncio.run(answers_of(feeds, 8))
    assert (str(second), second.invalid, workers.deaths) == ("infinite", True, 0)
    np.testing.assert_array_equal(first, [[[2.0, 2.0]]])
    np.testing.assert_array_equal(third, [[[6.0, 6.0]]])


def test_a_request_whose_values_the_network_does_not_take_fails_alone(tmp_path):
    nodes = f"e = Gather (table, i) {qcfs('e', 'a')} y = MatMul (a, w)"
    weights = {"table": weight(4, 3), "w": weight(3, 2)}
    model = network(nodes, inputs="int64[N] i", outputs="float[N, 2] y", weights=weights)
    deploy(rewrite(model).model, tmp_path / "bundle")
    with serving(tmp_path / "bundle", "--workers", "1", "--delay", "200") as server, ThreadPoolExecutor(4) as threads:

        def ask(index: int) -> tuple[int, Any, Any]:
            given = {"name": "i", "shape": [1], "datatype": "INT64", "data": [index]}
            return server.infer({"inputs": [given]})

        answers = list(threads.map(ask, [0, 1, 9, 2]))
        assert [status for status, *_ in answers] == [200, 200, 400, 200]
        assert "indices element out of data bounds" in answers[2][1]["error"]


def test_under_load_with_bad_requests_and_killed_workers_all_good_ones_are_answered(bundle, tmp_path):
    np.savez(tmp_path / "in.npz", x=images(20))
    command = [sys.executable, EXAMPLE / "load_test.py", bundle, tmp_path / "in.npz", "--output", tmp_path / "out.json"]
    options = ["--requests", "400", "--concurrency", "16", "--bad", "0.1", "--kill-workers", "3", "--workers", "2"]
    done = subprocess.run([*map(str, command), *options], capture_output=True, text=True, timeout=SECONDS)
    assert done.returncode == 0, done.stderr
    (row,) = json.loads((tmp_path / "out.json").read_text())["rows"]
    assert {"answers": 360, "lost": 0, "wrong": 0, "errors": [], "bad": 40, "bad_refused": 40}.items() <= row.items()
    assert row["killed"] == row["deaths"] == 3


@pytest.mark.parametrize(("most", "runs"), [(8, 3), (3, 4), (None, 5)])
def test_requests_of_one_size_are_joined_in_their_order(most, runs, fake_workers):
    feeds = [np.full(shape, index, np.float32) for index, shape in enumerate([(1, 2), (2, 2), (1, 3), (1, 2), (3, 2)])]
    answers, workers = asyncio.run(answers_of(feeds, most))
    for feed, (found,) in zip(feeds, answers, strict=True):
        np.testing.assert_array_equal(found, 2 * feed)
    assert (workers.runs, workers.rows) == (runs, 8)


def refusal(bundle: Path, *options: str) -> str:
    """What serve.py says, in one line, before it ends."""
    command = [sys.executable, EXAMPLE / "serve.py", bundle, "--port", "0", *options]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=SECONDS)
    assert (done.returncode, done.stdout) == (1, "")
    assert len(done.stderr.splitlines()) == 1
    return done.stderr


def test_what_cannot_be_served_is_told_in_one_line(tmp_path):
    told = refusal(tmp_path)
    assert told == f"serve.py: '{tmp_path}' is no bundle; write one with: pconv-onnx deploy --target bundle\n"
    nodes = f"c = Conv (x, w) {qcfs('c', 'y')}"
    model = network(nodes, outputs="float[N, 4, 6, 6] y", weights={"w": weight(4, 3, 3, 3)})
    deploy(rewrite(model, mode="serial").model, tmp_path / "serial")
    assert "a serial network keeps potentials between requests" in refusal(tmp_path / "serial")
    with (tmp_path / "serial" / "model.onnx").open("ab") as file:
        file.write(b"\n")
    assert "model.onnx is not the file that was deployed" in refusal(tmp_path / "serial")


def test_a_network_whose_requests_cannot_be_joined_is_served(tmp_path):
    nodes = f"{qcfs('x', 'a')} y = ReduceSum <keepdims = 0> (a)"
    model: onnx.ModelProto = network(nodes, inputs="float[2, 3] x", outputs="float y")
    deploy(rewrite(model).model, tmp_path / "bundle")
    with serving(tmp_path / "bundle", "--workers", "1", "--max-batch", "1") as server:
        x = np.full((2, 3), 2.0, np.float32)
        status, answer, _ = server.infer(asked(x))
        assert (status, answer["outputs"][0]["shape"], answer["outputs"][0]["data"]) == (200, [], [12.0])
        assert server.infer(asked(x[:1]))[1]["error"] == "'x' has the shape [1, 3]; it takes [2, 3]"
