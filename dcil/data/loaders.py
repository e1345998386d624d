"""Batches of a data set that stays on the device, or of images read from a folder; the same on every device."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from dcil.data.crops import RESIZE, central_sample, training_crop, training_sample
from dcil.data.datasets import Dataset
from dcil.data.images import ImageFolder, Part
from dcil.data.known import Known
from dcil.distributed import ALONE, Ranks
from dcil.errors import DcilError
from dcil.machine import num_cores

PAD = 4  # pixels of black around an image before the random crop (authors)


def feed_of(data: Dataset | ImageFolder | Known, size: Sequence[int], cropped: bool) -> dict[str, Any]:
    """Return the input format of a network: the data set's name, size (height, width) and normalisation of test images.

    `short` is the short side to which an image is resized before the central crop; larger than `size` if `cropped`.
    """
    short = round(size[0] * RESIZE) if cropped else min(size)
    return {"dataset": data.name, "size": list(size), "short": short, "mean": list(data.mean), "std": list(data.std)}


class Normalize:
    """uint8 [N, C, H, W] -> (x/255 − mean)/std in `dtype`, per channel."""

    def __init__(self, dataset: Dataset | ImageFolder, device: torch.device, dtype: torch.dtype = torch.float32):
        def column(values: tuple[float, ...]) -> Tensor:
            return torch.tensor(values, dtype=dtype, device=device).view(1, -1, 1, 1) * 255

        self.mean, self.std, self.dtype = column(dataset.mean), column(dataset.std), dtype

    def __call__(self, images: Tensor) -> Tensor:
        return images.to(self.dtype, copy=True).sub_(self.mean).div_(self.std)


class Batches:
    """The batches of a training set, whose order depends on seed and epoch; several ranks share each batch.

    Rank r of n takes the images r, r + n, r + 2n, ... of a batch. The last batch may be smaller, as in the authors'
    code.
    """

    def __init__(self, count: int, batch_size: int, seed: int, ranks: Ranks = ALONE):
        self.least = min(batch_size, count % batch_size or batch_size) // ranks.size  # fewest images per rank and step
        if not self.least:
            raise DcilError(
                f"{count} images in batches of {batch_size} leave a batch smaller than "
                f"the {ranks.size} ranks; choose another batch size or fewer ranks"
            )
        self.count, self.batch_size, self.seed, self.ranks = count, batch_size, seed, ranks

    def __len__(self) -> int:
        return -(-self.count // self.batch_size)

    def generator(self, epoch: int) -> torch.Generator:
        """Return the random generator of an epoch, on the CPU."""
        return torch.Generator().manual_seed(self.seed * 1_000_003 + epoch)

    def part(self, index: int) -> slice:
        """Return the slice of the epoch's order that is this rank's part of a batch."""
        start = index * self.batch_size
        return slice(start + self.ranks.rank, min(start + self.batch_size, self.count), self.ranks.size)

    def share(self, index: int) -> float:
        """Return the weight of this rank's part of a batch in the mean over ranks: 1 if all parts are of equal size."""
        whole = min(self.batch_size, self.count - index * self.batch_size)
        return len(range(self.ranks.rank, whole, self.ranks.size)) * self.ranks.size / whole


class TrainLoader(Batches):
    """Batches of padded, randomly cropped and flipped training images, augmented on the device.

    The order and every crop depend only on (seed, epoch), whatever the device: they are drawn on the
    CPU, once per epoch.
    """

    def __init__(
        self,
        dataset: Dataset,
        batch_size: int,
        seed: int,
        device: torch.device,
        dtype: torch.dtype = torch.float32,
        ranks: Ranks = ALONE,
    ):
        super().__init__(len(dataset.train_labels), batch_size, seed, ranks)
        padded = torch.nn.functional.pad(dataset.train_images, (PAD,) * 4).to(device)
        height, width = dataset.train_images.shape[-2:]
        # A view, not a copy: [N, C, 2·PAD+1, 2·PAD+1, H, W] holds every crop of every image.
        self.crops = padded.unfold(2, height, 1).unfold(3, width, 1)
        self.labels = dataset.train_labels.to(device)
        self.normalize = Normalize(dataset, device, dtype)
        self.flip, self.device = dataset.flip, device

    def draws(self, epoch: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return the epoch's order [N], crop corners [N, 2] in 0..8 and flips [N] (boolean), on the CPU."""
        generator, n = self.generator(epoch), self.count
        order = torch.randperm(n, generator=generator)
        corners = torch.randint(2 * PAD + 1, (n, 2), generator=generator)
        flips = torch.randint(2, (n,), generator=generator).bool() & self.flip
        return order, corners, flips

    def epoch(self, epoch: int, first: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield (images [B, C, H, W], labels [B]) for one pass over the training set, from batch `first` on."""
        pin = self.device.type == "cuda"  # from pageable memory the copy would synchronise with the device
        order, corners, flips = (
            (drawn.pin_memory() if pin else drawn).to(self.device, non_blocking=pin) for drawn in self.draws(epoch)
        )
        for index in range(first, len(self)):
            part = self.part(index)
            rows = order[part]
            images = self.crops[rows, :, corners[part, 0], corners[part, 1]]
            images = torch.where(flips[part].view(-1, 1, 1, 1), images.flip(-1), images)
            yield self.normalize(images), self.labels[rows]


class TestLoader:
    """Batches of the test set in file order, without augmentation; each of several ranks has its share."""

    __test__ = False  # pytest would collect it by its name

    def __init__(
        self,
        dataset: Dataset,
        device: torch.device,
        dtype: torch.dtype = torch.float32,
        ranks: Ranks = ALONE,
        batch_size: int | None = None,
    ):
        mine = slice(ranks.rank, None, ranks.size)
        self.images, self.labels = dataset.test_images[mine].to(device), dataset.test_labels[mine].to(device)
        # On a CPU the activations of a small batch stay in cache, which halves the time of a float32 test.
        self.batch_size = batch_size or (1000 if device.type == "cuda" else 100)
        self.normalize = Normalize(dataset, device, dtype)
        self.feed = feed_of(dataset, dataset.test_images.shape[2:], cropped=False)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for start in range(0, len(self.labels), self.batch_size):
            part = slice(start, start + self.batch_size)
            yield self.normalize(self.images[part]), self.labels[part]


# --- folders of images


class Samples(torch.utils.data.Dataset):
    """Batches of images of a folder, as a data set for `DataLoader` and its workers: item `i` is the batch `rows[i]`.

    Random training crops with an `epoch`, central crops without. A sample depends only on (seed, epoch,
    row): not on the order, the workers, the ranks, or on whether its pixels come from the cache.
    """

    def __init__(self, part: Part, rows: list[Tensor], side: int, seed: int = 0, epoch: int | None = None):
        self.part, self.rows, self.side, self.seed, self.epoch = part, rows, side, seed, epoch

    def __len__(self) -> int:
        return len(self.rows)

    def sample(self, row: int) -> Tensor:
        """Return one image, uint8 [3, side, side]."""
        image = self.part.image(row)
        if self.epoch is None:
            return central_sample(image, self.side)
        return training_sample(
            image, training_crop(self.seed, self.epoch, row, (image.shape[1], image.shape[2])), self.side
        )

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        rows = self.rows[index]
        return torch.stack([self.sample(row) for row in rows.tolist()]), self.part.labels[rows]

    def batches(self, device: torch.device, workers: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield (images uint8 [B, 3, side, side], labels [B]) on the device."""
        pin, unused = device.type == "cuda", torch.Generator()  # else it would draw from the global generator
        for images, labels in DataLoader(self, batch_size=None, num_workers=workers, pin_memory=pin, generator=unused):
            yield images.to(device, non_blocking=pin), labels.to(device, non_blocking=pin)


def default_workers(device: torch.device) -> int:
    """Return how many processes should prepare images: none on a CPU; with GPUs, each GPU's share of the cores."""
    if device.type == "cpu":
        return 0
    return max(1, num_cores() // int(os.environ.get("LOCAL_WORLD_SIZE", 1)))


class FolderTrainLoader(Batches):
    """Batches of training crops of a folder's images, prepared by `workers` processes (0: by this process)."""

    def __init__(
        self,
        dataset: ImageFolder,
        batch_size: int,
        seed: int,
        side: int,
        device: torch.device,
        dtype: torch.dtype = torch.float32,
        ranks: Ranks = ALONE,
        workers: int = 0,
    ):
        super().__init__(len(dataset.train_labels), batch_size, seed, ranks)
        self.images, self.side, self.device, self.workers = dataset.train, side, device, workers
        self.normalize = Normalize(dataset, device, dtype)

    def epoch(self, epoch: int, first: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield (images [B, 3, side, side], labels [B]) for one pass over the training set, from batch `first` on."""
        order = torch.randperm(self.count, generator=self.generator(epoch))
        rows = [order[self.part(index)] for index in range(first, len(self))]
        samples = Samples(self.images, rows, self.side, self.seed, epoch)
        for images, labels in samples.batches(self.device, self.workers):
            yield self.normalize(images), labels


class FolderTestLoader:
    """Batches of central crops of a folder's test images in file order; each of several ranks has its share."""

    def __init__(
        self,
        dataset: ImageFolder,
        side: int,
        device: torch.device,
        dtype: torch.dtype = torch.float32,
        ranks: Ranks = ALONE,
        workers: int = 0,
        batch_size: int = 250,
    ):
        rows = torch.arange(ranks.rank, len(dataset.test_labels), ranks.size)
        self.samples = Samples(dataset.test, list(rows.split(batch_size)), side)
        self.device, self.workers, self.normalize = device, workers, Normalize(dataset, device, dtype)
        self.feed = feed_of(dataset, (side, side), cropped=True)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for images, labels in self.samples.batches(self.device, self.workers):
            yield self.normalize(images), labels


class Sampling(Protocol):
    """The fields of a configuration that determine its batches; a `dcil.config.ResolvedConfig` has them."""

    @property
    def batch_size(self) -> int: ...
    @property
    def seed(self) -> int: ...
    @property
    def image_size(self) -> int: ...


def loaders_of(
    dataset: Dataset | ImageFolder,
    config: Sampling,
    device: torch.device,
    dtype: torch.dtype,
    ranks: Ranks = ALONE,
    workers: int | None = None,
) -> tuple[TrainLoader | FolderTrainLoader, TestLoader | FolderTestLoader]:
    """Return the training and the test loader of a data set; the default of `workers` is `default_workers`.

    Raises `DcilError` for a negative number of workers.
    """
    if workers is not None and workers < 0:
        raise DcilError(f"workers is {workers}; it must be 0 (the training process prepares images itself) or more")
    if isinstance(dataset, Dataset):
        return (
            TrainLoader(dataset, config.batch_size, config.seed, device, dtype, ranks),
            TestLoader(dataset, device, dtype, ranks),
        )
    workers, side = default_workers(device) if workers is None else workers, config.image_size
    return (
        FolderTrainLoader(dataset, config.batch_size, config.seed, side, device, dtype, ranks, workers),
        FolderTestLoader(dataset, side, device, dtype, ranks, workers),
    )
