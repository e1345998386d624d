"""The benchmarks measure, pair and write what they claim to; no test here depends on timing."""

import csv

import pytest
import torch

import dcil
from benchmarks import __main__ as benchmarks
from benchmarks import bench, device, folders
from benchmarks.bench import compare, in_turns, peak_mib
from benchmarks.sparse_conv import with_csr
from dcil.data.datasets import Dataset
from dcil.lab.tables import small_devices
from dcil.trainer import Trainer

FACTS = {"device": "A CPU (tm) 9", "threads": 2, "torch": "2.11.0+cpu", "date": "2026-01-02T03:04:05+00:00"}


@pytest.fixture(autouse=True)
def _short(monkeypatch):
    """A turn ends after two calls."""
    monkeypatch.setattr(bench, "TURN_S", 0.0)


def result(**changes):
    """Return a row of results that meets the target for a DCIL step."""
    row = {"name": "step", "case": "dcil", "baseline": "dense", "model": "resnet32", "batch_size": 128, "ratio": 2.0}
    return row | changes


@pytest.fixture
def black():
    """Forty images of CIFAR's shape."""
    part = torch.zeros(40, 3, 32, 32, dtype=torch.uint8), torch.arange(40) % 10
    return Dataset("black", *part, *part, 10, (0.4,) * 3, (0.2,) * 3)


def test_command(black, tmp_path, monkeypatch, capsys):
    """One benchmark end to end: a complete CSV with a ratio between 0 and 1, then the targets, which need ResNet-32."""
    monkeypatch.setattr(benchmarks, "images", lambda _: black)
    words = "--only refresh --rounds 2 --threads 1 --model resnet8 --batch-size 8 --device cpu --out"
    assert benchmarks.main([*words.split(), str(tmp_path)]) == 0
    (path,) = tmp_path.iterdir()
    (row,) = csv.DictReader(path.open())
    assert tuple(row) == benchmarks.COLUMNS and not any(v is None for v in row.values())
    assert 0 < float(row["ratio_q1"]) <= float(row["ratio"]) <= float(row["ratio_q3"]) < 1
    assert (row["name"], row["rounds"], row["threads"], row["data"]) == ("refresh", "2", "1", "black")
    shown = capsys.readouterr().out
    assert "needs a GPU" in shown and "yes" not in shown and path.name in shown


def test_ratios_are_paired_by_round():
    """A machine that is twice as slow in one round changes the seconds, not the ratio."""
    found = compare([2.0, 4.0, 2.2], [1.0, 2.0, 1.0])
    assert (found["ratio"], found["rounds"]) == (2.0, 3)
    assert (found["median_s"], found["baseline_s"]) == (2.2, 1.0)
    assert (found["ratio_q1"], found["ratio_q3"]) == (2.0, pytest.approx(2.1))


def test_turns_alternate():
    """The two sides alternate, A B, A B, and each has one time per round."""
    order = []
    times = in_turns({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, 2, 1, "")
    assert "".join(key for i, key in enumerate(order) if not i or key != order[i - 1]) == "abab"
    assert {key: len(value) for key, value in times.items()} == {"a": 2, "b": 2}


def test_a_step_with_two_passes_takes_twice_the_memory(tiny_config, black):
    """The activations of both passes are alive at once; gradients and masked weights are small beside them."""
    dense, dcil = (peak_mib(Trainer(tiny_config(method=m, batch_size=20), black)) for m in ("dense", "dcil"))
    # A lower bound: backward needs the first stage's sixteen-channel maps, in float32.
    assert dense > 4 * 20 * 16 * 32 * 32 * 4 / 2**20
    assert 1.8 < dcil / dense < 2.2


def test_results_are_never_overwritten(tmp_path):
    """A second run on the same day gets a file name of its own."""
    path = benchmarks.new_file(tmp_path, FACTS)
    assert path.name == "a-cpu-tm-9-2t-torch2.11.0-2026-01-02.csv"
    benchmarks.write([FACTS], path)
    assert benchmarks.new_file(tmp_path, FACTS).name == path.stem + "-2.csv"


@pytest.mark.parametrize(
    "row, kind, met",
    [
        (result(), "cpu", "yes"),
        (result(ratio=2.06), "cpu", "no"),
        (result(model="resnet8"), "cpu", ""),
        (result(), "cuda", ""),
    ],
)
def test_targets(row, kind, met):
    """A target is met, missed or, for another network or device, not run."""
    line = benchmarks.verdicts([row], kind)[0]
    assert line[0].startswith("cpu: DCIL step") and line[3] == met
    assert (line[1] == "not run") == (met == "")


@pytest.mark.parametrize(
    "words, message",
    [
        (["--only", "refesh"], "did you mean 'refresh'"),
        (["--ronds", "3"], "did you mean '--rounds'"),
        (["--rounds", "1"], "at least 2"),
        pytest.param(
            ["--device", "cuda"], "no GPU", marks=pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU")
        ),
    ],
)
def test_what_people_can_mend(words, message, capsys):
    """A wrong option exits with code 2 and names the nearest option or the smallest allowed value."""
    assert benchmarks.main(words) == 2
    assert message in capsys.readouterr().err


def test_imagenet_step(black, tmp_path, monkeypatch):
    """Time and memory of both methods are measured on noise of another size; chapter 7 turns the row into hours."""
    monkeypatch.setattr(benchmarks, "images", lambda _: black)
    monkeypatch.setattr(folders, "IMAGENET_SIDE", 32)
    words = "--only imagenet --rounds 2 --threads 1 --device cpu --out"
    assert benchmarks.main([*words.split(), str(tmp_path)]) == 0
    (path,) = tmp_path.iterdir()
    (row,) = csv.DictReader(path.open())
    assert (row["model"], row["batch_size"], row["recipe_epochs"]) == ("resnet50", "16", "90")
    assert 1.2 < float(row["mem_mib"]) / float(row["baseline_mib"]) < 3 and float(row["median_s"]) > 0


@pytest.mark.imagenette
def test_loading(black, tmp_path, monkeypatch):
    """Three ways to read Imagenette are compared in pairs."""
    monkeypatch.setattr(benchmarks, "images", lambda _: black)
    assert benchmarks.main(["--only", "loading", "--rounds", "2", "--threads", "1", "--out", str(tmp_path)]) == 0
    (path,) = tmp_path.iterdir()
    rows = {(row["case"], row["baseline"]): float(row["ratio"]) for row in csv.DictReader(path.open())}
    assert set(rows) == {
        ("ImageFolder + DataLoader", "originals"),
        ("ImageFolder + DataLoader", "decoded"),
        ("originals", "decoded"),
    }


def test_device(tmp_path, capsys):
    """A trained network is measured in every format and engine, and the results fill the chapter's tables."""
    record = dcil.fit(
        dcil.preset("smoke", epochs=1, sparsity=0.4, scope="filter", device="cpu"),
        progress=False,
        runs_dir=tmp_path / "runs",
    )
    words = [record["run_id"], "--runs-dir", str(tmp_path / "runs"), "--rounds", "2", "--threads", "1", "--out"]
    assert device.main([*words, str(tmp_path / "out")]) == 0
    rows = small_devices.read_device_results(tmp_path / "out")
    assert set(rows["run_id"]) == {record["run_id"]} and set(rows["scope"]) == {"filter"}
    assert set(small_devices.FORMATS) <= set(rows["variant"])
    assert "fewer bytes" in small_devices.gains_in_words(rows) and len(small_devices.latencies_table(rows, 1)) == 9
    shrunk, whole = (small_devices.measured_value(rows, "MACs", variant) for variant in ("shrunk", "dense"))
    assert shrunk < whole == record["cost"]["dense_macs"]
    assert device.main(["nothing", "--runs-dir", str(tmp_path)]) == 2
    assert "unknown finished run" in capsys.readouterr().err


@pytest.mark.parametrize("kernel", ["torch", "scipy"])
@torch.no_grad()
def test_sparse_convolutions_compute_the_same(kernel):
    """Sparse kernels give the dense outputs, for strides, paddings and 1×1 kernels too."""
    net = dcil.models.resnet8().eval()
    for conv in (m for m in net.modules() if isinstance(m, torch.nn.Conv2d)):
        conv.weight *= torch.rand_like(conv.weight) > 0.8
    images = torch.randn(3, 3, 20, 20)
    torch.testing.assert_close(with_csr(net, kernel)(images), net(images), rtol=1e-4, atol=1e-4)
