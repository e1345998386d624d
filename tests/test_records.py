"""Run records: what validation finds, and how files come into a folder."""

import copy
import json

import pytest

from dcil import fit, records
from dcil.config import RunConfig, run_id_of
from dcil.errors import DcilError


@pytest.fixture(scope="module")
def record(tmp_path_factory, tiny_dataset):
    """The record of a real run of two epochs."""
    config = RunConfig(model="resnet8", epochs=2, batch_size=20, mask_period=1, device="cpu")
    return fit(config, dataset=tiny_dataset, runs_dir=tmp_path_factory.mktemp("runs"), progress=False)


@pytest.fixture
def file(record, tmp_path):
    """That record in a file."""
    return records.write(record, tmp_path / "in" / "record.json")


def changed(record, *path, to):
    """A deep copy with one value replaced."""
    other = copy.deepcopy(record)
    place = other
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = to
    return other


def leaves(shape, at=()):
    """Yield every place that the schema requires."""
    for key, inner in ((k, v) for k, v in shape.items() if not k.endswith("?")):
        yield (*at, key)
        if isinstance(inner, dict):
            yield from leaves(inner, (*at, key))
        elif isinstance(inner, list):
            yield from leaves(inner[0], (*at, key, 1))


def test_a_real_record_is_valid_and_survives_json(record, file):
    """A record is the same after writing and reading."""
    assert records.read(file) == record == records.validate(json.loads(json.dumps(record)))


@pytest.mark.parametrize("path", list(leaves(records.SHAPE)), ids=lambda p: ".".join(map(str, p)))
def test_every_key_is_needed_with_its_type(record, path):
    """Without a required key, or with a wrong type there, the record is refused and the place named."""
    shown = "".join(f"[{k}]" if isinstance(k, int) else f".{k}" for k in path)[1:]
    with pytest.raises(DcilError) as caught:
        records.validate(changed(record, *path, to={1, 2}), "FILE")
    assert f"{shown} must be " in str(caught.value) and "FILE is not a valid run record" in str(caught.value)
    without = copy.deepcopy(record)
    place = without
    for key in path[:-1]:
        place = place[key]
    del place[path[-1]]
    with pytest.raises(DcilError) as caught:
        records.validate(without)
    assert f"{shown} is missing" in str(caught.value)


@pytest.mark.parametrize(
    ("path", "to", "message"),
    [
        (("curve", 1, "flips"), True, r"curve\[1\]\.flips must be int, got True"),
        (("environment", "dirty"), 0, r"environment.dirty must be bool, got 0"),
        (("final", "passes", "sparse", "last", "top1"), 99.9, "final does not follow from the curve"),
        (("curve", 1, "test", "sparse", "top1"), 99.9, "final does not follow from the curve"),
        (("curve", 0, "test"), {}, r"curve\[0\].test has the passes \[\], dcil has \['dense', 'sparse'\]"),
        (
            ("curve", 1, "test", "sparse", "top1"),
            None,
            r"curve\[1\].test\['sparse'\].top1 must be int or float, got None",
        ),
        (("curve", 1, "epoch"), 5, "epochs do not run 0, 1, 2"),
        (("curve",), [], r"the curve has 0 of 2 epochs"),
        (("run_id",), "digits-resnet8-dcil-s0.9-e2-seed0-00000000", "run id does not follow"),
        (("config", "seed"), 1, "run id does not follow"),
        (("tier",), "paper", "tier is 'paper', but its configuration is of tier 'smoke'"),
        (("status",), "fine", "status must be 'complete' or 'failed', got 'fine'"),
        (("config", "sparsity"), 1.5, r"FILE is not a valid run record: sparsity is 1.5"),
        (("config", "colour"), "red", "FILE is not a valid run record: unknown parameter 'colour'"),
        (("schema",), 2, "FILE has schema 2, this dcil reads up to 1; update dcil"),
        (("schema",), 0, "FILE has schema 0, and there is none below 1"),
        (("masks", "overlap_with_last"), [], "masks.overlap_with_last is empty"),
    ],
)
def test_tampering_is_found(record, path, to, message):
    """A number, an id or a label that does not follow from the rest is refused."""
    with pytest.raises(DcilError, match=message):
        records.validate(changed(record, *path, to=to), "FILE")


def test_a_run_id_cannot_name_another_place(record, tmp_path):
    """The id becomes a file name, so all of it is checked, not only its hash."""
    evil = changed(record, "run_id", to="../outside-" + record["run_id"].rpartition("-")[2])
    source = tmp_path / "evil.json"
    source.write_text(json.dumps(evil))
    with pytest.raises(DcilError, match="run id does not follow"):
        records.add(source, tmp_path / "records")
    assert not (tmp_path / "records").exists()


@pytest.mark.parametrize("content", [None, 3, [], "text"], ids=str)
def test_other_json_is_refused(content):
    with pytest.raises(DcilError, match="the record is not a valid run record: the file must be an object"):
        records.validate(content)


def test_a_record_may_hold_more_and_be_of_another_machine(record):
    """Additional keys are welcome, and so is a GPU's record on a machine without one."""
    records.validate(record | {"note": "by hand"})
    foreign = changed(record, "config", "device", to="cuda")
    records.validate(foreign | {"run_id": run_id_of(foreign["config"])})


def test_a_failed_run_may_be_short(record):
    """A failed run may have a shorter curve, even an empty one."""
    unmasked = {key: value for key, value in record.items() if key not in ("masks", "images_right")}
    for n in (0, 1):
        curve = record["curve"][:n]
        final = records.summarize(curve, record["config"]["sparsity"])
        records.validate(unmasked | {"status": "failed", "curve": curve, "final": final})


def test_a_truncated_file_is_named_and_left(file):
    """The error names the file, which keeps its bytes."""
    file.write_bytes(file.read_bytes()[:200])
    before = file.read_bytes()
    with pytest.raises(DcilError, match=f"the record {file} cannot be read.*left as it is"):
        records.read(file)
    assert file.read_bytes() == before
    file.write_text("[" * 100_000)
    with pytest.raises(DcilError, match=f"the record {file} cannot be read"):
        records.read(file)


def test_an_invalid_record_is_not_written(record, file):
    """A bad record, such as one with NaN, leaves the good file in place."""
    before = file.read_bytes()
    with pytest.raises(DcilError, match="tier"):
        records.write(record | {"tier": "gold"}, file)
    with pytest.raises(ValueError, match="JSON"):
        records.write(changed(record, "curve", 1, "lr", to=float("nan")), file)
    assert file.read_bytes() == before


def test_add_copies_and_never_overwrites(record, file, tmp_path):
    """A file is copied byte by byte under its run id; adding it again is no error, adding another is."""
    folder = tmp_path / "records"
    target = records.add(file, folder)
    assert target == folder / f"{record['run_id']}.json"
    assert target.read_bytes() == file.read_bytes()
    assert records.add(file, folder) == target
    slower = changed(record, "curve", 0, "time_s", to=99.0)
    file.write_text(json.dumps(slower))
    before = target.read_bytes()
    with pytest.raises(DcilError, match="is there already and differs.*nothing was overwritten"):
        records.add(file, folder)
    assert target.read_bytes() == before
    assert [p.name for p in folder.iterdir()] == [target.name]


def test_add_refuses_a_bad_file(file, tmp_path):
    """Validation comes before the folder is touched."""
    file.write_text("{}")
    with pytest.raises(DcilError, match="schema is missing"):
        records.add(file, tmp_path / "records")
    assert not (tmp_path / "records").exists()


def test_load_all_filters_and_sorts(record, tmp_path):
    """Records whose fields match come in the order of their names; a missing folder has none."""
    for seed in (2, 0, 1):
        config = record["config"] | {"seed": seed}
        other = record | {"config": config, "run_id": run_id_of(config)}
        records.write(other, tmp_path / f"{other['run_id']}.json")
    assert [r["config"]["seed"] for r in records.load_all(tmp_path)] == [0, 1, 2]
    assert [r["config"]["seed"] for r in records.load_all(tmp_path, seed=1, tier="smoke", method="dcil")] == [1]
    assert records.load_all(tmp_path, tier="paper") == []
    assert records.load_all(tmp_path / "none") == []


@pytest.mark.parametrize("asked", [{"methd": "dcil"}, {"method": "dcli"}, {"sparsity": 90}, {"tier": "quik"}])
def test_load_all_refuses_what_no_run_has(asked, tmp_path):
    """A mistyped name or value is refused, instead of matching no record."""
    with pytest.raises(DcilError, match="did you mean"):
        records.load_all(tmp_path, **asked)


def test_load_all_takes_a_list_of_epochs_in_any_form(record, tmp_path):
    """Milestones match as a list, as in a record, and as a tuple, as in a configuration."""
    records.write(record, tmp_path / f"{record['run_id']}.json")
    milestones = record["config"]["milestones"]
    assert len(records.load_all(tmp_path, milestones=milestones)) == 1
    assert len(records.load_all(tmp_path, milestones=tuple(milestones))) == 1


def curve(*rows):
    """Return a curve from rows of (target sparsity, top-1)."""
    tests = ({"sparse": {"top1": top1, "top5": top1 + 1}} for _, top1 in rows)
    return [{"epoch": i, "target_sparsity": rows[i][0], "test": test} for i, test in enumerate(tests)]


def test_the_best_is_chosen_at_the_final_sparsity():
    """A higher accuracy on the ramp counts only as the best of any; ties go to the earlier epoch."""
    final = records.summarize(curve((0.0, 95.0), (0.5, 96.0), (0.9, 91.0), (0.9, 93.0), (0.9, 93.0), (0.9, 92.0)), 0.9)
    sparse = final["passes"]["sparse"]
    assert sparse["last"] == {"top1": 92.0, "top5": 93.0, "epoch": 5}
    assert sparse["best_at_target"] == {"top1": 93.0, "epoch": 3}
    assert sparse["best_any"] == {"top1": 96.0, "epoch": 1}
    assert sparse["mean_last_ten"] == {"top1": 93.3333, "epochs": 6}


def test_summary_edges():
    """The mean is over ten epochs at most; a run that never reached its sparsity has no best there."""
    sparse = records.summarize(curve(*[(0.5, float(t)) for t in range(12)]), 0.9)["passes"]["sparse"]
    assert sparse["mean_last_ten"] == {"top1": 6.5, "epochs": 10}
    assert sparse["best_at_target"] is None
    assert records.summarize([], 0.9) == {"passes": {}}


def test_without_timing_drops_clocks_only(record):
    """Runs that differ in times, memory, date and company only are the same; any other difference stays."""
    slow = changed(changed(record, "curve", 0, "time_s", to=9.0), "environment", "date", to="1999-01-01")
    slow["cost"] |= {"time_s": 9.0, "mem_mib": 1.0, "sessions": [], "shared_by": 2}
    assert records.without_timing(slow) == records.without_timing(record)
    other = changed(record, "curve", 0, "flips", to=-1)
    assert records.without_timing(other) != records.without_timing(record)
    assert "time_s" in record["curve"][0]
