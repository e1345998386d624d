"""Which networks a `DualPath` works on, a section for each kind: what is right, and what is refused in a sentence.

The measure is nearly always the same: each pass must do what the plain network of that pass does alone.
"""

import copy
import json
import pickle
import re
import threading
import warnings
from collections import UserDict
from concurrent.futures import ThreadPoolExecutor
from fnmatch import fnmatchcase

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.ao import quantization
from torch.ao.nn import qat
from torch.func import functional_call, stack_module_state, vmap
from torch.nn.utils import parametrizations, parametrize, prune
from torch.optim.swa_utils import AveragedModel, get_ema_avg_fn, get_ema_multi_avg_fn, get_swa_avg_fn
from torch.utils.checkpoint import checkpoint

import dcil
from dcil import DcilError, DualPath, parts, set_masks
from dcil.data.vision import import_torchvision
from dcil.lab import checkout


class Net(nn.Module):
    """Two convolutions with norms and a classifier; a test chooses the norms and may wrap the convolutions."""

    def __init__(self, norm=nn.BatchNorm2d, layer=lambda conv: conv):
        super().__init__()
        self.conv1, self.norm1 = layer(nn.Conv2d(3, 6, 3, padding=1)), norm(6)
        self.conv2, self.norm2 = layer(nn.Conv2d(6, 6, 3, padding=1)), norm(6)
        self.fc = nn.Linear(6, 4)

    def block(self, x):
        return F.relu(self.norm2(self.conv2(x)))

    def forward(self, x):
        return self.fc(self.block(F.relu(self.norm1(self.conv1(x)))).mean((2, 3)))


def images(n=4):
    return torch.randn(n, 3, 8, 8)


def wrapped(net, **choices):
    """Return a pruned `DualPath` of a network."""
    dual = DualPath(net, **choices)
    set_masks(dual, 0.6)
    return dual


def step(dual, x):
    """Take one step of SGD on a plain loss of both passes."""
    optimizer = torch.optim.SGD(dual.parameters(), 0.05)
    sum(output.square().mean() for output in dual(x)).backward()
    optimizer.step()


def assert_passes_are_networks(dual, batches, **tolerance):
    """Assert that each pass does what its plain network does alone, in training and then in evaluation."""
    alone = [dual.export(name) for name in dual.pass_names]
    for batch in batches:
        for output, net in zip(dual(batch), alone, strict=True):
            torch.testing.assert_close(output, net(batch), **tolerance)
    exported = [dual.export(name).eval() for name in dual.pass_names]  # before a call: observers move in eval mode too
    for output, net, plain in zip(dual.eval()(batches[0]), alone, exported, strict=True):
        torch.testing.assert_close(output, net.eval()(batches[0]), **tolerance)
        torch.testing.assert_close(output, plain(batches[0]), **tolerance)


# --- a forward that runs again in backward


class Recomputing(Net):
    """The second block runs again in backward."""

    def __init__(self, reentrant):
        super().__init__()
        self.reentrant = reentrant

    def block(self, x):
        return checkpoint(super().block, x, use_reentrant=self.reentrant)


@pytest.mark.parametrize("reentrant", [False, True])
def test_recomputation_inside_a_network_is_refused(reentrant):
    """It would compute gradients with other weights than the pass's; the error says what to do instead."""
    dual = wrapped(Recomputing(reentrant))
    outputs = dual(images())
    with pytest.raises(DcilError, match=r"Conv2d of this network ran again during backward.*checkpoint\(dual.run_pass"):
        sum(output.square().mean() for output in outputs).backward()


def test_recomputation_as_in_memory_efficient_densenets_is_refused():
    """torchvision's option for it is refused; without it DenseNet works."""
    build = import_torchvision().models.DenseNet
    options = {"growth_rate": 4, "block_config": (2, 2), "num_init_features": 8, "num_classes": 4}
    x = torch.randn(2, 3, 32, 32)
    step(wrapped(build(**options, memory_efficient=False)), x)
    with pytest.raises(DcilError, match="memory_efficient=False"):
        step(wrapped(build(**options, memory_efficient=True)), x)


@pytest.mark.parametrize("norm", [nn.BatchNorm2d, nn.InstanceNorm2d])
def test_whole_passes_can_be_recomputed(norm):
    """Recomputing whole passes, as the error advises, gives exactly the gradients of a step without it."""
    plain, saving = (wrapped(Net(norm)) for _ in range(2))
    saving.load_state_dict(plain.state_dict())
    x = images()
    for dual, outputs in (
        (plain, plain(x)),
        (saving, [checkpoint(saving.run_pass, i, x, use_reentrant=False) for i in range(2)]),
    ):
        sum(output.square().mean() for output in outputs).backward()
        assert dual.net.conv1.weight.grad is not None
    for (name, p), q in zip(plain.named_parameters(), saving.parameters(), strict=True):
        torch.testing.assert_close(p.grad, q.grad, msg=name)


@pytest.mark.parametrize("reentrant", [False, True])
def test_compiled_recomputation_works(reentrant):
    """`torch.compile` traces a pass, and what it recomputes, with the pass's own tensors."""
    plain, saving = wrapped(Net()), wrapped(Recomputing(reentrant))
    saving.load_state_dict(plain.state_dict())
    x = images()
    for model in (plain, torch.compile(saving, backend="aot_eager", fullgraph=True)):
        sum(output.square().mean() for output in model(x)).backward()
    for (name, p), q in zip(plain.named_parameters(), saving.parameters(), strict=True):
        torch.testing.assert_close(p.grad, q.grad, msg=name)


def test_recomputation_of_what_passes_share_works():
    """Layers that are neither pruned nor a pass's own may run again, since both passes see the same there."""

    class Shared(Net):
        def __init__(self, again):
            super().__init__()
            self.again, self.mid, self.last = again, nn.Linear(6, 6), nn.Linear(4, 4)

        def block(self, x):
            x = super().block(x).movedim(1, -1)
            x = checkpoint(self.mid, x, use_reentrant=False) if self.again else self.mid(x)
            return x.movedim(-1, 1)

        def forward(self, x):
            return self.last(super().forward(x))

    one, two = (wrapped(Shared(again)) for again in (False, True))
    two.load_state_dict(one.state_dict())
    x = images()
    step(one, x)
    step(two, x)
    for p, q in zip(one.parameters(), two.parameters(), strict=True):
        torch.testing.assert_close(p, q)


def test_the_watch_for_recomputation_does_not_outlive_the_wrapper():
    """An exported network may run again in backward."""
    net = wrapped(Recomputing(False)).export()
    net(images()).sum().backward()
    assert net.conv2.weight.grad is not None
    assert not any(module._forward_pre_hooks for module in net.modules())


# --- a network that writes into its input


def test_an_input_written_in_place():
    """Every pass sees the input as it was given."""

    class Writing(Net):
        def forward(self, x):
            x -= 0.5
            return super().forward(x)

    dual, x = wrapped(Writing()).eval(), images()
    expected = [dual.export(name)(x.clone()) for name in dual.pass_names]
    for output, alone in zip(dual(x.clone()), expected, strict=True):
        torch.testing.assert_close(output, alone)


@pytest.mark.parametrize(
    "pack", [dict, UserDict, lambda d: [d], lambda d: (d,)], ids=["dict", "UserDict", "list", "tuple"]
)
def test_a_batch_whose_entries_are_taken_out(pack):
    """Each pass gets containers of its own, nested ones too; other objects are passed on as they are."""

    class Popping(Net):
        def forward(self, batch, extra):
            batch = batch[0] if isinstance(batch, (list, tuple)) else batch
            extra.seen = True
            return super().forward(batch["image"] * batch.pop("mask"))

    class Anything:
        """Any object."""

    dual, x, extra = wrapped(Popping()).eval(), images(), Anything()
    mask = torch.rand(8)

    def batch():
        return pack({"image": x, "mask": mask})

    alone = [dual.export(name)(batch(), extra) for name in dual.pass_names]
    for outputs in (dual(batch(), extra), dual(batch=batch(), extra=extra)):
        for output, expected in zip(outputs, alone, strict=True):
            torch.testing.assert_close(output, expected)
    assert extra.seen


def test_gradients_leave_the_input_alone():
    """`gradients` changes nothing, the batch included."""
    dual = wrapped(nn.Sequential(nn.ReLU(inplace=True), nn.Conv2d(3, 4, 3)))
    x = images()
    before = x.clone()
    dual.gradients(lambda y: y.sum(), x, rule="dense")
    assert x.equal(before)


# --- state that a forward writes


class Assigning(nn.Module):
    """A norm that replaces its buffers with new tensors."""

    def __init__(self, channels):
        super().__init__()
        self.register_buffer("mean", torch.zeros(channels))

    def forward(self, x):
        if self.training:
            self.mean = 0.5 * self.mean + 0.5 * x.mean((0, 2, 3))
        return x - self.mean.detach().view(1, -1, 1, 1)


def observed(conv):
    """Return a convolution for quantisation-aware training: its weights and outputs are observed and rounded."""
    conv.qconfig = quantization.get_default_qat_qconfig("fbgemm")
    with warnings.catch_warnings(action="ignore"):
        return nn.Sequential(qat.Conv2d.from_float(conv), conv.qconfig.activation())


def hooked_spectral_norm(conv):
    with warnings.catch_warnings(action="ignore"):
        return nn.utils.spectral_norm(conv)


def hooked_weight_norm(conv):
    with warnings.catch_warnings(action="ignore"):
        return nn.utils.weight_norm(conv)


def hooked_pruning(conv):
    return prune.random_unstructured(conv, "weight", 0.2)


STATEFUL = {
    "batch norm": (lambda: Net(), parts.is_conv_weight),
    "instance norm": (lambda: Net(lambda n: nn.InstanceNorm2d(n, affine=True, track_running_stats=True)),
                      parts.is_conv_weight),
    "buffers assigned anew": (lambda: Net(Assigning), parts.is_conv_weight),
    "spectral norm": (lambda: Net(layer=parametrizations.spectral_norm), ["conv*.original"]),
    "spectral norm by a hook": (lambda: Net(layer=hooked_spectral_norm), ["conv*.weight_orig"]),
    "weight norm": (lambda: Net(layer=parametrizations.weight_norm), ["conv*.original1"]),
    "weight norm by a hook": (lambda: Net(layer=hooked_weight_norm), ["conv*.weight_v"]),
    "pruned by a hook": (lambda: Net(layer=hooked_pruning), ["conv*.weight_orig"]),
    "quantisation-aware training": (lambda: Net(layer=observed), parts.is_conv_weight),
}  # fmt: skip


@pytest.mark.parametrize("kind", STATEFUL)
def test_state_is_each_pass_s_own_and_stays(kind):
    """A pass updates running statistics, power iterations and observers as its plain network would."""
    build, prunable = STATEFUL[kind]
    dual = wrapped(build(), prunable=prunable)
    assert_passes_are_networks(dual, [3 + images() for _ in range(3)], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("kind", ["spectral norm", "weight norm", "weight norm by a hook", "pruned by a hook"])
def test_a_convolution_that_the_default_choice_cannot_prune(kind):
    """It stays dense, as a warning says, which names the parameter that would be pruned in its place."""
    build, prunable = STATEFUL[kind]
    net = build()
    net.conv2 = nn.Conv2d(6, 6, 3, padding=1)
    with pytest.warns(UserWarning, match="'conv1' stays dense") as told:
        dual = DualPath(net)
    assert dual.prunable == ("conv2.weight",)
    (named,) = re.findall(r"list it as '(.*)' in", str(told[0].message))
    assert fnmatchcase(named, prunable[0])
    assert DualPath(net, prunable=["conv2.weight", named]).prunable == (named, "conv2.weight")


def test_norms_that_a_choice_leaves_out_are_shared():
    """Without the norms in `per_pass`, as in an ablation, both passes update one set of statistics."""
    dual = wrapped(Net(), per_pass=["fc"])
    dual(images())
    assert dual.net.norm1.num_batches_tracked == 2
    assert dual.state_names == ()


def test_state_travels_with_the_checkpoint():
    """The second pass's buffers are in `state_dict()`; an older checkpoint without them gives it the network's."""
    dual = wrapped(Net(Assigning))
    dual(3 + images())
    state = copy.deepcopy(dual.state_dict())
    other = DualPath(Net(Assigning))
    other.load_state_dict(state)
    assert other.tensors(1)["norm1.mean"].equal(dual.tensors(1)["norm1.mean"])
    earlier = {name: value for name, value in state.items() if not name.startswith("state.")}
    other.load_state_dict(earlier)
    assert other.tensors(1)["norm1.mean"].equal(dual.net.norm1.mean)
    assert not dual.net.norm1.mean.equal(dual.tensors(1)["norm1.mean"])


@pytest.mark.parametrize("norm", [Assigning, nn.BatchNorm2d])
@pytest.mark.parametrize("per_pass", [None, ["fc"]], ids=["own norms", "shared norms"])
def test_gradients_leave_state_alone(norm, per_pass):
    """`gradients` changes no state, not even buffers that a forward replaces."""
    dual = wrapped(Net(norm), per_pass=per_pass)
    dual(3 + images())
    before = copy.deepcopy(dual.state_dict())
    for index in (0, 1):
        dual.gradients(lambda y: y.sum(), images(), rule="dense", index=index)
    assert all(value.equal(before[name]) for name, value in dual.state_dict().items())


def test_dropout_is_drawn_by_each_pass():
    """As two networks, called one after the other, would draw it."""
    dual, x = wrapped(nn.Sequential(Net(), nn.Dropout(0.5))), images()
    alone = [dual.export(name) for name in dual.pass_names]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        outputs = dual(x)
        torch.manual_seed(0)
        for output, net in zip(outputs, alone, strict=True):
            torch.testing.assert_close(output, net(x))
    assert not (outputs[0] == 0).equal(outputs[1] == 0)


# --- weights that are computed


def test_cached_parametrizations():
    """`parametrize.cached()` around a call caches for one pass, not for all."""
    dual = wrapped(Net(layer=parametrizations.weight_norm), prunable=["conv*.original1"]).eval()
    x = images()
    expected = dual(x)
    with parametrize.cached():
        for _ in range(2):
            for output, alone in zip(dual(x), expected, strict=True):
                torch.testing.assert_close(output, alone)
    assert not torch.allclose(*expected)


@pytest.mark.parametrize("kind", [kind for kind in STATEFUL if "hook" in kind])
def test_export_after_a_step_of_computed_weights(kind):
    """The weight that a hook left on its layer has a history, which cannot be copied; export works all the same."""
    build, prunable = STATEFUL[kind]
    dual = wrapped(build(), prunable=prunable)
    x = images()
    step(dual, x)
    for name, output in zip(dual.pass_names, dual.eval()(x), strict=True):
        torch.testing.assert_close(dual.export(name).eval()(x), output)


def test_export_after_a_step_of_a_network_that_keeps_activations():
    """The exported copy has the kept activations, in attributes and in containers, without their history."""

    class Keeping(Net):
        def block(self, x):
            self.features, self.kept = x, {"all": [(x,)]}
            return super().block(x)

    dual = wrapped(Keeping())
    step(dual, images())
    plain = dual.export()
    assert plain.features.is_leaf and plain.kept["all"][0][0] is plain.features
    assert plain.features.equal(dual.net.features)


def test_wrapping_after_a_forward():
    """A head whose hook has computed its weight is copied too."""
    net = Net()
    net.fc = hooked_weight_norm(net.fc)
    net(images())
    assert wrapped(net)(images())[1].shape == (4, 4)


# --- what each pass has of its own


def test_fresh_attention_is_drawn_anew():
    """`fresh` also draws multi-head attention's input projection, which no `reset_parameters` does."""

    class Attending(Net):
        def __init__(self):
            super().__init__()
            self.pool = nn.MultiheadAttention(6, 2, batch_first=True)

        def forward(self, x):
            x = self.conv1(x).flatten(2).mT
            return self.fc(self.pool(x, x, x)[0].mean(1))

    net = Attending()
    dual = DualPath(net, per_pass=["pool", "fc"], fresh=True)
    for name in ("pool.in_proj_weight", "pool.out_proj.weight", "fc.weight"):
        assert not dual.tensors(1)[name].equal(net.get_parameter(name)), name


def test_what_fresh_cannot_draw_is_refused():
    """A parameter that cannot be drawn anew, bare or parametrized, is refused instead of silently staying a copy."""

    class Token(nn.Module):
        def __init__(self):
            super().__init__()
            self.token, self.scale = nn.Parameter(torch.randn(6)), nn.Parameter(torch.ones(6))

        def forward(self, x):
            return self.scale * x + self.token

    net = nn.Sequential(nn.Conv2d(3, 6, 8), nn.Flatten(), Token(), nn.Linear(6, 4))
    with pytest.raises(
        DcilError, match=r"fresh=True cannot re-initialise 2\.token.*no reset_parameters\(\) of this Token"
    ):
        DualPath(net, per_pass=["2", "3"], fresh=True)
    parametrizations.weight_norm(net[3])
    with pytest.raises(DcilError, match=r"cannot re-initialise 3\.parametrizations\.weight\.original"):
        DualPath(net, per_pass=["3"], fresh=True)
    assert DualPath(net, per_pass=["2", "3"])(images())[1].shape == (4, 4)


def test_a_head_that_is_not_the_last_layer_is_refused():
    """If the linear layer registered last is not called last, the first call says so, and how to name the head."""

    class Reversed(Net):
        def __init__(self):
            super().__init__()
            self.squeeze = nn.Linear(6, 6)

        def block(self, x):
            return self.squeeze(super().block(x).movedim(1, -1)).movedim(-1, 1)

    net = Reversed()
    with pytest.raises(DcilError, match=r"'fc' is called last, but 'squeeze' is registered last.*'fc'\]"):
        DualPath(net)(images())
    dual = DualPath(net, per_pass=[*parts.norms(net), "fc"])
    assert [output.shape for output in dual(images())] == [(4, 4)] * 2
    assert len(DualPath(net, rules=("kept",))(images())) == 1  # one pass needs no head of its own


# --- functional calls


def test_two_threads_at_once():
    """The second thread, which would see the first one's weights, is refused; copies work, and so do later calls."""
    inside, go_on = threading.Event(), threading.Event()

    class Waits(nn.Module):
        def forward(self, x):
            inside.set()
            go_on.wait(10)
            return x

    dual = DualPath(nn.Sequential(nn.Conv2d(3, 4, 3), Waits(), nn.Flatten()))
    x, found = torch.randn(1, 3, 8, 8), []
    first = threading.Thread(target=lambda: found.extend(dual(x)))
    first.start()
    assert inside.wait(10)
    with pytest.raises(DcilError, match=r"two threads call .* of one Sequential.*dual\.export\(\).*deepcopy"):
        dual(x)
    go_on.set()
    first.join()
    assert all(torch.equal(a, b) for a, b in zip(found, dual(x), strict=True))
    with ThreadPoolExecutor(2) as pool:
        assert all(torch.equal(y, found[0]) for y in pool.map(lambda net: net(x), [dual.export(), dual.export()]))


def test_functional_call():
    """A `DualPath` uses the weights, norms and masks that `functional_call` lends it by name."""
    dual = wrapped(Net()).eval()
    x = images()
    other = wrapped(Net()).eval()
    lent = dict(other.named_parameters()) | dict(other.named_buffers())
    for output, alone in zip(functional_call(dual, lent, (x,)), other(x), strict=True):
        torch.testing.assert_close(output, alone)
    less = {"net.conv1.weight": torch.zeros_like(dual.net.conv1.weight)}
    assert not torch.allclose(functional_call(dual, less, (x,))[0], dual(x)[0])


def test_vmap_over_models_and_over_images():
    """`vmap` runs an ensemble in one call, and images one by one."""
    duals, x = [wrapped(Net()).eval() for _ in range(2)], images()
    stacked = stack_module_state(duals)
    outputs = vmap(lambda p, b: functional_call(duals[0], (p, b), (x,)))(*stacked)
    for i, dual in enumerate(duals):
        for output, alone in zip(outputs, dual(x), strict=True):
            torch.testing.assert_close(output[i], alone)
    for output, alone in zip(vmap(lambda image: duals[0](image[None]))(x), duals[0](x), strict=True):
        torch.testing.assert_close(output[:, 0], alone)


def test_a_dual_path_inside_a_dual_path_is_refused():
    """It is refused as the network itself and as a part of it."""
    dual = DualPath(Net())
    for net in (dual, nn.Sequential(nn.Conv2d(3, 3, 1), dual)):
        with pytest.raises(DcilError, match="is or holds a DualPath already; wrap the plain network, once"):
            DualPath(net)


# --- averages of weights

AVERAGES = {"EMA": {"multi_avg_fn": get_ema_multi_avg_fn(0.9)}, "EMA one by one": {"avg_fn": get_ema_avg_fn(0.9)},
            "SWA": {}, "SWA one by one": {"avg_fn": get_swa_avg_fn()}}  # fmt: skip


class Wrapper(nn.Module):
    """Holds a model, as DistributedDataParallel does."""

    def __init__(self, module):
        super().__init__()
        self.module = module


@pytest.mark.parametrize("source", [lambda dual: dual, Wrapper], ids=["itself", "wrapper"])
@pytest.mark.parametrize("use_buffers", [True, False])
@pytest.mark.parametrize("kind", AVERAGES)
def test_averaged_models(kind, use_buffers, source):
    """The average has the averaged weights and the newest masks, and can choose masks of its own."""
    dual = wrapped(Net())
    average = AveragedModel(dual, use_buffers=use_buffers, **AVERAGES[kind])
    for _ in range(20):
        step(dual, images())
        with torch.no_grad():
            dual.net.conv1.weight.copy_(torch.randn_like(dual.net.conv1.weight))  # so that the masks change every time
        set_masks(dual, 0.9)
        average.update_parameters(source(dual))
    assert average.module.sparsity() == dual.sparsity() > 0.9
    assert all(mask.equal(average.module.masks[name]) for name, mask in dual.masks.items())
    assert not average.module.net.conv1.weight.equal(dual.net.conv1.weight)
    set_masks(average, 0.9)
    assert average.module.sparsity() == dual.sparsity()
    assert not average.module.masks["conv1.weight"].equal(dual.masks["conv1.weight"])
    assert len(average(images())) == 2


def test_buffers_are_the_masks_themselves():
    """The buffers that averages see share memory with the masks, and are plain tensors to everything else."""
    dual = wrapped(Net())
    masks = {name: buffer for name, buffer in dual.named_buffers() if name.startswith("_masks.")}
    assert len(masks) == 2
    for name, buffer in masks.items():
        assert buffer.data_ptr() == dual._masks.get_buffer(name.removeprefix("_masks.")).data_ptr()
        assert type(dual.state_dict()[name]) is type(buffer * torch.ones(3, 3)) is torch.Tensor
        assert buffer.sum() < buffer.numel()
        for copied in (copy.deepcopy(buffer), pickle.loads(pickle.dumps(buffer))):
            assert type(copied) is torch.Tensor and copied.equal(buffer)


def test_walking_over_the_state_dict():
    """Code that averages the state dict finds tensors only, and the averaged state can be loaded."""
    dual = wrapped(Net())
    average = {name: value.detach().cpu().clone() for name, value in dual.state_dict().items()}
    for _ in range(3):
        step(dual, images())
        set_masks(dual, 0.9)
        for name, value in dual.state_dict().items():
            if value.dtype.is_floating_point:
                average[name].mul_(0.9).add_(value, alpha=0.1)
    other = DualPath(Net())
    other.load_state_dict(average)
    assert 0.6 < other.target_sparsity < 0.9 and isinstance(other.refreshes, int)


def test_extra_state_of_earlier_checkpoints():
    """Earlier checkpoints, whose schedule position is a dict with or without a threshold, can be loaded."""
    dual = wrapped(Net())
    state = dual.state_dict()
    position = {"target_sparsity": 0.25, "refreshes": 7, "threshold": torch.tensor(0.125)}
    for threshold in (0.125, 0.0):
        other = DualPath(Net())
        other.load_state_dict(state | {"_extra_state": dict(position)})
        assert (other.target_sparsity, other.refreshes, other.threshold) == (0.25, 7, threshold)
        position.pop("threshold", None)


# --- names


@pytest.mark.parametrize("name", ["values", "keys", "update", "items", "clear", "a/b", "a~1b"])
def test_names_of_modules(name):
    """A container's method names, and names with a slash, are names like any other."""
    net = nn.Sequential(nn.Conv2d(3, 6, 8), nn.Flatten())
    net.add_module(name, nn.Linear(6, 4))
    net.add_module("a", nn.Sequential())
    net.a.add_module("b", nn.Linear(4, 4))
    dual = wrapped(net, per_pass=[name, "a.b"], prunable=["0.weight"])
    x = images()
    for which, output in zip(dual.pass_names, dual(x), strict=True):
        torch.testing.assert_close(dual.export(which)(x), output)
    assert len(dual.own[0]) == 2 and dual.tensors(1)[f"{name}.weight"] is not net.get_submodule(name).weight
    other = DualPath(copy.deepcopy(net), per_pass=[name, "a.b"], prunable=["0.weight"], fresh=True)
    other.load_state_dict(dual.state_dict())
    for one, same in zip(dual(x), other(x), strict=True):
        torch.testing.assert_close(one, same)


@pytest.mark.parametrize("name", ["a/b", "a~b"])
def test_names_of_pruned_layers(name):
    """Layers whose names differ only in a slash and a dot have a mask each."""
    net = nn.Sequential()
    net.add_module(name, nn.Conv2d(3, 3, 3))
    net.add_module("a", nn.Sequential())
    net.a.add_module("b", nn.Conv2d(3, 3, 1))
    dual = wrapped(net)
    assert {key: mask.shape for key, mask in dual.masks.items()} == {k: w.shape for k, w in dual.weights.items()}
    assert len(dual.masks) == 2 and len(dual(images())) == 2


def test_arguments_with_names_of_ours():
    """An argument `index` goes to the network; `passes` is `DualPath`'s own, so a network that has it is refused."""

    class Indexed(Net):
        def forward(self, x, index=0, **more):
            return super().forward(x) * index

    outputs = wrapped(Indexed())(images(), index=2, which=1)
    assert all(output.any() for output in outputs)

    class Passing(Net):
        def forward(self, x, passes=1):
            return super().forward(x) * passes

    with pytest.raises(DcilError, match="Passing.forward has an argument 'passes', which a DualPath uses"):
        DualPath(Passing())


# --- in which order to wrap, load and build the optimizer


def test_the_optimizer_is_built_after_wrapping():
    """One built before misses the second pass's norms and head, as the docstring says."""
    net = Net()
    before = torch.optim.SGD(net.parameters(), 0.1)
    dual = wrapped(net)
    after = torch.optim.SGD(dual.parameters(), 0.1)
    seen = [{id(p) for group in o.param_groups for p in group["params"]} for o in (before, after)]
    assert not any(id(p) in seen[0] for p in dual.own.parameters())
    assert all(id(p) in seen[1] for p in dual.own.parameters())
    assert "then build the optimizer over `dual.parameters()`" in " ".join(dcil.DualPath.__doc__.split())


def test_a_network_is_changed_before_wrapping():
    """A weight that was replaced after wrapping is named; running fewer than one pass is refused."""
    for change in (
        lambda conv: parametrizations.spectral_norm(conv),
        lambda conv: prune.random_unstructured(conv, "weight", 0.5),
    ):
        dual = DualPath(Net())
        change(dual.net.conv1)
        with pytest.raises(DcilError, match=r"conv1\.weight is no longer a parameter of this Net.*then wrap it"):
            dual(torch.randn(2, 3, 8, 8))
    for passes in (0, -1):
        with pytest.raises(DcilError, match=f"passes is {passes}; .*at least 1"):
            DualPath(Net())(torch.randn(2, 3, 8, 8), passes=passes)


def test_a_checkpoint_is_loaded_before_wrapping():
    """Loaded before wrapping, it reaches both passes; loaded into `dual.net`, only the first, as the docstring says."""
    trained = Net()
    net = Net()
    net.load_state_dict(trained.state_dict())
    assert DualPath(net).tensors(1)["fc.weight"].equal(trained.fc.weight)
    late = DualPath(Net())
    late.net.load_state_dict(trained.state_dict())
    assert not late.tensors(1)["fc.weight"].equal(trained.fc.weight)
    assert "Load a checkpoint into the network before wrapping it" in " ".join(dcil.DualPath.__doc__.split())


@pytest.mark.parametrize("lazy", [lambda: nn.LazyConv2d(6, 3), lambda: nn.LazyBatchNorm2d(), lambda: nn.LazyLinear(4)])
def test_lazy_layers_are_called_before_wrapping(lazy):
    """A layer without weights has nothing to mask or to copy; after a first batch it is a layer like others."""
    net = nn.Sequential(nn.Conv2d(3, 3, 1), lazy(), nn.Flatten(), nn.LazyLinear(4))
    with pytest.raises(DcilError, match="this Sequential has lazy layers.*call it on one batch.*then wrap it"):
        DualPath(net)
    with torch.no_grad():
        net(images())
    assert_passes_are_networks(wrapped(net), [images()], atol=1e-5, rtol=1e-4)


class Measuring(Net):
    """Its first forward fills a buffer, for all later ones to use."""

    def __init__(self, registered):
        super().__init__()
        if registered:
            self.register_buffer("mean", None)

    def forward(self, x):
        if getattr(self, "mean", None) is None:
            self.register_buffer("mean", self.conv1(x).mean().detach())
        return super().forward(x) - self.mean


@pytest.mark.parametrize("registered", [False, True])
def test_a_buffer_that_the_first_call_makes(registered):
    """The second pass would use what the first one measured; after a first batch it is a buffer like others."""
    dual = wrapped(Measuring(registered))
    for _ in range(2):
        with pytest.raises(
            DcilError, match="the buffer 'mean' of this Measuring did not exist.*call the network on one"
        ):
            dual(images())
    wrapped(Measuring(registered), rules=("kept",))(images())
    net = Measuring(registered)
    with torch.no_grad():
        net(images())
    assert_passes_are_networks(wrapped(net), [images()], atol=1e-5, rtol=1e-4)


def test_ddp_goes_around_the_dual_path(process_group):
    """Inside, it would not average the gradients of the second pass's norms and head."""
    for net in (
        nn.parallel.DistributedDataParallel(Net()),
        nn.Sequential(nn.parallel.DistributedDataParallel(Net())),
    ):
        with pytest.raises(DcilError, match=r"DistributedDataParallel\(DualPath\(net\)\)"):
            DualPath(net)


def test_the_network_alone_is_no_pass():
    """It has the shared weights, masks unapplied, and the first pass's norms and head; the page says so."""
    dual, x = wrapped(Net()).eval(), images()
    assert dual.net(x).equal(dual.export("dense").eval()(x))  # until norms and head differ
    step(dual.train(), x)
    alone = dual.eval().net(x)
    assert not any(torch.allclose(alone, output) for output in dual(x))


# --- where a user looks


def test_the_page_says_what_works():
    """*Use DCIL on your own network* names every test of these files, except those of the page itself, and no other."""
    cells = json.loads((checkout.root() / "book" / "your-own-network.ipynb").read_text())["cells"]
    named = {name for cell in cells for name in re.findall(r"`(test_\w+)`", "".join(cell["source"]))}
    files = (checkout.root() / "tests").glob("test_networks*.py")
    here = {name for file in files for name in re.findall(r"^def (test_\w+)", file.read_text(), re.M)}
    of_the_page = {"test_the_page_says_what_works", "test_the_loops_differ_in_little",
                   "test_the_difference_leads_from_one_loop_to_the_other"}  # fmt: skip
    assert of_the_page <= here and named == here - of_the_page


def test_what_is_frozen_before_wrapping_stays():
    """Both passes' copies of a frozen norm are frozen; frozen after wrapping, the dense pass's copy is not."""

    def trained(freeze_first):
        net = nn.Sequential(
            nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)
        )
        if freeze_first:
            net[:2].requires_grad_(False)
        dual = DualPath(net)
        dual.net[:2].requires_grad_(False)
        return sum(parameter.requires_grad for parameter in dual.parameters())

    assert trained(freeze_first=True) == 4  # two classifiers, each with weight and bias
    assert trained(freeze_first=False) == 6


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({"prunable": nn.Conv2d}, "Conv2d is no name of a parameter; give names or globs"),
        ({"prunable": [nn.Conv2d(1, 1, 1)]}, "Conv2d is no name of a parameter"),
        ({"prunable": nn.Conv2d(1, 1, 1)}, "Conv2d is no name of a parameter"),
        ({"prunable": nn.Conv2d(1, 1, 1).parameters()}, "Parameter is no name of a parameter"),
        ({"prunable": ["0"]}, "'0' is a module, not a parameter; did you mean '0.weight'"),
        ({"per_pass": nn.BatchNorm2d}, "BatchNorm2d is no name of a module"),
        ({"per_pass": [nn.BatchNorm2d(1)]}, "BatchNorm2d is no name of a module"),
    ],
)
def test_what_is_no_name_is_refused(how, said):
    """A class, a module or a tensor in the place of a name is named, with what may stand there."""
    with pytest.raises(DcilError, match=said):
        DualPath(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)), **how)
    with pytest.raises(DcilError, match="net is the class Conv2d; it must be a network"):
        DualPath(nn.Conv2d)
