"""Each gradient rule shows the value, and lets through the gradient, of its row in the table."""

import pytest
import torch

from dcil.rules import RULES

# Rule: (forward, gradient that reaches w), from w, m as a float and the upstream gradient g.
TABLE = {
    "kept": (lambda w, m: w * m, lambda g, m: g * m),
    "straight_through": (lambda w, m: w * m, lambda g, m: g),
    "refined": (lambda w, m: w, lambda g, m: g * (1 - m)),
    "dense": (lambda w, m: w, lambda g, m: g),
    "pruned_only": (lambda w, m: w * (1 - m), lambda g, m: g * (1 - m)),
}


def draws(dtype):
    """Weights of very different sizes (where sloppy algebra would round), a mask and a gradient."""
    w = torch.randn(7, 5, 3, 3, dtype=dtype) * 10 ** torch.linspace(-20, 20, 7, dtype=dtype).view(-1, 1, 1, 1)
    return w.requires_grad_(), torch.rand(7, 5, 3, 3) < 0.4, torch.randn(7, 5, 3, 3, dtype=dtype)


def test_table_names_every_rule():
    """A new rule needs a row here."""
    assert TABLE.keys() == RULES.keys()


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
    """The two gradients of DCIL meet no weight twice and leave none out."""
    w, m, g = draws(torch.float64)
    both = [torch.autograd.grad(RULES[rule].apply(w, m), w, g)[0] for rule in ("kept", "refined")]
    assert torch.equal(both[0] + both[1], g)
    assert not (both[0] * both[1]).any()


@pytest.mark.parametrize(("rule", "sees"), [("kept", "sparse"), ("straight_through", "sparse"), ("refined", "dense"),
                                            ("dense", "dense"), ("pruned_only", "pruned")])  # fmt: skip
def test_rules_say_which_network_they_see(rule, sees):
    """The pass is named after the network that the forward shows."""
    assert RULES[rule].sees == sees
