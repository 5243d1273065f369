"""The ANN after onnxruntime's own static quantisation, in QDQ form, for comparison."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from pconv_onnx.basics.arrays import Array
from pconv_onnx.basics.errors import PconvError
from pconv_onnx.basics.foreign_errors import reason_of
from pconv_onnx.data.samples import Samples

# Samples that its ranges are taken from.
_SAMPLES = 32


def quantise(path: str, output: str, samples: Samples) -> None:
    """Write a network with weights of 8 bits, a scale a channel, and activations of 8 bits.

    Args:
        path: of the network.
        output: where to write.
        samples: of which the first few tell how large activations are.

    Raises:
        PconvError: onnxruntime cannot quantise it.
    """
    try:
        from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

        with _quiet():
            quantize_static(
                path,
                output,
                _Feeds(samples),
                quant_format=QuantFormat.QDQ,
                per_channel=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
            )
    except Exception as error:  # of onnxruntime, onnx, or a missing package of theirs
        raise PconvError(f"onnxruntime does not quantise it: {reason_of(error)}", "") from error


class _Feeds:
    """Samples one by one, as onnxruntime asks for them."""

    def __init__(self, samples: Samples) -> None:
        batch = samples.fixed_batch or 1
        most = max(1, min(len(samples), _SAMPLES) // batch)
        self._feeds = (samples.feed(slice(index * batch, (index + 1) * batch)) for index in range(most))

    def get_next(self) -> dict[str, Array] | None:
        """The next, None behind the last."""
        return next(self._feeds, None)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without advice that is for whoever deploys the network."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
