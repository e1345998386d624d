"""Two variants compared over seeds and test images: the chance in training, and the chance in drawing the test set.

All runs are tested on the same images, so the spread between seeds does not show which variant these images happen to
favour. An interval over seeds covers other seeds on these same images; an interval over seeds and images also covers
other test sets of the same kind. It needs records with `images_right` (`dcil.metrics`), which older ones lack.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd

from dcil.errors import DcilError
from dcil.lab.runs import paired
from dcil.lab.runs.compared import SEEDS
from dcil.lab.runs.frames import MISSING, runs_table
from dcil.lab.runs.images_right import NOT_RECORDED, mcnemar_p
from dcil.lab.runs.names import label
from dcil.run_record import Run


def over_seeds_and_images(a: np.ndarray, b: np.ndarray) -> tuple[float, float, float]:
    """Return the mean accuracy of `a` minus that of `b`, boolean [seeds, N], with its 95 % interval over both axes.

    In points (mean, low, high); the ends are NaN below three seeds, because an interval from two covers too rarely.
    Seeds and images are crossed random effects, like subjects and words in psychology (Clark 1973) or readers and cases
    in radiology (Hillis 2007). The variance of the mean is (MS_seeds + max(MS_images − MS_residual, 0)) / (seeds · N),
    with Satterthwaite's degrees of freedom. If MS_images does not exceed MS_residual, the interval is
    `dcil.lab.runs.paired.t_interval` of the differences by seed.
    """
    from scipy.special import stdtrit  # the quantile of Student's t

    gaps = a.astype(float) - b  # [seeds, N], each −1, 0 or 1
    (seeds, images), mean = gaps.shape, float(gaps.mean())
    if seeds < SEEDS:
        return 100 * mean, math.nan, math.nan
    of_seed, of_image = gaps.mean(1), gaps.mean(0)
    rest = gaps - of_seed[:, None] - of_image + mean
    freedom = np.array([seeds - 1, images - 1, (seeds - 1) * (images - 1)]).clip(1)
    squares = (
        np.array([images * ((of_seed - mean) ** 2).sum(), seeds * ((of_image - mean) ** 2).sum(), (rest**2).sum()])
        / freedom
    )
    parts = squares * ([1, 1, -1] if squares[1] > squares[2] else [1, 0, 0])
    variance = float(parts.sum())
    if variance == 0:
        return 100 * mean, 100 * mean, 100 * mean
    quantile = float(stdtrit(variance**2 / (parts**2 / freedom).sum(), 0.975))
    half = quantile * math.sqrt(variance / (seeds * images))
    return 100 * mean, 100 * (mean - half), 100 * (mean + half)


def right_at_equal_seeds(runs: Sequence[Run], a: str, b: str) -> dict[int, tuple[np.ndarray, np.ndarray]] | None:
    """Return, by seed, which images the deployed passes of two variants get right, boolean [N] each.

    A seed is included if both variants have a complete run of it whose record says which images are right. If they have
    common seeds, but records of none say so, the result is None. `runs` must be of one data set, network, tier,
    sparsity and kind of device; raises `DcilError` if a seed occurs twice, or if the runs were tested on different
    images.
    """
    table, by_id = runs_table(runs), {run.run_id: run for run in runs}
    ids = pd.concat([paired.by_seed(table, variant, value="run") for variant in (a, b)], axis=1, join="inner")
    told, tests = {}, set()
    for seed, *names in ids.itertuples():
        both = [by_id[name] for name in names]
        right = [run.images_right[run.deployed] for run in both if run.images_right]
        if len(right) == 2:
            told[int(seed)] = right[0], right[1]
            tests |= {f"{run.data.test_size} of {run.data.sha256:.12}" for run in both}
    if len(tests) > 1:
        raise DcilError(
            f"runs of {a!r} and {b!r} were tested on different images ({', '.join(sorted(tests))}, "
            "by the checksums of their data); choose records of one data set"
        )
    return told if told or ids.empty else None


def images_table(runs: Sequence[Run], variants: Sequence[str], baseline: str) -> pd.DataFrame:
    """Return one row for each variant, compared with a baseline at equal seeds by the images that each gets right.

    Columns: n, the difference in points with its 95 % interval over seeds and over seeds and images, and McNemar's
    p-value at each seed. Variants whose records do not say which images are right share one row, "not recorded".
    """
    columns = [f"minus {label(baseline)}, points, over seeds", "over seeds and images", "p over images, seed by seed"]
    rows, silent = [], []
    for name in (v for v in variants if v != baseline):
        if (told := right_at_equal_seeds(runs, name, baseline)) is None:
            silent.append(name)
            continue
        values = [MISSING] * 3
        if told:
            mine, other = (np.array(side) for side in zip(*told.values(), strict=True))
            values = [
                paired.signed_interval(*paired.t_interval(100 * (mine.mean(1) - other.mean(1)))),
                paired.signed_interval(*over_seeds_and_images(mine, other)),
                ", ".join(f"{mcnemar_p(*both):.2g}" for both in told.values()),
            ]
        rows.append([label(name), len(told), *values])
    if silent:
        rows.append([", ".join(map(label, silent)), 0, *[NOT_RECORDED] * 3])
    return pd.DataFrame(rows, columns=["method", "n", *columns])
