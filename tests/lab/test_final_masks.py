"""How alike final masks are, and which channels they leave empty."""

import numpy as np
import pytest

from dcil import fit
from dcil.io import bits
from dcil.lab.runs import final_masks
from dcil.run_record import Run
from tests.lab.fakes import changed, fake_run


def trained(config, dataset, folder):
    return Run(fit(config, dataset=dataset, runs_dir=folder, progress=False))


def test_two_real_records(tiny_config, tiny_dataset, tmp_path):
    """Their overlap is that of two vectors, and each layer has a row."""
    runs = [trained(tiny_config(seed=s), tiny_dataset, tmp_path) for s in (0, 1)]
    masks = [run.final_mask for run in runs]
    row = final_masks.overlaps_table(runs).iloc[0]
    assert row["overlap"] == pytest.approx(np.sum(masks[0] & masks[1]) / np.sum(masks[0] | masks[1]))
    assert row["chance"] == final_masks.chance_overlap(*runs) > 0.2 / 1.8 and row["seeds"] == "0 and 1"
    assert len(final_masks.layers_table(runs)) == 2 * len(runs[0].cost.layer_sparsity)


def test_chance_knows_the_layers():
    """Two layers of 432 and 2,304 weights: 216 and 46.08 are expected in both. Equal shares k give k / (2 − k)."""

    def keeps(first, second):
        shares = {"conv1.weight": 1 - first, "layer1.0.conv1.weight": 1 - second}
        return changed(fake_run("dcil", 0, 80.0, model="resnet8"), "cost", layer_sparsity=shares)

    both, either = 216 + 46.08, 432 + 230.4 + 216 + 460.8
    assert final_masks.chance_overlap(keeps(1, 0.1), keeps(0.5, 0.2)) == pytest.approx(both / (either - both))
    assert final_masks.chance_overlap(keeps(0.1, 0.1), keeps(0.1, 0.1)) == pytest.approx(0.1 / 1.9)


def test_empty_channels_of_a_record(tiny_config, tiny_dataset, tmp_path):
    """They are as the run counted them; in an older record they are counted in its final mask, if that is whole."""
    run = trained(tiny_config(sparsity=0.97), tiny_dataset, tmp_path)
    row = final_masks.empty_channels_table([run]).iloc[0]
    assert row["empty"] == run.curve[-1].gradients["empty"] > 0 and 0 <= row["share"] <= 100
    *before, last = run["curve"]
    older = run | {"curve": [*before, last | {"gradients": {"cosine": 0.5, "norm_ratio": 2.0}}]}
    assert final_masks.empty_channel_count(older) == row["empty"]
    count = run["masks"]["count"] - 8
    sampled = changed(older, "masks", count=count, stride=3, final=bits.to_text(bytes(-(-count // 8))))
    older = final_masks.empty_channels_table([sampled, fake_run("ste", 0, 1.0)])
    assert len(older) == 1 and older["cosine"].item() == 0.5
    assert older[["empty", "share", "cosine_rest"]].isna().all(axis=None)
