"""Two networks compared on the same test images, by which images each gets right (`dcil.metrics.images_right`).

One pair of networks says nothing about the methods that trained them: that takes several seeds
(`dcil.lab.runs.seeds_and_images`). Imports only what a run record needs, so neither pandas nor SciPy.
"""

from __future__ import annotations

import math
from itertools import accumulate
from statistics import NormalDist

import numpy as np

NOT_RECORDED = "not recorded"


def only_one(a: np.ndarray, b: np.ndarray) -> tuple[int, int]:
    """Return how many images only `a` gets right, and how many only `b`; both boolean [N].

    >>> only_one(np.array([True, True, True, False]), np.array([True, False, False, True]))
    (2, 1)
    """
    return int((a & ~b).sum()), int((b & ~a).sum())


def mcnemar_p(a: np.ndarray, b: np.ndarray) -> float:
    """Return the two-sided p-value for equal accuracy of two networks, both boolean [N] over the same images.

    The exact McNemar test: under the null hypothesis, an image that only one network gets right is equally likely to be
    either one's (McNemar 1947).

    >>> mcnemar_p(np.array([True] * 5 + [False]), np.array([False] * 5 + [True]))  # (1 + 6) of 2^6 ways, and as many
    0.21875
    """
    only = only_one(a, b)
    count = sum(only)
    ways = accumulate(range(min(only)), lambda choose, i: choose * (count - i) // (i + 1), initial=1)
    return min(1.0, 2 * sum(ways) / 2**count)


def interval_over_images(a: np.ndarray, b: np.ndarray) -> tuple[float, float, float]:
    """Return the accuracy of `a` minus that of `b`, boolean [N] over the same images, with its 95 % interval.

    In points (difference, low, high). The interval is Wald's after adding half an image to each of the four cells
    (Agresti and Min 2005), so that it is valid also for few images and for networks that never disagree.
    """
    only_a, only_b, count = *only_one(a, b), len(a)
    centre, apart = (only_a - only_b) / (count + 2), (only_a + only_b + 1) / (count + 2)
    half = NormalDist().inv_cdf(0.975) * math.sqrt((apart - centre**2) / (count + 2))
    return 100 * (only_a - only_b) / count, 100 * (centre - half), 100 * (centre + half)


def image_difference_in_words(a: np.ndarray, b: np.ndarray) -> str:
    """Return `interval_over_images` and `mcnemar_p` as a table shows them."""
    mean, low, high = interval_over_images(a, b)
    return f"{mean:+z.2f} ({low:+z.2f} to {high:+z.2f}), p {mcnemar_p(a, b):.2g}"
