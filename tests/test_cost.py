"""Multiply-accumulates and nonzeros, by hand."""

import pytest
import torch
from torch import nn

from dcil import models
from dcil.cost import layer_macs, network_cost, nonzeros
from dcil.paths import DualPath, set_masks


class Tiny(nn.Module):
    """A grouped, strided convolution, a transposed one, a norm and a linear layer called twice."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(4, 6, 3, stride=2, padding=1, groups=2)
        self.norm = nn.BatchNorm2d(6)
        self.up = nn.ConvTranspose2d(6, 2, 2, stride=2, bias=False)
        self.fc = nn.Linear(8, 8)
        self.scale = nn.Parameter(torch.ones(3))

    def forward(self, x):
        x = self.up(self.norm(self.first(x)))
        return self.fc(self.fc(x))


def test_macs_by_hand():
    """Each weight counts once for every position that it meets."""
    net = Tiny().train()
    with torch.no_grad():
        net.first.weight[:3] = 0
        net.fc.weight[0, :5] = 0
    macs = layer_macs(net, torch.randn(1, 4, 8, 8))
    assert macs == {
        "first": (16 * 6 * 2 * 9, 16 * 3 * 2 * 9),  # 4×4 outputs
        "up": (16 * 6 * 2 * 4,) * 2,  # meets each of 4×4 inputs
        "fc": (2 * 2 * 8 * 64, 2 * 2 * 8 * 59),  # twice, on 2×8 rows of 8
    }
    assert net.training and not any(m._forward_hooks for m in net.modules())


def test_nonzeros_by_hand():
    """Parameters that are not zero, by kind of layer; a norm's bias starts as zeros."""
    net = Tiny()
    with torch.no_grad():
        net.first.weight[:3] = 0
        net.scale[0] = 0
    assert nonzeros(net) == {"conv": 3 * 18 + 6 + 48, "norm": 6, "linear": 64 + 8, "other": 2}


def test_resnet32_costs_what_the_authors_network_costs():
    """69.12 M multiply-accumulates in the convolutions of ResNet-32 on a 32×32 image."""
    macs = layer_macs(models.resnet32(), torch.zeros(1, 3, 32, 32))
    assert sum(dense for name, (dense, _) in macs.items() if name != "fc") == pytest.approx(69.12e6, rel=1e-3)


def test_network_cost_is_of_the_sparse_network():
    """Masks lower MACs and nonzeros; one norm set and one head count, and training pays for both passes."""
    dual = DualPath(models.resnet8(num_classes=10))
    set_masks(dual, 0.9)
    cost = network_cost(dual, torch.randn(1, 3, 8, 8))
    kept = sum(int(m.sum()) for m in dual.masks.values())
    assert cost["nonzeros"]["conv"] == kept
    assert cost["nonzeros"]["linear"] == 650
    assert cost["num_params"] == sum(p.numel() for p in dual.net.parameters())
    assert cost["train_macs"] == 3 * 2 * cost["dense_macs"]
    conv_sparse = sum(m[1] for n, m in layer_macs(dual.export(), torch.randn(1, 3, 8, 8)).items() if n != "fc")
    assert cost["inference_macs"] == conv_sparse + 640 < 0.5 * cost["dense_macs"]
    assert cost["layer_sparsity"].keys() == dual.masks.keys()
    size = {n: m.numel() for n, m in dual.masks.items()}
    removed = sum(round(share * size[n]) for n, share in cost["layer_sparsity"].items())
    assert removed == sum(size.values()) - kept
