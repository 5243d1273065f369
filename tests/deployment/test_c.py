"""Networks of integers as C: the bits of onnxruntime, no warning, nothing undefined, and memory as it was planned."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import onnx
import pytest
from fuzzing.in_c import SANITIZED, WARNINGS, faults
from hypothesis import given
from hypothesis import strategies as st
from networks import network, qcfs, weight
from numpy.lib.stride_tricks import as_strided
from refusals import refusal_of

from pconv_onnx import deploy, rewrite, session
from pconv_onnx.deployment.c.arena import ALIGNMENT, offsets
from pconv_onnx.deployment.c.program import Call
from pconv_onnx.deployment.c.views import Buffer, View
from pconv_onnx.deployment.c.writing import _comment

CORTEX_M = Path(__file__).parents[2] / "benchmarks" / "cortex_m"
ARM = ("-mcpu=cortex-m4", "-mthumb", "-mfpu=fpv4-sp-d16", "-mfloat-abi=hard", "-O2")
QEMU = ("qemu-system-arm", "-M", "mps2-an386", "-nographic", "-monitor", "none", "-serial", "none",
        "-semihosting-config", "enable=on,target=native")  # fmt: skip
REFUSALS = """#include "network.h"

static float in[PCONV_INPUTS], out[PCONV_OUTPUTS], arena[PCONV_ARENA_BYTES / sizeof(float) + 2];

int main(void)
{
    int refused = pconv_run(NULL, out, arena) && pconv_run(in, NULL, arena) && pconv_run(in, out, NULL)
                  && pconv_run(in, out, (char *)arena + 1);
    return !(pconv_arena_bytes == PCONV_ARENA_BYTES && refused && !pconv_run(in, out, arena));
}
"""
INTEGERS = {"mode": "integer", "input_bits": 8}


@pytest.fixture(scope="module", params=["gcc", pytest.param("clang", marks=pytest.mark.slow)])
def compiler(request, tmp_path_factory):
    """A compiler whose programs can be run under sanitizers."""
    if shutil.which(request.param) is None:
        pytest.skip(f"no {request.param}")
    empty = tmp_path_factory.mktemp(request.param) / "empty.c"
    empty.write_text("int main(void) { return 0; }\n")
    if subprocess.run([request.param, *SANITIZED, empty, "-o", empty.with_suffix("")], capture_output=True).returncode:
        pytest.skip(f"{request.param} has no AddressSanitizer here")
    return request.param


@pytest.fixture(scope="module")
def resnet(qcfs_resnet, tmp_path_factory):
    """The example network of integers, and the folder of its C."""
    folder = tmp_path_factory.mktemp("resnet")
    model = rewrite(qcfs_resnet, folder / "snn.onnx", **INTEGERS, input_range=(-2.2, 2.8)).model
    deploy(folder / "snn.onnx", folder / "c", target="c")
    return model, folder / "c"


def ran(folder: Path, command: list[str], images: np.ndarray) -> np.ndarray:
    """What a program makes of images, as bits."""
    images.tofile(folder / "inputs.raw")
    subprocess.run([*command], cwd=folder, check=True, capture_output=True)
    return np.fromfile(folder / "outputs.raw", np.uint32)


def test_the_example_network_has_the_bits_of_onnxruntime(resnet, resnet_samples, compiler):
    model, folder = resnet
    images = resnet_samples["image"][:20]
    expected = session(model).run(None, {"image": images})[0].view(np.uint32).reshape(-1)
    # Fused operations on floats must change nothing.
    options = [*WARNINGS, "-O2", "-ffp-contract=fast", "-march=native"]
    subprocess.run([compiler, *options, "network.c", "main.c", "-o", "run"], cwd=folder, check=True)
    assert (ran(folder, ["./run", "inputs.raw", "outputs.raw"], images) == expected).all()


@pytest.mark.parametrize("first", [0, *(pytest.param(first, marks=pytest.mark.slow) for first in range(2, 40, 2))])
def test_random_networks_have_the_bits_of_onnxruntime(first, compiler):
    assert {seed: found for seed in range(first, first + 2) if (found := faults(seed, compiler))} == {}


@pytest.mark.parametrize("mode", ["SAME_UPPER", "SAME_LOWER"])
def test_pools_that_pad_themselves_have_the_bits_of_onnxruntime(mode, compiler, tmp_path):
    """Of odd sizes, so that both sides get different pads."""
    nodes = f"""
        c = Conv <pads = [1, 1, 1, 1]> (x, w) {qcfs("c", "a")}
        p = MaxPool <auto_pad = "{mode}", kernel_shape = [2, 3], strides = [1, 2]> (a)
        d = Conv (p, v) {qcfs("d", "b")}
        y = Flatten (b)
    """
    weights = {"w": weight(4, 3, 3, 3), "v": weight(2, 4, 3, 2, seed=1)}
    source = network(nodes, inputs="float[N, 3, 7, 8] x", outputs="float[N, 30] y", weights=weights)
    model = rewrite(source, **INTEGERS, input_range=(-2, 2)).model
    deploy(model, tmp_path / "c", target="c")
    images = np.random.default_rng(0).normal(size=(8, 3, 7, 8)).astype(np.float32)
    expected = session(model).run(None, {"x": images})[0].view(np.uint32).reshape(-1)
    folder = tmp_path / "c"
    subprocess.run([compiler, *WARNINGS, *SANITIZED, "network.c", "main.c", "-o", "run"], cwd=folder, check=True)
    assert (ran(folder, ["./run", "inputs.raw", "outputs.raw"], images) == expected).all()


@pytest.mark.slow
def test_it_runs_on_a_cortex_m4(resnet, resnet_samples):
    for tool in ("arm-none-eabi-gcc", QEMU[0]):
        if shutil.which(tool) is None:
            pytest.skip(f"no {tool}; on Debian: apt install gcc-arm-none-eabi libnewlib-arm-none-eabi qemu-system-arm")
    model, folder = resnet
    images = resnet_samples["image"][:3]
    program = [
        *ARM,
        "network.c",
        "main.c",
        CORTEX_M / "start.c",
        "-nostartfiles",
        "--specs=rdimon.specs",
        "-Wl,--gc-sections",
    ]
    linked = [*program, "-T", CORTEX_M / "mps2-an386.ld", "-o", "run.elf"]
    subprocess.run(["arm-none-eabi-gcc", "-c", *WARNINGS, *ARM, "network.c", "-o", "alone.o"], cwd=folder, check=True)
    subprocess.run(["arm-none-eabi-gcc", *linked], cwd=folder, check=True)
    expected = session(model).run(None, {"image": images})[0].view(np.uint32).reshape(-1)
    assert (ran(folder, [*QEMU, "-kernel", "run.elf"], images) == expected).all()


@pytest.mark.slow
def test_cmake_builds_the_example_and_it_prints_the_top_1(resnet, resnet_samples):
    model, folder = resnet
    images = resnet_samples["image"][:5]
    images.tofile(folder / "five.raw")
    for command in (["cmake", "-S", ".", "-B", "build"], ["cmake", "--build", "build"]):
        subprocess.run(command, cwd=folder, check=True, capture_output=True)
    printed = subprocess.run(["build/run_network", "five.raw"], cwd=folder, check=True, capture_output=True, text=True)
    top = session(model).run(None, {"image": images})[0].argmax(axis=1)
    assert [int(line.split()[0]) for line in printed.stdout.splitlines()] == list(top)


def test_the_example_says_what_is_wrong_with_its_files(resnet, compiler, tmp_path):
    _, folder = resnet
    subprocess.run([compiler, *WARNINGS, "-O1", "network.c", "main.c", "-o", "run"], cwd=folder, check=True)
    (tmp_path / "short.raw").write_bytes(b"\0" * 400)

    def answer(*arguments: str) -> tuple[int, str]:
        result = subprocess.run([folder / "run", *arguments], capture_output=True, text=True)
        return result.returncode, result.stderr

    assert answer()[0] == 2
    assert answer(str(tmp_path / "none.raw"))[0] == 1
    code, told = answer(str(tmp_path / "short.raw"))
    assert (code, "the file ends within an input of 3072 floats" in told) == (1, True)


def test_pointers_that_are_missing_or_not_aligned_are_refused(resnet, compiler, tmp_path):
    _, folder = resnet
    (tmp_path / "main.c").write_text(REFUSALS)
    command = [compiler, *WARNINGS, *SANITIZED, f"-I{folder}", folder / "network.c", "main.c", "-o", "run"]
    subprocess.run(command, cwd=tmp_path, check=True)
    subprocess.run([tmp_path / "run"], check=True)


def test_other_modes_are_refused_with_what_to_pass(snn, tmp_path):
    told = refusal_of(deploy, snn, tmp_path / "out", target="c")
    assert told.startswith("the network is parallel, and C has layers of integers; rewrite it with `mode='integer', ")


def test_floats_are_refused_by_the_name_of_what_computes_them(ann, tmp_path):
    rewriting = rewrite(ann, mode="integer")
    told = refusal_of(deploy, rewriting.model, tmp_path / "out", target="c")
    assert told.startswith("'c' computes on floats: it reads 'x', which are floats; docs/integers.md has what stays")


def test_an_operator_without_a_layer_is_refused_by_name(ann, tmp_path):
    model = rewrite(ann, **INTEGERS, input_range=(-1, 1)).model
    model.graph.node.append(onnx.helper.make_node("HardSigmoid", ["y"], ["z"], "last"))
    model.graph.output[0].name = "z"
    told = refusal_of(deploy, model, tmp_path / "out", target="c")
    assert told.startswith("HardSigmoid 'last' has no layer of integers in C; ")


def test_open_sizes_are_refused(tmp_path):
    nodes = f"c = Conv (x, w) {qcfs('c', 'a')} y = GlobalMaxPool (a)"
    open_network = network(
        nodes, inputs="float[N, 3, H, 8] x", outputs="float[N, 4, 1, 1] y", weights={"w": weight(4, 3, 3, 3)}
    )
    model = rewrite(open_network, **INTEGERS, input_range=(-1, 1)).model
    assert "is open beyond the batch; C wants sizes" in refusal_of(deploy, model, tmp_path / "out", target="c")


def test_names_cannot_end_a_comment():
    assert _comment("*/ system(1); /*\n\\??/") == "_/ system(1)_ /_____/"


buffers = st.builds(Buffer, st.sampled_from(["uint8_t", "float"]), st.integers(1, 50))


@given(st.data(), st.lists(buffers, min_size=1, max_size=8))
def test_buffers_that_live_together_lie_apart(data, pool):
    pick = st.sampled_from(pool)
    calls = [Call("f", [], data.draw(st.lists(pick, max_size=3)), data.draw(pick), "") for _ in range(10)]
    places, size = offsets(calls)
    lives = {}
    for index, call in enumerate(calls):
        for buffer in (*call.reads, call.writes):
            lives.setdefault(buffer, set()).add(index)
    spans = {buffer: (min(found), max(found)) for buffer, found in lives.items()}
    for one, place in places.items():
        assert place % ALIGNMENT == 0
        assert place + one.bytes <= size
        for other in places:
            together = spans[one][0] <= spans[other][1] and spans[other][0] <= spans[one][1]
            apart = place + one.bytes <= places[other] or places[other] + other.bytes <= place
            assert one is other or apart or not together


def test_views_are_those_of_numpy():
    values = np.arange(120).reshape(2, 3, 4, 5)
    view = View.of(Buffer("int32_t", 120), values.shape)
    chosen = view.transposed((0, 2, 3, 1)).sliced(1, 3, 2, -2).unsqueezed([0]).expanded((2, 2, 2, 5, 3))
    expected = np.broadcast_to(values.transpose(0, 2, 3, 1)[:, 3::-2][np.newaxis], (2, 2, 2, 5, 3))
    held = as_strided(
        values.reshape(-1)[chosen.offset :], chosen.shape, [stride * values.itemsize for stride in chosen.strides]
    )
    assert (held == expected).all()
    assert not chosen.dense
    assert view.reshaped((6, 20)).dense
    assert view.sliced(2, 1, 1).squeezed([2]).shape == (2, 3, 5)
