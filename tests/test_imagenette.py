"""Real photographs: Imagenette as it is, and training on a part of it by one process and by two."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
import torch

from dcil import records
from dcil.data import datasets
from tests.test_distributed import TORCHRUN, python

pytestmark = pytest.mark.imagenette
TRAIN = ("-m", "dcil", "train", "--preset", "imagenette", "--data-dir", "part", "--image-size", "32", "--quiet",
         "--precision", "float32", "--batch-size", "25", "--mask-period", "2", "--device", "cpu")  # fmt: skip


@pytest.fixture(scope="module")
def whole():
    """Imagenette, with every image decoded once."""
    return datasets.load("imagenette")


@pytest.fixture(scope="module")
def part(whole, tmp_path_factory):
    """A folder whose `part/` links to five training and three test images of each class."""
    folder = tmp_path_factory.mktemp("imagenette")
    for name, images, count in (("train", whole.train, 5), ("val", whole.test, 3)):
        for label in range(10):
            rows = (images.labels == label).nonzero().flatten()[:count]
            for source in (images.files[row] for row in rows.tolist()):
                target = folder / "part" / name / source.split(os.sep)[-2] / source.split(os.sep)[-1]
                target.parent.mkdir(parents=True, exist_ok=True)
                target.symlink_to(os.path.abspath(source))
    return folder


def test_the_data(whole):
    """Imagenette has 9,469 and 3,925 photographs of ten named classes, at least 100 pixels high and wide."""
    assert (len(whole.train.files), len(whole.test.files), whole.num_classes) == (9469, 3925, 10)
    assert whole.classes[0] == "tench" and whole.classes[-1] == "parachute"
    assert whole.train_labels.bincount().min() > 800 and whole.train.sizes.min() >= 100
    image = whole.test.image(0)
    assert image.dtype == torch.uint8 and image.shape[0] == 3 and image.float().std() > 20


# torchvision's ResNet-18 with group norms: with batch norms every rank would see other statistics.
GROUP_NORMS = """
import sys
from functools import partial
from torch import nn
from dcil import fit, models, preset
from dcil.data.vision import import_torchvision

def build(name, num_classes):
    norm = partial(nn.GroupNorm, 8)
    return import_torchvision().models.resnet18(num_classes=num_classes, norm_layer=norm)

models.build = build
config = preset("imagenette", epochs=1, batch_size=17, image_size=64, precision="float32", channels_last=False,
                mask_period=2, ramp_end=0, distill_from=0, device="cpu", warmup_epochs=0)
fit(config, data_dir="part", runs_dir=sys.argv[1], progress=False)
"""


def test_two_ranks_compute_what_one_does(part):
    """After three float32 steps on the same batches, the last split unequally, losses, masks and accuracies agree."""
    (part / "train.py").write_text(GROUP_NORMS)
    for words in (("train.py", "one"), (*TORCHRUN, "train.py", "two")):
        code, said = python(part, *words)
        assert code == 0, said
    (one,), (two,) = ([records.read(p) for p in (part / name).glob("*/record.json")] for name in ("one", "two"))
    assert [r["environment"]["ranks"] for r in (one, two)] == [1, 2]
    (a,), (b,) = one["curve"], two["curve"]
    assert a["refreshes"] == b["refreshes"] == 2 and a["loss"] == pytest.approx(b["loss"], rel=1e-4)
    assert a["sparsity"] == b["sparsity"] == pytest.approx(0.8, abs=1e-6)
    assert a["flips"] == pytest.approx(b["flips"], rel=1e-3)
    for name, end in a["test"].items():
        assert b["test"][name]["top1"] == pytest.approx(end["top1"], abs=100 / 30 + 1e-6)  # one of thirty images


def test_two_ranks_killed_and_resumed(part):
    """Killed with kill -9 after its first epoch, a run is resumed by the same command and ends as an unbroken one."""
    words = [sys.executable, *TORCHRUN, *TRAIN, "--epochs", "3", "--runs-dir", "killed"]
    child = subprocess.Popen(
        words, cwd=part, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=os.environ | {"OMP_NUM_THREADS": "1"}
    )
    until = time.monotonic() + 200
    while not list((part / "killed").glob("*/checkpoint.pt")) and time.monotonic() < until:
        time.sleep(0.02)
    (checkpoint,) = (part / "killed").glob("*/checkpoint.pt")
    os.kill(json.loads((checkpoint.parent / "holder.json").read_text())["pid"], signal.SIGKILL)  # the first rank
    assert child.wait(timeout=60) != 0  # the launcher ends the other one
    assert not (checkpoint.parent / "record.json").exists(), "it ended before it was killed"
    code, said = python(part, *words[1:])
    assert code == 0, said
    (path,) = (part / "killed").glob("*/record.json")
    record = records.read(path)
    assert record["status"] == "complete" and len(record["curve"]) == 3 and record["data"]["name"] == "imagenette"
    sessions = record["cost"]["sessions"]
    assert [s["ranks"] for s in sessions] == [2, 2] and sessions[1]["first_epoch"] >= 1
    assert record["curve"][-1]["sparsity"] == pytest.approx(0.8, abs=1e-6)
    code, said = python(part, *TORCHRUN, *TRAIN, "--epochs", "3", "--runs-dir", "whole")
    assert code == 0, said
    (other,) = (part / "whole").glob("*/record.json")
    assert [row["loss"] for row in json.loads(other.read_text())["curve"]] == [row["loss"] for row in record["curve"]]


def test_other_images_are_not_resumed_on(part, tmp_path):
    """A run begun on one folder of images is not resumed on others of the same name."""
    code, said = python(part, *TRAIN, "--epochs", "2", "--runs-dir", "begun", "--max-minutes", "0.0001")
    assert code == 75, said
    (part / "part" / "val" / "n01440764").rename(tmp_path / "away")
    fewer = sorted((tmp_path / "away").iterdir())[1:]
    (part / "part" / "val" / "n01440764").mkdir()
    for path in fewer:
        path.rename(part / "part" / "val" / "n01440764" / path.name)
    code, said = python(part, *TRAIN, "--epochs", "2", "--runs-dir", "begun")
    assert code == 2 and "was started on other data (with checksum" in said
