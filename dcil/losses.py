"""The collective loss: each pass learns from the labels, and the passes teach each other."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

# The authors add this to the teacher's probabilities (and do not renormalise) so that its
# logarithm stays finite; the conformance trajectories depend on it.
TEACHER_EPSILON = 1e-7


def teach(student: Tensor, teacher: Tensor, temperature: float = 2.0, detach: bool = True) -> Tensor:
    """Return T²·KL(teacher ‖ student) of softened probabilities, batch mean; logits [N, C] -> scalar.

    With `detach` the teacher is fixed and only the student moves. T² keeps the size of the gradient
    when T changes (Hinton et al. 2015).
    """
    log_student = F.log_softmax(student / temperature, dim=1)
    teacher = teacher.detach() if detach else teacher
    target = F.softmax(teacher / temperature, dim=1) + TEACHER_EPSILON
    return F.kl_div(log_student, target, reduction="batchmean") * temperature**2


def collective_parts(
    sparse_logits: Tensor, dense_logits: Tensor, labels: Tensor, temperature: float = 2.0, distill: bool = True
) -> dict[str, Tensor]:
    """Return the terms of the collective loss by name; their sum is the loss. Logits [N, C], labels [N]."""
    parts = {"ce_sparse": F.cross_entropy(sparse_logits, labels), "ce_dense": F.cross_entropy(dense_logits, labels)}
    if distill:
        parts["kl_sparse"] = teach(sparse_logits, dense_logits, temperature)
        parts["kl_dense"] = teach(dense_logits, sparse_logits, temperature)
    return parts


def collective_loss(
    sparse_logits: Tensor, dense_logits: Tensor, labels: Tensor, temperature: float = 2.0, distill: bool = True
) -> Tensor:
    """Return cross-entropy of both passes plus, with `distill`, what each teaches the other (scalar).

    Logits [N, C], labels [N] in [0, C). Source: the authors' code, which switches `distill` on
    from epoch 70 of 300.
    """
    return sum(collective_parts(sparse_logits, dense_logits, labels, temperature, distill).values())
