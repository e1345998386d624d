"""Batches from a data set that stays on the device: augmented by batch, the same on any device."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from dcil.data import Dataset
from dcil.errors import DcilError
from dcil.ranks import ALONE, Ranks

PAD = 4  # pixels of black around an image before the random crop (authors)


class Normalize:
    """uint8 [N, C, H, W] -> (x/255 − mean)/std in `dtype`, per channel."""

    def __init__(self, dataset: Dataset, device: torch.device, dtype: torch.dtype = torch.float32):
        def column(values: tuple[float, ...]) -> Tensor:
            return torch.tensor(values, dtype=dtype, device=device).view(1, -1, 1, 1) * 255

        self.mean, self.std, self.dtype = column(dataset.mean), column(dataset.std), dtype

    def __call__(self, images: Tensor) -> Tensor:
        return images.to(self.dtype).sub_(self.mean).div_(self.std)


class TrainLoader:
    """Batches of padded, randomly cropped and flipped training images, made on the device.

    The order and every crop depend only on (seed, epoch), on any device: they are drawn on the
    CPU, once an epoch. The last batch may be smaller, as in the authors' code. Several ranks cut
    each batch between them: rank r takes every size-th image from the r-th on.
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
        if min(batch_size, len(dataset.train_labels) % batch_size or batch_size) < ranks.size:
            raise DcilError(f"{len(dataset.train_labels)} images in batches of {batch_size} leave a batch smaller than "
                            f"the {ranks.size} ranks; choose another batch size or fewer ranks")  # fmt: skip
        padded = torch.nn.functional.pad(dataset.train_images, (PAD,) * 4).to(device)
        height, width = dataset.train_images.shape[-2:]
        # A view, not a copy: [N, C, 2·PAD+1, 2·PAD+1, H, W] holds every crop of every image.
        self.crops = padded.unfold(2, height, 1).unfold(3, width, 1)
        self.labels = dataset.train_labels.to(device)
        self.normalize = Normalize(dataset, device, dtype)
        self.batch_size, self.seed, self.flip, self.device = batch_size, seed, dataset.flip, device
        self.ranks = ranks

    def __len__(self) -> int:
        return -(-len(self.labels) // self.batch_size)

    def draws(self, epoch: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return the epoch's order [N], crop corners [N, 2] in 0..8 and flips [N] (boolean), on the CPU."""
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + epoch)
        n = len(self.labels)
        order = torch.randperm(n, generator=generator)
        corners = torch.randint(2 * PAD + 1, (n, 2), generator=generator)
        flips = torch.randint(2, (n,), generator=generator).bool() & self.flip
        return order, corners, flips

    def share(self, index: int) -> float:
        """Return how this rank's part of a batch weighs in the mean over ranks: 1 where all parts are equal."""
        whole = min(self.batch_size, len(self.labels) - index * self.batch_size)
        return len(range(self.ranks.rank, whole, self.ranks.size)) * self.ranks.size / whole

    def epoch(self, epoch: int, first: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield (images [B, C, H, W], labels [B]) for one pass over the training set, from batch `first` on."""
        order, corners, flips = (t.to(self.device) for t in self.draws(epoch))
        for start in range(first * self.batch_size, len(order), self.batch_size):
            part = slice(start + self.ranks.rank, min(start + self.batch_size, len(order)), self.ranks.size)
            rows = order[part]
            images = self.crops[rows, :, corners[part, 0], corners[part, 1]]
            images = torch.where(flips[part].view(-1, 1, 1, 1), images.flip(-1), images)
            yield self.normalize(images), self.labels[rows]


class TestLoader:
    """Batches of the test set in file order, unaugmented; of several ranks each has its share."""

    __test__ = False  # not a test class, whatever pytest thinks of its name

    def __init__(
        self,
        dataset: Dataset,
        device: torch.device,
        dtype: torch.dtype = torch.float32,
        ranks: Ranks = ALONE,
        batch_size: int = 1000,
    ):
        mine = slice(ranks.rank, None, ranks.size)
        self.images, self.labels = dataset.test_images[mine].to(device), dataset.test_labels[mine].to(device)
        self.normalize, self.batch_size = Normalize(dataset, device, dtype), batch_size

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for start in range(0, len(self.labels), self.batch_size):
            part = slice(start, start + self.batch_size)
            yield self.normalize(self.images[part]), self.labels[part]
