"""Boolean vectors as packed bits in checkpoints and as text in records, decoded with bounded memory."""

from __future__ import annotations

import base64
import zlib

import numpy as np
from torch import Tensor

MOST = 2**19  # bits per text; packed and in base64 they take about 87,000 characters


def pack(vector: Tensor) -> bytes:
    """Return a boolean vector as packed bits, eight per byte."""
    return np.packbits(vector.cpu().numpy()).tobytes()


def unpack(bits: bytes, count: int) -> np.ndarray:
    """Return the boolean vector [count] of packed bits."""
    return np.unpackbits(np.frombuffer(bits, np.uint8), count=count).astype(bool)


def to_text(bits: bytes) -> str:
    """Return packed bits as compressed base64 text for JSON."""
    return base64.b64encode(zlib.compress(bits, 9)).decode()


def from_text(text: str, count: int) -> np.ndarray:
    """Return the boolean vector [count] from a text of `to_text`.

    Raises `ValueError` for any other text and for a wrong number of bytes. A short text can decompress to a huge
    number of bytes, so no more are decompressed than `count` bits take.

    >>> from_text(to_text(pack(Tensor([1, 0, 1]).bool())), 3).tolist()
    [True, False, True]
    """
    if not 0 < count <= MOST:
        raise ValueError(f"it has {count} bits; it must have 1 to {MOST}")
    size, unpacking = -(-count // 8), zlib.decompressobj()
    try:
        bits = unpacking.decompress(base64.b64decode(text, validate=True), size + 1)
    except zlib.error as error:
        raise ValueError(str(error)) from error
    if len(bits) != size or not unpacking.eof or unpacking.unused_data:
        raise ValueError(f"it does not unpack to the {size} bytes that {count} bits take")
    return unpack(bits, count)
