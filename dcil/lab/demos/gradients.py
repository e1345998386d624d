"""Gradients and curvature of a batch's loss as a function of all prunable weights, flattened to one vector [P]."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.modules.batchnorm import _BatchNorm

from dcil.dual_path import DualPath
from dcil.errors import DcilError
from dcil.masks import compute_masks
from dcil.models import conv

Loss = Callable[[Tensor], Tensor]


def small_net(
    width: int = 8, num_classes: int = 10, activation: type[nn.Module] = nn.ReLU, norm: bool = False
) -> nn.Sequential:
    """Build four 3×3 convolutions and a linear head; [N, 3, H, W] -> logits [N, num_classes].

    `norm` adds a batch norm after each convolution. Without it, and with a smooth activation, a
    batch's loss is a twice differentiable function of the weights.
    """
    layers = [
        conv(3, width, 3, 2),
        conv(width, width, 3),
        conv(width, 2 * width, 3, 2),
        conv(2 * width, 2 * width, 3, 2),
    ]
    body: list[nn.Module] = []
    for layer in layers:
        body += [layer, *([nn.BatchNorm2d(layer.out_channels)] if norm else []), activation()]
    return nn.Sequential(*body, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(2 * width * 4, num_classes))


def require_kept(net: nn.Module, sparsity: float) -> None:
    """Raise `DcilError` if a sparsity leaves no weight of a network's convolutions, to be said before any training."""
    compute_masks(DualPath(net).weights, sparsity)


def flatten(tensors: Mapping[str, Tensor]) -> Tensor:
    """Return all entries of the tensors as one vector [P], in the mapping's order."""
    return torch.cat([t.detach().flatten() for t in tensors.values()])


class BatchLoss:
    """Mean cross-entropy of one batch as a function of the prunable weights, given as a vector [P].

    All other parameters stay as they are. Raises `DcilError` for a network with batch norm in
    training mode, whose running statistics every evaluation would change.
    """

    def __init__(self, dual: DualPath, images: Tensor, labels: Tensor):
        moving = [name for name, m in dual.net.named_modules() if isinstance(m, _BatchNorm) and m.training]
        if moving:
            raise DcilError(f"batch norms {moving} are in training mode; call eval() on the network first")
        self.net, self.images, self.labels = dual.net, images, labels
        self.shapes = {name: w.shape for name, w in dual.weights.items()}

    def __call__(self, weights: Tensor) -> Tensor:
        pieces = weights.split([shape.numel() for shape in self.shapes.values()])
        seen = {name: p.view(shape) for (name, shape), p in zip(self.shapes.items(), pieces, strict=True)}
        return F.cross_entropy(functional_call(self.net, seen, (self.images,)), self.labels)


def gradient(loss: Loss, at: Tensor) -> Tensor:
    """Return the gradient [P] of a loss at a point [P]."""
    at = at.detach().requires_grad_()
    return torch.autograd.grad(loss(at), at)[0]


@torch.no_grad()
def central_difference(loss: Loss, at: Tensor, index: int, step: float = 1e-5) -> float:
    """Return (L(w + h·e_i) − L(w − h·e_i)) / 2h, the slope along one coordinate, without autograd."""
    shift = torch.zeros_like(at)
    shift[index] = step
    return float(loss(at + shift) - loss(at - shift)) / (2 * step)


def received_gradient(dual: DualPath, images: Tensor, labels: Tensor, at: Tensor) -> Tensor:
    """Return the gradient [P] that the prunable weights receive from all passes' summed cross-entropy, at a point [P].

    It is computed under the passes' gradient rules, so it need not be the gradient of any function of the weights.
    """
    weights = dual.weights
    pieces = at.detach().split([w.numel() for w in weights.values()])
    placed: dict[str, Tensor] = {
        f"net.{name}": nn.Parameter(p.view_as(weights[name])) for name, p in zip(weights, pieces, strict=True)
    }
    loss = torch.stack([F.cross_entropy(output, labels) for output in functional_call(dual, placed, (images,))]).sum()
    return torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(placed.values()))])


def jacobian(field: Callable[[Tensor], Tensor], at: Tensor, step: float = 1e-5) -> Tensor:
    """Return the Jacobian [Q, P] of a vector field [P] -> [Q] at a point [P], by central differences.

    A second backward pass would not do: a stop-gradient hides that the stopped values depend on the weights.
    """
    shifts = step * torch.eye(len(at), dtype=at.dtype, device=at.device)
    return torch.stack([(field(at + shift) - field(at - shift)) / (2 * step) for shift in shifts], dim=1)


def largest_curvature(loss: Loss, at: Tensor, iterations: int = 20) -> float:
    """Return the largest absolute eigenvalue of the Hessian at a point, by Lanczos iteration.

    Each iteration is one Hessian-vector product. The value is the largest on the Krylov subspace that the products span
    (power iteration uses its last direction only), so it never exceeds the true one; with as many iterations as weights
    it is exact.
    """
    at = at.detach().requires_grad_()
    (slope,) = torch.autograd.grad(loss(at), at, create_graph=True)
    start = torch.randn(at.shape, generator=torch.Generator().manual_seed(0), dtype=at.dtype).to(at.device)
    basis, products = (start / start.norm())[None], []  # basis: orthonormal rows [k, P]
    for _ in range(min(iterations, len(at))):
        (product,) = torch.autograd.grad(slope, at, basis[-1], retain_graph=True)
        products.append(product)
        rest = product
        for _ in range(2):  # Gram-Schmidt twice: once is not enough in floating point
            rest = rest - basis.T @ (basis @ rest)
        if rest.norm() <= 1e-12 * product.norm():
            break
        basis = torch.cat([basis, (rest / rest.norm())[None]])
    small = basis[: len(products)] @ torch.stack(products).T  # the Hessian on that space [k, k]
    return float(torch.linalg.eigvalsh((small + small.T) / 2).abs().max())


def segment_curvature(loss: Loss, a: Tensor, b: Tensor, points: int = 5, iterations: int = 20) -> float:
    """Return the maximum of `largest_curvature` over equally spaced points of the segment from a to b, ends included.

    It estimates the Lipschitz constant of the gradient on that segment from below.
    """
    return max(largest_curvature(loss, a + t * (b - a), iterations) for t in torch.linspace(0, 1, points).tolist())


def mean_product(loss: Loss, a: Tensor, b: Tensor, nodes: int = 8) -> Tensor:
    """Return ∫₀¹ H(a + t(b − a))·(b − a) dt [P] by Gauss-Legendre quadrature; it equals ∇L(b) − ∇L(a)."""
    places, weights = np.polynomial.legendre.leggauss(nodes)
    total = torch.zeros_like(a)
    for t, weight in zip((places + 1) / 2, weights / 2, strict=True):
        at = (a + t * (b - a)).detach().requires_grad_()
        (slope,) = torch.autograd.grad(loss(at), at, create_graph=True)
        total += weight * torch.autograd.grad(slope, at, b - a)[0]
    return total


def cosine(a: Tensor, b: Tensor) -> float:
    """Return the cosine of the angle between two vectors."""
    return float(F.cosine_similarity(a, b, dim=0))


def relative_difference(a: Tensor, reference: Tensor) -> float:
    """Return ‖a − reference‖ / ‖reference‖."""
    return float((a - reference).norm() / reference.norm())
