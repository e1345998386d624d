"""Reading the authors' checkpoints, on fakes in their layout; `test_conformance.py` has the real ones."""

import hashlib
import io
import re
import socket

import numpy as np
import pytest
import torch

from dcil import DcilError, DualPath, authors, models, set_masks
from dcil.data import datasets

NAME = "cifar10_90_run8"


def their_layout(dual: DualPath, mask_dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """Return a ResNet-32's `DualPath` as a state dict in the authors' layout, built without `authors.our_key`."""
    state = {}
    for place, layer in dual.net.named_modules():
        outer, _, leaf = place.rpartition(".")
        if isinstance(layer, torch.nn.Conv2d):
            theirs = place if leaf.startswith("conv") else outer.replace("shortcut", "downsample_conv")
            state[f"{theirs}.weight"] = layer.weight.detach()
            state[f"{theirs}.mask"] = dual.masks[f"{place}.weight"].to(mask_dtype)
        elif isinstance(layer, (torch.nn.BatchNorm2d, torch.nn.Linear)):
            copy = dual.own[0][place.replace(".", "/")]
            p, f = (
                (f"{place}_part", f"{place}_full")
                if leaf != "1"
                else [outer.replace("shortcut", f"downsample_{x}") for x in "pf"]
            )
            state |= {f"{p}.{k}": v.detach() for k, v in layer.state_dict().items()}
            state |= {f"{f}.{k}": v.detach() for k, v in copy.state_dict().items()}
    return state


@pytest.fixture(scope="module")
def network() -> DualPath:
    """A ResNet-32 of seven classes in which no two tensors are alike."""
    torch.manual_seed(0)
    dual = DualPath(models.resnet32(num_classes=7), fresh=True)
    with torch.no_grad():
        for tensor in (*dual.parameters(), *(b for b in dual.buffers() if b.is_floating_point())):
            tensor.add_(0.1 * torch.rand_like(tensor))
    set_masks(dual, 0.8)
    return dual.eval()


def write_npz(path, state):
    """Write the arrays as .npz, the form in which a few of the checkpoints are distributed."""
    np.savez_compressed(path, **{k: v.numpy() for k, v in state.items()})


def write_nested(path, state):
    """Write the state dict as saved from several GPUs: nested, names with a prefix, masks as numbers."""
    torch.save({"epoch": 3, "state_dict": {f"module.{k}": v for k, v in state.items()}}, path)


def write_old(path, state):
    """Write the bare state dict in PyTorch's format before version 1.6."""
    torch.save(state, path, _use_new_zipfile_serialization=False)


@pytest.mark.parametrize(
    "write, suffix, dtype",
    [(write_npz, "npz", torch.bool), (write_nested, "pth", torch.float32), (write_old, "pth", torch.float32)],
)
def test_load_gives_back_every_tensor(tmp_path, network, write, suffix, dtype):
    path = tmp_path / f"fake.{suffix}"
    state = their_layout(network, dtype)
    assert len(state) == 400  # as many as in each of theirs
    write(path, state)
    dual = authors.load(path).eval()
    found, expected = dual.state_dict(), network.state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[k], v) for k, v in expected.items() if k != "_extra_state")
    assert dual.target_sparsity == dual.sparsity() == pytest.approx(0.8, abs=1e-4)
    images = torch.randn(2, 3, 32, 32)
    assert all(torch.equal(a, b) for a, b in zip(dual(images), network(images), strict=True))


def change(state, **changes):
    """Return the state without the entries given as None and with the others replaced or added."""
    changes = {k.replace("/", "."): v for k, v in changes.items()}
    return {k: v for k, v in (state | changes).items() if v is not None}


@pytest.mark.parametrize(
    "changes, said",
    [
        ({"layer2/0/downsample_f/weight": None}, "missing: own.0.layer2/0/shortcut/1.weight"),
        ({"layer3/4/conv2/mask": None}, "missing: _masks.layer3/4/conv2/weight"),
        ({"layer1/5/conv1/weight": torch.zeros(16, 16, 3, 3)}, "not in ResNet-32: layer1.5.conv1.weight"),
        ({"note": torch.zeros(())}, "not in ResNet-32: note"),
        ({"fc_full/weight": torch.zeros(5, 64)}, "other shape: fc_full.weight (5, 64), expected (7, 64)"),
        ({"conv1/mask": torch.full((16, 3, 3, 3), 0.5)}, "not a mask of 0 and 1: conv1.mask"),
        ({"fc_part/weight": None}, "missing: net.fc.weight"),
    ],
)
def test_every_key_is_used_and_every_parameter_filled(tmp_path, network, changes, said):
    path = tmp_path / "fake.npz"
    write_npz(path, change(their_layout(network, torch.bool), **changes))
    with pytest.raises(DcilError, match=re.escape(said)):
        authors.load(path)


def test_what_is_no_tensor_is_named(tmp_path, network):
    path = tmp_path / "fake.pth"
    torch.save(their_layout(network, torch.float32) | {"bn1_part.bias": "zeros"}, path)
    with pytest.raises(DcilError, match="not in ResNet-32: bn1_part.bias"):
        authors.load(path)


@pytest.mark.parametrize("suffix", ["npz", "pth"])
def test_a_damaged_file_is_named_and_left(tmp_path, network, suffix):
    path = tmp_path / f"fake.{suffix}"
    (write_npz if suffix == "npz" else write_nested)(path, their_layout(network, torch.float32))
    whole = path.read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 1
    for damaged in (whole[: len(whole) // 2], bytes(flipped), b"", b"not a checkpoint"):
        path.write_bytes(damaged)
        with pytest.raises(DcilError, match=f"{re.escape(str(path))} cannot be read.*left as it is"):
            authors.load(path)
        assert path.read_bytes() == damaged


def test_other_files_are_refused(tmp_path):
    with pytest.raises(DcilError, match="there is no checkpoint"):
        authors.load(tmp_path / "absent.npz")
    torch.save({"weights": {"fc.weight": torch.zeros(2)}}, tmp_path / "other.pth")
    with pytest.raises(DcilError, match=r"other\.pth holds no 'conv1\.weight'"):
        authors.load(tmp_path / "other.pth")


def test_evaluate_counts_what_each_pass_gets_right(network):
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (24, 3, 8, 8), generator=generator, dtype=torch.uint8)
    labels = torch.arange(24) % 7
    tiny = datasets.Dataset("tiny", images, labels, images, labels, 7, (0.5,) * 3, (0.2,) * 3)
    found = authors.evaluate(network, tiny)
    inputs = (images / 255 - 0.5) / 0.2
    with torch.no_grad():
        hits = [(network.export(p)(inputs).argmax(1) == labels).sum().item() for p in ("sparse", "dense")]
    assert hits[0] != hits[1]
    assert [found["sparse"], found["dense"]] == [round(100 * h / 24, 4) for h in hits]
    assert (found["prunable"], found["kept"]) == (463_792, 463_792 - int(463_792 * 0.8) - 1)
    assert not network.training
    labels = torch.zeros(24).long()
    other = datasets.Dataset("other", images, labels, images, labels, 3, (0.5,) * 3, (1.0,) * 3)
    with pytest.raises(DcilError, match="has 7 classes, but other has 3"):
        authors.evaluate(network, other)


@pytest.fixture
def server(tmp_path, monkeypatch):
    """Return the URL of a folder that stands in for the authors' repository, and the content of its one file."""
    content = bytes(range(256)) * 1000
    known = {NAME: {**authors.KNOWN[NAME], "sha256_of_source": hashlib.sha256(content).hexdigest()}}
    monkeypatch.setattr(authors, "KNOWN", known)
    source = tmp_path / "server" / known[NAME]["source"]
    source.parent.mkdir(parents=True)
    source.write_bytes(content)
    return (tmp_path / "server").as_uri(), content


def test_fetch(tmp_path, server, monkeypatch):
    url, content = server
    path = authors.fetch(NAME, tmp_path / "to", url + "/")
    assert path == tmp_path / "to" / f"{NAME}.pth" and path.read_bytes() == content
    assert authors.known_name(path) == NAME
    monkeypatch.setattr("urllib.request.urlopen", lambda *a, **k: pytest.fail("fetched twice"))
    assert authors.fetch(NAME, tmp_path / "to", url) == path
    renamed = path.rename(path.with_name("theirs.pth"))
    assert authors.known_name(renamed) == NAME


def test_fetch_never_overwrites_and_keeps_nothing_wrong(tmp_path, server, monkeypatch):
    url, content = server
    (tmp_path / "to").mkdir()
    other = tmp_path / "to" / f"{NAME}.pth"
    other.write_bytes(b"mine")
    with pytest.raises(DcilError, match="already exists.*nothing was overwritten"):
        authors.fetch(NAME, tmp_path / "to", url)
    assert other.read_bytes() == b"mine"
    other.unlink()
    (tmp_path / "server" / authors.KNOWN[NAME]["source"]).write_bytes(content[:100_000])
    with pytest.raises(
        DcilError,
        match=f"100,000 bytes with SHA-256 {hashlib.sha256(content[:100_000]).hexdigest()}, "
        f"expected {hashlib.sha256(content).hexdigest()}",
    ):
        authors.fetch(NAME, tmp_path / "to", url)
    with pytest.raises(DcilError, match="could not be fetched"):
        authors.fetch(NAME, tmp_path / "to", (tmp_path / "nowhere").as_uri())

    class Cut(io.BytesIO):
        headers = {"Content-Length": "1000"}

        def read(self, size):
            raise ConnectionResetError("cut off")

    monkeypatch.setattr("urllib.request.urlopen", lambda *a, **k: Cut())
    with pytest.raises(DcilError, match="could not be fetched: cut off"):
        authors.fetch(NAME, tmp_path / "to", url)
    assert list((tmp_path / "to").iterdir()) == []


def test_a_server_that_falls_silent_is_left(tmp_path, monkeypatch):
    """A server that accepts the connection and stays silent, as a firewall may, does not block a job forever."""
    monkeypatch.setattr(authors, "WAIT_S", 0.2)
    silent, said = socket.create_server(("127.0.0.1", 0)), "could not be fetched: timed out. Try again"
    with silent, pytest.raises(DcilError, match=said):
        authors.fetch(NAME, tmp_path, f"http://127.0.0.1:{silent.getsockname()[1]}")
    assert list(tmp_path.iterdir()) == []


def test_fetch_suggests_the_nearest_name(tmp_path):
    with pytest.raises(DcilError, match="unknown checkpoint 'cifar10_90_run9': did you mean 'cifar10_90_run8'"):
        authors.fetch("cifar10_90_run9", tmp_path)
