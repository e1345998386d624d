"""A minimal problem on which STE and the refined gradient differ: linear regression with half of the weights pruned."""

from __future__ import annotations

import pandas as pd
import torch
import torch.nn.functional as F
from torch import nn

from dcil.dual_path import DualPath, set_masks

WEIGHTS, SPARSITY, NOISE = 10, 0.5, 0.1
STEPS, PERIOD, RATE = 800, 16, 0.02


def regression(rules: tuple[str, ...], seed: int) -> pd.DataFrame:
    """Train y = Σ aᵢ·xᵢ + noise under gradient rules; return each weight's value and mask at every mask refresh.

    The true coefficients a fall from 1 to 1/`WEIGHTS`. Inputs are independent standard normals, 32 samples a step.
    Masks are refreshed every `PERIOD` steps, by magnitude. Columns: step, weight (0: largest coefficient), value, kept.
    """
    generator = torch.Generator().manual_seed(seed)
    true = torch.arange(WEIGHTS, 0, -1) / WEIGHTS
    line = nn.Linear(WEIGHTS, 1, bias=False)
    nn.init.zeros_(line.weight)
    line.weight.data += 0.1 * torch.randn(line.weight.shape, generator=generator)
    dual = DualPath(line, rules=rules, prunable=["weight"], per_pass=[])
    optimizer, rows = torch.optim.SGD(dual.parameters(), RATE), []
    for step in range(STEPS):
        if step % PERIOD == 0:
            set_masks(dual, SPARSITY)
            kept, values = dual.masks["weight"][0].tolist(), line.weight.detach()[0].tolist()
            rows += [(step, i, v, k) for i, (v, k) in enumerate(zip(values, kept, strict=True))]
        x = torch.randn(32, WEIGHTS, generator=generator)
        y = x @ true + NOISE * torch.randn(32, generator=generator)
        loss = torch.stack([F.mse_loss(output[:, 0], y) for output in dual(x)]).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return pd.DataFrame(rows, columns=["step", "weight", "value", "kept"])


def exchanges(history: pd.DataFrame, after: int = 0) -> int:
    """Return the number of flips between successive masks from step `after` on; one exchange is two flips."""
    late = history[history["step"] >= after].pivot_table(index="step", columns="weight", values="kept", aggfunc="first")
    return int(late.astype(int).diff().abs().sum().sum())
