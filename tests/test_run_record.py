"""`Run`, a record with types: what readers ask for is an attribute, and it still reads like the record."""

import copy
import math

import pytest

from dcil import RunConfig, fit, records
from dcil.config import LATER
from dcil.errors import DcilError
from dcil.run_record import Run, variant


@pytest.fixture(scope="module")
def record(tmp_path_factory, tiny_dataset):
    config = RunConfig(dataset="digits", model="resnet8", epochs=2, batch_size=10, mask_period=2, device="cpu")
    return fit(config, dataset=tiny_dataset, runs_dir=tmp_path_factory.mktemp("runs"), progress=False)


def test_it_says_what_the_record_says(record):
    """The headline is the deployed pass's top-1 at the last epoch; each pass has its end, each epoch its accuracies."""
    run, ends = Run(record), record["final"]["passes"]
    assert (run.complete, run.deployed, run.tier) == (True, "sparse", "smoke")
    assert run.last == ends["sparse"]["last"]["top1"] == run.curve[-1].test["sparse"]
    assert {name: end.last for name, end in run.by_pass.items()} == {k: end["last"]["top1"] for k, end in ends.items()}
    assert run.sparsity == record["curve"][-1]["sparsity"] and run.curve[0].epoch == 0
    assert run.overlap_with_last[1] == 1.0 and len(run.final_mask) == record["masks"]["count"]
    assert {name: 100 * right.mean() for name, right in run.images_right.items()} == pytest.approx(run.curve[-1].test)
    assert run.macs == 2 * run.epoch_macs == 2 * run.cost.train_macs * run.data.train_size


def test_it_reads_like_its_record(record):
    """Subscripts, `in`, `get`, equality and `|` are those of the dictionary; assignment is refused."""
    run = Run(record)
    assert run == record == records.validate(run.raw) and copy.deepcopy(run) == run
    assert run["config"]["seed"] == 0 and "reason" not in run and run.get("reason", "none") == "none"
    other = run | {"status": "failed"}
    assert not other.complete and run.complete and other != run
    with pytest.raises(TypeError):
        run["status"] = "failed"


def test_fields_younger_than_the_record_are_filled_in(record):
    """They are at their defaults, so that no reader has to merge them in."""
    older = {name: value for name, value in record["config"].items() if name not in LATER}
    run = Run(record | {"config": older})
    assert run.config == Run(record).config and run.config.as_dict() == record["config"]
    assert run.variant == Run(record).variant == "dcil, mask_period 2"


def test_an_early_failure_has_no_end(record):
    """In a run that failed in its first epoch, what was not measured is NaN."""
    run = Run(record | {"status": "failed", "curve": [], "final": {"passes": {}}})
    assert run.by_pass == {} and run.curve == () and math.isnan(run.last) and math.isnan(run.sparsity)


def test_shared_time_is_no_cost(record):
    """The seconds of a run that shared its device are not its own."""
    run = Run(record)
    packed = run | {"cost": run["cost"] | {"shared_by": 6}}
    assert run.cost.own_time_s == run.cost.time_s and math.isnan(packed.cost.own_time_s)


def test_what_is_not_measured_is_missing(record):
    """Records from before masks were stored have no mask, no overlaps and no images."""
    run = Run({name: value for name, value in record.items() if name not in ("masks", "images_right")})
    assert run.final_mask is None and run.images_right is None and run.overlap_with_last == {}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, "dcil"),
        ({"seed": 3, "precision": "float64", "device": "cpu", "channels_last": True}, "dcil"),  # carried out otherwise
        ({"dense_every": 4, "temperature": 4.0}, "dcil, dense_every 4, temperature 4"),
        ({"method": "dense", "sparsity": 0.5}, "dense"),  # prunes nothing, whatever is asked
        ({"batch_size": 64}, "dcil, batch_size 64"),
        ({"dataset": "digits", "batch_size": 64}, "dcil"),  # the smoke preset's own
        ({"dataset": "imagenette", "model": "resnet18", "batch_size": 64, "image_size": 128}, "dcil"),  # of the data
        ({"epochs": 30, "milestones": (15, 22)}, "dcil"),  # the recipe's
        ({"epochs": 30, "milestones": (1, 2)}, "dcil, milestones [1, 2]"),
    ],
)
def test_a_variant_names_what_is_not_the_recipes(changes, said):
    """A variant is the method and each setting that differs from the recipe's."""
    assert variant(RunConfig(**{"dataset": "cifar10"} | changes)) == said


def test_load_all_reads_runs(record, tmp_path):
    """`load_all` returns a folder's runs, chosen by configuration, and names a file that is no record."""
    records.write(record, tmp_path / "a.json")
    (run,) = records.load_all(tmp_path, label_smoothing=0.0, tier="smoke")
    assert isinstance(run, Run) and run == record
    assert records.load_all(tmp_path, label_smoothing=0.1) == []
    (tmp_path / "b.json").write_text("{}")
    with pytest.raises(DcilError, match=r"b\.json is not a valid run record"):
        records.load_all(tmp_path)
