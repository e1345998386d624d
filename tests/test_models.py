"""The networks have the authors' layers and sizes."""

import pytest
import torch
from torch import nn

from dcil import models
from dcil.errors import DcilError
from dcil.models import MODELS


def convs(net):
    return [m for m in net.modules() if isinstance(m, nn.Conv2d)]


# Counted by hand from the layer widths, 1×1 shortcuts included; resnet32 as in the authors' network.
@pytest.mark.parametrize(("name", "weights"), [("resnet20", 270_256), ("resnet32", 463_792), ("wrn28_2", 1_462_704)])
def test_prunable_weights(name, weights):
    """The number of convolution weights is the authors'."""
    assert sum(c.weight.numel() for c in convs(MODELS[name](num_classes=10))) == weights


# Weight layers on the longest path: the name's number; shortcuts do not count.
@pytest.mark.parametrize(
    ("name", "depth"),
    [
        ("resnet8", 8),
        ("resnet20", 20),
        ("resnet32", 32),
        ("resnet44", 44),
        ("resnet56", 56),
        ("resnet83_bottleneck", 83),
    ],
)
def test_depth_is_what_the_name_says(name, depth):
    """Convolutions outside shortcuts and one linear layer make the depth."""
    net = MODELS[name](num_classes=10)
    inner = [n for n, m in net.named_modules() if isinstance(m, nn.Conv2d) and "shortcut" not in n]
    assert len(inner) + 1 == depth


@pytest.mark.parametrize("name", MODELS)
def test_shape_of_the_output(name):
    """[N, 3, H, W] gives [N, num_classes], and every parameter has a part in it."""
    if name in ("wrn28_4", "wrn28_8", "resnet56", "resnet83_bottleneck"):
        with torch.device("meta"):  # large: shapes only
            output = MODELS[name](num_classes=7)(torch.zeros(2, 3, 32, 32))
        assert output.shape == (2, 7)
        return
    net = MODELS[name](num_classes=7)
    output = net(torch.randn(2, 3, 16, 16))
    output.square().sum().backward()
    assert output.shape == (2, 7)
    assert all(p.grad is not None for p in net.parameters())


def test_convolutions_start_kaiming_normal_over_fan_out():
    """The spread of a large layer that widens (where fan-in would differ) is √(2 / (out·k·k))."""
    for net in (models.resnet20(), models.wrn28_2()):
        weight = max((c.weight for c in convs(net) if c.in_channels != c.out_channels), key=torch.numel)
        expected = (2 / (weight.shape[0] * 9)) ** 0.5
        assert weight.std().item() == pytest.approx(expected, rel=0.02)
        assert all(c.bias is None for c in convs(net))


def test_shortcuts_are_strided_convolutions_only_where_shapes_change():
    """Stages two and three begin with a 1×1 shortcut, no other block of a ResNet has one."""
    shortcuts = [n for n, m in models.resnet20().named_modules() if isinstance(m, nn.Conv2d) and "shortcut" in n]
    assert shortcuts == ["layer2.0.shortcut.0", "layer3.0.shortcut.0"]


def test_unknown_model_suggests_the_nearest():
    with pytest.raises(DcilError, match="did you mean 'resnet32'"):
        models.build("resnet23", 10)
