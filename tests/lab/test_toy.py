"""Linear regression under masks: the two gradients' expectations, and how training ends."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from dcil.dual_path import DualPath, put_masks
from dcil.lab.demos import toy

RULES = {"ste": ("straight_through",), "dcil": ("kept", "refined")}


def test_expected_gradients():
    """A pruned weight gets −a under STE, whatever its value, and w − a under the refined rule (each times 2)."""
    true, value = torch.tensor([1.0, 0.5]), torch.tensor([[1.0, 0.3]])
    x = torch.randn(200_000, 2, generator=torch.Generator().manual_seed(0))
    for rule, expected in (("straight_through", -0.5), ("refined", 0.3 - 0.5)):
        line = nn.Linear(2, 1, bias=False)
        line.weight.data.copy_(value)
        dual = DualPath(line, rules=(rule,), prunable=["weight"], per_pass=[])
        put_masks(dual, {"weight": torch.tensor([[True, False]])}, 0.5)
        F.mse_loss(dual(x)[0][:, 0], x @ true).backward()
        assert line.weight.grad[0, 1] / 2 == pytest.approx(expected, abs=0.01)


@pytest.mark.parametrize("seed", range(3))
def test_ste_drifts_and_dcil_settles(seed):
    """In the second half STE exchanges many weights; DCIL none, keeps the four largest and finds their values."""
    histories = {name: toy.regression(rules, seed=seed) for name, rules in RULES.items()}
    assert toy.exchanges(histories["ste"], 400) > 50 and toy.exchanges(histories["dcil"], 400) == 0
    last = histories["dcil"][histories["dcil"]["step"] == histories["dcil"]["step"].max()]
    assert last.loc[last["kept"], "weight"].tolist() == [0, 1, 2, 3]
    assert last.loc[~last["kept"], "value"].to_numpy() == pytest.approx([0.6, 0.5, 0.4, 0.3, 0.2, 0.1], abs=0.05)


def test_exchanges_by_hand():
    """Two weights that swap once count twice."""
    history = toy.pd.DataFrame(
        {"step": [0, 0, 16, 16], "weight": [0, 1, 0, 1], "value": 0.0, "kept": [True, False, False, True]}
    )
    assert toy.exchanges(history) == 2 and toy.exchanges(history, after=16) == 0
