"""The loop: schedules, repeatable and resumable runs, and clear failures."""

import dataclasses
import json
import math
import os

import pytest
import torch

from dcil import checkpoint, metrics, records, trainer
from dcil.config import LATER, RunConfig
from dcil.data import datasets
from dcil.data.decoding import Store
from dcil.errors import DcilError
from dcil.stopping import Stop
from dcil.train import fit
from dcil.trainer import Trainer, learning_rate


def run(config, dataset, folder, **options):
    return fit(config, dataset=dataset, runs_dir=folder, progress=False, **options)


def files(folder, config):
    return folder / config.run_id / "record.json", folder / config.run_id / "checkpoint.pt"


def test_learning_rate_by_hand():
    """The rate rises from 0.1 to 0.2 over five epochs of 391 steps, and falls to a tenth at epochs 150 and 225."""
    config = RunConfig(model="resnet32", epochs=300).resolve()
    steps = 391
    assert learning_rate(config, 0, steps) == pytest.approx(0.1)
    assert learning_rate(config, 5 * steps // 2, steps) == pytest.approx(0.15, rel=1e-3)
    assert learning_rate(config, 5 * steps, steps) == pytest.approx(0.2)
    assert learning_rate(config, 150 * steps - 1, steps) == pytest.approx(0.2)
    assert learning_rate(config, 150 * steps, steps) == pytest.approx(0.02)
    assert learning_rate(config, 225 * steps, steps) == pytest.approx(0.002)
    wide = RunConfig(model="wrn28_2", epochs=195).resolve()
    rates = [learning_rate(wide, epoch * steps, steps) for epoch in (0, 59, 60, 120, 160)]
    assert rates == pytest.approx([0.1, 0.1, 0.02, 0.004, 0.0008])


def test_masks_and_losses_follow_the_schedule(tiny_dataset, tiny_config, tmp_path):
    """With masks every second step, epoch 0 removes only the one weight that the rule costs, and epoch 1 the rest."""
    first, second = run(tiny_config(), tiny_dataset, tmp_path)["curve"]
    assert (first["refreshes"], second["refreshes"]) == (2, 2)
    assert (first["target_sparsity"], second["target_sparsity"]) == (0.0, 0.8)
    assert first["flips"] <= 3 and second["flips"] > 1000
    assert set(first["loss"]) == {"ce_sparse", "ce_dense", "total"}
    assert set(second["loss"]) == {"ce_sparse", "ce_dense", "kl_sparse", "kl_dense", "total"}
    assert second["loss"]["total"] == pytest.approx(sum(v for k, v in second["loss"].items() if k != "total"))


def test_a_static_mask_never_moves(tiny_dataset, tiny_config, tmp_path):
    """Masks are chosen before the first step and never again."""
    first, second = run(tiny_config(method="static"), tiny_dataset, tmp_path)["curve"]
    assert (first["refreshes"], second["refreshes"], second["flips"]) == (1, 0, 0)
    assert first["sparsity"] == second["sparsity"] > 0.79


def test_training_learns(tiny_dataset, tiny_config, tmp_path):
    """Both passes tell ten brightnesses apart far better than chance (10 %)."""
    config = tiny_config(epochs=12, ramp_end=6, lr=0.05, sparsity=0.5, precision="float64")
    passes = run(config, tiny_dataset, tmp_path)["curve"][-1]["train"]
    assert min(passes[name]["top1"] for name in ("sparse", "dense")) > 35


def test_one_seed_one_record(tiny_dataset, tiny_config, tmp_path):
    """The same seed gives the same record but for times, whatever was drawn before; another does not."""
    first = run(tiny_config(), tiny_dataset, tmp_path / "a")
    torch.manual_seed(99)
    again = run(tiny_config(), tiny_dataset, tmp_path / "b")
    other = run(tiny_config(seed=1), tiny_dataset, tmp_path / "b")
    assert records.without_timing(first) == records.without_timing(again)
    assert other["curve"][0]["loss"] != first["curve"][0]["loss"]


def interrupt(monkeypatch, at_epoch):
    """Raise KeyboardInterrupt at the first step of an epoch."""
    step = Trainer.step

    def stop(self, images, labels, phase):
        if len(self.curve) == at_epoch:
            raise KeyboardInterrupt
        step(self, images, labels, phase)

    monkeypatch.setattr(Trainer, "step", stop)


def interrupted_run(config, dataset, folder, monkeypatch):
    """Leave a run with one whole epoch, interrupted at the first step of its second."""
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        interrupt(patch, at_epoch=1)
        run(config, dataset, folder)


def test_a_resumed_run_equals_an_uninterrupted_one(tiny_dataset, tiny_config, tmp_path, monkeypatch):
    """Interrupted in its second epoch and started again, a run has the same record and weights, and two sessions."""
    config = tiny_config(epochs=3)
    whole = run(config, tiny_dataset, tmp_path / "whole")
    interrupted_run(config, tiny_dataset, tmp_path / "parts", monkeypatch)
    assert not files(tmp_path / "parts", config)[0].exists()
    torch.manual_seed(5)
    drawn = torch.get_rng_state()
    resumed = run(config, tiny_dataset, tmp_path / "parts")
    assert torch.equal(torch.get_rng_state(), drawn)  # the caller's random state is as it was
    assert records.without_timing(resumed) == records.without_timing(whole)
    one, two = (checkpoint.load(files(tmp_path / f, config)[1])["model"] for f in ("whole", "parts"))
    assert all(torch.equal(one[k], two[k]) for k in one if torch.is_tensor(one[k]))
    sessions = resumed["cost"]["sessions"]
    assert [(s["first_epoch"], s["epochs"]) for s in sessions] == [(0, 1), (1, 2)]
    assert all(s["commit"] == resumed["environment"]["commit"] for s in sessions)


@pytest.mark.parametrize("dirty", [(True, False), (False, True)])
def test_a_run_is_as_clean_as_its_sessions(dirty, tiny_dataset, tiny_config, tmp_path, monkeypatch):
    """An epoch trained from a changed checkout makes the record dirty, even if the run is finished from a clean one."""
    config = tiny_config(epochs=3)
    state = {"dirty": dirty[0]}
    monkeypatch.setattr("dcil.records.source_state", lambda: ("0123456789", state["dirty"]))
    interrupted_run(config, tiny_dataset, tmp_path, monkeypatch)
    state["dirty"] = dirty[1]
    record = run(config, tiny_dataset, tmp_path)
    assert record["environment"]["dirty"] and [s["dirty"] for s in record["cost"]["sessions"]] == list(dirty)


def test_a_run_killed_before_its_record(tiny_dataset, tiny_config, tmp_path):
    """The last checkpoint knows which images are right; an older one, which does not, gives a record without."""
    config = tiny_config()
    whole = run(config, tiny_dataset, tmp_path)
    record_path, checkpoint_path = files(tmp_path, config)
    record_path.unlink()
    assert records.without_timing(run(config, tiny_dataset, tmp_path)) == records.without_timing(whole)
    record_path.unlink()
    content = checkpoint.load(checkpoint_path)
    del content["images_right"]
    torch.save(content, checkpoint_path)
    silent = records.without_timing(run(config, tiny_dataset, tmp_path))
    assert silent == {k: v for k, v in records.without_timing(whole).items() if k != "images_right"}


@pytest.mark.parametrize("method", ["dcil", "dense"])
def test_a_record_says_which_test_images_are_right(method, tiny_dataset, tiny_config, tmp_path):
    """There is one bit per image for each pass, of the checkpoint's network, in the order of the test set."""
    config = tiny_config(method=method, epochs=6, lr=0.05, sparsity=0.5 if method == "dcil" else 0.0)
    right = metrics.images_right(run(config, tiny_dataset, tmp_path))
    trained = Trainer(config, tiny_dataset)
    trained.load_state(checkpoint.load(files(tmp_path, config)[1]))
    for name in trained.dual.pass_names:
        network = trained.dual.export(name).eval()
        with torch.no_grad():
            output = network(trained.test.normalize(tiny_dataset.test_images))
        assert right[name].tolist() == (output.argmax(1) == tiny_dataset.test_labels).tolist()
        assert 0 < right[name].sum() < 16  # else any order would do
    assert [*right] == [*trained.dual.pass_names]


def test_a_test_set_too_large_for_a_record(tiny_dataset, tiny_config, tmp_path, monkeypatch):
    """The run is complete, and its record does not say which images are right."""
    monkeypatch.setattr("dcil.io.bits.MOST", 15)
    record = run(tiny_config(method="dense", sparsity=0.0), tiny_dataset, tmp_path)
    assert record["status"] == "complete" and metrics.images_right(record) is None


def test_a_checkpoint_of_an_earlier_version(tiny_dataset, tiny_config, tmp_path, monkeypatch):
    """With whole epochs only, no threshold and fewer fields, it is resumed like one of today."""
    config = tiny_config(epochs=3)
    whole = run(config, tiny_dataset, tmp_path / "whole")
    interrupted_run(config, tiny_dataset, tmp_path / "parts", monkeypatch)
    path = files(tmp_path / "parts", config)[1]
    content = checkpoint.load(path)
    target, refreshes, _ = content["model"]["_extra_state"].tolist()
    content["model"]["_extra_state"] = {"target_sparsity": target, "refreshes": int(refreshes)}
    del content["part"]
    for name in LATER:
        del content["config"][name]
    torch.save(content, path)
    assert records.without_timing(run(config, tiny_dataset, tmp_path / "parts")) == records.without_timing(whole)


def test_a_finished_run_is_not_trained_again(tiny_dataset, tiny_config, tmp_path, monkeypatch):
    """Its record is returned as it is; `resume=False` trains it again."""
    config = tiny_config()
    record = run(config, tiny_dataset, tmp_path)
    before = [p.read_bytes() for p in files(tmp_path, config)]
    with monkeypatch.context() as patch:
        interrupt(patch, at_epoch=0)
        assert run(config, None, tmp_path) == record
        assert [p.read_bytes() for p in files(tmp_path, config)] == before
        with pytest.raises(KeyboardInterrupt):
            run(config, tiny_dataset, tmp_path, resume=False)
    again = run(config, tiny_dataset, tmp_path, resume=False)
    assert records.without_timing(again) == records.without_timing(record)


def test_an_interrupted_run_on_other_data(tiny_dataset, tiny_config, tmp_path, monkeypatch):
    """It is not resumed, and its checkpoint is left as it is."""
    config = tiny_config()
    interrupted_run(config, tiny_dataset, tmp_path, monkeypatch)
    before = files(tmp_path, config)[1].read_bytes()
    other = dataclasses.replace(tiny_dataset, train_labels=tiny_dataset.train_labels.flip(0))
    with pytest.raises(DcilError, match="was started on other data"):
        run(config, other, tmp_path)
    assert files(tmp_path, config)[1].read_bytes() == before


def test_a_damaged_only_checkpoint_stops_the_run(tiny_dataset, tiny_config, tmp_path, monkeypatch):
    """Without one before it, it is neither loaded nor overwritten."""
    config = tiny_config()
    interrupted_run(config, tiny_dataset, tmp_path, monkeypatch)
    path = files(tmp_path, config)[1]
    path.write_bytes(path.read_bytes()[:-100])
    before = path.read_bytes()
    with pytest.raises(DcilError, match="cannot be read.*left as it is"):
        run(config, tiny_dataset, tmp_path)
    assert path.read_bytes() == before


def test_a_loss_that_is_not_finite(tiny_dataset, tiny_config, tmp_path, monkeypatch):
    """The run stops, a valid record says why, and the last good checkpoint stays as it was."""
    config = tiny_config(epochs=3)
    interrupted_run(config, tiny_dataset, tmp_path, monkeypatch)
    record_path, checkpoint_path = files(tmp_path, config)
    before = checkpoint_path.read_bytes()
    with monkeypatch.context() as patch, pytest.raises(DcilError, match="the loss became nan in epoch 2.*lower --lr"):
        patch.setattr(trainer, "learning_rate", lambda *_: 1e30)
        run(config, tiny_dataset, tmp_path)
    failed = records.read(record_path)
    assert failed["status"] == "failed" and len(failed["curve"]) == 1
    assert "the loss became nan in epoch 2" in failed["reason"]
    assert checkpoint_path.read_bytes() == before
    assert run(config, tiny_dataset, tmp_path)["status"] == "complete"  # it goes on from there


def test_a_failure_in_the_first_epoch(tiny_dataset, tiny_config, tmp_path):
    """It leaves a record with an empty curve and no checkpoint."""
    config = tiny_config(lr=1e30)
    with pytest.raises(DcilError, match="the loss became nan in epoch 1"):
        run(config, tiny_dataset, tmp_path)
    record_path, checkpoint_path = files(tmp_path, config)
    assert records.read(record_path)["curve"] == []
    assert not checkpoint_path.exists()


def test_weights_spoilt_by_the_last_step(tiny_dataset, tiny_config, tmp_path, monkeypatch):
    """A run whose last loss is finite but whose last weights are not fails."""
    config, step = tiny_config(batch_size=40, mask_period=1), Trainer.step  # one step an epoch

    def spoil(self, images, labels, phase):
        step(self, images, labels, phase)
        if len(self.curve) == 1:
            self.dual.net.fc.weight.data[0, 0] = math.inf

    monkeypatch.setattr(Trainer, "step", spoil)
    with pytest.raises(DcilError, match="a weight is not finite in epoch 2"):
        run(config, tiny_dataset, tmp_path)
    record_path, checkpoint_path = files(tmp_path, config)
    assert records.read(record_path)["status"] == "failed"
    assert len(checkpoint.load(checkpoint_path, config)["curve"]) == 1


def test_no_checkpoint_holds_what_is_not_finite(tiny_dataset, tiny_config, tmp_path, monkeypatch):
    """Weights spoilt within an epoch end the run at the next checkpoint, and the last good one is kept."""
    config, step = tiny_config(batch_size=10, mask_period=1), Trainer.step  # four steps an epoch

    def spoil(self, images, labels, phase):
        step(self, images, labels, phase)
        if (len(self.curve), self.steps_done) == (1, 1):
            self.dual.net.fc.weight.data[0, 0] = math.inf

    monkeypatch.setattr(Trainer, "step", spoil)
    monkeypatch.setattr("dcil.train.CHECKPOINT_S", 0)
    with pytest.raises(DcilError, match="not finite in epoch 2|became nan in epoch 2"):
        run(config, tiny_dataset, tmp_path)
    _, checkpoint_path = files(tmp_path, config)
    state = checkpoint.load(checkpoint_path, config)
    assert all(value.isfinite().all() for value in state["model"].values() if torch.is_tensor(value))
    assert (len(state["curve"]), state["part"]["steps"]) == (1, 1)


def test_another_working_directory_meanwhile(tiny_dataset, tiny_config, tmp_path, monkeypatch):
    """If it changes while a run trains, as a notebook's next cell may do, the run's files stay together."""
    monkeypatch.chdir(tmp_path)
    step = Trainer.step

    def elsewhere(self, *words):
        step(self, *words)
        os.chdir("/")

    monkeypatch.setattr(Trainer, "step", elsewhere)
    run(tiny_config(), tiny_dataset, "runs")
    assert all(path.exists() for path in files(tmp_path / "runs", tiny_config()))


def test_runs_dir_that_is_a_file(tiny_dataset, tiny_config, tmp_path):
    """The folder that cannot be made is named, and the file is left as it is."""
    (tmp_path / "runs").write_text("mine")
    with pytest.raises(DcilError, match="cannot write the run to .*; choose another --runs-dir"):
        run(tiny_config(), tiny_dataset, tmp_path / "runs")
    assert (tmp_path / "runs").read_text() == "mine"


@pytest.mark.parametrize(
    "changes",
    [
        {"precision": "bf16", "channels_last": True},
        {"precision": "float64"},
        {"channels_last": True},
        {"scope": "layer"},
    ],
    ids=str,
)
def test_other_ways_to_run(changes, tiny_dataset, tiny_config, tmp_path):
    """Other precisions, layouts and scopes train, prune and save weights of the right dtype."""
    config = tiny_config(**changes)
    record = run(config, tiny_dataset, tmp_path)
    assert record["curve"][-1]["sparsity"] == pytest.approx(0.8, abs=0.05)
    weight = checkpoint.load(files(tmp_path, config)[1])["model"]["net.conv1.weight"]
    assert weight.dtype == (torch.float64 if changes.get("precision") == "float64" else torch.float32)


def test_filters_are_counted_as_filters(tiny_dataset, tiny_config, tmp_path):
    """The filter scope keeps F − int(F·s) − 1 whole filters, whatever share of the weights that is."""
    config = tiny_config(scope="filter", score="l1")
    record = run(config, tiny_dataset, tmp_path)
    state = checkpoint.load(files(tmp_path, config)[1])["model"]
    rows = torch.cat([m.flatten(1).float().mean(1) for name, m in state.items() if name.startswith("_masks.")])
    assert set(rows.tolist()) == {0.0, 1.0}
    assert int(rows.sum()) == len(rows) - int(len(rows) * 0.8) - 1
    assert record["curve"][-1]["target_sparsity"] == 0.8


def test_memory_layout_changes_no_number(tiny_dataset, tiny_config, tmp_path):
    """channels_last in float64 gives the curve of the plain layout."""
    configs = (tiny_config(precision="float64", channels_last=last) for last in (False, True))
    plain, last = (run(config, tiny_dataset, tmp_path) for config in configs)
    for one, two in zip(plain["curve"], last["curve"], strict=True):
        assert one["loss"]["total"] == pytest.approx(two["loss"]["total"], rel=1e-6)
        assert one["sparsity"] == two["sparsity"]


def test_bf16_runs_in_bf16(tiny_dataset, tiny_config):
    """Activations inside the network are bf16; weights and outputs are not."""
    run, seen = Trainer(tiny_config(precision="bf16", channels_last=True), tiny_dataset), []
    run.dual.net.layer1.register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    images, _ = next(iter(run.loader.epoch(0)))
    outputs = run.engine.passes(run.dual, images)
    assert set(seen) == {torch.bfloat16}
    assert {o.dtype for o in outputs} == {p.dtype for p in run.dual.parameters()} == {torch.float32}
    assert run.dual.net.conv1.weight.is_contiguous(memory_format=torch.channels_last)


def test_few_classes_and_a_data_set_by_name(tiny_config, tmp_path, monkeypatch, tiny_dataset):
    """Top-5 of two classes is top-2, and without `dataset` the named one is loaded."""
    two = datasets.Dataset(
        "two",
        tiny_dataset.train_images,
        tiny_dataset.train_labels % 2,
        tiny_dataset.test_images,
        tiny_dataset.test_labels % 2,
        2,
        (0.4,) * 3,
        (0.25,) * 3,
    )
    asked = []
    monkeypatch.setattr(datasets, "load", lambda *words: asked.append(words) or two)
    record = fit(tiny_config(), data_dir="here", runs_dir=tmp_path, progress=False)
    assert asked == [("digits", "here", False, Store(tmp_path / "decoded", 10.0))]
    assert record["curve"][0]["test"]["sparse"]["top5"] == 100.0
    assert record["data"]["sha256"] == two.checksum() and record["data"]["num_classes"] == 2


def test_progress_is_shown_on_stderr_only(tiny_dataset, tiny_config, tmp_path, capsys):
    """Each epoch has a line for people, and nothing goes to stdout."""
    fit(tiny_config(), dataset=tiny_dataset, runs_dir=tmp_path)
    out, err = capsys.readouterr()
    assert out == ""
    assert "epoch   2/2" in err and "sparsity 0.8" in err


def test_the_record_is_plain_json(tiny_dataset, tiny_config, tmp_path):
    """`fit` returns what the file holds, except for the checksum, which only a file needs."""
    record = run(tiny_config(), tiny_dataset, tmp_path)
    held = json.loads(files(tmp_path, tiny_config())[0].read_text())
    assert len(held.pop("checksum")) == 64 and held == record


@pytest.mark.parametrize("most", [0.01, 1e6])
def test_a_gradient_longer_than_a_method_allows_is_scaled_down(most, tiny_config, tiny_dataset):
    """ST-3's clipping takes one norm over all parameters and keeps the direction; a shorter gradient is unchanged."""
    found = []
    for clip in (None, most):
        run = Trainer(tiny_config(method="st3_stepwise"), tiny_dataset)
        assert run.method.clip == 3.0
        run.method = dataclasses.replace(run.method, clip=clip)
        next(run.run(progress=False))
        found.append(torch.cat([p.grad.flatten() for p in run.dual.parameters()]))
    free, clipped = found
    length = free.norm()
    assert length > 0.01
    assert torch.allclose(clipped, free * min(1.0, most / length), rtol=1e-3, atol=1e-9)


@pytest.mark.parametrize(
    "around",
    [
        torch.no_grad,
        torch.inference_mode,
        lambda: torch.autocast("cpu", torch.bfloat16),
        lambda: torch.device("meta"),
    ],
    ids=["no_grad", "inference_mode", "autocast", "default device"],
)
def test_what_the_caller_has_on_changes_no_number(around, tiny_dataset, tiny_config, tmp_path):
    """Neither does a run change what the caller draws next."""
    config = tiny_config(epochs=1, ramp_end=0, distill_from=0)
    plain = run(config, tiny_dataset, tmp_path / "plain")
    drawn = torch.get_rng_state()
    with around():
        found = run(config, tiny_dataset, tmp_path / "inside")
    assert records.without_timing(found) == records.without_timing(plain)
    assert torch.equal(torch.get_rng_state(), drawn)


def test_settings_of_the_process_are_refused(tiny_dataset, tiny_config, tmp_path):
    """Another default dtype would change a seed's network, and bf16 matrix products would falsify the record."""
    try:
        torch.set_default_dtype(torch.float64)
        with pytest.raises(DcilError, match=r"default dtype is torch\.float64.*set_default_dtype\(torch\.float32\)"):
            run(tiny_config(), tiny_dataset, tmp_path)
        torch.set_default_dtype(torch.float32)
        torch.set_float32_matmul_precision("medium")
        with pytest.raises(DcilError, match=r"float32 in bf16 on this CPU.*set_float32_matmul_precision\('highest'\)"):
            run(tiny_config(), tiny_dataset, tmp_path)
    finally:
        torch.set_default_dtype(torch.float32)
        torch.set_float32_matmul_precision("highest")
    assert list(tmp_path.iterdir()) == []


def test_other_types_of_arguments(tiny_dataset, tiny_config, tmp_path):
    """Names in place of a configuration or a data set, and grey images, are refused."""
    grey = dataclasses.replace(
        tiny_dataset,
        train_images=tiny_dataset.train_images[:, :1],
        test_images=tiny_dataset.test_images[:, :1],
        mean=(0.4,),
        std=(0.2,),
    )
    with pytest.raises(DcilError, match=r"config is a str; it must be a RunConfig"):
        run("smoke", tiny_dataset, tmp_path)
    with pytest.raises(DcilError, match=r"dataset is a str; .*RunConfig\(dataset='cifar10'\)"):
        run(tiny_config(), "cifar10", tmp_path)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(DcilError, match=r"images of 1 channels, but the networks here take 3; .*expand"):
        run(tiny_config(), grey, tmp_path)


def test_a_pass_that_some_epochs_would_not_run(tiny_dataset, tiny_config, tmp_path):
    """With four steps an epoch, the second pass can run at every fourth step, but not at every fifth."""
    with pytest.raises(DcilError, match=r"dense_every is 5, .*epoch has 4 steps.*dense pass; lower --dense-every to 4"):
        run(tiny_config(dense_every=5), tiny_dataset, tmp_path)
    record = run(tiny_config(dense_every=4), tiny_dataset, tmp_path)
    assert all({*row["train"]} == {"sparse", "dense"} for row in record["curve"])


def test_a_run_that_would_keep_nothing(tiny_dataset, tiny_config, tmp_path):
    """A sparsity of 0.999 of 336 filters leaves none, and is refused before the first step."""
    with pytest.raises(
        DcilError, match=r"sparsity 0\.999 .* scope 'filter' leaves none of the .* filters; lower the sparsity"
    ):
        run(tiny_config(sparsity=0.999, scope="filter"), tiny_dataset, tmp_path)
    assert not files(tmp_path, tiny_config(sparsity=0.999, scope="filter"))[1].exists()
    with pytest.raises(DcilError, match=r"'global' leaves none of the .* prunable weights; lower the sparsity$"):
        Trainer(tiny_config(sparsity=0.999999), tiny_dataset)
    for fits in ({"sparsity": 0.999}, {"sparsity": 0.99, "scope": "filter"}):
        Trainer(tiny_config(**fits), tiny_dataset)


def test_two_limits_of_time(tiny_dataset, tiny_config, tmp_path):
    """A limit beside a `stop`, which has its own, is refused, since it would be ignored."""
    with pytest.raises(DcilError, match=r"max_minutes is 5 and stop is given.*Stop\(max_minutes=5\)"):
        fit(tiny_config(), dataset=tiny_dataset, runs_dir=tmp_path, max_minutes=5, stop=Stop())
