"""Data sets and loaders: what they hold, how they augment, and what they say when files are wrong."""

import dataclasses
import hashlib
import pickle
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from dcil.config import RunConfig
from dcil.data import datasets
from dcil.data.datasets import DATASETS, Dataset
from dcil.data.images import read_folder
from dcil.data.loaders import Normalize, TestLoader, TrainLoader, loaders_of
from dcil.data.vision import import_torchvision
from dcil.errors import DcilError

CPU = torch.device("cpu")


def test_digits():
    """1,797 images, every fifth for testing, with three equal channels, the stated mean and deviation, and no flip."""
    digits = datasets.digits()
    assert digits.train_images.shape == (1437, 3, 16, 16) and digits.test_images.shape == (360, 3, 16, 16)
    assert digits.train_images.dtype == torch.uint8 and digits.train_labels.dtype == torch.int64
    assert torch.equal(digits.train_images[:, 0], digits.train_images[:, 2])
    assert digits.train_labels.bincount().min() > 100
    values = digits.train_images[:, 0].float() / 255
    assert values.mean().item() == pytest.approx(digits.mean[0], abs=1e-3)
    assert values.std().item() == pytest.approx(digits.std[0], abs=1e-3)
    assert not digits.flip and datasets.get("digits").side == 16
    assert digits.checksum() == datasets.load("digits").checksum()


def test_checksum_sees_every_part(tiny_dataset):
    """One changed pixel or label, in either part, changes the checksum."""
    seen = {tiny_dataset.checksum()}
    for part in ("train_images", "train_labels", "test_images", "test_labels"):
        fields = {f: getattr(tiny_dataset, f) for f in tiny_dataset.__dataclass_fields__}
        fields[part] = fields[part].clone()
        fields[part].view(-1)[-1] = 3
        seen.add(Dataset(**fields).checksum())
    assert len(seen) == 5


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0, 1, 2, 10], "labels range from 0 to 10, but the model has 10 classes, 0 to 9"),
        ([0, -1, 2, 3], "labels range from -1 to 3"),
        ([0, 1, 2], "4 images and 3 labels"),
    ],
)
def test_labels_are_checked(labels, message):
    """A label outside the classes, or a missing one, is refused before it reaches the loss."""
    images, fine = torch.zeros(4, 3, 8, 8, dtype=torch.uint8), torch.arange(4)
    for part in ("train", "test"):
        parts = {"train": fine, "test": fine} | {part: torch.tensor(labels)}
        with pytest.raises(DcilError, match=f"mine, {part}: {message}"):
            Dataset("mine", images, parts["train"], images, parts["test"], 10, (0.5,) * 3, (0.5,) * 3)


@pytest.mark.parametrize(
    ("field", "change", "message"),
    [
        (
            "images",
            lambda x: x.float() / 255,
            r"images are torch\.float32 \[4, 3, 8, 8\]; .*torch\.uint8 \[N, C, H, W\]",
        ),
        ("images", lambda x: x.double(), r"images are torch\.float64"),
        ("images", lambda x: x.long(), r"images are torch\.int64"),
        ("images", lambda x: x[:, 0], r"images are torch\.uint8 \[4, 8, 8\]"),
        ("labels", lambda x: x.float(), r"labels are torch\.float32 \[4\]; .*torch\.int64 \[N\]"),
        ("labels", lambda x: x.int(), r"labels are torch\.int32"),
        ("labels", lambda x: x[:, None], r"labels are torch\.int64 \[4, 1\]"),
    ],
)
def test_types_and_shapes_are_checked(field, change, message):
    """Tensors that would be scaled twice, or in place, or fail in the loss are refused, with a remedy."""
    fine = {"images": torch.zeros(4, 3, 8, 8, dtype=torch.uint8), "labels": torch.arange(4)}
    for part in ("train", "test"):
        fields = {f"{p}_{name}": tensor for p in ("train", "test") for name, tensor in fine.items()}
        fields[f"{part}_{field}"] = change(fine[field])
        with pytest.raises(DcilError, match=f"mine, {part}: {message}"):
            Dataset("mine", **fields, num_classes=10, mean=(0.5,) * 3, std=(0.5,) * 3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"train_labels": [0] * 40}, "train: images are a Tensor and labels a list; .*torch.tensor"),
        ({"test_images": None}, "test: images are a NoneType"),
        ({"train_images": torch.zeros(40, 8, 8, 3, dtype=torch.uint8)}, r"\[40, 8, 8, 3\] .*permute\(0, 3, 1, 2\)"),
        ({"test_images": torch.zeros(16, 1, 8, 8, dtype=torch.uint8)}, r"test: images are \[16, 1, 8, 8\]"),
        ({"test_images": torch.zeros(16, 3, 8, 0, dtype=torch.uint8)}, r"test: images are \[16, 3, 8, 0\]"),
        ({"mean": (0.4, 0.4)}, "mean has 2 numbers"),
        ({"std": (0.2, 0.2)}, "one number per channel"),
        ({"mean": 0.4}, "mean is 0.4; it must have one number per channel"),
        ({"std": ("a", "b", "c")}, "std is .*; it must have one number per channel"),
        ({"mean": (125.3, 123.0, 113.9)}, "that of pixel values in .*divide mean and std by 255"),
        ({"mean": (float("nan"), 0.4, 0.4)}, "that of pixel values in"),
        ({"classes": ("no", "yes")}, r"one name \(str\) for each of the 10 classes"),
        ({"classes": tuple(range(10))}, r"one name \(str\) for each of the 10 classes"),
        ({"std": (0.2, 0.0, 0.2)}, "must be above 0"),
        ({"num_classes": np.int64(10)}, "must be an int"),
        ({"num_classes": 10.0}, "must be an int"),
        ({"name": "two\nlines"}, "is stored in records, but .*not text"),
        ({"name": None}, "is stored in records, but it must be str, got None"),
        ({"name": "n" * 201}, "is stored in records, but it must have at most 200 characters"),
    ],
)
def test_what_would_fail_later_is_refused_at_once(change, message, tiny_dataset):
    """Unchecked, some of these would fail at the first batch, and some in the record, after all the training."""
    with pytest.raises(DcilError, match=message):
        dataclasses.replace(tiny_dataset, **change)


def test_normalizing_leaves_its_input_alone(tiny_dataset):
    """Images that already have the wanted dtype are not scaled in place."""
    images = torch.full((2, 3, 8, 8), 102.0)
    assert Normalize(tiny_dataset, CPU)(images).abs().max() < 1e-6 and images.eq(102).all()


@pytest.mark.parametrize("workers", [-1, -8])
def test_fewer_workers_than_none(workers, tiny_dataset, tiny_config):
    """A negative number of workers is refused for any data set."""
    with pytest.raises(DcilError, match=f"workers is {workers}; it must be 0"):
        loaders_of(tiny_dataset, tiny_config(), CPU, torch.float32, workers=workers)


def test_empty_part_is_refused():
    images, labels = torch.zeros(0, 3, 8, 8, dtype=torch.uint8), torch.zeros(0, dtype=torch.int64)
    with pytest.raises(DcilError, match="at least one"):
        Dataset("mine", images, labels, images, labels, 10, (0.5,) * 3, (0.5,) * 3)


# --- the loader


def by_hand(dataset, row, corner, flip):
    """Return one training image, padded, cropped, mirrored and normalised by PIL and numpy."""
    image = Image.fromarray(dataset.train_images[row].permute(1, 2, 0).numpy())
    width, height = image.size
    top, left = corner
    image = ImageOps.expand(image, border=4, fill=0).crop((left, top, left + width, top + height))
    array = np.asarray(ImageOps.mirror(image) if flip else image, dtype=np.float64) / 255
    return ((array - np.array(dataset.mean)) / np.array(dataset.std)).transpose(2, 0, 1)


def varied(shape, flip=True):
    """Return a data set of noise whose mean and deviation differ by channel."""
    images = torch.randint(256, (10, 3, *shape)).to(torch.uint8)
    labels = torch.arange(10)
    return Dataset("noise", images, labels, images, labels, 10, (0.4, 0.5, 0.6), (0.2, 0.3, 0.1), flip)


@pytest.mark.parametrize("shape", [(8, 8), (12, 8)], ids=["square", "tall"])
@pytest.mark.parametrize("flip", [True, False])
def test_train_batches_equal_images_made_one_by_one(shape, flip):
    """Augmenting a batch equals augmenting image by image, and labels stay with their images."""
    dataset = varied(shape, flip)
    loader = TrainLoader(dataset, 4, seed=3, device=CPU, dtype=torch.float64)
    order, corners, flips = loader.draws(5)
    images, labels = (torch.cat(parts) for parts in zip(*loader.epoch(5), strict=True))
    for i, row in enumerate(order.tolist()):
        expected = by_hand(dataset, row, corners[i].tolist(), bool(flips[i]))
        np.testing.assert_allclose(images[i].numpy(), expected, atol=1e-12)
    assert torch.equal(labels, dataset.train_labels[order])
    assert flips.any() == flip


def test_draws_follow_from_seed_and_epoch_alone(tiny_dataset):
    """The same seed and epoch give the same draws, whatever was drawn before; others differ; each image comes once."""
    loader, again, other = (TrainLoader(tiny_dataset, 10, seed, CPU) for seed in (0, 0, 1))
    for _ in loader.epoch(0):
        torch.rand(7)
    for a, b in zip(loader.draws(1), again.draws(1), strict=True):
        assert torch.equal(a, b)
    for different in (loader.draws(2), other.draws(1), other.draws(0)):
        assert not any(torch.equal(a, b) for a, b in zip(loader.draws(1), different, strict=True))
    assert sorted(loader.draws(1)[0].tolist()) == list(range(40))


def test_corners_and_flips_are_fair():
    """All nine offsets occur in each direction about equally often, and about half the images are mirrored."""
    images, labels = torch.zeros(9000, 1, 2, 2, dtype=torch.uint8), torch.zeros(9000, dtype=torch.int64)
    dataset = Dataset("many", images, labels, images[:1], labels[:1], 1, (0.5,), (0.5,))
    _, corners, flips = TrainLoader(dataset, 100, 0, CPU).draws(0)
    for side in corners.T:
        counts = side.bincount()
        assert len(counts) == 9 and counts.min() > 850 and counts.max() < 1150
    assert 4300 < int(flips.sum()) < 4700


def test_lengths_and_last_batch(tiny_dataset):
    """The last batch may be smaller; nothing is dropped."""
    loader = TrainLoader(tiny_dataset, 12, 0, CPU)
    assert [len(labels) for _, labels in loader.epoch(0)] == [12, 12, 12, 4]
    assert len(loader) == 4


def test_test_batches_are_in_order_and_unaugmented():
    """Test images come in order, normalised and otherwise unchanged."""
    dataset = varied((8, 8))
    images, labels = (torch.cat(p) for p in zip(*TestLoader(dataset, CPU, torch.float64, batch_size=4), strict=True))
    column = [torch.tensor(v, dtype=torch.float64).view(1, 3, 1, 1) for v in (dataset.mean, dataset.std)]
    torch.testing.assert_close(images, (dataset.test_images.double() / 255 - column[0]) / column[1])
    assert torch.equal(labels, dataset.test_labels)


@pytest.mark.parametrize("known", datasets.ROWS, ids=lambda known: known.name)
def test_a_row_says_what_its_data_set_is(known):
    """`RunConfig` accepts its name, and its classes, their names and its source are consistent."""
    assert RunConfig(dataset=known.name).dataset == known.name and len(known.mean) == len(known.std) == 3
    assert len(known.classes) in (0, known.num_classes)
    assert tuple(known.class_of.values()) in ((), known.classes)
    assert bool(known.fetch) == bool(known.by_hand)
    assert known.is_folder == (known.read is read_folder)


# --- CIFAR


@pytest.fixture(params=["cifar10", "cifar100"])
def fake_cifar(request, tmp_path, monkeypatch):
    """A folder of four-image files in CIFAR's format, with their checksums in place of the official ones."""
    name, sums = request.param, {}
    key, classes = ("labels", 10) if name == "cifar10" else ("fine_labels", 100)
    for i, file in enumerate(DATASETS[name].files):
        images = np.random.RandomState(i).randint(256, size=(4, 3072)).astype(np.uint8)
        raw = pickle.dumps({"data": images, key: [(7 * i + j) % classes for j in range(4)]})
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).write_bytes(raw)
        sums[file] = hashlib.md5(raw).hexdigest()
    monkeypatch.setitem(DATASETS, name, replace(DATASETS[name], files=sums))
    return name, tmp_path


def test_cifar_is_read_file_by_file(fake_cifar):
    """Images, channels first, and labels come from all files; the last file is the test set."""
    name, folder = fake_cifar
    dataset, files = datasets.load(name, folder), list(DATASETS[name].files)
    assert len(dataset.train_images) == 4 * (len(files) - 1) and len(dataset.test_images) == 4
    raw = pickle.loads((folder / files[-1]).read_bytes())["data"]
    assert np.array_equal(dataset.test_images[2, 1].numpy().ravel(), raw[2, 1024:2048])
    assert dataset.test_labels.tolist() == [7 * (len(files) - 1) % dataset.num_classes + j for j in range(4)]
    assert dataset.num_classes == (10 if name == "cifar10" else 100)


@pytest.mark.parametrize(
    "damage",
    [lambda raw: raw[:-10], lambda raw: raw[:50] + bytes([raw[50] ^ 1]) + raw[51:]],
    ids=["truncated", "flipped bit"],
)
def test_damaged_cifar_is_named_and_left(fake_cifar, damage):
    """A damaged file fails its checksum before it is unpickled, and stays as it was."""
    name, folder = fake_cifar
    path = folder / list(DATASETS[name].files)[1]
    raw = damage(path.read_bytes())
    path.write_bytes(raw)
    with pytest.raises(DcilError, match=f"{re.escape(str(path))} is damaged: md5 .*left as it is.*--download"):
        datasets.load(name, folder)
    assert path.read_bytes() == raw


def test_missing_cifar_says_how_to_get_it(tmp_path, monkeypatch):
    """The error names the folder searched, the first missing file and three remedies."""
    remedies = r"data_batch_1 is missing.*--data-dir \(in Python and chapters data_dir\) or DCIL_DATA.*--download"
    with pytest.raises(DcilError, match=remedies) as caught:
        datasets.load("cifar10", tmp_path / "none")
    assert str(tmp_path / "none") in str(caught.value)
    monkeypatch.setenv("DCIL_DATA", str(tmp_path / "env"))
    with pytest.raises(DcilError, match="env: cifar-100-python/train is missing"):
        datasets.load("cifar100")


def test_unknown_dataset_suggests_the_nearest():
    with pytest.raises(DcilError, match="unknown dataset 'cifar'.*did you mean 'cifar10"):
        datasets.load("cifar")


@pytest.fixture
def downloads(fake_cifar, monkeypatch):
    """Replace torchvision's download by one that restores the fake files; returns the list of its calls."""
    name, folder = fake_cifar
    files = {file: (folder / file).read_bytes() for file in DATASETS[name].files}
    calls = []

    def stand_in(root, download=False):
        calls.append((root, download))
        for file, raw in files.items():
            (folder / file).write_bytes(raw)

    monkeypatch.setattr(import_torchvision().datasets, name.upper(), stand_in)
    return calls


def test_download_fetches_only_what_is_missing(fake_cifar, downloads):
    """If all files are there nothing is fetched; if one is missing torchvision is called once."""
    name, folder = fake_cifar
    datasets.load(name, folder, download=True)
    assert downloads == []
    (folder / list(DATASETS[name].files)[0]).unlink()
    with pytest.raises(DcilError, match="is missing"):
        datasets.load(name, folder)
    assert downloads == []
    assert len(datasets.load(name, folder, download=True).test_labels) == 4
    assert downloads == [(str(folder), True)]


def test_failed_download_is_an_error_for_people(tmp_path, monkeypatch):
    """Without a network, the error passes on the reason and says what to do."""

    def offline(root, download):
        raise OSError("no route to host")

    monkeypatch.setattr(import_torchvision().datasets, "CIFAR10", offline)
    with pytest.raises(DcilError, match="cifar10 could not be fetched.*no route to host.*by hand"):
        datasets.load("cifar10", tmp_path, download=True)


@pytest.mark.cifar
def test_real_cifar10():
    """The official files pass their checksums and hold 50,000 and 10,000 images, evenly spread over ten classes."""
    dataset = datasets.load("cifar10")
    assert dataset.train_images.shape == (50_000, 3, 32, 32) and dataset.test_images.shape == (10_000, 3, 32, 32)
    assert dataset.train_labels.bincount().tolist() == [5000] * 10
    assert dataset.test_labels.bincount().tolist() == [1000] * 10
    mean = dataset.train_images.float().mean((0, 2, 3)) / 255
    assert mean.tolist() == pytest.approx(dataset.mean, abs=1e-3)
