"""What the authors' logged runs of DCIL ended at, by setting: `authors_logs.json`, read from their released files."""

from __future__ import annotations

import json
from importlib import resources
from typing import Any

LOGS: dict[str, Any] = json.loads(resources.files(__package__).joinpath("authors_logs.json").read_text("utf-8"))


def logged_setting(**asked: Any) -> dict[str, Any] | None:
    """Return the first setting of the logs that has these values (dataset, model, sparsity, scope), or None."""
    for setting in LOGS["settings"]:
        if all(setting[name] == value for name, value in asked.items()):
            return setting
    return None


def logs_in_words(setting: dict[str, Any] | None) -> str:
    """Return where a setting's runs ended, last and best epoch in percent; nothing where there is none."""
    return f"{setting['last'][0]:.2f} last, {setting['best_any'][0]:.2f} best" if setting else ""
