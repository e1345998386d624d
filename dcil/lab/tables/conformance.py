"""The accuracies that the authors' own checkpoints have in this book's network."""

from __future__ import annotations

import pandas as pd

from dcil import authors


def checkpoints_table() -> pd.DataFrame:
    """Return the results that the authors' checkpoints must give in our network: `tests/test_conformance.py` checks."""
    rows = [
        {
            "checkpoint": name,
            "kept weights": f"{k['kept']:,} of {k['prunable']:,}",
            "sparse pass, %": f"{k['top1_sparse']:.2f}",
            "dense pass, %": f"{k['top1_dense']:.2f}",
        }
        for name, k in authors.KNOWN.items()
    ]
    return pd.DataFrame(rows)
