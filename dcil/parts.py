"""Which parts of a network are pruned, which each pass has of its own, and which names are one tensor."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from fnmatch import fnmatchcase

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from dcil.errors import unknown

#: A predicate `(name, module) -> bool`, or names and glob patterns.
Choice = Callable[[str, nn.Module], bool] | Iterable[str]


def is_conv_weight(name: str, owner: nn.Module) -> bool:
    """Tell whether a parameter is a convolution's weight, 1×1 and first ones included: what the authors prune."""
    return name.rpartition(".")[2] == "weight" and isinstance(owner, _ConvNd)


def norms(net: nn.Module) -> list[str]:
    """Return the names of every batch norm; the head is then shared."""
    return [name for name, module in net.named_modules() if isinstance(module, _BatchNorm)]


def head(net: nn.Module) -> list[str]:
    """Return the name of the last linear layer; the norms are then shared."""
    return [name for name, module in net.named_modules() if isinstance(module, nn.Linear)][-1:]


#: What each pass has of its own, by the name a method gives it.
OWN: dict[str, Callable[[nn.Module], list[str]]] = {
    "norms and head": lambda net: norms(net) + head(net),  # the authors
    "norms": norms,
    "head": head,
    "nothing": lambda net: [],
}


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
