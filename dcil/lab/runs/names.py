"""The names that pages give methods, networks and data sets, in legends, tables and sentences."""

from __future__ import annotations

import re

LABELS = {
    "dense": "dense", "static": "static mask", "random": "random mask", "random_erk": "random mask, ERK",
    "one_shot": "one shot", "gmp": "gradual magnitude by epoch", "gmp_stepwise": "gradual magnitude",
    "gmp_distill": "gradual magnitude by epoch, taught", "set": "SET",
    "rigl": "RigL without return", "rigl_returning": "RigL",
    "ste": "STE", "ste_tenth": "STE, a tenth", "ste_split": "STE, two passes, teaching",
    "ste_split_ce": "STE, two passes", "st3": "ST-3 every 16 steps", "st3_stepwise": "ST-3",
    "kept_only": "training kept weights only", "acdc": "AC/DC", "self_distill": "dense, two passes, teaching",
    "dcil": "DCIL", "dcil_soft": "DCIL, soft threshold", "dcil_no_mutual": "DCIL without teaching",
    "dcil_sparse_learns": "DCIL, only sparse learns", "dcil_dense_learns": "DCIL, only dense learns",
    "dcil_not_detached": "DCIL, teachers move too", "dcil_shared_norms": "DCIL, shared norms",
    "dcil_shared_head": "DCIL, shared classifier", "dcil_shared": "DCIL, shared norms and classifier",
    "dcil_dense_all": "DCIL, dense trains all", "dcil_pruned_pass": "DCIL, second pass pruned only",
}  # fmt: skip
SETTINGS = {"dense_every 4": "dense pass every 4th step", "dense_every 2": "dense pass every 2nd step",
            "scope filter": "whole filters"}  # fmt: skip
DATA_SETS = {"digits": "digits", "cifar10": "CIFAR-10", "cifar100": "CIFAR-100", "imagenette": "Imagenette",
             "imagenet": "ImageNet", "imagefolder": "a folder of images"}  # fmt: skip


def label(variant: str) -> str:
    """Return what a page calls a variant: its method's label, then its settings.

    >>> label("dcil_no_mutual"), label("dcil, dense_every 4"), label("ste, mask_period 64")
    ('DCIL without teaching', 'DCIL, dense pass every 4th step', 'STE, mask period 64')
    """
    method, *settings = variant.split(", ")
    said = (SETTINGS.get(setting, setting.replace("_", " ")) for setting in settings)
    return ", ".join([LABELS.get(method, method), *said])


def network_label(model: str) -> str:
    """Return what a page calls a network.

    >>> network_label("resnet20"), network_label("resnet83_bottleneck"), network_label("wrn28_2")
    ('ResNet-20', 'ResNet-83 with bottlenecks', 'WRN-28-2')
    """
    named = re.sub(r"^wrn(\d+)_(\d+)", r"WRN-\1-\2", re.sub(r"^resnet(\d+)", r"ResNet-\1", model))
    return named.replace("_bottleneck", " with bottlenecks")


def data_set_label(dataset: str) -> str:
    """Return what a page calls a data set.

    >>> data_set_label("cifar10")
    'CIFAR-10'
    """
    return DATA_SETS.get(dataset, dataset)
