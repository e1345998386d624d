"""Folders of images: how fast samples are loaded, and what a step of the ImageNet recipe takes."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from itertools import chain, count
from pathlib import Path

import torch

from benchmarks.bench import Act, Bench, Row, compare, peak_mib
from dcil.data import crops, datasets
from dcil.data.datasets import Dataset
from dcil.data.decoding import Store
from dcil.data.images import ImageFolder, read_folder
from dcil.data.known import Place
from dcil.data.loaders import FolderTrainLoader
from dcil.data.vision import import_torchvision
from dcil.errors import DcilError

SIDE, BATCH = 128, 64  # of the preset "imagenette"
IMAGENET_SIDE = 224


def plain(folder: ImageFolder, root: Path) -> Act:
    """Return a function that makes a batch with torchvision's `ImageFolder`, usual transforms and a `DataLoader`."""
    vision = import_torchvision()
    transforms = vision.transforms
    usual = transforms.Compose(
        [
            transforms.RandomResizedCrop(SIDE, scale=crops.AREA, ratio=crops.RATIO),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            transforms.Normalize(folder.mean, folder.std),
        ]
    )
    files = vision.datasets.ImageFolder(str(root), usual)
    loader = torch.utils.data.DataLoader(files, BATCH, shuffle=True, drop_last=True)
    batches = chain.from_iterable(loader for _ in count())
    return lambda: next(batches)


def loading(bench: Bench) -> Iterator[Row]:
    """images of a folder on one core: ours, decoded anew or kept decoded, against ImageFolder and DataLoader"""
    try:
        with tempfile.TemporaryDirectory() as kept:
            store = Store(Path(kept))
            known, place = datasets.get("imagenette"), Place(datasets.data_folder(bench.data_dir))
            folders = {
                "originals": read_folder(known, place),
                "decoded": read_folder(known, place._replace(store=store)),
            }
            root = Path(folders["decoded"].train.files[0]).parents[1]
            acts: dict[str, Act] = {"ImageFolder + DataLoader": plain(folders["decoded"], root)}
            for name, folder in folders.items():
                loader = FolderTrainLoader(folder, BATCH, 0, SIDE, torch.device("cpu"))
                batches = chain.from_iterable(map(loader.epoch, count()))
                acts[name] = partial(next, batches)
            times = bench.times(acts)
    except DcilError as error:
        print(f"loading: not run: {error}")
        return
    part = replace(bench, model="none", batch_size=BATCH, dataset=folders["decoded"])
    for name in folders:
        yield part.row("ImageFolder + DataLoader", name, compare(times["ImageFolder + DataLoader"], times[name]))
    yield part.row("originals", "decoded", compare(times["originals"], times["decoded"]))


def imagenet(bench: Bench) -> Iterator[Row]:
    """a step of the ImageNet recipe, ResNet-50 at 224 px on noise: DCIL against dense, time and memory"""
    size = 256 if bench.device == "cuda" else 16
    noise = torch.randint(256, (size, 3, IMAGENET_SIDE, IMAGENET_SIDE), dtype=torch.uint8)
    labels = torch.arange(size)
    few = Dataset("random", noise, labels, noise[:1], labels[:1], 1000, datasets.IMAGENET_MEAN, datasets.IMAGENET_STD)
    part = replace(bench, model="resnet50", batch_size=size, dataset=few, few=few)
    times = part.times({method: part.stepper(method) for method in ("dcil", "dense")}, fewer=3)
    mib = {method: peak_mib(part.trainer(method, fast=False)) for method in ("dcil", "dense")}
    yield part.row(
        "dcil",
        "dense",
        compare(times["dcil"], times["dense"]),
        mem_mib=mib["dcil"],
        baseline_mib=mib["dense"],
        recipe_epochs=90,
        how="estimated from steps",
    )
