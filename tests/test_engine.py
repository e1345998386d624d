"""The fast path trains the same recipe: precision, captured steps, streams, and what the record says of them."""

import collections
import contextlib
import gc
import itertools
import threading
import time
import weakref

import pytest
import torch

from dcil import machine, settings
from dcil.config import RunConfig
from dcil.engine import CapturedStep, Engine
from dcil.errors import DcilError
from dcil.methods import METHODS, Phase
from dcil.stopping import Stop, Stopped
from dcil.train import fit
from dcil.trainer import Trainer


class FakeGraph:
    """Stands in for a CUDA graph on a CPU: what was called while capturing is called again on replay."""

    capturing = threading.local()  # which graph this thread captures

    def __init__(self):
        self.calls, self.replays = [], 0

    def replay(self):
        self.replays += 1
        for call in self.calls:
            call()


@pytest.fixture
def fake_cuda(monkeypatch):
    """Let `CapturedStep` run on a CPU: capturing records the step instead of running it."""

    @contextlib.contextmanager
    def capture(graph, **options):
        assert options["capture_error_mode"] == "thread_local"
        FakeGraph.capturing.graph = graph
        try:
            yield
        finally:
            FakeGraph.capturing.graph = None

    pools = itertools.count(1)
    monkeypatch.setattr(torch.cuda, "CUDAGraph", FakeGraph)
    monkeypatch.setattr(torch.cuda, "graph", capture)
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: (0, next(pools)))
    monkeypatch.setattr(torch.cuda, "current_stream", lambda *_: None)
    monkeypatch.setattr(torch._C, "_cuda_endAllocateToPool", lambda device, pool: None)


def capturable(step):
    """Return a step that behaves as under CUDA: while capturing, it records its work on these tensors and does none."""

    def run(images, labels, phase):
        if graph := getattr(FakeGraph.capturing, "graph", None):
            graph.calls.append(lambda: step(images, labels, phase))
        else:
            step(images, labels, phase)

    return run


def test_captured_steps_see_each_batch_and_phase(fake_cuda):
    """Steps are eager while warming up, then replayed from one graph for each shape and phase, on the current batch."""
    seen = []
    step = CapturedStep(capturable(lambda images, labels, phase: seen.append((images.sum().item(), phase))))
    for value in range(8):
        step(torch.full((2,), float(value)), torch.zeros(2), "a")
    step(torch.full((1,), 9.0), torch.zeros(1), "a")  # the smaller last batch
    step(torch.full((2,), 5.0), torch.zeros(2), "b")
    assert seen == [*((2.0 * v, "a") for v in range(8)), (9.0, "a"), (10.0, "b")]
    (graph,) = (g for g, _, _ in step.graphs.values())
    assert graph.replays == 8 - CapturedStep.WARMUP


@pytest.fixture
def refusals(monkeypatch):
    """Make captures fail; returns a list of one number, how many are still to fail."""
    left, capture = [0], torch.cuda.graph

    @contextlib.contextmanager
    def refuse(graph, **options):
        left[0] -= 1
        if left[0] >= 0:
            raise RuntimeError("operation not permitted\nmore")
        with capture(graph, **options):
            yield

    monkeypatch.setattr(torch.cuda, "graph", refuse)
    return left


def steps_of(step, count):
    """Take steps on the images 0, 1, 2, ...; returns the captured step and what it saw."""
    seen = []
    captured = CapturedStep(step(lambda images, labels, phase: seen.append(images.item())))
    for value in range(count):
        captured(torch.tensor([float(value)]), torch.zeros(1), None)
    return captured, seen


def test_a_step_that_cannot_be_captured(fake_cuda, refusals, capsys):
    """After a few failed captures the step stays eager, a message says so once, and no step is lost."""
    refusals[0] = 1000
    captured, seen = steps_of(capturable, 400)
    assert seen == list(range(400))
    assert 1000 - refusals[0] == CapturedStep.TRIES
    assert captured.path == "eager, capture failed"
    assert capsys.readouterr().err == (
        "dcil: the step could not be captured (operation not permitted), tried 4 times; it runs eagerly, slower\n"
    )


def test_a_capture_that_failed_for_a_passing_cause(fake_cuda, refusals, capsys):
    """A failed capture is tried again some steps later; if it then succeeds, nothing is printed."""
    refusals[0] = CapturedStep.TRIES - 1
    captured, seen = steps_of(capturable, 400)
    assert seen == list(range(400)) and captured.path == "cuda graph" and capsys.readouterr().err == ""
    (graph,) = (g for g, _, _ in captured.graphs.values())
    assert graph.replays == 400 - CapturedStep.WARMUP - (CapturedStep.TRIES - 1) * CapturedStep.PAUSE


def test_a_phase_that_cannot_be_captured(fake_cuda, refusals):
    """Graphs of other phases are kept, and the path says "in part"."""
    captured, _ = steps_of(capturable, 10)
    refusals[0] = 1000
    for _ in range(400):
        captured(torch.zeros(1), torch.zeros(1), "another")
    assert captured.path == "cuda graph, in part"


def test_steps_that_were_all_warm_up(fake_cuda):
    """A run too short for a capture says that its steps were eager."""
    assert steps_of(capturable, CapturedStep.WARMUP)[0].path == "eager"
    assert steps_of(capturable, CapturedStep.WARMUP + 1)[0].path == "cuda graph"


def test_a_capture_after_one_that_broke_off(fake_cuda, monkeypatch, capsys):
    """The memory pool of a failed capture is closed and not used again, as CUDA and PyTorch 2.11 require.

    There a failed capture leaves its pool open, a capture from an open pool is refused, and the end of a capture
    raises an error that hides the first cause.
    """
    open_pools, broken, capture = set(), [0], torch.cuda.graph

    @contextlib.contextmanager
    def as_in_2_11(graph, pool, **options):
        if pool in open_pools:
            raise RuntimeError("beginAllocateToPool: already recording to mempool_id")
        open_pools.add(pool)
        try:
            with capture(graph, **options):
                yield
                if broken[0] > 0:
                    broken[0] -= 1
                    raise RuntimeError("CUDA error: the cause\nmore")
        except RuntimeError as error:
            raise RuntimeError("CUDA error: operation failed due to a previous error during capture") from error
        open_pools.remove(pool)

    monkeypatch.setattr(torch.cuda, "graph", as_in_2_11)
    monkeypatch.setattr(torch._C, "_cuda_endAllocateToPool", lambda device, pool: open_pools.remove(pool))
    captured, _ = steps_of(capturable, 10)
    broken[0] = 1
    for _ in range(100):
        captured(torch.zeros(1), torch.zeros(1), "another")
    assert captured.path == "cuda graph" and len(captured.graphs) == 2 and not open_pools
    broken[0] = 1000
    for _ in range(400):
        captured(torch.zeros(1), torch.zeros(1), "a third")
    assert "could not be captured (CUDA error: the cause), tried 4 times" in capsys.readouterr().err
    assert not open_pools


@pytest.mark.parametrize("runs", [2, 6])
def test_one_capture_at_a_time(runs, fake_cuda, monkeypatch):
    """Runs in threads all capture, although captures that overlap spoil each other, as on a GPU."""
    from concurrent.futures import ThreadPoolExecutor

    under_way, capture = [], torch.cuda.graph

    @contextlib.contextmanager
    def jealous(graph, **options):
        under_way.append(graph)
        time.sleep(0.05)  # long enough for the others to come
        try:
            if len(under_way) > 1:
                raise RuntimeError("operation not permitted when stream is capturing")
            with capture(graph, **options):
                yield
        finally:
            under_way.remove(graph)

    monkeypatch.setattr(torch.cuda, "graph", jealous)
    together = threading.Barrier(runs)

    def work(_):
        together.wait()
        return steps_of(capturable, 20)

    with ThreadPoolExecutor(runs) as pool:
        done = list(pool.map(work, range(runs)))
    for captured, seen in done:
        assert captured.path == "cuda graph" and not captured.failures and seen == list(range(20))


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
    """Momentum comes from the checkpoint, whether the step is fused does not, so a resumed run can use `--eager`."""
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
    """On a CPU the record says eager steps, one stream and one rank."""
    environment = fit(tiny_config(), dataset=tiny_dataset, runs_dir=tmp_path, progress=False)["environment"]
    assert (environment["step"], environment["streams"], environment["ranks"]) == ("eager", 1, 1)


def test_the_record_of_a_run_that_changed_its_path(tiny_config, tiny_dataset, tmp_path, fake_cuda, monkeypatch):
    """A run that began eagerly and went on with captured steps says both, in that order."""
    config = tiny_config(epochs=6)
    with pytest.raises(Stopped):
        fit(config, dataset=tiny_dataset, runs_dir=tmp_path, progress=False, stop=StopAfter(6))
    monkeypatch.setattr(Engine, "fast", lambda self, step: CapturedStep(capturable(step)))
    record = fit(config, dataset=tiny_dataset, runs_dir=tmp_path, progress=False)
    assert record["environment"]["step"] == "eager, then cuda graph"
    assert [s["step"] for s in record["cost"]["sessions"]] == ["eager", "cuda graph"]


class FakeStream:
    """Stands in for one of a GPU's streams; remembers what it waited for."""

    def __init__(self, number):
        self.number, self.waited_for = number, []

    def wait_stream(self, other):
        self.waited_for.append(other)


@pytest.fixture
def fake_gpu(monkeypatch):
    """Let an `Engine` for a GPU be made on a CPU; returns the stream that is current outside of runs.

    As in PyTorch, 32 streams are handed out in turn.
    """
    outside, streams = FakeStream(None), itertools.cycle([FakeStream(number) for number in range(32)])
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: next(streams))
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: outside)
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: contextlib.nullcontext())
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda device: outside.waited_for.append("a new peak"))
    monkeypatch.setattr("dcil.engine._IDLE", collections.defaultdict(list))
    return outside


def gpu_engine(precision="float32"):
    return Engine(RunConfig(device="cuda", precision=precision).resolve())


def failing_run():
    """A run that ends after its engine was made, and before it is counted."""
    engine = gpu_engine()
    raise DcilError(f"never began on {engine.stream}")


def test_runs_under_way_share_no_stream(fake_gpu):
    """A long run keeps its two streams to itself, while short ones come and go, even before they begin."""
    long = gpu_engine()
    with long.counted():
        for _ in range(40):
            short = gpu_engine()
            with short.counted():
                assert len({short.stream, short.side, long.stream, long.side}) == 4
                assert short.stream.number + short.side.number < 6
            del short
            with pytest.raises(DcilError, match="never began"):
                failing_run()


@pytest.mark.parametrize("error", [None, RuntimeError("CUDA out of memory")], ids=["ended", "failed"])
def test_memory_is_free_when_a_run_no_longer_uses_it(error, fake_gpu):
    """A run's stream waits for the caller's when it begins, and the caller's for it when it ends or fails."""
    engine = gpu_engine()
    with contextlib.suppress(RuntimeError), engine.on_stream():
        assert engine.stream.waited_for == [fake_gpu] and not fake_gpu.waited_for
        if error:
            raise error
    assert fake_gpu.waited_for == [engine.stream]


def test_a_peak_of_memory_is_of_the_runs_that_share_it(fake_gpu):
    """The peak is reset when a run begins alone, and not while others are under way."""
    first, second, third = (gpu_engine() for _ in range(3))
    with first.counted(), second.counted():
        assert fake_gpu.waited_for == ["a new peak"]
    with third.counted():
        assert fake_gpu.waited_for == ["a new peak"] * 2


def gpu_settings():
    backends = torch.backends
    numbers = backends.cuda.matmul.fp32_precision, backends.cudnn.conv.fp32_precision
    return *numbers, backends.cudnn.deterministic, backends.cudnn.benchmark


@pytest.fixture(params=["none", "tf32"])
def callers(request):
    """PyTorch's default GPU settings, or a caller's own."""
    matmul, cudnn, own = torch.backends.cuda.matmul, torch.backends.cudnn, request.param == "tf32"
    matmul.fp32_precision, cudnn.benchmark = request.param, own
    yield gpu_settings()
    matmul.fp32_precision, cudnn.benchmark = "none", False


def test_settings_of_a_gpu_are_given_back(fake_gpu, callers):
    """Float32 is exact and kernels are deterministic until the last run that needs it has ended or failed."""
    first, second = gpu_engine(), gpu_engine("bf16")
    assert gpu_settings() == callers  # creating an engine changes nothing
    with pytest.raises(ZeroDivisionError), second.on_stream():
        with first.on_stream():
            assert gpu_settings() == ("ieee", "ieee", True, False)
        assert gpu_settings() == ("ieee", "ieee", True, False)
        raise ZeroDivisionError
    assert gpu_settings() == callers
    with gpu_engine("tf32").on_stream():
        assert gpu_settings() == ("tf32", "tf32", True, False)
    assert gpu_settings() == callers
    assert isinstance(torch.backends.cudnn.allow_tf32, bool)  # PyTorch's older interface raises if the two are mixed


def test_two_kinds_of_float32_at_once():
    """A process has one setting for float32: a run that needs another is refused, and the first goes on."""
    with settings.gpu_numbers("ieee"):
        with (
            pytest.raises(
                DcilError, match="float32 in ieee on its GPU now, this one would in tf32.*one after the other"
            ),
            settings.gpu_numbers("tf32"),
        ):
            pytest.fail("both at once")
        assert gpu_settings()[:2] == ("ieee", "ieee")


def test_a_run_leaves_the_gpus_random_numbers_alone(monkeypatch, tiny_dataset, tiny_config):
    """A run draws its weights on the CPU and seeds no GPU."""
    monkeypatch.setattr(torch.cuda, "manual_seed_all", lambda seed: pytest.fail("seeded"))
    Trainer(tiny_config(), tiny_dataset)


def test_a_run_that_ended_keeps_nothing(monkeypatch, tiny_dataset, tiny_config, tmp_path):
    """A run that ended is freed without garbage collection, so that the next one has its memory."""
    made, begin = [], Trainer.__init__

    def note(self, *words):
        begin(self, *words)
        made.append(weakref.ref(self))

    monkeypatch.setattr(Trainer, "__init__", note)
    for seed in range(2):  # the first loads parts of PyTorch, whose imports keep what called them
        gc.collect()
        gc.disable()
        try:
            fit(tiny_config(seed=seed), dataset=tiny_dataset, runs_dir=tmp_path, progress=False)
            alive = made[-1]() is not None
        finally:
            gc.enable()
    assert not alive


def test_images_last_as_long_as_both_streams_read_them(monkeypatch, tiny_dataset, tiny_config):
    """A copy in another layout, which the allocator ties to the first stream only, outlives the backward pass."""
    run, seen = Trainer(tiny_config(channels_last=True), tiny_dataset), []
    run_pass = run.dual.run_pass

    def note(index, images):
        seen.append(weakref.ref(images))
        return run_pass(index, images)

    monkeypatch.setattr(run.engine, "side", FakeStream(1))
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: FakeStream(0))
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: contextlib.nullcontext())
    monkeypatch.setattr(run.dual, "run_pass", note)
    monkeypatch.setattr(run.optimizer, "step", lambda: seen.append([images() is not None for images in seen]))
    run.step(*next(run.loader.epoch(0)), Phase())
    assert seen[-1] == [True, True]


class StopAfter(Stop):
    """Stops a run after a number of steps."""

    def __init__(self, steps):
        super().__init__()
        self.steps = steps

    def reason(self):
        self.steps -= 1
        return "the test" if self.steps < 0 else None


def test_a_shared_device(tiny_config, tiny_dataset, tmp_path):
    """Runs in threads of one process record how many shared the device; a run alone records nothing."""
    from concurrent.futures import ThreadPoolExecutor

    begun, configs = threading.Barrier(2), [tiny_config(seed=seed) for seed in range(2)]

    class Together(Stop):
        def reason(self):
            if not self.met:
                self.met = begun.wait(30) is not None
            return None

    def train(config):
        stop = Together()
        stop.met = False
        return fit(config, dataset=tiny_dataset, runs_dir=tmp_path, progress=False, stop=stop)

    with ThreadPoolExecutor(2) as pool:
        assert [r["cost"]["shared_by"] for r in pool.map(train, configs)] == [2, 2]
    alone = fit(tiny_config(seed=2), dataset=tiny_dataset, runs_dir=tmp_path, progress=False)
    assert "shared_by" not in alone["cost"] and alone["cost"]["sessions"][0]["shared_by"] == 1


@pytest.mark.parametrize("changes", [{"precision": "tf32"}, {"sync_batchnorm": True}], ids=str)
def test_what_only_a_gpu_has(changes):
    """On a CPU it is refused, not ignored."""
    with pytest.raises(DcilError, match="needs a GPU, but this run is on the CPU"):
        RunConfig(device="cpu", **changes).resolve()


def test_bf16_instructions(monkeypatch, tmp_path):
    """The processor must list them, and PyTorch must use them."""
    monkeypatch.setattr(machine, "CPUINFO", tmp_path / "cpuinfo")
    cases = [
        ("avx2 avx512_bf16", "AVX512", True),
        ("avx2 avx512_bf16", "AVX2", False),
        ("avx2 avx512f", "AVX512", False),
        ("asimd bf16", "SVE256", True),
    ]
    for flags, capability, expected in cases:
        (tmp_path / "cpuinfo").write_text(f"flags : {flags}\n")
        monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda capability=capability: capability)
        assert machine.has_bf16(torch.device("cpu")) is expected


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_gpu_steps_never_wait(precision, tiny_dataset):
    """From batch to optimizer, including mask refreshes, nothing waits for the device."""
    config = RunConfig(
        model="resnet8", batch_size=10, mask_period=2, epochs=30, device="cuda", precision=precision, channels_last=True
    ).resolve()
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
    """The captured, two-stream step gives the eager curve up to rounding: losses, sparsity and flips.

    The run is in float64, with learning rates that float32 holds exactly, since a captured step reads them in float32.
    Otherwise what rounding moves across a threshold or a ReLU would be 1 % of a loss two epochs later, as steps on a
    CPU with weights off by 1e-7 show.
    """
    exact = {"precision": "float64", "lr": 0.125, "warmup_epochs": 0, "lr_decay": 0.5}
    config = tiny_config(method=method, epochs=6, device="cuda", **exact)
    one, two = (
        fit(config, dataset=tiny_dataset, runs_dir=tmp_path / str(fast), progress=False, fast=fast)
        for fast in (False, True)
    )
    assert (one["environment"]["step"], two["environment"]["step"]) == ("eager", "cuda graph")
    for a, b in zip(one["curve"], two["curve"], strict=True):
        assert a["loss"]["total"] == pytest.approx(b["loss"]["total"], rel=1e-6)
        assert (a["sparsity"], a["flips"]) == (b["sparsity"], b["flips"])


@pytest.mark.gpu
@pytest.mark.parametrize("runs", [2, 6])
def test_gpu_runs_in_threads(runs, tiny_dataset, tiny_config, tmp_path):
    """Runs packed into one process are all captured, and each starts as it does alone."""
    from concurrent.futures import ThreadPoolExecutor

    configs = [tiny_config(seed=seed, device="cuda", epochs=4) for seed in range(runs)]

    def train(config, folder):
        return fit(config, dataset=tiny_dataset, runs_dir=tmp_path / folder, progress=False)

    with ThreadPoolExecutor(runs) as pool:
        together = list(pool.map(lambda c: train(c, "together"), configs))
    for packed, config in zip(together, configs, strict=True):
        alone = train(config, "alone")["curve"]
        assert packed["environment"]["step"] == "cuda graph"
        assert packed["curve"][0]["loss"]["total"] == pytest.approx(alone[0]["loss"]["total"], rel=1e-4)
