"""How a step runs fast and where: device, precision, layout, streams and CUDA graphs.

The recipe is the same on every path. What is chosen here is said in the record
(`environment.step`, `environment.streams`), and where the fast path cannot be had, once in words.
"""

from __future__ import annotations

import contextlib
import sys
import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterator
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from dcil import machine, settings
from dcil.config import ResolvedConfig
from dcil.distributed import ALONE, Ranks
from dcil.dual_path import DualPath, unwrap

M = TypeVar("M", bound=nn.Module)

EAGER, GRAPH = "eager", "cuda graph"  # how steps ran, as a record says it

# (images [N, C, H, W], labels [N], phase): one optimizer step.
Step = Callable[[Tensor, Tensor, Any], None]
_UNDER_WAY: list[Engine] = []  # the engines of this process that train now
_IDLE: defaultdict[torch.device, list[tuple[Any, Any]]] = defaultdict(list)  # streams of runs that have ended
_COUNTING = threading.Lock()
# Beginning a capture waits for the whole device, which is forbidden while another thread captures: both would fail.
_CAPTURING = threading.Lock()


class Engine:
    """The device, precision, layout and step of a resolved configuration; `fast=False` asks for plain eager steps."""

    def __init__(self, config: ResolvedConfig, ranks: Ranks = ALONE, fast: bool = True):
        self.device = machine.require(config.device)
        if self.device.type == "cuda":
            self.device = torch.device("cuda", torch.cuda.current_device())
            # Both passes use a weight, so its gradient always comes from two streams. They are joined before the
            # optimizer, and neither is the default stream, which alone would break a capture.
            torch.autograd.graph.set_warn_on_accumulate_grad_stream_mismatch(False)
        self.dtype = torch.float64 if config.precision == "float64" else torch.float32
        self.layout = torch.channels_last if config.channels_last else torch.contiguous_format
        self.bf16, self.float32 = config.precision == "bf16", "tf32" if config.precision == "tf32" else "ieee"
        # A graph holds a whole step of one process; between ranks gradients must still be joined.
        self.captures = fast and self.device.type == "cuda" and ranks.size == 1
        streams: tuple[Any, Any] = _take_streams(self.device) if self.captures else (None, None)
        self.stream, self.side = streams
        self.shared_by = 1  # the most runs of this process that were under way on the device at once, this one included
        self.rate: Tensor | None = None  # the learning rate on the device, where a captured step reads it

    def autocast(self) -> contextlib.AbstractContextManager:
        """Return the context for a forward pass: bf16 autocast where the configuration asks for it."""
        if not self.bf16:
            return contextlib.nullcontext()
        # Its cache of cast weights is emptied only where the outermost context ends: within another one every step
        # would see the weights of the first. It is not safe between streams either, and no pass would use another's.
        return torch.autocast(self.device.type, dtype=torch.bfloat16, cache_enabled=False)

    @contextlib.contextmanager
    def on_stream(self) -> Iterator[None]:
        """Work as the run does on a GPU: in its precision, and on its own stream, so that several runs overlap."""
        with contextlib.ExitStack() as stack:
            if self.device.type == "cuda":
                stack.enter_context(settings.gpu_numbers(self.float32))
            if self.stream is not None:
                outside = torch.cuda.current_stream(self.device)
                self.stream.wait_stream(outside)  # the data set and the weights were put on the device there
                # Their memory is free for other runs once this one has ended, in whatever way: not while it is used.
                stack.callback(outside.wait_stream, self.stream)
                stack.enter_context(torch.cuda.stream(self.stream))
            yield

    @contextlib.contextmanager
    def counted(self) -> Iterator[None]:
        """Count this run and the others of the process on its device (`shared_by`): their seconds are not their own.

        Nor is the peak of memory, which counts from the first of them on. Streams go to a later run when this one ends.
        """
        with _COUNTING:
            _UNDER_WAY.append(self)
            together = [engine for engine in _UNDER_WAY if engine.device == self.device]
            for engine in together:
                engine.shared_by = max(engine.shared_by, len(together))
            if together == [self] and self.device.type == "cuda":
                torch.cuda.reset_peak_memory_stats(self.device)
        try:
            yield
        finally:
            with _COUNTING:
                _UNDER_WAY.remove(self)
                if self.stream is not None:
                    _IDLE[self.device].append((self.stream, self.side))

    def place(self, module: M) -> M:
        """Move a module to the device, dtype and layout, in place."""
        moved = module.to(self.device, self.dtype)
        return moved.to(memory_format=self.layout)  # type: ignore[call-overload]  # which its stub leaves out

    def optimizer(self, module: nn.Module, config: ResolvedConfig) -> torch.optim.SGD:
        """Return the authors' optimizer, SGD with Nesterov momentum, over what is trained in the module."""
        trained = [p for p in module.parameters() if p.requires_grad]
        return torch.optim.SGD(
            trained,
            config.lr,
            config.momentum,
            nesterov=config.momentum > 0,
            weight_decay=config.weight_decay,
            fused=True if self.captures else None,
        )

    @staticmethod
    def restore(optimizer: torch.optim.SGD, state: dict[str, Any]) -> None:
        """Give an optimizer a checkpoint's momentum; it steps as this engine has it, however that run stepped."""
        optimizer.load_state_dict(state)
        for group in optimizer.param_groups:
            group["fused"] = optimizer.defaults["fused"]

    def set_rate(self, optimizer: torch.optim.Optimizer, rate: float) -> None:
        """Set the learning rate; for a captured step on the device, where the graph reads it."""
        if self.captures:
            self.rate = torch.tensor(rate, device=self.device) if self.rate is None else self.rate.fill_(rate)
        for group in optimizer.param_groups:
            group["lr"] = rate if self.rate is None else self.rate

    def passes(self, model: nn.Module, images: Tensor, count: int | None = None) -> tuple[Tensor, ...]:
        """Run the passes of a model, or its first `count`, on images [N, C, H, W].

        On a GPU all but the first run on a second stream.
        """
        dual = unwrap(model)
        indices = range(len(dual.rules))[:count]
        with self.autocast():
            if self.side is None or len(indices) == 1:
                outputs = model(images, passes=len(indices))
            else:
                here = torch.cuda.current_stream(self.device)
                self.side.wait_stream(here)
                with torch.cuda.stream(self.side):
                    others = [dual.run_pass(i, images) for i in indices[1:]]
                outputs = (dual.run_pass(0, images), *others)
                here.wait_stream(self.side)
        return tuple(output.to(self.dtype) for output in outputs)

    def one_pass(self, dual: DualPath, index: int, images: Tensor) -> Tensor:
        """Run pass `index` alone on images [N, C, H, W]."""
        with self.autocast():
            return dual.run_pass(index, images).to(self.dtype)

    def fast(self, step: Step) -> Step:
        """Return the step as this engine runs it: captured and replayed on a GPU, as it is elsewhere."""
        return CapturedStep(step) if self.captures else step

    @staticmethod
    def path(step: Step) -> str:
        """Return how a step that `fast` returned has run, in the words of a record."""
        return step.path if isinstance(step, CapturedStep) else EAGER


def _take_streams(device: torch.device) -> tuple[Any, Any]:
    """Return two streams that no other run has.

    PyTorch has 32 and hands them out by turns, also those of a run that is still under way: after sixteen runs a
    capture would take up what another run launches.
    """
    with _COUNTING:
        if _IDLE[device]:
            return _IDLE[device].pop()
    return torch.cuda.Stream(device), torch.cuda.Stream(device)


class CapturedStep:
    """A step whose kernels are captured once in a CUDA graph and then launched as one.

    Small CIFAR networks at batch 128 are bound by launches: thousands of kernels of some
    microseconds a step. One graph is kept for each batch shape and phase of the loss; the first few
    steps of each run eagerly, which also lets the optimizer make its buffers outside the graph.
    `step` must read nothing from Python that changes without its phase, and must not synchronise.
    Runs in threads of one process capture one at a time. A capture that fails is tried again some steps later,
    since what another run does on the device can spoil it; after `TRIES` failures the run stays eager.
    """

    WARMUP, TRIES, PAUSE = 3, 4, 50  # steps before the first try, tries, and steps from one to the next

    def __init__(self, step: Step):
        self.step, self.seen = step, Counter[Hashable]()
        self.graphs: dict[Hashable, tuple[torch.cuda.CUDAGraph, Tensor, Tensor]] = {}
        self.pool: Any = None  # one memory for all graphs: they never run at once
        self.failures, self.pause = 0, 0

    @property
    def gave_up(self) -> bool:
        """Whether no further capture is tried."""
        return self.failures >= self.TRIES

    @property
    def path(self) -> str:
        """How the steps have run so far, warm-up aside where more followed."""
        if not self.graphs:
            return f"{EAGER}, capture failed" if self.failures else EAGER
        return f"{GRAPH}, in part" if self.gave_up else GRAPH

    def __call__(self, images: Tensor, labels: Tensor, phase: Hashable) -> None:
        key = (tuple(images.shape), phase)
        if key not in self.graphs and not (self._is_due(key) and self._capture(key, images, labels, phase)):
            self.step(images, labels, phase)
            return
        graph, static_images, static_labels = self.graphs[key]
        static_images.copy_(images)
        static_labels.copy_(labels)
        graph.replay()

    def _is_due(self, key: Hashable) -> bool:
        """Return whether this step of a kind is warm and no failure too recent; counts the step."""
        self.seen[key] += 1
        self.pause = max(self.pause - 1, 0)
        return self.seen[key] > self.WARMUP and not self.pause and not self.gave_up

    def _capture(self, key: Hashable, images: Tensor, labels: Tensor, phase: Hashable) -> bool:
        """Capture this step without running it; returns False where that fails, and says so at the last try."""
        static = images.clone(), labels.clone()
        graph, pool = torch.cuda.CUDAGraph(), self.pool or torch.cuda.graph_pool_handle()
        try:
            # "thread_local": other runs of this process go on meanwhile.
            with (
                _CAPTURING,
                torch.cuda.graph(
                    graph, pool=pool, stream=torch.cuda.current_stream(), capture_error_mode="thread_local"
                ),
            ):
                self.step(*static, phase)
        except RuntimeError as error:
            _stop_recording(images.device, pool)
            self.failures, self.pause, self.pool = self.failures + 1, self.PAUSE, None
            if self.gave_up:
                first = error.__context__ or error  # the end of a capture that failed fails too, and says less
                why = str(first).partition("\n")[0]
                print(
                    f"dcil: the step could not be captured ({why}), tried {self.TRIES} times; it runs eagerly, slower",
                    file=sys.stderr,
                )
            return False
        self.pool = pool
        self.graphs[key] = (graph, *static)
        return True


def _stop_recording(device: torch.device, pool: Any) -> None:
    """Let the pool of a capture that failed take no more memory.

    PyTorch before 2.13 leaves it open (its pull request 180395): no further capture may use it, and memory that two
    streams shared comes back to no run of the process.
    """
    with contextlib.suppress(RuntimeError):  # it was not open, or not any more
        torch._C._cuda_endAllocateToPool(device.index, pool)
