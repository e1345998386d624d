"""The recipes of *Use DCIL on your own network*, as the page shows them, compared with plain networks."""

import json

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import dcil
from dcil import DcilError, DualPath, set_masks
from dcil.data.vision import import_torchvision
from dcil.lab import checkout
from tests.test_networks import Net, assert_passes_are_networks, images, step, wrapped

CELLS = json.loads((checkout.root() / "book" / "your-own-network.ipynb").read_text())["cells"]
PAGE = {cell["id"]: "".join(cell["source"]) for cell in CELLS}


def difference():
    """Return the lines of the page's diff between the ordinary loop and DCIL's, each with its sign."""
    (block,) = [text for text in PAGE.values() if "```diff\n" in text]
    return block.partition("```diff\n")[2].partition("\n```")[0].split("\n")


@pytest.mark.parametrize(("signs", "cell"), [(" -", "ordinary"), (" +", "train")])
def test_the_difference_leads_from_one_loop_to_the_other(signs, cell):
    """The diff at the top of the page is that of the two loops that it executes."""
    assert [line[1:] for line in difference() if line[:1] in signs] == PAGE[cell].split("\n")


def test_the_loops_differ_in_little():
    """The diff fits on a phone's screen and imports what it uses."""
    lines = difference()
    assert lines[0] == "+import dcil" and len(lines) <= 30 and max(map(len, lines)) <= 72


class Recipes:
    """Executes cells of the page in one namespace, with a loop of one step."""

    def __init__(self):
        torch.manual_seed(0)
        self.names = {"dcil": dcil, "seed": 0, "train": self.train}
        exec(PAGE["yours"], self.names)
        self.names["net"] = self.names["Net"]()

    def train(self, dual, optimizer, epochs, sparsity=0.9, scope="global"):
        set_masks(dual, sparsity, scope)
        sum(output.square().mean() for output in dual(torch.randn(8, 1, 8, 8))).backward()
        optimizer.step()
        held = {id(p) for group in optimizer.param_groups for p in group["params"]}
        assert all(id(p) in held for p in dual.parameters())

    def run(self, cell, name="dual"):
        exec(PAGE[cell], self.names)
        return self.names[name]


RECIPES = {
    "recipe-convolution": ("dual", {"body.3.weight", "body.6.weight"}, {"body.1", "body.4", "body.7", "head"}),
    "recipe-transformer": (
        "dual",
        {
            f"encoder.layers.{i}.{matrix}"
            for i in range(2)
            for matrix in ("self_attn.in_proj_weight", "self_attn.out_proj.weight", "linear1.weight", "linear2.weight")
        },
        {*(f"encoder.layers.{i}.norm{j}" for i in range(2) for j in (1, 2)), "encoder.norm", "head"},
    ),
    "recipe-linear": ("dual", {"body.1.weight", "body.3.weight"}, {"head"}),
    "recipe-st3": (
        "single",
        {"body.0.weight", "body.3.weight", "body.6.weight"},
        {"body.1", "body.4", "body.7", "head"},
    ),
}


@pytest.mark.parametrize("cell", RECIPES)
def test_recipes_of_the_page(cell):
    """Each prunes what it says, and each pass gives what its plain network gives, in training and in evaluation."""
    name, pruned, own = RECIPES[cell]
    dual = Recipes().run(cell, name)
    assert set(dual.prunable) == pruned and set(dual.own_names) == own
    set_masks(dual, 0.8)
    assert_passes_are_networks(dual, [torch.randn(8, 1, 8, 8) for _ in range(2)], atol=1e-5, rtol=1e-4)
    assert dual.export().get_parameter(min(pruned)).eq(0).any()


def test_left_alone_a_transformer_loses_only_its_patches():
    """Patterns of `weight` miss attention's input projection, as the page says."""
    net = Recipes()
    net.run("recipe-transformer")
    build = net.names["ViT"]
    assert DualPath(build()).prunable == ("patches.weight",)
    taken = DualPath(build(), prunable=["encoder.layers.*.weight"]).prunable
    assert "encoder.layers.0.norm1.weight" in taken and not any("in_proj" in name for name in taken)


def test_a_vision_transformer_of_torchvision():
    """The names that the page gives for it work."""
    build = import_torchvision().models.VisionTransformer
    net = build(image_size=8, patch_size=4, num_layers=2, num_heads=2, hidden_dim=8, mlp_dim=16, num_classes=4)
    nn.init.normal_(net.heads.head.weight)  # zeros at first
    dual = wrapped(
        net,
        prunable=["*.in_proj_weight", "*.out_proj.weight", "*.mlp.0.weight", "*.mlp.3.weight"],
        per_pass=["*ln*", "heads.head"],
    )
    assert len(dual.prunable) == 8 and len(dual.own_names) == 6
    step(dual, images())
    assert_passes_are_networks(dual, [images()], atol=1e-5, rtol=1e-4)


class Reader(nn.Module):
    """Words, a recurrent layer, a classifier."""

    def __init__(self):
        super().__init__()
        self.words, self.memory, self.head = nn.Embedding(9, 4), nn.GRU(4, 4, batch_first=True), nn.Linear(4, 2)


@pytest.mark.parametrize(
    ("net", "pruned", "own"),
    [
        (
            nn.Sequential(nn.Flatten(), nn.Linear(192, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 4)),
            ("1.weight", "3.weight"),
            ("5",),
        ),
        (Reader(), ("memory.weight_ih_l0", "memory.weight_hh_l0"), ("head",)),
        (nn.TransformerEncoderLayer(4, 2, 8), ("self_attn.in_proj_weight", "self_attn.out_proj.weight"), ("linear2",)),
        (nn.Sequential(nn.Flatten(), nn.Linear(192, 4)), ("1.weight",), ()),
        (nn.Linear(192, 4), ("weight",), ()),
    ],
    ids=["linear", "recurrent", "attention", "only a classifier", "a single layer"],
)
def test_the_advice_on_linear_layers_can_be_followed(net, pruned, own):
    """What the error suggests works: no embedding, and no classifier unless there is nothing else."""
    with pytest.raises(DcilError, match="nothing is prunable") as refused:
        DualPath(net)
    advice = str(refused.value).partition("e.g. ")[2]
    dual = eval(advice, {"DualPath": DualPath, "net": net})
    assert dual.prunable == pruned and dual.own_names == own


def test_a_network_that_returns_a_dict():
    """Each pass gives a dict, and the loss asks for its logits."""

    class Returning(Net):
        def forward(self, pixel_values):
            return {"logits": super().forward(pixel_values)}

    dual = wrapped(Returning())
    sparse, dense = dual(**{"pixel_values": images()})
    with pytest.raises(DcilError, match="sparse_logits is a dict, not a tensor; take the logits out of each pass's"):
        dcil.collective_loss(sparse, dense, torch.arange(4))
    dcil.collective_loss(sparse["logits"], dense["logits"], torch.arange(4)).backward()
    assert all(p.grad is not None for p in dual.parameters())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_and_a_scaled_loss(dtype):
    """Gradients are close to those of float32, and a scaler's step moves the weights."""
    plain, mixed = (wrapped(Net()) for _ in range(2))
    mixed.load_state_dict(plain.state_dict())
    x, labels = images(8), torch.arange(8) % 4
    dcil.collective_loss(*plain(x), labels).backward()
    optimizer, scaler = torch.optim.SGD(mixed.parameters(), 0.1), torch.amp.GradScaler("cpu", init_scale=128.0)
    with torch.autocast("cpu", dtype=dtype):
        loss = dcil.collective_loss(*mixed(x), labels)
    scaler.scale(loss).backward()
    scaler.unscale_(optimizer)
    for (name, p), q in zip(plain.named_parameters(), mixed.parameters(), strict=True):
        assert (p.grad - q.grad).norm() <= 0.1 * p.grad.norm() + 1e-3, name
    before = mixed.net.conv1.weight.detach().clone()
    scaler.step(optimizer)
    assert not mixed.net.conv1.weight.equal(before)


def test_gradual_magnitude_pruning_in_a_loop():
    """With the rule "kept" and pruned weights set to zero after each step, as on the page, none comes back."""
    dual = DualPath(Net(), rules=("kept",))
    optimizer = torch.optim.SGD(dual.parameters(), 0.1, momentum=0.9)
    pruned = {name: torch.zeros_like(mask) for name, mask in dual.masks.items()}
    for sparsity in (0.3, 0.5, 0.5, 0.8, 0.8):
        set_masks(dual, sparsity)
        F.cross_entropy(*dual(images(8)), torch.arange(8) % 4).backward()
        optimizer.step()
        with torch.no_grad():
            for weight, mask in zip(dual.weights.values(), dual.masks.values(), strict=True):
                weight.mul_(mask)
        for name, mask in dual.masks.items():
            assert not (mask & pruned[name]).any()
            pruned[name] = ~mask
    assert dual.sparsity() > 0.8


def test_pieces_of_your_own(tiny_config, tiny_dataset, tmp_path):
    """The page's criterion, gradient rule and method do what they say."""
    blocks = PAGE["pieces-of-your-own"].split("```python\n")[1:]
    criterion, rule, method = (block.partition("\n```")[0] for block in blocks)
    dual = DualPath(Net())
    sum(output.square().mean() for output in dual(images())).backward()
    exec(criterion, {"dcil": dcil, "dual": dual, "target": 0.7})
    sizes = {name: (w * w.grad).detach().abs() for name, w in dual.weights.items()}
    kept, pruned = (torch.cat([size[dual.masks[n] == of] for n, size in sizes.items()]) for of in (True, False))
    assert kept.min() > pruned.max()
    assert 0.7 < dual.sparsity() < 0.72 and dual.target_sparsity == 0.7

    names = {"dcil": dcil, "Net": Net}
    try:
        exec(rule, names)
        dual = names["dual"]
        set_masks(dual, 0.7)
        assert_passes_are_networks(dual, [images()])
        plain, x = dual.export("sparse"), images()
        dual(x)[0].square().mean().backward()
        plain(x).square().mean().backward()
        for name, mask in dual.masks.items():
            expected = plain.get_parameter(name).grad * torch.where(mask, 1, 0.5)
            torch.testing.assert_close(dual.weights[name].grad, expected)
        exec(method, names)
        record = dcil.fit(tiny_config(method="mine"), dataset=tiny_dataset, runs_dir=tmp_path, progress=False)
        assert record["config"]["method"] == "mine" and len(record["curve"]) == 2
    finally:
        dcil.methods.METHODS.pop("mine", None)
        dcil.rules.RULES.pop("halved", None)
