"""Each gradient rule has the forward value and the gradient of its row in the table."""

import pytest
import torch

from dcil.rules import RULES

# Rule: (forward, gradient that reaches w), from w, m as a float and the upstream gradient g.
TABLE = {
    "kept": (lambda w, m: w * m, lambda g, m: g * m),
    "straight_through": (lambda w, m: w * m, lambda g, m: g),
    "faint": (lambda w, m: w * m, lambda g, m: g * m + g * 0.1 * (1 - m)),
    "refined": (lambda w, m: w, lambda g, m: g * (1 - m)),
    "dense": (lambda w, m: w, lambda g, m: g),
    "pruned_only": (lambda w, m: w * (1 - m), lambda g, m: g * (1 - m)),
    "twin": (lambda w, m: w, lambda g, m: g),
}
OTHERS = {"observed", "soft_threshold", "soft_kept"}  # no gradient; more than a mask


def draws(dtype):
    """Weights of very different sizes (where sloppy algebra would round), a mask and a gradient."""
    w = torch.randn(7, 5, 3, 3, dtype=dtype) * 10 ** torch.linspace(-20, 20, 7, dtype=dtype).view(-1, 1, 1, 1)
    return w.requires_grad_(), torch.rand(7, 5, 3, 3) < 0.4, torch.randn(7, 5, 3, 3, dtype=dtype)


def test_table_names_every_rule():
    """A new rule needs a row here."""
    assert TABLE.keys() | OTHERS == RULES.keys()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("rule", TABLE)
def test_forward_and_gradient_are_exact(rule, dtype):
    """Forward and gradient equal the table's, bit by bit."""
    w, m, g = draws(dtype)
    value = RULES[rule].apply(w, m)
    (gradient,) = torch.autograd.grad(value, w, g)
    forward, reaches = TABLE[rule]
    assert value.dtype == dtype
    assert torch.equal(value, forward(w.detach(), m.to(dtype)))
    assert torch.equal(gradient, reaches(g, m.to(dtype)))


def test_kept_and_refined_share_the_weights_out():
    """The two gradients of DCIL reach every weight, and none twice."""
    w, m, g = draws(torch.float64)
    both = [torch.autograd.grad(RULES[rule].apply(w, m), w, g)[0] for rule in ("kept", "refined")]
    assert torch.equal(both[0] + both[1], g)
    assert not (both[0] * both[1]).any()


def test_rules_say_which_network_they_see():
    """The pass is named after the network that its forward sees."""
    assert {name: rule.sees for name, rule in RULES.items()} == {
        "kept": "sparse",
        "straight_through": "sparse",
        "refined": "dense",
        "dense": "dense",
        "pruned_only": "pruned",
        "twin": "twin",
        "observed": "dense",
        "faint": "sparse",
        "soft_threshold": "sparse",
        "soft_kept": "sparse",
    }


def test_observed_trains_nothing():
    """Its forward is dense and no gradient reaches the weights."""
    w, m, _ = draws(torch.float64)
    value = RULES["observed"].apply(w, m)
    assert torch.equal(value, w) and not value.requires_grad


def test_soft_threshold_by_hand():
    """Two filters by ST-3's formula: (kept size − threshold) · 1.01 / (share of the mean size + 0.01); gradient g."""
    w = torch.tensor([[3.0, -1.0, 0.5, -2.0], [4.0, 4.0, -4.0, 4.0]], dtype=torch.float64, requires_grad=True)
    m = w.detach().abs() > 1
    value = RULES["soft_threshold"].apply(w, m, torch.tensor(1.0, dtype=torch.float64))
    # Filter 0 keeps 5 of the 6.5 of its size (1.25 and 1.625 on average), filter 1 all of it.
    first, second = 1.01 / ((1.25 + 1e-6) / (1.625 + 1e-6) + 0.01), 1.01 / (1 + 0.01)
    expected = [[first * 2, 0, 0, first * -1], [second * 3, second * 3, second * -3, second * 3]]
    assert torch.allclose(value, torch.tensor(expected, dtype=torch.float64))
    g = torch.randn(2, 4, dtype=torch.float64)
    assert torch.equal(torch.autograd.grad(value, w, g)[0], g)
    # In DCIL's sparse pass the same values, and a gradient for kept weights only.
    value = RULES["soft_kept"].apply(w, m, torch.tensor(1.0, dtype=torch.float64))
    assert torch.allclose(value, torch.tensor(expected, dtype=torch.float64))
    assert torch.equal(torch.autograd.grad(value, w, g)[0], g * m)


@pytest.mark.parametrize("rule", ["soft_threshold", "soft_kept"])
def test_a_kept_weight_below_the_threshold_is_zero(rule):
    """One that shrank since the masks were chosen is pulled to zero, not past it; those above are as usual."""
    w = torch.tensor([[3.0, -0.4, 0.5, -2.0]], dtype=torch.float64)
    m = torch.tensor([[True, True, True, True]])
    value = RULES[rule].apply(w, m, torch.tensor(1.0, dtype=torch.float64))
    assert value.tolist() == [[2.0, 0.0, 0.0, -1.0]]


@pytest.mark.parametrize("rule", ["soft_threshold", "soft_kept"])
def test_a_number_under_a_soft_threshold(rule):
    """A 0-d weight, such as a learnt temperature, is a filter of its own: pulled towards zero, not scaled up."""
    value = RULES[rule].apply(torch.tensor(-3.0), torch.tensor(True), torch.tensor(1.0))
    assert value.shape == () and value.item() == pytest.approx(-2)


@pytest.mark.parametrize("rule", ["soft_threshold", "soft_kept"])
def test_a_pruned_weight_above_the_threshold_is_zero(rule):
    """One that grew since the masks were chosen is still pruned."""
    w = torch.tensor([[3.0, -4.0]], dtype=torch.float64)
    value = RULES[rule].apply(w, torch.tensor([[True, False]]), torch.tensor(1.0, dtype=torch.float64))
    assert value[0, 0] > 0 and value[0, 1] == 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_where_no_kept_weight_is_below_the_threshold_nothing_changed(dtype):
    """There `w − sign(w)·threshold` without a floor, by which ST-3's records were trained, is the same bit by bit."""
    w = torch.randn(7, 5, 3, 3).to(dtype)
    threshold = torch.tensor(0.7, dtype=dtype)
    m, size = w.abs() > threshold, w.abs()
    share = ((size * m).flatten(1).mean(1) + 1e-6) / (size.flatten(1).mean(1) + 1e-6)
    before = w + ((1.01 / (share + 0.01)).view(-1, 1, 1, 1) * (w - w.sign() * threshold) * m - w)
    assert torch.equal(RULES["soft_threshold"].apply(w, m, threshold), before)
