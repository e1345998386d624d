"""Untrusted files: each is refused in one sentence, quickly and in little memory. `CORPUS` lists them.

Hostile records are in `test_hostile_records.py`; damaged checkpoints and exports of our own in the tests of each.
"""

import contextlib
import errno
import io
import json
import os
import random
import re
import resource
import select
import signal
import subprocess
import sys
import zipfile
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dcil import models
from dcil.cli.main import main
from dcil.config import RunConfig
from dcil.data import datasets, decoding
from dcil.data.datasets import imagefolder
from dcil.data.decoding import Store
from dcil.errors import DcilError
from dcil.export import formats, trained_run
from dcil.export.formats import Card
from dcil.export.onnx_files import SEALED, sealed
from dcil.io import files
from dcil.runs import RunFolder
from dcil.train import fit

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="a child's memory is bounded as Linux counts it")
SECONDS, MIB = 100, 1000  # no case may take longer, on a busy machine, or allocate more
CARD = Card("run", "resnet8", 10, tuple("0123456789"), 0.9, "digits", 32, 32, (0.5,) * 3, (0.5,) * 3)


def bounded(argv):
    """Run a command in a child that may take `SECONDS` and `MIB`; returns its exit code and what it wrote to stderr."""
    out, into = os.pipe()
    pid = os.fork()
    if pid == 0:
        said, code = io.StringIO(), "an exception that main() lets through"
        used = int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + MIB * 2**20,) * 2)
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
            try:
                code = main([str(word) for word in argv])
            except BaseException as error:  # reported to the parent
                said.write(f"{type(error).__name__}: {error}")
        os.write(into, json.dumps([code, said.getvalue()]).encode()[:60_000])
        os._exit(0)
    os.close(into)
    ready, _, _ = select.select([out], [], [], SECONDS)
    if not ready:
        os.kill(pid, signal.SIGKILL)
    raw = os.read(out, 60_000)
    os.close(out)
    os.waitpid(pid, 0)
    return json.loads(raw or f'["none after {SECONDS} s", ""]')


# --- what is sent: each function makes files in a folder and returns the command that reads them


def fifo(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    os.mkfifo(path)
    return path


def picture(folder):
    Image.new("RGB", (8, 8)).save(folder / "picture.png")
    return folder / "picture.png"


def predicting(folder, path):
    return ["predict", picture(folder), "--from", path]


def exported(**changes):
    """Return a maker of a plain export of a small network, with changes to its content."""

    def make(folder):
        net, card = models.build("resnet8", 10), asdict(CARD) | changes.get("card", {})
        torch.save(
            {"schema": 1, "format": "state_dict", "state": net.state_dict()} | changes | {"card": card},
            folder / "net.pt",
        )
        return predicting(folder, folder / "net.pt")

    return make


def compressed(folder):
    exported()(folder)
    packed = zipfile.ZipFile(folder / "small.pt", "w", zipfile.ZIP_DEFLATED)
    with zipfile.ZipFile(folder / "net.pt") as old, packed as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))
    return predicting(folder, folder / "small.pt")


def onnx_of(folder, name="images", side=32, card=CARD, seal=True):
    """Write a tiny ONNX network of ten classes; returns its path."""
    onnx = pytest.importorskip("onnx")
    weight = onnx.helper.make_tensor("w", 1, [3, 10], np.linspace(-1, 1, 30))
    made = onnx.helper.make_model(
        onnx.helper.make_graph(
            [
                onnx.helper.make_node("GlobalAveragePool", [name], ["pooled"]),
                onnx.helper.make_node("Flatten", ["pooled"], ["flat"]),
                onnx.helper.make_node("MatMul", ["flat", "w"], ["logits"]),
            ],
            "net",
            [onnx.helper.make_tensor_value_info(name, 1, ["n", 3, side, side])],
            [onnx.helper.make_tensor_value_info("logits", 1, ["n", 10])],
            [weight],
        ),
        opset_imports=[onnx.helper.make_opsetid("", 13)],
        ir_version=8,
    )
    props = {"dcil": json.dumps(asdict(card))} | ({SEALED: "sha256"} if seal else {})
    onnx.helper.set_model_props(made, props)
    raw = made.SerializeToString()
    (folder / "net.onnx").write_bytes(sealed(raw) if seal else raw)
    return folder / "net.onnx"


def npz(folder):
    np.savez_compressed(folder / "bomb.npz", **{"conv1.weight": np.zeros(2**25, np.float32)})  # 128 MiB in 130 KiB
    return ["authors", "check", folder / "bomb.npz"]


def stretched(folder):
    """Write a head of a billion classes, one number repeated by strides."""
    torch.save(
        {"conv1.weight": torch.zeros(16, 3, 3, 3), "fc_part.weight": torch.zeros(1).expand(10**9, 64)},
        folder / "net.pth",
    )
    return ["authors", "check", folder / "net.pth"]


def nested(depth):
    """Return two references to a list of two references to a list ...: 2^depth values in little memory."""
    value = [0, 0]
    for _ in range(depth):
        value = [value, value]
    return value


def entangled_checkpoint(folder):
    config = RunConfig(device="cpu").resolve()
    path = RunFolder(folder, config).checkpoint
    path.parent.mkdir(parents=True)
    torch.save({"schema": 1, "config": config.as_dict() | {"score": nested(40)}}, path)
    return ["train", "--device", "cpu", "--runs-dir", folder]


def checkpoint_fifo(folder):
    fifo(RunFolder(folder, RunConfig(device="cpu").resolve()).checkpoint)
    return ["train", "--device", "cpu", "--runs-dir", folder]


def grid_of(text):
    def make(folder):
        (folder / "grid.yaml").write_text(text)
        return ["queue", folder / "grid.yaml", "--status"]

    return make


LAUGHS = "a: &a0 [0]\n" + "".join(f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]\n" for i in range(1, 40))
MERGES = "b0: &b0 {a: 1}\n" + "".join(f"b{i}: &b{i} {{<<: [*b{i - 1}, *b{i - 1}]}}\n" for i in range(1, 40))
AXES = ", ".join(f"{name}: [{', '.join(map(str, range(1, 1001)))}]" for name in ("epochs", "batch_size", "mask_period"))


def images(change):
    """Return a maker of an image folder, one image in each part, on whose training class `change` acts."""

    def make(folder):
        for part in ("train", "val"):
            (folder / part / "a").mkdir(parents=True)
            Image.new("RGB", (8, 8)).save(folder / part / "a" / "0.png")
        change(folder / "train" / "a")
        where = ["--data-dir", folder, "--runs-dir", folder / "runs"]
        return ["train", "--dataset", "imagefolder", "--device", "cpu", *where]

    return make


def circle(place):
    (place / "one").symlink_to(place)
    (place / "two").symlink_to(place)


def crossing(place):
    for one, other in (("one", "two"), ("two", "one")):
        (place / one).mkdir()
        for name in ("x", "y"):
            (place / one / name).symlink_to(place / other)


def ghostscript(place):
    (place / "1.jpg").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n")


def many_pixels(place):
    small = io.BytesIO()
    Image.new("1", (9000, 9000)).save(small, "PNG")
    (place / "1.png").write_bytes(small.getvalue())


def notebook(text):
    def make(folder):
        (folder / "page.ipynb").write_text(text)
        return ["chapter", folder / "page.ipynb", "--out", folder / "out.ipynb"]

    return make


def training(*words):
    return lambda folder: ["train", *words, "--device", "cpu", "--runs-dir", folder / "runs"]


ODD = "cannot be read as an exported network"
CORPUS = {
    "a sparse file of a few bytes that says it has billions": (
        exported(format="sparse", state={"conv1.weight": {"shape": [60_000, 60_000], "values": torch.zeros(0),
                                                          "there": torch.zeros(1, dtype=torch.uint8)}}),
        "a bitmap of 1 bytes is not that of a tensor"),
    "a file of PyTorch, compressed": (compressed, f"{ODD}.*it is compressed"),
    "filters without end": (exported(format="shrunk", plan={"conv1": {"filters": [0, 0], "ones": False}}),
                            "each once"),
    "an unknown format": (exported(format="sprase"), "unknown format 'sprase': did you mean 'sparse'"),
    "negative sizes": (exported(card={"side": -32, "short": -32}), f"{ODD}.*side -32"),
    "a side of a billion": (exported(card={"side": 10**9, "short": 10**9}), f"{ODD}.*side 1000000000"),
    "a million classes": (exported(card={"num_classes": 10**6, "classes": ["a"] * 10**6}), f"{ODD}.*1000000 classes"),
    "no sparsity": (exported(card={"sparsity": float("nan")}), f"{ODD}.*sparsity in"),
    "a division by zero": (exported(card={"std": [0.0, 1.0, 1.0]}), f"{ODD}.*positive finite stds"),
    "ONNX with other inputs": (lambda f: predicting(f, onnx_of(f, "x")), "takes ..'x', .* and gives .*Export it"),
    "ONNX of another size": (lambda f: predicting(f, onnx_of(f, side=64)), r"does not take images \[1, 3, 32, 32\]"),
    "an .npz that unpacks to much": (npz, "would unpack to 128 MiB"),
    "a tensor stretched without memory": (stretched, "is not an authors' ResNet-32"),
    "a pipe as .npz": (lambda f: ["authors", "check", fifo(f / "a.npz")], "not a regular file"),
    "a pipe as .pth": (lambda f: ["authors", "check", fifo(f / "a.pth")], "not a regular file"),
    "a pipe as a checkpoint": (checkpoint_fifo, "not a regular file"),
    "a checkpoint that repeats itself": (entangled_checkpoint, "is of another run: score"),
    "a pipe as a grid": (lambda f: ["queue", fifo(f / "grid.yaml"), "--status"], "not a regular file"),
    "a folder as a grid": (lambda f: ["queue", f, "--status"], "is a folder"),
    "a grid of references to references": (grid_of(LAUGHS + "runs: [{serves: *a39}]\n"), r"\*a0 in line 2 refers"),
    "a grid of merged references": (grid_of(MERGES + "runs: []\n"), r"\*b0 in line 2 refers"),
    "a grid of a billion runs": (grid_of(f"runs: [{{serves: all, axes: {{{AXES}}}}}]"), "1000000000 combinations"),
    "a grid of 9 MB": (grid_of("#" * 9_000_000), "more than 1 MiB"),
    "a grid in a thousand brackets": (grid_of("[" * 20_000), "grid.yaml cannot be read"),
    "a grid with a day that there is not": (grid_of("title: 2001-99-99"), "grid.yaml cannot be read"),
    "a grid with a number of 5000 digits": (grid_of(f"title: {'9' * 5000}"), "grid.yaml cannot be read"),
    "a grid that is no YAML": (grid_of("runs: [}"), "grid.yaml cannot be read"),
    "a grid of bytes": (grid_of("\0"), "grid.yaml cannot be read"),
    "links that lead in circles": (images(circle), "one is a link to .*a, one of its own parent folders"),
    "links that lead to each other": (images(crossing), "is a link to .*, one of its own parent folders"),
    "a pipe as an image": (images(lambda place: fifo(place / "1.png")), "not a regular file"),
    "PostScript as an image": (images(ghostscript), "1.jpg cannot be read as an image.*Supported formats: JPEG, PNG"),
    "an image of 81 million pixels": (images(many_pixels), "of 9000 × 9000 pixels; images of more than 67,108,864"),
    "an image of one line": (images(lambda place: Image.new("1", (9000, 1)).save(place / "1.png")),
                             "of 9000 × 1 pixels; .* an aspect above 200"),
    "an empty image whose name is not UTF-8": (
        images(lambda place: open(os.fsencode(place) + b"/\xff.png", "wb").close()), "cannot be read as an image"),
    "a class whose name is not UTF-8": (
        images(lambda place: os.rename(place, os.fsencode(place) + b"\xff")), "only one of them|not UTF-8"),
    "an empty notebook": (notebook(""), "page.ipynb cannot be read as a notebook"),
    "half a notebook": (notebook('{"cells": [{"cell_type": '), "page.ipynb cannot be read as a notebook"),
    "a notebook without cells": (notebook("{}"), "page.ipynb cannot be read as a notebook"),
    "a notebook that is a list": (notebook("[1]"), "page.ipynb cannot be read as a notebook"),
    "a learning rate beyond float32": (training("--lr", "1e308"), r"lr is 1e\+308; .* at most 1e\+30"),
    "a crop of a million pixels": (training("--image-size", "1000000"), "image_size is 1000000; .* at most 4,096"),
    "epochs of 400 digits": (training("--epochs", "9" * 400), "epochs is 9+; it must be at most"),
    "a seed of 400 digits": (training("--seed", "9" * 400), "seed is 9+; it must be at most"),
    "a temperature of 400 digits": (training("--temperature", "9" * 400), "temperature is inf"),
    "no size of a store": (training("--decoded-gib", "nan"), "decoded_gib is nan; it must be a number of GiB"),
    "a negative size of a store": (training("--decoded-gib", "-1"), "decoded_gib is -1.0; it must be a number of GiB"),
    "the home of nobody": (
        training("--dataset", "cifar10", "--data-dir", "~nouser"), "~nouser: could not determine home directory"),
    "a folder that is not there, of no UTF-8": (
        training("--dataset", "imagefolder", "--data-dir", os.fsdecode(b"\xff")), "has no folder 'train'"),
}  # fmt: skip


@pytest.mark.parametrize("name", CORPUS)
def test_refused_in_a_sentence(name, tmp_path):
    """Each is refused with exit code 2 and one line that says why, within the bounds of time and memory."""
    make, said = CORPUS[name]
    code, err = bounded(make(tmp_path))
    lines = [line for line in err.splitlines() if line.startswith("dcil: error: ")]
    assert code == 2 and len(lines) == 1 and "Traceback" not in err, f"{code}: {err}"
    assert re.search(said, err.replace("\n", " ")), err


def test_numbers_of_a_record_without_end():
    """An integer of 400 digits, which JSON allows and no float holds, is refused."""
    with pytest.raises(DcilError, match="temperature is a number of 400 digits"):
        RunConfig(temperature=10**399)


def test_a_name_that_is_not_utf_8_is_printed(tmp_path, capsys):
    """The name is printed with escapes, instead of failing after the work; a strict stream gets one sentence."""
    folder = os.fsencode(tmp_path) + b"/\xff"
    os.mkdir(folder)
    assert main(["records", "list", "--records-dir", os.fsdecode(folder)]) == 2
    assert "'\\udcff' is not UTF-8; rename the file or folder named so" in capsys.readouterr().err
    done = subprocess.run(
        [sys.executable, "-m", "dcil", "records", "list", "--records-dir", folder], capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "") and done.stdout.endswith("\\udcff\n")


# --- damage


def test_one_flipped_bit_of_an_onnx_file(tmp_path):
    """A flipped bit is refused wherever it is, in weights, card or checksum."""
    pytest.importorskip("onnxruntime")
    path, draw = onnx_of(tmp_path), random.Random(0)
    raw = path.read_bytes()
    assert formats.load(path)[1] == CARD
    for _ in range(400):
        damaged = bytearray(raw)
        damaged[draw.randrange(len(raw))] ^= 1 << draw.randrange(8)
        path.write_bytes(damaged)
        with pytest.raises(DcilError, match=ODD):
            formats.load(path)
    path.write_bytes(raw[:-80])  # without the checksum, what is left is a whole ONNX file
    with pytest.raises(DcilError, match=f"{ODD} .its SHA-256"):
        formats.load(path)


def test_an_older_onnx_file(tmp_path, capsys):
    """A file without a checksum is read, with a message."""
    pytest.importorskip("onnxruntime")
    path = onnx_of(tmp_path, seal=False)
    assert formats.load(path)[1] == CARD
    assert f"{path} has no checksum" in capsys.readouterr().err


@pytest.fixture
def stored(tmp_path):
    """The folder of decoded copies, and a function that reads an image folder through it."""
    images(lambda place: None)(tmp_path)
    store = Store(tmp_path / "decoded")
    imagefolder(tmp_path, store)
    return store.folder, lambda: imagefolder(tmp_path, store)


@pytest.mark.parametrize("ending", ["pixels", "sizes.npy"])
def test_one_flipped_bit_of_decoded_images(stored, ending):
    """A decoded copy that differs from what was written is refused by name."""
    folder, again = stored
    again()
    for path in folder.glob(f"*.{ending}"):
        raw = bytearray(path.read_bytes())
        raw[-1] ^= 1
        path.write_bytes(raw)
    with pytest.raises(DcilError, match=rf"{ending} is damaged: its SHA-256.*move it away"):
        again()


def test_older_decoded_images(stored, capsys):
    """Decoded copies without checksums are read, with a message."""
    folder, again = stored
    for path in folder.glob("*.sha256"):
        path.unlink()
    again()
    assert "decoded images without a checksum" in capsys.readouterr().err


def test_images_are_decoded_a_bounded_part_at_a_time(monkeypatch):
    """A group fits the limit or is a single image, and every image comes once and in order."""
    monkeypatch.setattr(decoding, "AT_ONCE", 100)
    groups = list(decoding._groups(np.array([40, 60, 1, 500, 99, 2])))
    assert [list(rows) for rows in groups] == [[0, 1], [2], [3], [4], [5]]


# --- whose run a folder holds


@pytest.fixture
def two_runs(tiny_config, tiny_dataset, tmp_path):
    """The folders of two complete runs that differ in their seed."""
    configs = [tiny_config(seed=seed) for seed in (0, 1)]
    for config in configs:
        fit(config, dataset=tiny_dataset, runs_dir=tmp_path, progress=False)
    return [RunFolder(tmp_path, config) for config in configs]


def test_another_runs_record(two_runs, tiny_dataset, tmp_path):
    """In a run's folder, another run's record is neither taken for its result nor exported."""
    mine, other = two_runs
    mine.record.write_bytes(other.record.read_bytes())
    with pytest.raises(DcilError, match="is the record of another run, .*seed1"):
        fit(mine.config, dataset=tiny_dataset, runs_dir=tmp_path, progress=False)
    with pytest.raises(DcilError, match="has the record of .*seed1"):
        trained_run.network(mine.path.name, tmp_path)


def test_another_runs_checkpoint(two_runs, tmp_path):
    """Neither another seed's checkpoint nor an earlier one of the same run is exported."""
    mine, other = two_runs
    assert trained_run.network(mine.path.name, tmp_path)[1].run_id == mine.path.name
    mine.checkpoint.write_bytes(mine.previous.read_bytes())
    with pytest.raises(DcilError, match="their curves differ"):
        trained_run.network(mine.path.name, tmp_path)
    mine.checkpoint.write_bytes(other.checkpoint.read_bytes())
    with pytest.raises(DcilError, match=r"of another run: seed 1 \(expected 0\)"):
        trained_run.network(mine.path.name, tmp_path)


def test_a_finished_run_on_other_data(tiny_config, tiny_dataset, tmp_path):
    """Asked for again with other data, a finished run is refused instead of returning its result."""
    fit(tiny_config(), dataset=tiny_dataset, runs_dir=tmp_path, progress=False)
    other = replace(tiny_dataset, train_images=tiny_dataset.train_images.flip(-1))
    with pytest.raises(DcilError, match="was started on other data.*choose another --runs-dir"):
        fit(tiny_config(), dataset=other, runs_dir=tmp_path, progress=False)


def test_the_checksum_of_a_folder_opens_no_image(tmp_path, monkeypatch):
    """The checksum is the one in records, and is computed without decoding an image."""
    images(lambda place: None)(tmp_path)
    whole = imagefolder(tmp_path).checksum()
    monkeypatch.setattr(decoding, "decode", lambda path: pytest.fail(f"{path} was decoded"))
    assert datasets.checksum_of_folder("imagefolder", tmp_path) == whole
    assert datasets.checksum_of_folder("cifar10", tmp_path) is None


# --- faults


def full(handle):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_full_disk(tmp_path, monkeypatch, tiny_config):
    """Every writer says so in one sentence, which mentions an earlier checkpoint only if there is one."""
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DcilError, match=r"net\.pt could not be written: no space left on device.*make room"):
        formats.save(models.resnet8(), CARD, tmp_path / "net.pt", "state_dict")
    folder = RunFolder(tmp_path, tiny_config())
    with pytest.raises(DcilError, match="There is none before it; make room, and the same command starts anew"):
        folder.save({"curve": []})
    folder.checkpoint.write_bytes(b"")
    with pytest.raises(DcilError, match="The one before it is whole; make room, and the same command goes on"):
        folder.save({"curve": []})
    with pytest.raises(OSError, match="No space left on device: .*file"):  # main() prints it
        files.write_atomically(tmp_path / "file", lambda part: part.write_text("text"))
    assert not list(tmp_path.rglob("*.part"))


@pytest.mark.parametrize("call", ["touch", "open", "fsync", "replace", "unlink"])
def test_a_disk_that_fails(call, tmp_path, monkeypatch):
    """Whichever step of writing fails, and although the part cannot be removed either, the error names the file."""
    path, part = tmp_path / "file", ".file.0.part"
    path.write_text("old")
    monkeypatch.setattr(files.secrets, "token_hex", lambda _: "0")

    def fail(*words):
        name = words[0] if call != "fsync" else None
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), *([str(name)] if name else []))

    owner = os if call in ("fsync", "replace") else Path
    if call == "unlink":
        monkeypatch.setattr(os, "fsync", full)
    monkeypatch.setattr(owner, call, lambda *words, **_: fail(*words))
    replace = (lambda *words: os.replace(*words)) if call == "replace" else os.replace
    with pytest.raises(OSError) as error:
        files.write_atomically(path, lambda p: p.open("w").close(), replace)
    assert error.value.filename == str(path) and part not in str(error.value)
    monkeypatch.undo()
    assert path.read_text() == "old"
    assert call == "unlink" or not list(tmp_path.glob(".*.part"))


@pytest.mark.parametrize(("umask", "mode"), [(0o077, 0o600), (0o002, 0o664), (0o022, 0o644)])
def test_rights_follow_the_umask(umask, mode, tmp_path):
    """A private umask leaves files private, a group's lets the group write."""
    before = os.umask(umask)
    try:
        files.write_atomically(tmp_path / "file", lambda part: part.write_text("text"))
    finally:
        os.umask(before)
    assert (tmp_path / "file").stat().st_mode & 0o777 == mode


def test_parts_of_the_killed_are_removed(tmp_path, tiny_config):
    """They go at once in a held run's folder; elsewhere after a day, and only those of the file being written."""
    run = RunFolder(tmp_path, tiny_config())
    (run.path).mkdir()
    (run.path / ".checkpoint.pt.abc.part").touch()
    with run.hold():
        assert not list(run.path.glob("*.part"))
    young, old, others = (tmp_path / name for name in (".a.txt.1.part", ".a.txt.2.part", ".b.txt.3.part"))
    for path in (young, old, others):
        path.touch()
    for path in (old, others):
        os.utime(path, (0, 0))
    files.write_atomically(tmp_path / "a.txt", lambda part: part.write_text("text"))
    assert young.exists() and others.exists() and not old.exists()
