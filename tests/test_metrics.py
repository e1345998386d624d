"""Sums over an epoch, correct by hand, reset and resumed; evaluation, which changes nothing."""

import dataclasses

import pytest
import torch

from dcil.data.loaders import TestLoader
from dcil.distributed import Ranks
from dcil.errors import DcilError
from dcil.metrics import Tally, evaluate, evaluate_images
from dcil.trainer import Trainer


def filled():
    """Two batches of unequal size; class 0 ranks first, class 9 last."""
    tally = Tally(("sparse",), torch.device("cpu"))
    ranked = torch.arange(10.0, 0, -1).repeat(4, 1)
    tally.add({"sparse": ranked}, torch.tensor([0, 1, 4, 5]), {"ce": torch.tensor(1.0)})
    tally.add({"sparse": ranked[:1]}, torch.tensor([0]), {"ce": torch.tensor(4.0), "kl": torch.tensor(0.5)})
    return tally


def test_by_hand():
    """Top-1 and top-5 in percent over images, each term of the loss as the mean over the steps that had it."""
    assert filled().top() == {"sparse": {"top1": 40.0, "top5": 80.0}}
    assert filled().loss() == {"ce": 2.5, "kl": 0.5, "total": 3.0}


def test_reset_is_in_place_and_forgets_terms():
    """Reset keeps the tensors, which a captured step holds, and a term that does not occur again is not shown."""
    tally = filled()
    held = tally.losses["ce"]
    tally.reset()
    tally.add({"sparse": torch.eye(10)[:1]}, torch.tensor([0]), {"ce": torch.tensor(3.0)})
    assert tally.losses["ce"] is held
    assert tally.loss() == {"ce": 3.0, "total": 3.0} and tally.top()["sparse"]["top1"] == 100.0


def test_state_is_a_copy():
    """A tally goes on from a saved state, which does not change with it."""
    tally, other = filled(), Tally(("sparse",), torch.device("cpu"))
    state = tally.state()
    tally.reset()
    other.load_state(state)
    assert other.loss() == filled().loss() and other.top() == filled().top()
    other.reset()
    assert state["losses"]["ce"].tolist() == [5.0, 2.0]


def test_a_pass_that_has_not_run_yet():
    """A pass that has seen no image, as may be early in an epoch, has no accuracy."""
    tally = Tally(("sparse", "dense"), torch.device("cpu"))
    tally.add({"sparse": torch.eye(10)[:1]}, torch.tensor([0]))
    assert tally.top() == {"sparse": {"top1": 100.0, "top5": 100.0}}


def test_evaluation_uses_running_statistics_and_changes_none(tiny_dataset, tiny_config):
    """Measuring leaves every buffer alone and the network in training mode."""
    run = Trainer(tiny_config(), tiny_dataset)
    before = {n: b.clone() for n, b in run.dual.named_buffers()}
    evaluate(run.dual, run.dual.pass_names, run.test, run.engine)
    assert all(torch.equal(before[n], b) for n, b in run.dual.named_buffers())
    assert run.dual.training


def test_right_images_add_up_to_the_accuracy():
    """Of equal logits, which bf16 often has, one choice decides both the accuracy and which images are right."""
    tally, labels = Tally(("sparse",), torch.device("cpu")), torch.arange(10)
    right = tally.add({"sparse": torch.zeros(10, 10)}, labels)["sparse"]
    assert right.tolist() == (torch.zeros(10, 10).topk(5).indices[:, 0] == labels).tolist()
    assert tally.top()["sparse"]["top1"] == 10 * int(right.sum())


def test_right_images_are_in_the_order_of_the_test_set(tiny_dataset, tiny_config):
    """In batches of seven, for each pass, they are those of the whole test set at once."""
    run = Trainer(tiny_config(), tiny_dataset)
    run.test.batch_size = 7
    top, right = evaluate_images(run.dual, run.dual.pass_names, run.test, run.engine)
    run.dual.eval()
    with torch.no_grad():
        logits = run.dual(run.test.normalize(tiny_dataset.test_images))
    for name, output in zip(run.dual.pass_names, logits, strict=True):
        assert right[name].tolist() == (output.argmax(1) == tiny_dataset.test_labels).tolist()
        assert top[name]["top1"] == 100 * right[name].float().mean()


def test_a_rank_without_test_images(tiny_dataset, tiny_config):
    """Of one image for two ranks the second has none, and the accuracy is the first's."""

    class Second(Ranks):
        def sum_(self, tensors):
            for tensor in tensors:
                tensor += 1  # the first rank's image is right

    images, labels, second = tiny_dataset.test_images[:1], tiny_dataset.test_labels[:1], Second(1, 2)
    one = dataclasses.replace(tiny_dataset, test_images=images, test_labels=labels)
    run = Trainer(tiny_config(), tiny_dataset)
    loader = TestLoader(one, run.engine.device, ranks=second)
    top, right = evaluate_images(run.dual, run.dual.pass_names, loader, run.engine, second)
    assert top["sparse"] == {"top1": 100.0, "top5": 100.0}
    assert [each.tolist() for each in right.values()] == [[], []]


def test_a_rank_without_test_images_trains(tiny_dataset, tiny_config, monkeypatch):
    """A rank without test images knows their size, which the check of a batch of one image needs."""
    monkeypatch.setattr("dcil.distributed.share", lambda model, *_, **__: model)
    images, labels = tiny_dataset.test_images[:1], tiny_dataset.test_labels[:1]
    one = dataclasses.replace(tiny_dataset, test_images=images, test_labels=labels)
    run = Trainer(tiny_config(batch_size=19), one, Ranks(1, 2))
    assert run.loader.least == 1 and len(run.test.labels) == 0


@pytest.mark.parametrize("batch_size", [13, 1], ids=["the last batch", "every batch"])
def test_a_batch_of_one_image(batch_size, tiny_dataset, tiny_config):
    """A batch of one image is refused if batch norm would see one pixel of it, and fine if it sees more."""
    with pytest.raises(DcilError, match=r"one image only, and at 8×8 pixels .*--batch-size, or larger images"):
        Trainer(tiny_config(batch_size=batch_size, model="resnet18"), tiny_dataset)
    run = Trainer(tiny_config(batch_size=batch_size, model="resnet8"), tiny_dataset)
    fresh = Trainer(tiny_config(model="resnet8"), tiny_dataset).dual.state_dict()
    for name, tensor in run.dual.state_dict().items():
        assert not torch.is_tensor(tensor) or torch.equal(tensor, fresh[name]), name
