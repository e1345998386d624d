"""Any `nn.Module` as several passes over one set of weights.

A pass runs the user's network with its prunable weights replaced by what the pass's gradient rule
shows (`dcil.rules`), and with its own norm layers and classifier. The network itself is never
rewritten: each pass is one `torch.func.functional_call`, so modules used twice, tied weights and
control flow in `forward` all work, and DDP, `torch.compile`, pickle and deepcopy see one module.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.func import functional_call

from dcil import masks as mask_rules
from dcil.errors import DcilError, unknown
from dcil.parts import OWN, Choice, aliases, choose, is_conv_weight, transposed
from dcil.rules import RULES


def _key(name: str) -> str:
    """A dotted name as one attribute name (PyTorch forbids dots in them)."""
    return name.replace(".", "/")


class DualPath(nn.Module):
    """Run a network in several passes over shared weights; by default DCIL's sparse and dense pass.

    `rules` names a gradient rule for each pass (see `dcil.rules`); the first pass keeps the
    network's own norms and head, every further pass gets copies. `prunable` chooses parameters and
    `per_pass` modules: a predicate `(name, module) -> bool`, or names and glob patterns such as
    `["layer?.*.weight"]`; for a parameter the module is its owner. Frozen weights are masked like
    others and stay frozen. With `fresh=True` the copies are initialised anew, as the authors do
    when training from scratch; the default copies them, which suits a trained network.

    Calling it returns one output per pass, in the order of `rules`, of the shapes that the network returns.

    >>> import torch
    >>> from torch import nn
    >>> net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 6 * 6, 10))
    >>> dual = DualPath(net)
    >>> sparse_logits, dense_logits = dual(torch.zeros(2, 3, 8, 8))
    >>> sparse_logits.shape, dense_logits.shape
    (torch.Size([2, 10]), torch.Size([2, 10]))
    >>> dual.prunable
    ('0.weight',)

    Raises `dcil.DcilError` when nothing is prunable, when a name matches nothing, or when a weight is
    both prunable and per-pass. Source: DCIL (arXiv 2109.04660); the authors' code has a norm and a
    classifier for each pass.
    """

    def __init__(
        self,
        net: nn.Module,
        rules: tuple[str, ...] = ("kept", "refined"),
        prunable: Choice = is_conv_weight,
        per_pass: Choice | None = None,
        fresh: bool = False,
    ):
        super().__init__()
        for rule in rules:
            if rule not in RULES:
                raise unknown("gradient rule", rule, RULES)
        self.rules = tuple(rules)
        self.pass_names = tuple(RULES[rule].sees for rule in rules)
        if not rules or len(set(self.pass_names)) < len(rules):
            raise DcilError(f"rules {rules} give the passes {self.pass_names}; each pass must see another network")
        modules = dict(net.named_modules())
        owners = {name: modules[name.rpartition(".")[0]] for name, _ in net.named_parameters()}
        self.prunable = tuple(choose("parameter", prunable, owners))
        if not self.prunable:
            looked_at = ", ".join(f"{name} ({type(owners[name]).__name__})" for name in owners) or "no parameters"
            raise DcilError(f"nothing is prunable in this {type(net).__name__}: looked at {looked_at}. "
                            "Name what to prune, e.g. DualPath(net, prunable=['*.weight'])")  # fmt: skip
        own = OWN["norms and head"](net) if per_pass is None else choose("module", per_pass, modules)
        own = [name for name in own if not any(name.startswith(f"{outer}.") for outer in own)]  # each copied once
        private = {id(p) for name in own for p in modules[name].parameters()}
        clash = [name for name in self.prunable if id(net.get_parameter(name)) in private]  # tied weights too
        if "" in own or clash:
            raise DcilError(f"{clash or 'the whole network'} cannot be both shared and per-pass; "
                            "leave it out of `prunable` or out of `per_pass`")  # fmt: skip

        self.net = net
        self.aliases = aliases(net)
        self.own = nn.ModuleList()
        for _ in rules[1:]:
            memo: dict = {}  # one for all, so that ties between them hold in the copies
            copies = nn.ModuleDict({_key(name): copy.deepcopy(modules[name], memo) for name in own})
            if fresh:
                for part in (p for c in copies.values() for p in c.modules() if hasattr(p, "reset_parameters")):
                    part.reset_parameters()
            self.own.append(copies)
        self._masks = nn.Module()
        for name, weight in self.weights.items():
            self._masks.register_buffer(_key(name), torch.ones_like(weight, dtype=torch.bool))
        # Size of the largest pruned weight, for the rule that takes it; saved with the schedule position.
        self.register_buffer("threshold", torch.zeros(()), persistent=False)
        self.target_sparsity = 0.0  # what the masks were last set to; not measured
        self.refreshes = 0

    @property
    def weights(self) -> dict[str, nn.Parameter]:
        """The shared prunable weights by parameter name: the network's own parameters, no copies."""
        return {name: self.net.get_parameter(name) for name in self.prunable}

    @property
    def masks(self) -> dict[str, Tensor]:
        """The boolean masks by parameter name, each of its weight's shape, True = kept."""
        return {name: self._masks._buffers[_key(name)] for name in self.prunable}

    def tensors(self, index: int, rule: str | None = None) -> dict[str, Tensor]:
        """Return what pass `index` uses for the network's parameters and buffers, by name; `rule` replaces its rule."""
        chosen, masks = RULES[rule or self.rules[index]], self.masks
        more = (self.threshold,) if chosen.takes_threshold else ()
        seen = {name: chosen.apply(weight, masks[name], *more) for name, weight in self.weights.items()}
        if index > 0:
            for key, module in self.own[index - 1].items():
                prefix = key.replace("/", ".")
                seen.update((f"{prefix}.{name}", p) for name, p in module.named_parameters())
                seen.update((f"{prefix}.{name}", b) for name, b in module.named_buffers())
        tied = {alias: value for name, value in seen.items() for alias in self.aliases.get(name, ())}
        return tied | seen

    def forward(self, *args, passes: int | None = None, **kwargs) -> tuple:
        """Run every pass, or the first `passes`, on the same input; returns one output per pass.

        Arguments go to the network as they are. In training mode each pass updates its own norms.
        """
        return tuple(self.run_pass(index, *args, **kwargs) for index in range(len(self.rules))[:passes])

    def run_pass(self, index: int, *args, **kwargs) -> Tensor:
        """Run one pass; the passes need nothing of each other, so they may run side by side."""
        return self._run(self.tensors(index), args, kwargs)

    def gradients(self, loss_of: Callable[[Tensor], Tensor], *args, rule: str, index: int = 0) -> dict[str, Tensor]:
        """Return the gradient of a loss of the output that each prunable weight gets under a rule; changes nothing.

        `loss_of` takes the output to a scalar; the gradients have the weights' shapes, by parameter name. The
        norms and head are those of pass `index`, and running statistics stay as they are. Raises `dcil.DcilError`
        for a prunable weight that is frozen.

        >>> import torch
        >>> from torch import nn
        >>> dual = DualPath(nn.Conv2d(3, 8, 3))
        >>> changed = set_masks(dual, sparsity=0.9)
        >>> found = dual.gradients(lambda y: y.square().mean(), torch.ones(1, 3, 8, 8), rule="refined")
        >>> int(found["weight"][dual.masks["weight"]].count_nonzero())  # nothing reaches what is kept
        0
        """
        frozen = [name for name, weight in self.weights.items() if not weight.requires_grad]
        if frozen:
            raise DcilError(f"{frozen[0]} is prunable but frozen (requires_grad is False), so it has no gradient; "
                            "leave it out of `prunable`, or let it train")  # fmt: skip
        tensors = self.tensors(index, rule)
        # Running statistics are written in place: give this forward copies.
        kept = {name: b.clone() for name, b in self.net.named_buffers()}
        kept |= {name: t if t.requires_grad else t.clone() for name, t in tensors.items()}
        loss = loss_of(self._run(kept, args))
        return dict(zip(self.weights, torch.autograd.grad(loss, list(self.weights.values())), strict=True))

    def _run(self, tensors: dict[str, Tensor], args: tuple, kwargs: dict | None = None) -> Tensor:
        return functional_call(self.net, tensors, args, kwargs or {}, tie_weights=False)

    @torch.no_grad()
    def sparsity(self) -> float:
        """Return the measured fraction of prunable weights that the masks remove, in [0, 1); 0 before the first choice.

        >>> from torch import nn
        >>> DualPath(nn.Conv2d(3, 8, 3)).sparsity()
        0.0
        """
        masks = self.masks.values()
        return 1 - sum(int(m.sum()) for m in masks) / sum(m.numel() for m in masks)

    @torch.no_grad()
    def export(self, which: str | None = None) -> nn.Module:
        """Return a plain copy of the network as one pass sees it, masked weights as zeros.

        `which` is "sparse", "dense" or "pruned"; by default the first pass. The copy needs nothing
        of `dcil`, and its outputs equal that pass exactly. Raises `dcil.DcilError` for a pass that there is not.

        >>> from torch import nn
        >>> dual = DualPath(nn.Conv2d(3, 8, 3))
        >>> changed = set_masks(dual, sparsity=0.9)
        >>> int(dual.export().weight.count_nonzero())
        21
        """
        which = which or self.pass_names[0]
        if which not in self.pass_names:
            raise unknown("pass", which, self.pass_names)
        plain = copy.deepcopy(self.net)
        own = dict(plain.named_parameters(remove_duplicate=False)) | dict(plain.named_buffers(remove_duplicate=False))
        for name, value in self.tensors(self.pass_names.index(which)).items():
            own[name].copy_(value)
        return plain

    def get_extra_state(self) -> dict:
        """Return the schedule position, which `state_dict()` carries beside weights and masks."""
        return {"target_sparsity": self.target_sparsity, "refreshes": self.refreshes, "threshold": self.threshold}

    def set_extra_state(self, state: dict) -> None:
        self.target_sparsity, self.refreshes = state["target_sparsity"], state["refreshes"]
        if "threshold" in state:  # not in checkpoints from before ST-3
            self.threshold.copy_(state["threshold"])

    def extra_repr(self) -> str:
        count = sum(w.numel() for w in self.weights.values())
        return f"rules={self.rules}, {count} prunable weights in {len(self.prunable)} tensors"


def unwrap(model: nn.Module) -> DualPath:
    """Return the `DualPath` inside a DDP or `torch.compile` wrapper (or the model itself)."""
    while not isinstance(model, DualPath):
        inner = getattr(model, "_orig_mod", None) or getattr(model, "module", None)
        if inner is None:
            raise DcilError(f"expected a DualPath, got {type(model).__name__}; wrap the network: dcil.DualPath(net)")
        model = inner
    return model


@torch.no_grad()
def set_masks(model: nn.Module, sparsity: float, scope: str = "global", score: str = "l2") -> Tensor:
    """Choose the masks anew from the weights' scores, in place and on their device.

    `model` is a `dcil.DualPath` or a DDP or `torch.compile` wrapper of one; `sparsity` is the fraction to
    remove, in [0, 1). Returns how many weights changed sides (0-d tensor, not synchronised). See
    `dcil.masks.compute_masks` for `scope`, `score` and the errors. Call it between two steps, not in one.
    Source: the authors' code, every 16 steps.

    >>> from torch import nn
    >>> dual = DualPath(nn.Conv2d(3, 8, 3))
    >>> set_masks(dual, sparsity=0.9).item()  # of 216 weights, 216·0.9 and one more
    195
    >>> round(dual.sparsity(), 4)
    0.9028
    """
    dual = unwrap(model)
    masks = mask_rules.compute_masks(dual.weights, sparsity, scope, score, transposed(dual.net))
    return put_masks(dual, masks, sparsity)


@torch.no_grad()
def put_masks(dual: DualPath, masks: dict[str, Tensor], sparsity: float) -> Tensor:
    """Give a network new masks, in place; returns how many weights changed sides (0-d tensor)."""
    before = dual.masks
    changed = mask_rules.flips(before, masks)
    for name, mask in masks.items():
        before[name].copy_(mask)
    if any(RULES[rule].takes_threshold for rule in dual.rules):
        pruned = [(w.detach().abs() * before[name].logical_not()).max() for name, w in dual.weights.items()]
        dual.threshold.copy_(torch.stack(pruned).max())
    dual.target_sparsity, dual.refreshes = float(sparsity), dual.refreshes + 1
    return changed
