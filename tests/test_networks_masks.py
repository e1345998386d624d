"""Masks of other people's networks: which layers and weights are pruned correctly, and which are refused."""

import pytest
import torch
from torch import nn

from dcil.config import RunConfig
from dcil.dual_path import DualPath, put_masks, set_masks
from dcil.dynamics import compare_gradients
from dcil.errors import DcilError
from dcil.masks import compute_masks
from dcil.refresh import Change, refresh


def by_set_masks(dual):
    set_masks(dual, 0.5, scope="filter")


def by_refresh(how):
    config = RunConfig(scope="filter", device="cpu").resolve()
    return lambda dual: refresh(dual, Change(0.5, how), config, 0, dict)


@pytest.mark.parametrize("prune", [by_set_masks, by_refresh("largest"), by_refresh("shrink")])
@pytest.mark.parametrize("groups", [1, 2])
def test_transposed_convolutions_lose_output_channels(groups, prune):
    """With the scope "filter", each output channel is kept or zeroed as a whole."""
    net = nn.Sequential(nn.Conv2d(3, 8, 3, bias=False), nn.ConvTranspose2d(8, 12, 3, groups=groups, bias=False))
    dual = DualPath(net, per_pass=[])
    prune(dual)
    mask = dual.masks["1.weight"]
    by_channel = mask.unflatten(0, (groups, -1)).transpose(1, 2).flatten(0, 1).flatten(1)
    assert by_channel.shape[0] == 12 and torch.equal(by_channel.any(1), by_channel.all(1))
    assert 0 < int(by_channel.all(1).sum()) < 12
    weights = {name: torch.ones_like(mask, dtype=torch.float) for name, mask in dual.masks.items()}
    empty = sum(int(m.logical_not().all(1).sum()) for m in (by_channel, dual.masks["0.weight"].flatten(1)))
    assert compare_gradients(weights, weights, dual)["empty"] == empty
    outputs = dual.export()(torch.randn(2, 3, 9, 9))
    assert torch.equal(outputs.abs().amax((0, 2, 3)) > 0, by_channel.all(1))


def test_everything_is_prunable_but_has_no_filters():
    """`prunable=["*"]` includes biases, so the scope "filter" is refused and "global" works."""
    dual = DualPath(nn.Conv2d(3, 8, 3), prunable=["*"])
    with pytest.raises(DcilError, match="bias has the shape .* no filters"):
        set_masks(dual, 0.5, scope="filter")
    set_masks(dual, 0.5)
    assert 0.5 < dual.sparsity() < 0.51


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_networks_in_half_precision(dtype):
    """Despite small weights and ties, what is asked for is what is removed."""
    net = nn.Sequential(nn.Conv2d(3, 64, 3, bias=False), nn.Conv2d(64, 64, 3, bias=False))
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.mul_(1e-3)
    dual = DualPath(net.to(dtype), per_pass=[])
    for sparsity in (0.5, 0.9):
        set_masks(dual, sparsity)
        assert dual.sparsity() == pytest.approx(sparsity, abs=1e-4)


@pytest.mark.parametrize("scope", ["layer", "filter"])
def test_a_soft_threshold_over_layers_or_filters_is_refused(scope):
    """Under one threshold, weights that another scope keeps could be zero, here all of the first layer."""
    dual = DualPath(nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3)), rules=("soft_threshold",), per_pass=[])
    with torch.no_grad():
        dual.net[0].weight.mul_(0.01)
    with pytest.raises(DcilError, match=f"scope is '{scope}', but a soft threshold is global"):
        set_masks(dual, 0.5, scope=scope)
    assert dual.sparsity() == 0


@pytest.mark.parametrize("groups", [1, 2])
def test_a_soft_threshold_scales_the_filters_of_a_transposed_convolution(groups):
    """Each output channel is scaled by what is kept of it, as in the plain convolution with the same channels."""
    up = nn.ConvTranspose2d(8, 12, 3, groups=groups, bias=False)
    plain = nn.Conv2d(8, 12, 3, groups=groups, bias=False)
    seen = []

    def turned(weight):  # as the plain convolution has it, [out, in/groups, 3, 3]
        return weight.unflatten(0, (groups, -1)).transpose(1, 2).flatten(0, 1)

    with torch.no_grad():
        plain.weight.copy_(turned(up.weight))
    for net in (up, plain):
        dual = DualPath(net, rules=("soft_threshold",), per_pass=[])
        set_masks(dual, 0.5)
        weight = dual.tensors(0)["weight"]
        seen.append(turned(weight) if net is up else weight)
        (grad,) = torch.autograd.grad(weight.sum(), net.weight)
        assert torch.equal(grad, torch.ones_like(grad))
    assert torch.allclose(*seen)


def test_a_soft_threshold_shrinks_a_bias():
    """Each entry of a bias is a filter of its own: it is pulled towards zero, and not scaled up again."""
    dual = DualPath(nn.Conv2d(1, 3, 1), rules=("soft_threshold",), prunable=["*"], per_pass=[])
    with torch.no_grad():
        dual.net.weight.fill_(0.5)
        dual.net.bias.copy_(torch.tensor([2.0, -3.0, 0.25]))
    set_masks(dual, 0.5)  # prunes what is not above 0.5
    assert dual.tensors(0)["bias"].tolist() == [1.5, -2.5, 0.0]


@pytest.mark.parametrize("scope", ["global", "layer", "filter"])
def test_complex_weights(scope):
    """The largest absolute values stay, and kept and pruned weights get the gradients of their networks."""
    net = nn.Sequential(nn.Conv1d(2, 6, 3, dtype=torch.complex64), nn.Conv1d(6, 4, 3, dtype=torch.complex64))
    dual = DualPath(net, per_pass=[])
    sizes = {name: weight.detach().abs() for name, weight in dual.weights.items()}
    set_masks(dual, 0.5, scope)
    assert all(mask.equal(dual.masks[name]) for name, mask in compute_masks(sizes, 0.5, scope).items())
    x, alone = torch.randn(3, 2, 9, dtype=torch.complex64), [dual.export(name) for name in dual.pass_names]
    for output, plain in zip(dual(x), alone, strict=True):
        torch.testing.assert_close(output, plain(x))
        sum(of.abs().square().mean() for of in (output, plain(x))).backward()
    for name, mask in dual.masks.items():
        sparse, dense = (plain.get_parameter(name).grad for plain in alone)
        torch.testing.assert_close(dual.weights[name].grad, torch.where(mask, sparse, dense))


def test_a_soft_threshold_shrinks_complex_weights():
    """Towards zero along their own direction."""
    dual = DualPath(nn.Conv1d(1, 2, 2, dtype=torch.complex64), rules=("soft_threshold",), per_pass=[])
    set_masks(dual, 0.5)
    kept, seen = dual.masks["weight"], dual.tensors(0)["weight"]
    torch.testing.assert_close(seen[kept].angle(), dual.net.weight[kept].angle())
    assert not seen[~kept].any()


def test_masks_of_your_own():
    """Those named are set, the others stay; what could not be a mask is refused, and changes nothing."""
    dual = DualPath(nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3)), per_pass=[])
    mine = torch.rand(8, 3, 3, 3) < 0.5
    assert put_masks(dual, {"0.weight": mine}, 0.5) == (~mine).sum()
    assert dual.masks["0.weight"].equal(mine) and dual.masks["1.weight"].all() and dual.target_sparsity == 0.5
    for wrong, message in (
        ({"0.weight": mine.float()}, r"mask of 0\.weight is torch\.float32 \[8, 3, 3, 3\]; it must be torch\.bool"),
        ({"1.weight": mine}, r"is torch\.bool \[8, 3, 3, 3\]; it must be torch\.bool \[8, 8, 3, 3\]"),
        ({"0.weights": mine}, "unknown prunable weight '0.weights': did you mean '0.weight'"),
    ):
        with pytest.raises(DcilError, match=message):
            put_masks(dual, {"0.weight": ~mine} | wrong, 0.5)
        assert dual.masks["0.weight"].equal(mine)
    for none, message in (({}, "no mask was given.*0.weight, 1.weight"), ({"0.weight": [True]}, "is a list")):
        with pytest.raises(DcilError, match=message):
            put_masks(dual, none, 0.5)
    assert dual.refreshes == 1
