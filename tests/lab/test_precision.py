"""Runs in bf16 and float32 are paired by all else, and words and table follow from the pairs."""

from dcil.lab.tables import precision
from tests.lab.fakes import changed, fake_run


def run(kind, seed, sparse, dense):
    """Return a run of DCIL in a precision that ends at these accuracies."""
    made = fake_run("dcil", seed, sparse, passes=("sparse", "dense"), precision=kind, epochs=4)
    made["final"]["passes"]["dense"]["last"]["top1"] = dense
    return made


PAIRED = [run("bf16", 0, 80.0, 82.0), run("float32", 0, 81.0, 81.0), run("bf16", 1, 83.0, 80.0),
          run("float32", 1, 81.0, 81.0), run("bf16", 2, 70.0, 70.0)]  # fmt: skip


def test_pairs_differ_in_nothing_else():
    """A seed without its partner, another sparsity and a failed run make no pair."""
    failed = run("float32", 2, 70.0, 70.0) | {"status": "failed"}
    other = changed(run("float32", 2, 70.0, 70.0), "config", sparsity=0.5)
    pairs = precision.paired_runs([*PAIRED, failed, other])
    assert pairs.drop(columns=["bf16", "float32"]).values.tolist() == [
        ["resnet20", "dense", 0, 1.0],
        ["resnet20", "dense", 1, -1.0],
        ["resnet20", "sparse", 0, -1.0],
        ["resnet20", "sparse", 1, 2.0],
    ]
    line = precision.differences_table(pairs, ["resnet20"]).set_index("pass").loc["sparse"]
    assert (line["pairs"], line["bf16, %"], line["bf16 minus float32, points"]) == (2, "81.50", "+0.50")
    text = precision.differences_in_words(pairs, ["resnet20"])
    assert "2 paired seeds" in text and "contains zero" in text


def test_words():
    """Words follow from no pair, one pair and a clear difference; a network without pairs keeps its lines."""

    def both(records):
        pairs = precision.paired_runs(records)
        return precision.differences_in_words(pairs, ["resnet20"]), precision.differences_table(pairs, ["resnet20"])

    text, table = both(PAIRED[:1])
    assert text.count("no seed has been trained in both") == 2
    assert set(table["95 % interval"]) == {"not run"} and set(table["pairs"]) == {0}
    text, table = both(PAIRED[:2])
    assert "too few" in text and "one pair" in table["95 % interval"][0]
    apart = [
        run(p, seed, 80.0 + seed + (p == "bf16") * (1 + 0.01 * seed), 80.0)
        for p in ("bf16", "float32")
        for seed in range(3)
    ]
    assert "excludes zero" in both(apart)[0].splitlines()[0]
