"""A network as calls of a few kinds of layers, on buffers that are not placed yet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass, field, replace
from pathlib import Path
from string import Template
from typing import Any

import numpy as np

from pconv_onnx.basics.arrays import Array
from pconv_onnx.deployment.c.views import Buffer, CType, Span, View, span_of
from pconv_onnx.graph.windows import windows

_LAYERS = Path(__file__).parent / "layers"
# As many as axes.c has.
_AXES = 6
# What int32 holds, and up to where float32 holds every integer.
LARGEST, HELD = 2**31 - 1, 2**24
_NUMPY: dict[str, CType] = {"int8": "int8_t", "int16": "int16_t", "uint8": "uint8_t", "int32": "int32_t"}
_LOWEST: dict[str, str] = {"uint8_t": "0", "int32_t": "INT32_MIN", "float": "-FLT_MAX"}


@dataclass(frozen=True, eq=False)
class Call:
    """A call of a layer.

    Attributes:
        function: its name.
        arguments: texts, and views for pointers to them.
        reads: buffers whose values it takes.
        writes: the buffer that it writes.
        comment: what it is of.
    """

    function: str
    arguments: Sequence[str | View]
    reads: Sequence[Buffer]
    writes: Buffer
    comment: str


@dataclass(frozen=True)
class Window:
    """How a window moves over images, as window.c has it."""

    samples: int
    height: int
    width: int
    channels: int
    rows: int
    columns: int
    outputs: int
    groups: int
    taps: tuple[int, int]
    strides: tuple[int, int]
    dilations: tuple[int, int]
    padding: tuple[int, int]

    @classmethod
    def over(
        cls,
        shape: Sequence[int],
        outputs: int,
        taps: Sequence[int],
        *,
        groups: int = 1,
        strides: Sequence[int] = (1, 1),
        dilations: Sequence[int] = (1, 1),
        pads: Sequence[int] = (0, 0, 0, 0),
        ceil: bool = False,
    ) -> Window:
        """That of images `[N, H, W, C]`, with pads above, to the left, below and to the right."""
        samples, height, width, channels = shape
        # Rounded up, there is a window also where all but one row or column of a stride is missing.
        after = [pad + (stride - 1) * ceil for pad, stride in zip(pads[2:], strides, strict=True)]
        attributes = {"strides": strides, "dilations": dilations, "pads": [*pads[:2], *after]}
        rows, columns = (window.count for window in windows(attributes, (height, width), taps))
        ends = [tuple(map(int, pair)) for pair in (taps, strides, dilations, pads[:2])]
        return cls(samples, height, width, channels, rows, columns, outputs, groups, *ends)  # type: ignore[arg-type]

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Of the images that come out."""
        return self.samples, self.rows, self.columns, self.outputs


@dataclass(frozen=True, eq=False)
class Sum:
    """What is added to products, by channel `[M]`, and thresholds `[M, S]` or `[1, S]` of neurons behind."""

    factor: Array
    bias: Array
    residual: View | None = None
    residual_zero: int = 0
    multiplier: Array | None = None
    thresholds: Array | None = None


@dataclass(eq=False)
class Program:
    """What is written so far.

    Attributes:
        inputs: of the network, by name.
        outputs: likewise, once they are known.
        functions: texts of layers by name, in the order in which C wants them.
        tables: constants by name; dedicated types by `ctype_of`.
        structs: names of constant structs, by their kind and their text.
        calls: in the order in which they run.
        label: what calls are of, for comments.
    """

    inputs: Mapping[str, View]
    outputs: Mapping[str, View] = field(default_factory=dict)
    functions: dict[str, str] = field(default_factory=dict)
    tables: dict[str, Array] = field(default_factory=dict)
    structs: dict[tuple[str, str], str] = field(default_factory=dict)
    calls: list[Call] = field(default_factory=list)
    label: str = ""
    _copies: dict[tuple[Any, ...], View] = field(default_factory=dict)
    _shared: dict[tuple[str, bytes], str] = field(default_factory=dict)

    # Constants

    def table(self, values: Array) -> Buffer:
        """A constant table of the type that its values have, int8 to int32, uint8 or float32."""
        key = f"{values.dtype}", values.tobytes()
        if key not in self._shared:
            self._shared[key] = f"table_{len(self.tables)}"
            self.tables[self._shared[key]] = values
        return Buffer(ctype_of(values), values.size, self._shared[key])

    def constant(self, values: Array) -> View:
        """A constant operand: int32 where all are integers that it holds, else float32."""
        span, is_float = span_of(values), values.dtype.kind == "f"
        whole = span is not None and max(map(abs, span)) <= LARGEST
        table = np.ascontiguousarray(values.astype(np.int32 if whole else np.float32))
        return View.of(self.table(table), values.shape, span, is_float=is_float)

    def _struct(self, kind: str, text: str) -> str:
        name = self.structs.setdefault((kind, text), f"{kind}_{len(self.structs)}")
        return f"&{name}"

    # Layers

    def new(self, ctype: CType, shape: Sequence[int], span: Span, *, is_float: bool) -> View:
        """Room for a tensor."""
        return View.of(Buffer(ctype, int(np.prod(shape, dtype=np.int64))), shape, span, is_float=is_float)

    def each(self, expression: str, out: View, left: View, right: View | None = None, assign: str = "=") -> None:
        """An expression in `a`, and in `b`, for all elements."""
        template = "each.c" if right is None else "pair.c"
        operands = [out, left.expanded(out.shape), *([] if right is None else [right.expanded(out.shape)])]
        types = [view.buffer.ctype for view in operands]
        self.require("axes", "axes.c")
        texts = dict(zip(("out", "left", "right"), types, strict=False))
        name = self.instance(template, "each", expression=expression, assign=assign, **texts)
        self.call(name, [self._axes(operands), *operands], operands[1:], out)

    def dense(self, view: View) -> View:
        """The tensor in row-major order: as it is where it is so, else a copy."""
        key = view.buffer, view.offset, view.shape, view.strides
        if not view.dense and key not in self._copies:
            self._copies[key] = self.new(view.buffer.ctype, view.shape, view.span, is_float=view.is_float)
            self.each("a", self._copies[key], view)
        return view if view.dense else replace(self._copies[key], is_float=view.is_float)

    def converted(self, view: View, ctype: CType) -> View:
        """The tensor in another type, which holds its values."""
        if view.buffer.ctype == ctype:
            return view
        out = self.new(ctype, view.shape, view.span, is_float=view.is_float)
        self.each(f"({ctype})a", out, view)
        return out

    def conv(self, window: Window, images: View, zero: int, weights: Array, total: Sum, span: Span) -> View:
        """Products of dense images by integer weights `[M, kH, kW, C/g]`, with what is added, or counts of neurons."""
        table, ctype = self.table(_narrow(weights)), images.buffer.ctype
        counted = total.thresholds is not None
        self.require("count_int32", "count.c", name="count_int32", **{"in": "int32_t"})
        self.require("window", "window.c")
        self.require("sum", "sum.c")
        name = self.instance("conv.c", "conv", **{"in": ctype, "weight": table.ctype})
        out = self.new("uint8_t" if counted else "int32_t", window.shape, span, is_float=False)
        residual = total.residual
        read = [self._window(window), self._sum(total), images, View.of(table, weights.shape), str(zero)]
        ends = [*_by_type(residual), *_by_type(out)]
        self.call(name, [*read, *ends], [images, *([] if residual is None else [residual])], out)
        return out

    def spike(self, sums: View, thresholds: Array, outer: int, channels: int) -> View:
        """Counts of neurons behind dense sums `[outer, channels, inner]`."""
        rows, levels = thresholds.shape
        table = self.table(np.ascontiguousarray(thresholds))
        count = f"count_{table.ctype.removesuffix('_t')}"
        self.require(count, "count.c", name=count, **{"in": table.ctype})
        name = self.instance("spike.c", "spike", count=count, **{"in": table.ctype})
        out = self.new("uint8_t", sums.shape, (0, levels), is_float=False)
        row, inner = (levels if rows > 1 else 0), sums.count // outer // channels
        numbers = [str(number) for number in (levels, row, outer, channels, inner)]
        self.call(name, [sums, out, View.of(table, thresholds.shape), *numbers], [sums], out)
        return out

    def levels(self, counts: View, levels: Array, outer: int, channels: int) -> View:
        """What dense counts `[outer, channels, inner]` stand for, by rows `[M, S+1]` or `[1, S+1]`."""
        rows, size = levels.shape
        constant = self.constant(levels)
        name = self.instance("levels.c", "levels", out=constant.buffer.ctype)
        out = self.new(constant.buffer.ctype, counts.shape, constant.span, is_float=True)
        numbers = [str(n) for n in (size if rows > 1 else 0, outer, channels, counts.count // outer // channels)]
        self.call(name, [counts, out, constant, *numbers], [counts], out)
        return out

    def maxpool(self, window: Window, images: View) -> View:
        """The largest of dense images in each window."""
        ctype = images.buffer.ctype
        self.require("window", "window.c")
        name = self.instance("maxpool.c", "maxpool", lowest=_LOWEST[ctype], **{"in": ctype})
        out = self.new(ctype, window.shape, images.span, is_float=images.is_float)
        self.call(name, [self._window(window), images, out], [images], out)
        return out

    # What they are made of

    def require(self, name: str, template: str, /, **texts: str) -> None:
        """Have a function, or the like, once."""
        if name not in self.functions:
            self.functions[name] = Template((_LAYERS / template).read_text()).substitute(texts)

    def instance(self, template: str, stem: str, **texts: str) -> str:
        """The name of a layer for these types."""
        text = Template((_LAYERS / template).read_text())
        found = [name for name in self.functions if self.functions[name] == text.substitute(name=name, **texts)]
        if found:
            return found[0]
        name = f"{stem}_{len(self.functions)}"
        self.functions[name] = text.substitute(name=name, **texts)
        return name

    def call(self, function: str, arguments: Sequence[Any], reads: Sequence[View], writes: View) -> None:
        """Note a call."""
        self.calls.append(Call(function, arguments, [view.buffer for view in reads], writes.buffer, self.label))

    def _axes(self, operands: Sequence[View]) -> str:
        """The axes of elementwise operands of one shape, as few as have to be."""
        axes: list[tuple[int, list[int]]] = []
        for axis, size in enumerate(operands[0].shape):
            strides = [view.strides[axis] for view in operands]
            if size == 1:
                continue
            if axes and axes[-1][1] == [stride * size for stride in strides]:
                axes[-1] = (axes[-1][0] * size, strides)
            else:
                axes.append((size, strides))
        if len(axes) > _AXES:
            raise ValueError(f"it has {len(axes)} axes that lie apart, and C layers have up to {_AXES}")
        axes = [(1, [0] * len(operands))] * (_AXES - len(axes)) + axes
        columns = [[size for size, _ in axes], *zip(*(strides for _, strides in axes), strict=True)]
        columns += [[0] * _AXES] * (4 - len(columns))
        return self._struct("axes", _braced(columns))

    def _window(self, window: Window) -> str:
        return self._struct("window", _braced(astuple(window)))

    def _sum(self, total: Sum) -> str:
        def pointer(values: Array | None) -> str:
            return "NULL" if values is None else self.table(np.ascontiguousarray(values.astype(np.int32))).name

        thresholds = total.thresholds
        rows, levels = (0, 0) if thresholds is None else thresholds.shape
        multiplier = None if total.residual is None else total.multiplier
        pointers = [pointer(values) for values in (total.factor, total.bias, multiplier, thresholds)]
        return self._struct("sum", _braced([*pointers, total.residual_zero, levels, levels if rows > 1 else 0]))


def _by_type(view: View | None) -> tuple[str | View, str | View]:
    """Arguments for counts and for sums, of which a tensor is one."""
    if view is None:
        return "NULL", "NULL"
    return (view, "NULL") if view.buffer.ctype == "uint8_t" else ("NULL", view)


def ctype_of(values: Array) -> CType:
    """The type of a table of such values."""
    return _NUMPY.get(f"{values.dtype}", "float")


def _narrow(weights: Array) -> Array:
    """Weights in the smallest type that holds them."""
    for dtype in (np.int8, np.int16):
        if np.iinfo(dtype).min <= weights.min(initial=0) and weights.max(initial=0) <= np.iinfo(dtype).max:
            return np.ascontiguousarray(weights.astype(dtype))
    return np.ascontiguousarray(weights.astype(np.int32))


def _braced(value: Any) -> str:
    return f"{{{', '.join(map(_braced, value))}}}" if isinstance(value, list | tuple) else str(value)
