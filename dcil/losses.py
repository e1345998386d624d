"""The collective loss: each pass learns from the labels, and the passes teach each other."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import reduce

import torch
import torch.nn.functional as F
from torch import Tensor

from dcil.errors import DcilError, unknown

# The authors add this to the teacher's probabilities, without renormalising, to keep the
# logarithm finite; the conformance trajectories depend on it.
TEACHER_EPSILON = 1e-7
IGNORED = -100  # the label that no loss counts; `ignore_index` of PyTorch's cross-entropy


def _wide(values: Tensor) -> Tensor:
    """Return values of fewer bits than float32 in float32, where no sum overflows and no small divergence is lost."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def teach(
    student: Tensor, teacher: Tensor, temperature: float = 2.0, detach: bool = True, counted: Tensor | None = None
) -> Tensor:
    """Return T²·KL(teacher ‖ student) of softened probabilities; logits [N, C], or [N, C, d1, ...] -> scalar.

    The mean is over images and, for dense predictions, over positions, as in cross-entropy; `counted`, boolean
    [N] or [N, d1, ...], leaves out those that are False. With `detach` only the student gets a gradient.
    T² keeps the scale of the gradient when T changes (Hinton et al. 2015). Logits of fewer bits than float32 are
    compared in float32. Source of `TEACHER_EPSILON`: the authors' code.

    >>> import torch
    >>> round(teach(torch.tensor([[0.0, 0.0]]), torch.tensor([[2.0, 0.0]])).item(), 4)
    0.4438
    """
    student, teacher = _wide(student), _wide(teacher.detach() if detach else teacher)
    log_student = F.log_softmax(student / temperature, dim=1)
    target = F.softmax(teacher / temperature, dim=1) + TEACHER_EPSILON
    if counted is None:
        positions = student.numel() // student.shape[1]
        divergence = F.kl_div(log_student, target, reduction="sum") / positions
    else:
        terms = F.kl_div(log_student, target, reduction="none")
        divergence = terms.where(counted.unsqueeze(1), 0).sum() / counted.sum()
    return divergence * temperature**2


def cross_entropies(logits: Mapping[str, Tensor], labels: Tensor, smoothing: float = 0.0) -> dict[str, Tensor]:
    """Return the cross-entropy of each pass, as `ce_NAME`. Logits [N, C] by pass, labels [N]; or with d1, ... appended.

    `smoothing` is the part of each target that is spread evenly over all classes. Logits of fewer bits than float32
    give losses in float32.

    >>> import torch
    >>> losses = cross_entropies({"sparse": torch.tensor([[2.0, 0.0]])}, torch.tensor([0]))
    >>> {name: round(loss.item(), 4) for name, loss in losses.items()}
    {'ce_sparse': 0.1269}
    """
    labels = _wide(labels) if labels.is_floating_point() else labels  # probabilities
    return {
        f"ce_{name}": F.cross_entropy(_wide(output), labels, label_smoothing=smoothing)
        for name, output in logits.items()
    }


def divergences(
    logits: Mapping[str, Tensor],
    temperature: float = 2.0,
    learners: Collection[str] | None = None,
    detach: bool = True,
    counted: Tensor | None = None,
) -> dict[str, Tensor]:
    """Return the distillation loss of each of two passes with the other as teacher, as `kl_NAME`.

    `learners` names the students, by default both. Logits [N, C] by pass; `temperature`, `detach` and `counted` as in
    `dcil.losses.teach`. Raises `dcil.DcilError` for a learner without logits.

    >>> import torch
    >>> sorted(divergences({"sparse": torch.zeros(1, 2), "dense": torch.ones(1, 2)}))
    ['kl_dense', 'kl_sparse']
    """
    for name in learners or ():
        if name not in logits:
            raise unknown("pass", name, logits)
    (one, first), (two, second) = logits.items()
    lessons = ((one, first, second), (two, second, first))
    return {
        f"kl_{name}": teach(pupil, teacher, temperature, detach, counted)
        for name, pupil, teacher in lessons
        if learners is None or name in learners
    }


def collective_parts(
    sparse_logits: Tensor, dense_logits: Tensor, labels: Tensor, temperature: float = 2.0, distill: bool = True
) -> dict[str, Tensor]:
    """Return the terms of the collective loss by name; their sum is the loss. Arguments as in `collective_loss`.

    >>> import torch
    >>> sorted(collective_parts(torch.zeros(1, 2), torch.ones(1, 2), torch.tensor([0])))
    ['ce_dense', 'ce_sparse', 'kl_dense', 'kl_sparse']
    """
    if isinstance(temperature, (int, float)) and not temperature > 0:
        raise DcilError(f"temperature is {temperature}; it divides the logits and must be above 0, e.g. 2.0")
    if isinstance(distill, (str, float)):
        raise DcilError(
            f"distill is {distill!r}; it must be True or False. To weight its terms, add up those of "
            "collective_parts, whose names begin with kl"
        )
    logits = {"sparse": sparse_logits, "dense": dense_logits}
    for name, output in logits.items():
        if not isinstance(output, Tensor):
            raise DcilError(
                f"{name}_logits is a {type(output).__name__}, not a tensor; take the logits out of each pass's output, "
                "as in sparse, dense = dual(x); collective_loss(sparse['logits'], dense['logits'], y)"
            )
        if output.dim() > 1 and output.shape[1] == 1:
            raise DcilError(
                f"{name}_logits has the shape {list(output.shape)}: the cross-entropy of a single class is 0, whatever "
                "the label. Give two classes two outputs, or add up a loss of your own over the passes, such as binary "
                "cross-entropy"
            )
    counted = None if labels.is_floating_point() else labels != IGNORED  # probabilities [N, C, ...] all count
    return cross_entropies(logits, labels) | (divergences(logits, temperature, counted=counted) if distill else {})


def total(parts: Mapping[str, Tensor]) -> Tensor:
    """Return the sum of a loss's terms (scalar).

    >>> total({"ce_sparse": torch.tensor(1.5), "ce_dense": torch.tensor(2.0)})
    tensor(3.5000)
    """
    return reduce(torch.add, parts.values())


def collective_loss(
    sparse_logits: Tensor, dense_logits: Tensor, labels: Tensor, temperature: float = 2.0, distill: bool = True
) -> Tensor:
    """Return the cross-entropies of both passes plus, with `distill`, their mutual distillation (scalar).

    Logits [N, C], labels [N], integers in [0, C); for dense predictions, such as segmentation, logits
    [N, C, d1, ...] and labels [N, d1, ...]. All terms are means over labelled images or positions: a label of -100
    leaves one out. Teachers are detached: each pass learns from the other's logits without moving them. Logits of fewer
    bits than float32, of a network in bfloat16 or float16, give a loss in float32.
    `temperature`, above 0, softens both. Raises `dcil.DcilError` for another temperature, a `distill` that is a weight,
    logits that are not a tensor, such as the dict that many networks return, and logits of one class; other wrong
    shapes and labels raise PyTorch's own errors. Training runs use `dcil.methods.mutual`, which weights the same terms
    by the phase. Source: the authors' code, which switches `distill` on from epoch 70 of 300.

    >>> import torch
    >>> sparse_logits, dense_logits = torch.tensor([[2.0, 0.0]]), torch.tensor([[1.0, 1.0]])
    >>> labels = torch.tensor([0])
    >>> round(collective_loss(sparse_logits, dense_logits, labels, distill=False).item(), 4)
    0.8201
    >>> round(collective_loss(sparse_logits, dense_logits, labels).item(), 3)
    1.744
    """
    return total(collective_parts(sparse_logits, dense_logits, labels, temperature, distill))
