"""Messages for people, on standard error."""

import contextlib
import sys

from tqdm import tqdm


def say(text: str) -> None:
    """Write a line to stderr, above any progress bar; a full disk or a closed pipe there ends nothing under way."""
    with contextlib.suppress(OSError):
        tqdm.write(text, file=sys.stderr)
