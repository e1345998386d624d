"""Intervals over seeds and images: by hand, against the interval over seeds, and by how often they cover the truth."""

import math

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import t

from dcil.errors import DcilError
from dcil.io import bits
from dcil.lab.runs import paired
from dcil.lab.runs import seeds_and_images as both
from dcil.lab.runs.names import label
from dcil.run_record import Run
from tests.lab.fakes import changed, fake_run


def networks(gaps):
    """Return two variants' hits, boolean [seeds, N], whose difference is −1, 0 or 1 as given."""
    gaps = np.array(gaps)
    return gaps == 1, gaps == -1


def test_interval_by_hand():
    """Seeds 1/2, 1/2, 0 and images 1, −1/3 about 1/3: mean squares 1/6, 8/3 and, of the rest, 1/6.

    So the variance is (1/6 + 8/3 − 1/6) / 6 = 4/9, on (8/3)² / ((1/6)²/2 + (8/3)² + (1/6)²/2) = 256/257 degrees.
    """
    mean, low, high = both.over_seeds_and_images(*networks([[1, 0], [1, 0], [1, -1]]))
    half = 100 * t.ppf(0.975, 256 / 257) * 2 / 3
    assert (mean, low, high) == pytest.approx((100 / 3, 100 / 3 - half, 100 / 3 + half))


def test_images_that_add_nothing_leave_the_interval_over_seeds():
    """They do so if images spread no more than the rest; without any spread the interval is a point."""
    gaps = np.array([[1, 0, 0, 1], [0, 1, 1, 0], [1, 1, -1, -1], [0, 0, 1, 1]])
    assert both.over_seeds_and_images(*networks(gaps)) == pytest.approx(paired.t_interval(100 * gaps.mean(1)))
    one_image = both.over_seeds_and_images(*networks([[1], [0], [1]]))
    assert one_image == pytest.approx(paired.t_interval([100, 0, 100]))
    assert both.over_seeds_and_images(*networks(np.zeros((3, 5)))) == (0.0, 0.0, 0.0)


def test_two_seeds_are_too_few():
    """They have a mean and no interval."""
    mean, low, high = both.over_seeds_and_images(*networks([[1, 0], [0, 0]]))
    assert mean == 25.0 and math.isnan(low) and math.isnan(high)


@pytest.mark.parametrize("seeds", [3, 8])
def test_intervals_cover_the_truth(seeds):
    """Images favour one variant by up to 90 points more or less, seeds by 5; the truth over all of both is 2 points.

    Of 300 test sets of 200 images the interval covers it 95 % of the time in the long run, that over seeds does not.
    """
    generator, truth = np.random.default_rng(0), 2.0
    covered = np.zeros(2)
    for _ in range(300):
        favour = 0.02 + generator.uniform(-0.9, 0.9, 200) + generator.uniform(-0.05, 0.05, (seeds, 1))
        a, b = (generator.random((seeds, 200)) < 0.5 + sign * favour / 2 for sign in (1, -1))
        intervals = both.over_seeds_and_images(a, b), paired.t_interval(100 * (a.mean(1) - b.mean(1)))
        covered += [low < truth < high for _, low, high in intervals]
    with_images, without = covered / 300
    assert 0.92 <= with_images <= 0.98 and without < 0.9


def told(method, seed, right, **changes):
    """Return a run whose record says which of eight images its network gets right."""
    text = bits.to_text(bits.pack(torch.tensor(right, dtype=torch.bool)))
    one = fake_run(method, seed, 100 * sum(right) / len(right), **changes)
    return changed(one, "data", sha256="eight images", test_size=len(right)) | {"images_right": {"sparse": text}}


STE = [told("ste", seed, [1, 1, 1, 1, 0, 0, 0, seed % 2]) for seed in range(3)]
DCIL = [told("dcil", seed, [1, 1, 1, 1, 1, 1, 0, 0]) for seed in range(3)]


def test_a_table_beside_a_baseline():
    """Differences are at equal seeds; other seeds are left out, and a variant without a run is "not run"."""
    table = both.images_table([*STE, *DCIL[:2], told("dcil", 7, [1] * 8)], ["ste", "dcil", "rigl"], "ste")
    assert table.columns[2] == "minus STE, points, over seeds"
    assert table.to_numpy().tolist() == [
        ["DCIL", 2, paired.signed_interval(*paired.t_interval([25.0, 12.5])), "+18.75", "0.5, 1"],
        [label("rigl"), 0, *["not run"] * 3],
    ]
    table = both.images_table([*STE, *DCIL], ["dcil"], "ste")
    dcil, ste = np.array([[1, 1, 1, 1, 1, 1, 0, 0]] * 3), np.array([[1, 1, 1, 1, 0, 0, 0, s % 2] for s in range(3)])
    assert table["over seeds and images"].tolist() == [paired.signed_interval(*both.over_seeds_and_images(dcil, ste))]


def test_what_is_not_recorded_is_said_once():
    """Variants without such records share one row, and seeds without are not counted."""
    silent = [fake_run(method, seed, 80.0) for method in ("gmp", "st3") for seed in range(3)]
    table = both.images_table([*STE, *silent, *DCIL], ["gmp", "dcil", "st3"], "ste")
    assert table["method"].tolist() == ["DCIL", f"{label('gmp')}, {label('st3')}"]
    assert table.iloc[1].tolist()[1:] == [0, *["not recorded"] * 3]
    some = [Run({k: v for k, v in r.items() if k != "images_right"}) if r.config.seed else r for r in DCIL]
    assert [*both.right_at_equal_seeds([*STE, *some], "dcil", "ste")] == [0]
    assert isinstance(both.images_table([], ["dcil"], "ste"), pd.DataFrame)


def test_other_images_are_refused():
    """Two versions of a data set have different images at the same places."""
    changes = {"8 of another, 8 of eight images": {"sha256": "another"}, "7 of .*, 8 of ": {"test_size": 7}}
    for said, change in changes.items():
        other = [r | {"data": r["data"] | change} for r in DCIL]
        with pytest.raises(DcilError, match=f"'dcil' and 'ste' were tested on different images .{said}"):
            both.images_table([*STE, *other], ["dcil"], "ste")
