"""Exports PyTorch models to ONNX that `rewrite` understands, and checks the result."""

from __future__ import annotations

import contextlib
import inspect as signatures
import io
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import onnx
import torch
from torch import nn

from pconv_onnx.basics.errors import PconvError, warn
from pconv_onnx.graph.files import save
from pconv_onnx.rewriting import inspect
from pconv_onnx.torch.qcfs import QCFS

# Operator sets that an exporter of torch writes, and this project reads. dynamo writes 18 and converts upwards; asked
# for less it gives 18. torchscript lets through 21 and more, for which it has no operators.
_OPSETS = {"dynamo": (18, 25), "torchscript": (11, 20)}


def export(
    model: nn.Module,
    example: torch.Tensor | Sequence[torch.Tensor],
    path: str | os.PathLike[str],
    *,
    exporter: Literal["dynamo", "torchscript"] = "dynamo",
    opset: int = 20,
    input_names: Sequence[str] | None = None,
    output_names: Sequence[str] | None = None,
) -> dict[str, Any]:
    """Export a model in evaluation mode to one ONNX file with an open batch, and check that its QCFS are recognised.

    Training modes are restored afterwards. The file appears whole or not at all. A warning names any QCFS that
    `rewrite` would not convert.

    Args:
        model: any module; its QCFS all need a threshold.
        example: one input tensor `[B, …]`, or several with the same B ≥ 1; the file takes any B.
        path: where to write.
        exporter: the exporter of torch, `dynamo` or `torchscript`.
        opset: version of the ONNX operators; 18 to 25 by dynamo, 11 to 20 by torchscript.
        input_names: names of the inputs; by default those of the parameters of `forward`.
        output_names: names of the outputs; by default `output`, or `output_0`, `output_1`, ….

    Returns:
        The result of `pconv_onnx.inspect` on the file; each QCFS is named by its path, such as `layer1.0.act1`.

    Raises:
        PconvError: a QCFS has no positive threshold, an argument does not fit, torch cannot export the model, or the
            file cannot be written.
    """
    lowest, highest = _OPSETS.get(exporter, (0, -1))
    if exporter not in _OPSETS:
        raise PconvError(f"'{exporter}' is not an exporter of torch", f"choose one of: {', '.join(_OPSETS)}")
    if not lowest <= opset <= highest:
        raise PconvError(f"torch's {exporter} exporter does not write opset {opset}", f"choose {lowest} to {highest}")
    inputs = _batch_of_two(example)
    modules = {name: module for name, module in model.named_modules() if isinstance(module, QCFS)}
    # Exporters print, and so may models; stdout belongs to the program that calls.
    with _evaluating(model), contextlib.redirect_stdout(sys.stderr):
        called, outputs = _run(model, inputs, modules)
        inputs_called = list(input_names or _parameters(model, len(inputs)))
        outputs_called = list(output_names or (["output"] if outputs == 1 else [f"output_{i}" for i in range(outputs)]))
        if len(inputs_called) != len(inputs) or len(outputs_called) != outputs:
            raise PconvError(
                f"{len(inputs_called)} input and {len(outputs_called)} output names are given for a model with "
                f"{len(inputs)} and {outputs}",
                "give one name for each",
            )
        write = _dynamo if exporter == "dynamo" else _torchscript
        try:
            with warnings.catch_warnings():
                for category in (DeprecationWarning, FutureWarning):
                    warnings.simplefilter("ignore", category)
                proto = write(model, inputs, opset, inputs_called, outputs_called)
        except Exception as error:  # of many types, without a common base
            other = next(name for name in _OPSETS if name != exporter)
            raise PconvError(
                f"torch's {exporter} exporter cannot export the model: {_first_cause(error)}", f"try exporter='{other}'"
            ) from error
    _require_open_batch(proto, len(inputs[0]))
    summary = inspect(proto)
    save(proto, path)
    _warn_of_missing(summary, called, path)
    return summary


def _batch_of_two(example: torch.Tensor | Sequence[torch.Tensor]) -> tuple[torch.Tensor, ...]:
    """The inputs, with a batch that exporters do not take for a constant: of 1 they would."""
    inputs = (example,) if isinstance(example, torch.Tensor) else tuple(example)
    sizes = {tuple(tensor.shape[:1]) if isinstance(tensor, torch.Tensor) else () for tensor in inputs}
    if len(sizes) != 1 or sizes & {(), (0,)}:
        raise PconvError(
            "the example inputs are not tensors whose first axis is one and the same batch", "pass [B, …] for each"
        )
    return tuple(torch.cat([tensor, tensor]) if len(tensor) == 1 else tensor for tensor in inputs)


@contextlib.contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


def _run(model: nn.Module, inputs: tuple[torch.Tensor, ...], modules: dict[str, QCFS]) -> tuple[list[str], int]:
    """Names of the QCFS that a forward calls, and the number of tensors that it returns.

    Raises:
        PconvError: one of them has no positive threshold.
    """
    called: dict[str, None] = {}

    def note(name: str, module: QCFS) -> None:
        if not bool((module.threshold > 0).all()):
            raise PconvError(
                f"QCFS '{name}' has no positive threshold", "run the model on data in training mode once, before export"
            )
        called[name] = None

    hooks = [
        module.register_forward_pre_hook(lambda module, _, name=name: note(name, module))
        for name, module in modules.items()
    ]
    try:
        # Eager, so that hooks are not compiled with the branches of torch.cond.
        with torch.no_grad(), torch.compiler.set_stance("force_eager"):
            outputs = model(*inputs)
        # Those in branches that are not taken have to know it before they are traced.
        _ = [module.initialised for module in modules.values()]
    finally:
        for hook in hooks:
            hook.remove()
    return list(called), len(torch.utils._pytree.tree_leaves(outputs))


def _parameters(model: nn.Module, count: int) -> list[str]:
    names = list(signatures.signature(model.forward).parameters)
    return names[:count] if len(names) >= count else [f"input_{index}" for index in range(count)]


def _dynamo(
    model: nn.Module, inputs: tuple[torch.Tensor, ...], opset: int, input_names: list[str], output_names: list[str]
) -> onnx.ModelProto:
    batch = torch.export.Dim("batch")
    program = torch.onnx.export(
        model,
        inputs,
        dynamo=True,
        verbose=False,
        opset_version=opset,
        input_names=input_names,
        output_names=output_names,
        dynamic_shapes=tuple({0: batch} for _ in inputs),
    )
    assert program is not None  # since no file was given
    return program.model_proto


def _torchscript(
    model: nn.Module, inputs: tuple[torch.Tensor, ...], opset: int, input_names: list[str], output_names: list[str]
) -> onnx.ModelProto:
    file = io.BytesIO()
    torch.onnx.export(
        model,
        inputs,
        file,  # type: ignore[arg-type]  # this exporter takes files as well
        dynamo=False,
        opset_version=opset,
        input_names=input_names,
        output_names=output_names,
        dynamic_axes={name: {0: "batch"} for name in (*input_names, *output_names)},
    )
    return onnx.load_model_from_string(file.getvalue())


def _first_cause(error: BaseException) -> str:
    while error.__cause__ is not None:
        error = error.__cause__
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def _require_open_batch(proto: onnx.ModelProto, batch: int) -> None:
    """Raise where a size of the example went into the graph: exporters call such an output open all the same."""
    undeclared = onnx.ModelProto()
    undeclared.CopyFrom(proto)
    for output in undeclared.graph.output:
        output.type.tensor_type.ClearField("shape")
    for output in onnx.shape_inference.infer_shapes(undeclared, data_prop=True).graph.output:
        if [axis.dim_value for axis in output.type.tensor_type.shape.dim][:1] == [batch]:
            raise PconvError(
                f"the model fixes the batch of '{output.name}' at the example's {batch}",
                "take sizes from the input where they are needed: x.flatten(1), x.reshape(len(x), …)",
            )


def _warn_of_missing(summary: dict[str, Any], called: list[str], path: str | os.PathLike[str]) -> None:
    found = {row["name"].partition(":")[0]: row for row in summary["activations"]}
    for name in called:
        row = found.get(name, {"status": "missing", "reason": "it is not in the graph as one"})
        if row["status"] != "converted":
            warn(f"rewrite would not convert QCFS '{name}' of '{path}': {row['reason']}")
