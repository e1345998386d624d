"""The command line: what it prints, what it refuses, and that a refusal overwrites nothing."""

import argparse
import dataclasses
import errno
import io
import json
import os
import shlex
import signal
import subprocess
import sys

import pytest
import torch

from dcil import RunConfig, authors, machine
from dcil.cli import main as cli
from dcil.cli import train
from dcil.cli.options import values_of_config
from dcil.config import PRESETS
from dcil.data import datasets
from dcil.lab.checkout import root

TRAIN = ["train", "--model", "resnet8", "--epochs", "2", "--batch-size", "10", "--mask-period", "2", "--ramp-end", "1",
         "--device", "cpu", "--quiet"]  # fmt: skip


@pytest.fixture
def here(tmp_path, monkeypatch, tiny_dataset):
    """An empty working directory, and a tiny data set in place of every named one."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(datasets, "load", lambda *args, **kwargs: tiny_dataset)
    return tmp_path


def run(capsys, *argv):
    """Run one command in this process; returns (exit code, stdout, stderr)."""
    code = cli.main([str(a) for a in argv])
    return code, *capsys.readouterr()


def refused(capsys, *argv):
    """Run a command that must be refused in one line; returns the line."""
    code, _, err = run(capsys, *argv)
    line = err.strip()
    assert code == 2 and line.startswith("dcil: error: ") and "\n" not in line and "Traceback" not in line
    return line


def only_run(folder):
    """Return the folder of the only run."""
    (found,) = (folder / "runs").iterdir()
    return found


def contents(folder):
    """Return every file under a folder with its bytes."""
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


# --- train


def test_train_says_what_runs_and_where_it_ended(here, capsys):
    code, out, err = run(capsys, *TRAIN, "--records-dir", "records")
    assert code == 0 and err == ""
    record = json.loads((only_run(here) / "record.json").read_text())
    lines = out.splitlines()
    threads = torch.get_num_threads()
    assert lines[0].startswith("device ") and lines[0].endswith(f"(cpu), precision float32, {threads} thread(s)")
    assert lines[1] == f"run {record['run_id']}"
    for line, name in zip(lines[2:4], ("sparse", "dense"), strict=True):
        end = record["final"]["passes"][name]
        assert line == (
            f"{name} pass: top-1 {end['last']['top1']:.2f} % at the last epoch (best at target "
            f"{end['best_at_target']['top1']:.2f} %, epoch 2, chosen on the test set)"
        )
    assert lines[4].startswith(f"sparsity {record['curve'][-1]['sparsity']:.4f}, ")
    assert lines[5] == f"record runs/{record['run_id']}/record.json"
    taken = here / "records" / f"{record['run_id']}.json"
    assert taken.read_bytes() == (only_run(here) / "record.json").read_bytes()
    before = contents(here)
    code, out, _ = run(capsys, *TRAIN)
    assert code == 0 and "complete already" in out and contents(here) == before


def test_train_shows_its_progress_unless_quiet(here, capsys):
    _, _, err = run(capsys, *(word for word in TRAIN if word != "--quiet"))
    assert "epoch   2/2" in err


def test_an_interrupted_run_resumes_with_the_same_command(here, capsys, monkeypatch):
    """Ctrl-C writes a checkpoint after the current step and exits with code 130; the same command goes on."""
    from dcil.trainer import Trainer

    step = Trainer.step

    def press_ctrl_c(self, *words):
        step(self, *words)
        if len(self.curve) == 1 and not self.steps_done:
            signal.raise_signal(signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "step", press_ctrl_c)
        code, _, err = run(capsys, *TRAIN)
    assert code == 130 and "stopped by Ctrl-C after 1." in err and "The same command goes on from here" in err
    code, _, err = run(capsys, *(word for word in TRAIN if word != "--quiet"))
    assert code == 0 and err.startswith("going on after 1.") and " of 2 epochs\n" in err
    first, second = json.loads((only_run(here) / "record.json").read_text())["cost"]["sessions"]
    assert first["first_epoch"] == 0 and 1 < first["epochs"] == second["first_epoch"] < 2


@pytest.mark.parametrize("number, name", [(signal.SIGINT, "Ctrl-C"), (signal.SIGTERM, "SIGTERM")])
def test_interrupted_before_the_first_step(here, capsys, monkeypatch, number, name):
    """A signal while data load ends the command at once, with the signal's name and exit code."""
    monkeypatch.setattr(datasets, "load", lambda *_: signal.raise_signal(number))
    code, _, err = run(capsys, *TRAIN)
    assert code == 128 + number and err == f"\ndcil: interrupted by {name}\n"


def test_a_time_limit_ends_with_try_again(here, capsys):
    """A time limit lets one step run at least, and exits with code 75 while epochs are left."""
    code, _, err = run(capsys, *TRAIN, "--max-minutes", "0.00001")
    assert code == 75 and "stopped by the limit of 1e-05 min after 0." in err and "epochs are left, about" in err
    assert "must be a positive number of minutes" in refused(capsys, *TRAIN, "--max-minutes", "0")


def parsed(*argv):
    """Return the configuration fields that a command gives."""
    return values_of_config(cli.build_parser().parse_args(["train", *argv]))


def test_options_follow_the_configuration(capsys, monkeypatch):
    assert parsed() == {}
    assert parsed("--milestones", "8", "12", "--lr", "0.5") == {"milestones": [8, 12], "lr": 0.5}
    assert parsed("--milestones") == {"milestones": []}
    assert parsed("--channels-last") == {"channels_last": True}
    assert parsed("--no-channels-last") == {"channels_last": False}
    monkeypatch.setenv("COLUMNS", "500")  # so that no reason is wrapped at a hyphen
    with pytest.raises(SystemExit, match="0"):
        cli.main(["train", "--help"])
    shown = " ".join(capsys.readouterr().out.split())
    for field in dataclasses.fields(RunConfig):
        assert f"--{field.name.replace('_', '-')}" in shown
        assert field.metadata["why"] in shown


@pytest.mark.parametrize("preset", [None, *PRESETS])
def test_what_is_not_given_comes_from_the_preset(here, capsys, monkeypatch, preset):
    seen = []

    def fit(config, **kwargs):
        seen.append(config)
        raise KeyboardInterrupt

    monkeypatch.setattr(train, "fit", fit)
    monkeypatch.setattr(machine, "has_bf16", lambda device: True)
    words = ["--preset", preset] if preset else []
    assert run(capsys, "train", *words, "--seed", 3, "--no-channels-last")[0] == 130
    assert seen == [RunConfig(**PRESETS.get(preset, {}) | {"seed": 3, "channels_last": False}).resolve()]


def test_a_machine_without_bf16(here, capsys, monkeypatch):
    """Without bf16 instructions a preset's bf16 becomes float32, and explicit bf16 stays; the command says either."""
    seen = []

    def fit(config, **kwargs):
        seen.append(config.precision)
        raise KeyboardInterrupt

    monkeypatch.setattr(train, "fit", fit)
    monkeypatch.setattr(machine, "has_bf16", lambda device: False)
    fitted = run(capsys, "train", "--preset", "quick", "--device", "cpu")
    asked = run(capsys, "train", "--preset", "quick", "--device", "cpu", "--precision", "bf16")
    plain = run(capsys, "train", "--preset", "smoke", "--device", "cpu")
    assert seen == ["float32", "bf16", "float32"]
    assert "precision float32 (the preset's bf16 would be emulated on this device, slower)" in fitted[1]
    assert "precision bf16 (emulated: this device has no bf16 instructions, float32 would be faster)" in asked[1]
    assert "precision float32," in plain[1]


@pytest.mark.parametrize(
    "words, said",
    [
        (["--sparsity", "90"], "sparsity is 90.0; it is the fraction removed and must be in [0, 1); did you mean 0.9?"),
        (["--sparsity", "-0.1"], "must be in [0, 1)"),
        (["--sparsity", "much"], "argument --sparsity: invalid float value: 'much'"),
        (["--epochs", "0"], "epochs is 0; it must be a whole number of at least 1"),
        (["--epochs", "1.5"], "argument --epochs: invalid int value: '1.5'"),
        (["--method", "dcli"], "unknown method 'dcli': did you mean 'dcil'?"),
        (["--model", "resent20"], "unknown model 'resent20': did you mean 'resnet20'?"),
        (["--dataset", "cifar-10"], "unknown dataset 'cifar-10': did you mean 'cifar10'?"),
        (["--preset", "quik"], "unknown preset 'quik': did you mean 'quick'?"),
        (["--sparsty", "0.9"], "unknown option '--sparsty': did you mean '--sparsity'?"),
        (["--batchsize=5"], "unknown option '--batchsize': did you mean '--batch-size'?"),
        (["--spars", "0.9"], "unknown option '--spars'"),
        (["0.9"], "'0.9' is one argument too many"),
        (["--device", "cuda"], "this PyTorch sees no GPU"),
    ],
)
def test_bad_options_are_refused(here, capsys, monkeypatch, words, said):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert said in refused(capsys, "train", *words)
    assert contents(here) == {}


def test_missing_data_are_named(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    line = refused(capsys, "train", "--dataset", "cifar10", "--device", "cpu", "--data-dir", "nowhere")
    assert "cifar10 is not in" in line and "nowhere" in line and "--download" in line
    assert contents(tmp_path) == {}
    inner = tmp_path / "cifar-10-batches-py"
    inner.mkdir()
    (inner / "data_batch_1").write_bytes(b"")
    line = refused(capsys, "train", "--dataset", "cifar10", "--device", "cpu", "--data-dir", str(inner))
    assert f"Give the folder above it, {tmp_path}, with --data-dir" in line
    line = refused(capsys, "train", "--dataset", "imagefolder", "--device", "cpu", "--data-dir", "nowhere")
    assert "nowhere has no folder 'train'" in line


def test_a_runs_folder_that_cannot_be_written(here, capsys):
    (here / "runs").write_text("mine")
    assert "choose another --runs-dir" in refused(capsys, *TRAIN)
    assert (here / "runs").read_text() == "mine"


@pytest.mark.parametrize("file", ["record.json", "checkpoint.pt"])
def test_a_damaged_file_of_the_run_is_left(here, capsys, file):
    assert run(capsys, *TRAIN)[0] == 0
    folder = only_run(here)
    if file == "checkpoint.pt":
        for name in ("record.json", "previous.pt"):  # so that this is the only checkpoint left
            (folder / name).unlink()
    damaged = folder / file
    damaged.write_bytes(damaged.read_bytes()[:-200])
    before = contents(here)
    line = refused(capsys, *TRAIN)
    assert file in line and "left as it is" in line
    assert contents(here) == before
    assert run(capsys, *TRAIN, "--no-resume")[0] == 0


def test_a_record_that_differs_is_not_overwritten(here, capsys):
    assert run(capsys, *TRAIN, "--records-dir", "records")[0] == 0
    (taken,) = (here / "records").iterdir()
    other = json.loads(taken.read_text())
    other["environment"]["device"] = "another machine"
    taken.write_text(json.dumps(other))
    assert "nothing was overwritten" in refused(capsys, *TRAIN, "--records-dir", "records")
    assert json.loads(taken.read_text()) == other


# --- records


@pytest.fixture
def records_folder(here, capsys):
    """A folder with the records of two short runs."""
    for method in ("dcil", "ste"):
        assert run(capsys, *TRAIN, "--method", method, "--records-dir", "records")[0] == 0
    return here / "records"


def test_records_list_filters_and_aligns(records_folder, capsys):
    code, out, _ = run(capsys, "records", "list")
    header, *rows, count = out.splitlines()
    assert code == 0 and count == "2 record(s) in records" and len(rows) == 2
    record = json.loads(next(records_folder.glob("*-dcil-*")).read_text())
    ends = record["final"]["passes"]
    assert rows[0].startswith(record["run_id"]) and record["environment"]["device"] in rows[0]
    assert f"sparse {ends['sparse']['last']['top1']:.2f}, dense {ends['dense']['last']['top1']:.2f}" in rows[0]
    assert header.index("tier") == rows[0].index("smoke") == rows[1].index("smoke")
    assert run(capsys, "records", "list", "--method", "ste")[1].splitlines()[-1] == "1 record(s) in records, method ste"
    assert run(capsys, "records", "list", "--tier", "paper")[1] == "0 record(s) in records, tier paper\n"
    assert "unknown method 'dcli': did you mean 'dcil'?" in refused(capsys, "records", "list", "--method", "dcli")
    refusal = refused(capsys, "records", "list", "--records-dir", "nowhere")
    assert f"there is no folder nowhere; the book's records are in {root() / 'records'}" in refusal
    assert "unknown precision 'fp32': did you mean 'float32'?" in refused(capsys, "claims", "--precision", "fp32")


def test_records_add_checks_every_file_first(records_folder, capsys):
    good, bad = sorted(records_folder.iterdir())
    bad.write_text(bad.read_text()[:-100])
    assert bad.name in refused(capsys, "records", "add", good, bad, "--records-dir", "new")
    assert not (records_folder.parent / "new").exists()
    code, out, _ = run(capsys, "records", "add", good, "--records-dir", "new")
    assert code == 0 and out.strip() == f"new/{good.name}"
    assert "there is no record nowhere.json" in refused(capsys, "records", "add", "nowhere.json")


def test_records_add_takes_a_run_s_folder(records_folder, capsys):
    """As `records diff` does, with the completion of a shell: runs/RUN-ID/."""
    good = min(records_folder.iterdir())
    folder = records_folder.parent / "a run"
    folder.mkdir()
    assert f"there is no record {folder / 'record.json'}" in refused(capsys, "records", "add", f"{folder}/")
    good.rename(folder / "record.json")
    code, out, _ = run(capsys, "records", "add", f"{folder}/", "--records-dir", "new")
    assert code == 0 and out.strip() == f"new/{good.name}"


NOT_UTF8 = [] if sys.platform == "darwin" else [b"\xff\xfea"]  # a Mac's file names are UTF-8


@pytest.mark.parametrize("name", [b"a\ndcil: all is well", b"\x1b[2Ja", *NOT_UTF8], ids=repr)
def test_names_of_files_print_no_lines_of_their_own(records_folder, capsys, name):
    """Line breaks, escape sequences and bytes that are not UTF-8 are printed as escapes, in errors and in listings."""
    name = os.fsdecode(name)
    (records_folder.parent / f"{name}.json").write_text("{}")
    shown = "a\\n" if "\n" in name else "\\x1b[2Ja" if "\x1b" in name else "\\udcff\\udcfea"
    assert shown in refused(capsys, "records", "add", f"{name}.json")
    (good, *_) = records_folder.iterdir()
    code, out, _ = run(capsys, "records", "add", good, "--records-dir", name)
    assert code == 0 and shown in out and out.count("\n") == 1 and "\x1b" not in out


def test_records_check_names_the_bad_ones(records_folder, capsys):
    assert run(capsys, "records", "check")[:2] == (0, "2 record(s) in records, 0 bad\n")
    one, two = sorted(records_folder.iterdir())
    one.write_text("{}")
    two.rename(records_folder / "misnamed.json")
    before = contents(records_folder)
    code, out, err = run(capsys, "records", "check", records_folder)
    assert code == 2 and out.endswith("2 bad\n") and contents(records_folder) == before
    assert len(err.splitlines()) == 2 and one.name in err and f"misnamed.json holds the run {two.stem}" in err


def test_records_list_shows_the_sound_ones_beside_a_bad_one(records_folder, capsys):
    """A damaged file hides no other run: it is named, and the exit code is 2."""
    damaged, sound = sorted(records_folder.iterdir())
    damaged.write_text("{")
    code, out, err = run(capsys, "records", "list")
    _, row, count = out.splitlines()
    assert code == 2 and row.startswith(sound.stem) and count == "1 record(s) in records; 1 bad, not listed"
    assert len(err.splitlines()) == 1 and damaged.name in err


# --- authors


def test_authors_fetch(here, capsys, monkeypatch):
    seen = []
    monkeypatch.setattr(authors, "fetch", lambda name, folder: seen.append((name, str(folder))) or f"{folder}/{name}")
    monkeypatch.setenv("DCIL_DATA", "elsewhere")
    assert run(capsys, "authors", "fetch", "cifar10_90_run8")[:2] == (0, "elsewhere/authors/cifar10_90_run8\n")
    assert run(capsys, "authors", "fetch", "all", "--to", "here")[0] == 0
    assert seen[1:] == [(name, "here") for name in authors.KNOWN]
    assert "did you mean 'cifar10_90_run8'?" in refused(capsys, "authors", "fetch", "cifar10_90_run9")


def test_authors_check(here, capsys, monkeypatch):
    class Loaded:
        class net:
            fc = torch.nn.Linear(2, 10)

    (here / "mine.pth").write_bytes(b"")
    (here / "cifar10_90_run8.npz").write_bytes(b"")
    found = {"sparse": 93.2, "dense": 93.79, "kept": 46378, "prunable": 463792}
    monkeypatch.setattr(authors, "load", lambda path: Loaded)
    monkeypatch.setattr(authors, "evaluate", lambda dual, dataset: found)
    code, out, _ = run(capsys, "authors", "check", "mine.pth", "cifar10_90_run8.npz")
    rows = [line.split() for line in out.splitlines()]
    assert code == 0
    assert rows[1] == ["mine.pth", "sparse", "93.2", "unknown"]
    assert rows[6] == ["cifar10_90_run8.npz", "dense", "93.79", "93.79"]
    found["dense"] = 93.78
    assert run(capsys, "authors", "check", "cifar10_90_run8.npz")[0] == 1
    monkeypatch.undo()
    assert "cannot be read" in refused(capsys, "authors", "check", here / "mine.pth")


# --- the rest


def test_lists(capsys):
    for what, first, name in (("methods", "method", "dcil"), ("models", "model", "resnet32")):
        code, out, _ = run(capsys, what)
        names = [line.split()[0] for line in out.splitlines()]
        assert code == 0 and names[0] == first and name in names


def commands(parser, words=()):
    """Return the words of a parser and of every command below it."""
    below = [a for a in parser._actions if isinstance(a, argparse._SubParsersAction)]
    return [
        list(words),
        *(
            found
            for action in below
            for name, inner in action.choices.items()
            for found in commands(inner, (*words, name))
        ),
    ]


def parser_of(words):
    """Return the parser of a command."""
    parser = cli.build_parser()
    for word in words:
        (below,) = (a for a in parser._actions if isinstance(a, argparse._SubParsersAction))
        parser = below.choices[word]
    return parser


@pytest.mark.parametrize("words", commands(cli.build_parser()), ids=" ".join)
def test_the_home_folder_in_every_option_that_names_a_place(words, monkeypatch):
    """`~` is expanded, which no shell does in `--runs-dir=~/x`; data folders go through `data_folder`."""
    monkeypatch.setenv("HOME", "/home/me")
    for action in parser_of(words)._actions:
        if action.metavar in ("D", "DIR", "FILE") and action.dest != "data_dir":
            assert str(action.type("~/x")) == "/home/me/x", action.dest


def test_the_home_of_nobody(capsys):
    assert "argument --runs-dir: ~nouser/x: " in refused(capsys, "train", "--runs-dir", "~nouser/x")


@pytest.mark.parametrize("words", commands(cli.build_parser()), ids=" ".join)
def test_every_command_has_help(capsys, words):
    with pytest.raises(SystemExit, match="0"):
        cli.main([*words, "--help"])
    assert capsys.readouterr().out.startswith(" ".join(["usage: python -m dcil", *words]))


@pytest.mark.parametrize(
    "words, said",
    [
        (["trian"], "unknown command 'trian': did you mean 'train'?"),
        (["records", "lst"], "unknown action 'lst': did you mean 'list'?"),
        (["records", "check", "--records-dri", "x"], "unknown option '--records-dri'"),
        (["records"], "the following arguments are required: ACTION. See: python -m dcil records --help"),
        ([], "the following arguments are required: COMMAND"),
    ],
)
def test_unknown_commands_are_refused(capsys, words, said):
    assert said in refused(capsys, *words)


def test_a_path_that_cannot_be_used(here, capsys):
    (here / "taken").write_text("mine")
    assert run(capsys, *TRAIN)[0] == 0
    assert "taken" in refused(capsys, *TRAIN, "--records-dir", "taken")
    assert (here / "taken").read_text() == "mine"


def test_the_real_thing(tmp_path):
    words = [sys.executable, "-m", "dcil", "train", "--sparsity", "1.5"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr == (
        "dcil: error: sparsity is 1.5; it is the fraction removed and must be in [0, 1); did you mean 0.015?\n"
    )
    assert list(tmp_path.iterdir()) == []


def test_a_reader_that_leaves_is_no_error():
    """`python -m dcil methods | head` ends quietly."""
    line = [sys.executable, "-m", "dcil", "methods"]
    with subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as run:
        run.stdout.close()
        assert (run.stderr.read(), run.wait()) == (b"", 141)


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-"])
def test_closed_streams(closed, tmp_path):
    """With closed output streams, as under a daemon or after `>&-`, a command does its work in silence."""
    words = shlex.join([sys.executable, "-m", "dcil", *TRAIN, "--dataset", "digits", "--epochs", "1", "--ramp-end", "0",
                        "--batch-size", "479", "--max-minutes", "0.00001"])  # fmt: skip
    done = subprocess.run(f"{words} {closed}", shell=True, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 75 and "Traceback" not in done.stderr
    assert (only_run(tmp_path) / "checkpoint.pt").exists()


class Full(io.StringIO):
    """A stream whose disk is full, or whose reader has gone."""

    def write(self, text):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_an_error_output_that_takes_nothing(here, monkeypatch):
    """No line for people ends a run, or changes the exit code, because it cannot be written."""
    monkeypatch.setattr(sys, "stderr", Full())
    words = [word for word in TRAIN if word != "--quiet"]
    assert cli.main([*words, "--max-minutes", "1e-9"]) == 75
    assert cli.main(words) == 0
    (record,) = here.glob("runs/*/record.json")
    assert cli.main(["records", "add", "absent.json"]) == 2
    (here / "grid.yaml").write_text("runs: [{serves: all, set: {preset: smoke, device: cpu, epochs: 1}}]")
    assert cli.main(["queue", "grid.yaml", "--no-separate"]) == 0


def test_an_input_closed_from_the_first(tmp_path):
    """An input closed with `<&-` counts as ended, so `--until-eof` stops the command."""
    code = "import time; from dcil.stopping import stop_at_eof; stop_at_eof(); time.sleep(60)"
    done = subprocess.run(f"{shlex.join([sys.executable, '-c', code])} <&-", shell=True, capture_output=True, text=True)
    assert done.returncode in (143, -15) and "Traceback" not in done.stderr


def test_a_missing_package_is_named(capsys, monkeypatch):
    """The error names the missing package instead of showing a traceback."""
    monkeypatch.setitem(sys.modules, "pandas", None)
    for name in [name for name in sys.modules if name.startswith("dcil.lab.")]:
        monkeypatch.delitem(sys.modules, name)
    assert "needs the package pandas" in refused(capsys, "claims")


def test_a_package_that_lacks_a_part(monkeypatch, capsys):
    """A release too old for another package is not called "not installed": the message names what it lacks."""

    def run(*_):
        raise ModuleNotFoundError("No module named 'onnxscript.torch_2_11'", name="onnxscript.torch_2_11")

    monkeypatch.setattr("dcil.cli.lists.list_methods", run)
    said = refused(capsys, "methods")
    assert "needs the package onnxscript.torch_2_11, which the installed onnxscript does not have; in" in said
