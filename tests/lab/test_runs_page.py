"""The table of all runs: every record has a row, its text is escaped, and the page stays light."""

import math
import re

from dcil import fit, preset, records
from dcil.cli.main import build_parser
from dcil.cli.options import values_of_config
from dcil.lab import checkout
from dcil.lab.book import runs_page
from dcil.lab.page import provenance
from dcil.run_record import Run
from tests.lab.fakes import changed


def run(tiny_config, tiny_dataset, tmp_path, **changes):
    return Run(fit(tiny_config(**changes), dataset=tiny_dataset, runs_dir=tmp_path, progress=False))


def test_every_record_has_its_row(tiny_config, tiny_dataset, tmp_path):
    """Complete or failed, each is under its run id, with both passes' accuracies and a curve."""
    good = run(tiny_config, tiny_dataset, tmp_path)
    dense = run(tiny_config, tiny_dataset, tmp_path, method="dense")
    bad = good | {
        "run_id": "other-run",
        "status": "failed",
        "reason": "the loss became nan",
        "curve": [],
        "final": {"passes": {}},
    }
    page = runs_page.all_runs_page([good, dense, bad])
    assert re.findall(r'<tr id="([^"]+)"', page) == [provenance.anchor(r["run_id"]) for r in (good, dense, bad)]
    assert "the loss became nan" in page and "<b>failed</b>" in page
    assert f"{good['final']['passes']['dense']['last']['top1']:.2f}" in page
    assert page.count("<polyline") == (3 + 2) + 2  # sparsity and each pass; exchanges and overlaps where it prunes
    assert page.count('aria-label="sparsity of each layer') == 1 and page.count("JSON</a>") == 3
    assert f"../records/{good['run_id']}.json" in page and "kept weights exchanged" in page
    cells = [re.findall(r"<td", line) for line in page.splitlines() if line.startswith("<tr id")]
    assert {len(row) for row in cells} == {len(runs_page.COLUMNS)}
    assert '<option value="dense">' in page and 'data-status="failed"' in page


def test_a_row_names_its_run_for_people(tiny_config, tiny_dataset, tmp_path):
    """A row has the hash, and the whole id on hover and when opened; a method has its label, which is searched too."""
    made = run(tiny_config, tiny_dataset, tmp_path)
    row = runs_page.run_row(made)
    assert f'<summary title="{made.run_id}"><code>{made.run_id[-8:]}</code>' in row
    assert f"Run <code>{made.run_id}</code>" in row and "<td>DCIL, " in row
    assert '<option value="dcil">DCIL</option>' in runs_page.all_runs_page([made])
    assert "gradual magnitude" in runs_page.run_row(changed(made, "config", method="gmp")).split("data-tier")[0]


def test_the_command_trains_the_run_again():
    """The command of every record of the book is parsed to the configuration of that record, by its run id."""
    for record in records.load_all(checkout.root() / "records"):
        words = runs_page.rerun_command(record.config).split()
        assert words[:4] == ["python", "-m", "dcil", "train"] and len(words) < 24
        args, extra = build_parser().parse_known_args(words[3:])
        assert not extra and preset(args.preset, **values_of_config(args)).run_id == record["run_id"]


def test_long_curves_are_thinned_and_gaps_left_out():
    """A line has at most `POINTS` and its last; what was not measured is no point, and nothing at all no chart."""
    points = [(i + 1, 50.0 if i % 2 else math.nan) for i in range(1000)]
    drawn = re.search(r'points="([^"]+)"', runs_page.chart("a", {"sparse": points}, 1000, 100)).group(1).split()
    assert len(drawn) <= runs_page.POINTS + 1 and drawn[-1].split(",")[0] == f"{runs_page.WIDTH - 8:.1f}"
    assert runs_page.chart("a", {"sparse": [(1, math.nan)]}, 1, 100) == "" == runs_page.bars({"conv1": 0.0})


def test_passes_share_a_colour_and_differ_by_their_line():
    """Of two passes the dense one is dashed, in the chart and in its legend."""
    both = runs_page.chart("a", {name: [(1, 1.0), (2, 2.0)] for name in ("sparse", "dense")}, 2, 100)
    styles = re.findall(r'<path d="M0 4H18" ([^/]+)/>', both)
    assert styles[1].startswith(styles[0]) and "dasharray" in styles[1] and "dasharray" not in styles[0]
    assert re.findall(r"<polyline [^/]+/>", both)[1].count("dasharray") == 1


def test_hostile_text_is_escaped(tiny_config, tiny_dataset, tmp_path):
    """A record from elsewhere cannot put markup into the page."""
    record = run(tiny_config, tiny_dataset, tmp_path)
    image, script = "<img src=x onerror=alert(1)>", '"><script>alert(1)</script>'
    record = changed(record, "environment", device=image) | {"run_id": image, "reason": script}
    page = runs_page.all_runs_page([record])
    assert "<img" not in page and "<script>alert" not in page and "&lt;img" in page


def test_long_values_are_cut_and_shared_time_is_said(tiny_config, tiny_dataset, tmp_path):
    """An additional key of any length is cut, and the minutes of a run that shared its device are marked."""
    record = run(tiny_config, tiny_dataset, tmp_path)
    record = changed(record, "environment", note=["words"] * 10_000)
    alone, packed = runs_page.run_row(record), runs_page.run_row(changed(record, "cost", shared_by=6))
    assert len(alone) < 20_000 and "shared" not in alone
    assert ", shared</td>" in packed and "shared_by <b>6</b>" in packed


def test_it_stays_light(tiny_config, tiny_dataset, tmp_path):
    """Sixty runs of three hundred epochs and two passes take less than 1.2 MB."""
    record = run(tiny_config, tiny_dataset, tmp_path)
    long = record | {"curve": record["curve"] * 150}
    assert len(runs_page.all_runs_page([long] * 60)) < 1_200_000
