"""The final accuracies of the authors' logged runs of DCIL, by setting: `authors_logs.json`, made from their files."""

from __future__ import annotations

import json
from importlib import resources
from typing import Any

LOGS: dict[str, Any] = json.loads(
    resources.files(__package__).joinpath("authors_logs.json").read_text(encoding="utf-8")
)


def logged_setting(**asked: Any) -> dict[str, Any] | None:
    """Return the first setting of the logs that has these values (dataset, model, sparsity, scope), or None."""
    for setting in LOGS["settings"]:
        if all(setting[name] == value for name, value in asked.items()):
            return setting
    return None


def logs_in_words(setting: dict[str, Any] | None) -> str:
    """Return in words a setting's accuracies at the last and the best epoch, in percent; "" without a setting."""
    return f"{setting['last'][0]:.2f} last, {setting['best_any'][0]:.2f} best" if setting else ""
