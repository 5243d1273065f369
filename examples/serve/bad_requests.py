"""Requests that a server has to refuse, each made of a good one."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np

Headers = dict[str, str]
LENGTH = "Inference-Header-Content-Length"


def good_request(feed: dict[str, np.ndarray], datatypes: dict[str, str]) -> dict[str, Any]:
    """The request for a feed of arrays, in JSON."""
    return {
        "inputs": [
            {"name": name, "shape": list(array.shape), "datatype": datatypes[name], "data": array.ravel().tolist()}
            for name, array in feed.items()
        ]
    }


def bad_requests(feed: dict[str, np.ndarray], datatypes: dict[str, str]) -> dict[str, tuple[bytes, Headers]]:
    """Body and headers of each bad request, by what is wrong with it.

    Args:
        feed: floating-point arrays by input, which make a good request.
        datatypes: of the inputs, by the protocol's names.
    """

    def first(change: Callable[[dict[str, Any]], dict[str, Any]]) -> tuple[bytes, Headers]:
        request = good_request(feed, datatypes)
        request["inputs"][0] |= change(request["inputs"][0])
        return json.dumps(request).encode(), {}

    def whole(change: dict[str, Any]) -> tuple[bytes, Headers]:
        return json.dumps(good_request(feed, datatypes) | change).encode(), {}

    def value(text: str) -> tuple[bytes, Headers]:
        return first(lambda given: {"data": ["value", *given["data"][1:]]})[0].replace(b'"value"', text.encode()), {}

    body = whole({})[0]
    digits = "9" * 5000
    return {
        "no JSON": (body[:-1], {}),
        "nothing": (b"", {}),
        "no UTF-8": (body.replace(b"name", b"n\xffme", 1), {}),
        "deep JSON": (b"[" * 50_000, {}),
        "many lists": (b"[" + b"[]," * 100_000 + b"[]]", {}),
        "a key twice": (body.replace(b'"name"', b'"shape": [1], "name"', 1), {}),
        "NaN": value("NaN"),
        "Infinity": value("-Infinity"),
        "a number beyond floats": value("1e400"),
        "an integer beyond floats": value("9" * 400),
        "5,000 digits": value(digits),
        "a string for a number": value('"1"'),
        "true for a number": value("true"),
        "null for a number": value("null"),
        "strings": first(lambda given: {"data": ["a"] * 1000 + ["b" * 50_000]}),
        "one value too many": first(lambda given: {"data": [*given["data"], 0.0]}),
        "ragged lists": first(lambda given: {"data": [given["data"], [0.0]]}),
        "no data": first(lambda given: {"data": None}),
        "an axis too many": first(lambda given: {"shape": [*given["shape"], 1]}),
        "a size of zero": first(lambda given: {"shape": [0, *given["shape"][1:]]}),
        "a negative size": first(lambda given: {"shape": [-1, *given["shape"][1:]]}),
        "a huge size": first(lambda given: {"shape": [2**62, *given["shape"][1:]]}),
        "a size beyond integers": first(lambda given: {"shape": [10**30, *given["shape"][1:]]}),
        "a size that is true": first(lambda given: {"shape": [True, *given["shape"][1:]]}),
        "another type": first(lambda given: {"datatype": "BYTES"}),
        "an unknown input": first(lambda given: {"name": "\x1b[31m\n" + "x" * 10_000}),
        "parameters that are a list": first(lambda given: {"parameters": []}),
        "bytes that are not there": first(lambda given: {"parameters": {"binary_data_size": 10**9}, "data": None}),
        "an input twice": whole({"inputs": good_request(feed, datatypes)["inputs"] * 2}),
        "no input": whole({"inputs": []}),
        "an unknown output": whole({"outputs": [{"name": "no such output"}]}),
        "many outputs": whole({"outputs": [{"name": "x"}] * 50_000}),
        "a long id": whole({"id": "x" * 1_000_000}),
        "a length of 5,000 digits": (body, {LENGTH: digits}),
        "a length beyond the body": (body, {LENGTH: str(len(body) + 1)}),
        "a negative length": (body, {LENGTH: "-1"}),
        "bytes of no input": (body + b"\0", {LENGTH: str(len(body))}),
    }
