"""ResNet-20 on the CPU: spiking networks against the ANNs they come from.

Each row is interleaved with the others; its ratio is that to the ReLU network in the same round.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
from measure import arguments, interleaved, machine, report, rows

import pconv_onnx
from pconv_onnx.measure import timing

NETWORKS = Path(__file__).parent.parent / "examples" / "resnet20"
BASELINE = "ReLU ANN"


def main() -> None:
    """Measure, print, write."""
    parser = arguments(__doc__, repeats=40)
    parser.add_argument("--batch", type=int, default=32, help="samples a run (default: 32)")
    parser.add_argument("--steps", type=int, default=8, help="T (default: 8, the network's levels)")
    options = parser.parse_args()
    feed = {"image": np.random.default_rng(0).standard_normal((options.batch, 3, 32, 32)).astype(np.float32)}

    def session_options() -> onnxruntime.SessionOptions:
        settings = timing.session_options()
        settings.intra_op_num_threads = options.threads
        return settings

    def plain(model: bytes, with_library: bool) -> onnxruntime.InferenceSession:
        settings = session_options()
        return onnxruntime.InferenceSession(model, pconv_onnx.register(settings) if with_library else settings)

    quantised = NETWORKS / "resnet20-qcfs8.onnx"
    sessions = {
        BASELINE: plain((NETWORKS / "resnet20-relu.onnx").read_bytes(), False),
        "QCFS ANN": plain(quantised.read_bytes(), False),
    }
    for mode in ("parallel", "folded"):
        model = pconv_onnx.rewrite(quantised, mode=mode, steps=options.steps).model
        content = model.SerializeToString()
        sessions[f"{mode}, pconv_onnx.session"] = pconv_onnx.session(model, options=session_options())
        sessions[f"{mode}, onnxruntime with the library"] = plain(content, True)
        sessions[f"{mode}, onnxruntime alone (function body)"] = plain(content, False)

    candidates = {name: lambda runner=runner: runner.run(None, feed) for name, runner in sessions.items()}
    seconds = interleaved(candidates, options.repeats)
    document = {
        "benchmark": "resnet20",
        "batch": options.batch,
        "steps": options.steps,
        "machine": machine(options.threads),
        "rows": rows(seconds, BASELINE),
        "seconds": seconds,
    }
    report(
        f"ResNet-20, batch {options.batch}, T = {options.steps}, {options.threads} threads", document, options.output
    )


if __name__ == "__main__":
    main()
