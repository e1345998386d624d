"""The results of the runs that a grid asks for, and the settings that have not run so far."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import pandas as pd

from dcil.lab.evidence.authors_logs import logged_setting, logs_in_words
from dcil.lab.runs.compared import looked_at
from dcil.lab.runs.frames import spread
from dcil.lab.runs.names import data_set_label, label, network_label
from dcil.lab.sweep.grid import Planned
from dcil.run_record import Run, variant


def recorded_runs(planned: Sequence[Planned], runs: Iterable[Run]) -> list[Run]:
    """Return those of the runs that a grid asks for."""
    ids = {plan.run_id for plan in planned}
    return [run for run in runs if run.run_id in ids]


def _settings(planned: Sequence[Planned]) -> dict[tuple, list[Planned]]:
    """Return a grid's runs grouped by all but the seed: data set, network, scope, sparsity, epochs, variant."""
    settings: dict[tuple, list[Planned]] = {}
    for plan in planned:
        c = plan.config
        settings.setdefault((c.dataset, c.model, c.scope, c.sparsity, c.epochs, variant(c)), []).append(plan)
    return settings


def _sparsest_last(settings: dict[tuple, list[Planned]]) -> list[tuple[tuple, list[Planned]]]:
    """Return settings in the grid's order, those that differ in sparsity or variant only together, sparsest last."""
    place: dict[tuple, int] = {}
    for dataset, model, scope, _, epochs, _ in settings:
        place.setdefault((dataset, model, scope, epochs), len(place))

    def order(item: tuple[tuple, list[Planned]]) -> tuple[int, float]:
        dataset, model, scope, sparsity, epochs, _ = item[0]
        return place[dataset, model, scope, epochs], sparsity

    return sorted(settings.items(), key=order)


def _pruned(scope: str, sparsity: float, unit: str = "") -> str:
    of_filters = " of filters" if scope == "filter" else ""
    return f"{100 * sparsity:g}{unit}{of_filters}" if sparsity else ""


def grid_table(planned: Sequence[Planned], runs: Iterable[Run]) -> pd.DataFrame:
    """Return one row for each setting and variant of a grid that has a run: its accuracy, and how many seeds are done.

    Accuracies are the last epoch's, of the deployed pass and of a second pass, mean ± sample deviation (percent),
    beside the authors' logs. Settings that differ only in sparsity are together, the sparsest last. An empty column is
    left out.
    """
    by_id = {run.run_id: run for run in looked_at(run for run in runs if run.complete)}
    rows = []
    for (dataset, model, scope, sparsity, epochs, name), plans in _sparsest_last(_settings(planned)):
        done = [by_id[plan.run_id] for plan in plans if plan.run_id in by_id]
        if not done:
            continue
        second = [end.last for run in done for end in list(run.by_pass.values())[1:]]
        logged = logged_setting(dataset=dataset, model=model, sparsity=sparsity, scope=scope)
        rows.append(
            {
                "method": label(name),
                "last epoch, %": spread([run.last for run in done]),
                "n": f"{len(done)} of {len(plans)}",
                "sparsity, %": _pruned(scope, sparsity),
                "second pass, %": spread(second) if second else "",
                "authors' logs, %": logs_in_words(logged) if name.partition(",")[0] == "dcil" else "",
                "data set": data_set_label(dataset),
                "network": network_label(model),
                "epochs": epochs,
            }
        )
    found = pd.DataFrame(rows)
    return found.loc[:, (found != "").any()] if rows else found


def settings_without_run(planned: Sequence[Planned], runs: Iterable[Run]) -> list[str]:
    """Return in words each setting and variant of a grid that has no complete run so far."""
    done = {run.run_id for run in runs if run.complete}
    return [
        ", ".join(
            filter(
                None,
                [
                    label(name),
                    _pruned(scope, sparsity, " %"),
                    network_label(model),
                    data_set_label(dataset),
                    f"{epochs} epochs",
                ],
            )
        )
        for (dataset, model, scope, sparsity, epochs, name), plans in _settings(planned).items()
        if not any(plan.run_id in done for plan in plans)
    ]


def coverage_in_words(planned: Sequence[Planned], runs: Iterable[Run]) -> str:
    """Return in words how many of a grid's runs have a record."""
    done = [run for run in recorded_runs(planned, runs) if run.complete]
    return f"{len(done)} of {len(planned)} runs {'has' if len(done) == 1 else 'have'} a record"
