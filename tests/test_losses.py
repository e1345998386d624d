"""The collective loss, against its definition written out."""

import pytest
import torch

from dcil.errors import DcilError
from dcil.losses import TEACHER_EPSILON, collective_loss, collective_parts, cross_entropies, divergences, teach


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
    with_kl, without = (collective_parts(sparse, dense, labels, 3.0, distill) for distill in (True, False))
    rows = torch.arange(6)
    assert set(without) == {"ce_sparse", "ce_dense"}
    assert without["ce_sparse"].item() == pytest.approx(-sparse.log_softmax(1)[rows, labels].mean().item())
    assert without["ce_dense"].item() == pytest.approx(-dense.log_softmax(1)[rows, labels].mean().item())
    assert with_kl["kl_sparse"].item() == teach(sparse, dense, 3.0).item()
    assert with_kl["kl_dense"].item() == teach(dense, sparse, 3.0).item()
    assert collective_loss(sparse, dense, labels, 3.0).item() == pytest.approx(sum(with_kl.values()).item())
    assert collective_loss(sparse, dense, labels, distill=False).item() == pytest.approx(sum(without.values()).item())


def test_smoothed_labels():
    """With a smoothing of 0.2 over ten classes, a target is 0.8 of its label plus 0.02 of every class."""
    output, _, labels = logits()
    target = 0.8 * torch.nn.functional.one_hot(labels, 10) + 0.02
    expected = -(target * output.log_softmax(1)).sum(1).mean()
    assert cross_entropies({"sparse": output}, labels, 0.2)["ce_sparse"].item() == pytest.approx(expected.item())


def test_extreme_logits_stay_finite():
    """A fully confident teacher gives no logarithm of zero."""
    sure = torch.tensor([[200.0, -200.0]], requires_grad=True)
    loss = collective_loss(sure, -sure, torch.tensor([0]))
    loss.backward()
    assert loss.isfinite() and sure.grad.isfinite().all()


def dense_predictions():
    """Return logits and labels of 3 images of 4×5 positions, and the same with each position as a row."""
    sparse, dense = torch.randn(2, 3, 10, 4, 5, dtype=torch.float64).unbind()
    labels = torch.randint(10, (3, 4, 5))
    return (sparse, dense, labels), (*(x.movedim(1, -1).flatten(0, -2) for x in (sparse, dense)), labels.flatten())


def test_dense_predictions_are_a_mean_over_positions():
    """Every term is what the positions would give as images of their own."""
    maps, rows = dense_predictions()
    by_map, by_row = collective_parts(*maps), collective_parts(*rows)
    assert by_map.keys() == by_row.keys()
    for name, value in by_map.items():
        assert value.item() == pytest.approx(by_row[name].item(), rel=1e-12), name
    assert teach(*maps[:2]).item() == pytest.approx(teach(*rows[:2]).item(), rel=1e-12)


@pytest.mark.parametrize("shape", ["rows", "maps"])
def test_ignored_labels_leave_every_term(shape):
    """A label of -100 leaves its position out, in value and gradient, whatever its logits are."""
    maps, rows = dense_predictions()
    sparse, dense, labels = maps if shape == "maps" else rows
    left_out = torch.arange(labels.numel()).view_as(labels) % 3 == 0
    labels = labels.masked_fill(left_out, -100)
    sparse.requires_grad_()
    parts = collective_parts(sparse, dense, labels)
    rest = [x.movedim(1, -1)[~left_out] for x in (sparse, dense)]
    expected = collective_parts(*rest, labels[~left_out])
    for name, value in parts.items():
        assert value.item() == pytest.approx(expected[name].item(), rel=1e-12), name
    sum(parts.values()).backward()
    assert not sparse.grad.movedim(1, -1)[left_out].any() and sparse.grad.movedim(1, -1)[~left_out].all()


def test_labels_as_probabilities():
    """Labels may be probabilities [N, C], as in PyTorch's cross-entropy; every image then counts."""
    sparse, dense, labels = logits()
    mixed = torch.nn.functional.one_hot(labels, 10).double()
    one, other = collective_parts(sparse, dense, mixed), collective_parts(sparse, dense, labels)
    assert {name: value.item() for name, value in one.items()} == pytest.approx({n: v.item() for n, v in other.items()})


def test_logits_of_one_class_are_refused():
    """Their loss would be 0 at every weight, and nothing would be learnt."""
    with pytest.raises(DcilError, match=r"dense_logits has the shape \[6, 1\].*binary cross-entropy"):
        collective_loss(torch.randn(6, 2), torch.randn(6, 1), torch.zeros(6, dtype=torch.long))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_logits_in_half_precision(dtype):
    """The loss is that of the same logits in float32: no sum overflows, no small divergence is lost in rounding."""
    sparse = 3 * torch.randn(1, 21, 200, 200)
    sparse, dense = sparse.to(dtype), (sparse + 0.02 * torch.randn_like(sparse)).to(dtype)
    labels = torch.randint(21, (1, 200, 200))
    probabilities = torch.nn.functional.one_hot(labels, 21).movedim(-1, 1)
    for target in (labels, probabilities.to(dtype)):
        parts, expected = (
            collective_parts(sparse, dense, target),
            collective_parts(sparse.float(), dense.float(), labels),
        )
        for name, value in parts.items():
            assert value.item() == pytest.approx(expected[name].item(), rel=1e-5), name


def test_a_learner_that_is_no_pass():
    """A misspelt student is refused; it would learn nothing, without a word."""
    by_pass = {"sparse": torch.randn(6, 2), "dense": torch.randn(6, 2)}
    assert list(divergences(by_pass, learners=("dense",))) == ["kl_dense"]
    with pytest.raises(DcilError, match="unknown pass 'sprase': did you mean 'sparse'"):
        divergences(by_pass, learners=("sprase",))


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"temperature": 0}, "temperature is 0; .* above 0"),
        ({"temperature": -1.0}, "temperature is -1.0"),
        ({"distill": 0.5}, "distill is 0.5; it must be True or False. To weight its terms"),
        ({"distill": "no"}, "distill is 'no'"),
    ],
)
def test_settings_without_a_meaning_are_refused(asked, said):
    """They would give NaN, teach away from the teacher, or count as True."""
    with pytest.raises(DcilError, match=said):
        collective_loss(torch.zeros(1, 2), torch.ones(1, 2), torch.tensor([0]), **asked)
