"""The accuracy of token logits, for language models and taggers: each token has a label."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pconv_onnx.basics.arrays import Array
from pconv_onnx.basics.errors import PconvError
from pconv_onnx.data.parts import LABELS
from pconv_onnx.measure.targets import shape_of, shapes_of

_LOGITS = "logits"


@dataclass(frozen=True)
class TokenScore:
    """The answers to tokens that have a label; those with a negative one, as PyTorch's -100, have none.

    Attributes:
        correct: tokens whose label has the largest logit (of equal ones the first, as in argmax).
        loss: their negative log-likelihoods, in nats, summed in float64.
        tokens: how many there are.
    """

    correct: int = 0
    loss: float = 0.0
    tokens: int = 0

    @classmethod
    def of(cls, logits: Array, labels: Array) -> TokenScore:
        """That of one batch: logits `[B, tokens, classes]` and labels `[B, tokens]` that fit them."""
        # One by one: in float64 the logits of a batch would take much memory.
        return sum(map(cls._of_a_sample, logits, labels), start=cls())

    @classmethod
    def _of_a_sample(cls, logits: Array, labels: Array) -> TokenScore:
        chosen = np.flatnonzero(labels >= 0)
        if not chosen.size:
            return cls()
        classes = labels[chosen].astype(np.int64)
        logits = logits[chosen].astype(np.float64)
        largest = logits.max(axis=1)
        # Among NaNs nothing is largest.
        correct = (logits.argmax(axis=1) == classes) & ~np.isnan(largest)
        with np.errstate(invalid="ignore"):
            logits -= largest[:, np.newaxis]
            losses = np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(len(classes)), classes]
        return cls(int(correct.sum()), float(losses.sum()), len(classes))

    def __add__(self, other: TokenScore) -> TokenScore:
        """That of the tokens of both."""
        return TokenScore(self.correct + other.correct, self.loss + other.loss, self.tokens + other.tokens)

    def summary(self) -> dict[str, float | None]:
        """`token_top1`, the share of right answers, and `perplexity`, e to the power of the mean loss.

        None where no token has a label, and a perplexity where it is not finite.
        """
        if not self.tokens:
            return {"token_top1": None, "perplexity": None}
        with np.errstate(over="ignore"):
            perplexity = float(np.exp(self.loss / self.tokens))
        return {
            "token_top1": self.correct / self.tokens,
            "perplexity": perplexity if math.isfinite(perplexity) else None,
        }


def is_logits(name: str) -> bool:
    """Whether the name of an output says that it holds logits, as in Hugging Face's exports."""
    return _LOGITS in name.lower()


def token_output(names: Sequence[str], outputs: Sequence[Array], labels: Array, network: str) -> int:
    """Index of the output that token labels belong to: the one with logits `[B, tokens, classes]` of as many tokens.

    Of several it is the one whose name says that it holds logits.

    Args:
        names: of the outputs.
        outputs: of one batch, samples along the first axis.
        labels: of the same samples, integers `[B, tokens]`.
        network: how to call the network in messages.

    Raises:
        PconvError: none fits, or several do.
    """
    fitting = [index for index, output in enumerate(outputs) if output.ndim == 3 and output.shape[2] > 1]
    fitting = [index for index in fitting if outputs[index].shape[:2] == labels.shape]
    named = [index for index in fitting if is_logits(names[index])]
    if len(named) == 1 or len(fitting) == 1:
        return (named or fitting)[0]
    given = f"'{LABELS}' are integers {shape_of(labels)}, one a token"
    if fitting:
        told = " and ".join(f"'{names[index]}'" for index in named or fitting)
        raise PconvError(
            f"{given}, and several outputs of {network} have values of as many tokens: {told}",
            f"call the one that they are of '{_LOGITS}', or keep it alone (onnx.utils.extract_model)",
        )
    raise PconvError(
        f"{given}, and no output of {network} has logits of as many, {shape_of(labels)[:-1]}, classes]: "
        f"{shapes_of(names, outputs)}",
        "give a label for each token of an output, one for each sample as integers [N], or no labels",
    )


def require_classes(labels: Array, classes: int, name: str, first: int) -> None:
    """Raise where labels of tokens, of the samples from the first on, do not name classes of the network.

    Raises:
        PconvError: they do not.
    """
    wrong = np.argwhere(labels >= classes)
    if wrong.size:
        sample, token = wrong[0]
        raise PconvError(
            f"'{LABELS}' has {labels[sample, token]} at sample {first + sample}, token {token}; {name} has {classes} "
            "classes of tokens",
            f"number them from 0 to {classes - 1}, and leave a token out by -100",
        )
