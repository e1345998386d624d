"""Two networks on the same images: McNemar's test and its interval, by hand and by SciPy."""

import numpy as np
import pytest
from scipy.stats import binomtest

from dcil.lab.runs import images_right


def networks(only_a, only_b, count):
    """Return two networks' hits, boolean [count]: each alone gets so many right, both every second of the rest."""
    a, b = np.arange(count) % 2 == 0, np.arange(count) % 2 == 0
    a[: only_a + only_b] = [True] * only_a + [False] * only_b
    b[: only_a + only_b] = [False] * only_a + [True] * only_b
    return a, b


@pytest.mark.parametrize(("only_a", "only_b"), [(0, 0), (1, 0), (0, 6), (5, 5), (123, 98), (0, 1500), (4000, 4200)])
def test_mcnemar_is_the_exact_binomial_test(only_a, only_b):
    """It equals SciPy's, even where powers of two overflow, and is the same both ways round."""
    a, b = networks(only_a, only_b, 10_000)
    assert images_right.only_one(a, b) == (only_a, only_b)
    wanted = binomtest(only_a, only_a + only_b).pvalue if only_a + only_b else 1.0
    assert images_right.mcnemar_p(a, b) == images_right.mcnemar_p(b, a) == pytest.approx(wanted, rel=1e-9)


def test_interval_by_hand():
    """With half an image more per cell, 30 against 10 of 98 give (30 − 10)/100 ± 1.95996·√((41/100 − 0.04)/100)."""
    mean, low, high = images_right.interval_over_images(*networks(30, 10, 98))
    assert mean == pytest.approx(100 * 20 / 98)
    assert (low, high) == pytest.approx((20 - 195.996 * 0.37**0.5 / 10, 20 + 195.996 * 0.37**0.5 / 10), abs=1e-3)
    assert images_right.interval_over_images(*networks(30, 10, 98)[::-1]) == pytest.approx((-mean, -high, -low))
    _, low, high = images_right.interval_over_images(*networks(0, 0, 98))
    assert low == -high < 0  # networks that agreed on few images may differ on others


def test_in_words():
    """Points with their interval, and the p-value."""
    assert images_right.image_difference_in_words(*networks(30, 10, 98)) == "+20.41 (+8.08 to +31.92), p 0.0022"


def test_intervals_cover_the_truth():
    """Of 500 test sets of 400 images with a true difference of 3 points, about 95 % have it in their interval."""
    generator, truth, hits = np.random.default_rng(0), 3.0, 0
    for draw in generator.random((500, 400)):
        a, b = draw < 0.9, (draw < 0.8) | (draw > 0.93)  # 10 % only a gets right, 7 % only b
        _, low, high = images_right.interval_over_images(a, b)
        hits += low < truth < high
    assert 0.93 <= hits / 500 <= 0.97
