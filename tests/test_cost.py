"""Multiply-accumulates and nonzeros, counted by hand."""

import pytest
import torch
from torch import nn

from dcil import models
from dcil.cost import layer_macs, network_cost, nonzeros
from dcil.dual_path import DualPath, set_masks


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
    """Nonzero parameters are counted by kind of layer; a norm's bias starts at zero."""
    net = Tiny()
    with torch.no_grad():
        net.first.weight[:3] = 0
        net.scale[0] = 0
    assert nonzeros(net) == {"conv": 3 * 18 + 6 + 48, "norm": 6, "linear": 64 + 8, "other": 2}


@pytest.mark.parametrize(
    "norm", [nn.InstanceNorm2d(6, affine=True), nn.GroupNorm(2, 6), nn.LayerNorm(6), nn.RMSNorm(6), nn.SyncBatchNorm(6)]
)
def test_every_norm_is_counted_as_one(norm):
    """Its scale of ones counts among norms, whichever norm it is; its bias of zeros does not."""
    assert nonzeros(norm) == {"conv": 0, "norm": 6, "linear": 0, "other": 0}


def test_resnet32_costs_what_the_authors_network_costs():
    """The convolutions of ResNet-32 take 69.12 M multiply-accumulates on a 32×32 image."""
    macs = layer_macs(models.resnet32(), torch.zeros(1, 3, 32, 32))
    assert sum(dense for name, (dense, _) in macs.items() if name != "fc") == 69_124_096


def test_network_cost_is_of_the_sparse_network():
    """Masks lower MACs and nonzeros; only one norm set and one head count, but training pays for both passes."""
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


class Counter(nn.Module):
    """A module whose forward writes buffers, in eval mode too: one in place, one by replacing it."""

    def __init__(self):
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))
        self.register_buffer("largest", torch.zeros(()))

    def forward(self, x):
        self.calls += 1
        self.largest = torch.maximum(self.largest, x.max())
        return x


def test_counting_changes_nothing():
    """Counting leaves the mode of every module, such as a frozen norm, every buffer and every hook as it was."""
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), Counter()).train()
    net[1].eval()
    modes = [module.training for module in net.modules()]
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    layer_macs(net, torch.randn(1, 3, 8, 8))
    assert [module.training for module in net.modules()] == modes
    assert all(torch.equal(before[name], tensor) for name, tensor in net.state_dict().items())
    assert not any(module._forward_hooks for module in net.modules())


@pytest.mark.parametrize("separate", [False, True], ids=["one width", "three widths"])
def test_attention_by_hand(separate):
    """Attention has four projections, of queries and outputs at 5 positions, of keys and values at 7."""
    widths = {"kdim": 3, "vdim": 4} if separate else {}

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.attention = nn.MultiheadAttention(6, 2, batch_first=True, **widths)

        def forward(self, x):
            key, value = (x.new_ones(1, 7, widths.get(name, 6)) for name in ("kdim", "vdim"))
            return self.attention(x, value=value, key=key)[0]

    net = Net()
    with torch.no_grad():
        net.attention.out_proj.weight[0] = 0
    dense = 5 * 36 + 7 * 6 * (3 + 4 if separate else 12) + 5 * 36
    assert layer_macs(net, torch.randn(1, 5, 6)) == {"attention": (dense, dense - 5 * 6)}
    projections = 36 + 6 * (7 if separate else 12) + 36 - 6
    assert nonzeros(net) == {"conv": 0, "norm": 0, "linear": projections, "other": 0}  # biases start as zeros


def test_a_transformer_counts_whole():
    """Attention and both linear layers count, although PyTorch's fast path for inference calls none of them."""
    net = nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), 2)
    macs = layer_macs(net, torch.randn(1, 5, 8))
    assert sum(dense for dense, _ in macs.values()) == 2 * 5 * (4 * 64 + 2 * 8 * 16)


def test_a_tied_weight_is_stored_once():
    """A weight of two layers counts once as nonzeros and twice as MACs."""
    net = nn.Sequential(nn.Linear(8, 8, bias=False), nn.Linear(8, 8, bias=False))
    net[1].weight = net[0].weight
    assert nonzeros(net)["linear"] == 64
    assert layer_macs(net, torch.randn(1, 8)) == {"0": (64, 64), "1": (64, 64)}
