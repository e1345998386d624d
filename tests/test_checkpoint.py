"""Checkpoints are written whole or not at all; a bad one is refused, left as it is, and never executed."""

import os
import pickle
import random
import re

import pytest
import torch

from dcil import checkpoint
from dcil.config import RunConfig
from dcil.errors import DcilError
from dcil.io import files

CONFIG = RunConfig(device="cpu").resolve()
STATE = {"model": {"w": torch.arange(500.0)}, "curve": [{"epoch": 0}]}


@pytest.fixture
def path(tmp_path):
    """A valid checkpoint of CONFIG."""
    path = tmp_path / "run" / "checkpoint.pt"
    checkpoint.save(path, CONFIG, STATE, keep=path.with_name("previous.pt"))
    return path


def refused(path, message, config=CONFIG):
    """Assert that loading fails with this message, names the file and leaves its bytes alone."""
    before = path.read_bytes()
    with pytest.raises(DcilError, match=message) as caught:
        checkpoint.load(path, config)
    assert str(path) in str(caught.value)
    assert path.read_bytes() == before


def test_round_trip(path):
    """What was saved is loaded, with or without a configuration to compare, and no other file is left behind."""
    for content in (checkpoint.load(path), checkpoint.load(path, CONFIG)):
        assert torch.equal(content["model"]["w"], STATE["model"]["w"])
        assert content["curve"] == STATE["curve"]
        assert content["config"] == CONFIG.as_dict()
    assert [p.name for p in path.parent.iterdir()] == ["checkpoint.pt"]


@pytest.mark.parametrize("keep", [0, 1, 100, 0.5, 0.99])
def test_truncated(path, keep):
    """A file truncated anywhere is refused, and the error says how to go on."""
    raw = path.read_bytes()
    path.write_bytes(raw[: keep if isinstance(keep, int) else int(keep * len(raw))])
    refused(path, "cannot be read.*left as it is; move it away")


def test_flipped_bits(path):
    """No single flipped bit changes a tensor unnoticed."""
    raw, draw = path.read_bytes(), random.Random(0)
    for _ in range(60):
        damaged = bytearray(raw)
        damaged[draw.randrange(len(raw))] ^= 1 << draw.randrange(8)
        path.write_bytes(bytes(damaged))
        try:
            content = checkpoint.load(path, CONFIG)
        except DcilError:
            continue
        assert torch.equal(content["model"]["w"], STATE["model"]["w"])  # the bit was padding


@pytest.mark.parametrize(
    "raw",
    [b"hello", b"PK\x03\x04", pickle.dumps({"schema": 1}), bytes(range(256)) * 9],
    ids=["text", "zip", "pickle", "bytes"],
)
def test_foreign_bytes(path, raw):
    """A file that PyTorch did not write is refused."""
    path.write_bytes(raw)
    refused(path, "cannot be read")


@pytest.mark.parametrize(
    "content", [[1], {"model": {}}, {"schema": "1", "config": {}}, {"schema": 1, "config": 3}], ids=str
)
def test_another_programs_file(path, content):
    """A file that PyTorch wrote for something else is refused."""
    torch.save(content, path)
    refused(path, "is not a checkpoint of dcil")


def test_another_configuration(path):
    """The error names the fields that differ, and only those, with both values."""
    other = RunConfig(device="cpu", seed=7, sparsity=0.95).resolve()
    refused(path, r"of another run: sparsity 0.9 \(expected 0.95\), seed 0 \(expected 7\)\. It was left", other)


def test_newer_schema(path):
    """A file of a newer schema asks for an update."""
    torch.save({"schema": checkpoint.SCHEMA + 1, "config": CONFIG.as_dict()}, path)
    refused(path, "has schema 2, this dcil reads up to 1; update dcil")


def test_missing(tmp_path):
    """A missing checkpoint is called missing, not damaged."""
    with pytest.raises(DcilError, match="there is no checkpoint"):
        checkpoint.load(tmp_path / "none.pt")


class Trap:
    """Makes a folder when it is unpickled."""

    def __init__(self, mark):
        self.mark = str(mark)

    def __reduce__(self):
        return os.mkdir, (self.mark,)


@pytest.mark.parametrize("write", [torch.save, lambda c, p: p.write_bytes(pickle.dumps(c))], ids=["torch", "pickle"])
def test_code_is_never_run(path, tmp_path, write):
    """A pickle that would execute code is refused before it does."""
    mark = tmp_path / "executed"
    write({"schema": 1, "config": CONFIG.as_dict(), "model": Trap(mark)}, path)
    refused(path, "cannot be read")
    assert not mark.exists()


def test_a_write_that_fails_keeps_the_old_content(tmp_path):
    """Whatever the writer raises, the file keeps its content and no partial file is left."""
    path = tmp_path / "file"
    path.write_text("old")
    for error in (ValueError, KeyboardInterrupt):

        def write(part, error=error):
            part.write_text("half of the n")
            raise error

        with pytest.raises(error):
            files.write_atomically(path, write)
        assert path.read_text() == "old"
        assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_a_write_replaces_the_whole_file(tmp_path):
    """A write makes the folder and replaces the whole content, and others may read the file."""
    path = tmp_path / "new" / "file"
    for text in ("a long old content", "new"):
        files.write_atomically(path, lambda part, text=text: part.write_text(text))
    assert path.read_text() == "new"
    assert re.fullmatch("0o1006[46]4", oct(path.stat().st_mode))
