"""Replaces ReLU, ReLU6 and Hardtanh in a PyTorch model by QCFS."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import fx, nn

from pconv_onnx.basics.choices import MAX_STEPS
from pconv_onnx.basics.errors import warn
from pconv_onnx.torch.qcfs import QCFS

_RELUS = {F.relu, torch.relu, torch.relu_, torch.ops.aten.relu, torch.ops.aten.relu_}
_RELU6S = {F.relu6, torch.ops.aten.relu6, torch.ops.aten.relu6_}
_HARDTANHS = {F.hardtanh, F.hardtanh_, torch.ops.aten.hardtanh, torch.ops.aten.hardtanh_}

# Activations that are no ReLU, in the spelling of modules, functions and methods less capitals and underscores.
_OTHERS = frozenset(
    "celu elu gelu glu hardshrink hardsigmoid hardswish hardtanh leakyrelu logsigmoid mish prelu relu6 rrelu selu "
    "sigmoid silu softplus softshrink softsign tanh tanhshrink threshold".split()
)

# What to do about what stays.
_CALIBRATE = "calibrate the exported ONNX network (pconv_onnx.calibrate gives it levels), or train with a ReLU"
_MODULES = "write its activations as modules (nn.ReLU), which are found without it"


class _Bounds(NamedTuple):
    """Between which values an activation gives its input; None is no end."""

    low: float
    high: float | None

    @property
    def fault(self) -> str:
        """Why no QCFS has these; empty where one has."""
        if self.high is None:
            return "" if self.low == 0 else f"it is bounded by {self.low:g} alone"
        if not self.low <= 0 < self.high:
            return f"zero is not above or at its lower bound {self.low:g} and below its upper one, {self.high:g}"
        return ""

    def below(self, levels: int) -> int:
        """So many levels lie below zero, as high as those above."""
        return 0 if self.high is None else min(round(-self.low / self.high * levels), MAX_STEPS)

    def moved(self, levels: int) -> str:
        """What to mind where no level is the lower bound."""
        if self.high is None or self.below(levels) * self.high == -self.low * levels:
            return ""
        lowest = -self.below(levels) * self.high / levels
        return f"its lowest level is {lowest:.3g}, and its lower bound was {self.low:g}"


_RELU = _Bounds(0.0, None)


@dataclass(frozen=True)
class Finding:
    """An activation that `replace_relu` replaced or left, or a module that it could not see into.

    Attributes:
        name: path of the QCFS, or of the module that is left or could not be seen into.
        kind: what it is or was: `nn.ReLU`, `function relu`, `method relu_`, or the class of a module.
        status: `replaced`; `left`, since it is another activation; `unseen`, where there may be ReLUs that were not
            found.
        reason: why it is left or unseen, or what to note about a replacement; may be empty.
    """

    name: str
    kind: str
    status: Literal["replaced", "left", "unseen"]
    reason: str = ""

    def __str__(self) -> str:
        return f"{self.status}: {self.name or 'the model'} ({self.kind}){': ' if self.reason else ''}{self.reason}"


def replace_relu(model: nn.Module, levels: int) -> tuple[nn.Module, list[Finding]]:
    """Replace every ReLU of a model by a QCFS, each with its own threshold, which is set from data later.

    ReLU6 and Hardtanh keep their bounds: the upper one is the initial threshold, and a lower one below zero gets levels
    below zero, so that spikes have signs. Other activations stay, and the findings say what to do about them. A warning
    says if nothing was replaced.

    nn.ReLU, nn.ReLU6 and nn.Hardtanh modules are exchanged. The forward of every other module is traced by torch.fx, by
    itself, for `F.relu`, `torch.relu`, `Tensor.relu`, `F.relu6`, `F.hardtanh`, their in-place forms, and modules that
    it calls more than once: each call gets a QCFS, as a new child of the module that makes it, and the module (still an
    instance of its class) a forward that calls it. Modules without such calls keep their own forward. A module that is
    itself called several times keeps its QCFS for all its calls, as it keeps its weights.

    Save the state_dict of the result, not the result: a traced forward cannot be pickled.

    Args:
        model: the model, which is not changed; the new one shares its parameters and buffers. The keys of its
            state_dict stay, so `load_state_dict(checkpoint, strict=False)` loads a checkpoint of the ReLU network.
        levels: L of each QCFS, between zero and its threshold.

    Returns:
        The new model, in the same training mode, and the findings: what was replaced, left, or could not be seen.
    """
    shared: dict[int, Any] = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    model = copy.deepcopy(model, shared)
    model, findings = _Replacement(model, levels).run()
    if not any(finding.status == "replaced" for finding in findings):
        told = f"; {findings[0]}" if findings else ": it has no activation that is known"
        warn(f"nothing was replaced in {type(model).__name__}{told}")
    return model, findings


class _Replacement:
    """The new model while it is made, and what was found on the way."""

    def __init__(self, model: nn.Module, levels: int) -> None:
        self.model, self.levels = model, levels
        self.like = next((tensor for tensor in model.parameters() if tensor.is_floating_point()), torch.empty(0))
        # By id, for every QCFS that stands for a module: whether that worked in place, and its bounds.
        self.stands_for: dict[int, tuple[bool, _Bounds]] = {}
        self.findings: list[Finding] = []

    def run(self) -> tuple[nn.Module, list[Finding]]:
        """Exchange modules, then look into forwards."""
        if (bounds := _bounds_of(self.model)) is not None and not bounds.fault:
            return self._in_place_of(self.model, "", bounds), self.findings
        for path, parent in list(self.model.named_modules()):
            self._exchange_children(path, parent)
        # Only now: a ReLU that was registered under two names is two QCFS.
        for path, owner in list(self.model.named_modules()):
            if not isinstance(owner, QCFS):
                self._look_into(path, owner)
        return self.model, self.findings

    def _exchange_children(self, path: str, parent: nn.Module) -> None:
        # named_children would leave out a child that has two names.
        for name, child in list(parent._modules.items()):
            bounds = None if child is None or _is_closed(parent) else _bounds_of(child)
            if child is not None and bounds is not None and not bounds.fault:
                parent.add_module(name, self._in_place_of(child, _join(path, name), bounds))

    def _in_place_of(self, activation: nn.Module, path: str, bounds: _Bounds) -> QCFS:
        qcfs = self._qcfs(activation.training, bounds)
        self.stands_for[id(qcfs)] = bool(getattr(activation, "inplace", False)), bounds
        kind = next(kind.__name__ for kind in (nn.ReLU, nn.ReLU6, nn.Hardtanh) if isinstance(activation, kind))
        self.findings.append(Finding(path, f"nn.{kind}", "replaced", bounds.moved(self.levels)))
        return qcfs

    def _qcfs(self, training: bool, bounds: _Bounds) -> QCFS:
        qcfs = QCFS(self.levels, bounds.high, below=bounds.below(self.levels))
        return qcfs.to(self.like).train(training)

    def _look_into(self, path: str, owner: nn.Module) -> None:
        kind = type(owner).__name__
        bounds = _bounds_of(owner)
        if bounds is not None:
            why = bounds.fault or "the module around it computes it in a way of its own"
            self.findings.append(Finding(path, kind, "left", f"{why}; {_CALIBRATE}"))
        elif _plain(kind) in _OTHERS:
            self.findings.append(Finding(path, kind, "left", f"it is not a ReLU; {_CALIBRATE}"))
        elif _is_closed(owner):
            if getattr(owner, "activation", None) in _RELUS or getattr(owner, "nonlinearity", None) == "relu":
                self.findings.append(
                    Finding(path, kind, "left", f"it computes its ReLU in a way of its own; {_CALIBRATE}")
                )
        elif type(owner).forward is not nn.Module.forward:
            try:
                self._rewire(path, owner)
            except _Unseen as reason:
                self.findings.append(Finding(path, kind, "unseen", f"{reason}; {_MODULES}"))

    def _rewire(self, path: str, owner: nn.Module) -> None:
        """Give each call of a ReLU in a forward its QCFS.

        Raises:
            _Unseen: the forward cannot be traced, or the trace would not do all that the forward does.
        """
        traced = _Traced(owner)
        if not any(self._is_of_interest(owner, graph) for graph in traced.graphs):
            return
        graph = traced.merged()
        order = {node: position for position, node in enumerate(graph.nodes)}
        found: list[Finding] = []
        new: dict[str, QCFS] = {}
        called: set[str] = set()
        rewired = False
        for node in order:
            call = self._relu_call(owner, node)
            if call is None:
                found.extend(_other_call(path, node))
                continue
            kind, in_place, bounds = call
            if bounds.fault:
                found.append(Finding(_join(path, node.name), kind, "left", f"{bounds.fault}; {_CALIBRATE}"))
                continue
            source, value = node.all_input_nodes[0], node
            if node.op != "call_module" or node.target in called:
                name = _free_name(owner, node.name)
                new[name] = self._qcfs(owner.training, bounds)
                # Graphs name modules that are there.
                owner.add_module(name, new[name])
                with graph.inserting_after(node):
                    value = graph.call_module(name, (source,))
                node.replace_all_uses_with(value)
                found.append(Finding(_join(path, name), kind, "replaced", bounds.moved(self.levels)))
            called.add(str(node.target))
            if in_place:
                later = [user for user in source.users if order.get(user, 0) > order[node]]
                for user in later:
                    user.replace_input_with(source, value)
                rewired = rewired or bool(later)
                if source.op == "placeholder":
                    reason = "it changed the input of its module; who reads that afterwards has it unchanged"
                    found.append(Finding(_join(path, str(value.target)), kind, "replaced", reason))
            if value is not node:
                graph.erase_node(node)
        if new or rewired:
            try:
                traced.require_whole()
            except _Unseen:
                for name in new:
                    delattr(owner, name)
                raise
            _set_forward(owner, graph)
        self.findings.extend(found)

    def _is_of_interest(self, owner: nn.Module, graph: fx.Graph) -> bool:
        calls = [(node, call) for node in graph.nodes if (call := self._relu_call(owner, node)) is not None]
        modules = [node.target for node, _ in calls if node.op == "call_module"]
        return (
            len(modules) < len(calls)
            or len(set(modules)) < len(modules)
            or any(in_place for _, (_, in_place, _) in calls)
            or any(True for node in graph.nodes for _ in _other_call("", node))
        )

    def _relu_call(self, owner: nn.Module, node: fx.Node) -> tuple[str, bool, _Bounds] | None:
        """What kind of ReLU a node calls, whether in place, and its bounds; None where it calls none."""
        name = str(getattr(node.target, "__name__", node.target))
        if node.op == "call_module":
            known = self.stands_for.get(id(owner.get_submodule(str(node.target))))
            return None if known is None else (f"further call of {node.target}", *known)
        if node.op == "call_method" and node.target in ("relu", "relu_"):
            return f"method {name}", name.endswith("_"), _RELU
        if node.op != "call_function" or node.target not in _RELUS | _RELU6S | _HARDTANHS:
            return None
        given = dict(zip(("min_val", "max_val", "inplace"), node.args[1:], strict=False))
        if node.target not in _HARDTANHS:
            given = dict(zip(("inplace",), node.args[1:], strict=False))
        given |= node.kwargs
        bounds = _RELU if node.target in _RELUS else _Bounds(0.0, 6.0)
        if node.target in _HARDTANHS:
            low, high = given.get("min_val", -1.0), given.get("max_val", 1.0)
            if not (isinstance(low, int | float) and isinstance(high, int | float)):
                return None
            bounds = _Bounds(float(low), float(high))
        return f"function {name}", bool(given.get("inplace", False)) or name.endswith("_"), bounds


class _Unseen(Exception):
    """Why torch.fx does not see what a forward does."""


class _Tracer(fx.Tracer):
    """Sees the calls that one module makes itself: every other module is a leaf."""

    whole = True

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return True

    def trace(self, root: Any, concrete_args: dict[str, Any] | None = None) -> fx.Graph:
        self.surroundings = _surroundings()
        return super().trace(root, concrete_args)

    def create_node(self, *arguments: Any, **options: Any) -> fx.Node:
        self.whole = self.whole and _surroundings() == self.surroundings
        return super().create_node(*arguments, **options)


def _surroundings() -> tuple[bool, ...]:
    return torch.is_grad_enabled(), torch.is_autocast_enabled("cpu"), torch.is_autocast_enabled("cuda")


class _Traced:
    """A forward as it is in training and in evaluation."""

    def __init__(self, owner: nn.Module) -> None:
        self.owner = owner
        self.tracers = _Tracer(), _Tracer()
        training = owner.training
        try:
            self.graphs = []
            for tracer, owner.training in zip(self.tracers, (True, False), strict=True):
                self.graphs.append(tracer.trace(owner))
        except Exception as error:  # whatever a forward does when its inputs are no tensors
            told = next(iter(str(error).splitlines()), type(error).__name__)
            raise _Unseen(f"torch.fx cannot trace its forward: {told}") from error
        finally:
            owner.training = training

    def merged(self) -> fx.Graph:
        """One graph for both modes, in which flags that follow the mode read it."""
        training, evaluation = self.graphs
        flag: list[fx.Node] = []

        def merge(left: Any, right: Any) -> Any:
            if left is True and right is False:
                if not flag:
                    first = next(node for node in training.nodes if node.op != "placeholder")
                    with training.inserting_before(first):
                        flag.append(training.create_node("get_attr", "training"))
                return flag[0]
            if isinstance(left, tuple | list) and type(left) is type(right) and len(left) == len(right):
                return type(left)(merge(*pair) for pair in zip(left, right, strict=True))
            if isinstance(left, dict) and isinstance(right, dict) and left.keys() == right.keys():
                return {key: merge(left[key], right[key]) for key in left}
            if str(left) != str(right):  # nodes by their names
                raise _Unseen("its forward branches on the training mode")
            return left

        if len(training.nodes) != len(evaluation.nodes):
            raise _Unseen("its forward branches on the training mode")
        for left, right in list(zip(training.nodes, evaluation.nodes, strict=True)):
            if (left.op, left.target, left.name) != (right.op, right.target, right.name):
                raise _Unseen("its forward branches on the training mode")
            left.args, left.kwargs = merge(left.args, right.args), merge(left.kwargs, right.kwargs)
        return training

    def require_whole(self) -> None:
        """Raise where the graph would not do all that the forward does.

        Raises:
            _Unseen: it would not.
        """
        if not all(tracer.whole for tracer in self.tracers):
            raise _Unseen("a part of its forward runs under no_grad or autocast, which torch.fx does not record")
        if "forward" in vars(self.owner):
            raise _Unseen("its forward was set on the instance")
        for node in self.graphs[0].nodes:
            if node.op == "placeholder" and None in node.args:
                raise _Unseen(f"its forward has an optional argument '{node.target}', which torch.fx takes for given")


def _set_forward(owner: nn.Module, graph: fx.Graph) -> None:
    """Let the module run the graph; in all else it stays what it is, an instance of its class."""
    code = graph.python_code("self")
    scope: dict[str, Any] = dict(code.globals)
    exec(code.src, scope)
    kind = type(owner)
    owner.__class__ = type(kind.__name__, (kind,), {"forward": scope["forward"], "__module__": kind.__module__})


def _other_call(path: str, node: fx.Node) -> Iterator[Finding]:
    """The activation that a node calls and that stays, if it calls one."""
    if node.op not in ("call_function", "call_method"):
        return
    name = str(getattr(node.target, "__name__", node.target))
    kind = f"{node.op.removeprefix('call_')} {name}"
    if _plain(name) in _OTHERS:
        yield Finding(_join(path, node.name), kind, "left", f"it is not a ReLU; {_CALIBRATE}")
    elif _plain(name) in ("clamp", "clip", "clampmin"):
        low, high = (*node.args[1:], None, None)[:2]
        if node.kwargs.get("min", low) == 0 and node.kwargs.get("max", high) is None:
            yield Finding(_join(path, node.name), kind, "left", "from 0 it is a ReLU; write relu to have it replaced")


def _bounds_of(module: nn.Module) -> _Bounds | None:
    """Of a module that a QCFS may stand for; None of others."""
    if isinstance(module, nn.ReLU) and type(module).forward is nn.ReLU.forward:
        return _RELU
    if isinstance(module, nn.Hardtanh) and type(module).forward in (nn.Hardtanh.forward, nn.ReLU6.forward):
        return _Bounds(float(module.min_val), float(module.max_val))
    return None


def _is_closed(module: nn.Module) -> bool:
    """A module of torch, which need not call its children: not a container, and not one of the user's."""
    containers = nn.Sequential | nn.ModuleList | nn.ModuleDict
    return type(module).__module__.startswith("torch.") and not isinstance(module, containers)


def _plain(name: str) -> str:
    return name.lower().replace("_", "")


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _free_name(owner: nn.Module, name: str) -> str:
    while hasattr(owner, name):
        name += "_"
    return name
