"""The code does what the authors' released code does, number by number.

Trajectories: their code in float64 (see `tests/data/README.md`). Checkpoints: their files, run on
the official test sets.
"""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from dcil import losses, masks, models
from dcil.config import RunConfig
from dcil.methods import METHODS
from dcil.paths import DualPath, set_masks

TRAJECTORIES = json.loads((Path(__file__).parent / "data" / "trajectories.json").read_text())
STEPS, PERIOD, RAMP_END, DISTILL_FROM, SPARSITY = 24, 3, 8, 6, 0.9


def reference_network(rules: tuple[str, ...]) -> DualPath:
    """ResNet-20 with the reference protocol's numpy weights, float64."""
    net = models.resnet20(num_classes=10).double()
    dual = DualPath(net, rules=rules)
    draw = np.random.RandomState(0).standard_normal
    with torch.no_grad():
        for layer in (m for m in net.modules() if isinstance(m, nn.Conv2d)):
            out, _, k, _ = layer.weight.shape
            layer.weight.copy_(torch.from_numpy(draw(layer.weight.shape) * np.sqrt(2 / (out * k * k))))
        for head in [net.fc] + [own["fc"] for own in dual.own]:
            head.weight.copy_(torch.from_numpy(draw(head.weight.shape) * 0.1))
            head.bias.zero_()
    return dual


@pytest.mark.parametrize("name", ["dcil", "ste"])
def test_trajectory(name):
    """24 steps of ResNet-20: every logged number to 1e-9 relative, every mask count exactly."""
    reference, method = TRAJECTORIES[f"resnet20_c10_90_{name}"], METHODS[name]
    config = RunConfig(method=name, sparsity=SPARSITY, epochs=12, ramp_end=RAMP_END, distill_from=DISTILL_FROM,
                       mask_period=PERIOD, precision="float64").resolve()  # fmt: skip
    dual = reference_network(method.rules)
    weights = list(dual.weights.values())
    optimizer = torch.optim.SGD(dual.parameters(), 0.1, momentum=0.9, nesterov=True, weight_decay=1e-4)
    stream = np.random.RandomState(1)
    for step in range(STEPS):
        images = torch.from_numpy(stream.standard_normal((8, 3, 32, 32)))
        labels = torch.from_numpy(stream.randint(0, 10, 8))
        epoch, expected = step // 2, reference["log"][step]
        target = method.masks(config, epoch, step)
        if target is not None:
            set_masks(dual, target)
        logits = dict(zip(dual.pass_names, dual(images), strict=True))
        parts = method.loss(logits, labels, config, epoch)
        optimizer.zero_grad()
        sum(parts.values()).backward()
        seen = {
            "target": masks.cubic_sparsity(epoch, SPARSITY, RAMP_END),
            "ce_sparse": parts["ce_sparse"].item(),
            "ce_dense": parts.get("ce_dense", torch.zeros(())).item(),
            "loss": sum(parts.values()).item(),
            "grad_norm_first": weights[0].grad.norm().item(),
            "grad_norm_last": weights[-1].grad.norm().item(),
        }
        optimizer.step()
        assert sum(int(m.sum()) for m in dual.masks.values()) == expected["nonzero"], f"step {step}"
        for key, value in seen.items():
            assert value == pytest.approx(expected[key], rel=1e-9, abs=1e-12), f"step {step}, {key}"
    final = reference["final"]
    assert [w.norm().item() for w in weights] == pytest.approx(final["weight_norm"], rel=1e-9)
    assert [int(m.sum()) for m in dual.masks.values()] == final["mask_nonzero"]


def test_collective_loss_is_the_sum_of_its_parts():
    """The public loss and the terms that the trajectories check are one computation."""
    sparse, dense = torch.randn(2, 8, 10, dtype=torch.float64).unbind()
    labels = torch.randint(0, 10, (8,))
    parts = losses.collective_parts(sparse, dense, labels)
    assert losses.collective_loss(sparse, dense, labels) == sum(parts.values())
