"""Is what `rewrite` makes of a random network equal to it, element for element, in each mode, in any coding?"""

from __future__ import annotations

import warnings

import numpy as np
import onnxruntime
from onnx.reference import ReferenceEvaluator

from pconv_onnx import PconvError, SerialSession, rewrite, session
from pconv_onnx.basics.choices import CODINGS

from .grown import grown


def faults(seed: int) -> list[str]:
    """What is wrong with the network of one seed; empty where all is right."""
    model, feed = grown(seed)
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = ReferenceEvaluator(model).run(None, feed)
    random = np.random.default_rng([seed, 1])
    coding, signed = CODINGS[random.integers(len(CODINGS))], bool(random.random() < 0.3)
    found = []
    stock = onnxruntime.SessionOptions()
    stock.log_severity_level = 4
    for mode in ("parallel", "folded", "serial"):
        try:
            result = rewrite(model, mode=mode, coding="auto" if mode == "serial" else coding, signed=signed)
        except PconvError as error:
            if mode != "serial" and not str(error).startswith("nothing to convert"):
                found.append(f"{mode}, {coding} is refused: {error}")
            continue
        content = result.model.SerializeToString()
        if mode == "serial":
            # Not lossless: only that it runs, and gives what it should give in shape.
            shapes = [output.shape for output in SerialSession(result.model).run(None, feed)]
            if shapes != [output.shape for output in expected]:
                found.append(f"serial gives shapes {shapes}")
            continue
        runners = {
            "session": session(result.model),
            "function body": onnxruntime.InferenceSession(content, stock, providers=["CPUExecutionProvider"]),
        }
        for how, runner in runners.items():
            for name, ours, theirs in zip(model.graph.output, runner.run(None, feed), expected, strict=True):
                if not np.array_equal(ours, theirs):
                    found.append(f"{mode}, {coding}, {how}: output '{name.name}' differs")
    return found
