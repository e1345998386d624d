"""The ingredient that matters most is named only where the seeds say so."""

import pandas as pd

from dcil.lab.runs import frames
from dcil.lab.tables import ingredients
from dcil.methods import METHODS
from dcil.rules import RULES
from tests.lab.fakes import fake_run


def table(**lasts):
    return frames.runs_table(
        [
            fake_run(m, s, last, passes=("sparse", "dense")[: len(METHODS[m].rules)])
            for m, values in lasts.items()
            for s, last in enumerate(values)
        ]
    )


def test_what_each_ingredient_is_worth_is_said():
    """Each subject that ran has a sentence, one variant minus another; too few seeds are called that."""
    runs = {"dcil": (85, 85.1, 85.2), "ste_split": (83, 83.2, 83.1), "dcil_no_mutual": (84.9, 85.0, 85.1)}
    count, teaching, refined = ingredients.worth_in_words(table(**runs))
    assert count.startswith(f"2 of {len(ingredients.INGREDIENTS)} ingredients are measured.")
    assert teaching == "**Teaching:** DCIL minus DCIL without teaching +0.10 (+0.10 to +0.10), n = 3."
    assert refined.endswith(":** DCIL minus STE, two passes, teaching +2.00 (+1.75 to +2.25), n = 3.")
    alone = ingredients.worth_in_words(table(ste=(85,), kept_only=(84,)))
    assert alone[0].startswith(f"1 of {len(ingredients.INGREDIENTS)} ingredients is measured.")
    level = {"ste": (85.2, 85.0, 85.1), "kept_only": (85.3, 85.1, 85.2)}
    _, alone, *_, bent = ingredients.worth_in_words(table(**runs, **level))
    assert "STE minus training kept weights only -0.10 (-0.10 to -0.10), n = 3; DCIL without teaching minus" in alone
    assert bent.startswith("Gradient and teaching are **not separable**") and "is worth +2.10 (" in bent
    assert bent.endswith("more than without, n = 3.")
    *_, few = ingredients.worth_in_words(table(dcil=(85,), ste_split=(83,)))
    assert few.endswith("+2.00, n = 1 of the 3 seeds that a verdict takes.")
    assert "No variant shares a seed" in ingredients.worth_in_words(table(dcil=(85,)))[0]


def test_every_ingredient_has_a_subject():
    """Each belongs to one subject, so that none is left unsaid, but for the norms, which are read elsewhere."""
    told = [name for names in ingredients.SUBJECTS.values() for name in names]
    assert sorted([*told, *ingredients.READ]) == sorted(ingredients.INGREDIENTS)


def test_a_gap_is_divided_at_common_seeds():
    """DCIL minus STE with the mutual loss is DCIL minus STE plus what that loss costs STE; the teacher is named too."""
    runs = [fake_run("dcil", s, 85.0) for s in range(3)] + [fake_run("ste", s, 84.0) for s in range(2)]
    taught = [fake_run("ste_split", s, 81.0, passes=("sparse", "dense")) for s in range(3)]
    for r in taught:
        r["final"]["passes"]["dense"]["last"]["top1"] = 77.5
    assert ingredients.decomposition_in_words(frames.runs_table(runs + taught)) == (
        "Of the +4.00 points of DCIL minus STE, two passes, teaching, +1.00 are DCIL minus STE, and +3.00 what the "
        "mutual loss costs STE, whose dense network ends at 77.50 %, n = 2."
    )
    assert ingredients.decomposition_in_words(frames.runs_table(runs)) == ""


def test_separate_norms_are_worth_what_the_weights_are():
    """Norms that average two networks hide the weights, so the worth is read in training, where each has its batch."""
    runs = [fake_run("dcil", s, 80.0) for s in range(3)] + [fake_run("dcil_shared_norms", s, 10.0) for s in range(3)]
    for r in runs:
        r["curve"][-1]["train"]["sparse"]["top1"] = 84.0 + (r["config"]["method"] == "dcil") / 2
    both = frames.runs_table(runs)
    row = ingredients.worth_table(both).set_index("ingredient").loc["separate norms"]
    assert row[["value", "n", "mean", "low", "high"]].tolist() == ["train", 3, 0.5, 0.5, 0.5]
    said = ingredients.separate_norms_in_words(both)
    assert "worth +0.50 (+0.50 to +0.50) points to what the sparse pass learns, n = 3" in said
    assert "The +70.00 (+70.00 to +70.00) in testing" in said
    assert ingredients.worth_in_words(both)[-1] == said
    assert (
        ingredients.separate_norms_in_words(frames.runs_table(runs[:3]))
        == ingredients.separate_norms_in_words(frames.runs_table([]))
        == ""
    )


def test_an_ingredient_is_one_difference():
    """Its two variants differ in one of rules, loss and own parts; plain STE stands for STE beside an idle pass."""
    for name, pair in ingredients.INGREDIENTS.items():
        one, other = (METHODS[v] for v in pair)
        if len(one.rules) == 2 and other.name == "ste" and one.rules[0] == "straight_through":
            other = METHODS["ste_split_ce"]
        assert sum([one.rules != other.rules, one.loss is not other.loss, one.own != other.own]) == 1, name


def test_effects_are_paired_and_interact():
    """Ingredients are worth what they add at equal seeds; an interaction is the difference of two such differences."""
    runs = table(dcil=(85, 86), dcil_no_mutual=(84, 85), ste_split=(83, 84.5), ste=(80, 81))
    rows = ingredients.worth_table(runs).set_index("ingredient")
    assert rows.loc["mutual loss", ["n", "mean", "low", "high"]].tolist() == [2, 1, 1, 1]
    assert rows.loc["refined gradient, without mutual loss", "mean"] == 4
    assert rows.loc["separate norms", "n"] == 0
    assert ingredients.interaction(runs).tolist() == [-2, -2.5]
    corners = ingredients.square_table(runs)
    assert len(corners) == 8 and corners.loc[corners["variant"] == "ste_split", "mutual loss"].all()
    more = table(dcil=(85, 86, 99), dcil_no_mutual=(84, 85), ste_split=(83, 84.5), ste=(80, 81, 0))
    assert ingredients.square_table(more).equals(corners)  # means are over the seeds that all have
    levels = ingredients.square_table(table(kept_only=(80,), ste_tenth=(81,), ste=(82,), dcil_no_mutual=(83,)))
    assert levels["gradient"].tolist() == list(ingredients.LEVELS) and not levels["mutual loss"].any()


def test_design_follows_the_methods():
    """Every method can be described, settings included; a new gradient rule needs its words in `REACHES`."""
    assert ingredients.REACHES.keys() == RULES.keys()
    names = [*METHODS, "dcil, dense_every 4"]
    rows = ingredients.design_table(names).set_index(pd.Index(names))
    assert rows.loc["ste", "the second pass trains"] == "there is none"
    assert rows.loc["dcil", "the second pass trains"] == "pruned weights"
    assert rows.loc["dcil_dense_all", "the second pass trains"] == "all weights"
    assert rows.loc["dcil_shared_norms", "each pass has its own"] == "head"
    assert rows.loc["dcil, dense_every 4", "what it is"].endswith("; dense_every 4")
