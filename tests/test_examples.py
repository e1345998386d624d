"""The examples in docstrings run, and everything on the everyday surface has one."""

import doctest
import importlib
import inspect
import json
import pkgutil

import pytest

import dcil
from dcil import losses, masks, rules
from dcil.lab import checkout

MODULES = sorted(m.name for m in pkgutil.walk_packages(dcil.__path__, "dcil.") if not m.name.endswith("__main__"))
EVERYDAY = [
    dcil.DualPath, dcil.DualPath.export, dcil.DualPath.gradients, dcil.DualPath.sparsity, dcil.set_masks,
    dcil.collective_loss, dcil.fit, dcil.preset, dcil.RunConfig, dcil.models.build, dcil.methods.get, dcil.data.load,
    dcil.export.save, dcil.records.load_all, dcil.records.validate, dcil.cost.layer_macs, dcil.cost.nonzeros,
    *(thing for module in (rules, masks, losses) for _, thing in inspect.getmembers(module, inspect.isfunction)
      if thing.__module__ == module.__name__ and not thing.__name__.startswith("_")),
]  # fmt: skip


@pytest.mark.parametrize("name", MODULES)
def test_examples_say_what_happens(name):
    """Every `>>>` of a module gives the output below it."""
    failed, _ = doctest.testmod(importlib.import_module(name), optionflags=doctest.ELLIPSIS)
    assert not failed


@pytest.mark.parametrize("thing", EVERYDAY, ids=lambda thing: f"{thing.__module__}.{thing.__qualname__}")
def test_everyday_surface_has_examples(thing):
    """Everything on the library's first page, and every function of its mathematics, has an example."""
    assert ">>>" in thing.__doc__


def test_your_own_network_takes_twenty_lines():
    """The training loop of the tutorial is as short as its title says."""
    cells = json.loads((checkout.root() / "book" / "your-own-network.ipynb").read_text())["cells"]
    (loop,) = (cell["source"] for cell in cells if cell["id"] == "train")
    assert len([line for line in loop if line.strip()]) <= 20
