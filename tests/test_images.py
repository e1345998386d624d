"""Folders of images: what is read, what is refused by name, and samples that do not depend on how they are made."""

import os
import pickle
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dcil.data import datasets
from dcil.data.crops import AREA, RATIO, central_sample, training_crop, training_sample
from dcil.data.datasets import imagefolder
from dcil.data.decoding import Store
from dcil.data.loaders import FolderTestLoader, FolderTrainLoader
from dcil.data.vision import import_torchvision
from dcil.distributed import Ranks
from dcil.errors import DcilError

CPU = torch.device("cpu")


def noise(path, height, width, seed=0):
    """Write an image of noise, smooth enough to be compared after resizing."""
    rough = np.random.RandomState(seed).randint(256, size=(height // 4 + 1, width // 4 + 1, 3)).astype(np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(rough).resize((width, height)).save(path)


@pytest.fixture
def folder(tmp_path):
    """train/ with two classes of five images, one of them grey, and a CMYK image, and val/ with two of each class."""
    for part, count in (("train", 5), ("val", 2)):
        for label, kind in enumerate(("blue", "red")):
            for i in range(count):
                noise(tmp_path / "set" / part / kind / f"{i}.png", 40 + 4 * i, 50 - 3 * i, seed=10 * label + i)
    Image.new("L", (20, 24), 100).save(tmp_path / "set" / "train" / "red" / "0.png")
    Image.new("CMYK", (24, 20), (0, 255, 255, 0)).save(tmp_path / "set" / "train" / "red" / "1.jpg")
    return tmp_path / "set"


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "decoded")


def test_folder(folder, store, capsys):
    """Files come in the order of classes and names, with their sizes; greys and CMYK are converted, with a message."""
    found = datasets.load("imagefolder", folder, store=store)
    assert found.train_labels.tolist() == [0] * 5 + [1] * 6 and found.test_labels.tolist() == [0, 0, 1, 1]
    assert found.num_classes == 2 and found.name == "imagefolder"
    assert found.train.sizes[:3].tolist() == [[40, 50], [44, 47], [48, 44]]
    assert found.train.image(5)[:, 3, 3].tolist() == [100, 100, 100]
    red = found.train.image(6)[:, 3, 3].tolist()
    assert red[0] > 200 and max(red[1:]) < 60
    assert "2 of 11 images are not RGB and were converted: L 1, CMYK 1" in capsys.readouterr().err


def test_decoded_once(folder, store, monkeypatch):
    """With its decoded copy a folder is read without decoding anything again, and a changed file is noticed."""
    first = imagefolder(folder, store)
    assert first.train.pixels_file is not None and len(list(store.folder.glob("*.pixels"))) == 2
    with monkeypatch.context() as patch:
        patch.setattr("dcil.data.decoding.decode", lambda path: pytest.fail(f"{path} was decoded again"))
        again = imagefolder(folder, store)
        assert torch.equal(again.train.image(3), first.train.image(3)) and again.checksum() == first.checksum()
    noise(folder / "train" / "blue" / "3.png", 30, 30, seed=99)
    changed = imagefolder(folder, store)
    assert changed.train.image(3).shape == (3, 30, 30) and changed.checksum() != first.checksum()


@pytest.mark.parametrize("kept", [Store(Path("kept")), None], ids=["decoded copy", "originals"])
def test_another_working_directory_later(folder, kept, monkeypatch, tmp_path):
    """A folder given by a relative path is still read after the working directory changes."""
    monkeypatch.chdir(folder.parent)
    found = imagefolder(Path(folder.name), kept)
    monkeypatch.chdir("/")
    assert torch.equal(found.train.image(3), imagefolder(folder).train.image(3))
    assert found.checksum() == imagefolder(folder).checksum()


def test_decoded_copy_cut_short_is_made_again(folder, store):
    first = imagefolder(folder, store)
    raw = first.test.pixels_file.read_bytes()
    first.test.pixels_file.write_bytes(raw[:-1])
    assert imagefolder(folder, store).test.pixels_file.read_bytes() == raw


def test_damaged_sizes_are_named_and_left(folder, store):
    """Truncated or empty sizes give an error that says which file to move away."""
    imagefolder(folder, store)
    file = min(store.folder.glob("*.sizes.npy"))
    for damaged in (file.read_bytes()[:20], b""):
        for each in store.folder.glob("*.sizes.npy"):
            each.write_bytes(damaged)
        with pytest.raises(DcilError, match=r"sizes\.npy cannot be read .*move it away"):
            imagefolder(folder, store)
        assert file.read_bytes() == damaged


@pytest.mark.parametrize("limit", [0.0, 1e-9])
def test_too_large_to_keep(folder, tmp_path, limit):
    """Images beyond the limit are read from the originals, and only their sizes are kept."""
    store = Store(tmp_path / "decoded", limit)
    found = imagefolder(folder, store)
    assert found.train.pixels_file is None and not list(store.folder.glob("*.pixels"))
    assert len(list(store.folder.glob("*.sizes.npy"))) == 2


def test_full_disk_is_named(folder, store, monkeypatch):
    """The error says the folder, the reason and the remedy."""
    store.folder.parent.mkdir(exist_ok=True)
    store.folder.write_text("a file where the folder should be")
    with pytest.raises(DcilError, match=r"could not be kept in .*decoded: .*--decoded-gib 0"):
        imagefolder(folder, store)


GREYS = np.linspace(0, 1, 24 * 20).reshape(24, 20)


@pytest.mark.parametrize(
    ("suffix", "pixels"),
    [
        ("png", (GREYS * 65535).astype(np.uint16)),
        ("tif", (GREYS * 65535).astype(np.uint16)),
        ("tif", GREYS.astype(np.float32)),
        ("tif", (GREYS * 2**30).astype(np.int32)),
    ],
    ids=["16-bit PNG", "16-bit TIFF", "float TIFF", "32-bit TIFF"],
)
def test_more_than_eight_bits_are_refused(folder, suffix, pixels):
    """They are named, with a remedy; clipping would make them white or black."""
    Image.fromarray(pixels).save(folder / "train" / "red" / f"deep.{suffix}")
    said = rf"deep\.{suffix} cannot be read .*more than 8 bits per channel.*save it with 8"
    with pytest.raises(DcilError, match=said):
        imagefolder(folder)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "YCbCr"])
def test_eight_bits_of_any_kind_are_read(folder, mode):
    """White stays white, whatever the mode."""
    kind = "tif" if mode in ("CMYK", "YCbCr") else "png"
    Image.new("RGB", (24, 20), (255, 255, 255)).convert(mode).save(folder / "train" / "blue" / f"+.{kind}")
    light = imagefolder(folder).train.image(0)
    assert light.shape == (3, 20, 24) and light.min() > 250


@pytest.mark.skipif(sys.platform == "darwin", reason="a Mac's file names are UTF-8")
def test_a_file_name_that_is_not_utf8(folder, store):
    """It is read, kept decoded and part of the checksum like any other; a class of such a name is refused."""
    first = imagefolder(folder, store)
    os.rename(folder / "train" / "blue" / "4.png", os.fsencode(folder / "train" / "blue") + b"/4\xe9.png")
    for _ in range(2):
        found = imagefolder(folder, store)
        assert torch.equal(found.train.image(4), first.train.image(4)) and found.checksum() != first.checksum()
    elsewhere = folder.rename(folder.parent / os.fsdecode(b"\xff"))
    assert imagefolder(elsewhere, store).checksum() == found.checksum()
    folder = elsewhere.rename(folder)
    for part in ("train", "val"):
        os.rename(folder / part / "red", os.fsencode(folder / part) + b"/r\xe9d")
    with pytest.raises(DcilError, match=r"class b'r\\xe9d' is not UTF-8; rename"):
        imagefolder(folder, store)


def test_a_worker_maps_the_pixels_anew(folder, store):
    """Where workers are spawned, as on a Mac, what a part sends them is no copy of all its images."""
    part = imagefolder(folder, store).train
    assert part.pixels_file and part.image(0).numel()  # now they are mapped here
    there = pickle.loads(pickle.dumps(part))
    assert "pixels" not in vars(there) and torch.equal(there.image(4), part.image(4))


# --- samples


@pytest.mark.parametrize("size", [(160, 160), (120, 200), (213, 97), (60, 40)])
def test_central_sample_is_torchvision_s(size):
    """Resize and CenterCrop of torchvision on Pillow images give the same pixels, up to one grey level."""
    transforms = import_torchvision().transforms
    pixels = np.random.RandomState(0).randint(256, size=(*size, 3)).astype(np.uint8)
    theirs = transforms.Compose([transforms.Resize(146), transforms.CenterCrop(128), transforms.PILToTensor()])
    ours = central_sample(torch.from_numpy(pixels).permute(2, 0, 1), 128)
    assert (ours.int() - theirs(Image.fromarray(pixels)).int()).abs().max() <= 1


def test_training_sample_is_torchvision_s():
    """The same rectangle, cropped and resized by torchvision, gives the same pixels, up to one grey level."""
    functional = import_torchvision().transforms.functional
    pixels = np.random.RandomState(0).randint(256, size=(90, 120, 3)).astype(np.uint8)
    for index in range(20):
        crop = training_crop(0, 0, index, (90, 120))
        theirs = functional.resized_crop(Image.fromarray(pixels), *crop[:4], [64, 64])
        theirs = functional.pil_to_tensor(functional.hflip(theirs) if crop.flip else theirs)
        ours = training_sample(torch.from_numpy(pixels).permute(2, 0, 1), crop, 64)
        assert (ours.int() - theirs.int()).abs().max() <= 1


def test_training_crops_spread_as_torchvision_s():
    """Area and aspect have the distribution of RandomResizedCrop; half the crops are mirrored."""
    torch.manual_seed(0)
    chosen = import_torchvision().transforms.RandomResizedCrop
    image = torch.zeros(3, 150, 200)
    theirs = np.array([chosen.get_params(image, list(AREA), list(RATIO)) for _ in range(4000)])
    crops = [training_crop(0, 1, i, (150, 200)) for i in range(4000)]
    ours = np.array([crop[:4] for crop in crops])
    assert ours.min() >= 0 and (ours[:, 0] + ours[:, 2]).max() <= 150 and (ours[:, 1] + ours[:, 3]).max() <= 200
    for figure in (
        lambda c: c[:, 2] * c[:, 3] / 30000,
        lambda c: np.log(c[:, 3] / c[:, 2]),
        lambda c: c[:, 0] / 150,
        lambda c: c[:, 1] / 200,
    ):
        a, b = figure(ours), figure(theirs)
        assert abs(a.mean() - b.mean()) < 5 * np.sqrt((a.var() + b.var()) / 4000)
        assert a.std() == pytest.approx(b.std(), rel=0.06)
    assert np.mean([crop.flip for crop in crops]) == pytest.approx(0.5, abs=0.03)


def test_no_allowed_aspect_fits():
    """A strip gives its largest central part of an allowed aspect."""
    crop = training_crop(0, 0, 0, (10, 1000))
    assert crop[:4] == (0, 493, 10, 13)


def test_samples_are_the_same_however_they_are_made(folder, store):
    """They are equal from decoded or original images, with or without workers, begun in the middle, split by ranks."""
    decoded, original = imagefolder(folder, store), imagefolder(folder)

    def batches(dataset, first=0, **how):
        return list(FolderTrainLoader(dataset, 4, 7, 32, CPU, **how).epoch(3, first))

    reference = batches(decoded)
    assert [len(labels) for _, labels in reference] == [4, 4, 3]
    drawn = torch.get_rng_state()
    for other in (batches(original), batches(decoded, workers=2)):
        assert all(torch.equal(a, b) and torch.equal(x, y) for (a, x), (b, y) in zip(reference, other, strict=True))
    assert torch.equal(batches(decoded, first=2)[0][0], reference[2][0])
    parts = [batches(decoded, ranks=Ranks(rank, 2)) for rank in range(2)]
    for index, (images, _) in enumerate(reference):
        assert torch.equal(parts[0][index][0], images[::2]) and torch.equal(parts[1][index][0], images[1::2])
    assert torch.equal(torch.get_rng_state(), drawn)  # the caller's
    assert not torch.equal(reference[0][0], next(FolderTrainLoader(decoded, 4, 7, 32, CPU).epoch(4))[0])


def test_test_loader(folder, store):
    """Every test image comes once, in file order, split between ranks, normalised with ImageNet's statistics."""
    dataset = imagefolder(folder, store)
    images, labels = (torch.cat(p) for p in zip(*FolderTestLoader(dataset, 32, CPU, batch_size=3), strict=True))
    assert images.shape == (4, 3, 32, 32) and labels.tolist() == [0, 0, 1, 1]
    pixels = central_sample(dataset.test.image(2), 32) / 255
    wanted = (pixels - torch.tensor(dataset.mean).view(3, 1, 1)) / torch.tensor(dataset.std).view(3, 1, 1)
    torch.testing.assert_close(images[2], wanted)
    halves = [list(FolderTestLoader(dataset, 32, CPU, ranks=Ranks(rank, 2)))[0][0] for rank in range(2)]
    assert torch.equal(torch.cat(halves), images[[0, 2, 1, 3]])


# --- what is refused


def test_without_a_part(tmp_path):
    """A missing part is named, with the expected layout."""
    (tmp_path / "train" / "a").mkdir(parents=True)
    Image.new("L", (8, 8)).save(tmp_path / "train" / "a" / "0.png")
    with pytest.raises(DcilError, match="has no folder 'val'; an image folder holds train/CLASS"):
        datasets.load("imagefolder", tmp_path)
    with pytest.raises(DcilError, match="has no folder 'train'"):
        datasets.load("imagefolder", tmp_path / "none")


def test_other_classes_in_val(folder):
    """Classes that only one part has are named."""
    (folder / "val" / "red").rename(folder / "val" / "green")
    with pytest.raises(DcilError, match=r"only one of them has \['green', 'red'\]"):
        datasets.load("imagefolder", folder)


@pytest.mark.parametrize(
    "damage",
    [lambda raw: raw[:400], lambda raw: b"no image", lambda raw: b"", lambda raw: raw[:45] + b"XX" + raw[47:]],
    ids=["truncated", "text", "empty", "damaged"],
)
@pytest.mark.parametrize("kept", [True, False])
def test_unreadable_image(folder, store, damage, kept):
    """The file is named and left as it is, and its part of the folder is not kept decoded."""
    path = folder / "val" / "red" / "0.png"
    noise(path, 64, 64)
    raw = damage(path.read_bytes())
    path.write_bytes(raw)
    with pytest.raises(DcilError, match=f"{re.escape(str(path))} cannot be read as an image.*mend or remove it"):
        datasets.load("imagefolder", folder, store=store if kept else None)
    assert path.read_bytes() == raw and len(list(store.folder.glob("*.*"))) == (3 if kept else 0)  # of train/


def test_empty_class(folder):
    """A class without images is named."""
    (folder / "train" / "empty").mkdir()
    with pytest.raises(DcilError, match="no valid file for the classes empty.*, train/CLASS/.*; add one, or remove"):
        datasets.load("imagefolder", folder)


@pytest.mark.parametrize("target", ["nowhere.png", "9.png"])
def test_a_link_that_leads_nowhere(folder, target):
    """A link to a missing file, or to itself, is named with its target."""
    (folder / "train" / "red" / "9.png").symlink_to(target)
    with pytest.raises(DcilError, match=f"9.png is a link to {target}, which is out of reach .*; mend or remove it"):
        datasets.load("imagefolder", folder)


def test_a_folder_as_text(folder):
    assert datasets.imagefolder(str(folder)).classes == datasets.imagefolder(folder).classes


def test_wrong_classes(folder, tmp_path):
    """A folder with other classes than the data set asked for, and a missing data set, are refused."""
    with pytest.raises(DcilError, match="is not imagenette: it has 2 classes, expected 10. For other images"):
        datasets.load("imagenette", folder)
    with pytest.raises(DcilError, match="is not imagenet: it has 2 classes, expected 1000"):
        datasets.load("imagenet", folder)
    with pytest.raises(DcilError, match=r"imagenette is not in .*imagenette160/.*or fetch it with --download"):
        datasets.load("imagenette", tmp_path / "nowhere")


def test_imagenette_download(folder, tmp_path, monkeypatch):
    """`download` fetches what is missing, and passes on what goes wrong."""

    def fetch(root, size, download):
        assert size == "160px" and download
        raise RuntimeError("no route to host")

    monkeypatch.setattr(import_torchvision().datasets, "Imagenette", fetch)
    with pytest.raises(DcilError, match="imagenette could not be fetched into .*no route to host"):
        datasets.load("imagenette", tmp_path / "nowhere", download=True)
