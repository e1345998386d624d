"""Which parts of a network are chosen, by predicate, name or pattern."""

import pytest
from torch import nn

import dcil
from dcil import parts


@pytest.fixture
def net():
    """Two convolutions, each with a norm, and two linear layers; the last one is the head."""
    return nn.Sequential(
        nn.Conv2d(3, 4, 3),
        nn.BatchNorm2d(4),
        nn.Conv2d(4, 4, 1),
        nn.BatchNorm2d(4),
        nn.Flatten(),
        nn.Linear(4, 4),
        nn.Linear(4, 2),
    )


@pytest.mark.parametrize(
    "own, names", [("norms and head", ["1", "3", "6"]), ("norms", ["1", "3"]), ("head", ["6"]), ("nothing", [])]
)
def test_what_each_pass_has_of_its_own(net, own, names):
    """Every name of `OWN` gives the modules that it names."""
    assert parts.OWN[own](net) == names


def test_convolution_weights_are_the_default(net):
    """Weights of convolutions and nothing else: no bias, no norm, no linear layer."""
    owners = {name: net.get_submodule(name.rpartition(".")[0]) for name, _ in net.named_parameters()}
    assert parts.choose("parameter", parts.is_conv_weight, owners) == ["0.weight", "2.weight"]


def test_choose_by_pattern(net):
    """Names and globs, in the network's order; one that matches nothing is an error that names the nearest."""
    owners = dict.fromkeys(["conv1.weight", "conv2.weight", "fc.weight"], net)
    assert parts.choose("parameter", ["fc.*", "conv?.weight"], owners) == list(owners)
    with pytest.raises(dcil.DcilError, match="did you mean 'conv2.weight'"):
        parts.choose("parameter", ["conv2.wieght"], owners)


def test_aliases_of_tied_weights():
    """A tensor that two modules hold is known under both names."""
    first, second = nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False)
    second.weight = first.weight
    assert parts.aliases(nn.Sequential(first, second)) == {"0.weight": ["1.weight"], "1.weight": ["0.weight"]}


def test_linear_layers_can_be_pruned_too(net):
    """A function chooses them, and the classifier must be shared, as the tutorial advises; by default it is not."""

    def chosen(name, layer):
        return name.endswith("weight") and isinstance(layer, (nn.Conv2d, nn.Linear))

    dual = dcil.DualPath(net, prunable=chosen, per_pass=parts.norms(net))
    assert dual.prunable == ("0.weight", "2.weight", "5.weight", "6.weight")
    with pytest.raises(dcil.DcilError, match="both shared and per-pass"):
        dcil.DualPath(net, prunable=chosen)
