"""The command line: exit statuses, one line for each fault, one JSON document where it is asked for."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import warnings
from dataclasses import replace

import numpy as np
import onnx
import onnxruntime
import pytest
from networks import network, qcfs, weight
from onnx import numpy_helper

import pconv_onnx
import pconv_onnx.runtime.side_by_side
from pconv_onnx import deployment
from pconv_onnx.answers.lines import plan_lines
from pconv_onnx.answers.printing import as_text
from pconv_onnx.basics import choices
from pconv_onnx.basics.domain import VERSION
from pconv_onnx.basics.errors import PconvError
from pconv_onnx.calibration import sweep
from pconv_onnx.cli.arguments import parser
from pconv_onnx.cli.main import main
from pconv_onnx.graph.record import Record
from pconv_onnx.measure.verification import Verification
from pconv_onnx.operators import library as native
from pconv_onnx.operators.domain import is_operator
from pconv_onnx.runtime.device_memory import CUDA

COMMANDS = {
    "inspect": ["MODEL", "--json"],
    "rewrite": ["MODEL", "-o", "--output", "--steps", "--mode", "parallel", "folded", "--include", "--exclude",
                "--signed", "--calibration", "--method", "--weights", "int8", "int4", "--input-bits",
                "--input-range", "LOW HIGH", "--strict", "--dry-run", "--force", "--json"],
    "calibrate": ["MODEL", "--data", "--steps", "-o", "--output", "--method", "refit", "--mixed", "--sensitivity",
                  "--cache", "--force", "--json"],
    "verify": ["ANN", "SNN", "--data", "--atol", "--memory", "--provider", "--json"],
    "evaluate": ["MODEL", "--data", "--steps", "--mode", "parallel", "folded", "--signed", "--weights", "--input-bits",
                 "--input-range", "-o", "--output", "--json"],
    "stats": ["SNN", "--data", "--energy-mac", "--energy-ac", "--memory", "--json"],
    "bench": ["MODEL", "--steps", "--batch", "--provider", "--data", "--calibration", "--method", "--signed",
              "--weights", "--input-bits", "--input-range",
              "--repeats", "-o", "--output", "--json"],
    "deploy": ["SNN", "-o", "--output", "--target", "bundle", "triton", "--gpu", "--json"],
    "doctor": ["--json"],
}  # fmt: skip


@pytest.fixture
def run(capfd):
    """Run a command in this process: its exit status, stdout and stderr, those of native code included."""

    def run(*arguments) -> tuple[int, str, str]:
        capfd.readouterr()
        status = main([str(argument) for argument in arguments])
        return status, *capfd.readouterr()

    return run


@pytest.fixture
def refusal(run):
    """Run a command that must fail: what it says in one line of stderr, and in its JSON document."""

    def refusal(*arguments, status: int = 1) -> str:
        found, out, err = run(*arguments)
        assert (found, out) == (status, "")
        (line,) = err.splitlines()
        assert line.startswith("pconv-onnx: ")
        assert not line.endswith((":", ";", " "))
        found, out, err = run(*arguments, "--json")
        assert (found, err) == (status, "")
        assert json.loads(out).keys() == {"error"}
        assert json.loads(out)["error"].keys() == {"message", "hint"}
        assert "; ".join(filter(None, json.loads(out)["error"].values())) == line.removeprefix("pconv-onnx: ")
        return line.removeprefix("pconv-onnx: ")

    return refusal


def spawn(*arguments, **options) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "pconv_onnx", *map(str, arguments)], **{"stderr": subprocess.PIPE, **options}
    )


def files(folder) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in os.listdir(folder)}


def test_help_of_each_command_names_its_options_and_imports_nothing_heavy():
    code = """
import contextlib, io, json, sys
from pconv_onnx.cli.main import main
found = {}
for command in ["", "inspect", "rewrite", "calibrate", "verify", "evaluate", "stats", "bench", "deploy", "doctor"]:
    with contextlib.redirect_stdout(io.StringIO()) as out:
        try:
            main([command, "--help"] if command else ["--help"])
        except SystemExit as stopped:
            found[command] = [stopped.code, out.getvalue()]
heavy = {"matplotlib", "numpy", "onnx", "onnxruntime", "onnx_graphsurgeon", "rich"}
found["imported"] = sorted(heavy & set(sys.modules))
print(json.dumps(found))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    assert found.pop("imported") == []
    assert {command: status for command, (status, _) in found.items()} == dict.fromkeys(["", *COMMANDS], 0)
    assert all(command in found[""][1] for command in (*COMMANDS, "--version", "exit status"))
    for command, options in COMMANDS.items():
        assert [option for option in options if option not in found[command][1]] == []


NOISY = """
import ctypes, os, sys
import pconv_onnx.rewriting as rewriting
from pconv_onnx.cli.main import main
inspect = rewriting.inspect
def noisy(model, **options):
    ctypes.CDLL(None).puts(b"from C")
    os.write(1, b"from a descriptor\\n")
    os.system("echo from a child")
    print("from Python")
    print("from Python itself", file=sys.__stdout__)
    return inspect(model)
rewriting.inspect = noisy
status = main(sys.argv[1:])
print("and then")
sys.exit(status)
"""


def test_stdout_has_one_document_whatever_libraries_print(ann):
    done = subprocess.run([sys.executable, "-c", NOISY, "inspect", "--json", ann], capture_output=True, text=True)
    document, rest = done.stdout.split("\n", 1)
    assert (done.returncode, rest) == (0, "and then\n")
    assert json.loads(document)["counts"]["converted"] == 2
    said = ["from C", "from Python", "from Python itself", "from a child", "from a descriptor"]
    assert sorted(done.stderr.splitlines()) == said


@pytest.mark.parametrize(("closed", "printed"), [("<&-", True), (">&-", False), ("2>&-", True), (">&- 2>&-", False)])
def test_closed_streams_are_borne(closed, printed, ann):
    done = subprocess.run(f"'{sys.executable}' -m pconv_onnx inspect '{ann}' {closed}", shell=True, capture_output=True)
    assert (done.returncode, b"2 convertible" in done.stdout) == (0, printed)


def test_a_mended_model_is_told_once_on_stderr(ann, tmp_path):
    model = onnx.load(ann)
    model.graph.ClearField("name")
    onnx.save(model, tmp_path / "m.onnx")
    np.savez(tmp_path / "d.npz", x=np.ones((2, 3, 8, 8), np.float32))
    told = f"pconv-onnx: note: '{tmp_path}/m.onnx' was mended on reading: a name given to a graph\n"
    for command in (["inspect"], ["rewrite"], ["evaluate", "--data", tmp_path / "d.npz", "--steps", "4"]):
        done = spawn(command[0], tmp_path / "m.onnx", *command[1:], stdout=subprocess.PIPE)
        assert (done.returncode, done.stderr.decode()) == (0, told)


def test_the_package_is_a_command_as_well():
    done = subprocess.run([sys.executable, "-m", "pconv_onnx", "--version"], capture_output=True, check=True)
    assert done.stdout.startswith(b"pconv-onnx ")


def test_version(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["--version"])
    assert stopped.value.code == 0
    assert capsys.readouterr().out.startswith("pconv-onnx ")


def test_every_target_that_can_be_chosen_is_there():
    assert tuple(deployment.TARGETS) == choices.TARGETS


@pytest.mark.parametrize(
    "name", ["verify", "evaluate", "stats", "bench", "deploy", "doctor", "inspect", "rewrite", "session"]
)
def test_functions_are_not_shadowed_by_modules(name):
    code = f"from pconv_onnx import *; assert callable({name}), {name}"
    subprocess.run([sys.executable, "-c", code], check=True)
    assert callable(getattr(pconv_onnx, name))


@pytest.mark.usefixtures("library")
def test_results_are_shown_without_what_they_hold(ann, snn):
    """A notebook shows the value of its last line."""
    results = [
        pconv_onnx.rewrite(ann),
        pconv_onnx.calibrate(network("y = Relu (x)"), "random", steps=4),
        pconv_onnx.verify(ann, snn),
        pconv_onnx.stats(snn),
        pconv_onnx.bench(ann, steps=4, batches=1, repeats=1),
    ]
    for result in results:
        assert repr(result).startswith(f"{type(result).__name__}(")
        assert len(repr(result)) < 1000


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "the following arguments are required: COMMAND; see pconv-onnx --help"),
        (["frobnicate"], "invalid choice: 'frobnicate'"),
        (["inspect"], "the following arguments are required: MODEL; see pconv-onnx inspect --help"),
        (["inspect", "m.onnx", "--frob"], "unrecognized arguments: --frob; see pconv-onnx inspect --help"),
        (["--frob", "inspect", "m.onnx"], "unrecognized arguments: --frob; see pconv-onnx --help"),
        (["rewrite", "m.onnx", "--mode", "serially"], "argument --mode: invalid choice: 'serially'"),
        (["rewrite", "m.onnx", "-o"], "argument -o/--output: expected one argument"),
        (["verify", "a.onnx"], "the following arguments are required: SNN; see pconv-onnx verify --help"),
        *(
            (["stats", "s.onnx", "--memory", size], f"--memory: '{size}' is not a size; give bytes, or a number")
            for size in ["", "much", "2 gib", "1.2.3GiB", "-1", "."]
        ),
        *((["rewrite", "m.onnx", "--steps", steps], f"--steps: '{steps}' is not a number of time-steps from 1 to 256")
          for steps in ("0", "-3", "x", "257", "1e9", "2.5", "")),
        (["rewrite", "m.onnx", "--steps", "9" * 5000], "99' is not a number of time-steps from 1 to 256"),
        (["evaluate", "m.onnx"], "the following arguments are required: --data; see pconv-onnx evaluate --help"),
        (["evaluate", "m.onnx", "--data", "d.npz", "--steps"], "argument --steps: expected at least one argument"),
        (["evaluate", "m.onnx", "--data", "d.npz", "--steps", "4", "0"], "'0' is not a number of time-steps from 1"),
        (["evaluate", "m.onnx", "--data", "d.npz", "-o", "c.png"], "-o/--output: there is no curve without --steps"),
        (["evaluate", "m.onnx", "--data", "d.npz", "--mode", "serial"], "--mode: nothing is rewritten without --steps"),
        (["evaluate", "m.onnx", "--data", "d.npz", "--signed"], "--signed: nothing is rewritten without --steps"),
        (["evaluate", "m.onnx", "--data", "d.npz", "--calibration", "c.npz"],
         "argument --calibration: there are no levels to calibrate to without --steps"),
        (["evaluate", "m.onnx", "--data", "d.npz", "--steps", "4", "--method", "refit"],
         "argument --method: nothing is calibrated without --calibration"),
        (["rewrite", "m.onnx", "--calibration", "c.npz"],
         "argument --calibration: there are no levels to calibrate to without --steps"),
        (["rewrite", "m.onnx", "--steps", "4", "--method", "refit"],
         "argument --method: nothing is calibrated without --calibration"),
        (["bench", "m.onnx", "--method", "max"], "argument --method: nothing is calibrated without --calibration"),
        *((["bench", "m.onnx", *wrong], f"'{wrong[1]}' is not a number from 1 on")
          for wrong in (["--batch", "0"], ["--batch", "x"], ["--repeats", "-1"], ["--repeats", "2.5"])),
        *((["verify", "a.onnx", "b.onnx", "--atol", atol], f"argument --atol: '{atol}' is not a tolerance")
          for atol in ("-1", "nan", "inf", "x")),
        (["deploy", "s.onnx", "-o", "o", "--target", "bundle", "--gpu"], "a bundle is for every device; leave out"),
        (["deploy", "s.onnx", "-o", "o", "--target", "triton", "--allow-lossy"], "a triton is the network as it is"),
        (["evaluate", "m.onnx", "--data", "d.npz", "--steps", "4", "-o", "c.txt"], "'c.txt' is no place for a curve"),
        (["stats"], "the following arguments are required: SNN; see pconv-onnx stats --help"),
        *((["stats", "s.onnx", option, energy], f"argument {option}: '{energy}' is not an energy; choose a finite")
          for option in ("--energy-mac", "--energy-ac") for energy in ("-1", "nan", "inf", "x")),
    ],
)  # fmt: skip
def test_wrong_arguments_are_told_in_one_line(arguments, told, refusal):
    assert told in refusal(*arguments, status=2)


@pytest.mark.parametrize(
    ("arguments", "meant"),
    [
        (["rewrit", "m.onnx"], "rewrite"),
        (["rewrite", "m.onnx", "--step", "4"], "--steps"),
        (["rewrite", "m.onnx", "--mode", "paralel"], "parallel"),
    ],
)
def test_a_word_that_is_almost_known_is_told_with_the_known_one(arguments, meant, refusal):
    assert f"; did you mean {meant}? See pconv-onnx" in refusal(*arguments, status=2)


def test_a_quiet_command_prints_no_notes_and_a_verbose_one_what_it_did(ann, data, tmp_path, run):
    model = onnx.load(ann)
    model.graph.ClearField("name")
    onnx.save(model, tmp_path / "m.onnx")
    evaluate = ["evaluate", tmp_path / "m.onnx", "--data", data, "--steps", "4"]
    answer, as_usual = run(*evaluate)[1:]
    assert "was mended" in as_usual and "evaluating" not in as_usual
    assert run(*evaluate, "-q") == (0, answer, "")
    _, again, told = run(*evaluate, "--verbose")
    assert again == answer
    assert "was mended" in told and re.search(r"^pconv-onnx: evaluating: \d+ done in ", told, re.MULTILINE)


def test_a_shell_completes_commands_and_options(capsys):
    pytest.importorskip("shtab")
    with pytest.raises(SystemExit) as stopped:
        main(["--print-completion", "bash"])
    assert stopped.value.code == 0
    out = capsys.readouterr().out
    assert all(word in out for word in ("complete -", "calibrate", "--sensitivity"))


def test_completion_without_its_extra_is_told_with_the_remedy(monkeypatch, refusal):
    monkeypatch.setitem(sys.modules, "shtab", None)
    assert "pip install 'pconv-onnx[completion]'" in refusal("--print-completion", "zsh")


@pytest.mark.parametrize("steps", [0, -3, "x", 257, 1e9, 2.5])
def test_steps_out_of_range_are_told_to_python_too(steps, small_network):
    with pytest.raises(pconv_onnx.PconvError, match="is not a number of time-steps; choose 1 to 256"):
        pconv_onnx.rewrite(small_network, steps=steps)


def quantised(folder, scale=0.1, zero=0):
    """A file of one activation in 8 bits."""
    nodes = "q = QuantizeLinear (x, s, z) y = DequantizeLinear (q, s, z)"
    weights = {"s": np.float32(scale), "z": np.full((), zero, np.uint8)}
    onnx.save(network(nodes, weights=weights, opset=21), folder / "quantised.onnx")
    return folder / "quantised.onnx"


@pytest.mark.parametrize(
    ("options", "status", "told"),
    [
        (["--coding", "binary"], 2, "argument --coding: invalid choice: 'binary' (choose from "),
        (["--coding", "radix", "--steps", "7"], 1,
         "it has 255 levels, for which coding 'radix' takes 8 time-steps, not 7"),
        (["--coding", "radix", "--mode", "serial"], 2,
         "mode 'serial' runs one time-step at a time, whose spikes are worth the same, and has no coding 'radix'; "
         "choose coding 'rate', or mode 'parallel' or 'folded'"),
        (["--coding", "radix", "--per-step-outputs"], 2,
         "have weights ('q' is in coding 'radix'), and the mean over the first of them, behind a bias, stands for "
         "nothing; choose --coding rate, or leave --per-step-outputs out"),
    ],
)  # fmt: skip
def test_codings_that_cannot_be_are_told_in_one_line(options, status, told, tmp_path, refusal):
    assert told in refusal("rewrite", quantised(tmp_path), *options, "-o", tmp_path / "snn.onnx", status=status)
    assert os.listdir(tmp_path) == ["quantised.onnx"]


def test_too_few_steps_for_signed_values_are_told_by_their_farther_side(tmp_path, refusal, run):
    model = quantised(tmp_path, zero=128)
    assert "for which coding 'radix' takes 8 time-steps, not 7" in refusal(
        "rewrite", model, "--coding", "radix", "--steps", 7
    )
    assert run("rewrite", model, "--coding", "radix", "--steps", 8, "-o", tmp_path / "snn.onnx")[0] == 0


def test_a_coding_that_does_not_exist_is_told_to_python_too(small_network):
    with pytest.raises(pconv_onnx.PconvError, match="there is no coding 'binary'; choose auto, rate, radix"):
        pconv_onnx.rewrite(small_network, coding="binary")


@pytest.mark.parametrize("coding", ["auto", "rate", "radix"])
def test_levels_that_are_uneven_are_told_with_the_mode_that_takes_them(coding, tmp_path, refusal, run):
    """1.3 k, rounded to whole numbers by what is added and taken away."""
    nodes = "a = Clip (x, zero, seven) b = Round (a) c = Mul (b, t) d = Add (c, large) y = Sub (d, large)"
    weights = {"zero": 0.0, "seven": 7.0, "t": 1.3, "large": 2.0**23}
    model = tmp_path / "uneven.onnx"
    onnx.save(network(nodes, weights={name: np.float32(value) for name, value in weights.items()}), model)
    assert refusal("rewrite", model, "--coding", coding).endswith(
        ": its levels are not evenly spaced in float32, so no train of spikes carries them; mode 'folded' takes it"
    )
    assert run("rewrite", model, "--coding", coding, "--mode", "folded")[0] == 0


@pytest.mark.usefixtures("library")
@pytest.mark.parametrize("options", [[], ["--mode", "folded"]], ids=str)
def test_a_file_of_the_first_version_is_verified_counted_and_run(options, ann, tmp_path, run):
    """As it was written before there were codings: the operator without their attributes, the record of form 2."""
    path = tmp_path / "snn.onnx"
    assert run("rewrite", ann, *options, "-o", path)[0] == 0
    model = onnx.load(path)
    (version,) = (entry.version for entry in model.opset_import if entry.domain == "pconv")
    assert version == 1
    assert not {"coding", "steps", "zero"} & {
        entry.name for node in model.graph.node if is_operator(node) for entry in node.attribute
    }
    for entry in model.metadata_props:
        if entry.key == "pconv_onnx.form":
            entry.value = "2"
        elif entry.key == "pconv_onnx.kinds":
            assert "coding" not in entry.value
        elif entry.key == "pconv_onnx.activations":
            rows = json.loads(entry.value)
            entry.value = json.dumps([{key: row[key] for key in row if key != "coding"} for row in rows])
    onnx.save(model, path)
    assert run("verify", ann, path)[0] == 0
    assert run("stats", path)[0] == 0
    x = np.ones((1, 3, 8, 8), np.float32)
    (before,), (after,) = (pconv_onnx.session(one).run(None, {"x": x}) for one in (ann, path))
    np.testing.assert_allclose(after, before, rtol=1e-4, atol=1e-5)


@pytest.mark.usefixtures("library")
def test_a_file_of_a_later_version_of_the_operators_is_told(snn, tmp_path, refusal):
    model, path = onnx.load(snn), tmp_path / "later.onnx"
    for entry in model.opset_import:
        if entry.domain == "pconv":
            entry.version = VERSION + 1
    onnx.save(model, path)
    told = (
        f"declares version {VERSION + 1} of the operators of pconv-onnx; this pconv-onnx has those up to {VERSION}; "
        "update pconv-onnx"
    )
    for arguments in (["stats", path], ["verify", snn, path], ["inspect", path], ["rewrite", path]):
        assert refusal(*arguments) == f"'{path}' {told}"
    with pytest.raises(pconv_onnx.PconvError, match=f"the model {told}"):
        pconv_onnx.session(path)


@pytest.mark.parametrize("fault", ["missing", "empty", "truncated", "text", "directory", "rejected"])
def test_a_faulty_model_is_told_by_every_command_and_nothing_is_written(fault, ann, tmp_path, refusal):
    folder = tmp_path / "models"
    folder.mkdir()
    model = folder / "m.onnx"
    content = ann.read_bytes()
    if fault == "directory":
        model = folder
    elif fault == "rejected":
        proto = onnx.load(ann)
        proto.graph.node[0].input[0] = "nowhere"
        onnx.save(proto, model)
    elif fault != "missing":
        model.write_bytes({"empty": b"", "truncated": content[: len(content) // 2], "text": b"hello\n"}[fault])
    reason = {
        "missing": f"cannot read '{model}': No such file or directory",
        "empty": f"'{model}' is empty",
        "truncated": f"'{model}' is not an ONNX model, or is cut short",
        "text": f"'{model}' is not an ONNX model, or is cut short",
        "directory": f"cannot read '{folder}': Is a directory",
        "rejected": f"'{model}' is not a valid ONNX model: ",
    }[fault]
    before = files(folder)
    for arguments in (
        ["inspect", model],
        ["rewrite", model],
        ["verify", model, ann],
        ["verify", ann, model],
        ["evaluate", model, "--data", "d.npz"],
        ["stats", model],
        ["bench", model],
    ):
        assert refusal(*arguments).startswith(reason)
    assert refusal("rewrite", model, "-o", folder / "out.onnx").startswith(reason)
    assert files(folder) == before


@pytest.mark.parametrize("command", ["inspect", "rewrite"])
def test_a_spiking_network_is_not_rewritten_again(command, snn, refusal):
    told = refusal(command, snn)
    assert told == f"'{snn}' is a spiking network already; pass the ANN that it was made from"


def test_a_relu_network_has_nothing_to_convert(relu_resnet, tmp_path, refusal):
    told = refusal("rewrite", relu_resnet, "-o", tmp_path / "snn.onnx")
    assert told.startswith(f"nothing to convert in '{relu_resnet}': 19 activations ('")
    assert "' first): a ReLU has no levels of its own" in told
    assert os.listdir(tmp_path) == []


def test_a_network_without_activations_has_nothing_to_convert(tmp_path, refusal, run):
    onnx.save(network("y = Conv (x, w)", weights={"w": weight(3, 3, 1, 1)}), tmp_path / "m.onnx")
    assert refusal("rewrite", tmp_path / "m.onnx") == (
        f"nothing to convert in '{tmp_path}/m.onnx': it has no activation; give products neurons: --neurons products "
        "--calibration data.npz --steps T"
    )
    out = run("inspect", tmp_path / "m.onnx")[1]
    assert out == "no activations found\nexpected: no multiply-accumulate reads anything but the network's inputs\n"
    assert os.listdir(tmp_path) == ["m.onnx"]


@pytest.mark.usefixtures("library")
@pytest.mark.skipif(CUDA in onnxruntime.get_available_providers(), reason="this onnxruntime has the provider")
def test_verify_asks_for_the_provider_that_is_named(ann, snn, run, refusal):
    assert run("verify", ann, snn, "--provider", "cpu")[0] == 0
    told = refusal("verify", ann, snn, "--provider", "cuda")
    assert told.startswith(f"neuron 'a_code' of '{snn}': this onnxruntime has no provider '{CUDA}'; it has ")


def test_a_network_without_inputs_is_rewritten_and_verify_says_why_it_cannot(tmp_path, run, refusal):
    ann, snn = tmp_path / "m.onnx", tmp_path / "m.snn.onnx"
    onnx.save(
        network("e = Exp (k)" + qcfs("e", "y"), inputs="", outputs="float[2, 3] y", weights={"k": weight(2, 3)}), ann
    )
    assert run("inspect", ann)[0] == 0
    assert run("rewrite", ann)[0] == 0
    np.testing.assert_array_equal(*(pconv_onnx.session(path).run(None, {})[0] for path in (ann, snn)))
    assert refusal("verify", ann, snn) == "the model has no inputs, so there are no samples to run it on"


@pytest.mark.parametrize("way", ["same", "relative", "symbolic link", "hard link"])
def test_the_input_is_never_overwritten_unless_forced(way, ann, tmp_path, monkeypatch, refusal, run):
    monkeypatch.chdir(tmp_path)
    link = tmp_path / "link.onnx"
    if way == "symbolic link":
        link.symlink_to(ann)
    elif way == "hard link":
        link.hardlink_to(ann)
    output = {"same": ann, "relative": "../" + tmp_path.name + "/ann.onnx"}.get(way, link)
    before = files(tmp_path)
    assert (
        refusal("rewrite", ann, "-o", output)
        == f"'{output}' is the input; choose another name with -o, or pass --force"
    )
    assert files(tmp_path) == before
    told = refusal("calibrate", ann, "--data", "random", "--steps", 4, "-o", output)
    assert told == f"'{output}' is the input; choose another name with -o, or pass --force"
    assert files(tmp_path) == before
    assert run("rewrite", ann, "-o", output, "--force")[0] == 0
    assert files(tmp_path).keys() == before.keys()
    assert any(map(is_operator, onnx.load(output).graph.node))


@pytest.mark.parametrize(
    ("place", "reason"),
    [
        ("missing/out.onnx", "No such file or directory"),
        ("ann.onnx/out.onnx", "Not a directory"),
        ("", "it exists and is not a file"),
    ],
)
def test_a_place_that_cannot_be_written_is_told(place, reason, ann, tmp_path, refusal):
    output = tmp_path / place
    told = refusal("rewrite", ann, "-o", output)
    assert told == f"cannot write '{output}': {reason}; choose another place"
    assert os.listdir(tmp_path) == ["ann.onnx"]


def test_no_device_is_replaced_by_a_file(ann, refusal):
    # Renaming over /dev/null is something that root is allowed.
    assert refusal("rewrite", ann, "-o", "/dev/null").startswith(
        "cannot write '/dev/null': it exists and is not a file"
    )
    assert not os.path.isfile("/dev/null")


def test_a_dry_run_writes_nothing(ann, tmp_path, run):
    status, out, _ = run("rewrite", ann, "--dry-run")
    assert (status, os.listdir(tmp_path)) == (0, ["ann.onnx"])
    assert "a_code" in out and "2 convertible, 0 without levels, 0 refused" in out
    status, out, _ = run("rewrite", ann, "--dry-run", "--json")
    assert json.loads(out)["output"] is None


def test_the_output_is_named_after_the_input(ann, run):
    assert run("rewrite", ann)[0] == 0
    assert ann.with_name("ann.snn.onnx").exists()


def test_what_is_not_converted_is_told_and_strict_makes_it_fail(ann, tmp_path, run, refusal):
    arguments = ["rewrite", ann, "-o", tmp_path / "snn.onnx", "--exclude", "b*"]
    told = refusal(*arguments, "--strict")
    assert told == "not all activations can be converted: 'b_code': excluded; without --strict the others are"
    assert os.listdir(tmp_path) == ["ann.onnx"]
    status, out, _ = run(*arguments)
    assert status == 0
    assert "1 converted, 0 without levels, 1 refused\nnot converted: b_code: excluded\n" in out
    third = network(qcfs("x", "a") + qcfs("a", "b") + qcfs("b", "y"))
    onnx.save(third, tmp_path / "third.onnx")
    told = "b_code and 1 more: excluded\n"
    assert f"2 refused\nnot converted: {told}" in run("rewrite", tmp_path / "third.onnx", "--exclude", "[by]*")[1]


def test_a_hybrid_is_called_so(tmp_path, run):
    onnx.save(network(f"{qcfs('x', 'a')} e = Relu (a) f = Gelu (e) {qcfs('f', 'b')} y = Gelu (b)"), tmp_path / "m.onnx")
    for arguments in (["inspect"], ["rewrite", "--dry-run"], ["rewrite"]):
        status, out, _ = run(*arguments, tmp_path / "m.onnx")
        assert status == 0
        assert "hybrid: 1 activation stays analog between spiking layers\n" in out
        assert document(run, *arguments, tmp_path / "m.onnx")["hybrid"] == ["f"]


def test_patterns_that_leave_nothing_are_told(ann, refusal):
    told = refusal("rewrite", ann, "--exclude", "*_code")
    assert told == f"nothing to convert in '{ann}': 2 activations ('a_code' first): excluded"


@pytest.mark.parametrize("option", ["--include", "--exclude"])
def test_a_pattern_that_matches_no_activation_is_refused(option, ann, refusal):
    told = refusal("rewrite", ann, "--dry-run", option, "a*", option, "B*")
    assert told == f"'B*' matches no activation of '{ann}'; pconv-onnx inspect lists them"


def test_a_loss_is_told(ann, run):
    _, out, _ = run("rewrite", ann, "--steps", 3)
    assert "T = 3 is not the source's L = 4: not lossless; for inputs spread evenly a neuron's error is zero" in out
    _, out, _ = run("rewrite", ann, "--steps", 4)
    assert "lossless" not in out


def test_evenly_and_unevenly_spaced_levels_beside_each_other_are_told(tmp_path, run):
    """Of a loss the first has an error of zero, the second none that is known."""
    thresholds = """u = Unsqueeze (a, last) g = GreaterOrEqual (u, tau) f = Cast <to = 1> (g)
        s = ReduceSum <keepdims = 0> (f, last) y = Mul (s, half)"""
    weights = {"last": np.array([-1]), "tau": np.array([0.5, 1, 2, 4], np.float32)}
    onnx.save(network(f"{qcfs('x', 'a')} {thresholds}", weights=weights), tmp_path / "m.onnx")
    status, out, _ = run("rewrite", tmp_path / "m.onnx")
    assert status == 0
    assert "2 converted, 0 without levels, 0 refused\n" in out and "lossless" not in out


def document(run, *arguments, status: int = 0):
    found, out, err = run(*arguments, "--json")
    assert (found, err) == (status, "")
    return json.loads(out)


def test_inspect_and_rewrite_give_the_promised_documents(ann, tmp_path, run):
    inspected = document(run, "inspect", ann)
    rewritten = document(run, "rewrite", ann, "-o", tmp_path / "snn.onnx", "--exclude", "b*")
    assert rewritten["output"] == str(tmp_path / "snn.onnx")
    assert document(run, "rewrite", ann, "--dry-run")["activations"] == inspected["activations"]
    for found in (inspected, rewritten):
        assert (found["steps"], found["mode"]) == (4, "parallel")
        assert found["counts"].keys() == {"converted", "needs_calibration", "refused"}
        assert found["hybrid"] == []
        for row in found["activations"]:
            assert row.keys() == {
                "name",
                "also_called",
                "op_types",
                "encoding",
                "dtype",
                "levels",
                "steps",
                "coding",
                "zero",
                "signed",
                "rms_error",
                "status",
                "reason",
            }
            assert all(isinstance(name, str) for name in row["op_types"])
    assert [row["status"] for row in inspected["activations"]] == ["converted", "converted"]
    assert [row["reason"] for row in inspected["activations"]] == ["", ""]
    first, second = rewritten["activations"]
    assert (first["levels"], first["steps"], first["status"]) == (4, 4, "converted")
    assert (second["steps"], second["status"], second["reason"]) == (None, "refused", "excluded")
    assert rewritten["counts"] == {"converted": 1, "needs_calibration": 0, "refused": 1}


@pytest.mark.parametrize(("options", "steps", "lossy", "dense"), [
    ([], "8 signed radix", False, False),
    (["--coding", "rate"], "128 signed rate", False, False),
    (["--steps", 32], "32 signed rate", True, False),
    (["--signed"], "8 radix", False, True),
])  # fmt: skip
def test_what_is_written_says_its_coding_and_what_that_costs(options, steps, lossy, dense, tmp_path, run):
    nodes = "c = Conv (x, w) q = QuantizeLinear (c, s, k) y = DequantizeLinear (q, s, k)"
    weights = {"w": weight(3, 3, 1, 1), "s": np.float32(0.0625), "k": np.zeros((), np.int8)}
    onnx.save(network(nodes, weights=weights), tmp_path / "int8.onnx")
    status, out, _ = run("rewrite", tmp_path / "int8.onnx", "-o", tmp_path / "snn.onnx", *options)
    assert status == 0 and out.endswith(f"{tmp_path}/snn.onnx: mode parallel, T = {steps}, float32\n")
    assert (("not lossless" in out), ("trains are dense" in out)) == (lossy, dense)
    assert ("error is zero in the mean and " in out) == lossy


def test_precision_and_outputs_step_by_step_are_told(ann, tmp_path, run, refusal):
    snn = tmp_path / "snn.onnx"
    status, out, _ = run("rewrite", ann, "-o", snn, "--precision", "float16", "--per-step-outputs")
    assert status == 0
    assert f"added outputs: y_per_step\n{snn}: mode parallel, T = 4 rate, float16" in out
    found = document(run, "rewrite", ann, "-o", snn, "--precision", "float16", "--per-step-outputs")
    assert (found["precision"], found["per_step_outputs"]) == ("float16", ["y_per_step"])
    assert run("verify", ann, snn)[0] == 0
    assert run("rewrite", ann, "--precision", "int4")[0] == 2
    told = "mode 'folded' has no time-steps to hand out; choose mode 'parallel'"
    assert refusal("rewrite", ann, "--mode", "folded", "--per-step-outputs", status=2) == told


def test_inspect_of_a_relu_network_asks_for_calibration(relu_resnet, run):
    found = document(run, "inspect", relu_resnet)
    assert {row["status"] for row in found["activations"]} == {"needs-calibration"}
    assert found["counts"] == {"converted": 0, "needs_calibration": 19, "refused": 0}
    assert found["steps"] is None


@pytest.mark.usefixtures("library")
def test_verify_gives_the_promised_document(ann, snn, run):
    found = document(run, "verify", ann, snn)
    assert found["passed"] is True
    assert isinstance(found["max_abs_diff"], float) and found["top1_agreement"] == 1.0
    assert (found["samples"], found["random_inputs"], found["atol"]) == (32, True, None)
    assert found["layers"] == [
        {"name": name, "exact": True, "calibrated": False, "altered": False, "count_mismatch_rate": 0.0}
        for name in ("a_code", "b_code")
    ]
    assert (found["verdict"], found["differences"], found["not_compared"]) == ("equal", [], [])
    assert [(row["name"], row["kind"], row["bounded"], row["beyond"]) for row in found["segments"]] == [
        ("a_code", "neuron", True, 0), ("b_code", "neuron", True, 0), ("y", "output", True, 0),
    ]  # fmt: skip
    assert all(row["elements"] > 0 and row["max_abs_diff"] >= 0 and row["of_bound"] < 1 for row in found["segments"])
    assert found["layers_compared"] == 2
    for part in ("unoptimised", "source_against_itself", "spiking_against_itself"):
        assert found[part].keys() == {"max_abs_diff", "top1_agreement"}
    assert (found["outputs_differ"], found["load_errors"]) == ([], {})


@pytest.mark.usefixtures("library")
def test_verify_compares_without_optimisations_first_and_says_what_they_change(ann, snn, run, monkeypatch):
    _, out, _ = run("verify", ann, snn)
    assert out.index("outputs, graph optimisations disabled: ") < out.index("outputs, as onnxruntime runs them: ")
    assert "differ as run" not in out
    summary = Verification.summary
    changes = {"outputs_differ": ["as_run"], "source_against_itself": {"max_abs_diff": 2.4, "top1_agreement": 0.5}}
    monkeypatch.setattr(Verification, "summary", lambda self: summary(self) | changes)
    _, out, _ = run("verify", ann, snn)
    told = "outputs agree with graph optimisations disabled and differ as run: onnxruntime's optimisation changes "
    assert f"{told}the source by 2.4 and the spiking network by " in out


@pytest.mark.usefixtures("library")
def test_verify_says_what_it_could_not_run(ann, snn, run, monkeypatch):
    open_session = pconv_onnx.runtime.side_by_side.session

    def session(model, *, options, providers=None):
        level = options.graph_optimization_level
        if (
            model.graph.name not in ("neuron", "segment")
            and level != onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        ):
            raise pconv_onnx.PconvError("onnxruntime cannot load the model: no reason")
        return open_session(model, options=options)

    monkeypatch.setattr(pconv_onnx.runtime.side_by_side, "session", session)
    status, out, err = run("verify", ann, snn)
    assert (status, err) == (0, "")
    assert "as onnxruntime runs them" not in out and "against itself" not in out
    for path in (ann, snn):
        reason = f"'{path}': onnxruntime cannot load the model: no reason"
        assert f"compared only with graph optimisations disabled: {reason}\n" in out
    assert document(run, "verify", ann, snn)["load_errors"].keys() == {"ann", "snn"}


@pytest.mark.usefixtures("library")
def test_verify_says_no_and_which_layer(ann, snn, run):
    broken = onnx.load(snn)
    table = next(tensor for tensor in broken.graph.initializer if tensor.name == "b_code/thresholds")
    table.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(table) * 2, table.name))
    onnx.save(broken, snn)
    status, out, err = run("verify", ann, snn)
    assert (status, err) == (1, "")
    assert "given the same input: 1 of 2\n  b_code: " in out
    assert "a_code" not in out
    assert out.endswith("\ndifferent: neuron 'b_code' gives other spike counts than the source for the same input\n")
    found = document(run, "verify", ann, snn, status=1)
    assert found["passed"] is False
    assert [bool(layer["count_mismatch_rate"]) for layer in found["layers"]] == [False, True]


@pytest.mark.usefixtures("library")
def test_verify_of_other_steps_says_that_there_is_nothing_to_be_equal_to(ann, tmp_path, run):
    run("rewrite", ann, "-o", tmp_path / "snn.onnx", "--steps", 7)
    found = document(run, "verify", ann, tmp_path / "snn.onnx")
    assert [(layer["exact"], layer["count_mismatch_rate"]) for layer in found["layers"]] == [(False, None)] * 2
    status, out, _ = run("verify", ann, tmp_path / "snn.onnx")
    assert status == 0
    assert found["layers_compared"] == 0 and "given the same input" not in out
    assert (found["verdict"], found["passed"]) == ("measured", None)
    assert "not compared: 2 neurons with T other than the source's levels\n" in out
    assert out.endswith("\nmeasured: no difference was found, but not all was compared\n")
    status, out, _ = run("verify", ann, tmp_path / "snn.onnx", "--atol", "1e-6")
    assert status == 1 and out.endswith("\ndifferent: outputs differ by more than 1e-06\n")
    status, out, _ = run("verify", ann, tmp_path / "snn.onnx", "--atol", "1e6")
    assert status == 0 and out.endswith("but not all was compared, and outputs are within 1e+06\n")


@pytest.mark.usefixtures("library")
def test_verify_reads_data_and_says_when_it_had_none(ann, snn, tmp_path, run, refusal):
    np.savez(tmp_path / "d.npz", x=np.ones((3, 3, 8, 8), np.float32), labels=np.arange(3))
    status, out, _ = run("verify", ann, snn, "--data", tmp_path / "d.npz")
    assert status == 0
    assert "samples: 3\n" in out and "top-1 accuracy: source " in out
    assert "samples: 32 (seeded random inputs; pass --data for real ones)" in run("verify", ann, snn)[1]
    np.savez(tmp_path / "d.npz", image=np.ones((3, 3, 8, 8), np.float32))
    told = refusal("verify", ann, snn, "--data", tmp_path / "d.npz")
    assert f"'{tmp_path}/d.npz' has no array 'x', which is an input of the model; it has 'image'" in told


@pytest.fixture
def labelled(ann, tmp_path):
    """Samples of the small network, and the network's own answers but for a quarter of them."""
    x = np.random.default_rng(1).normal(size=(60, 3, 8, 8)).astype(np.float32)
    labels = pconv_onnx.session(ann).run(None, {"x": x})[0].argmax(1)
    labels[:15] = (labels[:15] + 1) % 5
    np.savez(tmp_path / "labelled.npz", x=x, labels=labels)
    return tmp_path / "labelled.npz"


@pytest.mark.usefixtures("library")
def test_evaluate_gives_the_promised_document(ann, labelled, run):
    found = document(run, "evaluate", ann, "--data", labelled, "--steps", 1, 4)
    assert (found["samples"], found["labels"], found["output"]) == (60, True, None)
    assert (found["tokens"], found["labelled_tokens"]) == (None, None)
    undefined = dict.fromkeys(["top5", "rmse", "mae", "r2", "token_top1", "perplexity"])
    error, interval = pytest.approx((0.75 * 0.25 / 60) ** 0.5, rel=0.01), pytest.approx([0.628, 0.842], abs=1e-3)
    assert found["ann"] == {"top1": 0.75, "top1_standard_error": error, "top1_interval": interval, **undefined}
    likeness = {"agreement", "mse", "cosine", "token_agreement", "outputs"}
    assert all(row.keys() == {"steps", "coding", "mode", *likeness, *found["ann"]} for row in found["rows"])
    assert [(row["steps"], row["coding"], row["mode"]) for row in found["rows"]] == [
        (1, "rate", "folded"),
        (4, "rate", "folded"),
    ]
    assert (found["rows"][1]["top1"], found["rows"][1]["agreement"]) == (0.75, 1.0)
    cosine = found["rows"][1]["cosine"]
    assert cosine.keys() == {"output", "of", "count", "not_finite", "median", "quantile_05", "mean"}
    assert (cosine["output"], cosine["of"], cosine["count"], cosine["not_finite"]) == ("y", "samples", 60, 0)
    assert cosine["quantile_05"] > 0.9999
    assert found["rows"][1]["outputs"] == {
        "y": {"cosine": {key: value for key, value in cosine.items() if key != "output"}, "token_agreement": None}
    }
    assert document(run, "evaluate", ann, "--data", labelled)["rows"] == []


@pytest.mark.usefixtures("library")
def test_float_labels_give_errors_of_both_networks(ann, snn, tmp_path, run):
    x = np.random.default_rng(1).normal(size=(60, 3, 8, 8)).astype(np.float32)
    answers = pconv_onnx.session(ann).run(None, {"x": x})[0]
    np.savez(tmp_path / "d.npz", x=x, labels=answers + 0.25)
    status, out, _ = run("evaluate", ann, "--data", tmp_path / "d.npz", "--steps", 4)
    assert status == 0
    samples, header, source, spiking = out.splitlines()
    assert samples == "samples: 60, with targets of 'y'"
    assert header.split() == ["T", "RMSE", "MAE", "R²", "agreement", "mse", "cosine", "cosine", "5", "%"]
    assert source.split()[:3] == ["ANN", "0.25", "0.25"] and spiking.split()[:4] == ["4", "rate", "0.25", "0.25"]
    out = run("verify", ann, snn, "--data", tmp_path / "d.npz")[1]
    assert re.search(r"\nerror against targets: source RMSE 0.25 \(MAE 0.25, R² -?\d.\d{4}\), spiking RMSE 0.25 ", out)


@pytest.mark.usefixtures("library")
def test_evaluate_draws_a_table_with_bars(ann, labelled, tmp_path, run):
    status, out, err = run("evaluate", ann, "--data", labelled, "--steps", 1, 4, "--mode", "parallel")
    assert (status, err) == (0, "")
    samples, header, ours, one, four = out.splitlines()
    assert (samples, header.split()) == (
        "samples: 60",
        ["T", "top-1", "agreement", "mse", "cosine", "cosine", "5", "%"],
    )
    assert ours == f"ANN     75.00 ± 5.56 %  -          -         -       -           {'#' * 30}"
    assert one.startswith("1 ") and one.count("#") < 30
    assert four.startswith("4 rate  75.00 ± 5.56 %  100.00 %   ") and four.endswith(f"1.0000  1.0000      {30 * '#'}")
    np.savez(tmp_path / "bare.npz", x=np.load(labelled)["x"])
    _, out, _ = run("evaluate", ann, "--data", tmp_path / "bare.npz", "--steps", 4)
    assert out.startswith("samples: 60, without labels\n")
    assert out.splitlines()[-1].startswith("4 rate  100.00 %") and out.endswith(40 * "#" + "\n")


@pytest.mark.usefixtures("library")
def test_evaluate_shows_the_columns_that_are_defined(tmp_path, run):
    nodes = f"h = MatMul (x, w) {qcfs('h', 'states')} logits = MatMul (states, u)"
    weights = {"w": 4 * weight(4, 8), "u": weight(8, 6, seed=1)}
    values = {"x": np.random.default_rng(0).normal(size=(10, 5, 4)).astype(np.float32)}
    for outputs, labels, told, columns in (
        ("float[N, S, 8] states", {}, ", without labels", "mse cosine cosine 5 %"),
        ("float[N, S, 6] logits", {}, ", without labels", "token agreement mse cosine cosine 5 %"),
        (
            "float[N, S, 6] logits",
            {"labels": np.tile([1, 2, 0, 3, -100], (10, 1))},
            ", with labels of 40 tokens of 'logits'",
            "token top-1 perplexity token agreement mse cosine cosine 5 %",
        ),
    ):
        onnx.save(network(nodes, inputs="float[N, S, 4] x", outputs=outputs, weights=weights), tmp_path / "m.onnx")
        np.savez(tmp_path / "d.npz", **values, **labels)
        out = run("evaluate", tmp_path / "m.onnx", "--data", tmp_path / "d.npz", "--steps", 4)[1]
        samples, header, *rows = out.splitlines()
        assert (samples, header.split()) == (f"samples: 10{told}", ["T", *columns.split()])
        assert [row.split()[0] for row in rows] == ["ANN", "4"] and "1.0000  1.0000" in rows[1]


@pytest.mark.usefixtures("library")
def test_evaluate_tells_what_a_spiking_network_is(ann, labelled, tmp_path, run):
    run("rewrite", ann, "-o", tmp_path / "snn.onnx", "--steps", 3)
    status, out, _ = run("evaluate", tmp_path / "snn.onnx", "--data", labelled)
    assert status == 0
    assert "ANN" not in out and out.splitlines()[-1].startswith("3 rate  ")
    assert document(run, "evaluate", tmp_path / "snn.onnx", "--data", labelled)["ann"] is None


@pytest.mark.usefixtures("library")
def test_evaluate_writes_the_curve_and_says_where(ann, labelled, tmp_path, run):
    pytest.importorskip("matplotlib")
    arguments = ["evaluate", ann, "--data", labelled, "--steps", 1, 4, "-o"]
    _, out, _ = run(*arguments, tmp_path / "c.png")
    assert out.endswith(f"{tmp_path}/c.png: the curve\n")
    assert (tmp_path / "c.png").exists()
    assert document(run, *arguments, f"{tmp_path}/report/")["output"] == f"{tmp_path}/report/curve.png"
    assert (tmp_path / "report" / "curve.png").exists()


def test_evaluate_says_before_it_starts_that_matplotlib_is_missing(refusal, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.delitem(sys.modules, "matplotlib.figure", raising=False)
    told = refusal("evaluate", "missing.onnx", "--data", "missing.npz", "--steps", 4, "-o", "c.png")
    assert told.endswith("; pip install 'pconv-onnx[report]'")


def test_a_curve_that_cannot_be_written_is_told_before_anything_runs(ann, labelled, tmp_path, refusal, monkeypatch):
    pytest.importorskip("matplotlib")
    monkeypatch.setattr("pconv_onnx.measure.evaluation.evaluate", lambda *_, **__: pytest.fail("it ran"))
    told = refusal("evaluate", ann, "--data", labelled, "--steps", 4, "-o", tmp_path / "none" / "c.png")
    assert f"there is no folder '{tmp_path}/none'" in told


def test_evaluate_says_that_data_cannot_be_read(ann, tmp_path, refusal):
    told = refusal("evaluate", ann, "--data", tmp_path / "d.npz")
    assert told == f"cannot read '{tmp_path}/d.npz': No such file or directory; check it"


@pytest.mark.usefixtures("library")
def test_stats_gives_the_promised_document(snn, run):
    found = document(run, "stats", snn, "--energy-ac", 0.1)
    assert found.keys() == {"samples", "random_inputs", "steps", "mode", "layers", "operators", "totals", "energy",
                             "energy_int8", "spike_driven"}  # fmt: skip
    assert (found["samples"], found["random_inputs"], found["steps"], found["mode"]) == (32, True, 4, "parallel")
    assert [layer["name"] for layer in found["layers"]] == ["a_code", "b_code"]
    for layer in found["layers"]:
        assert layer.keys() == {
            "name", "channels", "neurons", "steps", "coding", "zero", "operations", "firing_rate", "spike_counts",
            "silent_channels", "saturated_channels", "example_neurons", "example_counts",
        }  # fmt: skip
    assert all(
        row.keys() == {"name", "op_type", "input", "macs", "synaptic_operations", "multiply_accumulates"}
        for row in found["operators"]
    )
    assert found["totals"].keys() == {"ann_macs", "synaptic_operations", "multiply_accumulates", "firing_rate"}
    assert found["energy"].keys() == {"mac_pj", "ac_pj", "ann_nj", "snn_nj", "ratio", "assumptions"}
    assert (found["energy"]["mac_pj"], found["energy"]["ac_pj"]) == (4.6, 0.1)
    assert found["energy_int8"].keys() == found["energy"].keys() | {"weights", "float_operators"}
    assert (found["energy_int8"]["mac_pj"], found["energy_int8"]["ac_pj"]) == (0.3, 0.1)


@pytest.mark.usefixtures("library")
def test_stats_draws_its_tables(snn, labelled, run):
    status, out, err = run("stats", snn)
    assert (status, err) == (0, "")
    assert out.startswith(
        "samples: 32 (seeded random inputs; pass --data for real ones)\nmode parallel, T = 4 rate\n\nlayer "
    )
    found = document(run, "stats", snn, "--data", labelled)
    _, out, _ = run("stats", snn, "--data", labelled)
    lines = out.splitlines()
    (layer,) = (line.split() for line in lines if line.startswith("a_code "))
    rate = f"{100 * found['layers'][0]['firing_rate']:.2f}"
    assert (lines[0], layer) == ("samples: 60", ["a_code", "4", "rate", "144", "4", "0", "0", rate, "%"])
    (operator,) = (line.split() for line in lines if " static " in line)
    assert operator == ["c", "Conv", "static", "3,888", "0", "3,888"]
    cheap = "the spiking network costs no more than its ANN: "
    assert f"{cheap}{found['energy']['ratio']:.3g} times the energy" in lines
    assert [line for line in lines if line.startswith("assumed: ")] == [
        f"assumed: {assumption}" for assumption in found["energy"]["assumptions"]
    ]
    assert "the spiking network costs more than its ANN: " in run("stats", snn, "--energy-ac", 100)[1]
    assert "times the energy" not in run("stats", snn, "--energy-ac", 0, "--energy-mac", 0)[1]


@pytest.mark.usefixtures("library")
@pytest.mark.parametrize(
    ("input_bits", "islands", "floats"),
    [
        (8, {}, ""),
        (None, {}, "; 1 operator in floats, at 4.6 pJ and 0.9 pJ"),
        (None, {"last": "it is wide"}, "; 2 operators in floats, at 4.6 pJ and 0.9 pJ"),
    ],
)
def test_stats_tells_the_energy_in_integers_where_weights_are_integers(input_bits, islands, floats, tmp_path, run):
    nodes = f"c = Conv (x, w) {qcfs('c', 'a')} [last] y = Conv (a, v)"
    ann = network(nodes, weights={"w": weight(5, 3, 1, 1), "v": weight(3, 5, 1, 1)})
    path, begins = tmp_path / "snn.onnx", "energy of a sample in 8-bit weights and counts"
    model = pconv_onnx.rewrite(ann).model
    onnx.save(model, path)
    assert begins not in run("stats", path)[1]
    integer = {"weights": "int4", "input_bits": input_bits, "islands": islands}
    replace(Record.read(model), integer=integer).write(model)
    onnx.save(model, path)
    energy = document(run, "stats", path)["energy_int8"]
    lines = run("stats", path)[1].splitlines()
    assert [line for line in lines if line.startswith(begins)] == [
        f"{begins} (0.3 pJ a multiply-accumulate, 0.1 pJ an accumulate: M. Horowitz, ISSCC 2014): "
        f"int4 ANN {energy['ann_nj']:,.3f} nJ, spiking network {energy['snn_nj']:,.3f} nJ, "
        f"{energy['ratio']:.3g} times the energy{floats}"
    ]
    assert any(line.startswith("energy of a sample: ANN ") for line in lines)


@pytest.mark.usefixtures("library")
def test_verify_tells_of_integers_that_neurons_are_compared_with_these(tmp_path, run):
    ann, snn, data = tmp_path / "ann.onnx", tmp_path / "snn.onnx", tmp_path / "data.npz"
    weights = {"w": weight(5, 3, 1, 1), "v": weight(3, 5, 1, 1)}
    onnx.save(network(f"c = Conv (x, w) {qcfs('c', 'a')} y = Conv (a, v)", weights=weights), ann)
    np.savez(data, x=np.random.default_rng(0).normal(size=(4, 3, 8, 8)).astype(np.float32))
    options = ("--weights", "int8", "--input-bits", "8", "--input-range", "-3", "3")
    assert run("rewrite", ann, "-o", snn, *options)[0] == 0
    status, out, _ = run("verify", ann, snn, "--data", data)
    assert status == 0 and out.endswith("\nmeasured: no difference was found, but not all was compared\n")
    assert "given the same input: 1 of 1 (1 of them against its integer form)\n" in out
    assert "\noutput values with other bits than the integer form's, run as an ANN: 0 of " in out


SHARES = {
    "all": f"{qcfs('c', 'a')} [second] y = Conv (a, v)",
    "some": f"{qcfs('c', 'a')} [second] d = Conv (a, v) [third] e = Conv (d, v) [fourth] y = Conv (e, v)",
    "none": f"{qcfs('c', 'a')} [soft] s = Softmax (a) [second] y = Conv (s, v)",
}


@pytest.mark.usefixtures("library")
@pytest.mark.parametrize("share", SHARES)
def test_the_share_on_spikes_is_told_and_what_has_none_is_no_spiking_network(share, tmp_path, run):
    weights = {"w": weight(3, 3, 1, 1), "v": weight(3, 3, 1, 1)}
    ann, snn, data = tmp_path / "m.onnx", tmp_path / "snn.onnx", tmp_path / "d.npz"
    onnx.save(network(f"[stem] c = Conv (x, w) {SHARES[share]}", weights=weights), ann)
    np.savez(data, x=np.ones((2, 3, 8, 8), np.float32))
    besides = "read spikes; 576 more read the network's inputs\n"
    expected = {
        "all": [f"spike-driven: 576 of 576 multiply-accumulates (100.00 %) {besides}"],
        "some": [
            f"576 of 1,728 multiply-accumulates (33.33 %) {besides}",
            "without spikes: third and 1 more: it reads a current, what Conv 'second' gives\n",
        ],
        "none": [
            "this is no spiking network: none of 576 multiply-accumulates reads spikes; 576 more read the network's "
            "inputs\n",
            "without spikes: second: it reads what Softmax 'soft' gives, which is analog\n",
        ],
    }[share]
    bench = ["bench", ann, "--steps", "4", "--batch", "1", "--repeats", "1", "--data", data, "-o", tmp_path / "report"]
    for arguments in (["inspect", ann], ["rewrite", ann, "-o", snn], ["stats", snn], bench):
        out = run(*arguments)[1]
        assert all(line in out for line in expected), arguments
        # A file does not say what was asked for.
        helps = "--neurons products with --calibration puts a neuron in front of these products\n" in out
        assert helps == (share != "all" and arguments[0] != "stats"), arguments
        assert "spiking network" not in out.replace("no spiking network", "") or share != "none", arguments
        assert ("spike-driven" in out) == (share == "all"), arguments
        assert document(run, *arguments)["spike_driven"]["share"] == {"all": 1, "some": 1 / 3, "none": 0}[share]
    page = (tmp_path / "report" / "index.html").read_text()
    assert ("no spiking network" in page) == (share == "none")
    for called in ("spiking network", ">spiking", "spiking:"):
        assert (called in page.replace("no spiking network", "")) == (share != "none"), called


def test_inspect_and_calibrate_tell_what_reads_spikes_once_calibrated(tmp_path, run):
    ann, data = tmp_path / "m.onnx", tmp_path / "d.npz"
    nodes = "[stem] c = Conv (x, w) a = Relu (c) [second] d = Conv (a, v) [third] y = Conv (d, v)"
    onnx.save(network(nodes, weights={"w": weight(3, 3, 1, 1), "v": weight(3, 3, 1, 1)}), ann)
    np.savez(data, x=np.random.default_rng(0).normal(0, 1, (4, 3, 8, 8)).astype(np.float32))
    line = "576 of 1,152 multiply-accumulates (50.00 %) read spikes; 576 more read the network's inputs\n"
    why = "without spikes: third: it reads a current, what Conv 'second' gives\n"
    out = run("inspect", ann)[1]
    assert f"expected, once calibrated: {line}{why}" in out
    calibrate = ["calibrate", ann, "--data", data, "--steps", "4", "-o", tmp_path / "q.onnx"]
    assert f"rewritten: {line}{why}" in run(*calibrate)[1]
    expected = {"macs": 1728, "on_inputs": 576, "on_spikes": 576, "share": 0.5, "not_on_spikes": ["third"],
                "reasons": {"third": "it reads a current, what Conv 'second' gives"}, "on_means": {}}  # fmt: skip
    assert document(run, *calibrate)["spike_driven"] == expected
    assert document(run, "inspect", ann)["spike_driven"] == {**expected, "once_calibrated": True}


def test_stats_lists_what_it_cannot_count(tmp_path, run):
    nodes = f'{qcfs("x", "a")} y = Einsum <equation = "nchw,ock->nohw"> (a, v)'
    onnx.save(network(nodes, weights={"v": weight(3, 3, 1)}), tmp_path / "m.onnx")
    run("rewrite", tmp_path / "m.onnx", "-o", tmp_path / "snn.onnx")
    status, out, _ = run("stats", tmp_path / "snn.onnx")
    assert status == 0
    assert "not counted: y/steps (Einsum)\n" in out
    assert ["y/steps", "Einsum", "spikes", "-", "-", "-"] in [line.split() for line in out.splitlines()]


def test_stats_of_an_ann_is_refused(ann, refusal):
    assert refusal("stats", ann) == f"'{ann}' was not rewritten; pass what pconv-onnx rewrite wrote"


def test_stats_says_which_array_is_missing(snn, tmp_path, refusal):
    np.savez(tmp_path / "d.npz", image=np.ones((3, 3, 8, 8), np.float32))
    told = refusal("stats", snn, "--data", tmp_path / "d.npz")
    assert told.startswith(f"'{tmp_path}/d.npz' has no array 'x', which is an input of the model; it has 'image'")


def test_swapped_arguments_are_told(ann, snn, refusal):
    assert f"'{ann}' was not written by pconv-onnx rewrite; pass the ANN first" in refusal("verify", snn, ann)


def test_libraries_that_print_do_not_reach_stdout(ann, run, monkeypatch):
    def noisy(source, **options):
        print("[W] a warning of a library")
        warnings.warn("of another kind", stacklevel=1)
        return {"activations": [], "counts": {}}

    monkeypatch.setattr("pconv_onnx.rewriting.inspect", noisy)
    status, out, err = run("inspect", ann, "--json")
    assert (status, json.loads(out)) == (0, {"activations": [], "counts": {}})
    assert err == "[W] a warning of a library\npconv-onnx: warning: of another kind\n"


def test_a_missing_library_is_one_line_on_stderr(ann, snn, tmp_path, run, monkeypatch):
    monkeypatch.setattr(native, "_LIBRARY_FOLDER", tmp_path / "nowhere")
    status, out, err = run("verify", ann, snn, "--json")
    assert status == 0 and json.loads(out)["passed"]
    (line,) = err.splitlines()
    assert line.startswith("pconv-onnx: warning: this installation of pconv-onnx has no native library; ")


def test_names_that_the_terminal_cannot_show_are_escaped(tmp_path):
    path = tmp_path / "θ.onnx"
    onnx.save(network(qcfs("x", "y")), path)
    done = spawn("rewrite", path, stdout=subprocess.PIPE, env=os.environ | {"PYTHONIOENCODING": "ascii"})
    assert (done.returncode, done.stderr) == (0, b"")
    assert rb"\u03b8.snn.onnx: mode parallel, T = 4" in done.stdout


def test_names_that_a_terminal_would_act_on_are_escaped(tmp_path, capsys):
    name = "red\x1b[31m\u202e\n"
    model = network(f"c = Conv (x, w) {qcfs('c', 'y')}", weights={"w": weight(3, 3, 1, 1)})
    for node in model.graph.node:
        node.name = name
        node.metadata_props.add(key="pkg.torch.onnx.name_scopes", value=repr(["", name, "node"]))
    onnx.save(model, tmp_path / "m.onnx")
    assert main(["inspect", str(tmp_path / "m.onnx")]) == 0
    told = capsys.readouterr().out
    assert r"red\x1b[31m\u202e\n" in told
    assert all(line.isprintable() for line in told.splitlines())
    assert str(PconvError(f"no '{name}'")) == r"no 'red\x1b[31m\u202e '"


def test_a_full_disk_under_stdout_is_told(ann):
    with open("/dev/full", "wb") as full:
        done = spawn("inspect", ann, stdout=full)
    assert (done.returncode, done.stderr) == (
        1,
        b"pconv-onnx: cannot write the answer to stdout: No space left on device\n",
    )


def test_a_reader_that_went_away_is_no_fault(ann):
    reading, writing = os.pipe()
    os.close(reading)
    done = spawn("inspect", ann, stdout=writing)
    os.close(writing)
    assert (done.returncode, done.stderr) == (0, b"")


def test_an_interruption_is_one_line(ann, run, monkeypatch):
    def interrupted(source, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr("pconv_onnx.rewriting.inspect", interrupted)
    assert run("inspect", ann) == (130, "", "pconv-onnx: interrupted\n")


def test_an_interrupted_calibration_says_where_it_lies_and_continues(tmp_path, run, monkeypatch):
    relu, kept, choose = tmp_path / "relu.onnx", tmp_path / "kept.npz", sweep.choose
    nodes = "a = Conv (x, w) r = Relu (a) b = Conv (r, w) s = Relu (b) y = Conv (s, w)"
    onnx.save(network(nodes, weights={"w": weight(3, 3, 1, 1)}), relu)
    command = ["calibrate", relu, "--data", "random", "--steps", "4", "--cache", kept, "-o", tmp_path / "q.onnx"]

    calls: list[int] = []

    def interrupted(*given, **options):
        if calls and not kept.exists():
            raise KeyboardInterrupt
        calls.append(1)
        return choose(*given, **options)

    monkeypatch.setattr(sweep, "choose", interrupted)
    told = f"pconv-onnx: interrupted; '{kept}' keeps 1 of 2 activations, and the next run continues there\n"
    assert run(*command) == (130, "", told)
    assert not (tmp_path / "q.onnx").exists()
    status, _, err = run(*command)
    told = f"note: '{kept}' is of a run that was interrupted: calibration continues at 1 of 2 activations"
    assert status == 0 and err.splitlines()[0] == f"pconv-onnx: {told}" and len(calls) == 2


ENDED = """
import os, signal, sys
from pconv_onnx.calibration import sweep
from pconv_onnx.cli.main import main
choose = sweep.choose
def ended(*given, **options):
    assert any(name.startswith("pconv-calibration-") for name in os.listdir(os.environ["TMPDIR"]))
    os.kill(os.getpid(), signal.SIGTERM)
    return choose(*given, **options)
sweep.choose = ended
status = main(sys.argv[1:])
assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
sys.exit(status)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows ends a process without a signal")
def test_a_scheduler_that_ends_a_job_interrupts_it(tmp_path):
    relu, folder = tmp_path / "relu.onnx", tmp_path / "temporary"
    onnx.save(network("a = Conv (x, w) y = Relu (a)", weights={"w": weight(3, 3, 1, 1)}), relu)
    folder.mkdir()
    command = ["calibrate", "--data", "random", "--steps", "4", "-o", tmp_path / "q.onnx", relu]
    done = subprocess.run(
        [sys.executable, "-c", ENDED, *map(str, command)],
        capture_output=True,
        text=True,
        env=os.environ | {"TMPDIR": str(folder)},
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "pconv-onnx: interrupted\n")
    assert not [*folder.glob("pconv-*")] and not (tmp_path / "q.onnx").exists()


def test_several_numbers_of_steps_are_calibrated_for_at_once(tmp_path, run, refusal):
    relu, data = tmp_path / "relu.onnx", tmp_path / "data.npz"
    onnx.save(network("a = Conv (x, w) y = Relu (a)", weights={"w": weight(3, 3, 1, 1)}), relu)
    np.savez(data, x=np.random.default_rng(0).normal(size=(8, 3, 8, 8)).astype(np.float32))
    command = ["calibrate", relu, "--data", data, "--steps", 2, 4]
    told = refusal(*command, "-o", tmp_path / "q.onnx", status=2)
    assert "q.onnx' is one file for 2 numbers of time-steps; name it with {steps} in the place of T" in told
    status, out, _ = run(*command, "-o", tmp_path / "q-{steps}.onnx", "--json")
    documents = json.loads(out)["calibrations"]
    assert status == 0 and [one["steps"] for one in documents] == [2, 4]
    for one in documents:
        name = tmp_path / f"q-{one['steps']}.onnx"
        status, out, _ = run(*command[:-2], one["steps"], "-o", tmp_path / "alone.onnx", "--json")
        assert json.loads(out) == one | {"output": str(tmp_path / "alone.onnx")} and one["output"] == str(name)
        assert name.read_bytes() == (tmp_path / "alone.onnx").read_bytes()
    status, out, _ = run(*command)
    assert status == 0 and sum("method refit" in line for line in out.splitlines()) == 2
    assert (tmp_path / "relu.quantised-2.onnx").exists() and (tmp_path / "relu.quantised-4.onnx").exists()


def test_calibration_is_a_command_and_an_option(tmp_path, run):
    relu, data = tmp_path / "relu.onnx", tmp_path / "data.npz"
    onnx.save(network("a = Conv (x, w) y = Relu (a)", weights={"w": weight(3, 3, 1, 1)}), relu)
    np.savez(data, x=np.random.default_rng(0).normal(0, 1, (20, 3, 8, 8)).astype(np.float32))
    found = document(
        run, "calibrate", relu, "--data", data, "--steps", "4", "-o", tmp_path / "q.onnx", "--method", "mse"
    )
    (row,) = found["activations"]
    assert (row["name"], row["status"], row["channels"], row["silent_channels"]) == ("y", "calibrated", 3, 0)
    assert (found["steps"], found["method"], found["samples"], found["output"]) == (
        4,
        "mse",
        20,
        str(tmp_path / "q.onnx"),
    )
    assert inspect_rows(tmp_path / "q.onnx") == [("qcfs", 4)]
    status, out, err = run("calibrate", relu, "--data", "random", "--steps", "4")
    assert status == 0 and err == ""
    assert "the data were random: the network is good for measuring time, and its accuracy means nothing" in out
    assert (tmp_path / "relu.quantised.onnx").exists()
    status, out, err = run("rewrite", relu, "--calibration", data, "--steps", "4", "-o", tmp_path / "snn.onnx")
    assert status == 0
    assert "T = 4, method refit, 20 samples, corrected layers: 1" in out
    status, out, _ = run("verify", relu, tmp_path / "snn.onnx", "--data", data)
    assert status == 0 and out.endswith("\nmeasured: no difference was found, but not all was compared\n")
    assert "given the same input: 1 of 1 (1 of them against what calibration made of it)\n" in out
    assert "not compared: outputs, since a calibration gave 1 neuron levels that the source does not have\n" in out
    assert "T other than" not in out
    status, out, err = run("rewrite", relu, "-o", tmp_path / "other.onnx")
    assert status == 1
    assert "a ReLU has no levels of its own" in err and "pass --calibration data.npz --steps T" in err


def inspect_rows(path):
    return [(row["encoding"], row["levels"]) for row in pconv_onnx.inspect(path)["activations"]]


@pytest.mark.parametrize(
    ("text", "size"),
    [("1048576", 1 << 20), ("64MiB", 64 << 20), ("1.5GiB", 3 << 29), ("2 GiB", 2 << 30), ("1GB", 10**9), ("9B", 9)],
)
def test_memory_is_given_in_the_units_that_people_write(text, size):
    assert parser().parse_args(["stats", "s.onnx", "--memory", text]).memory == size


def test_memory_goes_to_what_runs(run, ann, snn):
    assert run("verify", ann, snn, "--memory", "64MiB")[0] == run("stats", snn, "--memory", "64MiB")[0] == 0
    for arguments in (["verify", ann, snn], ["stats", snn]):
        status, _, told = run(*arguments, "--memory", "1KiB")
        assert (status, "1024 bytes are too few for activations" in told) == (1, True)


def test_a_name_that_options_take_is_whole_in_its_column_and_others_are_cut():
    row = {"name": "n" * 400, "encoding": "e" * 400, "levels": 4, "steps": 4, "coding": "rate", "zero": 0}
    row |= {"status": "convertible", "op_types": []}
    summary = {
        "activations": [row | {"reason": None}],
        "counts": {"converted": 1, "needs_calibration": 0, "refused": 0},
        "hybrid": [],
        "bypassed": [],
        "spike_driven": {"macs": 0, "on_inputs": 0, "on_spikes": 0, "share": None, "reasons": {}},
    }
    name, encoding, *_ = as_text(plan_lines, summary).splitlines()[1].split()
    assert (name, len(encoding)) == ("n" * 400, 120)


def test_names_of_a_megabyte_are_cut_in_lines_and_whole_in_json(tmp_path, capsys):
    name = "n" * 1_000_000
    model = network(f"c = Conv (x, w) {qcfs('c', 'y')}", weights={"w": weight(3, 3, 1, 1)})
    for node in model.graph.node:
        node.metadata_props.add(key="pkg.torch.onnx.name_scopes", value=repr(["", name, "node"]))
    onnx.save(model, tmp_path / "m.onnx")
    assert main(["inspect", str(tmp_path / "m.onnx")]) == 0
    told = capsys.readouterr().out
    assert "nnn…nnn" in told
    # The row of a name that options take, and what is said of one.
    assert max(map(len, told.splitlines())) < 700
    assert main(["inspect", str(tmp_path / "m.onnx"), "--json"]) == 0
    (activation,) = json.loads(capsys.readouterr().out)["activations"]
    assert activation["name"] == name
    assert main(["rewrite", str(tmp_path / "m.onnx"), "--exclude", name]) == 1
    told = capsys.readouterr().err
    assert len(told.splitlines()) == 1 and len(told) < 3000


INTEGERS = ["--weights", "int8", "--input-bits", "8", "--input-range", "-4", "4"]


@pytest.mark.parametrize("command", ["rewrite", "evaluate", "bench"])
@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--weights", "int16"], "argument --weights: invalid choice: 'int16'"),
        # What argparse says of these depends on Python.
        (["--weights", "int8", "--input-bits", "4"], "argument --input-bits: invalid choice: "),
        (["--weights", "int8", "--input-range", "1", "--input-bits", "8"], "argument --input-range: "),
        (
            ["--weights", "int8", "--input-bits", "8", "--input-range", "a", "1"],
            "argument --input-range: invalid float",
        ),
        (["--input-bits", "8"], "quantised inputs are for integer weights; pass --weights int8 as well"),
        (["--input-range", "0", "1"], "a range of inputs is for quantised ones; pass --input-bits 8 as well"),
        (["--weights", "int8", "--signed"], "integer weights and signed levels with an offset exclude each other"),
    ],
)
def test_options_of_integers_that_need_or_exclude_others_are_refused(ann, data, refusal, command, arguments, told):
    given = ["--data", data, "--steps", "4"] if command == "evaluate" else []
    assert told in refusal(command, ann, *given, *arguments, status=2)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--mode", "serial"], "integer weights and mode 'serial' exclude each other; leave one of them out"),
        (
            ["--precision", "float16"],
            "integer weights and precision 'float16' exclude each other; leave one of them out",
        ),
        (["--per-step-outputs"], "integer weights and outputs at each step exclude each other; leave one of them out"),
    ],
)
def test_what_integers_exclude_is_told(ann, refusal, arguments, told):
    assert refusal("rewrite", ann, *INTEGERS, *arguments, status=2) == told


@pytest.mark.parametrize("given", [["--weights", "int8"], ["--input-bits", "8"], ["--input-range", "0", "1"]])
def test_an_evaluation_without_steps_rounds_nothing(ann, data, refusal, given):
    told = refusal("evaluate", ann, "--data", data, *given, status=2)
    assert told == f"argument {given[0]}: nothing is rewritten without --steps"


@pytest.mark.parametrize(
    ("ends", "told"),
    [
        (["nan", "1"], "nan to 1 is no range of values for input 'x'; give two finite numbers, the lower first"),
        (["0", "inf"], "0 to inf is no range of values for input 'x'; give two finite numbers, the lower first"),
        (["1", "-1"], "1 to -1 is no range of values for input 'x'; give two finite numbers, the lower first"),
        (["0", "1e-40"], "0 to 1e-40 has no 8-bit codes in float32 for input 'x'; give another --input-range"),
    ],
)
def test_ranges_that_are_none_are_told(ann, refusal, ends, told):
    assert refusal("rewrite", ann, "--weights", "int8", "--input-bits", "8", "--input-range", *ends) == told
    assert files(ann.parent).keys() == {"ann.onnx"}


@pytest.fixture
def data(ann):
    path = ann.with_name("data.npz")
    x = np.random.default_rng(0).normal(0, 1, (12, 3, 8, 8)).astype(np.float32)
    np.savez(path, x=x, labels=np.arange(12) % 5)
    return path


@pytest.mark.parametrize("mode", ["parallel", "folded"])
def test_a_network_of_integers_goes_through_every_command(ann, data, run, mode):
    spiking = ann.with_name("snn.onnx")
    status, out, err = run("rewrite", ann, "-o", spiking, "--mode", mode, *INTEGERS, "--json")
    assert (status, err) == (0, "")
    integer = json.loads(out)["integer"]
    assert (integer["weights"], integer["input_bits"], integer["exact"], integer["islands"]) == ("int8", 8, True, {})
    assert [layer["name"] for layer in integer["layers"]] == ["c", "d", "y"]
    status, out, err = run("verify", ann, spiking, "--data", data, "--json")
    assert (status, err) == (0, "")
    found = json.loads(out)["integer"]
    assert (found["exact"], found["differing"], found["elements"] > 0) == (True, 0, True)
    status, out, err = run("verify", ann, spiking, "--data", data)
    assert (status, err) == (0, "")
    assert "output values with other bits than the integer form's, run as an ANN: 0 of" in out
    status, out, err = run("stats", spiking, "--data", data, "--json")
    assert (status, err) == (0, "")
    status, out, err = run("evaluate", ann, "--data", data, "--steps", "4", "--mode", mode, *INTEGERS, "--json")
    assert (status, err) == (0, "")


def test_the_report_of_a_command_names_options(tmp_path, run):
    pytest.importorskip("matplotlib")
    ann, data, report = tmp_path / "ann.onnx", tmp_path / "d.npz", tmp_path / "report"
    weights = {"w": weight(3, 3, 1, 1), "low": np.float32(-1), "high": np.float32(1)}
    signs = "b = GreaterOrEqual (d, low) y = Where (b, high, low)"
    onnx.save(network(f"c = Conv (x, w) {qcfs('c', 'a')} d = Conv (a, w) {signs}", weights=weights), ann)
    np.savez(data, x=np.ones((2, 3, 8, 8), np.float32))
    assert run("bench", ann, "--steps", "4", "--batch", "1", "--repeats", "1", "--data", data, "-o", report)[0] == 0
    for name in ("index.html", "bench.json"):
        text = (report / name).read_text()
        assert "--signed converts it all the same" in text and "signed=True" not in text, name


@pytest.mark.slow
def test_bench_measures_networks_of_integers(ann, run):
    status, out, err = run("bench", ann, *INTEGERS, "--batch", "1", "--repeats", "1", "--json")
    assert (status, err) == (0, "")
    assert json.loads(out)


def test_weights_of_a_calibration_data_s_choice(ann, data, run):
    """A network that has levels takes data for its weights, and for the range of its inputs."""
    status, out, err = run("rewrite", ann, "--weights", "int4", "--input-bits", "8", "--calibration", data, "--json")
    assert (status, err) == (0, "")
    integer = json.loads(out)["integer"]
    assert integer["samples"] == 12
    assert integer["inputs"][0]["lowest"] < 0 < integer["inputs"][0]["highest"]
