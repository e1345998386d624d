"""The block under figures and tables: what it names, what it links to, and that it is safe and always the same."""

import base64
import io
import json
import re
from pathlib import Path

import numpy as np
import pandas as pd

from dcil import preset
from dcil.lab import checkout
from dcil.lab.page import provenance
from dcil.lab.runs import sources
from tests.lab.fakes import PAIRED, changed

DATA = pd.DataFrame({"run": ["ste-0-aaaa", "other"], "test": [80.123456789, np.nan], "what": ["<b>", None]})


def test_recorded_names_runs_commit_machine_versions_seeds_tier_and_date():
    """It has everything that a reader needs to find the runs; without records it says "not run"."""
    source = sources.recorded(PAIRED)
    assert source.words == "4 recorded runs, tier quick, seeds 0, 1"
    assert source.runs == tuple(r.run_id for r in PAIRED)
    assert dict(source.facts) == {
        "commit": "0123456",
        "machine": "a CPU, 1 thread",
        "date": "2026-01-02",
        "versions": "Python 3.11.7, torch 2.13.0",
    }
    assert sources.recorded(PAIRED[:1]).words == "1 recorded run, tier quick, seed 0"
    assert sources.recorded(PAIRED[1:]).words == "3 recorded runs, tier quick, seeds 0, 1 (1 or 2 of them a setting)"
    assert sources.recorded([]) == sources.Source("no records: not run")


def test_no_number_is_written_minus_zero_or_nan():
    """Neither in a table nor in the data of a figure, in a column of numbers or of numbers and words."""
    numbers = pd.DataFrame({"a": [-0.001, np.nan, 1.2345], "b": ["word", -0.001, np.nan]})
    cells = re.findall("<td>(.*?)</td>", provenance.table(numbers))
    assert cells == ["0.00", "word", "", "0.00", "1.23", ""]
    assert list(provenance.drawn(pd.DataFrame({"a": [-0.00001, 0.1234, None]}))["a"]) == ["0.0000", "0.1234", ""]


def test_a_difference_is_formatted_without_minus_zero():
    """A signed number of a page has the option z, which turns -0.00 into +0.00."""
    lab = Path(provenance.__file__).parents[1]
    sources = {path: path.read_text() for path in lab.rglob("*.py")}
    for path in (checkout.root() / "book").glob("*.ipynb"):
        cells = json.loads(path.read_text())["cells"]
        sources[path] = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    assert not {path.name: found for path, text in sources.items() if (found := re.findall(r":\+\.\d+f", text))}


def test_dirty_code_and_a_span_of_days_are_said():
    """A commit alone does not say what ran when the code differed from it."""
    first = changed(PAIRED[0], "environment", dirty=True, date="2026-01-05")
    facts = dict(sources.recorded([first, PAIRED[1]]).facts)
    assert facts["commit"] == "0123456, 0123456 and uncommitted changes" and facts["date"] == "2026-01-02 to 2026-01-05"


def test_computed_names_the_machine_and_exact_does_not():
    """An output that the tests compare on every commit and machine must not name one."""
    live = sources.live(preset("smoke", seed=3), preset("smoke", method="ste", seed=3))
    facts = dict(live.facts)
    assert live.words == "computed in this page: " + "; ".join(
        f"{method}, ResNet-8, digits, 90 % pruned, 6 epochs" for method in ("DCIL", "STE")
    )
    assert facts["run ids"].count("-seed3-") == 2 and facts["tier and seeds"] == "smoke; 3"
    assert {"commit", "machine", "versions"} <= facts.keys()
    assert not {"commit", "machine", "versions"} & dict(sources.exact("a toy").facts).keys()


def test_footer_leads_to_the_runs_the_command_and_the_data():
    """Links to the rows of the runs, the command, the data as a table, and the same data as a CSV file."""
    block = provenance.footer(sources.recorded(PAIRED), "06-cifar#fig-one", DATA)
    assert re.findall(r'href="runs.html#([^"]+)"', block.split("<summary>data")[0]) == [r.run_id for r in PAIRED]
    assert "make chapter NAME=06-cifar" in block and 'download="06-cifar-one.csv"' in block
    content = base64.b64decode(re.search(r"data:text/csv;base64,([^\"]+)", block).group(1)).decode()
    assert pd.read_csv(io.StringIO(content))["test"][0] == 80.1235
    assert block == provenance.footer(sources.recorded(PAIRED), "06-cifar#fig-one", DATA)
    assert "<summary>data" not in provenance.footer(sources.recorded([]), "x#y", DATA, shown=True)


def test_anchors_are_selectors():
    """The theme's script looks for each with `querySelector`: "#a-s0.9" would be a class that begins with a digit."""
    assert provenance.anchor("digits-dcil-s0.9-e16") == "digits-dcil-s0_9-e16"
    assert 'href="runs.html#a-s0_9" ' in provenance.link("a-s0.9")


def test_a_run_is_named_by_its_hash_and_in_full_on_hover():
    """A list of forty long ids cannot be read, so the id in full is left to the link and its title."""
    shown = provenance.link("cifar10-dcil-s0.9-seed0-4b78f1ef")
    assert re.sub("<[^>]+>", "", shown).strip() == "4b78f1ef"
    assert 'title="cifar10-dcil-s0.9-seed0-4b78f1ef"' in shown and "#cifar10-dcil-s0_9-seed0-4b78f1ef" in shown


def test_drawn_data_is_for_people_and_its_file_for_programs():
    """The page has labels and short numbers, the file code names and more digits."""
    data = pd.DataFrame({"variant": ["dcil_no_mutual"], "test": [80.123456], "flips": [np.nan], "rate": [0.123456]})
    block = provenance.footer(sources.given("us"), "x#y", data)
    assert re.findall("<td>([^<]*)</td>", block) == ["DCIL without teaching", "80.12", "", "0.1235"]
    content = base64.b64decode(re.search(r"data:text/csv;base64,([^\"]+)", block).group(1)).decode()
    assert content.splitlines()[1] == "dcil_no_mutual,80.1235,,0.123456"


def test_long_data_is_cut_in_the_page_only():
    """The page shows the first rows and says so; the file holds all of them."""
    long = pd.DataFrame({"x": range(1000)})
    block = provenance.footer(sources.given("us"), "x#y", long)
    assert f"first {provenance.ROWS} of 1,000 rows" in block and block.count("<tr") == provenance.ROWS + 1


def test_a_csv_file_computes_nothing():
    """Text that begins like a formula gets an apostrophe, in a column's name too; numbers stay as they are."""
    texts = [
        "=1+2",
        "+1+cmd|' /C calc'!A0",
        "-A1",
        "@SUM(A1)",
        "\t=1",
        "a CPU",
        "-0.12 (-0.30 to +0.06)",
        "-1.5e-05",
        "+0.52 to +1.20",
        "-3.4 ± 2.1",
        "+e1",
        "-1 to A1",
        "",
    ]
    data = pd.DataFrame({"text": texts, "number": [-1.5] * len(texts), "=2": [-7] * len(texts)})
    content = base64.b64decode(re.search(r"base64,([^\"]+)", provenance.download(data, "a")).group(1)).decode()
    found = pd.read_csv(io.StringIO(content), keep_default_na=False)
    assert [text.startswith("'") for text in found["text"]] == [True] * 5 + [False] * 5 + [True] * 2 + [False]
    assert [text.removeprefix("'") for text in found["text"]] == texts
    assert set(found["number"]) == {-1.5} and set(found["'=2"]) == {-7}


def test_tables_link_their_runs_and_escape_the_rest():
    """Only runs that have a row are links; what a record says cannot put markup into the page."""
    shown = provenance.table(DATA, 1, runs=["ste-0-aaaa"])
    assert shown.count("<a ") == 1 and "<td>other</td>" in shown and "&lt;b&gt;" in shown and "80.1" in shown
    assert "<i>" not in provenance.table(pd.DataFrame({"<i>": ["a"]}))
    hostile = sources.Source("<script>", ("<img>",), (("machine", "<img>"),))
    block = str(provenance.footer(hostile, "x#y", DATA, twin={"name": "</script><img>"}))
    assert "<img>" not in block.replace("<\\/script><img>", "") and block.count("</script>") == 1


def test_more_is_said_only_where_something_stands_above():
    """The line that opens counts what has no run, and says "more" only below rows."""
    none, some = pd.DataFrame(), pd.DataFrame({"method": ["DCIL"]})
    lines = [
        provenance.show_table(rows, sources.recorded([]), "x#y", waiting=["STE", "RigL"]).data for rows in (none, some)
    ]
    assert "<summary>2 variants are planned</summary>" in lines[0]
    assert "<summary>2 more variants are planned</summary>" in lines[1]


def test_what_all_rows_share_is_said_once():
    """It is said under the table, and the CSV file keeps the column."""
    data = pd.DataFrame({"method": ["DCIL", "STE"], "on": ["a CPU", "a CPU"], "epochs": [8, 16]})
    shown = provenance.show_table(data, sources.recorded([]), "x#y", common=("on", "epochs", "network")).data
    html, block = shown.split('<div class="provenance">')
    assert "a CPU" not in html and "<td>16</td>" in html and "no records: not run; a CPU" in block
    content = base64.b64decode(re.search(r"base64,([^\"]+)", block).group(1)).decode()
    assert content.startswith("method,on,epochs\nDCIL,a CPU,8\n")
