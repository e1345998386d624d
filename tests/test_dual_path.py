"""`DualPath`: any network as several passes, through every way of copying, moving and saving a module."""

import copy
import pickle

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from dcil import models
from dcil.data.vision import import_torchvision
from dcil.dual_path import DualPath, set_masks, unwrap
from dcil.errors import DcilError
from dcil.losses import collective_loss


class Mixed(nn.Module):
    """Conv1d, Conv2d and Linear layers with batch, group, layer and no norm."""

    def __init__(self):
        super().__init__()
        self.wide = nn.Conv2d(3, 4, 3, padding=1)
        self.bn = nn.BatchNorm2d(4)
        self.plain = nn.Conv2d(4, 4, 1)
        self.gn = nn.GroupNorm(2, 4)
        self.line = nn.Conv1d(4, 6, 3)
        self.ln = nn.LayerNorm(6)
        self.mid = nn.Linear(6, 6)
        self.head = nn.Linear(6, 5)

    def forward(self, x):
        x = self.gn(self.plain(F.relu(self.bn(self.wide(x)))))
        x = self.ln(self.line(x.flatten(2)).mean(2))
        return self.head(F.relu(self.mid(x)))


class Shared(nn.Module):
    """A convolution called twice, one registered under two names, and a weight tied to another's."""

    def __init__(self):
        super().__init__()
        self.twice = nn.Conv2d(3, 3, 3, padding=1)
        self.one = nn.Conv2d(3, 3, 1)
        self.same = self.one
        self.tied = nn.Conv2d(3, 3, 3, padding=1)
        self.tied.weight = self.twice.weight
        self.norm = nn.BatchNorm2d(3)
        self.again = self.norm
        self.fc = nn.Linear(3, 4)

    def forward(self, x):
        x = self.again(self.twice(self.norm(self.twice(x))))
        return self.fc(self.tied(self.same(self.one(x))).mean((2, 3)))


def batch(n=4, size=8, classes=4):
    return torch.randn(n, 3, size, size), torch.randint(classes, (n,))


def train(dual, steps=3, size=8, sparsity=0.6, forward=None, lr=0.05):
    """Train a few steps with DCIL's loss, choosing masks before each; returns the network."""
    optimizer = torch.optim.SGD([p for p in dual.parameters() if p.requires_grad], lr, momentum=0.9)
    for _ in range(steps):
        set_masks(dual, sparsity)
        images, labels = batch(4, size)
        optimizer.zero_grad()
        collective_loss(*(forward or dual)(images), labels).backward()
        optimizer.step()
    set_masks(dual, sparsity)
    return dual


def torchvision_net(name):
    return getattr(import_torchvision().models, name)(num_classes=4)


NETS = {"resnet20": models.resnet20, "mixed": Mixed, "shared": Shared, "torchvision_resnet18":
        lambda: torchvision_net("resnet18"), "torchvision_resnet50": lambda: torchvision_net("resnet50")}  # fmt: skip


@pytest.mark.parametrize("name", NETS)
def test_export_equals_the_pass(name):
    """After training, both exports give their passes' logits, are zero where the mask is, and are plain modules."""
    # Deep norms over a few pixels make wild gradients: the large nets need larger images and a smaller step.
    size, steps, lr = (64, 1, 0.01) if "torchvision" in name else (8, 3, 0.05)
    dual = train(DualPath(NETS[name]()), steps, size, lr=lr)
    dual.eval()
    images, _ = batch(2, size)
    with torch.no_grad():
        sparse, dense = dual(images)
        plain, twin = dual.export(), dual.export("dense")
        torch.testing.assert_close(plain.eval()(images), sparse, atol=1e-6, rtol=0)
        torch.testing.assert_close(twin.eval()(images), dense, atol=1e-6, rtol=0)
    assert (sparse - dense).abs().max() > 1e-4
    for key, mask in dual.masks.items():
        weight = plain.get_parameter(key)
        assert torch.equal(weight != 0, mask), key
        assert torch.equal(twin.get_parameter(key), dual.weights[key]), key
    for net in (plain, twin):
        assert not any(type(m).__module__ == "dcil.dual_path" for m in net.modules())
        assert net.state_dict().keys() == dual.net.state_dict().keys()


def test_defaults_choose_what_the_authors_do():
    """Every convolution is prunable; batch norms and the last linear layer are per pass, nothing else."""
    dual = DualPath(Mixed())
    assert dual.prunable == ("wide.weight", "plain.weight", "line.weight")
    assert set(dual.own[0]) == {"bn", "head"}
    assert len(DualPath(models.resnet32()).prunable) == 33


def test_shared_modules_are_one_weight():
    """A weight used twice is counted, masked and trained once, and ties hold in every pass."""
    dual = DualPath(Shared())
    assert dual.prunable == ("twice.weight", "one.weight")
    assert set(dual.own[0]) == {"norm", "fc"}
    plain = train(dual).export()
    assert plain.tied.weight is plain.twice.weight and plain.same is plain.one
    # The tied use is masked too: with every weight pruned, only biases are left.
    for mask in dual.masks.values():
        mask.zero_()
    sparse, dense = dual.eval()(batch()[0])
    assert torch.allclose(sparse, sparse[:1].expand_as(sparse))
    assert not torch.allclose(dense, dense[:1].expand_as(dense))


def test_gradients_are_those_of_each_pass():
    """A kept weight gets the sparse pass's gradient only, a pruned one the dense pass's only."""
    dual = train(DualPath(Mixed().double()), steps=0)
    images, labels = batch()
    images = images.double()
    outputs = dual(images)
    collective_loss(*outputs, labels).backward()
    masks = dual.masks
    alone = []  # each pass's plain gradient, with respect to the weights it used
    for index, which in enumerate(("sparse", "dense")):
        net = dual.export(which)
        output = net(images)
        pair = (output, outputs[1].detach()) if index == 0 else (outputs[0].detach(), output)
        collective_loss(*pair, labels).backward()
        alone.append(net)
    for key, weight in dual.weights.items():
        sparse, dense = (net.get_parameter(key).grad for net in alone)
        assert masks[key].any() and not masks[key].all()
        torch.testing.assert_close(weight.grad, torch.where(masks[key], sparse, dense), rtol=1e-9, atol=1e-12)


def test_a_frozen_weight_has_no_gradient_to_ask_for():
    """Asking for the gradient of a frozen weight raises an error that names it."""
    dual = DualPath(Mixed())
    dual.net.wide.weight.requires_grad_(False)
    with pytest.raises(DcilError, match="wide.weight is prunable but frozen"):
        dual.gradients(lambda y: y.sum(), torch.ones(2, 3, 8, 8), rule="refined")


def test_gradients_of_weights_that_the_loss_does_not_depend_on():
    """They are zeros: under a rule without gradient, and of a layer that the forward pass leaves out."""

    class Skipping(Mixed):
        def __init__(self):
            super().__init__()
            self.unused = nn.Conv2d(3, 4, 3)

    dual, (images, _) = DualPath(Skipping()), batch()
    with torch.no_grad():  # as where masks are chosen
        observed, straight = (
            dual.gradients(lambda y: y.sum(), images, rule=r) for r in ("observed", "straight_through")
        )
    assert observed.keys() == straight.keys() == dual.weights.keys()
    assert not any(gradient.any() for gradient in observed.values())
    assert [name for name, gradient in straight.items() if not gradient.any()] == ["unused.weight"]


@pytest.mark.parametrize("index", [-1, 2])
def test_a_pass_that_does_not_exist(index):
    """No pass is counted from the end: -1 had the last pass's rule with the first pass's norms and head."""
    dual, (images, _) = DualPath(Mixed()), batch()
    for run in (
        lambda: dual.run_pass(index, images),
        lambda: dual.gradients(lambda y: y.sum(), images, rule="dense", index=index),
    ):
        with pytest.raises(DcilError, match=rf"index is {index}; the passes .*'dense'\) have the indices 0 to 1"):
            run()


def test_rules_by_name():
    """A single name is one pass; a misspelt one is answered with the nearest, wherever it is given."""
    assert DualPath(Mixed(), rules="kept").rules == ("kept",)
    for wrong in (
        lambda: DualPath(Mixed(), rules="keptt"),
        lambda: DualPath(Mixed()).gradients(lambda y: y.sum(), batch()[0], rule="keptt"),
    ):
        with pytest.raises(DcilError, match="unknown gradient rule 'keptt': did you mean 'kept'"):
            wrong()


@pytest.mark.parametrize("rules", [("kept", "refined"), ("soft_threshold",)])
def test_built_without_memory(rules):
    """On the meta device, a `DualPath` takes a state that is assigned, and then is the one that the state is of."""
    dual = train(DualPath(Mixed(), rules=rules), steps=0).eval()
    with torch.device("meta"):
        other = DualPath(Mixed(), rules=rules).eval()
    assert other.state_dict().keys() == dual.state_dict().keys()
    other.load_state_dict(dual.state_dict(), assign=True)
    assert other.state_dict()["_extra_state"].equal(dual.state_dict()["_extra_state"])
    images, _ = batch()
    for output, expected in zip(other(images), dual(images), strict=True):
        assert torch.equal(output, expected)


def test_frozen_parameters_stay_frozen():
    """A frozen weight is masked but never moves, and is frozen in the export too; a frozen norm's copy is frozen."""
    net = Mixed()
    net.wide.weight.requires_grad_(False)
    net.bn.weight.requires_grad_(False)
    before = net.wide.weight.clone()
    dual = train(DualPath(net))
    assert torch.equal(net.wide.weight, before)
    assert net.wide.weight.grad is None and net.plain.weight.grad is not None
    assert not dual.own[0]["bn"].weight.requires_grad
    assert not dual.masks["wide.weight"].all()
    assert not dual.export().wide.weight.requires_grad


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        (["mid.weight"], ("mid.weight",)),
        ("mid.weight", ("mid.weight",)),
        (["wi*.weight", "li*.weight"], ("wide.weight", "line.weight")),
        (
            lambda name, owner: name == "mid.bias" or isinstance(owner, nn.Conv1d),
            ("line.weight", "line.bias", "mid.bias"),
        ),
    ],
    ids=["list", "name", "glob", "predicate"],
)
def test_prunable_is_the_users_choice(choice, expected):
    """A name, a list, globs or a predicate choose the weights."""
    dual = DualPath(Mixed(), prunable=choice)
    assert dual.prunable == expected
    set_masks(dual, 0.5)
    assert abs(dual.sparsity() - 0.5) < 0.1


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        (["ln"], {"ln"}),
        ("?n", {"bn", "gn", "ln"}),
        ([], set()),
        (lambda name, m: isinstance(m, nn.GroupNorm), {"gn"}),
    ],
    ids=["list", "glob", "none", "predicate"],
)
def test_per_pass_is_the_users_choice(choice, expected):
    """A list, a glob or a predicate chooses the modules of each pass."""
    assert set(DualPath(Mixed(), per_pass=choice).own[0]) == expected


def test_nested_choices_are_copied_once():
    """A glob that matches a block and its parts copies the block, so no copy is left untrained."""
    dual = DualPath(models.resnet8(), prunable=["layer1.*.conv?.weight"], per_pass=["layer3*", "fc"])
    assert set(dual.own[0]) == {"layer3", "fc"}
    train(dual, steps=1)
    assert all(p.grad is not None for p in dual.own.parameters())


def test_nothing_prunable_lists_what_was_looked_at():
    """The error lists the parameters with their layers."""
    with pytest.raises(DcilError, match=r"nothing is prunable in this Sequential: .* 0.weight \(Linear\), 0.bias"):
        DualPath(nn.Sequential(nn.Linear(2, 2)))
    with pytest.raises(DcilError, match="no parameters"):
        DualPath(nn.ReLU())


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"prunable": ["wide.wieght"]}, "unknown parameter 'wide.wieght'.*did you mean 'wide.weight'"),
        ({"per_pass": ["haed"]}, "unknown module 'haed'.*did you mean 'head'"),
        ({"rules": ("kept", "refind")}, "unknown gradient rule 'refind'.*did you mean 'refined'"),
        ({"rules": ("kept", "straight_through")}, "each pass must see a different network"),
        ({"rules": ()}, "each pass must see a different network"),
        ({"prunable": ["head.weight"]}, "'head.weight'.*cannot be both shared and per-pass"),
        ({"per_pass": lambda name, module: True}, "the whole network|cannot be both"),
    ],
)
def test_wrong_choices(wrong, message):
    """A misspelt name, a repeated pass or a weight that is both shared and private is refused."""
    with pytest.raises(DcilError, match=message):
        DualPath(Mixed(), **wrong)


def test_unknown_pass():
    """Exporting an unknown pass suggests the nearest one."""
    with pytest.raises(DcilError, match="unknown pass 'densee'.*did you mean 'dense'"):
        DualPath(Mixed()).export("densee")


def test_clash_by_a_tied_weight():
    """A prunable weight that is tied to a per-pass layer's is refused, whatever its name."""
    net = nn.Sequential(nn.Conv2d(3, 3, 1), nn.Flatten(), nn.Linear(3, 3), nn.Linear(3, 3))
    net[3].weight = net[2].weight
    with pytest.raises(DcilError, match="'2.weight'.*cannot be both"):
        DualPath(net, prunable=["2.weight"])


def test_a_head_tied_to_an_embedding_exports():
    """A per-pass head whose weight another layer owns is exported with its tie."""
    net = nn.Sequential(nn.Embedding(5, 3), nn.Conv1d(4, 4, 1), nn.Linear(3, 5))
    net[2].weight = net[0].weight
    dual = DualPath(net, fresh=True)
    tokens = torch.randint(5, (2, 4))
    for name, output in zip(dual.pass_names, dual(tokens), strict=True):
        torch.testing.assert_close(dual.export(name)(tokens), output)


def test_norms_have_their_own_statistics():
    """One forward pass in training moves the running statistics of each pass towards what that pass saw."""
    dual = DualPath(Mixed())
    set_masks(dual, 0.7)
    images, _ = batch()
    expected = []
    for which in ("sparse", "dense"):
        expected.append(dual.export(which).wide(images).mean((0, 2, 3)) * 0.1)
    dual(images)
    torch.testing.assert_close(dual.net.bn.running_mean, expected[0])
    torch.testing.assert_close(dual.own[0]["bn"].running_mean, expected[1])
    assert not torch.allclose(expected[0], expected[1])


def test_fresh_copies_differ_and_plain_copies_do_not():
    """`fresh` draws a new head; by default the copy starts as the network's own."""
    torch.manual_seed(3)
    net = Mixed()
    assert torch.equal(DualPath(net).own[0]["head"].weight, net.head.weight)
    assert not torch.equal(DualPath(net, fresh=True).own[0]["head"].weight, net.head.weight)


def test_set_masks_reports_flips_and_sparsity():
    """`set_masks` returns the number of flips, and `sparsity()` is measured from the masks."""
    dual = DualPath(Mixed())
    n = sum(w.numel() for w in dual.weights.values())
    kept = n - int(0.5 * n) - 1
    assert dual.sparsity() == 0
    assert int(set_masks(dual, 0.5)) == n - kept
    assert int(set_masks(dual, 0.5)) == 0
    assert dual.sparsity() == pytest.approx(1 - kept / n)
    assert (dual.target_sparsity, dual.refreshes) == (0.5, 2)


def same_outputs(one, other, images):
    for a, b in zip(one.eval()(images), other.eval()(images), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)


def test_state_dict_carries_masks_and_position():
    """A new `DualPath` that loads the state has the old one's weights, masks, statistics and schedule position."""
    dual = train(DualPath(Mixed()))
    other = DualPath(Mixed(), fresh=True)
    other.load_state_dict(copy.deepcopy(dual.state_dict()))
    assert all(torch.equal(other.masks[n], m) for n, m in dual.masks.items())
    assert (other.target_sparsity, other.refreshes) == (dual.target_sparsity, dual.refreshes) == (0.6, 4)
    same_outputs(dual, other, batch()[0])


@pytest.mark.parametrize("copier", [copy.deepcopy, lambda d: pickle.loads(pickle.dumps(d))], ids=["deepcopy", "pickle"])
def test_copies_are_whole_and_independent(copier):
    """A copy gives the same outputs, has the same masks, and shares no weight."""
    dual = train(DualPath(Shared()))
    other = copier(dual)
    same_outputs(dual, other, batch()[0])
    assert other.refreshes == dual.refreshes
    before = dual.net.one.weight.clone()
    train(other.train())
    assert torch.equal(dual.net.one.weight, before)
    assert not torch.equal(other.net.one.weight, before)


def test_float64_and_back():
    """A conversion to another dtype converts every pass and leaves the masks boolean."""
    dual = train(DualPath(Mixed())).eval()
    images, _ = batch()
    single = dual(images)
    dual.to(torch.float64)
    double = dual(images.double())
    assert all(o.dtype == torch.float64 for o in double)
    assert all(m.dtype == torch.bool for m in dual.masks.values())
    for a, b in zip(single, double, strict=True):
        torch.testing.assert_close(a.double(), b, atol=1e-5, rtol=1e-4)


def test_compiled_equals_eager():
    """Compiled as one graph, outputs and gradients are those of eager mode, also after the masks change."""
    dual = DualPath(Mixed())
    eager = copy.deepcopy(dual)
    compiled = torch.compile(dual, backend="aot_eager", fullgraph=True)
    images, labels = batch()
    for sparsity in (0.3, 0.8):
        for model in (compiled, eager):
            set_masks(model, sparsity)
            model.zero_grad()
            collective_loss(*model(images), labels).backward()
        for (name, p), q in zip(dual.named_parameters(), eager.parameters(), strict=True):
            torch.testing.assert_close(p.grad, q.grad, atol=1e-6, rtol=1e-4, msg=name)
        for a, b in zip(compiled(images), eager(images), strict=True):
            torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-4)
    assert dual.refreshes == 2 and unwrap(compiled) is dual


def test_distributed_data_parallel(process_group):
    """Under DDP steps move the weights as without it, and `set_masks` reaches the masks inside."""
    alone = DualPath(Mixed())
    dual = copy.deepcopy(alone)
    wrapped = nn.parallel.DistributedDataParallel(dual)
    for model in (wrapped, alone):
        torch.manual_seed(1)
        train(unwrap(model), forward=model)
    assert dual.refreshes == 4
    for p, q in zip(dual.parameters(), alone.parameters(), strict=True):
        torch.testing.assert_close(p, q)
    assert unwrap(wrapped) is dual


def test_compiled_distributed_data_parallel(process_group):
    """DDP's broadcast of buffers, masks among them, can be compiled with the step."""
    alone = DualPath(Mixed())
    dual = copy.deepcopy(alone)
    compiled = torch.compile(nn.parallel.DistributedDataParallel(dual), backend="eager")
    for model in (compiled, alone):
        torch.manual_seed(1)
        train(unwrap(model), forward=model.__call__)  # a compiled module has no truth value
    for p, q in zip(dual.parameters(), alone.parameters(), strict=True):
        torch.testing.assert_close(p, q)
    assert all(mask.equal(alone.masks[name]) for name, mask in dual.masks.items())


def test_unwrap_refuses_another_module():
    """A network that is not wrapped is refused by its type."""
    with pytest.raises(DcilError, match="expected a DualPath, got Linear"):
        set_masks(nn.Linear(2, 2), 0.5)


def test_repr_says_what_is_inside():
    """The repr shows the rules and the number of prunable weights."""
    assert "rules=('kept', 'refined'), 196 prunable weights in 3 tensors" in repr(DualPath(Mixed()))


def test_a_twice_registered_module_survives_the_forward():
    """After a forward pass, even one that fails, the network has its own parameters again."""
    dual = DualPath(Shared())
    before = dict(dual.net.named_parameters(remove_duplicate=False))
    dual(batch()[0])
    with pytest.raises(RuntimeError, match="to have 3 channels, but got 7"):
        dual(torch.randn(1, 7, 8, 8))
    after = dict(dual.net.named_parameters(remove_duplicate=False))
    assert before.keys() == after.keys() and all(after[n] is p for n, p in before.items())


def test_ties_between_private_modules_hold_in_the_copies():
    """The copies of two per-pass layers that share a weight share one too."""
    net = nn.Sequential(nn.Conv1d(3, 3, 1), nn.Linear(4, 4), nn.Linear(4, 4))
    net[2].weight = net[1].weight
    dual = DualPath(net, per_pass=["1", "2"])
    assert dual.own[0]["1"].weight is dual.own[0]["2"].weight
    assert dual(torch.randn(2, 3, 4))[1].shape == (2, 3, 4)
