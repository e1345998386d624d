"""What each ingredient of DCIL is worth: variants that lack or change one, compared with DCIL at equal seeds."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from dcil.lab.runs.compared import SEEDS
from dcil.lab.runs.names import label
from dcil.lab.runs.paired import by_seed, differences, signed_interval, t_interval
from dcil.methods import METHODS

PAIRED = ["n", "mean", "low", "high"]
# A 2×2 design: the gradient of pruned weights, and whether there is a mutual loss. With STE's gradient, the second pass
# trains no weight; without a mutual loss it is then idle, so plain STE fills that cell
# (`test_an_idle_second_pass_changes_nothing`).
SQUARE = {("STE's", False): "ste", ("STE's", True): "ste_split",
          ("refined", False): "dcil_no_mutual", ("refined", True): "dcil"}  # fmt: skip
# The variants without a mutual loss, by the gradient that a pruned weight gets. While the mask does not change, all
# four train the kept weights identically, to the last bit (eq-fixed-mask in the book).
LEVELS = {"none": "kept_only", "a tenth of STE's": "ste_tenth", "STE's": "ste", "refined": "dcil_no_mutual"}
# Each ingredient, with the variant that has it, and the one that lacks it but is otherwise the same.
INGREDIENTS = {
    "STE's gradient, against none": ("ste", "kept_only"),
    "refined gradient, against none": ("dcil_no_mutual", "kept_only"),
    "refined gradient, with mutual loss": ("dcil", "ste_split"),
    "refined gradient, without mutual loss": ("dcil_no_mutual", "ste"),
    "mutual loss": ("dcil", "dcil_no_mutual"),
    "mutual loss, with STE's gradient": ("ste_split", "ste"),
    "sparse pass's lesson": ("dcil", "dcil_dense_learns"),
    "dense pass's lesson": ("dcil", "dcil_sparse_learns"),
    "detached teacher": ("dcil", "dcil_not_detached"),
    "separate norms": ("dcil", "dcil_shared_norms"),
    "separate classifier": ("dcil", "dcil_shared_head"),
}
# The ingredients grouped by subject, as a sentence words it. "separate norms" has a sentence of its own (see `READ`).
SUBJECTS = {
    "A gradient for pruned weights, where nothing is taught": (
        "STE's gradient, against none", "refined gradient, against none", "refined gradient, without mutual loss"),
    "Teaching": ("mutual loss", "mutual loss, with STE's gradient"),
    "The refined gradient in the place of STE's, where the passes teach each other": (
        "refined gradient, with mutual loss",),
    "Pieces of DCIL": ("sparse pass's lesson", "dense pass's lesson", "detached teacher", "separate classifier"),
}  # fmt: skip
# The column of a `runs_table` in which an ingredient's worth is read, if not "last" (the test set's last epoch). Shared
# norms are tested with one running average for two networks, which fits neither, however good their weights are. In
# training, each pass normalises by its own batch.
READ = {"separate norms": "train"}
# What a pass's gradient reaches, in words, by rule (`dcil.rules`).
REACHES = {"kept": "kept weights", "soft_kept": "kept weights", "straight_through": "all weights",
           "soft_threshold": "all weights", "refined": "pruned weights", "dense": "all weights", "twin": "all weights",
           "pruned_only": "pruned weights, alone in the network", "faint": "all weights, pruned ones a tenth as far",
           "observed": "none; only its norms and head"}  # fmt: skip


def design_table(names: Sequence[str]) -> pd.DataFrame:
    """Return, for each variant, what its passes train and what is each pass's own, from the table of methods.

    A name may include settings, as in "dcil, dense_every 4".
    """
    rows = []
    for name in names:
        name_of_method, _, settings = name.partition(", ")
        method = METHODS[name_of_method]
        first, *second = method.rules
        rows.append(
            {
                "method": label(name),
                "what it is": method.summary + (f"; {settings}" if settings else ""),
                "the sparse pass trains": REACHES[first],
                "the second pass trains": REACHES[second[0]] if second else "there is none",
                "each pass has its own": method.own if second else "",
            }
        )
    return pd.DataFrame(rows)


def effects_table(table: pd.DataFrame, variants: Sequence[str], baseline: str = "dcil") -> pd.DataFrame:
    """Return, for each variant, its mean difference from the baseline (points) and 95 % interval, NaN if unknown."""
    rows = [(name, *_paired(table, name, baseline)) for name in variants]
    return pd.DataFrame(rows, columns=["variant", *PAIRED])


def _paired(table: pd.DataFrame, a: str, b: str, value: str = "last") -> tuple[int, float, float, float]:
    """Return the columns `PAIRED`: how many seeds both variants have, and the mean of a − b with its 95 % interval."""
    gaps = differences(table, a, b, value)
    return len(gaps), *t_interval(gaps)


def worth_table(table: pd.DataFrame) -> pd.DataFrame:
    """Return what each of `INGREDIENTS` is worth: the mean over n paired seeds (points) and 95 % interval (low, high).

    `value` is the column of the table from which it was read, see `READ`. Ingredients without a common seed are
    included, with n = 0 and NaN.
    """
    rows = []
    for name, (has, lacks) in INGREDIENTS.items():
        value = READ.get(name, "last")
        rows.append((name, has, lacks, value, *_paired(table, has, lacks, value)))
    return pd.DataFrame(rows, columns=["ingredient", "has", "lacks", "value", *PAIRED])


def square_table(table: pd.DataFrame) -> pd.DataFrame:
    """Return one row for each run of a variant in `LEVELS` or `SQUARE`, with its last-epoch top-1 (%).

    The seeds are those that all of these variants have that ran, so that their means differ by what the variants do.
    """
    places = {(gradient, False): name for gradient, name in LEVELS.items()} | SQUARE
    ran = {place: tops for place, name in places.items() if len(tops := by_seed(table, name))}
    common = set.intersection(*(set(tops.index) for tops in ran.values())) if ran else set()
    rows = [
        (gradient, taught, places[gradient, taught], seed, top1)
        for (gradient, taught), tops in ran.items()
        for seed, top1 in tops.items()
        if seed in common
    ]
    return pd.DataFrame(rows, columns=["gradient", "mutual loss", "variant", "seed", "top1"])


def interaction(table: pd.DataFrame) -> pd.Series:
    """Return, by seed, how much more the refined gradient is worth with the mutual loss than without, in points."""
    taught, alone = (INGREDIENTS[f"refined gradient, {how} mutual loss"] for how in ("with", "without"))
    return (differences(table, *taught) - differences(table, *alone)).dropna()


def interaction_in_words(table: pd.DataFrame) -> str:
    """Return a sentence on the interaction of gradient and mutual loss if its interval excludes zero, else ""."""
    gaps = interaction(table)
    mean, low, high = t_interval(gaps)
    if not (low > 0 or high < 0):
        return ""
    return (
        f"Gradient and teaching are **not separable**: with teaching the refined gradient in the place of STE's is "
        f"worth {signed_interval(mean, low, high)} points more than without, n = {len(gaps)}."
    )


def worth_in_words(table: pd.DataFrame) -> list[str]:
    """Return sentences on what each measured ingredient is worth, by `SUBJECTS`, and on how they interact."""
    found = worth_table(table)
    found = found[found["n"] > 0].set_index("ingredient")
    if found.empty:
        return ["No variant shares a seed with the one that lacks a piece of it so far."]
    verb = "is" if len(found) == 1 else "are"
    said = [f"{len(found)} of {len(INGREDIENTS)} ingredients {verb} measured. All differences are in points."]
    for subject, ingredients in SUBJECTS.items():
        ran = [_worth(found.loc[name]) for name in ingredients if name in found.index]
        if ran:
            said.append(f"**{subject}:** {'; '.join(ran)}.")
    said += [decomposition_in_words(table), interaction_in_words(table), separate_norms_in_words(table)]
    return [sentence for sentence in said if sentence]


def _worth(row: pd.Series) -> str:
    few = f" of the {SEEDS} seeds that a verdict takes" if row["n"] < SEEDS else ""
    shown = signed_interval(row["mean"], row["low"], row["high"])
    return f"{label(row['has'])} minus {label(row['lacks'])} {shown}, n = {row['n']}{few}"


def decomposition_in_words(table: pd.DataFrame) -> str:
    """Return in words how much of the refined gradient's worth under the mutual loss is what that loss costs STE.

    DCIL minus `ste_split` is the sum of DCIL minus STE and STE minus `ste_split`. "" if no seed has all three.
    """
    gains, costs = differences(table, "dcil", "ste"), differences(table, "ste", "ste_split")
    seeds = gains.index.intersection(costs.index)
    if seeds.empty:
        return ""
    gain, cost = gains[seeds].mean(), costs[seeds].mean()
    teacher = by_seed(table, "ste_split", which="dense")[seeds].mean()
    return (
        f"Of the {gain + cost:+z.2f} points of DCIL minus {label('ste_split')}, {gain:+z.2f} are DCIL minus STE, and "
        f"{cost:+z.2f} what the mutual loss costs STE, whose dense network ends at {teacher:.2f} %, n = {len(seeds)}."
    )


def separate_norms_in_words(table: pd.DataFrame) -> str:
    """Return in words what separate norms are worth in training, and why testing does not show it; "" if not run."""
    has, lacks = INGREDIENTS["separate norms"]
    n, *_ = train = _paired(table, has, lacks, "train")
    if not n:
        return ""
    test = _paired(table, has, lacks)
    in_training, in_testing = signed_interval(*train[1:]), signed_interval(*test[1:])
    return (
        f"Separate norms are worth {in_training} points to what the sparse pass learns, n = {n}, read in "
        f"training, where each pass normalises by its own batch. The {in_testing} in testing say "
        "nothing of that: shared norms are tested with one running average for two networks."
    )
