"""Runs that are compared were carried out alike, and seeds that came after a look wait for the next."""

import json
from collections import Counter

from dcil.lab import checkout
from dcil.lab.evidence import claims
from dcil.lab.runs import compared
from tests.lab.fakes import fake_claim, fake_run


def seeds(runs, method):
    return [run.config.seed for run in runs if run.config.method == method]


def test_seeds_wait_for_the_next_look():
    """Of each setting by itself: three of seven, eight of nine, and both of two, whatever their order."""
    runs = [fake_run("ste", seed, 80.0) for seed in reversed(range(7))]
    runs += [fake_run("dcil", seed, 81.0) for seed in range(9)]
    runs += [fake_run("ste", seed, 80.0, sparsity=0.95) for seed in range(2)]
    found = compared.looked_at(runs)
    assert seeds(found, "dcil") == list(range(8)) and seeds(found, "ste") == [0, 1, 2, 0, 1]


def test_no_figure_of_a_claim_looks_between():
    """Neither the paired effects nor the unpaired interval see a fourth seed."""
    runs = [fake_run("ste", seed, 80.0) for seed in range(5)] + [fake_run("dcil", seed, 81.0) for seed in range(3)]
    found = claims.evidence(fake_claim(), "quick", runs)
    assert seeds(found, "ste") == seeds(found, "dcil") == [0, 1, 2]


def test_a_failed_run_takes_no_seed_s_place(monkeypatch):
    """Neither in a claim's evidence nor on a page: the look is at three seeds that were trained to the end."""
    runs = [fake_run("dcil", seed, 81.0) for seed in range(4)]
    runs[0] = runs[0] | {"status": "failed"}
    assert seeds(claims.evidence(fake_claim(), "quick", runs), "dcil") == [1, 2, 3]
    monkeypatch.setattr("dcil.records.load_all", lambda *_, **__: runs)
    assert seeds(compared.load_compared("quick"), "dcil") == [1, 2, 3]


def test_other_data_under_a_known_name_are_not_compared(monkeypatch):
    """A caller's own data, under a configuration that names CIFAR-10, decide no claim and are on no comparing page."""
    runs = [fake_run("ste", seed, 80.0) for seed in range(3)] + [fake_run("dcil", seed, 81.0) for seed in range(4)]
    own = runs[3]["data"] | {"name": "half of CIFAR-10", "sha256": "1" * 64}
    runs[3] = runs[3] | {"data": own}
    assert seeds(claims.evidence(fake_claim(), "quick", runs), "dcil") == [1, 2, 3]
    monkeypatch.setattr("dcil.records.load_all", lambda *_, **__: runs)
    assert seeds(compared.load_compared("quick"), "dcil") == [1, 2, 3]


def test_pages_load_what_is_compared():
    """The book's records of a tier: one device and precision, no seed that waits; another tier has none of them."""
    found = compared.load_compared("quick", dataset="cifar10", model="resnet20", epochs=16)
    assert len(found) > 30 and {(run.config.device, run.config.precision) for run in found} == {("cpu", "bf16")}
    counts = Counter((run.variant, run.config.sparsity) for run in found)
    assert set(counts.values()) <= {1, 2, *compared.LOOKS}
    assert compared.load_compared("smoke", dataset="cifar10", model="resnet20") == []


def test_chapters_load_what_is_compared():
    """A cell that takes one tier's records takes those that are compared; only the guide's table has every kind."""
    asks_compared, asks_every_kind = Counter(), Counter()
    for path in sorted((checkout.root() / "book").glob("*.ipynb")):
        for cell in json.loads(path.read_text())["cells"]:
            text = "".join(cell["source"])
            asks_compared[path.stem] += text.count("load_compared(")
            asks_every_kind[path.stem] += sum("tier=" in call for call in text.split("load_all(")[1:])
    assert asks_compared.total() >= 8
    assert [name for name, calls in asks_every_kind.items() if calls] == ["guide"]
