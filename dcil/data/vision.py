"""Import torchvision, even with a PyTorch without CUDA.

PyPI's torchvision is built for CUDA. With a CPU build of torch its import fails because two
compiled operators are not registered; declaring their schemas is enough for data sets, models and
transforms. Whatever needs the compiled code (`torchvision.io`, `ops.nms`) still fails, with an error.
"""

from __future__ import annotations

import sys
from types import ModuleType

import torch

from dcil.errors import DcilError

_library = None  # the declared schemas live as long as this object


def import_torchvision() -> ModuleType:
    """Return the torchvision module; raises `DcilError` when it is not installed."""
    global _library
    try:
        import torchvision
    except ModuleNotFoundError as error:
        if error.name != "torchvision":
            raise
        raise DcilError("torchvision is needed here but not installed: pip install 'dcil[vision]'") from error
    except RuntimeError as error:
        if "torchvision::nms" not in str(error):
            raise
        for name in [m for m in sys.modules if m.partition(".")[0] == "torchvision"]:
            del sys.modules[name]
        _library = torch.library.Library("torchvision", "FRAGMENT")
        _library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        import torchvision
    return torchvision
