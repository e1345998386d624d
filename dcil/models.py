"""CIFAR ResNets and Wide ResNets: plain modules that know nothing of pruning.

`resnet8` to `resnet56` follow He et al. 2016 (6n+2 layers, basic blocks) with the authors' strided
1×1 convolution + norm as shortcut. `resnet83_bottleneck` is the network that the authors' code builds
for "ResNet-56": bottleneck blocks, 9 per stage, so 83 weight layers. `wrn28_k` follows
Zagoruyko & Komodakis 2016. `resnet18` and `resnet50` are torchvision's, for larger images.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch.nn.functional as F
from torch import Tensor, nn

from dcil.data.vision import import_torchvision
from dcil.errors import unknown


def conv(inputs: int, outputs: int, size: int, stride: int = 1) -> nn.Conv2d:
    """Return a padded convolution without bias, with Kaiming normal initialisation (fan-out)."""
    layer = nn.Conv2d(inputs, outputs, size, stride, padding=size // 2, bias=False)
    nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    return layer


class Shortcut(nn.Sequential):
    """The identity, or a strided 1×1 convolution + norm where the shape changes."""

    def __init__(self, inputs: int, outputs: int, stride: int):
        same = stride == 1 and inputs == outputs
        super().__init__(*([] if same else [conv(inputs, outputs, 1, stride), nn.BatchNorm2d(outputs)]))


class BasicBlock(nn.Module):
    """Two 3×3 convolutions and a shortcut; [N, C, H, W] -> [N, width, H/stride, W/stride]."""

    expansion = 1

    def __init__(self, inputs: int, width: int, stride: int):
        super().__init__()
        self.conv1, self.bn1 = conv(inputs, width, 3, stride), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = conv(width, width, 3), nn.BatchNorm2d(width)
        self.shortcut = Shortcut(inputs, width, stride)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)), inplace=True)
        y = self.bn2(self.conv2(y))
        y += self.shortcut(x)
        return F.relu(y, inplace=True)


class Bottleneck(nn.Module):
    """1×1, 3×3 and 1×1 convolutions, the last four times as wide, and a shortcut."""

    expansion = 4

    def __init__(self, inputs: int, width: int, stride: int):
        super().__init__()
        self.conv1, self.bn1 = conv(inputs, width, 1), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = conv(width, width, 3, stride), nn.BatchNorm2d(width)
        self.conv3, self.bn3 = conv(width, 4 * width, 1), nn.BatchNorm2d(4 * width)
        self.shortcut = Shortcut(inputs, 4 * width, stride)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)), inplace=True)
        y = F.relu(self.bn2(self.conv2(y)), inplace=True)
        y = self.bn3(self.conv3(y))
        y += self.shortcut(x)
        return F.relu(y, inplace=True)


class PreActBlock(nn.Module):
    """Wide ResNet's block: norm and ReLU before each convolution, the shortcut after the first ReLU."""

    expansion = 1

    def __init__(self, inputs: int, width: int, stride: int):
        super().__init__()
        self.bn1, self.conv1 = nn.BatchNorm2d(inputs), conv(inputs, width, 3, stride)
        self.bn2, self.conv2 = nn.BatchNorm2d(width), conv(width, width, 3)
        self.shortcut = None if inputs == width and stride == 1 else conv(inputs, width, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(x), inplace=True)
        skip = x if self.shortcut is None else self.shortcut(y)
        y = F.relu(self.bn2(self.conv1(y)), inplace=True)
        return self.conv2(y) + skip


Block = type[BasicBlock] | type[Bottleneck] | type[PreActBlock]


def stages(block: Block, inputs: int, widths: tuple[int, int, int], depth: int) -> nn.ModuleList:
    """Return three stages of `depth` blocks; the second and third halve height and width."""
    layers = nn.ModuleList()
    for width, stride in zip(widths, (1, 2, 2), strict=True):
        stage = nn.Sequential()
        for i in range(depth):
            stage.append(block(inputs, width, stride if i == 0 else 1))
            inputs = width * block.expansion
        layers.append(stage)
    return layers


class ResNet(nn.Module):
    """A CIFAR ResNet: [N, 3, H, W] -> logits [N, num_classes]."""

    def __init__(self, block: Block, depth: int, num_classes: int):
        super().__init__()
        self.conv1, self.bn1 = conv(3, 16, 3), nn.BatchNorm2d(16)
        self.layer1, self.layer2, self.layer3 = stages(block, 16, (16, 32, 64), depth)
        self.fc = nn.Linear(64 * block.expansion, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x)), inplace=True)
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.fc(x.mean((2, 3)))


class WideResNet(nn.Module):
    """A pre-activation Wide ResNet: [N, 3, H, W] -> logits [N, num_classes]."""

    def __init__(self, depth: int, width: int, num_classes: int):
        super().__init__()
        self.conv1 = conv(3, 16, 3)
        self.layer1, self.layer2, self.layer3 = stages(
            PreActBlock, 16, (16 * width, 32 * width, 64 * width), (depth - 4) // 6
        )
        self.bn = nn.BatchNorm2d(64 * width)
        self.fc = nn.Linear(64 * width, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.layer3(self.layer2(self.layer1(self.conv1(x))))
        x = F.relu(self.bn(x), inplace=True)
        return self.fc(x.mean((2, 3)))


def _resnet(layers: int, num_classes: int = 10) -> ResNet:
    """Build a ResNet of basic blocks with `layers` = 6n+2 weight layers."""
    return ResNet(BasicBlock, (layers - 2) // 6, num_classes)


def resnet83_bottleneck(num_classes: int = 10) -> ResNet:
    """Build the network the authors' code calls "ResNet-56": 27 bottleneck blocks, 83 weight layers.

    [N, 3, H, W] -> logits [N, num_classes].
    """
    return ResNet(Bottleneck, 9, num_classes)


def _wrn28(width: int, num_classes: int = 10) -> WideResNet:
    """Build a Wide ResNet of depth 28, `width` times as wide as a ResNet."""
    return WideResNet(28, width, num_classes)


resnet8, resnet20, resnet32 = partial(_resnet, 8), partial(_resnet, 20), partial(_resnet, 32)
resnet44, resnet56 = partial(_resnet, 44), partial(_resnet, 56)
wrn28_2, wrn28_4, wrn28_8 = partial(_wrn28, 2), partial(_wrn28, 4), partial(_wrn28, 8)


def _torchvision(name: str, num_classes: int = 1000) -> nn.Module:
    """Build a torchvision network, freshly initialised."""
    return getattr(import_torchvision().models, name)(num_classes=num_classes)


resnet18, resnet50 = partial(_torchvision, "resnet18"), partial(_torchvision, "resnet50")
TORCHVISION: dict[str, Callable[..., nn.Module]] = {"resnet18": resnet18, "resnet50": resnet50}

#: The builder of each network by name; takes `num_classes`.
MODELS: dict[str, Callable[..., nn.Module]] = {
    "resnet8": resnet8,
    "resnet20": resnet20,
    "resnet32": resnet32,
    "resnet44": resnet44,
    "resnet56": resnet56,
    "resnet83_bottleneck": resnet83_bottleneck,
    "wrn28_2": wrn28_2,
    "wrn28_4": wrn28_4,
    "wrn28_8": wrn28_8,
    **TORCHVISION,
}


def build(name: str, num_classes: int) -> nn.Module:
    """Build a model by name, freshly initialised: [N, 3, H, W] -> logits [N, num_classes].

    Raises `dcil.DcilError` with the nearest name for an unknown one.

    >>> net = build("resnet20", num_classes=10)
    >>> sum(p.numel() for p in net.parameters())
    272474
    """
    if name not in MODELS:
        raise unknown("model", name, MODELS)
    return MODELS[name](num_classes=num_classes)
