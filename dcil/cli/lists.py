"""`methods` and `models`: list what can be trained."""

from __future__ import annotations

import argparse
from typing import Any

import torch

from dcil import methods, models
from dcil.cli.options import command, table


def add_parser(commands: Any) -> None:
    """Add `methods` and `models`."""
    command(commands, "methods", list_methods, "list the training methods")
    command(commands, "models", list_models, "list the networks")


def list_methods(args: argparse.Namespace) -> int:
    """Print each method, its passes' gradient rules and its source."""
    rows = [(m.name, " + ".join(m.rules), m.summary, m.source) for m in methods.METHODS.values()]
    print(table(("method", "gradient rules", "what it is", "source"), rows))
    return 0


def list_models(args: argparse.Namespace) -> int:
    """Print each network, its number of parameters with ten classes and its kind of block."""
    rows = []
    for name in models.MODELS:
        with torch.device("meta"):  # shapes only
            net = models.build(name, 10)
        kinds = {kind.__name__: kind for kind in (models.BasicBlock, models.Bottleneck, models.PreActBlock)}
        blocks = [m for m in net.modules() if type(m).__name__ in kinds]  # torchvision's blocks have the same names
        summary = (kinds[type(blocks[0]).__name__].__doc__ or "").partition(";")[0].rstrip(".")
        rows.append((name, f"{sum(p.numel() for p in net.parameters()) / 1e6:.2f} M", len(blocks), summary))
    print(table(("model", "parameters", "blocks", "a block"), rows))
    return 0
