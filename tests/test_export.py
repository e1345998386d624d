"""Exported networks: every format computes what its network does, says which run it is from, and is read safely."""

import json
import os
import pickle
import re
from dataclasses import asdict

import numpy as np
import pytest
import torch
from PIL import Image

import dcil
from dcil import models
from dcil.cli.main import main
from dcil.errors import DcilError
from dcil.export import formats, trained_run
from dcil.export.formats import ENDINGS, TOLERANCE, Card

EXACT = ("state_dict", "sparse", "shrunk")
CARD = Card("a-run", "resnet8", 10, tuple("0123456789"), 0.0, "digits", 32, 32, (0.5,) * 3, (0.5,) * 3)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished run of two epochs on the digits, pruned by filters so that there is something to shrink."""
    folder = tmp_path_factory.mktemp("runs")
    record = dcil.fit(
        dcil.preset("smoke", epochs=2, sparsity=0.4, scope="filter", device="cpu"), runs_dir=folder, progress=False
    )
    return folder, record


@pytest.fixture(scope="module")
def files(run, tmp_path_factory):
    """The run exported to every format by `python -m dcil export`."""
    runs, record = run
    out = tmp_path_factory.mktemp("exports")
    assert main(["export", record["run_id"][:14], "--to", *ENDINGS, "--runs-dir", str(runs), "--out", str(out)]) == 0
    return {to: out / f"{record['run_id']}.{ending}" for to, ending in ENDINGS.items()}


@pytest.mark.parametrize("to", ENDINGS)
@torch.no_grad()
def test_outputs_and_card(run, files, to):
    """A loaded file gives the sparse pass's outputs for any batch size, and its card says run, sparsity and input."""
    runs, record = run
    net, card, _ = trained_run.network(record["run_id"], runs)
    loaded, found = formats.load(files[to])
    assert found == card and card.run_id == record["run_id"]
    assert card.sparsity == pytest.approx(record["curve"][-1]["sparsity"], abs=1e-6)
    assert (card.side, card.short, card.classes) == (16, 16, tuple("0123456789"))
    for batch in (1, 5):
        images = torch.randn(batch, 3, 16, 16)
        apart = (loaded(images) - net(images)).abs().max()
        assert apart <= (TOLERANCE[to] if TOLERANCE[to] is not None else 5)


def own(side, **fields):
    """Return a data set of two classes that has no registered name."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (20, 3, *side), dtype=torch.uint8, generator=generator)
    labels = torch.arange(20) % 2
    return dcil.data.Dataset("mine", images, labels, images, labels, 2, (0.1, 0.2, 0.3), (0.4, 0.5, 0.6), **fields)


def fitted(dataset, folder):
    """Train a run on a data set of one's own; returns its id. Its configuration still names the digits."""
    config = dcil.preset("smoke", epochs=1, device="cpu")
    return dcil.fit(config, dataset=dataset, runs_dir=folder, progress=False)["run_id"]


def test_the_card_is_of_the_data_that_the_run_was_given(tmp_path, capsys):
    """The card does not describe the digits that the configuration names, whose normalisation would be wrong."""
    for number, names in enumerate([(), ("no", "yes")]):
        runs = tmp_path / str(number)
        run_id = fitted(own((8, 8), classes=names), runs)
        net, card, _ = trained_run.network(run_id, runs)
        assert (card.dataset, card.side, card.short, card.classes) == ("mine", 8, 8, names or ("0", "1"))
        assert (card.mean, card.std) == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
        assert formats.save(net, card, tmp_path / "net.pt", to="state_dict") == 0
        assert formats.load(tmp_path / "net.pt")[1] == card
    assert main(["export", run_id, "--to", "int8", "--runs-dir", str(runs), "--out", str(tmp_path)]) == 2
    assert "was trained on 'mine', which only you have" in capsys.readouterr().err


def test_images_that_are_not_square_are_not_exported(tmp_path):
    run_id = fitted(own((8, 12)), tmp_path)
    with pytest.raises(DcilError, match="takes images of 8 × 12 pixels, and only networks of square images"):
        trained_run.network(run_id, tmp_path)


@torch.no_grad()
def test_int8_classifies_as_well(files):
    """On real test images int8 nearly always picks float32's class; random images would not show it."""
    digits = dcil.data.digits()
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (digits.mean, digits.std))
    images = (digits.test_images / 255 - mean) / std
    chosen = {to: formats.load(files[to])[0](images).argmax(1) for to in ("onnx", "int8")}
    assert (chosen["onnx"] == digits.test_labels).double().mean() > 0.2  # two epochs; one in ten by chance
    assert (chosen["onnx"] == chosen["int8"]).double().mean() > 0.9


def test_sparse_and_shrunk_are_smaller(files):
    """Formats that store no zeros or no empty filters are smaller, and int8 is smaller than float32."""
    size = {to: path.stat().st_size for to, path in files.items()}
    assert size["sparse"] < 0.7 * size["state_dict"] and size["shrunk"] < 0.8 * size["state_dict"]
    assert size["int8"] < 0.5 * size["onnx"]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
@pytest.mark.parametrize("to", EXACT)
def test_a_network_of_another_precision(to, dtype, tmp_path):
    """The file has it in float32, as the card says; the network itself stays as it is."""
    net = models.build("resnet8", num_classes=10).to(dtype)
    formats.save(net, CARD, tmp_path / "net.pt", to)
    assert net.conv1.weight.dtype == dtype
    assert formats.load(tmp_path / "net.pt")[0].state_dict()["conv1.weight"].equal(net.conv1.weight.float())


@torch.no_grad()
def test_large_outputs_differ_more(tmp_path):
    """What rounding changes grows with the outputs, so the difference that is allowed does, too."""
    net = models.build("resnet8", num_classes=10).eval()
    for conv in (net.layer1[0].conv1, net.layer2[0].conv1, net.layer3[0].conv1):
        conv.weight[::2] = 0
    for norm in (m for m in net.modules() if isinstance(m, torch.nn.BatchNorm2d)):
        norm.bias.normal_()
    net.fc.weight.mul_(1e4)
    assert formats.save(net, CARD, tmp_path / "net.pt", "shrunk") > TOLERANCE["shrunk"]


def test_pack_is_exact():
    """Bitmap and values restore every tensor exactly, of any shape, integers too."""
    state = {"a": torch.randn(3, 5, 3) * (torch.rand(3, 5, 3) > 0.7), "b": torch.arange(4), "c": torch.zeros(2, 7)}
    back = formats.unpack(formats.pack(state))
    assert all(torch.equal(back[k], v) and back[k].dtype == v.dtype for k, v in state.items())


def test_zeros_have_no_sign(run, files):
    """Masks turn negative weights into -0.0; a file has only +0.0, else it would not compress."""
    runs, record = run
    net = trained_run.network(record["run_id"], runs)[0]
    loaded = formats.load(files["state_dict"])[0]
    assert any(torch.signbit(p[p == 0]).any() for p in net.parameters())
    assert not any(torch.signbit(p[p == 0]).any() for p in loaded.parameters())


# --- what is refused


@pytest.mark.parametrize("to", ENDINGS)
@pytest.mark.parametrize(
    "damage",
    [
        lambda raw: raw[: len(raw) // 2],
        lambda raw: b"",
        lambda raw: b"no network",
    ],
    ids=["half", "empty", "text"],
)
def test_damaged_file(files, to, damage, tmp_path):
    """A damaged file is named and left as it is."""
    path = tmp_path / files[to].name
    raw = damage(files[to].read_bytes())
    path.write_bytes(raw)
    with pytest.raises(DcilError, match=f"{re.escape(str(path))} (cannot be read|is ONNX but has no card)"):
        formats.load(path)
    assert path.read_bytes() == raw


@pytest.mark.parametrize("to", ENDINGS)
def test_flipped_bits(files, to, tmp_path):
    """A file with a flipped bit is refused, although PyTorch or onnxruntime might load it without an error."""
    raw = bytearray(files[to].read_bytes())
    raw[len(raw) // 2] ^= 4
    path = tmp_path / files[to].name
    path.write_bytes(raw)
    with pytest.raises(DcilError, match="cannot be read as an exported network"):
        formats.load(path)


def test_a_stranger_s_file_runs_nothing(tmp_path):
    """A pickle that would run a command is refused, and the command is not run."""

    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "owned"),)

    content = {"schema": 1, "card": Evil()}
    torch.save(content, tmp_path / "torch.pt")
    (tmp_path / "pickle.pt").write_bytes(pickle.dumps(content, protocol=2))
    for name in ("torch.pt", "pickle.pt"):
        with pytest.raises(DcilError, match=f"{name} cannot be read"):
            formats.load(tmp_path / name)
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize(
    "change",
    [
        lambda c: c.pop("card"),
        lambda c: c["card"].update(model="resnet9000"),
        lambda c: c["card"].update(num_classes=3),
        lambda c: c["card"].pop("side"),
        lambda c: c["card"].update(classes=["a"]),
        lambda c: c["card"].update(mean=[0.5]),
        lambda c: c.update(format="shrunk"),
        lambda c: c["state"].pop("conv1.weight"),
    ],
    ids=["no card", "no model", "other head", "half a card", "few classes", "one channel", "no plan", "no weight"],
)
def test_not_of_export(files, tmp_path, change):
    """A file whose parts do not fit together is refused by name."""
    content = torch.load(files["state_dict"], weights_only=True)
    change(content)
    torch.save(content, tmp_path / "odd.pt")
    with pytest.raises(DcilError, match=r"odd\.pt|unknown model"):
        formats.load(tmp_path / "odd.pt")


def test_newer_schema_and_no_file(files, tmp_path):
    """A file of a newer schema asks for an update; a missing file is called missing."""
    content = torch.load(files["state_dict"], weights_only=True)
    torch.save(content | {"schema": 99}, tmp_path / "new.pt")
    with pytest.raises(DcilError, match="schema 99.*update dcil"):
        formats.load(tmp_path / "new.pt")
    with pytest.raises(DcilError, match="there is no file"):
        formats.load(tmp_path / "none.pt")


def test_a_wrong_file_is_not_written(tmp_path, monkeypatch):
    """A file is read back before it gets its name; one that computes something else never gets it."""
    card = Card("run", "resnet8", 10, tuple("0123456789"), 0.0, "digits", 32, 32, (0.3,) * 3, (0.3,) * 3)
    monkeypatch.setattr(formats, "pack", lambda state: {k: v * 1.1 for k, v in state.items()})
    monkeypatch.setattr(formats, "unpack", lambda state: state)
    with pytest.raises(DcilError, match=r"format sparse gives outputs that differ by up to .*nothing was written"):
        formats.save(models.resnet8(), card, tmp_path / "net.sparse.pt", "sparse")
    assert not list(tmp_path.iterdir())
    with pytest.raises(DcilError, match="int8 needs images"):
        formats.save(models.resnet8(), card, tmp_path / "net.int8.onnx", "int8")


def test_sources(run, tmp_path, capsys):
    """A run is found by its folder, id or hash; an unknown or a failed one is refused."""
    runs, record = run
    for name in (str(runs / record["run_id"]), record["run_id"], record["run_id"].rpartition("-")[2]):
        assert trained_run.network(name, runs)[1].run_id == record["run_id"]
    assert main(["export", "nothing", "--runs-dir", str(runs)]) == 2
    assert f"unknown finished run in {runs} 'nothing'" in capsys.readouterr().err
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "record.json").write_text(json.dumps(record | {"status": "failed"}))
    assert main(["export", "broken", "--runs-dir", str(tmp_path)]) == 2


# --- predict


def test_predict(files, tmp_path, capsys):
    """A digit's picture gets classes with their chances, and all formats agree on the first."""
    digits = dcil.data.digits()
    pixels = digits.test_images[0].permute(1, 2, 0).numpy()
    Image.fromarray(pixels).save(tmp_path / "digit.png")
    first = set()
    for to in (*EXACT, "onnx"):
        assert main(["predict", str(tmp_path / "digit.png"), "--from", str(files[to]), "--top", "3"]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert len(lines) == 4 and "%" in lines[1]
        first.add(lines[1])
    assert len(first) == 1


def test_predict_refuses(files, tmp_path, capsys):
    """A file that is no picture, and a network that is not there, are refused."""
    (tmp_path / "text.png").write_text("no picture")
    assert main(["predict", str(tmp_path / "text.png"), "--from", str(files["onnx"])]) == 2
    assert "cannot be read as an image" in capsys.readouterr().err
    assert main(["predict", str(tmp_path / "text.png"), "--from", str(tmp_path / "none.onnx")]) == 2
    assert "there is no file" in capsys.readouterr().err


def test_other_files_of_torch_are_not_taken_for_damaged(run, tmp_path):
    """A run's checkpoint, a state dict and a tensor are not called damaged; the error names the command to use."""
    runs, record = run
    torch.save(models.build("resnet8", 10).state_dict(), tmp_path / "weights.pt")
    torch.save(torch.zeros(2), tmp_path / "tensor.pt")
    for path in (runs / record["run_id"] / "checkpoint.pt", tmp_path / "weights.pt", tmp_path / "tensor.pt"):
        with pytest.raises(DcilError, match=f"{path.name} was not written by `python -m dcil export`"):
            formats.load(path)


def test_prepare_is_what_the_test_loader_does():
    """A picture of any size becomes what the test loader makes of it; the card survives JSON."""
    folder_card = Card(
        "run", "resnet18", 10, ("a",) * 10, 0.8, "imagenette", 128, 146, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    )
    pixels = np.random.RandomState(0).randint(256, size=(160, 200, 3)).astype(np.uint8)
    from dcil.data.crops import central_sample

    image = central_sample(torch.from_numpy(pixels).permute(2, 0, 1), 128) / 255
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (folder_card.mean, folder_card.std))
    torch.testing.assert_close(folder_card.prepare(pixels), ((image - mean) / std)[None])
    assert Card.from_dict(json.loads(json.dumps(asdict(folder_card)))) == folder_card
