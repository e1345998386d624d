"""Sparse convolutions that multiply by nonzero weights only: a CSR matrix times image patches as columns (im2col).

They use the two sparse kernels that every PyTorch user has at hand on a CPU: PyTorch's own and SciPy's.
"""

from __future__ import annotations

import copy
import warnings
from typing import Any

import torch
import torch.nn.functional as F
from scipy import sparse
from torch import Tensor, nn


class CsrConv(nn.Module):
    """A convolution [N, C, H, W] -> [N, O, H', W'] by a CSR matrix [O, C·k·k], of PyTorch or of SciPy."""

    def __init__(self, conv: nn.Conv2d, kernel: str):
        super().__init__()
        self.conv, self.kernel = conv, kernel
        matrix = conv.weight.detach().flatten(1)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # "in beta state"
            self.matrix: Any = matrix.to_sparse_csr() if kernel == "torch" else sparse.csr_matrix(matrix.numpy())

    def forward(self, x: Tensor) -> Tensor:
        conv, n = self.conv, len(x)
        assert isinstance(conv.padding, tuple)  # not "same"
        height, width = (
            (size + 2 * pad - k) // step + 1
            for size, pad, k, step in zip(x.shape[2:], conv.padding, conv.kernel_size, conv.stride, strict=True)
        )
        patches = F.unfold(x, conv.kernel_size, padding=conv.padding, stride=conv.stride)  # [N, C·k·k, H'·W']
        columns = patches.transpose(0, 1).reshape(patches.shape[1], -1)  # [C·k·k, N·H'·W']
        product = self.matrix @ (columns if self.kernel == "torch" else columns.numpy())
        return torch.as_tensor(product).view(-1, n, height, width).transpose(0, 1)


def with_csr(net: nn.Module, kernel: str) -> nn.Module:
    """Return a copy of a network whose convolutions are sparse; `kernel` is "torch" or "scipy"."""
    net = copy.deepcopy(net)
    for name, module in list(net.named_modules()):
        if isinstance(module, nn.Conv2d):
            parent, _, leaf = name.rpartition(".")
            setattr(net.get_submodule(parent), leaf, CsrConv(module, kernel))
    return net
