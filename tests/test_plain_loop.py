"""`fit` trains what a plain loop trains, to the last bit: the recipe, written here a second time.

The loop knows no passes, rules, engine or schedules; it has two networks whose convolutions are given the same weights,
autograd and PyTorch's SGD. From the library it takes only its inputs, initial weights and batches.
"""

from itertools import permutations, product
from typing import NamedTuple

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from dcil import checkpoint, models, trainer
from dcil.data.loaders import TrainLoader
from dcil.train import fit

RAMP_END, DISTILL_FROM, MASK_PERIOD, MILESTONE, LR, DECAY, SPARSITY = 2, 1, 2, 2, 0.02, 1e-4, 0.8


class Plain(NamedTuple):
    """A method: for each network, the factors by which its gradient reaches (kept, pruned) weights.

    With `mutual` the two teach each other; with `for_good` what is pruned never comes back; `soft` is ST-3: a soft
    threshold, masks and sparsity at every step, the gradient clipped.
    """

    sparse: tuple[float, float] | None = None
    dense: tuple[float, float] | None = None
    mutual: bool = False
    for_good: bool = False
    soft: bool = False

    @property
    def networks(self) -> list[str]:
        return [name for name in ("sparse", "dense") if getattr(self, name)]


METHODS = {
    "dense": Plain(dense=(1, 1)),
    "kept_only": Plain(sparse=(1, 0)),
    "gmp": Plain(sparse=(1, 0), for_good=True),
    "ste": Plain(sparse=(1, 1)),
    "st3_stepwise": Plain(sparse=(1, 1), soft=True),
    "ste_split": Plain(sparse=(1, 1), dense=(0, 0), mutual=True),
    "dcil_no_mutual": Plain(sparse=(1, 0), dense=(0, 1)),
    "dcil_dense_all": Plain(sparse=(1, 0), dense=(1, 1), mutual=True),
    "dcil": Plain(sparse=(1, 0), dense=(0, 1), mutual=True),
}


def trained_plainly(config, dataset, method):
    """Return weights, norm statistics and masks at the end, by the names that a checkpoint has for them."""
    dtype = torch.float64 if config.precision == "float64" else torch.float32
    first, second = initial(config, dtype)
    networks = {name: models.build(config.model, 10).to(dtype) for name in method.networks}
    for net, state in zip(networks.values(), (first, second), strict=False):
        net.load_state_dict(state)
    shared = {name: nn.Parameter(value) for name, value in first.items() if value.dim() == 4}
    own = [p for net in networks.values() for name, p in net.named_parameters() if name not in shared]
    optimizer = torch.optim.SGD([*shared.values(), *own], LR, 0.9, nesterov=True, weight_decay=DECAY)
    masks = {name: torch.ones_like(w, dtype=torch.bool) for name, w in shared.items()}

    loader, step = TrainLoader(dataset, config.batch_size, config.seed, torch.device("cpu"), dtype), 0
    for epoch in range(config.epochs):
        for images, labels in loader.epoch(epoch):
            masks = chosen(method, shared, masks, step, len(loader))
            for name, net in networks.items():
                seen = pruned(shared, masks, method.soft) if name == "sparse" else shared
                for key, w in seen.items():
                    net.get_parameter(key).data = w.detach().clone()
            with torch.autocast("cpu", torch.bfloat16, enabled=config.precision == "bf16"):
                outputs = [net(images) for net in networks.values()]
            outputs = [output.to(dtype) for output in outputs]
            for net in networks.values():
                net.zero_grad()
            loss(outputs, labels, method.mutual and epoch >= DISTILL_FROM).backward()
            for key, w in shared.items():
                w.grad = sum(
                    torch.where(masks[key], *getattr(method, name)) * net.get_parameter(key).grad
                    for name, net in networks.items()
                )
            nn.utils.clip_grad_norm_([*shared.values(), *own], 3.0 if method.soft else float("inf"))
            warm = LR * (1 + min(step / len(loader), 1))  # twice as much after the first epoch
            optimizer.param_groups[0]["lr"] = warm * (0.1 if epoch >= MILESTONE else 1)
            optimizer.step()
            step += 1

    found = {f"_masks.{key}": mask for key, mask in masks.items()}
    for prefix, net in zip(("net", "own.0"), networks.values(), strict=False):
        found |= {f"{prefix}.{key}": value for key, value in net.state_dict().items() if key not in shared}
    return found | {f"net.{key}": w.detach() for key, w in shared.items()}


def initial(config, dtype):
    """Return the initial weights of both networks, which differ in norms and classifier if a run has a second pass."""
    state = {name.replace("/", "."): v for name, v in trainer.build(config, 10).to(dtype).state_dict().items()}
    first = {name.removeprefix("net."): v for name, v in state.items() if name.startswith("net.")}
    return first, first | {name.removeprefix("own.0."): v for name, v in state.items() if name.startswith("own.0.")}


def chosen(method, weights, masks, step, steps_per_epoch):
    """Return the masks for a step: what is larger than the `int(N·sparsity)`-th smallest of all N weights is kept."""
    if not method.sparse or (step % MASK_PERIOD and not method.soft):
        return masks
    epoch = step / steps_per_epoch if method.soft else step // steps_per_epoch
    sparsity = SPARSITY - SPARSITY * (1 - min(epoch / RAMP_END, 1)) ** 3
    sizes = {key: (w * masks[key] if method.for_good else w).detach() ** 2 for key, w in weights.items()}
    ranked = torch.cat([size.flatten() for size in sizes.values()]).sort().values
    return {key: size > ranked[int(len(ranked) * sparsity)] for key, size in sizes.items()}


def pruned(weights, masks, soft):
    """Return the kept weights, and zeros; `soft` takes the largest pruned size off each and scales filters up again."""
    if not soft:
        return {key: w * masks[key] for key, w in weights.items()}
    threshold, found = max((w.abs() * ~masks[key]).max() for key, w in weights.items()), {}
    for key, w in weights.items():
        share = ((w.abs() * masks[key]).mean((1, 2, 3)) + 1e-6) / (w.abs().mean((1, 2, 3)) + 1e-6)
        scale = (1.01 / (share + 0.01)).view(-1, 1, 1, 1)
        found[key] = (w - threshold * w.sign()) * masks[key] * scale
    return found


def loss(outputs, labels, mutual):
    """Return the cross-entropy of each network and, with `mutual`, what each learns from the other."""
    parts = [F.cross_entropy(output, labels) for output in outputs]
    return sum(parts + [divergence(student, teacher) for student, teacher in permutations(outputs, 2) if mutual])


def divergence(student, teacher):
    """Return T²·KL at T = 2, the teacher fixed, with the small number that the authors add to its probabilities."""
    target = F.softmax(teacher.detach() / 2, 1) + 1e-7
    return 4 * F.kl_div(F.log_softmax(student / 2, 1), target, reduction="batchmean")


EXACT = [name for name, method in METHODS.items() if not method.soft]


@pytest.mark.parametrize(
    ("method", "precision"), [*product(EXACT, ["float32", "bf16"]), ("dcil", "float64"), ("st3_stepwise", "float64")]
)
def test_fit_trains_what_a_plain_loop_trains(method, precision, tiny_config, tiny_dataset, tmp_path):
    """After three epochs masks, weights, norms and classifiers are the same, whatever a run measures on its way.

    A soft threshold's products can be rounded in several orders, so there the last digits may differ.
    """
    config = tiny_config(
        method=method,
        precision=precision,
        epochs=3,
        lr=LR,
        milestones=(MILESTONE,),
        weight_decay=DECAY,
        ramp_end=RAMP_END,
        distill_from=DISTILL_FROM,
        mask_period=MASK_PERIOD,
        sparsity=SPARSITY,
    )
    fit(config, dataset=tiny_dataset, runs_dir=tmp_path, progress=False)
    state = checkpoint.load(tmp_path / config.run_id / "checkpoint.pt")["model"]
    trained = {name.replace("/", "."): value for name, value in state.items() if name != "_extra_state"}
    expected = trained_plainly(config, tiny_dataset, METHODS[method])
    assert trained.keys() == expected.keys()
    tolerance = 0 if method in EXACT else 1e-7
    wrong = [n for n, value in expected.items() if not torch.allclose(trained[n], value, tolerance, tolerance)]
    assert wrong == []
