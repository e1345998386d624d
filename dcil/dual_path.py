"""Any `nn.Module` as several passes over one set of weights.

A pass runs the user's network with its prunable weights replaced by what the pass's gradient rule
yields (`dcil.rules`), and with its own norm layers and classifier. The network itself is never
modified: each pass is one `torch.func.functional_call`, so modules used twice, tied weights and
control flow in `forward` all work, and DDP, `torch.compile`, pickle and deepcopy see one module.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from dcil import masks as mask_rules
from dcil import parts
from dcil.averages import Mask
from dcil.errors import DcilError, unknown
from dcil.isolation import copy_module, own_copy, running, unwatch, watch_recomputation
from dcil.parts import Choice, is_conv_weight, key
from dcil.rules import RULES, Rule, are_soft


class DualPath(nn.Module):
    """Run a network in several passes over shared weights; by default DCIL's sparse and dense pass.

    `rules` names a gradient rule for each pass (see `dcil.rules`); the first pass uses the
    network's own norms and head, every further pass gets copies. `prunable` selects parameters and
    `per_pass` modules: a predicate `(name, module) -> bool`, or names and glob patterns such as
    `["layer?.*.weight"]`; for a parameter the predicate gets the module that owns it. Frozen weights are masked like
    others and stay frozen. With `fresh=True` the copies are reinitialised, as the authors do
    when training from scratch; by default they keep the copied values, which suits a trained network.

    Each pass has its own copy of the buffers that `forward` may write (except those of norms that `per_pass` leaves
    shared) and of the input.
    Wrap the network first, then build the optimizer over `dual.parameters()`: an optimizer built earlier never trains
    the norms and heads of further passes. Load a checkpoint into the network before wrapping it, or into the whole
    `DualPath`: weights loaded into `dual.net` later do not reach the further passes' copies.

    Calling it returns one output per pass, in the order of `rules`, each of the network's usual shape.

    >>> import torch
    >>> from torch import nn
    >>> net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 6 * 6, 10))
    >>> dual = DualPath(net)
    >>> sparse_logits, dense_logits = dual(torch.zeros(2, 3, 8, 8))
    >>> sparse_logits.shape, dense_logits.shape
    (torch.Size([2, 10]), torch.Size([2, 10]))
    >>> dual.prunable
    ('0.weight',)

    Raises `dcil.DcilError` when nothing is prunable, when a name matches nothing, when a weight is both prunable
    and per-pass, when `fresh` cannot reinitialise a copy, for a network with a `DualPath`, a `DistributedDataParallel`
    or an uncalled lazy layer in it or whose `forward` has an argument `passes`, and at the first call when the linear
    layer registered last is not the one called last, or when the network has made a buffer since it was wrapped.
    Source: DCIL (arXiv 2109.04660); the authors' code has norms and a classifier for each pass.
    """

    threshold: Tensor

    def __init__(
        self,
        net: nn.Module,
        rules: str | Sequence[str] = ("kept", "refined"),
        prunable: Choice = is_conv_weight,
        per_pass: Choice | None = None,
        fresh: bool = False,
    ):
        super().__init__()
        if not isinstance(net, nn.Module):
            given = f"the class {net.__name__}" if isinstance(net, type) else f"a {type(net).__name__}"
            raise DcilError(f"net is {given}; it must be a network, an nn.Module, as in DualPath(Net())")
        self.rules = (rules,) if isinstance(rules, str) else tuple(rules)
        self.pass_names = tuple(_rule(name).sees for name in self.rules)
        if not self.rules or len(set(self.pass_names)) < len(self.rules):
            raise DcilError(
                f"rules {self.rules} give the passes {self.pass_names}; each pass must see a different network"
            )
        if any(isinstance(module, DualPath) for module in net.modules()):
            raise DcilError(f"this {type(net).__name__} is or holds a DualPath already; wrap the plain network, once")
        if any(isinstance(module, nn.parallel.DistributedDataParallel) for module in net.modules()):
            raise DcilError(
                f"this {type(net).__name__} is or holds a DistributedDataParallel, which would leave the norms and "
                "heads of further passes different on every rank; wrap the other way round: "
                "DistributedDataParallel(DualPath(net))"
            )
        if any(map(nn.parameter.is_lazy, [*net.parameters(), *net.buffers()])):
            raise DcilError(
                f"this {type(net).__name__} has lazy layers, whose weights have no shape until its first call; call it "
                "on one batch, without gradients, then wrap it"
            )
        if "passes" in inspect.signature(net.forward).parameters:
            raise DcilError(
                f"{type(net).__name__}.forward has an argument 'passes', which a DualPath uses for the "
                "number of passes to run; give it another name"
            )
        self.prunable, self.own_names = parts.plan(net, prunable, per_pass)
        self.state_names = parts.state(net, self.own_names)
        guessed = per_pass is None and len(self.rules) > 1
        self._guessed_head = next(iter(parts.head(net)), None) if guessed else None
        self._known_buffers = frozenset(name for name, _ in net.named_buffers())
        self._is_checked = False  # whether a first call has shown that its passes can be kept apart

        self.net = net
        self.aliases = parts.aliases(net)
        self.transposed = parts.transposed(net)
        self.own = nn.ModuleList(parts.copies(net, self.own_names, fresh) for _ in self.rules[1:])
        self.state = nn.ModuleList(parts.state_copies(net, self.state_names) for _ in self.rules[1:])
        self._masks = nn.Module()
        for name, weight in self.weights.items():
            self._masks.register_buffer(key(name), torch.ones_like(weight, dtype=torch.bool))
        for module in parts.differing(net, (*self.prunable, *self.state_names), self.own_names):
            watch_recomputation(module)
        self.register_load_state_dict_pre_hook(_from_before_state)
        # Magnitude of the largest pruned weight, for rules with a soft threshold; saved in the extra state.
        self.register_buffer("threshold", torch.zeros(()), persistent=False)
        self.target_sparsity = 0.0  # of the last mask refresh; not measured
        self.refreshes = 0

    @property
    def weights(self) -> dict[str, nn.Parameter]:
        """The shared prunable weights by parameter name: the network's own parameters, not copies."""
        found: dict[str, Any] = {}
        for name in self.prunable:
            owner, _, leaf = name.rpartition(".")  # get_parameter() refuses functional_call's tensors
            table = self.net.get_submodule(owner)._parameters
            if leaf not in table:  # since parametrised, or pruned with torch.nn.utils.prune
                raise DcilError(
                    f"{name} is no longer a parameter of this {type(self.net).__name__}, as it was when the DualPath "
                    "was made; change the network first (parametrizations, torch.nn.utils.prune), then wrap it"
                )
            found[name] = table[leaf]
        return found

    @property
    def masks(self) -> dict[str, Tensor]:
        """The boolean masks by parameter name, each of the shape of its weight, True = kept."""
        masks: dict[str, Any] = {name: self._masks._buffers[key(name)] for name in self.prunable}
        return {name: m.as_subclass(Tensor) if isinstance(m, Mask) else m for name, m in masks.items()}

    def named_buffers(self, *args, **kwargs) -> Iterator[tuple[str, Tensor]]:
        """Yield names and buffers, masks as `Mask`, so that weight averages keep the newest (`dcil.averages`)."""
        masks = {id(mask) for mask in self._masks._buffers.values()}
        for name, buffer in super().named_buffers(*args, **kwargs):
            yield name, buffer.as_subclass(Mask) if id(buffer) in masks else buffer

    def _tables(self, index: int) -> Iterator[tuple[str, dict[str, Any], str]]:
        """Yield (name in the network, table, key in the table) of every tensor that belongs to a further pass alone."""
        own: Any = self.own[index - 1]
        for name in self.own_names:
            for prefix, module in own[key(name)].named_modules(prefix=name):
                tables: tuple[dict[str, Any], ...] = (module._parameters, module._buffers)
                for table in tables:
                    yield from ((f"{prefix}.{leaf}", table, leaf) for leaf in table if table[leaf] is not None)
        table = self.state[index - 1]._buffers
        yield from ((name, table, key(name)) for name in self.state_names)

    def tensors(self, index: int, rule: str | None = None) -> dict[str, Tensor]:
        """Return the tensors that pass `index` substitutes, by parameter or buffer name; `rule` overrides its rule.

        Raises `dcil.DcilError` for an index without a pass, and for an unknown rule.
        """
        if not 0 <= index < len(self.rules):
            raise DcilError(
                f"index is {index}; the passes {self.pass_names} have the indices 0 to {len(self.rules) - 1}"
            )
        seen = self._seen(_rule(rule or self.rules[index]))
        if index > 0:
            seen.update((name, table[leaf]) for name, table, leaf in self._tables(index))
        tied = {alias: value for name, value in seen.items() for alias in self.aliases.get(name, ())}
        return tied | seen

    def _seen(self, rule: Rule) -> dict[str, Tensor]:
        """Return the prunable weights as a rule's forward pass sees them, by name."""
        weights: dict[str, Any] = self.weights
        masks = self.masks
        if not rule.takes_threshold:
            return {name: rule.apply(weight, masks[name]) for name, weight in weights.items()}
        # A soft threshold rescales each filter.
        weights, masks = (mask_rules.filters_first(of, self.transposed) for of in (weights, masks))
        seen = {name: rule.apply(weight, masks[name], self.threshold) for name, weight in weights.items()}
        return mask_rules.filters_first(seen, self.transposed)

    def forward(self, /, *args, passes: int | None = None, **kwargs) -> tuple:
        """Run every pass, or the first `passes`, on the same input; returns one output per pass.

        Arguments are passed on to the network; all passes but the last get copies, so that no pass sees
        what another wrote into them. In training mode each pass updates the running statistics of its own norms.
        """
        if passes is not None and passes < 1:
            raise DcilError(f"passes is {passes}; it is how many passes run, at least 1")
        *first, last = range(len(self.rules))[:passes]
        outputs = [self.run_pass(index, *own_copy(args), **own_copy(kwargs)) for index in first]
        return *outputs, self.run_pass(last, *args, **kwargs)

    def run_pass(self, index: int, /, *args, **kwargs) -> Tensor:
        """Run one pass on the input itself, not a copy; passes are independent, so they may run concurrently."""
        tensors = self.tensors(index)
        if self._is_checked or torch.compiler.is_compiling():
            output = self._run(tensors, args, kwargs)
        else:
            with parts.calls(self.net) as called:
                output = self._run(tensors, args, kwargs)
            self._check(called)
        if index > 0:  # keep buffers that forward replaced as this pass's own
            for name, table, leaf in self._tables(index):
                if tensors[name] is not table[leaf]:
                    table[leaf] = tensors[name].detach()
        return output

    def _check(self, called: list[str]) -> None:
        """Raise `DcilError`, at the first call, for a wrongly guessed head or a buffer of which no pass has a copy.

        `called` has the names of the linear layers in the order of their calls.
        """
        if self._guessed_head is not None and called and called[-1] != self._guessed_head:
            raise DcilError(
                f"the linear layer {called[-1]!r} is called last, but {self._guessed_head!r} is registered "
                "last, and was taken for the head that each pass has of its own. Name the head: DualPath("
                f"net, per_pass=[*dcil.parts.norms(net), {called[-1]!r}])"
            )
        new = [name for name, _ in self.net.named_buffers() if name not in self._known_buffers]
        if new and len(self.rules) > 1:
            raise DcilError(
                f"the buffer {new[0]!r} of this {type(self.net).__name__} did not exist when the DualPath was made, "
                "and the passes would share it; call the network on one batch, without gradients, then wrap it"
            )
        self._is_checked = True

    @torch.enable_grad()
    def gradients(self, loss_of: Callable[[Tensor], Tensor], *args, rule: str, index: int = 0) -> dict[str, Tensor]:
        """Return the gradient that each prunable weight gets under a rule for a loss of the output; changes nothing.

        `loss_of` maps the output to a scalar; the gradients have the weights' shapes, by parameter name. The
        norms and head are those of pass `index`, and running statistics are not updated. A weight on which the loss
        does not depend has a gradient of zeros. Raises `dcil.DcilError` for a prunable weight that is frozen, for an
        index without a pass, and for an unknown rule.

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
            raise DcilError(
                f"{frozen[0]} is prunable but frozen (requires_grad is False), so it has no gradient; "
                "leave it out of `prunable`, or let it train"
            )
        tensors = self.tensors(index, rule)
        # Running statistics are updated in place: give this forward pass copies.
        kept = {name: b.clone() for name, b in self.net.named_buffers()}
        kept |= {name: t if t.requires_grad else t.clone() for name, t in tensors.items()}
        loss = loss_of(self._run(kept, own_copy(args)))
        found = torch.autograd.grad(loss, list(self.weights.values()), materialize_grads=True)
        return dict(zip(self.weights, found, strict=True))

    def _run(self, tensors: dict[str, Tensor], args: tuple, kwargs: dict | None = None) -> Tensor:
        if torch.compiler.is_compiling():  # one graph, from which nothing outlives the pass
            return functional_call(self.net, tensors, args, kwargs or {}, tie_weights=False)
        with running(self.net):
            return functional_call(self.net, tensors, args, kwargs or {}, tie_weights=False)

    @torch.no_grad()
    def sparsity(self) -> float:
        """Return the measured fraction of prunable weights that the masks remove, in [0, 1); 0 until masks are set.

        >>> from torch import nn
        >>> DualPath(nn.Conv2d(3, 8, 3)).sparsity()
        0.0
        """
        masks = self.masks.values()
        return 1 - sum(int(m.sum()) for m in masks) / sum(m.numel() for m in masks)

    @torch.no_grad()
    def export(self, which: str | None = None) -> nn.Module:
        """Return a plain copy of the network as one pass sees it, masked weights as zeros.

        `which` names a pass: "sparse", "dense", "pruned" or "twin"; by default the first one. The copy does not depend
        on `dcil`, and its outputs equal that pass exactly. Raises `dcil.DcilError` for an unknown pass.

        >>> from torch import nn
        >>> dual = DualPath(nn.Conv2d(3, 8, 3))
        >>> changed = set_masks(dual, sparsity=0.9)
        >>> int(dual.export().weight.count_nonzero())
        21
        """
        which = which or self.pass_names[0]
        if which not in self.pass_names:
            raise unknown("pass", which, self.pass_names)
        plain = copy_module(self.net)
        unwatch(plain)
        own = dict(plain.named_parameters(remove_duplicate=False)) | dict(plain.named_buffers(remove_duplicate=False))
        for name, value in self.tensors(self.pass_names.index(which)).items():
            own[name].copy_(value)
        return plain

    def get_extra_state(self) -> Tensor:
        """Return the schedule position, which `state_dict()` holds beside weights and masks.

        A tensor [3], float64 on the CPU: target sparsity, refreshes, threshold. Code that walks over state dicts
        expects tensors.
        """
        threshold = 0.0 if self.threshold.is_meta else float(self.threshold)
        position = [self.target_sparsity, self.refreshes, threshold]
        return torch.tensor(position, dtype=torch.float64)

    def set_extra_state(self, state: Tensor | dict) -> None:
        if isinstance(state, dict):  # earlier checkpoints, the first of them without a threshold
            position = [state["target_sparsity"], state["refreshes"], state.get("threshold", float(self.threshold))]
        else:
            position = list(state)
        target, refreshes, threshold = map(float, position)
        self.target_sparsity, self.refreshes = target, round(refreshes)
        if self.threshold.is_meta:  # `load_state_dict(assign=True)` replaces only what is in the state
            self.threshold = torch.empty_like(self.threshold, device="cpu")
        self.threshold.fill_(threshold)

    def extra_repr(self) -> str:
        count = sum(w.numel() for w in self.weights.values())
        return f"rules={self.rules}, {count} prunable weights in {len(self.prunable)} tensors"


def _from_before_state(dual: DualPath, state: dict, prefix: str, *_: object) -> None:
    """Load checkpoints from before passes had these buffers of their own: fill them with the network's."""
    for index in range(len(dual.state)):
        for name in dual.state_names:
            if f"{prefix}net.{name}" in state:
                state.setdefault(f"{prefix}state.{index}.{key(name)}", state[f"{prefix}net.{name}"])


def _rule(name: str) -> Rule:
    """Return a gradient rule by name; raises `DcilError` with the nearest name for an unknown one."""
    if name not in RULES:
        raise unknown("gradient rule", name, RULES)
    return RULES[name]


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
    """Recompute the masks from the weights' scores, in place and on their device.

    `model` is a `dcil.DualPath` or a DDP or `torch.compile` wrapper of one; `sparsity` is the fraction to
    remove, in [0, 1). Returns the number of mask flips (0-d tensor, not synchronised). See
    `dcil.masks.compute_masks` for `scope`, `score` and the errors; rules with a soft threshold, which is global,
    accept the scope "global" only. Call it between two steps, not within one.
    Source: the authors' code, every 16 steps.

    >>> from torch import nn
    >>> dual = DualPath(nn.Conv2d(3, 8, 3))
    >>> set_masks(dual, sparsity=0.9).item()  # of 216 weights, 216·0.9 and one more
    195
    >>> round(dual.sparsity(), 4)
    0.9028
    """
    dual = unwrap(model)
    if are_soft(dual.rules) and scope != "global":
        raise DcilError(
            f"scope is {scope!r}, but a soft threshold is global, and most weights that another scope keeps would be "
            f"zero under it; leave it out, or use other rules than {dual.rules}"
        )
    masks = mask_rules.compute_masks(dual.weights, sparsity, scope, score, dual.transposed)
    return put_masks(dual, masks, sparsity)


@torch.no_grad()
def put_masks(model: nn.Module, masks: Mapping[str, Tensor], sparsity: float) -> Tensor:
    """Set masks that were chosen by any criterion, in place; returns the number of mask flips (0-d tensor).

    `model` is as in `dcil.set_masks`. `masks` has a boolean mask, True = kept, of the shape of each weight that
    changes, by parameter name; masks that it leaves out stay. `sparsity` is the target that `state_dict()` notes; the
    masks need not meet it. Raises `dcil.DcilError` without any mask, for a name that is not prunable, and for a mask
    that is not boolean or of another shape.

    >>> import torch
    >>> from torch import nn
    >>> dual = DualPath(nn.Conv2d(3, 8, 3))
    >>> score = {name: torch.rand_like(weight) for name, weight in dual.weights.items()}
    >>> put_masks(dual, mask_rules.compute_masks(score, sparsity=0.9), sparsity=0.9).item()
    195
    """
    dual = unwrap(model)
    before = dual.masks
    if not masks:
        raise DcilError(f"no mask was given; name at least one of the prunable weights: {', '.join(before)}")
    for name, mask in masks.items():
        if name not in before:
            raise unknown("prunable weight", name, before)
        if not isinstance(mask, Tensor):
            raise DcilError(f"the mask of {name} is a {type(mask).__name__}; it must be a boolean tensor, True = kept")
        if mask.dtype != torch.bool or mask.shape != before[name].shape:
            raise DcilError(
                f"the mask of {name} is {mask.dtype} {list(mask.shape)}; it must be torch.bool "
                f"{list(before[name].shape)}, True = kept, e.g. score > threshold"
            )
    changed = mask_rules.flips(before, masks)
    for name, mask in masks.items():
        before[name].copy_(mask)
    if are_soft(dual.rules):
        pruned = [(w.detach().abs() * before[name].logical_not()).max() for name, w in dual.weights.items()]
        dual.threshold.copy_(torch.stack(pruned).max())
    dual.target_sparsity, dual.refreshes = float(sparsity), dual.refreshes + 1
    return changed
