"""Tables and sentences follow from records, and say so where there are none."""

from dcil.lab.page import provenance
from dcil.lab.runs import frames, sources
from tests.lab.fakes import PAIRED, changed, fake_run


def test_by_method_means_and_missing():
    """Mean ± sample deviation with n; a method without a record is "not run"."""
    table = frames.methods_table(PAIRED, ["dense", "ste"]).set_index("method")
    assert table.loc["ste", "last epoch, %"] == "81.00 ± 1.41" and table.loc["ste", "n"] == 2
    assert table.loc["dense", "last epoch, %"] == "not run" and table.loc["dense", "n"] == 0


def test_failed_runs_do_not_enter_means():
    """A failed record is kept, but is no result."""
    failed = fake_run("ste", 2, 10.0) | {"status": "failed"}
    assert frames.methods_table([*PAIRED, failed], ["ste"])["n"].item() == 2


def test_time_on_a_shared_device_is_left_out():
    """The accuracies of such a run count; its minutes are only said to be shared."""
    packed = changed(fake_run("ste", 2, 81.0), "cost", time_s=9e9, shared_by=2)
    line = frames.methods_table([*PAIRED, packed], ["ste"]).iloc[0]
    assert (line["n"], line["minutes a run"]) == (3, "1.0 ± 0.0, 1 shared")
    assert frames.methods_table([packed], ["ste"])["minutes a run"].tolist() == ["1 shared"]


def test_findings_name_cost_and_best_epoch():
    """The list holds the cost ratio, the second network and what picking the best epoch would add."""
    both = [fake_run("dense", 0, 85.0, ("dense",)), *PAIRED[:2], fake_run("dcil", 0, 81.0, ("sparse", "dense"))]
    text = frames.findings_in_words(frames.runs_table(both))
    assert "DCIL minus dense training: -4.00 points, n = 1. The pruned" in text
    assert "does 100.0 % of the dense network's" in text
    assert "DCIL's dense pass minus its sparse pass" in text and "on average over all runs: +1.00 points" in text
    assert frames.findings_in_words(frames.runs_table([])) == "Nothing yet: not run."


def test_findings_are_at_equal_seeds():
    """A seed that dense training lacks does not move the difference; without a common one there is none."""
    dense = fake_run("dense", 0, 85.0, ("dense",))
    more = frames.runs_table([dense, *(fake_run("dcil", seed, last) for seed, last in enumerate((81.0, 99.0)))])
    assert "DCIL minus dense training: -4.00 points, n = 1." in frames.findings_in_words(more)
    apart = frames.runs_table([dense, fake_run("dcil", 1, 81.0)])
    assert "DCIL minus dense training: no seed in common." in frames.findings_in_words(apart)


def test_findings_are_on_the_methods_as_they_are():
    """A run of DCIL with another setting, such as a rate that chapter 9 tries, is another variant."""
    usual = [fake_run("dense", 0, 85.0, ("dense",)), fake_run("ste", 0, 80.0), fake_run("dcil", 0, 81.0)]
    other = [fake_run("dcil", 0, 10.0, lr=0.05), fake_run("ste", 0, 10.0, mask_period=64)]
    assert frames.findings_in_words(frames.runs_table(usual + other)) == frames.findings_in_words(
        frames.runs_table(usual)
    )


def test_curves_have_a_row_a_pass_and_epoch():
    """Epochs count from 1; flips are per refresh."""
    curve = frames.curves_table(PAIRED)
    assert len(curve) == 4 and set(curve["flips"]) == {5.0} and set(curve["epoch"]) == {1}
    assert len(frames.curves_table([])) == 0


def test_show_has_the_table_and_its_source():
    """The table, the source of its numbers and the file under it; an empty table says "not run"."""
    shown = provenance.show_table(
        frames.methods_table(PAIRED, ["ste"]), sources.recorded(PAIRED), "06-cifar#methods"
    ).data
    assert "81.00 ± 1.41" in shown and 'class="provenance"' in shown and "06-cifar-methods.csv" in shown
    assert "not run" in provenance.show_table(frames.runs_table([]), sources.recorded([]), "x#y").data
