"""Several processes that train one run together: who they are, what they share and what they must agree on.

A run started plainly is a team of one, and everything here is then free. Under `torchrun` every
process is a rank: it has its share of each batch, and gradients, metrics and decisions are joined.
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
    """A process's place in its team: `rank` of `size`, and `local`, its place on its machine."""

    rank: int = 0
    size: int = 1
    local: int = 0

    @property
    def is_first(self) -> bool:
        """Whether this process is the one that writes files and talks to people."""
        return self.rank == 0

    def first(self, act: Callable[[], T]) -> T:
        """Let the first rank act; return what it returned, or raise the `DcilError` it raised, on every rank."""
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
        """Let every rank act, the first before all others (which find what it fetched)."""
        mine: list[T] = []
        self.first(lambda: mine.append(act()))
        return mine[0] if mine else act()

    def sum_(self, tensors: Iterable[Tensor]) -> None:
        """Add each tensor up over all ranks, in place."""
        if self.size > 1:
            for tensor in tensors:
                dist.all_reduce(tensor)

    def mean_(self, tensors: Iterable[Tensor]) -> None:
        """Average each floating tensor over all ranks, in place."""
        if self.size > 1:
            for tensor in tensors:
                dist.all_reduce(tensor)
                tensor.div_(self.size)

    def mean_buffers_(self, *modules: nn.Module) -> None:
        """Average the modules' floating buffers, norm statistics, over all ranks, in place.

        Running statistics are linear in what they were, so a mean in between leaves the next mean what it would be.
        """
        self.mean_(b for module in modules for b in module.buffers() if b.is_floating_point())

    def interleaved(self, mine: Tensor) -> Tensor:
        """Return the boolean vectors of all ranks as one on each rank: rank r's are every size-th, from the r-th on."""
        if self.size == 1:
            return mine
        count = torch.tensor(len(mine), device=mine.device)
        self.sum_([count])
        every = torch.zeros(int(count), dtype=torch.uint8, device=mine.device)  # gloo adds up no booleans
        every[self.rank :: self.size] = mine.byte()
        self.sum_([every])
        return every.bool()

    def check_same(self, tensors: Iterable[Tensor], what: str) -> None:
        """Raise `DcilError` on every rank if a tensor differs between any two."""
        if self.size > 1:
            digests: list[str] = [""] * self.size
            dist.all_gather_object(digests, digest(tensors))
            if len(set(digests)) > 1:
                raise DcilError(
                    f"{what} differ between ranks: {', '.join(d[:8] for d in digests)}. The ranks must run "
                    "the same code on machines of one kind"
                )


ALONE = Ranks()


def join(device_type: str) -> Ranks:
    """Return this process's place, joining the team first if `torchrun` started it (NCCL on GPUs, gloo on CPUs).

    The team stays together until the process ends, for the runs that follow. A group that the caller opened is used
    and left to the caller. Raises `DcilError` where the processes cannot meet.
    """
    if not (os.environ.get("WORLD_SIZE") and os.environ.get("RANK")):
        return ALONE
    local = int(os.environ.get("LOCAL_RANK", 0))
    if device_type == "cuda":
        if local >= torch.cuda.device_count():
            raise DcilError(
                f"rank {local} of this machine has no GPU of its own: {torch.cuda.device_count()} seen; "
                "lower --nproc-per-node, or use --device cpu"
            )
        torch.cuda.set_device(local)
    if not dist.is_initialized():
        try:
            dist.init_process_group("nccl" if device_type == "cuda" else "gloo")
        except ValueError as error:
            raise DcilError(
                f"WORLD_SIZE and RANK are set, as torchrun sets them, but the ranks cannot meet ({error}). "
                "Start them with torchrun, or unset both to train alone"
            ) from error
        atexit.register(_leave)  # not after a run: who has parted waits for ever when the next run wants to meet again
    return Ranks(dist.get_rank(), dist.get_world_size(), local)


def _leave() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()


def share(model: nn.Module, ranks: Ranks, device: torch.device, every_pass: bool = True) -> nn.Module:
    """Return the model as one that averages its gradients over the ranks (the model itself in a team of one).

    Buffers are not sent at every step, as PyTorch would: masks follow from equal weights, and norm
    statistics are averaged where they are used (`Ranks.mean_buffers_`). Where not every step runs every
    pass, `every_pass` is False: the norms and head of a pass that did not run have no gradient to wait for.
    """
    if ranks.size == 1:
        return model
    where = [device.index] if device.type == "cuda" else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # its new name is not in PyTorch 2.11
        return nn.parallel.DistributedDataParallel(
            model, device_ids=where, broadcast_buffers=False, find_unused_parameters=not every_pass
        )


def digest(tensors: Iterable[Tensor]) -> str:
    """Return a SHA-256 over the tensors' bytes, to compare them between ranks."""
    hashed = hashlib.sha256()
    for tensor in tensors:
        hashed.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return hashed.hexdigest()
