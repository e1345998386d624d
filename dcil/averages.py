"""Masks under weight averaging (SWA, EMA): the newest mask is kept, never an average of masks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, SupportsIndex

import torch
from torch import Tensor


def _first(old: Any, *rest: Any) -> Any:
    return old


def _scaled(old: Tensor, by: Any) -> Tensor:
    is_whole = isinstance(by, Tensor) and by.dim() > 0  # e.g. a product with weights, which is not an average
    return old.as_subclass(Tensor) * by if is_whole else old


def _second(old: Any, new: Any, *rest: Any) -> Any:
    return new


def _copy(olds: list[Tensor], news: list[Tensor], *rest: Any) -> None:
    for old, new in zip(olds, news, strict=True):
        old.copy_(new)


# The operations of an average: decay·old + (1 − decay)·new, or old + (new − old)/n.
_NEWEST: dict[Any, Callable[..., Any]] = {
    Tensor.mul: _scaled,
    Tensor.div: _first,
    Tensor.sub: _first,
    Tensor.add: _second,
    torch._foreach_sub: _first,
    torch._foreach_add_: _copy,
    torch._foreach_addcdiv_: _copy,
}


class Mask(Tensor):
    """A mask as `DualPath.buffers()` yields it: the average of two masks is the newer one.

    `torch.optim.swa_utils.AveragedModel` averages every buffer. For boolean masks the result would be the union of all
    masks so far, or an error. In every other operation it behaves like the plain tensor whose memory it shares.
    Averaging a wrapper of the `DualPath` does not call its `buffers()`, and so sees the plain masks.
    """

    @classmethod
    @torch._disable_dynamo  # it would recurse without end when it traces DDP's broadcast of the buffers
    def __torch_function__(cls, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        average = _NEWEST.get(func)
        if average and (isinstance(args[0], (list, cls)) or func is Tensor.sub):  # new − old: new may be plain
            return average(*args)
        with torch._C.DisableTorchFunctionSubclass():
            result = func(*args, **kwargs or {})
        return result.as_subclass(cls) if func in (Tensor.detach, Tensor.to) else result

    def __deepcopy__(self, memo: dict[int, Any]) -> Tensor:
        return memo.setdefault(id(self), self.as_subclass(Tensor).clone())

    def __reduce_ex__(self, protocol: SupportsIndex) -> Any:
        return self.as_subclass(Tensor).__reduce_ex__(protocol)
