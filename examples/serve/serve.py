"""Serves the network of a bundle over HTTP, in the protocol that Triton speaks: python serve.py BUNDLE --help."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import os
import re
import socket
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import h11
import uvicorn
from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.responses import JSONResponse
from pool import Pool, RunFailed, WorkerDied
from protocol import HEADER_LENGTH, Network, Refused, answer, network_of, number, read
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol
from worker import program_of

# Seconds: a client has READ to send a body, and LATE to send headers and to take its answer, and of a large one RATE
# bytes a second; it may try again RETRY_AFTER a full queue. The server ends within END of a signal.
READ, LATE, RETRY_AFTER, END = 30, 35, 1, 30
RATE = 1 << 15
# Bytes of a body or of outputs that cost less than a change of threads.
SMALL = 1 << 15


def main() -> None:
    """Serve as the command line says."""
    options = arguments().parse_args()
    logging.basicConfig(format="serve.py: %(message)s")
    program = program_of(options.bundle)
    manifest = program.checked(options.bundle)
    name = getattr(options, "name", options.bundle.resolve().name)
    if not re.fullmatch(r"[A-Za-z0-9_.-]+", name):
        sys.exit(f"serve.py: '{name}' cannot be a part of URLs; give another --name: letters, digits, '_', '-', '.'")
    try:
        network = network_of(manifest, name, options.max_batch)
    except ValueError as error:
        sys.exit(f"serve.py: {error}")
    try:
        listening = socket.create_server((options.host, options.port), backlog=1024)
    except OSError as error:
        sys.exit(f"serve.py: cannot listen on {options.host}:{options.port}: {error.strerror}")
    with contextlib.suppress(KeyboardInterrupt):  # Ctrl-C, which uvicorn raises again after an orderly end
        asyncio.run(serve(options, network, listening))


def arguments() -> argparse.ArgumentParser:
    """The options; the counts among them are at least 1."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    parser = argparse.ArgumentParser(
        description="Serve the network of a bundle over HTTP, in the Open Inference Protocol (KServe v2).",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("bundle", type=Path, help="folder that `pconv-onnx deploy --target bundle` wrote")
    parser.add_argument("--name", help="of the model, in URLs (default: the folder's)", default=argparse.SUPPRESS)
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--port", type=int, default=8000, help="0: one that is free")
    parser.add_argument("--workers", type=count, default=cores, metavar="N", help="processes")
    parser.add_argument("--threads", type=count, default=1, metavar="N", help="onnxruntime's in each process")
    parser.add_argument("--max-batch", type=count, default=32, metavar="N", help="samples that are run together")
    parser.add_argument("--delay", type=float, default=2.0, metavar="MS", help="a batch waits so long for more samples")
    parser.add_argument(
        "--queue", type=count, default=256, metavar="N", help="requests at a time; further ones get 503"
    )
    parser.add_argument("--max-body", type=count, default=16, metavar="MIB", help="a larger request gets 413")
    return parser


def count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return number


async def serve(options: argparse.Namespace, network: Network, listening: socket.socket) -> None:
    """Serve until a signal asks to end; requests that are in are answered first."""
    most = options.max_batch if network.batched else None
    pool = Pool(options.bundle, options.workers, options.threads, most, options.delay / 1e3)
    try:
        await pool.start()
    except (WorkerDied, OSError, asyncio.TimeoutError):
        sys.exit("serve.py: a worker does not start")
    api = of_one_length(application(network, pool, options))
    # h11, which bounds the headers that it takes
    server = uvicorn.Server(
        uvicorn.Config(api, http="h11", ws="none", log_level="warning", timeout_graceful_shutdown=END)
    )
    host, port = listening.getsockname()[:2]
    print(f"{network.name} is served at http://{host}:{port}", flush=True)
    guarding = asyncio.ensure_future(guard(server))
    await server.serve(sockets=[listening])
    guarding.cancel()


# The step of a request that a client has to take, when the server leaves it, and bytes that it has not taken.
Wait = tuple[object, float, int]


async def guard(server: uvicorn.Server) -> None:
    """End connections on whose clients the server waits for too long."""
    waits: dict[H11Protocol, Wait] = {}
    while True:
        await asyncio.sleep(1)
        now = time.monotonic()
        waits = look(server.server_state.connections, waits, now)
        for connection, (_, end, _) in waits.items():
            if now > end:
                connection.transport.abort()


def look(connections: Iterable[H11Protocol], before: dict[H11Protocol, Wait], now: float) -> dict[H11Protocol, Wait]:
    """Where it is the client's turn, to send a request or to take an answer; bytes that were taken give more time."""
    waits: dict[H11Protocol, Wait] = {}
    for connection in connections:
        unsent, state = connection.transport.get_write_buffer_size(), connection.conn.their_state
        if unsent or state in (h11.IDLE, h11.SEND_BODY):
            step = (connection.cycle, state, unsent > 0)
            known, end, left = before.get(connection, (None, 0.0, 0))
            if known != step:
                end, left = now + LATE, unsent
            waits[connection] = (step, end + max(left - unsent, 0) / RATE, unsent)
    return waits


def of_one_length(api: ASGIApp) -> ASGIApp:
    """An application that refuses what a proxy may take for two requests."""

    async def guarded(scope: Scope, receive: Receive, send: Send) -> None:
        if {b"content-length", b"transfer-encoding"} <= {name for name, _ in scope.get("headers", ())}:
            told = {"error": "the request has both Content-Length and Transfer-Encoding; send one"}
            await JSONResponse(told, 400, {"Connection": "close"})(scope, receive, send)
        else:
            await api(scope, receive, send)

    return guarded


def application(network: Network, pool: Pool, options: argparse.Namespace) -> FastAPI:
    """The endpoints of the protocol."""

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await pool.stop()

    api = FastAPI(title=f"pconv-onnx: {network.name}", lifespan=lifespan, docs_url=None, redoc_url=None)
    model = APIRouter()
    places = asyncio.Semaphore(options.queue)
    # What takes long on large requests is done beside the event loop, and for one at a time, which bounds its memory.
    aside = ThreadPoolExecutor(1)

    async def done(size: int, work: Callable[..., Any], *arguments: Any) -> Any:
        if size <= SMALL:
            return work(*arguments)
        return await asyncio.get_running_loop().run_in_executor(aside, work, *arguments)

    @api.get("/v2")
    async def server_metadata() -> dict[str, Any]:
        return {"name": "pconv-onnx", "version": "1", "extensions": ["binary_tensor_data", "statistics"]}

    @api.get("/v2/health/live")
    async def live() -> Response:
        return Response()

    @api.get("/v2/health/ready")
    @model.get("/ready")
    async def ready() -> Response:
        return Response(status_code=200 if pool.pids else 503)

    @model.get("")
    async def metadata() -> dict[str, Any]:
        return network.metadata()

    @model.get("/stats")
    async def statistics() -> dict[str, Any]:
        counts = {"inference_count": pool.rows, "execution_count": pool.runs}
        now = {"workers": pool.pids, "waiting": pool.waiting, "in_flight": pool.in_flight}
        ever = {"deaths": pool.deaths, "run_again": pool.run_again}
        return {"model_stats": [{"name": network.name, "version": "1", **counts, **now, **ever}]}

    @model.post("/infer")
    async def infer(http: Request) -> Response:
        if places.locked():
            raise Refused(503, f"the queue of {options.queue} is full; try again later")
        if (coding := http.headers.get("Content-Encoding", "identity")) != "identity":
            raise Refused(415, f"the body is {coding}; send it uncompressed")
        async with places:  # before the body is read, so that bodies in memory are bounded as well
            body = await body_of(http, options.max_body << 20)
            length = ",".join(http.headers.getlist(HEADER_LENGTH)) or None
            request = await done(len(body), read, body, length, network)
            try:
                outputs = await pool.run(request.feed, request.rows)
            except RunFailed as error:
                raise Refused(400 if error.invalid else 500, str(error)) from error
            except asyncio.CancelledError as error:
                raise Refused(503, "the server ends; send the request again") from error
            size = sum(array.nbytes for array in outputs)
            content, headers = await done(size, answer, request, outputs, network)
        return Response(content, headers=headers)

    for prefix in (f"/v2/models/{network.name}", f"/v2/models/{network.name}/versions/1"):
        api.include_router(model, prefix=prefix)

    @api.exception_handler(Refused)
    async def refused(_: Request, error: Refused) -> Response:
        headers = {"Retry-After": str(RETRY_AFTER)} if error.status == 503 else None
        return JSONResponse({"error": error.message}, error.status, headers)

    @api.exception_handler(HTTPException)
    async def not_served(http: Request, error: HTTPException) -> Response:
        return JSONResponse({"error": f"{http.scope['raw_path'].decode()[:200]}: {error.detail}"}, error.status_code)

    return api


async def body_of(http: Request, most: int) -> bytes:
    """The body of a request.

    Raises:
        Refused: it is too large, or does not arrive in time.
    """
    length = number(http.headers.get("Content-Length", "0"))
    if length is None or length > most:
        raise Refused(413, f"the request has more than {most} bytes, which are taken")

    async def arriving() -> bytes:
        body = bytearray()
        async for part in http.stream():
            body += part
            if len(body) > most:
                raise Refused(413, f"the request has more than {most} bytes")
        return bytes(body)

    try:
        return await asyncio.wait_for(arriving(), READ)
    except asyncio.TimeoutError as error:
        raise Refused(408, f"the request did not arrive in {READ} seconds") from error
    except ClientDisconnect as error:
        raise Refused(400, "the client left before the request had arrived") from error


if __name__ == "__main__":
    main()
