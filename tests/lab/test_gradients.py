"""Gradients and curvature are right where the answer is known, and agree with the gradient rules."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import dcil
from dcil.errors import DcilError
from dcil.lab.demos import gradients


@pytest.fixture
def quadratic():
    """½ wᵀHw with the eigenvalues −5, 3, 1 and 0: the largest in size is negative."""
    basis = torch.linalg.qr(torch.randn(4, 4, dtype=torch.float64)).Q
    hessian = basis @ torch.diag(torch.tensor([-5.0, 3.0, 1.0, 0.0], dtype=torch.float64)) @ basis.T
    return hessian, lambda w: 0.5 * w @ hessian @ w


@pytest.fixture
def small():
    """A small smooth network in float64 with masks at 80 %, its batch, its loss, w and m."""
    net = gradients.small_net(width=2, activation=nn.SiLU).double()
    dual = dcil.DualPath(net, rules=("kept", "refined"), per_pass=[])
    dcil.set_masks(dual, 0.8)
    images, labels = torch.randn(4, 3, 32, 32, dtype=torch.float64), torch.tensor([0, 3, 9, 3])
    w, m = gradients.flatten(dual.weights), gradients.flatten(dual.masks)
    return dual, images, labels, gradients.BatchLoss(dual, images, labels), w, m


def test_curvature_of_a_quadratic(quadratic):
    """The eigenvalue of largest magnitude is found, here a negative one."""
    _, loss = quadratic
    assert gradients.largest_curvature(loss, torch.ones(4, dtype=torch.float64)) == pytest.approx(5.0, rel=1e-12)


def test_curvature_is_approached_from_below(quadratic):
    """However early it stops, the estimate is no larger than the truth, and it only improves."""
    _, loss = quadratic
    at = torch.zeros(4, dtype=torch.float64)
    values = [gradients.largest_curvature(loss, at, iterations=n) for n in (1, 2, 3, 4)]
    assert values == sorted(values) and values[0] < 4.9 and values[-1] <= 5.0 + 1e-12


def test_curvature_equals_the_whole_hessian(small):
    """On a network, a few products find the largest of all eigenvalues of the full Hessian."""
    *_, loss, w, _ = small
    hessian = torch.autograd.functional.hessian(loss, w)
    expected = float(torch.linalg.eigvalsh(hessian).abs().max())
    assert gradients.largest_curvature(loss, w) == pytest.approx(expected, rel=1e-6)


def test_flat_loss_has_no_curvature():
    """A linear loss does not divide by zero."""
    assert gradients.largest_curvature(lambda w: w.sum() + 0 * (w**2).sum(), torch.ones(3)) == 0.0


def test_segment_takes_the_steepest_point():
    """For L = w⁴/12 the Hessian is w²: on the segment from 1 to −3 the largest is 9, at an end."""
    a, b = torch.tensor([1.0], dtype=torch.float64), torch.tensor([-3.0], dtype=torch.float64)
    assert gradients.segment_curvature(lambda w: (w**4).sum() / 12, a, b) == pytest.approx(9.0)


def test_bound_holds_with_the_known_constant(quadratic):
    """‖∇L(a) − ∇L(b)‖ ≤ L‖a − b‖, and it is an equality along the steepest direction."""
    hessian, loss = quadratic
    a, b = torch.randn(2, 4, dtype=torch.float64)
    steepest = torch.linalg.eigh(hessian).eigenvectors[:, 0]  # of −5
    for other, tight in ((b, False), (a + steepest, True)):
        moved = (gradients.gradient(loss, a) - gradients.gradient(loss, other)).norm()
        bound = 5 * (a - other).norm()
        assert moved <= bound + 1e-12
        assert (abs(float(moved / bound) - 1) < 1e-9) == tight


def test_gradient_equals_central_differences(small):
    """Along several coordinates of w and of w·m, to nine digits of the largest slope."""
    *_, loss, w, m = small
    for at in (w, w * m):
        g = gradients.gradient(loss, at)
        numeric = torch.tensor([gradients.central_difference(loss, at, i) for i in range(0, len(w), 29)])
        assert torch.allclose(g[::29], numeric.double(), rtol=1e-6, atol=1e-9 * float(g.abs().max()) + 1e-10)
        assert g.abs().max() > 1e-3


def test_rules_give_the_gradients_at_both_points(small):
    """DualPath's passes: refined is ∇L(w) where pruned, kept is ∇L(w·m) where kept, straight-through ∇L(w·m)."""
    dual, images, labels, loss, w, m = small
    dense, sparse = gradients.gradient(loss, w), gradients.gradient(loss, w * m)
    ste = dcil.DualPath(dual.net, rules=("straight_through",), per_pass=[])
    dcil.set_masks(ste, 0.8)
    outputs = {"kept": dual(images)[0], "refined": dual(images)[1], "ste": ste(images)[0]}
    found = {
        name: torch.cat(
            [g.flatten() for g in torch.autograd.grad(F.cross_entropy(output, labels), list(dual.weights.values()))]
        )
        for name, output in outputs.items()
    }
    torch.testing.assert_close(found["refined"], dense * ~m)
    torch.testing.assert_close(found["kept"], sparse * m)
    torch.testing.assert_close(found["ste"], sparse)


def test_mean_hessian_joins_the_gradients(small):
    """∫ H dt (b − a) = ∇L(b) − ∇L(a) on the segment from w·m to w."""
    *_, loss, w, m = small
    expected = gradients.gradient(loss, w) - gradients.gradient(loss, w * m)
    torch.testing.assert_close(gradients.mean_product(loss, w * m, w), expected, rtol=1e-6, atol=1e-9)


def test_what_a_weight_receives_is_no_gradient():
    """A kept weight's share does not depend on a pruned weight, the reverse does, so no loss has it as its gradient.

    The gradient of the summed losses, where the dense pass trains every weight, has a symmetric Jacobian.
    """
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.SiLU(), nn.Conv2d(2, 2, 3), nn.SiLU(), nn.Flatten(), nn.Linear(32, 4))
    images, labels = torch.randn(6, 1, 8, 8, dtype=torch.float64), torch.randint(4, (6,))

    def passes(*rules):
        dual = dcil.DualPath(net.double(), rules=rules, per_pass=[])
        dcil.set_masks(dual, 0.5)
        return dual

    loss = gradients.BatchLoss(dual := passes("kept", "refined"), images, labels)
    w, m = gradients.flatten(dual.weights), gradients.flatten(dual.masks)

    def blocks(*rules):
        found = gradients.jacobian(partial(gradients.received_gradient, passes(*rules), images, labels), w)
        return found, found[m][:, ~m], found[~m][:, m], found[~m][:, ~m]

    hessian = torch.autograd.functional.hessian(loss, w)
    routed, kept_by_pruned, pruned_by_kept, _ = blocks("kept", "refined")
    assert not kept_by_pruned.any() and pruned_by_kept.abs().max() > 1e-3
    torch.testing.assert_close(routed[~m], hessian[~m], rtol=1e-5, atol=1e-7)
    _, kept_by_pruned, pruned_by_kept, pruned = blocks("straight_through")
    assert not kept_by_pruned.any() and not pruned.any() and pruned_by_kept.abs().max() > 1e-3
    summed, *_ = blocks("kept", "dense")
    torch.testing.assert_close(summed, summed.T, rtol=1e-5, atol=1e-7)


def test_batch_norm_in_training_is_refused():
    """Its running statistics would change at every evaluation; in eval mode the loss is a function of w."""
    dual = dcil.DualPath(dcil.models.resnet8())
    with pytest.raises(DcilError, match="call eval"):
        gradients.BatchLoss(dual, torch.zeros(1, 3, 32, 32), torch.zeros(1, dtype=torch.long))
    gradients.BatchLoss(dual.eval(), torch.zeros(1, 3, 32, 32), torch.zeros(1, dtype=torch.long))


def test_comparisons_by_hand():
    """cos((1,0),(1,1)) = 1/√2; (0,1) is √2 away from (1,0) relative to it."""
    x, y = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])
    assert gradients.cosine(x, x + y) == pytest.approx(0.5**0.5)
    assert gradients.relative_difference(y, x) == pytest.approx(2**0.5)
