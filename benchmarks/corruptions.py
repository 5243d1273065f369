"""Spiking networks with one fault each, at random: how many does `verify` notice, and does it name the place?

Random networks in which all arithmetic is exact, ResNet-20 with levels of its own and with calibrated ones, and the
networks of the zoo (calibrated on random samples), each in turns in mode parallel and folded. A fault is one number of
a weight, threshold, level or attribute, an edge, an operator that is left out or there twice. Before it, no network may
be called different.

Needs torch: pip install 'pconv-onnx[torch]'.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import onnx
from measure import machine, write
from zoo import METHOD, STEPS, networks
from zoo_networks import TORCH

import pconv_onnx
from pconv_onnx.basics.errors import PconvError
from pconv_onnx.measure.verification import verify

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "examples")]

from fuzzing.corrupted import corrupted, judged  # noqa: E402  # tests are no package
from fuzzing.grown import grown  # noqa: E402
from prepare_images import prepare, read_npz  # noqa: E402

MODES = ("parallel", "folded")
Feed = dict[str, np.ndarray]


@dataclass
class Case:
    """A fault that was not noticed, or whose place was not named.

    Attributes:
        network: its source.
        fault: what was done.
        told: what is wrong with the answer.
        largest: the largest difference of a segment as a multiple of its bound.
        agreement: share of samples with the same top-1 as without the fault; None without classes.
    """

    network: str
    fault: str
    told: str
    largest: float
    agreement: float | None


def sources(
    folder: Path, grow: int, resnet: int, zoo: int
) -> Iterator[tuple[str, onnx.ModelProto, onnx.ModelProto, Feed]]:
    """Networks with their spiking form and samples, one for each fault."""
    for seed in range(grow):
        model, feed = grown(seed)
        try:
            yield "random", model, pconv_onnx.rewrite(model, mode=MODES[seed % 2]).model, feed
        except PconvError:  # nothing to convert
            continue
    images, _ = read_npz(ROOT / "examples/resnet20/cifar10-test-1000.npz")
    images = prepare(images[:208], [0.485, 0.456, 0.406], [0.229, 0.224, 0.225], "NCHW")
    for name, calibration in (("qcfs8", None), ("relu", 8)):
        ann = onnx.load(ROOT / f"examples/resnet20/resnet20-{name}.onnx")
        data = {ann.graph.input[0].name: images[:200]}
        chosen = {} if calibration is None else {"calibration": data, "steps": calibration}
        spiking = [pconv_onnx.rewrite(ann, mode=mode, **chosen).model for mode in MODES]
        for index in range(resnet):
            yield f"ResNet-20 {name}", ann, spiking[index % 2], {ann.graph.input[0].name: images[200:]}
    for row, path, data in networks(folder, list(TORCH)):
        few = {name: values[:8] for name, values in data.items()}
        for index in range(zoo):
            try:
                ann = onnx.load(path)
                mode = MODES[index % 2]
                snn = pconv_onnx.rewrite(ann, mode=mode, calibration=data, steps=STEPS, method=METHOD).model
            except (PconvError, OSError):  # the zoo's table tells why
                break
            yield f"{row.model}, {row.exporter}", ann, snn, few


def main() -> int:
    """Spoil, verify, count, write; the exit status is 1 where a right network is called different."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--grown", type=int, default=200, metavar="N", help="random networks (200)")
    parser.add_argument("--resnet", type=int, default=40, metavar="N", help="faults in each ResNet-20 (40)")
    parser.add_argument("--zoo", type=int, default=2, metavar="N", help="faults in each network of the zoo (2)")
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="write the figures there, as JSON")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    right: Counter[str] = Counter()
    found: Counter[str] = Counter()
    missed: list[Case] = []
    wrong: list[str] = []
    with tempfile.TemporaryDirectory() as folder, np.errstate(all="ignore"):
        cases = sources(Path(folder), options.grown, options.resnet, options.zoo)
        for seed, (name, ann, snn, feed) in enumerate(cases):
            before = verify(ann, snn, feed)
            right[before.verdict] += 1
            if before.verdict == "different":
                wrong.append(f"{name}: {before.differences}")
                print("a right network:", wrong[-1], flush=True)
            corruption = corrupted(snn, np.random.default_rng(seed))
            if corruption is None:
                found["nothing to spoil"] += 1
                continue
            answer = judged(ann, snn, corruption, feed)
            found[answer.found] += 1
            if answer.told:
                missed.append(Case(name, corruption.what, answer.told, answer.largest, answer.agreement))
                print(missed[-1], flush=True)
    print(f"before the fault: {dict(right)}")
    print(f"with it: {dict(found)}")
    write(
        {
            "benchmark": "corruptions",
            "machine": machine(threads=0),
            "before": dict(right),
            "with": dict(found),
            "wrong": wrong,
            "missed": [asdict(case) for case in missed],
        },
        options.output,
    )
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
