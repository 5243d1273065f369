"""Model repositories for Triton, read by protobuf as Triton reads them."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path
from typing import Any

import onnx
import onnxruntime
import pytest
from google.protobuf import text_format
from networks import network, qcfs, weight
from onnx import TensorProto, helper
from refusals import refusal_of

from pconv_onnx import deploy, rewrite

pytestmark = pytest.mark.usefixtures("library")


@pytest.fixture(scope="session")
def config_of():
    """Reads the configuration of a repository's model as Triton's ModelConfig; unknown names are errors."""
    # The file of the schema alone: the package around it needs gRPC.
    (package,) = importlib.util.find_spec("tritonclient").submodule_search_locations
    spec = importlib.util.spec_from_file_location("model_config_pb2", Path(package, "grpc", "model_config_pb2.py"))
    schema = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(schema)
    return lambda folder, name="snn": text_format.Parse(
        (folder / name / "config.pbtxt").read_text(), schema.ModelConfig()
    )


def name_of(message: Any, field: str) -> str:
    """The name of an enumeration's value."""
    return message.DESCRIPTOR.fields_by_name[field].enum_type.values_by_number[getattr(message, field)].name


def test_a_batch_is_open_and_the_library_is_named(snn, tmp_path, config_of):
    deploy(snn, tmp_path / "out", target="triton")
    config = config_of(tmp_path / "out")
    assert (config.name, config.backend) == ("snn", "onnxruntime")
    assert config.max_batch_size > 0
    assert config.HasField("dynamic_batching")
    (given,), (result,) = config.input, config.output
    assert (given.name, name_of(given, "data_type"), list(given.dims)) == ("x", "TYPE_FP32", [3, 8, 8])
    assert (result.name, list(result.dims)) == ("y", [5])
    assert [name_of(group, "kind") for group in config.instance_group] == ["KIND_CPU"]
    (library,) = config.model_operations.op_library_filename
    assert (tmp_path / "out" / Path(library).relative_to("/models")).is_file()
    assert '"$PWD":/models:ro' in (tmp_path / "out" / "README.md").read_text()


def test_what_lies_there_runs_without_the_library(snn, tmp_path):
    deploy(snn, tmp_path / "out", target="triton")
    runner = onnxruntime.InferenceSession(tmp_path / "out" / "snn" / "1" / "model.onnx")
    assert [info.name for info in runner.get_inputs()] == ["x"]


def test_a_gpu_gets_its_kind_and_no_tf32(snn, tmp_path, config_of, monkeypatch):
    monkeypatch.setattr("pconv_onnx.deployment.package.has_cuda_kernels", lambda: True)
    deploy(snn, tmp_path / "out", target="triton", gpu=True)
    config = config_of(tmp_path / "out")
    assert [name_of(group, "kind") for group in config.instance_group] == ["KIND_GPU"]
    (accelerator,) = config.optimization.execution_accelerators.gpu_execution_accelerator
    assert accelerator.name == "cuda"
    assert "--gpus all" in (tmp_path / "out" / "README.md").read_text()


def test_outputs_of_each_step_are_not_batched(ann, tmp_path, config_of):
    rewrite(ann, tmp_path / "snn.onnx", per_step_outputs=True)
    told = deploy(tmp_path / "snn.onnx", tmp_path / "out", target="triton").notes
    config = config_of(tmp_path / "out")
    assert config.max_batch_size == 0
    assert not config.HasField("dynamic_batching")
    assert [list(tensor.dims) for tensor in config.input] == [[-1, 3, 8, 8]]
    assert [list(tensor.dims) for tensor in config.output] == [[-1, 5], [4, -1, 5]]
    assert told == ["not every input and output begins with the same open batch, so Triton does not batch requests"]
    assert "`max_batch_size` is 0" in (tmp_path / "out" / "README.md").read_text()


def test_a_fixed_batch_and_a_scalar_have_all_their_dimensions(tmp_path, config_of):
    nodes = f"{qcfs('x', 'a')} y = ReduceSum <keepdims = 0> (a)"
    save(network(nodes, inputs="float[2, 3] x", outputs="float y"), tmp_path)
    deploy(tmp_path / "snn.onnx", tmp_path / "out", target="triton")
    config = config_of(tmp_path / "out")
    assert config.max_batch_size == 0
    assert list(config.input[0].dims) == [2, 3]
    assert list(config.output[0].dims) == [1]
    assert config.output[0].HasField("reshape")
    assert list(config.output[0].reshape.shape) == []


def test_one_value_a_sample_has_no_dimension_but_the_batch(tmp_path, config_of):
    nodes = f"{qcfs('x', 'a')} axis = Constant <value_ints = [1]> () y = ReduceSum <keepdims = 0> (a, axis)"
    save(network(nodes, inputs="float[N, 3] x", outputs="float[N] y"), tmp_path)
    deploy(tmp_path / "snn.onnx", tmp_path / "out", target="triton")
    config = config_of(tmp_path / "out")
    assert config.max_batch_size > 0
    assert list(config.output[0].dims) == [1]
    assert config.output[0].HasField("reshape")


def test_the_potentials_of_a_serial_network_travel_with_the_requests(tmp_path, config_of):
    nodes = f"c = Conv (x, w) {qcfs('c', 'a')} y = Conv (a, v)"
    weights = {"w": weight(4, 3, 3, 3), "v": weight(2, 4, 2, 2, seed=1)}
    save(network(nodes, outputs="float[N, 2, 5, 5] y", weights=weights), tmp_path, mode="serial")
    deployed = deploy(tmp_path / "snn.onnx", tmp_path / "out", target="triton")
    config = config_of(tmp_path / "out")
    assert config.max_batch_size > 0
    assert len(config.input) == len(config.output) == 2
    assert (
        f"`{config.output[1].name}` is the next step's `{config.input[1].name}`"
        in (tmp_path / "out" / "README.md").read_text()
    )
    assert deployed.notes[0].startswith("serial: ")


@pytest.mark.parametrize("odd", ['say "x"', "back\\slash", "größe", "new\nline"])
def test_names_of_tensors_survive(odd, small_network, tmp_path, config_of):
    model = rewrite(small_network).model
    for node in model.graph.node:
        for names in (node.input, node.output):
            names[:] = [odd if name == "x" else name for name in names]
    model.graph.input[0].name = odd
    deploy(model, tmp_path / "out", target="triton")
    assert config_of(tmp_path / "out", "model").input[0].name == odd


@pytest.mark.parametrize("name", [".hidden", "a b", "größe", "a%2Fb", "-rf"])
def test_names_that_triton_cannot_have_are_refused(name, snn, tmp_path):
    shutil.copy(snn, tmp_path / f"{name}.onnx")
    told = refusal_of(deploy, tmp_path / f"{name}.onnx", tmp_path / "out", target="triton")
    assert told.startswith(f"'{name}' cannot be the name of a model in Triton; rename the file")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("element", "shape", "what"), [(TensorProto.COMPLEX64, ["N"], "type"), (TensorProto.FLOAT, ["N", 0], "shape")]
)
def test_tensors_that_triton_cannot_have_are_refused(element, shape, what, small_network, tmp_path):
    model = rewrite(small_network).model
    model.graph.input.append(helper.make_tensor_value_info("odd", element, shape))
    told = refusal_of(deploy, model, tmp_path / "out", target="triton")
    assert told.startswith(f"the input 'odd' has a {what} that Triton cannot have")


def save(model: onnx.ModelProto, folder: Path, **options) -> None:
    """The spiking form of a model, as snn.onnx."""
    rewrite(model, folder / "snn.onnx", **options)
