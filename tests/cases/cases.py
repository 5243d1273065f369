"""Networks that users brought, after public bug reports and other projects' exporters: what each becomes.

`python tests/cases/cases.py` runs them all and writes docs/cases.md, which a test compares with what comes out.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from pconv_onnx import PconvError, deploy, evaluate, inspect, rewrite, verify

FILES = Path(__file__).parent / "files"
PAGE = Path(__file__).parents[2] / "docs" / "cases.md"


@dataclass(frozen=True)
class Case:
    """One network.

    Attributes:
        file: its name in `FILES`, without the ending.
        situation: what is written there, and by whom.
        options: how it is rewritten; `calibration` may name a file, or be arrays.
        run: what is done instead of rewriting and verifying it.
    """

    file: str
    situation: str
    options: dict[str, Any] = field(default_factory=dict)
    run: Callable[[Path], str] | None = None

    def outcome(self) -> str:
        """What comes of it, run again."""
        path = FILES / f"{self.file}.onnx"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                return self.run(path) if self.run is not None else _rewritten(path, self.options)
            except PconvError as error:
                return str(error).replace(f"'{path}'", "it")


def _rewritten(path: Path, options: dict[str, Any]) -> str:
    given = dict(options)
    if isinstance(given.get("calibration"), str):
        given["calibration"] = FILES / given["calibration"]
    result = rewrite(path, **given)
    found = verify(path, result.model, given.get("calibration"))
    counts = result.plan.summary()["counts"]
    told = {"converted": "converted", "needs_calibration": "without levels", "refused": "refused"}
    listed = ", ".join(f"{counts[key]} {text}" for key, text in told.items() if counts[key])
    return f"{listed}; {found.verdict}"


def _inspected(path: Path) -> str:
    found = inspect(path)["activations"]
    return f"{len(found)} activation{'' if len(found) == 1 else 's'}"


def _json_alone(path: Path) -> str:
    command = [sys.executable, "-m", "pconv_onnx", "inspect", str(path), "--json"]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return f"one JSON document, {json.loads(printed)['counts']['converted']} converted"


def _deployed(path: Path) -> str:
    with tempfile.TemporaryDirectory() as folder:
        deploy(path, Path(folder) / "out", target="nir", allow_lossy=True)
    return "written"


def _against_targets(path: Path) -> str:
    found = evaluate(path, FILES / "regression_targets.npz", steps=[8]).summary()
    return f"root mean square error {found['ann']['rmse']:.3f}, and {found['rows'][0]['rmse']:.3f} at T = 8"


def _positive(*shape: int) -> np.ndarray:
    return np.abs(np.random.default_rng(0).normal(size=shape)).astype(np.float32)


def _normal(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


VECTORS, IMAGES = ({"calibration": name, "steps": 8} for name in ("vectors16.npz", "images_tcl.npz"))

CASES = [
    Case("scaled_relu", "`relu(x)·γ` between layers (NFNets), calibrated", VECTORS),
    Case("resize_opset10_linear", "QDQ of opset 10 with a linear Resize, as PyTorch wrote it"),
    Case("prelu_opset6", "PRelu of opset 6, which onnxruntime does not run", run=_inspected),
    Case("qkeras_relu4", "QKeras `quantized_relu(4)` by tf2onnx"),
    Case("ste_round_only", "straight-through rounding, `z + (round(z) − z)`"),
    Case("ste_round_neg_add", "the same as `z + (−z + round(z))`"),
    Case("ste_whole_quantiser", "straight-through around the quantiser, `x + (q(x) − x)`"),
    Case("checker_prints", "`inspect --json` where onnx's checker prints", run=_json_alone),
    Case("nir_qdq_weights_serial", "`deploy --target nir` of quantised weights and input", run=_deployed),
    Case("concat_scalar", "a Concat of scalars", run=_inspected),
    Case("zero_sized", "calibrated on data without values",
         {"calibration": {"input": np.zeros((2, 0, 3), np.float32)}, "steps": 8}),
    Case("codes_transposed", "Transpose between QuantizeLinear and DequantizeLinear (TFLite int8)"),
    Case("codes_reshaped", "Reshape there"),
    Case("codes_pooled", "MaxPool there"),
    Case("silent_channel_add", "a channel silent on the data, a constant Add behind the ReLU; calibrated",
         {"calibration": {"x": _positive(64, 4)}, "steps": 8}),
    Case("silent_channel_hardswish", "a channel silent on the data, HardSwish; calibrated",
         {"calibration": {"x": _normal(64, 4)}, "steps": 8}),
    Case("tcl_two_relus", "trainable clipping, `up − relu(up − relu(x))`; calibrated", IMAGES),
    Case("tcl_as_clamp", "the same as a Clip; calibrated", IMAGES),
    Case("neuromorphic_relu", "`floor(relu(x))` without a bound (sinabs); calibrated", IMAGES),
    Case("bert_fused", "BERT optimised by onnxruntime; calibrated", {"calibration": "tokens.npz", "steps": 8}),
    Case("float16_contrib", "operators of onnxruntime in float16; calibrated",
         {"calibration": {"x": _normal(2, 3, 8).astype(np.float16)}, "steps": 8}),
    Case("tf_gelu", "TensorFlow's GELU, which divides by Sqrt(2); calibrated",
         {"calibration": {"x": _normal(64, 8)}, "steps": 8}),
    Case("aimet_quantised_bounds", "ReLU6 whose bounds were quantised (AIMET)", {"signed": True}),
    Case("qdq_uint16_contrib", "16-bit codes in onnxruntime's own operators", {"mode": "folded"}),
    Case("modelopt_int8_fp16", "float16 QDQ before opset 23 (ModelOpt)"),
    Case("qdq_relu_qdq", "a quantiser on either side of a ReLU"),
    Case("qdq_uint16", "16-bit codes in mode parallel"),
    Case("mixed_float16_minmax", "Min and Max left in float32 in a float16 network"),
    Case("binary_greater", "`x > 0.5` as activation"),
    Case("negative_threshold", "a threshold trained below zero"),
    Case("regression", "float targets, evaluated at T = 8", run=_against_targets),
]  # fmt: skip


_TEXT = """# Networks that users brought

Each file stands for a kind of network. It was built after a public bug report, or written by another project's
exporter. The files lie in `tests/cases/files`, and `make cases` runs them all again and writes this table. A verdict is
`equal`, or `measured` where something could not be compared, as behind a calibration
([verification](verification.md)).

| file | what is written there | now |
|---|---|---|
"""


def page(outcomes: Sequence[str]) -> str:
    """docs/cases.md with what came of each network."""
    rows = [f"| `{case.file}` | {case.situation} | {now} |" for case, now in zip(CASES, outcomes, strict=True)]
    return _TEXT + "\n".join(rows) + "\n"


def told() -> dict[str, str]:
    """What that page says of each file."""
    rows = [line.split(" | ") for line in PAGE.read_text().splitlines() if line.startswith("| `")]
    return {row[0].strip("| `"): row[2].removesuffix(" |") for row in rows}


if __name__ == "__main__":
    PAGE.write_text(page([case.outcome() for case in CASES]))
