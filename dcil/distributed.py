"""Data-parallel training of one run by several processes: ranks, collectives and consistency checks.

A run started without `torchrun` is a team of one, for which everything here is a no-op. Under `torchrun` every
process is a rank: it trains on its share of each batch, and gradients, metrics and decisions are reduced over ranks.
"""

from __future__ import annotations

import atexit
import hashlib
import os
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from dcil.errors import DcilError

T = TypeVar("T")


@dataclass(frozen=True)
class Ranks:
    """A process's rank in its team: `rank` of `size`, and `local`, its rank on its machine."""

    rank: int = 0
    size: int = 1
    local: int = 0

    @property
    def is_first(self) -> bool:
        """Whether this process is rank 0, the one that writes files and prints."""
        return self.rank == 0

    def first(self, act: Callable[[], T]) -> T:
        """Call `act` on the first rank only; on every rank, return its result or raise its `DcilError` or `OSError`."""
        if self.size == 1:
            return act()
        box: list = [None, None]
        if self.is_first:
            try:
                box[0] = act()
            except (DcilError, OSError) as error:
                box[1] = error
        dist.broadcast_object_list(box)
        if box[1] is not None:
            raise box[1]
        return box[0]

    def in_turn(self, act: Callable[[], T]) -> T:
        """Call `act` on every rank, on the first before all others (which then find what it downloaded)."""
        mine: list[T] = []
        self.first(lambda: mine.append(act()))
        return mine[0] if mine else act()

    def sum_(self, tensors: Iterable[Tensor]) -> None:
        """Sum each tensor over all ranks, in place."""
        if self.size > 1:
            for tensor in tensors:
                dist.all_reduce(tensor)

    def mean_(self, tensors: Iterable[Tensor]) -> None:
        """Average each floating-point tensor over all ranks, in place."""
        if self.size > 1:
            for tensor in tensors:
                dist.all_reduce(tensor)
                tensor.div_(self.size)

    def mean_buffers_(self, *modules: nn.Module) -> None:
        """Average the modules' floating-point buffers (running statistics of norms) over all ranks, in place.

        Their update is linear in the previous value, so averaging early does not change a later average.
        """
        self.mean_(b for module in modules for b in module.buffers() if b.is_floating_point())

    def interleaved(self, mine: Tensor) -> Tensor:
        """Return, on every rank, all ranks' boolean vectors interleaved: rank r of n has the elements r, r + n, ..."""
        if self.size == 1:
            return mine
        count = torch.tensor(len(mine), device=mine.device)
        self.sum_([count])
        every = torch.zeros(int(count), dtype=torch.uint8, device=mine.device)  # gloo cannot sum booleans
        every[self.rank :: self.size] = mine.byte()
        self.sum_([every])
        return every.bool()

    def check_same(self, tensors: Iterable[Tensor], what: str) -> None:
        """Raise `DcilError` on every rank if a tensor differs between any two ranks."""
        if self.size > 1:
            digests: list[str] = [""] * self.size
            dist.all_gather_object(digests, digest(tensors))
            if len(set(digests)) > 1:
                raise DcilError(
                    f"{what} differ between ranks: {', '.join(d[:8] for d in digests)}. The ranks must run "
                    "the same code on machines of the same kind"
                )


ALONE = Ranks()


def join(device_type: str) -> Ranks:
    """Return this process's `Ranks`; under `torchrun`, join the process group first (NCCL on GPUs, gloo on CPUs).

    The group lives until the process ends, for the runs that follow. A group that the caller opened is used
    and never closed. Raises `DcilError` if the processes cannot connect.
    """
    if not (os.environ.get("WORLD_SIZE") and os.environ.get("RANK")):
        return ALONE
    local = int(os.environ.get("LOCAL_RANK", 0))
    if device_type == "cuda":
        if local >= torch.cuda.device_count():
            raise DcilError(
                f"rank {local} of this machine has no GPU of its own: PyTorch sees {torch.cuda.device_count()}; "
                "lower --nproc-per-node, or use --device cpu"
            )
        torch.cuda.set_device(local)
    if not dist.is_initialized():
        try:
            dist.init_process_group("nccl" if device_type == "cuda" else "gloo")
        except ValueError as error:
            raise DcilError(
                f"WORLD_SIZE and RANK are set, as torchrun sets them, but the ranks cannot connect ({error}). "
                "Start them with torchrun, or unset both to train alone"
            ) from error
        atexit.register(_leave)  # not after a run: rejoining for the next run would hang
    return Ranks(dist.get_rank(), dist.get_world_size(), local)


def _leave() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()


def share(model: nn.Module, ranks: Ranks, device: torch.device, every_pass: bool = True) -> nn.Module:
    """Wrap the model in DDP, which averages gradients over the ranks (a team of one gets the model itself).

    Unlike DDP's default, buffers are not broadcast at every step: masks follow from equal weights, and running
    statistics are averaged where they are used (`Ranks.mean_buffers_`). `every_pass` is False if some steps skip a
    pass: DDP then does not wait for gradients of the norms and head of a pass that did not run.
    """
    if ranks.size == 1:
        return model
    where = [device.index] if device.type == "cuda" else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # the replacement is not in PyTorch 2.11
        return nn.parallel.DistributedDataParallel(
            model, device_ids=where, broadcast_buffers=False, find_unused_parameters=not every_pass
        )


def digest(tensors: Iterable[Tensor]) -> str:
    """Return a SHA-256 over the tensors' bytes, to compare tensors between ranks."""
    hashed = hashlib.sha256()
    for tensor in tensors:
        hashed.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return hashed.hexdigest()
