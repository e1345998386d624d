"""Removing pruned filters: fewer channels, the same outputs, rebuilt from a plan."""

import pytest
import torch
from torch import nn

import dcil
from dcil import models
from dcil.cost import layer_macs
from dcil.errors import DcilError
from dcil.export.shrink import Kept, Spread, shrink


def pruned(net, sparsity=0.4):
    """Return a network in float64 with norms as after training and some filters set to zero."""
    torch.manual_seed(0)
    for norm in (m for m in net.modules() if isinstance(m, nn.BatchNorm2d)):
        for tensor, low, high in (
            (norm.weight, 0.5, 1.5),
            (norm.bias, -1, 1),
            (norm.running_mean, -1, 1),
            (norm.running_var, 0.5, 2),
        ):
            tensor.data.uniform_(low, high)
    dual = dcil.DualPath(net.double())
    dcil.set_masks(dual, sparsity, scope="filter")
    return dual.export().eval()


@pytest.mark.parametrize("name", ["resnet8", "resnet83_bottleneck", "wrn28_2", "resnet18", "resnet50"])
@pytest.mark.parametrize("side", [32, 45])
@torch.no_grad()
def test_outputs_are_equal(name, side):
    """To 1e-9 in float64, at sides that strides divide or not, for every kind of block, with fewer MACs."""
    net = pruned(models.build(name, 10))
    small, plan = shrink(net)
    images = torch.randn(2, 3, side, side, dtype=torch.float64)
    torch.testing.assert_close(small(images), net(images), rtol=1e-9, atol=1e-9)
    assert plan and any(kept.ones for kept in plan.values())
    before, after = (sum(m[0] for m in layer_macs(n, images[:1]).values()) for n in (net, small))
    assert after < before
    for where, kept in plan.items():
        conv = small.get_submodule(where)
        assert conv.out_channels == len(kept.filters) + kept.ones
        assert len(kept.filters) == 1 or not (conv.weight[: len(kept.filters)] == 0).flatten(1).all(1).any()


@torch.no_grad()
def test_rebuilt_from_its_plan():
    """The plan and the state dict make the shrunk network from a fresh one."""
    small, plan = shrink(pruned(models.resnet8()))
    again, same = shrink(models.resnet8().double(), plan)
    again.load_state_dict(small.state_dict())
    images = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    assert torch.equal(again(images), small(images)) and same == plan


@torch.no_grad()
@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_a_smaller_network_is_where_its_network_is(device):
    """Also where PyTorch would put new tensors elsewhere, as it does for every network on a GPU."""
    net, images = pruned(models.resnet8()).to(device), torch.randn(2, 3, 32, 32, dtype=torch.float64, device=device)
    with torch.device("meta" if device == "cpu" else "cpu"):
        small, _ = shrink(net)
        back = dcil.export.unpack(dcil.export.pack(net.state_dict()))
    torch.testing.assert_close(small(images), net(images), rtol=1e-9, atol=1e-9)
    assert all(torch.equal(back[name].to(device), value) for name, value in net.state_dict().items())


@torch.no_grad()
def test_nothing_to_remove():
    """A network without empty filters stays as it is."""
    net = models.resnet8().eval()
    small, plan = shrink(net)
    images = torch.randn(2, 3, 32, 32)
    assert plan == {} and torch.equal(small(images), net(images))


@torch.no_grad()
def test_a_layer_that_is_all_zeros():
    """It keeps one filter, and the outputs are the same."""
    net = pruned(models.resnet8())
    net.layer2[0].conv1.weight.zero_()
    small, plan = shrink(net)
    assert len(plan["layer2.0.conv1"].filters) == 1
    images = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    torch.testing.assert_close(small(images), net(images), rtol=1e-9, atol=1e-9)


@torch.no_grad()
def test_biases_and_no_norms():
    """Convolutions with biases and without norms can be shrunk, with an input read twice and a grouped reader."""

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
            self.c, self.d = nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 3, groups=2)

        def forward(self, x):
            x = torch.relu(self.a(x))
            x = self.b(x) + self.c(x)
            return self.d(x).mean((2, 3))

    torch.manual_seed(0)
    net = Net().double().eval()
    for conv in (net.a, net.b, net.d):
        conv.weight[2:5] = 0
    small, plan = shrink(net)
    images = torch.randn(2, 3, 12, 12, dtype=torch.float64)
    torch.testing.assert_close(small(images), net(images), rtol=1e-9, atol=1e-9)
    assert plan["a"] == Kept((0, 1, 5, 6, 7), True) and plan["b"].filters == (0, 1, 5, 6, 7) and "d" not in plan


def test_spread():
    """Channels go back to their places; the others hold their constants."""
    spread = Spread((1, 3), torch.tensor([5.0, 0.0, 7.0, 0.0]))
    out = spread(torch.tensor([[[[1.0]], [[2.0]]]]))
    assert out.flatten().tolist() == [5, 1, 7, 2]


def test_a_network_that_cannot_be_traced():
    """Control flow that depends on values is refused, with a remedy."""

    class Net(nn.Module):
        def forward(self, x):
            return x if x.sum() > 0 else -x

    with pytest.raises(DcilError, match="this Net cannot be traced.*another format"):
        shrink(Net())


def halved(module, *args):
    """A hook that changes what a layer returns (a forward hook) or is given (a pre-hook)."""
    if len(args) == 2:
        return args[1] * 0.5 + 1
    return (args[0][0] * 0.5 + 1,)


def hook(module):
    module.register_forward_hook(halved)


def pre_hook(module):
    module.register_forward_pre_hook(halved)


def replaced(module):
    plain = module.forward
    module.forward = lambda x: 0.5 * plain(x) + 1


@pytest.mark.parametrize("add", [hook, pre_hook, replaced])
@pytest.mark.parametrize("where", ["layer2.0.conv1", "layer2.0.bn1", "layer2.0.conv2", "layer2.0.bn2", "layer2.0"])
@torch.no_grad()
def test_a_hook_on_a_layer(where, add):
    """Whatever is added to a convolution, a norm or a block, outputs are equal, and the rest is still shrunk."""
    net = pruned(models.resnet8())
    add(net.get_submodule(where))
    if (where, add) == ("layer2.0", replaced):  # calls the layers of the block it was taken from, not its copy's
        with pytest.raises(DcilError, match="cannot be traced"):
            shrink(net)
        return
    small, plan = shrink(net)
    images = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    torch.testing.assert_close(small(images), net(images), rtol=1e-9, atol=1e-9)
    assert plan


@torch.no_grad()
def test_a_parametrized_layer():
    """A layer whose weight is computed changes no output, and the rest is still shrunk."""
    net = pruned(models.resnet8())
    nn.utils.parametrizations.spectral_norm(net.layer2[0].conv2)
    small, plan = shrink(net.eval())
    images = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    torch.testing.assert_close(small(images), net(images), rtol=1e-9, atol=1e-9)
    assert plan


def test_a_hook_on_the_network_itself():
    """Tracing does not see it, so it is refused, with two remedies that work."""
    net = pruned(models.resnet8())
    added = net.register_forward_hook(halved)
    with pytest.raises(DcilError, match=r"this ResNet has a forward hook.*hook\.remove\(\).*nn\.Sequential"):
        shrink(net)
    images, outer = torch.randn(2, 3, 32, 32, dtype=torch.float64), nn.Sequential(net)
    with torch.no_grad():
        torch.testing.assert_close(shrink(outer)[0](images), outer(images), rtol=1e-9, atol=1e-9)
    added.remove()
    assert shrink(net)[1]
