"""onnx's checker for the models that onnxruntime accepts, with its findings as plain sentences."""

from __future__ import annotations

import onnx
from onnx.checker import ValidationError

from pconv_onnx.basics.domain import DOMAIN, VERSION
from pconv_onnx.graph.faults import fault_of, faults_of_functions, is_of_onnxruntime
from pconv_onnx.graph.nesting import nodes_within
from pconv_onnx.graph.tensors import INITIALIZERS_IR_VERSION, without_references

# A domain that the checker does not know, and so does not check.
_UNCHECKED = "unchecked"


class InvalidModel(Exception):
    """A model that does not follow ONNX's definition.

    Attributes:
        hint: what to do about it; may be empty.
    """

    def __init__(self, reason: str, hint: str = "") -> None:
        """Keep the message, which says what is wrong, and the hint."""
        super().__init__(reason)
        self.hint = hint


def check(model: onnx.ModelProto) -> None:
    """Raise if a model does not follow ONNX's definition.

    What onnxruntime does not need is not required: types and shapes of outputs, shapes of inputs, initializers among
    the inputs. Its own operators in the standard domain are accepted.

    Raises:
        InvalidModel: what is wrong, and where.
    """
    # onnx before 1.20 does not look for circles of functions, and goes round them until the process dies.
    for fault in faults_of_functions(model.functions):
        raise InvalidModel(*fault)
    try:
        onnx.checker.check_model(_as_onnx_wants_it(model))
    except (ValidationError, ValueError) as error:
        raise InvalidModel(*fault_of(model)) from error


def too_new(model: onnx.ModelProto) -> str:
    """The version of a model, for a message, if it is too new for the installed onnx; else empty."""
    newest = onnx.defs.onnx_opset_version()
    versions: list[tuple[str, int, int]] = [("IR version", model.ir_version, int(onnx.IR_VERSION))]
    versions += [("opset", entry.version, newest) for entry in model.opset_import if entry.domain in ("", "ai.onnx")]
    for what, version, known in versions:
        if version > known:
            return f"{what} {version}; onnx {onnx.__version__} reads those up to {known}"
    return ""


# The version of domains of custom operators in models that onnxruntime saves.
_DECLARED_BY_ONNXRUNTIME = 1000


def newer_operators(model: onnx.ModelProto) -> tuple[str, str] | None:
    """Message and hint if a model needs a later version of pconv-onnx's operators; else None."""
    found = max((entry.version for entry in model.opset_import if entry.domain == DOMAIN), default=0)
    if found <= VERSION or found == _DECLARED_BY_ONNXRUNTIME:
        return None
    return f"declares version {found} of the operators of pconv-onnx; this pconv-onnx has those up to {VERSION}", (
        "update pconv-onnx"
    )


def _as_onnx_wants_it(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model, or a copy with everything that the checker requires and onnxruntime does not."""
    given = without_references(model)
    copy = onnx.ModelProto()
    copy.CopyFrom(given)
    changed = [_without_own_operators(copy), _with_placeholders(copy), _with_free_initializers(copy)]
    return copy if any(changed) else given


def _without_own_operators(model: onnx.ModelProto) -> bool:
    """Move onnxruntime's own operators from the standard domain to an unknown one; whether there were any."""
    changed = False
    for holder, nodes in ((model, model.graph.node), *((entry, entry.node) for entry in model.functions)):
        opset = next((entry.version for entry in holder.opset_import if not entry.domain), 1)
        foreign = [node for node in nodes_within(nodes) if is_of_onnxruntime(node, opset)]
        for node in foreign:
            node.domain = _UNCHECKED
        if foreign:
            holder.opset_import.add(domain=_UNCHECKED, version=1)
        changed |= bool(foreign)
    return changed


def _with_placeholders(model: onnx.ModelProto) -> bool:
    """Give inputs and outputs a shape, and outputs a type, where they lack it; whether any did."""
    for output in model.graph.output:
        if not output.type.WhichOneof("value"):
            output.type.tensor_type.elem_type = onnx.TensorProto.FLOAT
    tensors = [info.type for info in (*model.graph.input, *model.graph.output) if info.type.HasField("tensor_type")]
    shapeless = [entry.tensor_type for entry in tensors if not entry.tensor_type.HasField("shape")]
    for entry in shapeless:
        entry.shape.SetInParent()
    return bool(shapeless)


def _with_free_initializers(model: onnx.ModelProto) -> bool:
    """Raise an IR version in which initializers must be inputs as well; whether it was one."""
    changed = 0 < model.ir_version < INITIALIZERS_IR_VERSION
    if changed:
        model.ir_version = INITIALIZERS_IR_VERSION
    return changed
