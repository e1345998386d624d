"""Which weights of a network are pruned, which modules each pass has a copy of, and which names share a tensor."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm, _NormBase
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from dcil.errors import DcilError, unknown
from dcil.isolation import copy_module

#: A predicate `(name, module) -> bool`, or names and glob patterns.
Choice = Callable[[str, nn.Module], bool] | Iterable[str]


def is_conv_weight(name: str, owner: nn.Module) -> bool:
    """Return whether a parameter is a convolution's weight, including 1×1 and first layers: the authors' choice."""
    return name.rpartition(".")[2] == "weight" and isinstance(owner, _ConvNd)


def norms(net: nn.Module) -> list[str]:
    """Return the names of all batch norms, and of other norms with running statistics.

    With this list as `per_pass`, passes share the head.
    """

    def keeps(module: nn.Module) -> bool:
        return isinstance(module, _BatchNorm) or (isinstance(module, _NormBase) and module.track_running_stats)

    return [name for name, module in net.named_modules() if keeps(module)]


def head(net: nn.Module) -> list[str]:
    """Return a list with the name of the linear layer that is registered last, empty if there is none.

    With this list as `per_pass`, passes share the norms.
    """
    return [name for name, module in net.named_modules() if isinstance(module, nn.Linear)][-1:]


#: The modules that each pass has its own copy of, by the name in the field `own` of `dcil.methods.Method`.
OWN: dict[str, Callable[[nn.Module], list[str]]] = {
    "norms and head": lambda net: norms(net) + head(net),  # the authors' choice
    "norms": norms,
    "head": head,
    "nothing": lambda net: [],
}


def key(name: str) -> str:
    """Return a dotted name encoded as an attribute name, in which PyTorch forbids dots.

    `/` replaces each dot; `/` and `~` in the name itself are escaped as in a JSON pointer (RFC 6901).
    """
    return name.replace("~", "~0").replace("/", "~1").replace(".", "/")


def choose(what: str, choice: Choice, candidates: dict[str, nn.Module]) -> list[str]:
    """Return the candidate names that a predicate accepts, or that a list of names or globs matches.

    Raises `dcil.DcilError`, naming the nearest candidate, for a pattern that matches nothing, and for a class or a list
    of anything but names.
    """
    if callable(choice) and not isinstance(choice, (type, nn.Module)):
        return [name for name, module in candidates.items() if choice(name, module)]
    if isinstance(choice, (str, type, nn.Module)) or not isinstance(choice, Iterable):
        patterns: list[Any] = [choice]
    else:
        patterns = list(choice)
    for pattern in patterns:
        if not isinstance(pattern, str):
            given = pattern.__name__ if isinstance(pattern, type) else type(pattern).__name__
            raise DcilError(
                f"{given} is no name of a {what}; give names or globs, such as {next(iter(candidates), 'conv*')!r}, or "
                "a function of a name and its module, e.g. lambda name, module: isinstance(module, nn.Conv2d)"
            )
        if not any(fnmatchcase(name, pattern) for name in candidates):
            if f"{pattern}.weight" in candidates:
                raise DcilError(f"{pattern!r} is a module, not a {what}; did you mean {f'{pattern}.weight'!r}?")
            raise unknown(what, pattern, candidates)
    return [name for name in candidates if any(fnmatchcase(name, pattern) for pattern in patterns)]


def _advice(net: nn.Module, owners: dict[str, nn.Module]) -> str:
    """Return a hint for a network in which nothing is prunable, or "" if it has no matrix to name."""
    dense = {name for name, owner in owners.items() if isinstance(owner, nn.Embedding)}
    matrices = [name for name, p in net.named_parameters() if p.dim() >= 2 and name not in dense]
    own = OWN["norms and head"](net)
    inner = [name for name in matrices if name.rpartition(".")[0] not in own]
    if not matrices:
        return ""
    shared = "" if inner else ", per_pass=[]"  # the head has the only matrices
    return f" Name what to prune, e.g. DualPath(net, prunable={(inner or matrices)[:2]}{shared})"


def plan(net: nn.Module, prunable: Choice, per_pass: Choice | None) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the names of the pruned parameters and of the modules that each pass has its own copy of.

    `per_pass` None means norms and head. Raises `dcil.DcilError` if nothing is prunable, or if a weight would be both
    pruned and per-pass. Warns of convolutions that `is_conv_weight` leaves out because their weights are computed.
    """
    modules = dict(net.named_modules())
    owners = {name: modules[name.rpartition(".")[0]] for name, _ in net.named_parameters()}
    pruned = choose("parameter", prunable, owners)
    if not pruned:
        looked_at = ", ".join(f"{name} ({type(owners[name]).__name__})" for name in owners) or "no parameters"
        raise DcilError(
            f"nothing is prunable in this {type(net).__name__}: looked at {looked_at}.{_advice(net, owners)}"
        )
    if prunable is is_conv_weight:
        _warn_of_computed_weights(modules)
    own = OWN["norms and head"](net) if per_pass is None else choose("module", per_pass, modules)
    own = [name for name in own if not any(name.startswith(f"{outer}.") for outer in own)]  # each copied once
    private = {id(p) for name in own for p in modules[name].parameters()}
    clash = [name for name in pruned if id(net.get_parameter(name)) in private]  # tied weights too
    if "" in own or clash:
        raise DcilError(
            f"{clash or 'the whole network'} cannot be both shared and per-pass; "
            "leave it out of `prunable` or out of `per_pass`"
        )
    return tuple(pruned), tuple(own)


def _warn_of_computed_weights(modules: dict[str, nn.Module]) -> None:
    """Warn of convolutions whose weight is no parameter but computed from others, as by a parametrization."""
    computed = {n: m for n, m in modules.items() if isinstance(m, _ConvNd) and "weight" not in m._parameters}
    for name, module in computed.items():  # its weight is not asked for: a parametrization may count calls
        largest = max(module.named_parameters(prefix=name), key=lambda named: named[1].numel(), default=None)
        advice = f" To prune it too, list it as {largest[0]!r} in `prunable`, with all others." if largest else ""
        warnings.warn(
            f"the convolution {name!r} stays dense: its weight is computed from other parameters, by a parametrization "
            f"or a hook.{advice}",
            stacklevel=4,
        )


def state(net: nn.Module, own: Sequence[str]) -> tuple[str, ...]:
    """Return the names of the buffers that a forward pass may write, outside the modules `own`.

    Examples are the buffers of spectral norm, observers and custom norms. Constants are included, since nothing
    tells them apart. The statistics of a norm that `own` leaves out are excluded: leaving a norm out means that passes
    share them.
    """
    settled = {id(b) for name in [*own, *norms(net)] for b in net.get_submodule(name).buffers()}
    return tuple(name for name, buffer in net.named_buffers() if id(buffer) not in settled)


def copies(net: nn.Module, own: Sequence[str], fresh: bool) -> nn.ModuleDict:
    """Return copies of modules by `key` of their names, re-initialised if `fresh`; tied parameters stay tied."""
    memo: dict = {}
    copied = nn.ModuleDict()
    for name in own:  # bypasses add_module(), which refuses the names of ModuleDict's methods, such as "values"
        copied._modules[key(name)] = copy_module(net.get_submodule(name), memo)
        if fresh:
            reset(name, copied[key(name)])
    return copied


def state_copies(net: nn.Module, names: Sequence[str]) -> nn.Module:
    """Return a module that holds copies of buffers by `key` of their names."""
    holder, saved = nn.Module(), net.state_dict(keep_vars=True).keys()
    for name in names:
        holder.register_buffer(key(name), net.get_buffer(name).detach().clone(), persistent=name in saved)
    return holder


def differing(net: nn.Module, tensors: Sequence[str], own: Sequence[str]) -> list[nn.Module]:
    """Return the modules whose tensors differ between passes: those that hold `tensors`, and all within `own`."""
    holders = [net.get_submodule(name.rpartition(".")[0]) for name in tensors]
    return holders + [inner for name in own for inner in net.get_submodule(name).modules()]


@torch.no_grad()
def reset(name: str, copied: nn.Module) -> None:
    """Re-initialise the parameters of a copied module by the `reset_parameters()` of its layers.

    Raises `dcil.DcilError` for parameters that this leaves unchanged, unless all their values are equal, as in a norm.
    """
    before = {key: value.clone() for key, value in copied.named_parameters()}
    for part in reversed(list(copied.modules())):  # inner layers first: an outer one may override them
        way = getattr(part, "reset_parameters", None) or getattr(part, "_reset_parameters", None)  # attention
        if way:
            way()
    left = [
        key
        for key, value in copied.named_parameters()
        if key in before and value.equal(before[key]) and (value != value.flatten()[:1]).any()
    ]
    if left:
        raise DcilError(
            f"fresh=True cannot re-initialise {name}.{left[0]}: no reset_parameters() of this "
            f"{type(copied).__name__} does. Give the layer that holds it such a method, or leave out "
            "`fresh`: passes then start with equal copies"
        )


@contextmanager
def calls(net: nn.Module) -> Iterator[list[str]]:
    """Context that yields a list, in which the names of the linear layers are collected as they are called."""
    called: list[str] = []
    hooks = [
        module.register_forward_hook(lambda *_, name=name: called.append(name))
        for name, module in net.named_modules()
        if isinstance(module, nn.Linear)
    ]
    try:
        yield called
    finally:
        for hook in hooks:
            hook.remove()


def aliases(net: nn.Module) -> dict[str, list[str]]:
    """Return, for each tied parameter or buffer, the names under which other modules hold the same tensor.

    `functional_call` can tie weights itself (`tie_weights`), but it then leaves a module that is
    registered under two names without its parameters.
    """
    places: dict[int, list[str]] = {}
    for prefix, module in net.named_modules():  # each module once
        for name, tensor in (module._parameters | module._buffers).items():
            if tensor is not None:
                places.setdefault(id(tensor), []).append(f"{prefix}.{name}" if prefix else name)
    return {name: [n for n in names if n != name] for names in places.values() if len(names) > 1 for name in names}


def transposed(net: nn.Module) -> dict[str, int]:
    """Return the groups of each transposed convolution by its weight's name; its filters lie along dimension 1."""
    named = net.named_modules()
    return {f"{name}.weight".lstrip("."): m.groups for name, m in named if isinstance(m, _ConvTransposeNd)}
