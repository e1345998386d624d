"""Keep the passes of one network apart: inputs, cached weights, recomputed forward passes, stored activations.

`torch.func.functional_call` swaps a pass's tensors into the network for one forward pass. State that outlives
that forward pass, or existed before it, would leak from one pass into another.
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Iterator, MutableMapping, MutableSequence
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from dcil.errors import DcilError

_THREADS: dict[int, int] = {}  # the thread that is running a pass, by id of the network


@contextmanager
def running(net: nn.Module) -> Iterator[None]:
    """Context of one pass: weights in the cache of `parametrize.cached()` belong to another pass and are set aside.

    Raises `DcilError` while another thread runs a pass of this network, for each would see the other's tensors.
    """
    thread = threading.get_ident()
    inside = _THREADS.get(id(net)) == thread
    if _THREADS.setdefault(id(net), thread) != thread:
        raise DcilError(
            f"two threads call the passes of one {type(net).__name__} at once, and each would see the other's weights. "
            "Give every thread a network of its own: dual.export() for a trained one, else copy.deepcopy(dual)"
        )
    cache, parametrize._cache = parametrize._cache, {}
    try:
        yield
    finally:
        parametrize._cache = cache
        if not inside:
            del _THREADS[id(net)]


def refuse_recomputation(module: nn.Module, args: tuple) -> None:
    """Forward pre-hook: refuse a layer that is recomputed during backward, outside a pass and without its tensors."""
    if torch.compiler.is_compiling() or torch._C._current_graph_task_id() == -1:
        return
    if threading.get_ident() in _THREADS.values():  # a whole pass is recomputed; GPUs have a backward thread
        return
    raise DcilError(
        f"a {type(module).__name__} of this network ran again during backward, by torch.utils.checkpoint or the like. "
        "There it would see the shared weights, not the pass's. Switch recomputation off in the network, e.g. "
        "memory_efficient=False or set_grad_checkpointing(False); to save memory, use torch.compile(dual), where it "
        "works, or recompute whole passes: "
        "torch.utils.checkpoint.checkpoint(dual.run_pass, index, images, use_reentrant=False)"
    )


def watch_recomputation(module: nn.Module) -> None:
    """Register `refuse_recomputation` on a module, once."""
    if refuse_recomputation not in module._forward_pre_hooks.values():
        module.register_forward_pre_hook(refuse_recomputation)


def unwatch(net: nn.Module) -> None:
    """Remove `refuse_recomputation` from all modules of a network."""
    for module in net.modules():
        for key in [k for k, hook in module._forward_pre_hooks.items() if hook is refuse_recomputation]:
            del module._forward_pre_hooks[key]


def own_copy(value: Any) -> Any:
    """Return a copy of a network's argument: its tensors and the containers that hold them are copied.

    Anything that is neither a tensor nor a mapping, sequence or set is passed on uncopied.
    """
    if isinstance(value, Tensor):
        return value.clone()
    if isinstance(value, tuple):
        items = [own_copy(item) for item in value]
        return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
    if type(value) is dict:
        return {key: own_copy(item) for key, item in value.items()}
    if not isinstance(value, (MutableMapping, MutableSequence, set)):
        return value
    copied: Any = copy.copy(value)
    if not isinstance(value, set):
        for key in value if isinstance(value, MutableMapping) else range(len(value)):
            copied[key] = own_copy(value[key])
    return copied


def copy_module(module: nn.Module, memo: dict[int, Any] | None = None) -> Any:
    """Return a deep copy of a module, with tensors that a forward pass left on it detached from their graph.

    `copy.deepcopy` refuses non-leaf tensors: activations stored on `self`, and the weights that
    hooks of `spectral_norm`, `weight_norm` and `torch.nn.utils.prune` compute.
    """
    memo = {} if memo is None else memo
    seen: set[int] = set()
    rest: list[Any] = [module]
    while rest:
        value = rest.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, Tensor):
            if not value.is_leaf:
                memo.setdefault(id(value), value.detach().clone())
        elif isinstance(value, MutableMapping):
            rest += value.values()
        elif isinstance(value, (MutableSequence, tuple, set, frozenset)):
            rest += value
        elif hasattr(value, "__dict__") and not isinstance(value, (type, ModuleType)):
            rest += vars(value).values()
    return copy.deepcopy(module, memo)
