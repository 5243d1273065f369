"""Writes Einsum, and MatMul fused with transposes, as MatMul between Transposes and Reshapes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from pconv_onnx.graph.passes.whole import Whole, require

_ELLIPSIS = "..."


def fused_matmul(whole: Whole) -> None:
    """FusedMatMul of onnxruntime: `alpha·op(a)·op(b)`; it stays whole if its batch axes are transposed."""
    require(not whole.flag("transBatchA") and not whole.flag("transBatchB"))
    operands = []
    for index, transposed in enumerate(("transA", "transB")):
        axes = list(range(len(whole.shape(index))))
        if whole.flag(transposed) and len(axes) > 1:
            axes[-2:] = axes[-1], axes[-2]
        operands.append(whole.transpose(whole[index], *axes))
    alpha = whole.attribute("alpha", 1.0)
    product = whole.write("MatMul", *operands, what="product", gives=0 if alpha == 1 else None)
    if alpha != 1:
        whole.write("Mul", product, whole.number(alpha), gives=0)


def einsum(whole: Whole) -> None:
    """Einsum of two operands if every axis is one of the result, or one along which both are summed."""
    require(bool(whole[1]) and not whole[2] and whole.floats.kind == "f")
    first, second, result = _labels(whole)
    operands = (first, second)
    left, right = (0, 1) if _in_order(first, second, result) else (1, 0)
    axes = _Axes.of(operands[left], operands[right], result)
    for label in axes.summed:
        sizes = [whole.shape(index)[labels.index(label)] for index, labels in enumerate(operands)]
        # A size of 1 is broadcast to the other's.
        require(sizes[0] == sizes[1] or not all(isinstance(size, int) for size in sizes))
    a = _left(whole, left, operands[left], axes)
    b = _right(whole, right, operands[right], axes)
    made = [*axes.outer, *filter(None, (axes.row, axes.column))]
    vectors = [len(axes.outer) + place for place, label in enumerate((axes.row, axes.column)) if not label]
    moved = made != result
    product = whole.write("MatMul", a, b, what="product", gives=None if vectors or moved else 0)
    if vectors:
        product = whole.write("Squeeze", product, whole.constant(vectors), gives=None if moved else 0)
    if moved:
        whole.transpose(product, *map(made.index, result), gives=0)


@dataclass(frozen=True)
class _Axes:
    """The axes of a matrix product, with their letters in the equation.

    Attributes:
        outer: the batch axes, of one operand or both, in the order of the result.
        row: the axis of the left operand's rows; empty if that is a stack of vectors.
        column: the axis of the right operand's columns; likewise.
        summed: the axes that it sums along.
    """

    outer: list[str]
    row: str
    column: str
    summed: list[str]

    @classmethod
    def of(cls, left: Sequence[str], right: Sequence[str], result: Sequence[str]) -> _Axes:
        """The axes of an equation.

        Raises:
            StaysWhole: it is not a matrix product: an axis of one operand alone is summed or repeated, or none is
                summed.
        """
        summed = [label for label in left if label in right and label not in result]
        require(bool(summed) and all(len(set(labels)) == len(labels) for labels in (left, right, result)))
        require({*left, *right} == {*result, *summed})
        rows = [label for label in result if label not in right]
        columns = [label for label in result if label not in left]
        row, column = "".join(rows[-1:]), "".join(columns[-1:])
        # The axis of samples stays in front, unless the right operand is a single matrix.
        if [row] == list(result[:1]) and len(right) > len(summed) + len(columns[-1:]):
            row = ""
        return cls([label for label in result if label not in (row, column)], row, column, summed)

    def own(self, labels: Sequence[str]) -> list[str]:
        """The batch axes of an operand."""
        return [label for label in self.outer if label in labels]

    def missing(self, labels: Sequence[str]) -> list[int]:
        """Positions of batch axes that an operand lacks, behind its first; those in front are broadcast anyway."""
        own = [place for place, label in enumerate(self.outer) if label in labels]
        return [
            place - own[0] for place, label in enumerate(self.outer) if own and place > own[0] and label not in labels
        ]


def _labels(whole: Whole) -> tuple[list[str], list[str], list[str]]:
    """The axes of both operands and of the result."""
    terms, arrow, result = str(whole.attribute("equation")).replace(" ", "").partition("->")
    given = terms.split(",")
    require(len(given) == 2)
    hidden = [
        len(whole.shape(index)) - len(term.replace(_ELLIPSIS, "")) if _ELLIPSIS in term else 0
        for index, term in enumerate(given)
    ]
    left, right = (_written_out(term, count) for term, count in zip(given, hidden, strict=True))
    require(len(left) == len(whole.shape(0)) and len(right) == len(whole.shape(1)))
    if arrow:
        return left, right, _written_out(result, max(hidden))
    letters = terms.replace(_ELLIPSIS, "").replace(",", "")
    return left, right, _written_out(_ELLIPSIS, max(hidden)) + sorted(c for c in letters if letters.count(c) == 1)


def _written_out(term: str, hidden: int) -> list[str]:
    """Labels of a term; an ellipsis becomes numbers counted from its last axis, which aligns operands."""
    before, _, behind = term.partition(_ELLIPSIS)
    require(hidden >= 0)
    between = [f"{_ELLIPSIS}{number}" for number in reversed(range(hidden))] if _ELLIPSIS in term else []
    return [*before, *between, *behind]


def _in_order(left: Sequence[str], right: Sequence[str], result: Sequence[str]) -> bool:
    """Whether the left operand should be the left one of the product, so that the result's axes move least."""
    rows = [place for place, label in enumerate(result) if label not in right]
    columns = [place for place, label in enumerate(result) if label not in left]
    if not rows or not columns or 0 in (*rows, *columns):
        return 0 not in columns
    return rows[-1] < columns[-1]


def _left(whole: Whole, index: int, labels: Sequence[str], axes: _Axes) -> str:
    """The left operand as `[outer…, row, summed]`."""
    kept = [*axes.own(labels), *filter(None, [axes.row])]
    x = whole.transpose(whole[index], *map(labels.index, [*kept, *axes.summed]))
    if len(axes.summed) > 1:
        x = whole.reshape(x, *[0] * len(kept), _summed(whole, index, labels, axes))
    new = [*axes.missing(labels), *([] if axes.row else [_depth(labels, axes)])]
    return whole.write("Unsqueeze", x, whole.constant(new)) if new else x


def _right(whole: Whole, index: int, labels: Sequence[str], axes: _Axes) -> str:
    """The right operand as `[outer…, summed, column]`."""
    own = axes.own(labels)
    x = whole.transpose(whole[index], *map(labels.index, [*own, *axes.summed, *filter(None, [axes.column])]))
    if len(axes.summed) > 1:
        x = whole.reshape(x, *[0] * len(own), _summed(whole, index, labels, axes), *([-1] if axes.column else []))
    new = [*axes.missing(labels), *([] if axes.column else [_depth(labels, axes) + 1])]
    return whole.write("Unsqueeze", x, whole.constant(new)) if new else x


def _depth(labels: Sequence[str], axes: _Axes) -> int:
    """The number of batch axes of an operand."""
    return len(axes.own(labels)) + len(axes.missing(labels))


def _summed(whole: Whole, index: int, labels: Sequence[str], axes: _Axes) -> int:
    """The number of products that an entry of the result sums."""
    return math.prod(whole.size(index, labels.index(label)) for label in axes.summed)
