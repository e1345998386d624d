"""The fast path is the same recipe: precision, captured steps, streams, and what the record says of them."""

import contextlib

import pytest
import torch

from dcil import machine
from dcil.config import RunConfig
from dcil.engine import CapturedStep, Engine
from dcil.errors import DcilError
from dcil.methods import METHODS
from dcil.train import fit
from dcil.trainer import Trainer


class FakeGraph:
    """Stands in for a CUDA graph on a CPU: what was called while capturing is called again on replay."""

    capturing = None

    def __init__(self):
        self.calls, self.replays = [], 0

    def replay(self):
        self.replays += 1
        for call in self.calls:
            call()

    def pool(self):
        return (0, 1)


@pytest.fixture
def fake_cuda(monkeypatch):
    """Let `CapturedStep` run on a CPU: capturing records the step instead of running it."""

    @contextlib.contextmanager
    def capture(graph, **options):
        assert options["capture_error_mode"] == "thread_local"
        FakeGraph.capturing = graph
        yield
        FakeGraph.capturing = None

    monkeypatch.setattr(torch.cuda, "CUDAGraph", FakeGraph)
    monkeypatch.setattr(torch.cuda, "graph", capture)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda *_: None)


def capturable(step):
    """A step that does as CUDA does: while capturing it notes its work on these very tensors and does nothing."""

    def run(images, labels, phase):
        if FakeGraph.capturing:
            FakeGraph.capturing.calls.append(lambda: step(images, labels, phase))
        else:
            step(images, labels, phase)

    return run


def test_captured_steps_see_each_batch_and_phase(fake_cuda):
    """Eager while warming up, then one graph for each shape and phase, replayed on what the batch holds now."""
    seen = []
    step = CapturedStep(capturable(lambda images, labels, phase: seen.append((images.sum().item(), phase))))
    for value in range(8):
        step(torch.full((2,), float(value)), torch.zeros(2), "a")
    step(torch.full((1,), 9.0), torch.zeros(1), "a")  # the smaller last batch
    step(torch.full((2,), 5.0), torch.zeros(2), "b")
    assert seen == [*((2.0 * v, "a") for v in range(8)), (9.0, "a"), (10.0, "b")]
    (graph,) = (g for g, _, _ in step.graphs.values())
    assert graph.replays == 8 - CapturedStep.WARMUP


def test_a_step_that_cannot_be_captured(fake_cuda, monkeypatch, capsys):
    """It runs eagerly from then on, and that is said once."""

    @contextlib.contextmanager
    def refuse(graph, **options):
        raise RuntimeError("operation not permitted\nmore")
        yield

    monkeypatch.setattr(torch.cuda, "graph", refuse)
    seen = []
    step = CapturedStep(lambda images, labels, phase: seen.append(images.item()))
    for value in range(9):
        step(torch.tensor([float(value)]), torch.zeros(1), None)
    assert seen == list(range(9))
    assert capsys.readouterr().err == (
        "dcil: the step could not be captured (operation not permitted); it runs eagerly, slower\n")  # fmt: skip


@pytest.mark.parametrize("method", METHODS)
def test_a_replayed_run_is_the_eager_run(method, fake_cuda, tiny_dataset, tiny_config, tmp_path, monkeypatch):
    """Training through captured steps gives the same curve, bit for bit: losses, masks, both accuracies."""
    config = tiny_config(method=method, epochs=6)
    eager = fit(config, dataset=tiny_dataset, runs_dir=tmp_path / "eager", progress=False)
    captured = []

    def fast(self, step):
        captured.append(CapturedStep(capturable(step)))
        return captured[0]

    monkeypatch.setattr(Engine, "fast", fast)
    graphed = fit(config, dataset=tiny_dataset, runs_dir=tmp_path / "graph", progress=False)
    for one, two in zip(eager["curve"], graphed["curve"], strict=True):
        assert {k: v for k, v in one.items() if k != "time_s"} == {k: v for k, v in two.items() if k != "time_s"}
    assert sum(g.replays for g, _, _ in captured[0].graphs.values()) >= 24 - 2 * CapturedStep.WARMUP


def test_a_resumed_optimizer_steps_as_its_engine_has_it():
    """Momentum comes from the checkpoint; whether the step is fused does not, so that --eager can change on the way."""
    engine, net = Engine(RunConfig(device="cpu").resolve()), torch.nn.Linear(2, 2)
    optimizer, other = (engine.optimizer(net, RunConfig().resolve()) for _ in range(2))
    net(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    state = optimizer.state_dict()
    state["param_groups"][0]["fused"] = True
    engine.restore(other, state)
    assert other.param_groups[0]["fused"] is None
    assert torch.equal(other.state[net.weight]["momentum_buffer"], optimizer.state[net.weight]["momentum_buffer"])


def test_the_record_says_how_steps_ran(tiny_config, tiny_dataset, tmp_path):
    """On a CPU: eager steps, one stream, one rank."""
    environment = fit(tiny_config(), dataset=tiny_dataset, runs_dir=tmp_path, progress=False)["environment"]
    assert (environment["step"], environment["streams"], environment["ranks"]) == ("eager", 1, 1)


@pytest.mark.parametrize("changes", [{"precision": "tf32"}, {"sync_batchnorm": True}], ids=str)
def test_what_only_a_gpu_has(changes):
    """Asked of a CPU it is refused, not ignored."""
    with pytest.raises(DcilError, match="needs a GPU, but this run is on the CPU"):
        RunConfig(device="cpu", **changes).resolve()


def test_bf16_instructions(monkeypatch, tmp_path):
    """Found in what the processor says of itself."""
    for flags, expected in (("avx2 avx512_bf16", True), ("avx2 avx512f", False)):
        (tmp_path / "cpuinfo").write_text(f"flags : {flags}\n")
        monkeypatch.setattr(machine, "CPUINFO", tmp_path / "cpuinfo")
        assert machine.has_bf16(torch.device("cpu")) is expected


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_gpu_steps_never_wait(precision, tiny_dataset):
    """From batch to optimizer, refresh of the masks included, nothing waits for the device."""
    config = RunConfig(model="resnet8", batch_size=10, mask_period=2, epochs=30, device="cuda", precision=precision,
                       channels_last=True).resolve()  # fmt: skip
    run = Trainer(config, tiny_dataset)
    with run.engine.on_stream():
        steps = run.run(progress=False)
        for _ in range(3 * 4):  # three epochs: warmed up and captured
            next(steps)
        torch.cuda.set_sync_debug_mode("error")
        try:
            for _ in range(3):
                next(steps)
        finally:
            torch.cuda.set_sync_debug_mode("default")
    assert run.take_step.graphs and not run.take_step.gave_up


@pytest.mark.gpu
@pytest.mark.parametrize("method", METHODS)
def test_gpu_graph_equals_eager(method, tiny_dataset, tiny_config, tmp_path):
    """In float32 the captured, two-stream step gives the eager curve to rounding."""
    config = tiny_config(method=method, epochs=6, device="cuda")
    one, two = (fit(config, dataset=tiny_dataset, runs_dir=tmp_path / str(fast), progress=False, fast=fast)
                for fast in (False, True))  # fmt: skip
    assert (one["environment"]["step"], two["environment"]["step"]) == ("eager", "cuda graph")
    for a, b in zip(one["curve"][:2], two["curve"][:2], strict=True):
        assert a["loss"]["total"] == pytest.approx(b["loss"]["total"], rel=1e-4)
        assert a["sparsity"] == b["sparsity"]


@pytest.mark.gpu
def test_gpu_runs_in_threads(tiny_dataset, tiny_config, tmp_path):
    """Runs packed in one process give the records they give alone."""
    from concurrent.futures import ThreadPoolExecutor

    configs = [tiny_config(seed=seed, device="cuda", epochs=4) for seed in range(3)]

    def train(config, folder):
        return fit(config, dataset=tiny_dataset, runs_dir=tmp_path / folder, progress=False)["curve"]

    with ThreadPoolExecutor(3) as pool:
        together = list(pool.map(lambda c: train(c, "together"), configs))
    for curve, config in zip(together, configs, strict=True):
        assert curve[0]["loss"]["total"] == pytest.approx(train(config, "alone")[0]["loss"]["total"], rel=1e-4)
