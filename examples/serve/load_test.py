"""Sends a fixed number of requests to serve.py on loopback and checks every answer: python load_test.py --help."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
import tritonclient.http.aio as triton
from bad_requests import Headers, bad_requests
from tritonclient.utils import InferenceServerException
from worker import program_of

SERVER = Path(__file__).with_name("serve.py")
NAME = "network"


def main() -> None:
    """Start a server, load it at each concurrency, print and write."""
    parser = argparse.ArgumentParser(
        description="Start serve.py, send it single samples, and compare each answer with onnxruntime here.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("bundle", type=Path, help="folder that `pconv-onnx deploy --target bundle` wrote")
    parser.add_argument("inputs", type=Path, help=".npz of arrays named as the inputs, first axis = samples")
    parser.add_argument("--requests", type=int, default=1000, metavar="N", help="at each concurrency")
    parser.add_argument("--concurrency", type=int, nargs="+", default=[1, 8, 32], metavar="N", help="clients at a time")
    parser.add_argument("--time-limit", type=float, default=120, metavar="S", help="of each concurrency")
    parser.add_argument("--bad", type=float, default=0, metavar="SHARE", help="of the requests that are to be refused")
    kill = parser.add_mutually_exclusive_group()
    kill.add_argument("--kill-workers", type=int, default=0, metavar="N", help="kill so many, one after another")
    kill.add_argument("--kill-worker", dest="kill_workers", action="store_const", const=1, help="kill one")
    parser.add_argument(
        "-o", "--output", type=Path, metavar="FILE", default=argparse.SUPPRESS, help="write the figures there, as JSON"
    )
    parser.epilog = "Further options are those of serve.py: --workers, --threads, --max-batch, --delay, --queue."
    options, server = parser.parse_known_args()
    samples = samples_of(options.bundle, options.inputs)
    expected = expected_of(options.bundle, samples)
    rows = []
    with serving(options.bundle, *server) as url:
        for concurrency in options.concurrency:
            arguments = (samples, expected, options.requests, concurrency, options.time_limit)
            arguments += (options.kill_workers, options.bad)
            rows.append(asyncio.run(load(url, *arguments)))
            print(told(rows[-1]), flush=True)
    if "output" in options:
        options.output.write_text(json.dumps({"server": server, "rows": rows}, indent=1) + "\n")
    sys.exit(any(row["lost"] or row["wrong"] or row["bad"] > row["bad_refused"] for row in rows))


def samples_of(bundle: Path, path: Path) -> list[dict[str, np.ndarray]]:
    """A feed of one sample for each in an .npz file."""
    program = program_of(bundle)
    manifest = program.checked(bundle)
    names = [described["name"] for described in manifest["inputs"]]
    arrays = program.read(path, manifest)
    return [{name: arrays[name][index : index + 1] for name in names} for index in range(len(arrays[names[0]]))]


def expected_of(bundle: Path, samples: list[dict[str, np.ndarray]]) -> list[np.ndarray]:
    """The first output of each sample, run alone."""
    program = program_of(bundle)
    manifest = program.checked(bundle)
    session = program.open_session(bundle, manifest, program.PROVIDERS["cpu"])
    return [session.run([manifest["outputs"][0]["name"]], feed)[0] for feed in samples]


@contextlib.contextmanager
def serving(bundle: Path, *options: str) -> Iterator[str]:
    """A server at a free port of 127.0.0.1, by its address; its worker processes are ready."""
    command = [sys.executable, SERVER, bundle, "--port", "0", "--name", NAME, *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            ready = re.search(r"http://(\S+)", server.stdout.readline())
            if ready is None:
                sys.exit("load_test.py: the server did not start")
            yield ready[1]
        finally:
            server.terminate()
            try:
                server.wait(timeout=60)
            except subprocess.TimeoutExpired:
                server.kill()


@dataclass
class Tally:
    """What became of the requests so far.

    Attributes:
        seconds: that each answer took, tries after a 503 included.
        answers: how many each request got, by its number.
        wrong: answers with another top-1 class.
        other_bits: right answers that are not bit for bit those of the sample run alone.
        difference: the largest from these.
        refused: tries that met a full queue.
        errors: what else came instead of an answer.
        bad_refused: requests that were refused as they are to be, with a status of 4xx and one sentence.
    """

    seconds: list[float] = field(default_factory=list)
    answers: dict[str, int] = field(default_factory=dict)
    wrong: int = 0
    other_bits: int = 0
    difference: float = 0
    refused: int = 0
    errors: list[str] = field(default_factory=list)
    bad_refused: int = 0

    def answered(self, number: str, seconds: float, found: np.ndarray, expected: np.ndarray) -> None:
        self.answers[number] = self.answers.get(number, 0) + 1
        self.seconds.append(seconds)
        if found.shape != expected.shape or found.argmax() != expected.argmax():
            self.wrong += 1
            return
        self.other_bits += found.tobytes() != expected.tobytes()
        self.difference = max(self.difference, float(np.abs(found - expected).max()))


async def load(
    url: str,
    samples: Sequence[dict[str, np.ndarray]],
    expected: Sequence[np.ndarray],
    requests: int,
    concurrency: int,
    time_limit: float,
    kill_workers: int = 0,
    bad: float = 0,
) -> dict[str, Any]:
    """Send the samples in turn, so many at a time, until all are answered or time is up.

    A request counts as lost unless it got exactly one answer. Of the requests a share is bad, of every kind in turn.
    """
    tally = Tally()
    numbers = iter(range(requests))
    draw = np.random.default_rng(0)
    spoiled = set(draw.choice(requests, round(bad * requests), replace=False).tolist())
    killed: list[int] = []
    connector = aiohttp.TCPConnector(limit=0)
    async with (
        triton.InferenceServerClient(url, conn_limit=concurrency + 1) as client,
        aiohttp.ClientSession(f"http://{url}", connector=connector) as http,
    ):
        metadata = await client.get_model_metadata(NAME)
        datatypes = {described["name"]: described["datatype"] for described in metadata["inputs"]}
        kinds = itertools.cycle(bad_requests(samples[0], datatypes).items())

        async def sender() -> None:
            for number in numbers:
                index = number % len(samples)
                if number in spoiled:
                    await ask_in_vain(http, *next(kinds), tally)
                else:
                    await ask(client, metadata, str(number), samples[index], tally, expected[index])
                due = requests * (len(killed) + 1) / (kill_workers + 2)
                if len(killed) < kill_workers and len(tally.seconds) > due:
                    killed.append(0)  # no other sender kills while the worker is asked for
                    killed[-1] = await kill(client, killed)

        before = await statistics(client)
        start = time.perf_counter()
        senders = [asyncio.ensure_future(sender()) for _ in range(concurrency)]
        _, late = await asyncio.wait(senders, timeout=time_limit)
        seconds = time.perf_counter() - start
        for task in late:
            task.cancel()
        await asyncio.gather(*senders, return_exceptions=bool(late))
        after = await statistics(client)
    runs, rows = (after[key] - before[key] for key in ("execution_count", "inference_count"))
    p50, p99 = np.percentile(tally.seconds, [50, 99]) if tally.seconds else (None, None)
    return {
        "concurrency": concurrency,
        "requests": requests,
        "answers": len(tally.seconds),
        "lost": sum(tally.answers.get(str(number)) != 1 for number in range(requests) if number not in spoiled),
        "wrong": tally.wrong,
        "other_bits": tally.other_bits,
        "largest_difference": tally.difference,
        "refused": tally.refused,
        "errors": tally.errors,
        "seconds": seconds,
        "per_second": len(tally.seconds) / seconds,
        "p50_ms": p50 and p50 * 1e3,
        "p99_ms": p99 and p99 * 1e3,
        "mean_batch": rows / runs if runs else None,
        "bad": len(spoiled),
        "bad_refused": tally.bad_refused,
        "killed": len(killed),
        "deaths": after["deaths"] - before["deaths"],
        "run_again": after["run_again"] - before["run_again"],
    }


async def ask(
    client: triton.InferenceServerClient,
    metadata: dict[str, Any],
    number: str,
    feed: dict[str, np.ndarray],
    tally: Tally,
    expected: np.ndarray,
) -> None:
    """One request, again and again where the queue is full."""
    inputs = []
    for described in metadata["inputs"]:
        inputs.append(triton.InferInput(described["name"], list(feed[described["name"]].shape), described["datatype"]))
        inputs[-1].set_data_from_numpy(feed[described["name"]])
    start = time.perf_counter()
    while True:
        try:
            answer = await client.infer(NAME, inputs, request_id=number)
        except InferenceServerException as error:
            if error.status() == "503":
                tally.refused += 1
                await asyncio.sleep(1)  # as Retry-After says
                continue
            tally.errors.append(str(error))
        except OSError as error:
            tally.errors.append(str(error))
        else:
            found = answer.as_numpy(metadata["outputs"][0]["name"])
            tally.answered(answer.get_response()["id"], time.perf_counter() - start, found, expected)
        return


async def ask_in_vain(http: aiohttp.ClientSession, kind: str, request: tuple[bytes, Headers], tally: Tally) -> None:
    """One bad request, again and again where the queue is full."""
    body, headers = request
    while True:
        async with http.post(f"/v2/models/{NAME}/infer", data=body, headers=headers) as answer:
            text = await answer.text()
        if answer.status != 503:
            break
        tally.refused += 1
        await asyncio.sleep(1)
    try:
        sentence = json.loads(text)["error"]
    except (ValueError, LookupError):
        sentence = ""
    if 400 <= answer.status < 500 and sentence and sentence.isprintable():
        tally.bad_refused += 1
    else:
        tally.errors.append(f"{kind}: {answer.status} {text[:200]}")


async def kill(client: triton.InferenceServerClient, before: Sequence[int]) -> int:
    """The worker that was killed, none of those before."""
    while not (workers := set((await statistics(client))["workers"]) - set(before)):
        await asyncio.sleep(0.1)
    os.kill(min(workers), signal.SIGKILL)
    return min(workers)


async def statistics(client: triton.InferenceServerClient) -> dict[str, Any]:
    return (await client.get_inference_statistics(NAME))["model_stats"][0]


def told(row: dict[str, Any]) -> str:
    """A row in one line."""
    times = f"p50 {row['p50_ms']:.1f} ms, p99 {row['p99_ms']:.1f} ms" if row["answers"] else "no answers"
    line = f"{row['concurrency']:3} at a time: {row['per_second']:7.1f} a second, {times}, mean batch "
    line += f"{row['mean_batch'] or 0:.1f}; lost {row['lost']}, wrong {row['wrong']} of {row['requests']}"
    line += f"; refused {row['bad_refused']} of {row['bad']} bad ones" if row["bad"] else ""
    return line + (f"; workers killed {row['killed']}, requests run again {row['run_again']}" if row["killed"] else "")


if __name__ == "__main__":
    main()
