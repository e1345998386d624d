"""Several processes train one run: equal masks, whole batches, one record, and clear errors."""

import json
import os
import subprocess
import sys

import pytest
import torch

from dcil import records
from dcil.data.loaders import TestLoader, TrainLoader
from dcil.distributed import ALONE, Ranks, digest, join
from dcil.errors import DcilError

CPU = torch.device("cpu")
TRAIN = ("-m", "dcil", "train", "--preset", "smoke", "--device", "cpu", "--quiet")
TORCHRUN = ("-m", "torch.distributed.run", "--nproc-per-node=2", "--standalone")


def python(folder, *words):
    """Run Python with one thread; returns its exit code and its output."""
    done = subprocess.run(
        [sys.executable, *words],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=300,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    return done.returncode, done.stdout + done.stderr


def test_batches_are_cut_without_overlap(tiny_dataset):
    """The parts of a batch on three ranks make up the whole batch, and their weighted means its mean."""
    alone = TrainLoader(tiny_dataset, 12, 0, CPU)
    parts = [TrainLoader(tiny_dataset, 12, 0, CPU, ranks=Ranks(rank, 3)) for rank in range(3)]
    for index, ((images, _), *mine) in enumerate(zip(alone.epoch(1), *(p.epoch(1) for p in parts), strict=True)):
        assert torch.allclose(torch.cat([m[0] for m in mine]).sum(0), images.sum(0), atol=1e-4)
        assert sum(len(m[0]) for m in mine) == len(images)
        means = [p.share(index) * m[0].mean() for p, m in zip(parts, mine, strict=True)]
        assert torch.stack(means).mean() == pytest.approx(images.mean().item(), abs=1e-5)
    assert [alone.share(i) for i in range(len(alone))] == [1.0] * len(alone)


def test_the_test_set_is_cut_without_overlap(tiny_dataset):
    """Every test image belongs to exactly one rank."""
    sizes = [len(TestLoader(tiny_dataset, CPU, ranks=Ranks(rank, 3)).labels) for rank in range(3)]
    labels = torch.cat([TestLoader(tiny_dataset, CPU, ranks=Ranks(rank, 3)).labels for rank in range(3)])
    assert sizes == [6, 5, 5]
    assert torch.equal(labels.sort().values, tiny_dataset.test_labels.sort().values)


def test_a_batch_too_small_for_the_ranks(tiny_dataset):
    """A last batch with fewer images than ranks is refused."""
    with pytest.raises(DcilError, match="40 images in batches of 13 leave a batch smaller than the 3 ranks"):
        TrainLoader(tiny_dataset, 13, 0, CPU, ranks=Ranks(0, 3))


def test_a_batch_from_the_middle_of_an_epoch(tiny_dataset):
    """Batch 2 is the same whether or not the two before it were made."""
    loader = TrainLoader(tiny_dataset, 12, 0, CPU)
    (*_, last, _), (resumed, _) = loader.epoch(3), loader.epoch(3, first=2)
    assert torch.equal(last[0], resumed[0]) and torch.equal(last[1], resumed[1])


def test_variables_of_torchrun_without_torchrun(monkeypatch):
    """Empty variables mean training alone; half-set ones, as left by a cluster, give an error with a remedy."""
    for name in ("MASTER_ADDR", "MASTER_PORT", "RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("RANK", "")
    monkeypatch.setenv("WORLD_SIZE", "")
    assert join("cpu") is ALONE
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "1")
    with pytest.raises(DcilError, match="the ranks cannot connect .*MASTER_ADDR.*with torchrun, or unset both"):
        join("cpu")


def test_a_team_of_one_is_free():
    """In a team of one, collective operations return what they were given."""
    assert ALONE.first(lambda: 3) == ALONE.in_turn(lambda: 3) == 3
    values = [torch.ones(2)]
    ALONE.sum_(values)
    ALONE.mean_(values)
    ALONE.check_same(values, "the values")
    assert values[0].tolist() == [1, 1] and ALONE.is_first and ALONE.interleaved(values[0]) is values[0]


def test_digests_differ_with_the_masks():
    """One flipped entry changes the digest."""
    mask = torch.ones(100, dtype=torch.bool)
    other = mask.clone()
    other[7] = False
    assert digest([mask]) == digest([mask.clone()]) != digest([other])


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """The folder of a two-rank run on the digits, and what it printed."""
    folder = tmp_path_factory.mktemp("pair")
    code, said = python(folder, *TORCHRUN, *TRAIN, "--records-dir", "records")
    assert code == 0, said
    return folder, said


def test_two_ranks(pair):
    """Two ranks write one complete record with one rank's schedule and accuracy; the run itself compares masks."""
    folder, said = pair
    (path,) = (folder / "records").glob("*.json")
    record = records.read(path)
    assert record["environment"]["ranks"] == record["cost"]["sessions"][0]["ranks"] == 2
    assert record["status"] == "complete" and said.count("device ") == 1
    assert sum(row["refreshes"] for row in record["curve"]) > 8
    code, said = python(folder, *TRAIN, "--runs-dir", "alone")
    assert code == 0, said
    (other,) = (folder / "alone").glob("*/record.json")
    one = records.read(other)
    for row, same in zip(record["curve"], one["curve"], strict=True):
        assert all(row[k] == same[k] for k in ("target_sparsity", "refreshes", "lr"))
    for name, end in one["final"]["passes"].items():  # each rank's norms see half a batch, so not equal
        assert record["final"]["passes"][name]["last"]["top1"] == pytest.approx(end["last"]["top1"], abs=8)


# Without batch norm nothing depends on how a batch is cut: the ranks must compute what one process does.
WITHOUT_BATCH_NORM = """
import json, sys
import torch
from torch import nn
from dcil import RunConfig, data, fit, models, refresh

def build(name, num_classes):
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.GroupNorm(2, 8), nn.ReLU(), nn.Conv2d(8, 8, 3, 2), nn.ReLU(),
                         nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, num_classes))

models.build = build
images = torch.randint(256, (51, 3, 8, 8), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
labels = torch.arange(51) % 10
dataset = data.Dataset("tiny", images[:38], labels[:38], images[38:], labels[38:], 10, (0.4,) * 3, (0.25,) * 3)
refresh.REGROW_PERIOD = 2
for method, dense_every in (("dcil", 1), ("dcil", 2), ("rigl", 1)):
    config = RunConfig(epochs=3, batch_size=11, mask_period=2, ramp_end=2, distill_from=1, precision="float64",
                       sparsity=0.8, device="cpu", method=method, dense_every=dense_every)
    fit(config, dataset=dataset, runs_dir=sys.argv[1], progress=False)
"""


@pytest.fixture(scope="module")
def one_and_two(tmp_path_factory):
    """Records of three runs by one rank and by two, each keyed by method and `dense_every`."""
    folder = tmp_path_factory.mktemp("ranks")
    (folder / "train.py").write_text(WITHOUT_BATCH_NORM)
    for words in (("train.py", "one"), (*TORCHRUN, "train.py", "two")):
        code, said = python(folder, *words)
        assert code == 0, said

    def found(name):
        read = [records.read(path) for path in (folder / name).glob("*/record.json")]
        return {(r["config"]["method"], r["config"]["dense_every"]): r for r in read}

    return found("one"), found("two")


@pytest.mark.parametrize("run", [("dcil", 1), ("dcil", 2), ("rigl", 1)])
def test_two_ranks_compute_what_one_does(run, one_and_two):
    """In float64 and without batch norm, two ranks give one rank's losses, gradients, masks and accuracies.

    Batches are of odd size: six images of one rank and five of the other must not weigh the same.
    """
    one, two = (runs[run] for runs in one_and_two)
    assert two["environment"]["ranks"] == 2
    for a, b in zip(one["curve"], two["curve"], strict=True):
        assert a["loss"] == pytest.approx(b["loss"], rel=1e-9)
        assert a.get("gradients") == pytest.approx(b.get("gradients"), abs=2e-5)  # they are rounded to five digits
        assert all(a[k] == b[k] for k in ("sparsity", "flips", "refreshes", "train", "test"))
    assert one["final"] == two["final"] and one["images_right"] == two["images_right"]


def test_other_ranks_resume(tmp_path):
    """A run stopped on two ranks resumes on one, and its record says how many ranks trained which epochs."""
    code, said = python(tmp_path, *TORCHRUN, *TRAIN, "--epochs", "2", "--max-minutes", "0.0001")
    assert code != 0 and "stopped by the limit" in said
    code, said = python(tmp_path, *TRAIN, "--epochs", "2")
    assert code == 0, said
    (path,) = (tmp_path / "runs").glob("*/record.json")
    sessions = json.loads(path.read_text())["cost"]["sessions"]
    assert [s["ranks"] for s in sessions] == [2, 1] and sessions[1]["first_epoch"] == sessions[0]["epochs"]


# Two ranks whose masks differ in one entry: the check must raise on both.
DIFFERENT = """
import sys
import torch
from dcil import distributed

def say(line):  # in one piece: two processes write to one pipe
    sys.stdout.write(line + chr(10))
    sys.stdout.flush()

team = distributed.join("cpu")
mask = torch.ones(9, dtype=torch.bool)
mask[team.rank] = False
try:
    team.check_same([mask], "the masks")
except ValueError as error:
    say(f"told {team.rank} {error}")
try:
    team.first(lambda: open("absent"))
except OSError as error:
    say(f"raised {team.rank}")
say(f"turn {team.rank} {team.in_turn(lambda: team.rank)}")
mine = torch.tensor([[True, True], [False]][team.rank])
say(f"in order {team.rank} {team.interleaved(mine).tolist()} {team.interleaved(mine[: 1 - team.rank]).tolist()}")
"""


def test_differences_and_errors_reach_every_rank(tmp_path):
    """Every rank learns that masks differ, raises what the first rank raised, and gets all ranks' rows in order."""
    (tmp_path / "different.py").write_text(DIFFERENT)
    code, said = python(tmp_path, *TORCHRUN, "different.py")
    assert code == 0, said
    for rank in (0, 1):
        assert f"told {rank} the masks differ between ranks" in said
        assert f"raised {rank}" in said and f"turn {rank} {rank}" in said
        assert f"in order {rank} [True, False, True] [True]" in said


STATISTICS = """
import torch
from dcil import RunConfig, data, distributed
from dcil.trainer import Trainer

images = torch.randint(256, (40, 3, 8, 8), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
labels = torch.arange(40) % 10
dataset = data.Dataset("tiny", images, labels, images, labels, 10, (0.4,) * 3, (0.25,) * 3)
config = RunConfig(model="resnet8", epochs=1, batch_size=10, mask_period=2, ramp_end=0, precision="float64",
                   device="cpu").resolve()
team = distributed.join("cpu")

def train(look):
    trainer = Trainer(config, dataset, team)
    steps = trainer.run(False)
    next(steps), next(steps)
    if look:
        team.check_same([trainer.state()["model"][k] for k in norms(trainer)], "the norm statistics")
    for _ in steps:
        pass
    return [trainer.dual.state_dict()[k] for k in norms(trainer)]

def norms(trainer):
    return [k for k in trainer.dual.state_dict() if "running" in k]

for a, b in zip(train(True), train(False), strict=True):
    torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)

begun, resumed = Trainer(config, dataset, team), Trainer(config, dataset, team)
next(begun.run(False))
state = begun.state()
resumed.load_state(state)
sums, names = state["part"]["tally"], [None] * team.size
torch.distributed.all_gather_object(names, [*resumed.tally.losses])
assert names == [[*sums["losses"]]] * team.size, names
for part, taken_up in resumed.tally.over(team).state().items():
    for name, value in taken_up.items():
        assert torch.equal(value, sums[part][name]), name
print("equal")
"""


def test_a_checkpoint_holds_every_rank_s_statistics(tmp_path):
    """Norm statistics saved within an epoch are the ranks' mean, and saving does not change the mean at its end.

    After a resume every rank has the same sums of losses and hits: where not every step runs every pass, a rank that
    lacked one of them would wait forever for the others.
    """
    (tmp_path / "train.py").write_text(STATISTICS)
    code, said = python(tmp_path, *TORCHRUN, "train.py")
    assert code == 0 and said.count("equal") == 2, said
