"""Sends images to serve.py or Triton, and prints the top-1 class of each: python client.py --help."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException


def main() -> None:
    """Send, print."""
    parser = argparse.ArgumentParser(
        description="Send images to serve.py or Triton, and print the top-1 class of each.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("model", help="name of the model on the server")
    parser.add_argument("inputs", type=Path, help=".npz of arrays named as the inputs, first axis = samples")
    parser.add_argument("--url", default="localhost:8000", help="of the server, without http://")
    parser.add_argument("--batch", type=int, default=8, metavar="N", help="samples of a request")
    options = parser.parse_args()
    try:
        with np.load(options.inputs) as arrays, triton.InferenceServerClient(options.url) as client:
            for classes in top1(client, options.model, dict(arrays), options.batch):
                print(*classes, sep="\n")
    except (InferenceServerException, OSError, ValueError) as error:
        sys.exit(f"client.py: {options.inputs} at {options.url}: {error}")


def top1(
    client: triton.InferenceServerClient, model: str, arrays: dict[str, np.ndarray], batch: int
) -> Iterator[np.ndarray]:
    """Yield the classes of each batch: of the model's first output, logits."""
    metadata = client.get_model_metadata(model)
    if missing := {described["name"] for described in metadata["inputs"]} - set(arrays):
        raise ValueError(f"the model takes {', '.join(sorted(missing))}, which is not there")
    samples = len(arrays[metadata["inputs"][0]["name"]])
    for start in range(0, samples, batch):
        inputs = []
        for described in metadata["inputs"]:
            array = np.ascontiguousarray(arrays[described["name"]][start : start + batch])
            inputs.append(triton.InferInput(described["name"], list(array.shape), described["datatype"]))
            inputs[-1].set_data_from_numpy(array)
        answer = client.infer(model, inputs)
        yield answer.as_numpy(metadata["outputs"][0]["name"]).argmax(1)


if __name__ == "__main__":
    main()
