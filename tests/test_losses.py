"""The collective loss, against its definition written out."""

import pytest
import torch

from dcil.losses import TEACHER_EPSILON, collective_loss, collective_parts, teach


def logits():
    sparse, dense = torch.randn(2, 6, 10, dtype=torch.float64).unbind()
    return sparse.requires_grad_(), dense.requires_grad_(), torch.randint(10, (6,))


@pytest.mark.parametrize("temperature", [1.0, 2.0, 5.0])
def test_teach_is_the_softened_divergence(temperature):
    """T²·Σ p·(log p − log q), batch mean, with the authors' 1e-7 in p."""
    student, teacher, _ = logits()
    q = (student / temperature).softmax(1)
    p = (teacher / temperature).softmax(1) + TEACHER_EPSILON
    expected = temperature**2 * (p * (p.log() - q.log())).sum(1).mean()
    assert teach(student, teacher, temperature).item() == pytest.approx(expected.item(), rel=1e-12)


def test_teacher_learns_nothing():
    """Only the student receives a gradient."""
    student, teacher, _ = logits()
    teach(student, teacher).backward()
    assert student.grad.abs().sum() > 0
    assert teacher.grad is None


def test_agreement_costs_nothing():
    """A student equal to its teacher has (but for the epsilon) no loss and no gradient."""
    student, _, _ = logits()
    loss = teach(student, student)
    loss.backward()
    assert abs(loss.item()) < 1e-5
    assert student.grad.abs().max() < 1e-5


def test_gradient_does_not_vanish_with_temperature():
    """T² keeps the gradient's size: at T = 20 it is within a factor of two of that at T = 10."""
    sizes = []
    for temperature in (10.0, 20.0):
        torch.manual_seed(1)
        student, teacher, _ = logits()
        teach(student, teacher, temperature).backward()
        sizes.append(student.grad.norm().item())
    assert 0.5 < sizes[0] / sizes[1] < 2


def test_parts_and_their_sum():
    """Two cross-entropies, and with `distill` a divergence each way."""
    sparse, dense, labels = logits()
    with_kl, without = (collective_parts(sparse, dense, labels, 2.0, distill) for distill in (True, False))
    rows = torch.arange(6)
    assert set(without) == {"ce_sparse", "ce_dense"}
    assert without["ce_sparse"].item() == pytest.approx(-sparse.log_softmax(1)[rows, labels].mean().item())
    assert without["ce_dense"].item() == pytest.approx(-dense.log_softmax(1)[rows, labels].mean().item())
    assert with_kl["kl_sparse"].item() == teach(sparse, dense, 2.0).item()
    assert with_kl["kl_dense"].item() == teach(dense, sparse, 2.0).item()
    assert collective_loss(sparse, dense, labels).item() == pytest.approx(sum(with_kl.values()).item())
    assert collective_loss(sparse, dense, labels, distill=False).item() == pytest.approx(sum(without.values()).item())


def test_extreme_logits_stay_finite():
    """A teacher that is sure of itself gives no logarithm of zero."""
    sure = torch.tensor([[200.0, -200.0]], requires_grad=True)
    loss = collective_loss(sure, -sure, torch.tensor([0]))
    loss.backward()
    assert loss.isfinite() and sure.grad.isfinite().all()
