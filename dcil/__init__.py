"""Dynamic Collective Intelligence Learning: dual-path sparse training and its measurement."""

from dcil import cost, data, export, losses, masks, methods, models, records, rules
from dcil.config import PRESETS, RunConfig, preset
from dcil.data import loaders
from dcil.dual_path import DualPath, put_masks, set_masks
from dcil.errors import DcilError
from dcil.losses import collective_loss
from dcil.train import fit

__version__ = "0.1.0"
__all__ = [
    "PRESETS",
    "DcilError",
    "DualPath",
    "RunConfig",
    "collective_loss",
    "cost",
    "data",
    "export",
    "fit",
    "loaders",
    "losses",
    "masks",
    "methods",
    "models",
    "preset",
    "put_masks",
    "records",
    "rules",
    "set_masks",
]
