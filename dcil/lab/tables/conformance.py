"""What the authors' own checkpoints give in the book's network."""

from __future__ import annotations

import pandas as pd

from dcil import authors


def checkpoints_table() -> pd.DataFrame:
    """Return what the authors' checkpoints must give in our network, as `tests/test_conformance.py` checks."""
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
