"""From a network with ReLUs to one with QCFS."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import fx, nn

from pconv_onnx.torch.qcfs import QCFS

_RELUS = {F.relu, torch.relu, torch.relu_, torch.ops.aten.relu, torch.ops.aten.relu_}

# Activations that are no ReLU, in the spelling of modules, functions and methods less capitals and underscores.
_OTHERS = frozenset(
    "celu elu gelu glu hardshrink hardsigmoid hardswish hardtanh leakyrelu logsigmoid mish prelu relu6 rrelu selu "
    "sigmoid silu softplus softshrink softsign tanh tanhshrink threshold".split()
)


@dataclass(frozen=True)
class Finding:
    """One thing that `replace_relu` did, or did not do.

    Attributes:
        name: path of the QCFS, or of the module that is left or could not be seen into.
        kind: what stands or stood there: `nn.ReLU`, `function relu`, `method relu_`, the class of a module.
        status: `replaced`; `left`, since it is another activation; `unseen`, where there may be ReLUs that were not
            found.
        reason: why it is left or unseen, or what to mind of a replacement; may be empty.
    """

    name: str
    kind: str
    status: Literal["replaced", "left", "unseen"]
    reason: str = ""

    def __str__(self) -> str:
        return f"{self.status}: {self.name or 'the model'} ({self.kind}){': ' if self.reason else ''}{self.reason}"


def replace_relu(model: nn.Module, levels: int) -> tuple[nn.Module, list[Finding]]:
    """Give every ReLU of a model a QCFS in its place, each with a threshold of its own, to be set from data.

    nn.ReLU modules are exchanged. The forward of every other module is traced by torch.fx, by itself, for `F.relu`,
    `torch.relu`, `Tensor.relu`, their in-place forms, and modules that it calls more than once: each call gets a QCFS,
    as a new child of the module that makes it, and the module (still an instance of its class) a forward that calls it.
    Modules without such calls keep their own forward. A module that is itself called several times keeps its QCFS for
    all its calls, as it keeps its weights.

    Save the state_dict of the result, not the result: a traced forward cannot be pickled.

    Args:
        model: stays as it is; the new model shares its parameters and buffers. The keys of its state_dict stay, so that
            `load_state_dict(checkpoint, strict=False)` loads a checkpoint of the ReLU network.
        levels: L of each QCFS.

    Returns:
        The new model, in the same training mode, and what was done, what was left and what could not be seen.
    """
    shared: dict[int, Any] = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    model = copy.deepcopy(model, shared)
    return _Replacement(model, levels).run()


class _Replacement:
    """The new model while it is made, and what was found on the way."""

    def __init__(self, model: nn.Module, levels: int) -> None:
        self.model, self.levels = model, levels
        self.like = next((tensor for tensor in model.parameters() if tensor.is_floating_point()), torch.empty(0))
        self.in_place: dict[int, bool] = {}  # by id, for every QCFS that stands for a ReLU module
        self.findings: list[Finding] = []

    def run(self) -> tuple[nn.Module, list[Finding]]:
        """Exchange modules, then look into forwards."""
        if _is_relu(self.model):
            return self._in_place_of(self.model, ""), self.findings
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
            if child is not None and _is_relu(child) and not _is_closed(parent):
                parent.add_module(name, self._in_place_of(child, _join(path, name)))

    def _in_place_of(self, relu: nn.Module, path: str) -> QCFS:
        qcfs = self._qcfs(relu.training)
        self.in_place[id(qcfs)] = bool(getattr(relu, "inplace", False))
        self.findings.append(Finding(path, "nn.ReLU", "replaced"))
        return qcfs

    def _qcfs(self, training: bool) -> QCFS:
        return QCFS(self.levels).to(self.like).train(training)

    def _look_into(self, path: str, owner: nn.Module) -> None:
        kind = type(owner).__name__
        if _plain(kind) in _OTHERS:
            self.findings.append(Finding(path, kind, "left", "it is not a ReLU"))
        elif _is_relu(owner):
            self.findings.append(Finding(path, kind, "left", "the module around it computes it in a way of its own"))
        elif _is_closed(owner):
            if getattr(owner, "activation", None) in _RELUS or getattr(owner, "nonlinearity", None) == "relu":
                self.findings.append(Finding(path, kind, "left", "it computes its ReLU in a way of its own"))
        elif type(owner).forward is not nn.Module.forward:
            try:
                self._rewire(path, owner)
            except _Unseen as reason:
                self.findings.append(Finding(path, kind, "unseen", str(reason)))

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
            kind, in_place = call
            source, value = node.all_input_nodes[0], node
            if node.op != "call_module" or node.target in called:
                name = _free_name(owner, node.name)
                new[name] = self._qcfs(owner.training)
                # Graphs name modules that are there.
                owner.add_module(name, new[name])
                with graph.inserting_after(node):
                    value = graph.call_module(name, (source,))
                node.replace_all_uses_with(value)
                found.append(Finding(_join(path, name), kind, "replaced"))
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
            or any(in_place for _, (_, in_place) in calls)
            or any(True for node in graph.nodes for _ in _other_call("", node))
        )

    def _relu_call(self, owner: nn.Module, node: fx.Node) -> tuple[str, bool] | None:
        """What kind of ReLU a node calls, and whether in place; None where it calls none."""
        name = getattr(node.target, "__name__", node.target)
        if node.op == "call_module":
            in_place = self.in_place.get(id(owner.get_submodule(str(node.target))))
            return None if in_place is None else (f"further call of {node.target}", in_place)
        if node.op == "call_function" and node.target in _RELUS:
            flag = node.args[1] if len(node.args) > 1 else node.kwargs.get("inplace", False)
            return f"function {name}", bool(flag) or str(name).endswith("_")
        if node.op == "call_method" and node.target in ("relu", "relu_"):
            return f"method {name}", node.target == "relu_"
        return None


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
        yield Finding(_join(path, node.name), kind, "left", "it is not a ReLU")
    elif _plain(name) in ("clamp", "clip", "clampmin"):
        low, high = (*node.args[1:], None, None)[:2]
        if node.kwargs.get("min", low) == 0 and node.kwargs.get("max", high) is None:
            yield Finding(_join(path, node.name), kind, "left", "from 0 it is a ReLU; write relu to have it replaced")


def _is_relu(module: nn.Module) -> bool:
    return isinstance(module, nn.ReLU) and type(module).forward is nn.ReLU.forward


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
