"""Masks: the authors' edge cases, the three scopes, the schedule and the distances."""

import math

import pytest
import torch
from torch import nn

from dcil.errors import DcilError
from dcil.masks import (
    compute_masks,
    cubic_sparsity,
    erdos_renyi_kernel,
    filter_scores,
    flips,
    overlap,
    threshold_mask,
)


def two_layers():
    return {"a": torch.randn(6, 3, 3, 3), "b": 5 * torch.randn(4, 6, 1, 1)}


def kept_of(n, sparsity):
    """Return how many of n scores the authors keep: those strictly above the sorted scores' entry int(n·s)."""
    return n - int(n * sparsity) - 1


@pytest.mark.parametrize("sparsity", [0.0, 0.1, 0.5, 0.9, 0.99])
def test_global_count_follows_the_authors_rule(sparsity):
    """Without ties N − int(N·s) − 1 weights stay; sparsity 0 already drops one."""
    masks = compute_masks(two_layers(), sparsity)
    assert sum(int(m.sum()) for m in masks.values()) == kept_of(6 * 27 + 24, sparsity)
    assert all(m.dtype == torch.bool for m in masks.values())


def test_global_threshold_is_shared():
    """Every kept weight, in whatever layer, is larger than every removed one."""
    weights = two_layers()
    masks = compute_masks(weights, 0.6)
    kept = torch.cat([weights[n][m].abs() for n, m in masks.items()])
    gone = torch.cat([weights[n][~m].abs() for n, m in masks.items()])
    assert kept.min() > gone.max()
    share = {n: float(m.float().mean()) for n, m in masks.items()}
    assert share["b"] > 2 * share["a"]  # its weights are five times as large


def test_layer_scope_counts_each_layer():
    """Layer-wise masks keep the same share of every layer."""
    masks = compute_masks(two_layers(), 0.5, "layer")
    assert {n: int(m.sum()) for n, m in masks.items()} == {"a": kept_of(162, 0.5), "b": kept_of(24, 0.5)}


def test_filter_scope_masks_whole_filters():
    """A filter stays or goes as a whole, and the count is over the filters of all layers."""
    masks = compute_masks(two_layers(), 0.4, "filter")
    rows = torch.cat([m.flatten(1).float().mean(1) for m in masks.values()])
    assert set(rows.tolist()) == {0.0, 1.0}
    assert int(rows.sum()) == kept_of(10, 0.4)


def test_filter_scores_are_means():
    """A filter's score does not grow with its size."""
    assert filter_scores(torch.tensor([[[1.0, 3.0]], [[4.0, 0.0]]])).tolist() == [2.0, 2.0]


def test_l1_and_l2_differ_only_for_filters():
    """A filter with one large weight wins by w² and loses by |w|; single weights rank alike."""
    peak, flat, small = torch.tensor([3.0, 0, 0, 0]), torch.full((4,), 1.0), torch.full((4,), 0.1)
    weights = {"w": torch.stack([peak, flat, small]).view(3, 4, 1, 1)}
    by_l2, by_l1 = (compute_masks(weights, 0.4, "filter", score)["w"][:, 0, 0, 0] for score in ("l2", "l1"))
    assert by_l2.tolist() == [True, False, False]
    assert by_l1.tolist() == [False, True, False]
    random = two_layers()
    for scope in ("global", "layer"):
        one, two = (compute_masks(random, 0.7, scope, score) for score in ("l1", "l2"))
        assert all(torch.equal(one[n], two[n]) for n in random)


@pytest.mark.parametrize("shape", [(50,), (5, 4, 3, 3), (7, 11)])
@pytest.mark.parametrize("sparsity", [0.0, 0.33, 0.9])
def test_threshold_equals_a_sorted_reference(shape, sparsity):
    """Selection gives the mask that sorting gives, ties included."""
    for scores in (torch.rand(shape), torch.randint(4, shape).float()):
        threshold = scores.flatten().sort().values[int(scores.numel() * sparsity)]
        assert torch.equal(threshold_mask(scores, sparsity), scores > threshold)


@pytest.mark.parametrize("scope", ["global", "layer", "filter"])
def test_memory_layout_does_not_matter(scope):
    """channels_last weights get the masks of contiguous ones."""
    weights = two_layers()
    other = {n: w.contiguous(memory_format=torch.channels_last) for n, w in weights.items()}
    plain, last = compute_masks(weights, 0.5, scope), compute_masks(other, 0.5, scope)
    assert all(torch.equal(plain[n], last[n]) for n in weights)


def test_ties_at_the_threshold_all_go():
    """Scores equal to the threshold leave together, so fewer may stay than asked for."""
    assert threshold_mask(torch.tensor([1.0, 2.0, 2.0, 2.0, 3.0]), 0.4).tolist() == [False, False, False, False, True]


def test_masks_carry_no_graph():
    """Choosing masks leaves no gradient history."""
    masks = compute_masks({"w": torch.randn(4, 4, requires_grad=True)}, 0.5)
    assert not masks["w"].requires_grad


@pytest.mark.parametrize("sparsity", [-0.1, 1.0, 1.5, math.nan])
def test_sparsity_outside_its_range(sparsity):
    """The error says what came and the range."""
    with pytest.raises(DcilError, match=rf"sparsity is {sparsity}.*\[0, 1\)"):
        compute_masks(two_layers(), sparsity)


@pytest.mark.parametrize(
    ("scope", "sparsity", "what"),
    [
        ("layer", 0.9, "10 weights of tiny"),
        ("global", 0.9991, "1,090 prunable weights"),
        ("filter", 0.99, "70 filters"),
    ],
)
def test_masks_that_would_keep_nothing_are_refused(scope, sparsity, what):
    """A layer without a weight cuts the network; the error says which, and the next lower sparsity keeps one weight."""
    weights = {"large": torch.randn(60, 18), "tiny": torch.randn(10, 1)}
    with pytest.raises(DcilError, match=f"scope '{scope}' leaves none of the {what}; lower the sparsity"):
        compute_masks(weights, sparsity, scope)
    for mask in compute_masks(weights, sparsity - 0.1, scope).values():
        assert scope != "layer" or mask.any()


@pytest.mark.parametrize(
    ("wrong", "nearest"),
    [({"scope": "globl"}, "'global'"), ({"scope": "filters"}, "'filter'"), ({"score": "l3"}, "'l[12]'")],
)
def test_unknown_names_suggest_the_nearest(wrong, nearest):
    with pytest.raises(DcilError, match=f"unknown {next(iter(wrong))}.*did you mean {nearest}"):
        compute_masks(two_layers(), 0.5, **wrong)


def test_cubic_schedule():
    """Zero at the start, the cubic in between, the target from the ramp's end on."""
    assert cubic_sparsity(0, 0.9, 225) == 0.0
    assert cubic_sparsity(75, 0.9, 225) == pytest.approx(0.9 * (1 - (2 / 3) ** 3), rel=1e-12)
    assert cubic_sparsity(224, 0.9, 225) < 0.9
    assert [cubic_sparsity(e, 0.9, 225) for e in (225, 226, 299)] == [0.9] * 3
    assert cubic_sparsity(0, 0.9, 0) == 0.9
    ramp = [cubic_sparsity(e, 0.9, 10) for e in range(12)]
    assert ramp == sorted(ramp)


def test_distances_by_hand():
    """Two of four weights change sides; one of three kept in either is kept in both."""
    a = {"x": torch.tensor([True, True]), "y": torch.tensor([False, False])}
    b = {"x": torch.tensor([True, False]), "y": torch.tensor([True, False])}
    assert int(flips(a, b)) == 2
    assert int(flips(a, a)) == 0
    assert float(overlap(a, b)) == pytest.approx(1 / 3)
    assert float(overlap(a, a)) == 1.0


@pytest.mark.parametrize("scope", ["global", "layer", "filter"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_ranks_do_not_depend_on_the_storage_type(dtype, scope):
    """Small weights in half precision keep the exact count, and none that is smaller than one removed."""
    weights = {n: (1e-4 * w).to(dtype) for n, w in {"a": torch.randn(40, 3, 9), "b": torch.randn(20, 40, 1)}.items()}
    for sparsity in (0.0, 0.5, 0.9):
        masks = compute_masks(weights, sparsity, scope)
        sizes = {"global": [1880], "layer": [1080, 800], "filter": [60]}[scope]
        counts = [m[:, 0, 0] if scope == "filter" else m for m in masks.values()]
        assert sum(int(m.sum()) for m in counts) == sum(kept_of(n, sparsity) for n in sizes)
        if scope == "global" and sparsity:
            kept, gone = (torch.cat([weights[n][m == side].abs() for n, m in masks.items()]) for side in (True, False))
            assert kept.min() >= gone.max()


@pytest.mark.parametrize(("scope", "kept"), [("global", 9), ("layer", 8), ("filter", 8)])
def test_one_weight_in_half_precision_among_others(scope, kept):
    """A threshold would keep none of equal scores; with one weight in half precision, the count is exact."""
    weights = {"wide": torch.ones(5, 2), "half": torch.ones(5, 2, dtype=torch.bfloat16)}
    found = compute_masks(weights, 0.5, scope)
    assert sum(int(m.sum()) for m in found.values()) == kept


@pytest.mark.parametrize("scope", ["global", "layer", "filter"])
def test_a_mask_has_an_entry_for_each_weight(scope):
    """Writing to one entry changes no other, even within a filter."""
    mask = compute_masks({"a": torch.randn(4, 3)}, 0.5, scope)["a"]
    before = mask.clone()
    mask[0, 0].logical_not_()
    assert int((mask ^ before).sum()) == 1


def test_filters_of_a_transposed_convolution():
    """With groups too, the output channels with the smallest weights go, and the network's outputs there are zero."""
    net = nn.ConvTranspose2d(4, 6, 3, groups=2, bias=False)
    with torch.no_grad():
        for channel in range(6):
            net.weight[2 * (channel // 3) : 2 * (channel // 3) + 2, channel % 3] = channel + 1.0
    mask = compute_masks({"weight": net.weight}, 0.4, "filter", transposed={"weight": 2})["weight"]
    with torch.no_grad():
        net.weight *= mask
    assert net(torch.ones(1, 4, 5, 5)).amax((0, 2, 3)).gt(0).tolist() == [False] * 3 + [True] * 3
    assert int(mask.sum()) == 3 * 2 * 9


def test_a_weight_without_filters():
    """A bias, which has no filters, is refused by name, with a remedy."""
    with pytest.raises(DcilError, match=r"bias has the shape \[8\] and so no filters; leave it out of `prunable`"):
        compute_masks({"weight": torch.randn(8, 3, 3, 3), "bias": torch.randn(8)}, 0.5, "filter")


@pytest.mark.parametrize("shapes", [[(8, 8, 3, 3)], [(8, 3, 3, 3), (16, 8, 1, 1)], [(1,)]])
def test_erdos_renyi_at_sparsity_0(shapes):
    """Every layer keeps all its weights."""
    shapes = {str(i): torch.Size(s) for i, s in enumerate(shapes)}
    assert erdos_renyi_kernel(shapes, 0.0) == pytest.approx(dict.fromkeys(shapes, 1.0))
