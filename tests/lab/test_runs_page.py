"""The table of all runs: every record has its row, what is in it is escaped, and it stays light."""

import re

from dcil import fit
from dcil.lab import runs_page


def run(tiny_config, tiny_dataset, tmp_path, **changes):
    return fit(tiny_config(**changes), dataset=tiny_dataset, runs_dir=tmp_path, progress=False)


def test_every_record_has_its_row(tiny_config, tiny_dataset, tmp_path):
    """Complete and failed ones, each under its run id, with both passes' accuracies and a curve."""
    good = run(tiny_config, tiny_dataset, tmp_path)
    dense = run(tiny_config, tiny_dataset, tmp_path, method="dense")
    bad = good | {"run_id": "other-run", "status": "failed", "reason": "the loss became nan", "curve": [],
                  "final": {"passes": {}}}  # fmt: skip
    page = runs_page.page([good, dense, bad])
    assert re.findall(r'<tr id="([^"]+)"', page) == [good["run_id"], dense["run_id"], "other-run"]
    assert "the loss became nan" in page and "<b>failed</b>" in page
    assert f"{good['final']['passes']['dense']['last']['top1']:.2f}" in page
    assert page.count("<svg") == 2 and page.count("<polyline") == 3 + 2  # sparsity, and each pass
    cells = [re.findall(r"<td", line) for line in page.splitlines() if line.startswith("<tr id")]
    assert {len(row) for row in cells} == {len(runs_page.COLUMNS)}
    assert '<option value="dense">' in page and 'data-status="failed"' in page


def test_hostile_text_is_escaped(tiny_config, tiny_dataset, tmp_path):
    """A record from elsewhere cannot put markup into the page."""
    record = run(tiny_config, tiny_dataset, tmp_path)
    record["environment"]["device"] = record["run_id"] = "<img src=x onerror=alert(1)>"
    record["reason"] = '"><script>alert(1)</script>'
    page = runs_page.page([record])
    assert "<img" not in page and "<script>alert" not in page and "&lt;img" in page


def test_it_stays_light(tiny_config, tiny_dataset, tmp_path):
    """Sixty runs of three hundred epochs and two passes take less than a megabyte."""
    record = run(tiny_config, tiny_dataset, tmp_path)
    long = record | {"curve": record["curve"] * 150}
    assert len(runs_page.page([long] * 60)) < 1_200_000
