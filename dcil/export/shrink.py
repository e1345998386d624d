"""Remove pruned filters from a network instead of masking them: fewer channels, the same outputs.

The channel of an all-zero filter is not zero: the following norm turns it into a constant, which must be kept.
Where only convolutions read the channel, all removed channels are merged into one channel of ones, to which each
reader gives the sum of their contributions as weight; zero padding stays exact that way, at any image size.
Elsewhere (a residual sum) the constant is put back in its place after the smaller convolution.
"""

from __future__ import annotations

import copy
import operator
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from dcil.errors import DcilError

RELUS: tuple[Callable, ...] = (F.relu, torch.relu, torch.relu_)


@dataclass(frozen=True)
class Kept:
    """What remains of a convolution: the indices of its kept filters, and whether a channel of ones follows them."""

    filters: tuple[int, ...]
    ones: bool = False


class Spread(nn.Module):
    """Scatter channels [N, k, H, W] into [N, total, H, W]; every other channel has a constant value."""

    places: Tensor
    constants: Tensor

    def __init__(self, filters: tuple[int, ...], constants: Tensor):
        super().__init__()
        places = torch.full((len(constants),), len(filters), device=constants.device)  # the zero channel of `forward`
        places[list(filters)] = torch.arange(len(filters), device=constants.device)
        self.register_buffer("places", places)
        self.register_buffer("constants", constants.view(1, -1, 1, 1).clone())

    def forward(self, x: Tensor) -> Tensor:
        return F.pad(x, (0, 0, 0, 0, 0, 1)).index_select(1, self.places) + self.constants


@dataclass(frozen=True)
class _Chain:
    """A convolution and the norm right after it, by name, whether a ReLU follows, and the node that others read."""

    conv: str
    norm: str | None
    relu: bool
    tail: fx.Node

    @property
    def readers(self) -> list[fx.Node]:
        return list(self.tail.users)


def _only_user(node: fx.Node) -> fx.Node | None:
    return next(iter(node.users)) if len(node.users) == 1 else None


def _is_plain(norm: nn.BatchNorm2d) -> bool:
    return norm.affine and norm.track_running_stats


def _is_bare(module: nn.Module, kind: type[nn.Module]) -> bool:
    """Return whether a module is exactly of this class and has no hooks, which could do anything to its channels."""
    hooks = module._forward_hooks or module._forward_pre_hooks
    return type(module) is kind and not hooks and "forward" not in vars(module)  # parametrized ones are of another type


def _chains(traced: fx.GraphModule) -> dict[str, _Chain]:
    """Return the chain of each plain convolution that is called once, by module name.

    A layer with hooks, parametrizations or a replaced `forward` is in no chain, so it stays unchanged.
    """
    modules: dict[Any, Any] = dict(traced.named_modules())
    calls = Counter(node.target for node in traced.graph.nodes if node.op == "call_module")

    def is_a(node: fx.Node, kind: type[nn.Module], often: bool = False) -> bool:
        return node.op == "call_module" and _is_bare(modules[node.target], kind) and (often or calls[node.target] == 1)

    chains: dict[str, _Chain] = {}
    for node in traced.graph.nodes:
        if not is_a(node, nn.Conv2d) or modules[node.target].groups > 1:
            continue
        norm, tail, after = None, node, _only_user(node)
        if after and is_a(after, nn.BatchNorm2d) and _is_plain(modules[after.target]):
            norm, tail = str(after.target), after
        after = _only_user(tail)
        if after and (is_a(after, nn.ReLU, often=True) or after.target in RELUS):
            chains[node.target] = _Chain(node.target, norm, True, after)
        else:
            chains[node.target] = _Chain(node.target, norm, False, tail)
    return chains


def _is_inner(chain: _Chain, chains: Mapping[str, _Chain]) -> bool:
    """Return whether the chain's output is read only by convolutions that can be rewritten."""
    return bool(chain.readers) and all(reader.target in chains for reader in chain.readers)


def _constants(chain: _Chain, modules: Mapping[str, Any]) -> Tensor:
    """Return the constant value of each channel of a chain, were its filter all zeros [O]."""
    conv = modules[chain.conv]
    value = conv.weight.new_zeros(conv.out_channels) if conv.bias is None else conv.bias.clone()
    if chain.norm is not None:
        value = modules[chain.norm](value.view(1, -1, 1, 1)).view(-1)
    return value.relu() if chain.relu else value


def _empty(conv: nn.Conv2d) -> Tensor:
    """Return which filters are all zeros, boolean [O]; if all are, the first one counts as kept."""
    empty = (conv.weight == 0).flatten(1).all(1)
    empty[0] &= not empty.all()
    return empty


def _smaller(chain: _Chain, modules: Mapping[str, Any], kept: Kept) -> dict[str, nn.Module]:
    """Return a chain's convolution and norm reduced to the kept filters, with the channel of ones after them if any."""
    conv, rows = modules[chain.conv], list(kept.filters)
    more = int(kept.ones)
    new = nn.Conv2d(
        conv.in_channels,
        len(rows) + more,
        conv.kernel_size,
        conv.stride,
        conv.padding,
        conv.dilation,
        bias=conv.bias is not None or (kept.ones and chain.norm is None),
        padding_mode=conv.padding_mode,
        device=conv.weight.device,
        dtype=conv.weight.dtype,
    )
    new.weight.zero_()
    new.weight[: len(rows)] = conv.weight[rows]
    if new.bias is not None:
        new.bias.fill_(0 if chain.norm else 1)
        new.bias[: len(rows)] = 0 if conv.bias is None else conv.bias[rows]
    made: dict[str, nn.Module] = {chain.conv: new}
    if chain.norm is not None:
        norm = modules[chain.norm]
        like = {"device": conv.weight.device, "dtype": conv.weight.dtype}
        small = nn.BatchNorm2d(len(rows) + more, norm.eps, norm.momentum, **like).eval()
        ones = {"weight": 0.0, "bias": 1.0, "running_mean": 0.0, "running_var": 1.0}
        for name, value in ones.items():
            getattr(small, name).fill_(value)
            getattr(small, name)[: len(rows)] = getattr(norm, name)[rows]
        made[chain.norm] = small
    return made


@torch.no_grad()
def shrink(net: nn.Module, plan: Mapping[str, Kept] | None = None) -> tuple[nn.Module, dict[str, Kept]]:
    """Return a smaller network for inference whose outputs equal those of `net` in eval mode, and the kept filters.

    Removes every all-zero filter, except where its layer or that layer's norm or reader has a hook or a
    parametrization, or is a grouped convolution, such as a depthwise one. With `plan`, returned by an earlier call, the
    network is cut to that shape instead, whatever its weights: it can then load the smaller network's state dict.
    Raises `DcilError` for a network that `torch.fx` cannot trace, or with hooks of its own.
    Source: none; exact removal of channels, norms included, is derived here.
    """
    if net._forward_hooks or net._forward_pre_hooks or "forward" in vars(net):
        raise DcilError(
            f"this {type(net).__name__} has a forward hook, or its `forward` was replaced, which a smaller "
            "copy would lose; remove it (hook.remove()), or put the network into an nn.Sequential"
        )
    net = copy.deepcopy(net).eval()
    try:
        traced = fx.symbolic_trace(net)
    except (fx.proxy.TraceError, TypeError, NameError, NotImplementedError, RuntimeError) as error:
        raise DcilError(
            f"this {type(net).__name__} cannot be traced, which shrinking needs ({error}); its forward "
            "must not depend on values. Export it to another format"
        ) from error
    chains = _chains(traced)
    done: dict[str, Kept] = {}
    for name, chain in chains.items():
        modules: dict[Any, Any] = dict(traced.named_modules())  # anew: earlier iterations rewrote readers
        conv = modules[name]
        inner, constants = _is_inner(chain, chains), _constants(chain, modules)
        if plan is None:
            empty = _empty(conv)
            kept = Kept(tuple((~empty).nonzero().flatten().tolist()), inner and bool(constants[empty].any()))
        else:
            kept = plan.get(name, Kept(tuple(range(conv.out_channels))))
        gone = sorted(set(range(conv.out_channels)) - set(kept.filters))
        if not gone:
            continue
        done[name] = kept
        if inner:
            for reader in (modules[node.target] for node in chain.readers):
                extra = torch.einsum("oihw,i->ohw", reader.weight[:, gone], constants[gone])[:, None]
                left = reader.weight[:, list(kept.filters)]
                reader.weight = nn.Parameter(torch.cat((left, extra), 1) if kept.ones else left)
                reader.in_channels = reader.weight.shape[1]
        else:
            constants[list(kept.filters)] = 0
            spread = f"{name.replace('.', '_')}_spread"
            traced.add_submodule(spread, Spread(kept.filters, constants))
            with traced.graph.inserting_after(chain.tail):
                node = traced.graph.call_module(spread, (chain.tail,))
            chain.tail.replace_all_uses_with(node, delete_user_cb=partial(operator.is_not, node))
        for target, module in _smaller(chain, modules, kept).items():
            parent, _, leaf = target.rpartition(".")
            setattr(traced.get_submodule(parent), leaf, module)
    traced.recompile()
    return traced, done
