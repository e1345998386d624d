"""How and where a training step runs: device, precision, memory layout, streams and CUDA graphs.

The mathematics is the same on every path. The record names the path taken (`environment.step`,
`environment.streams`); if the fast path fails, a message says so once.
"""

from __future__ import annotations

import contextlib
import threading
import weakref
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterator
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from dcil import machine, settings
from dcil.config import ResolvedConfig
from dcil.distributed import ALONE, Ranks
from dcil.dual_path import DualPath, unwrap
from dcil.io.messages import say

M = TypeVar("M", bound=nn.Module)

EAGER, GRAPH = "eager", "cuda graph"  # how steps ran, in the words of a record

# (images [N, C, H, W], labels [N], phase): one optimizer step.
Step = Callable[[Tensor, Tensor, Any], None]
_UNDER_WAY: list[Engine] = []  # the engines of this process that are training
_IDLE: defaultdict[torch.device, list[tuple[Any, Any]]] = defaultdict(list)  # streams of runs that have ended
_COUNTING = threading.Lock()
# Beginning a capture synchronises the device, which is forbidden while another thread captures: both would fail.
_CAPTURING = threading.Lock()


class Engine:
    """The device, precision, layout and step of a resolved configuration; `fast=False` asks for plain eager steps."""

    def __init__(self, config: ResolvedConfig, ranks: Ranks = ALONE, fast: bool = True):
        self.device = machine.require(config.device)
        if self.device.type == "cuda":
            self.device = torch.device("cuda", torch.cuda.current_device())
            # Both passes use each weight, so its gradient is accumulated from two streams, hence PyTorch's warning. The
            # streams are joined before the optimizer step; only the default stream would break a capture.
            torch.autograd.graph.set_warn_on_accumulate_grad_stream_mismatch(False)
        self.dtype = torch.float64 if config.precision == "float64" else torch.float32
        self.layout = torch.channels_last if config.channels_last else torch.contiguous_format
        self.bf16, self.float32 = config.precision == "bf16", "tf32" if config.precision == "tf32" else "ieee"
        # A graph holds a whole step of one process; with several ranks, gradients are also reduced between ranks.
        self.captures = fast and self.device.type == "cuda" and ranks.size == 1
        streams: tuple[Any, Any] = _take_streams(self) if self.captures else (None, None)
        self.stream, self.side = streams
        self.shared_by = 1  # most concurrent runs of this process on the device, including this one
        self.rate: Tensor | None = None  # the learning rate on the device, where a captured step reads it

    def autocast(self) -> contextlib.AbstractContextManager:
        """Return the context for a forward pass: bf16 autocast where the configuration asks for it."""
        if not self.bf16:
            return contextlib.nullcontext()
        # Autocast empties its cache of cast weights only when the outermost context ends: inside a caller's context
        # every step would use the first step's weights. Nor is it safe across streams, and passes could not share it.
        return torch.autocast(self.device.type, dtype=torch.bfloat16, cache_enabled=False)

    @contextlib.contextmanager
    def on_stream(self) -> Iterator[None]:
        """On a GPU, work in the run's precision and on the run's own stream, so that several runs overlap."""
        with contextlib.ExitStack() as stack:
            if self.device.type == "cuda":
                stack.enter_context(settings.gpu_numbers(self.float32))
            if self.stream is not None:
                outside = torch.cuda.current_stream(self.device)
                self.stream.wait_stream(outside)  # on which data set and weights were copied to the device
                # However this run ends, other runs may reuse its memory only after its stream has finished.
                stack.callback(outside.wait_stream, self.stream)
                stack.enter_context(torch.cuda.stream(self.stream))
            yield

    @contextlib.contextmanager
    def counted(self) -> Iterator[None]:
        """Count the concurrent runs of this process on the device (`shared_by`): they share its time.

        They share the peak memory too, which is counted from the first of them on.
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

    def place(self, module: M) -> M:
        """Move a module to the device, dtype and layout, in place."""
        moved = module.to(self.device, self.dtype)
        return moved.to(memory_format=self.layout)  # type: ignore[call-overload]  # which its stub leaves out

    def optimizer(self, module: nn.Module, config: ResolvedConfig) -> torch.optim.SGD:
        """Return the authors' optimizer, SGD with Nesterov momentum, over the trainable parameters of the module."""
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
        """Load a checkpoint's optimizer state; fused or not is this engine's choice, whatever the checkpoint's was."""
        optimizer.load_state_dict(state)
        for group in optimizer.param_groups:
            group["fused"] = optimizer.defaults["fused"]

    def set_rate(self, optimizer: torch.optim.Optimizer, rate: float) -> None:
        """Set the learning rate; for captured steps as a tensor on the device, which the graph reads."""
        if self.captures:
            self.rate = torch.tensor(rate, device=self.device) if self.rate is None else self.rate.fill_(rate)
        for group in optimizer.param_groups:
            group["lr"] = rate if self.rate is None else self.rate

    def passes(self, model: nn.Module, images: Tensor, count: int | None = None) -> tuple[Tensor, ...]:
        """Run the passes of a model, or its first `count`, on images [N, C, H, W]; returns one output per pass.

        On a GPU all passes but the first run on a second stream.
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
        """Return the step as this engine runs it: captured and replayed as a CUDA graph on a GPU, else eagerly."""
        return CapturedStep(step) if self.captures else step

    @staticmethod
    def path(step: Step) -> str:
        """Return how a step returned by `fast` has run, in the words of a record."""
        return step.path if isinstance(step, CapturedStep) else EAGER


def _take_streams(engine: Engine) -> tuple[Any, Any]:
    """Return two streams that no other engine uses; they are handed on once this engine is gone, however it ended.

    PyTorch hands out its 32 streams round-robin, even those that a run still uses: after sixteen runs, a
    capture would record the kernels of another run.
    """
    device = engine.device
    with _COUNTING:
        streams = _IDLE[device].pop() if _IDLE[device] else (torch.cuda.Stream(device), torch.cuda.Stream(device))
    weakref.finalize(engine, _IDLE[device].append, streams).atexit = False
    return streams


class CapturedStep:
    """A step whose kernels are captured once in a CUDA graph and then launched as one.

    Small CIFAR networks at batch size 128 are launch-bound: thousands of kernels of a few microseconds
    per step. One graph is kept for each batch shape and phase of the loss; the first few
    steps of each run eagerly, which also lets the optimizer allocate its buffers outside the graph.
    `step` must not read Python state that changes within a phase, and must not synchronise.
    Runs in threads of one process capture one at a time. A failed capture is retried some steps later,
    since another run's work on the device can spoil it; after `TRIES` failures the run stays eager.
    """

    WARMUP, TRIES, PAUSE = 3, 4, 50  # eager steps before the first try, number of tries, steps between tries

    def __init__(self, step: Step):
        self.step, self.seen = step, Counter[Hashable]()
        self.graphs: dict[Hashable, tuple[torch.cuda.CUDAGraph, Tensor, Tensor]] = {}
        self.pool: Any = None  # one memory pool for all graphs: they never run concurrently
        self.failures, self.pause = 0, 0

    @property
    def gave_up(self) -> bool:
        """Whether captures are no longer tried."""
        return self.failures >= self.TRIES

    @property
    def path(self) -> str:
        """How the steps have run so far, ignoring the warm-up once a graph exists."""
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
        """Return whether to try a capture: this kind of step is warm and no failure is too recent; counts the step."""
        self.seen[key] += 1
        self.pause = max(self.pause - 1, 0)
        return self.seen[key] > self.WARMUP and not self.pause and not self.gave_up

    def _capture(self, key: Hashable, images: Tensor, labels: Tensor, phase: Hashable) -> bool:
        """Capture this step without running it; returns False if that fails, with a message at the last try."""
        static = images.clone(), labels.clone()
        graph, pool = torch.cuda.CUDAGraph(), self.pool or torch.cuda.graph_pool_handle()
        try:
            # "thread_local": other runs of this process continue meanwhile.
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
                first = error.__context__ or error  # ending a failed capture also fails, with a vaguer error
                why = str(first).partition("\n")[0]
                say(f"dcil: the step could not be captured ({why}), tried {self.TRIES} times; it runs eagerly, slower")
            return False
        self.pool = pool
        self.graphs[key] = (graph, *static)
        return True


def _stop_recording(device: torch.device, pool: Any) -> None:
    """Stop routing allocations to the memory pool of a failed capture.

    PyTorch before 2.13 leaves it open (pytorch pull request 180395): no further capture may use it, and memory that
    two streams shared is never returned to any run of the process.
    """
    with contextlib.suppress(RuntimeError):  # it was already closed
        torch._C._cuda_endAllocateToPool(device.index, pool)
