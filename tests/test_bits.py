"""Packed bits in checkpoints and records: any length survives a round trip, and malformed text is refused."""

import base64
import zlib

import numpy as np
import pytest
import torch

from dcil.io import bits


@pytest.mark.parametrize("count", [1, 7, 8, 9, 1003])
def test_any_length_comes_back(count):
    """A vector survives packing, eight bits to the byte, and encoding as text."""
    vector = torch.rand(count) < 0.3
    packed = bits.pack(vector)
    assert len(packed) == -(-count // 8)
    assert np.array_equal(bits.unpack(packed, count), vector.numpy())
    assert np.array_equal(bits.from_text(bits.to_text(packed), count), vector.numpy())


def text(content):
    """Return bytes encoded as in a record."""
    return base64.b64encode(zlib.compress(content)).decode()


@pytest.mark.parametrize(
    ("held", "count", "message"),
    [
        ("not base64!", 16, "base64"),
        (base64.b64encode(b"not compressed").decode(), 16, "incorrect header"),
        (text(b"abc"), 16, "does not unpack to the 2 bytes that 16 bits take"),
        (text(b"a"), 16, "does not unpack to the 2 bytes"),
        (base64.b64encode(zlib.compress(b"ab") + b"c").decode(), 16, "does not unpack to the 2 bytes"),
        (text(b""), 0, "it has 0 bits; it must have 1 to 524288"),
        (text(b"ab"), bits.MOST + 1, "it has 524289 bits"),
    ],
)
def test_other_texts_are_refused(held, count, message):
    """Whatever is wrong with a text, the error is a `ValueError`."""
    with pytest.raises(ValueError, match=message):
        bits.from_text(held, count)
