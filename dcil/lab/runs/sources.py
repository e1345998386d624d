"""Where numbers come from: recorded runs, a computation in the page itself, or other people's files and code."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from dcil.config import RunConfig
from dcil.lab.runs.compared import setting
from dcil.lab.runs.names import data_set_label, label, network_label
from dcil.lab.wording import in_ranges, joined, listed, number_of
from dcil.run_record import Run


@dataclass(frozen=True)
class Source:
    """Where numbers come from: one line of text, the ids of recorded runs, and named facts (commit, machine, ...)."""

    words: str
    runs: tuple[str, ...] = ()
    facts: tuple[tuple[str, str], ...] = ()


def seeds_in_words(seeds: Iterable[int]) -> str:
    """Return which seeds, as one text.

    >>> seeds_in_words([0]), seeds_in_words(range(3))
    ('seed 0', 'seeds 0 to 2')
    """
    distinct = set(seeds)
    return f"seed{'' if len(distinct) == 1 else 's'} {in_ranges(distinct)}"


def commit_in_words(commit: str, dirty: bool) -> str:
    """Return a commit's first seven digits, and whether there were uncommitted changes."""
    return commit[:7] + (" and uncommitted changes" if dirty else "")


def machine_in_words(device: str, threads: int) -> str:
    """Return a device's name with the number of CPU threads used."""
    return f"{device}, {number_of(threads, 'thread')}"


def config_in_words(config: RunConfig) -> str:
    """Return in words what a configuration trains.

    >>> config_in_words(RunConfig(dataset="cifar10", model="resnet20", method="ste", epochs=2))
    'STE, ResNet-20, CIFAR-10, 90 % pruned, 2 epochs'
    """
    what = "of the filters " if config.scope == "filter" else ""
    said = [
        label(config.method),
        network_label(config.model),
        data_set_label(config.dataset),
        f"{100 * config.sparsity:g} % {what}pruned",
        number_of(config.epochs, "epoch"),
    ]
    return ", ".join(said)


def _seeds_a_setting(runs: Iterable[Run]) -> str:
    """Return how many seeds the settings have, " (3 or 8 of them a setting)", or "" if all have equally many."""
    counts = sorted(set(Counter(map(setting, runs)).values()))
    return f" ({listed(counts, 'or')} of them a setting)" if len(counts) > 1 else ""


def recorded(runs: Iterable[Run]) -> Source:
    """Return the source of numbers read from run records."""
    runs = list(runs)
    if not runs:
        return Source("no records: not run")
    env = [run.environment for run in runs]
    seeds, tiers = {run.config.seed for run in runs}, {run.tier for run in runs}
    dates = [e.date for e in env]
    return Source(
        f"{number_of(len(runs), 'recorded run')}, tier {joined(tiers)}, "
        f"{seeds_in_words(seeds)}{_seeds_a_setting(runs)}",
        tuple(run.run_id for run in runs),
        (
            ("commit", joined(commit_in_words(e.commit, e.dirty) for e in env)),
            ("machine", joined((machine_in_words(e.device, e.threads) for e in env), "; ")),
            ("versions", joined((f"Python {e.python}, torch {e.torch}" for e in env), "; ")),
            ("date", " to ".join(sorted({min(dates), max(dates)}))),
        ),
    )


def computed(what: str, tier: str, seeds: Iterable[Any], device: Any = "cpu") -> Source:
    """Return the source of numbers that the page itself computed; `what` names the experiment.

    It names commit and machine, so it must not be in an output that tests compare: for those see `exact`.
    """
    import torch

    from dcil.machine import device_name, source_state

    machine = machine_in_words(device_name(torch.device(device)), torch.get_num_threads())
    shown = ", ".join(str(seed) for seed in seeds)
    return Source(
        f"computed in this page: {what}",
        (),
        (
            ("tier and seeds", f"{tier}; {shown}"),
            ("commit", commit_in_words(*source_state())),
            ("machine", machine),
            ("versions", f"torch {torch.__version__}"),
        ),
    )


def live(*configs: Any) -> Source:
    """Return the source of runs trained in the page itself, from their configurations."""
    full = [config.resolve() for config in configs]
    seeds = dict.fromkeys(config.seed for config in full)
    what = "; ".join(dict.fromkeys(map(config_in_words, full)))
    source = computed(what, full[0].tier, seeds, full[0].device)
    return replace(source, facts=(*source.facts, ("run ids", ", ".join(config.run_id for config in full))))


def exact(what: str) -> Source:
    """Return the source of numbers that the page computes and that are the same on every machine."""
    checked = "checked", "the tests compute it again, at smoke, and compare"
    return Source(f"computed in this page: {what}", (), (checked,))


def given(what: str) -> Source:
    """Return the source of numbers that come from files, logs or code, the authors' or this repository's, in words."""
    return Source(what)
