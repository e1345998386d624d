"""Two records side by side: found by file, id or hash; every difference named."""

import copy
import json

import pytest

from dcil import fit, records
from dcil.cli.main import main
from dcil.errors import DcilError
from dcil.lab.runs import images_right as tests
from dcil.lab.runs import side_by_side
from dcil.run_record import Run
from tests.lab.fakes import changed


@pytest.fixture
def folder(tiny_config, tiny_dataset, tmp_path):
    """Two seeds of one run in a folder of records."""
    for seed in (0, 1):
        record = fit(tiny_config(seed=seed), dataset=tiny_dataset, runs_dir=tmp_path / "runs", progress=False)
        records.write(record, tmp_path / "records" / f"{record['run_id']}.json")
    return tmp_path / "records"


def test_differences_are_named(folder):
    """Seeds, accuracies and masks differ, the rest of the configuration does not."""
    a, b = records.load_all(folder)
    rows = {what: (x, y, d) for what, x, y, d in side_by_side.comparison(a, b)}
    assert rows["config.seed"] == ("0", "1", "") and not any(k.startswith("environment") for k in rows)
    last = [r.last for r in (a, b)]
    assert rows["sparse pass, last epoch, %"] == (f"{last[0]:.2f}", f"{last[1]:.2f}", f"{last[1] - last[0]:+.2f}")
    assert 0 < float(rows["overlap of the final masks (Jaccard)"][2]) < 1
    assert any(k.startswith("dense pass, farthest apart (epoch") for k in rows)
    assert side_by_side.same_but_for_timing(a, a) and not side_by_side.same_but_for_timing(a, b)


def test_networks_are_compared_image_by_image(folder):
    """If both records say which images are right, the rows say how many only one gets right, and what follows."""
    a, b = records.load_all(folder)
    one, two = (r.images_right["sparse"] for r in (a, b))
    rows = {what: rest for what, *rest in side_by_side.comparison(a, b)}
    found = rows["sparse pass, images right in one only; points over images, McNemar's p"]
    assert found == [str((one & ~two).sum()), str((two & ~one).sum()), tests.image_difference_in_words(two, one)]
    assert found[2].startswith(rows["sparse pass, last epoch, %"][2] + " (")
    before = Run({key: value for key, value in a.items() if key != "images_right"})
    for pair, said in (((before, b), ("not recorded", "recorded")), ((before, before), ("not recorded",) * 2)):
        assert [row for row in side_by_side.comparison(*pair) if "images" in row[0]] == [
            ("which test images are right", *said, "")
        ]
    other = changed(b, "data", sha256="of other images")
    assert not any("images" in row[0] and "MACs" not in row[0] for row in side_by_side.comparison(a, other))


def test_found_by_file_run_folder_beginning_or_hash(folder, tmp_path):
    """A beginning of two runs, or of none, is refused."""
    a, b = records.load_all(folder)
    assert side_by_side.find_record(str(folder / f"{a.run_id}.json"), folder) == a
    run = tmp_path / "begun" / a.run_id
    run.mkdir(parents=True)
    with pytest.raises(DcilError, match=r"record\.json"):  # begun, not finished
        side_by_side.find_record(str(run), folder)
    (run / "record.json").write_bytes((folder / f"{a.run_id}.json").read_bytes())
    assert side_by_side.find_record(str(run), folder) == a
    assert (
        side_by_side.find_record(b.run_id[:-3], folder)
        == side_by_side.find_record(b.run_id.rpartition("-")[2], folder)
        == b
    )
    with pytest.raises(DcilError, match="the beginning of 2: "):
        side_by_side.find_record("digits", folder)
    with pytest.raises(DcilError, match="unknown record"):
        side_by_side.find_record("cifar10", folder)


def test_a_failed_run_has_no_curve(folder):
    """Nothing is compared that is not there."""
    a = records.load_all(folder)[0]
    failed = a | {"status": "failed", "curve": [], "final": {"passes": {}}}
    rows = [row[0] for row in side_by_side.comparison(a, failed)]
    assert "status" in rows and not any("pass" in name for name in rows)


def test_the_command(folder, capsys, tmp_path):
    """It exits with 0 for the same run on another day, 1 for another run, 2 for what is no record."""
    a, b = sorted(folder.glob("*.json"))
    later = copy.deepcopy(records.read(a))
    later["environment"]["date"], later["cost"]["time_s"] = "2030-01-01", 1.0
    (tmp_path / "later.json").write_text(json.dumps(later))
    assert main(["records", "diff", str(a), str(tmp_path / "later.json")]) == 0
    assert "the same but for clocks" in capsys.readouterr().out
    assert main(["records", "diff", a.stem, b.stem, "--records-dir", str(folder)]) == 1
    out = capsys.readouterr().out
    assert "config.seed" in out and "sparse pass, last epoch" in out
    assert main(["records", "diff", "nothing", str(b), "--records-dir", str(folder)]) == 2
    assert "unknown record" in capsys.readouterr().err
