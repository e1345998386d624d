"""What a network costs: multiply-accumulates and nonzeros, at its real sparsity.

One MAC is one multiplication with its addition. A convolution's weight is used once for each
position of its output, so a pruned weight saves exactly that many MACs.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd

from dcil import methods
from dcil.config import LATER
from dcil.paths import DualPath


def passes_a_step(config: dict[str, Any]) -> float:
    """Return how many passes a step takes on average: the first always, further ones at every `dense_every`-th.

    >>> passes_a_step({"method": "ste"}), passes_a_step({"method": "dcil", "dense_every": 4})
    (1.0, 1.25)
    """
    more = len(methods.get(config["method"]).rules) - 1
    return 1 + more / (LATER | config)["dense_every"]


@torch.no_grad()
def layer_macs(net: nn.Module, image: Tensor) -> dict[str, tuple[int, int]]:
    """Return (dense MACs, MACs of nonzero weights) of every convolution and linear layer, for one image [1, ...].

    Norms, activations and biases are not counted, as is usual.

    >>> layer_macs(nn.Conv2d(3, 8, 3, padding=1), torch.zeros(1, 3, 32, 32))  # 216 weights, 32·32 positions
    {'': (221184, 221184)}
    """
    macs: dict[str, tuple[int, int]] = {}
    names = {module: name for name, module in net.named_modules()}

    def count(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        # A weight meets every output position; a transposed convolution's meets every input position.
        grid = inputs[0] if getattr(module, "transposed", False) else output
        channels_at = 1 if isinstance(module, _ConvNd) else grid.dim() - 1
        uses = grid.numel() // grid.shape[channels_at]
        weight, before = module.weight, macs.get(names[module], (0, 0))
        macs[names[module]] = (before[0] + uses * weight.numel(), before[1] + uses * int(weight.count_nonzero()))

    hooks = [m.register_forward_hook(count) for m in names if isinstance(m, (_ConvNd, nn.Linear))]
    training = net.training
    try:
        net.eval()(image)
    finally:
        net.train(training)
        for hook in hooks:
            hook.remove()
    return macs


def nonzeros(net: nn.Module) -> dict[str, int]:
    """Return the nonzero parameters a deployed network stores: convolutions, norms, linear layers, other.

    >>> nonzeros(nn.Sequential(nn.Conv2d(3, 8, 3, bias=False), nn.Flatten(), nn.Linear(8, 10, bias=False)))
    {'conv': 216, 'norm': 0, 'linear': 80, 'other': 0}
    """
    kinds = (("conv", _ConvNd), ("norm", (_BatchNorm, nn.GroupNorm, nn.LayerNorm)), ("linear", nn.Linear))
    counts = dict.fromkeys(("conv", "norm", "linear", "other"), 0)
    for module in net.modules():
        kind = next((name for name, types in kinds if isinstance(module, types)), "other")
        counts[kind] += sum(int(p.count_nonzero()) for p in module.parameters(recurse=False))
    return counts


def network_cost(dual: DualPath, image: Tensor) -> dict[str, Any]:
    """Return MACs per image and nonzeros of the exported first pass (one norm set, one head).

    `train_macs` is what one training image costs here: every pass runs dense kernels forward and,
    counted as twice a forward, backward.
    """
    plain = dual.export()
    macs = layer_macs(plain, image).values()
    dense = sum(m[0] for m in macs)
    return {
        "dense_macs": dense,
        "inference_macs": sum(m[1] for m in macs),
        "train_macs": 3 * len(dual.rules) * dense,
        "num_params": sum(p.numel() for p in plain.parameters()),
        "nonzeros": nonzeros(plain),
        "layer_sparsity": {name: round(1 - float(mask.float().mean()), 6) for name, mask in dual.masks.items()},
    }
