"""The ingredient that matters most is named only where the seeds say so."""

from dcil.lab import ablation, stats
from dcil.methods import METHODS
from tests.lab.fakes import record


def table(**lasts):
    return stats.runs_table([record(m, s, last) for m, values in lasts.items() for s, last in enumerate(values)])


def test_the_worst_variant_is_named():
    """A clear gap is settled; one seed, a wide interval and no run are not."""
    runs = {"dcil": (85, 85.1, 85.2), "ste": (83, 83.2, 83.1), "dcil_no_mutual": (84.9, 85.0, 85.1)}
    said = ablation.sentence(table(**runs), ["ste", "dcil_no_mutual", "dcil_shared"])
    assert "Of the 2 variant(s)" in said and "**ste** ends furthest from dcil: -2.00" in said and "matters most" in said
    assert "at one seed. **Not settled.**" in ablation.sentence(table(dcil=(85,), ste=(83,)), ["ste"])
    assert "contains zero" in ablation.sentence(table(dcil=(85, 80, 82), ste=(83, 82, 80)), ["ste"])
    assert "Not run yet" in ablation.sentence(table(dcil=(85,)), ["ste"])
    assert "None of the 1 variant(s)" in ablation.sentence(table(dcil=(80, 80), ste=(81, 82)), ["ste"])


def test_design_follows_the_methods():
    """Every variant of DCIL can be described, settings included."""
    names = [name for name in METHODS if name.startswith(("dcil", "ste"))]
    rows = ablation.design([*names, "dcil, dense_every 4"]).set_index("variant")
    assert rows.loc["ste", "the second pass trains"] == "there is none"
    assert rows.loc["dcil", "the second pass trains"] == "pruned weights"
    assert rows.loc["dcil_dense_all", "the second pass trains"] == "all weights"
    assert rows.loc["dcil_shared_norms", "each pass has its own"] == "head"
    assert rows.loc["dcil, dense_every 4", "what it is"].endswith("; dense_every 4")
