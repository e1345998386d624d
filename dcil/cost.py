"""What a network costs: multiply-accumulates (MACs) and nonzeros, at its actual sparsity.

One MAC is one multiplication with its addition. A convolution's weight is used once per
output position, so a pruned weight saves exactly that many MACs.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd

from dcil import methods
from dcil.config import RunConfig
from dcil.dual_path import DualPath


def passes_a_step(config: RunConfig) -> float:
    """Return the mean number of passes per step: the first runs at every step, others at every `dense_every`-th.

    >>> passes_a_step(RunConfig(method="ste")), passes_a_step(RunConfig(method="dcil", dense_every=4))
    (1.0, 1.25)
    """
    more = len(methods.get(config.method).rules) - 1
    return 1 + more / config.dense_every


@torch.no_grad()
def layer_macs(net: nn.Module, image: Tensor) -> dict[str, tuple[int, int]]:
    """Return (dense MACs, MACs of nonzero weights) of every convolution and linear layer, for one image [1, ...].

    Multi-head attention counts with its four projections, under its own name. As usual, norms, activations and biases
    are not counted, nor products without a weight, such as attention's of queries and keys.
    The network runs once, in eval mode, and is left unchanged.

    >>> layer_macs(nn.Conv2d(3, 8, 3, padding=1), torch.zeros(1, 3, 32, 32))  # 216 weights, 32·32 positions
    {'': (221184, 221184)}
    """
    macs: dict[str, tuple[int, int]] = {}
    names = {module: name for name, module in net.named_modules()}

    def add(module: nn.Module, weight: Tensor, grid: Tensor, channels_at: int) -> None:
        uses, before = grid.numel() // grid.shape[channels_at], macs.get(names[module], (0, 0))
        macs[names[module]] = (before[0] + uses * weight.numel(), before[1] + uses * int(weight.count_nonzero()))

    def count(module: Any, inputs: tuple[Tensor, ...], named: dict[str, Tensor], output: Tensor) -> None:
        # A weight is used at every output position; in a transposed convolution, at every input position.
        grid = _given(inputs, named, "input")[0] if getattr(module, "transposed", False) else output
        add(module, module.weight, grid, grid.dim() - module.weight.dim() + 1)

    def count_attention(module: nn.MultiheadAttention, inputs: tuple[Tensor, ...], named: dict[str, Tensor], output):
        query, key, value = _given(inputs, named, "query", "key", "value")
        joint = module.in_proj_weight
        separate = (module.q_proj_weight, module.k_proj_weight, module.v_proj_weight)
        weights = (*(separate if joint is None else joint.chunk(3)), module.out_proj.weight)
        for weight, grid in zip(weights, (query, key, value, query), strict=True):
            add(module, weight, grid, -1)

    # Attention uses its output layer's weight without calling that layer, so the layer's hook does not count it again.
    hooks = [m.register_forward_hook(count, with_kwargs=True) for m in names if isinstance(m, (_ConvNd, nn.Linear))]
    hooks += [
        m.register_forward_hook(count_attention, with_kwargs=True)
        for m in names
        if isinstance(m, nn.MultiheadAttention)
    ]
    modes = {module: module.training for module in names}  # a frozen norm's mode may differ from its network's
    buffers = {name: buffer.clone() for name, buffer in net.named_buffers(remove_duplicate=False)}
    try:
        functional_call(net.eval(), buffers, (image,), tie_weights=False)
    finally:
        for module, training in modes.items():
            module.training = training
        for hook in hooks:
            hook.remove()
    return macs


def _given(inputs: tuple[Tensor, ...], named: dict[str, Tensor], *parameters: str) -> list[Tensor]:
    """Return a call's arguments for these parameters, whether passed by position or by name."""
    return [inputs[i] if i < len(inputs) else named[name] for i, name in enumerate(parameters)]


def nonzeros(net: nn.Module) -> dict[str, int]:
    """Return the number of nonzero parameters in convolutions, norms, linear layers and others of a deployed network.

    Attention's projections count as linear layers. A tied parameter is stored once and counts where it first occurs.

    >>> nonzeros(nn.Sequential(nn.Conv2d(3, 8, 3, bias=False), nn.Flatten(), nn.Linear(8, 10, bias=False)))
    {'conv': 216, 'norm': 0, 'linear': 80, 'other': 0}
    """
    kinds: dict[str, Any] = {
        "conv": _ConvNd,
        "norm": (_NormBase, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm),
        "linear": (nn.Linear, nn.MultiheadAttention),
    }
    counts = dict.fromkeys((*kinds, "other"), 0)
    modules = dict(net.named_modules())
    for name, parameter in net.named_parameters():
        owner = modules[name.rpartition(".")[0]]
        kind = next((kind for kind, types in kinds.items() if isinstance(owner, types)), "other")
        counts[kind] += int(parameter.count_nonzero())
    return counts


def network_cost(dual: DualPath, image: Tensor) -> dict[str, Any]:
    """Return MACs per image and nonzeros of the exported first pass (one norm set, one head).

    `train_macs` is for one training image: every pass runs dense kernels in its forward pass and in its backward pass,
    which counts as two forward passes.
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
