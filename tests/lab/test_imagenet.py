"""The tables of the chapter on ImageNet, from made-up benchmark rows and records."""

import pandas as pd
import pytest

from dcil.lab.checkout import root
from dcil.lab.evidence import claims
from dcil.lab.runs import benchmarks
from dcil.lab.runs.compared import COMPARED
from dcil.lab.tables import imagenet
from tests.lab.fakes import fake_run

MACHINE = {"kind": "cpu", "device": "a CPU", "threads": 1, "malloc": ""}


def rows(*given):
    """Return benchmark rows of one machine."""
    common = {"ratio_q1": 1.9, "ratio_q3": 2.1, "rounds": 5, "mem_mib": 2048.0, "batch_size": 64}
    return pd.DataFrame([MACHINE | common | row for row in given], columns=benchmarks.COLUMNS)


STEP = {"name": "imagenet", "case": "dcil", "baseline": "dense", "model": "resnet50", "batch_size": 16,
        "median_s": 8.0, "baseline_s": 4.0, "ratio": 2.0}  # fmt: skip
LOADS = [{"name": "loading", "case": "ImageFolder + DataLoader", "baseline": how, "median_s": 0.064, "baseline_s": s,
          "ratio": 0.064 / s} for how, s in (("originals", 0.032), ("decoded", 0.016))]  # fmt: skip


def test_estimates():
    """They are steps times seconds, in hours; what was not measured is "not run"."""
    table = imagenet.estimates_table(rows(STEP))
    steps = 90 * 1_281_167 / 16
    assert table["dense run, device-hours"].tolist() == [f"{steps * 4 / 3600:,.0f}", "not run"]
    assert table["DCIL run, device-hours"][0] == f"{steps * 8 / 3600:,.0f}" and table["DCIL step, GiB"][0] == "2.0"
    assert table["machine"].tolist() == ["a CPU, 1 thread", "no GPU yet"]


def test_loading_and_feeding():
    """The tables show images per second of each way to load, and how many a device takes."""
    table = imagenet.loading_table(rows(*LOADS))
    assert table["images a second"].tolist() == ["1,000", "2,000", "4,000"]
    assert table["times as fast"].tolist()[0] == "1" and table["times as fast"][2].startswith("4.00")
    assert "takes 4.00 images a second" in imagenet.feeding_in_words(rows(STEP, *LOADS))
    assert imagenet.feeding_in_words(rows()) == "Not run."
    assert imagenet.loading_table(rows()).empty


def test_published_table():
    """Every row has a source; ours say "not run" until there is a record, then its accuracy."""
    published = imagenet.read_published(root() / "book" / "published.yml")
    table = imagenet.published_table(published, [])
    assert len(table) == len(published) + 2 and table["source"].str.len().min() > 3
    assert table[table["method"] == "ST-3"]["90 %"].item() == "76.03"
    ours = table[table["source"] == "this book"]
    # The README's table at 1 × ends at 90 %; a figure at 95 % would be another table's.
    assert table[table["method"] == "RigL, ERK"]["95 %"].item() == ""
    assert (ours[["80 %", "90 %", "95 %"]] == "not run").all(axis=None)
    at = COMPARED["paper"] | {"dataset": "imagenet", "model": "resnet50", "epochs": 90, "scope": "global"}
    others = [{"model": "resnet18"}, {"epochs": 9}, {"precision": "float32"}, {"scope": "layer"}, {"mask_period": 64}]
    runs = [fake_run("ste", 0, 71.25, **at), *(fake_run("ste", 0, 1.0, **at | other) for other in others)]
    table = imagenet.published_table(published, [run | {"tier": "paper"} for run in runs])
    assert table[table["method"] == "STE"]["90 %"].item() == "71.25"  # no run trained otherwise is averaged in


@pytest.mark.parametrize(("dataset", "open_"), [("imagenette", True), ("imagefolder", True), ("imagenet", False)])
def test_imagenet_is_settled_by_imagenet_only(dataset, open_):
    """Runs on other images leave the claim open, however many; pairs on ImageNet decide it."""
    (claim,) = [c for c in claims.read_claims(root() / "book" / "claims.yml") if c.id == "imagenet"]
    at = COMPARED["paper"] | next(iter(claim.evidence.values())) | {"dataset": dataset}
    runs = [
        fake_run(m, s, last + s / 10, **at) | {"tier": "paper"}
        for m, last in (("dcil", 76), ("ste", 74))
        for s in range(5)
    ]
    assert [f.verdict.startswith("not yet run") for f in claims.findings(claim, runs)] == [open_]
