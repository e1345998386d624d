"""Which parts of a network are pruned, which each pass has of its own, and which names are one tensor."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from fnmatch import fnmatchcase

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm, _NormBase
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from dcil.errors import DcilError, unknown
from dcil.isolation import copy_module

#: A predicate `(name, module) -> bool`, or names and glob patterns.
Choice = Callable[[str, nn.Module], bool] | Iterable[str]


def is_conv_weight(name: str, owner: nn.Module) -> bool:
    """Tell whether a parameter is a convolution's weight, 1×1 and first ones included: what the authors prune."""
    return name.rpartition(".")[2] == "weight" and isinstance(owner, _ConvNd)


def norms(net: nn.Module) -> list[str]:
    """Return the names of every batch norm, and of other norms with running statistics; the head is then shared."""

    def keeps(module: nn.Module) -> bool:
        return isinstance(module, _BatchNorm) or (isinstance(module, _NormBase) and module.track_running_stats)

    return [name for name, module in net.named_modules() if keeps(module)]


def head(net: nn.Module) -> list[str]:
    """Return the name of the linear layer that is registered last; the norms are then shared."""
    return [name for name, module in net.named_modules() if isinstance(module, nn.Linear)][-1:]


#: What each pass has of its own, by the name a method gives it.
OWN: dict[str, Callable[[nn.Module], list[str]]] = {
    "norms and head": lambda net: norms(net) + head(net),  # the authors
    "norms": norms,
    "head": head,
    "nothing": lambda net: [],
}


def key(name: str) -> str:
    """Return a dotted name as one attribute name: PyTorch forbids dots in them.

    `/` stands for a dot; names that have one themselves are written as in a JSON pointer (RFC 6901).
    """
    return name.replace("~", "~0").replace("/", "~1").replace(".", "/")


def choose(what: str, choice: Choice, candidates: dict[str, nn.Module]) -> list[str]:
    """Return the candidate names that a predicate accepts, or that a list of names or globs matches.

    Raises `dcil.DcilError`, naming the nearest candidate, for a pattern that matches nothing.
    """
    if callable(choice):
        return [name for name, module in candidates.items() if choice(name, module)]
    patterns = [choice] if isinstance(choice, str) else list(choice)
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in candidates):
            raise unknown(what, pattern, candidates)
    return [name for name in candidates if any(fnmatchcase(name, pattern) for pattern in patterns)]


def _advice(net: nn.Module, owners: dict[str, nn.Module]) -> str:
    """Return what to write instead for a network in which nothing is prunable, or nothing if it has no matrix."""
    dense = {name for name, owner in owners.items() if isinstance(owner, nn.Embedding)}
    matrices = [name for name, p in net.named_parameters() if p.dim() >= 2 and name not in dense]
    own = OWN["norms and head"](net)
    inner = [name for name in matrices if name.rpartition(".")[0] not in own]
    if not matrices:
        return ""
    shared = "" if inner else ", per_pass=[]"  # then the head is all that there is
    return f" Name what to prune, e.g. DualPath(net, prunable={(inner or matrices)[:2]}{shared})"


def plan(net: nn.Module, prunable: Choice, per_pass: Choice | None) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the names of what is pruned and of the modules that each pass has of its own, by default norms and head.

    Raises `dcil.DcilError` when nothing is prunable or when a weight would be both.
    """
    modules = dict(net.named_modules())
    owners = {name: modules[name.rpartition(".")[0]] for name, _ in net.named_parameters()}
    pruned = choose("parameter", prunable, owners)
    if not pruned:
        looked_at = ", ".join(f"{name} ({type(owners[name]).__name__})" for name in owners) or "no parameters"
        raise DcilError(
            f"nothing is prunable in this {type(net).__name__}: looked at {looked_at}.{_advice(net, owners)}"
        )
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


def state(net: nn.Module, own: Sequence[str]) -> tuple[str, ...]:
    """Return the names of the buffers that a forward may write, outside of the modules `own`.

    Those of spectral norm, observers and norms of one's own, for instance; constants too, which nothing tells from
    them. The statistics of a norm that a choice of modules leaves out are none of them: it says that passes share them.
    """
    settled = {id(b) for name in [*own, *norms(net)] for b in net.get_submodule(name).buffers()}
    return tuple(name for name, buffer in net.named_buffers() if id(buffer) not in settled)


def copies(net: nn.Module, own: Sequence[str], fresh: bool) -> nn.ModuleDict:
    """Return copies of modules by `key` of their names, drawn anew with `fresh`; ties between them hold."""
    memo: dict = {}
    copied = nn.ModuleDict()
    for name in own:  # past add_module(), which refuses the names of a ModuleDict's own methods, such as "values"
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
    """Return the modules that see other tensors in another pass: those that hold `tensors`, and all of `own`."""
    holders = [net.get_submodule(name.rpartition(".")[0]) for name in tensors]
    return holders + [inner for name in own for inner in net.get_submodule(name).modules()]


@torch.no_grad()
def reset(name: str, copied: nn.Module) -> None:
    """Draw the parameters of a copied module anew, by the way its own layers have for it.

    Raises `dcil.DcilError` for parameters that this leaves as they were; equal numbers, as a norm's, may stay.
    """
    before = {key: value.clone() for key, value in copied.named_parameters()}
    for part in reversed(list(copied.modules())):  # a layer may have more to say of the layers inside it
        way = getattr(part, "reset_parameters", None) or getattr(part, "_reset_parameters", None)  # attention's
        if way:
            way()
    left = [
        key
        for key, value in copied.named_parameters()
        if key in before and value.equal(before[key]) and (value != value.flatten()[:1]).any()
    ]
    if left:
        raise DcilError(
            f"fresh=True cannot draw {name}.{left[0]} anew: no reset_parameters() of this "
            f"{type(copied).__name__} does. Give the layer that holds it such a method, or leave out "
            "`fresh`: passes then begin with equal copies"
        )


@contextmanager
def calls(net: nn.Module) -> Iterator[list[str]]:
    """Note the names of the linear layers that are called, in order."""
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

    `functional_call` can do this itself (`tie_weights`), but then it leaves a module that is
    registered under two names without its parameters.
    """
    places: dict[int, list[str]] = {}
    for prefix, module in net.named_modules():  # each module once
        for name, tensor in (module._parameters | module._buffers).items():
            if tensor is not None:
                places.setdefault(id(tensor), []).append(f"{prefix}.{name}" if prefix else name)
    return {name: [n for n in names if n != name] for names in places.values() if len(names) > 1 for name in names}


def transposed(net: nn.Module) -> dict[str, int]:
    """Return the groups of each transposed convolution, by its weight's name: its filters lie along dimension 1."""
    named = net.named_modules()
    return {f"{name}.weight".lstrip("."): m.groups for name, m in named if isinstance(m, _ConvTransposeNd)}
