"""Reasons for a run to stop before its end: a time limit, a signal, or a parent process that is gone."""

from __future__ import annotations

import contextlib
import math
import os
import signal
import threading
import time
from types import FrameType
from typing import Any

from dcil.errors import DcilError

TRY_AGAIN = 75  # the exit code for a time limit, EX_TEMPFAIL of sysexits


class Stopped(DcilError):
    """A run that stopped between two steps, with a checkpoint written; `code` is the exit code of the command line."""

    def __init__(self, message: str, code: int):
        super().__init__(message)
        self.code = code


class Stop:
    """Tells a run between two steps whether, and why, to stop; as a context it also handles SIGINT, SIGTERM and SIGHUP.

    While `waits` is False no run checks it yet, and a signal raises `KeyboardInterrupt` at once, as a second Ctrl-C
    does. Signals reach only the main thread of a program; a run in another thread is given the `Stop` of the main
    thread. A signal that the process ignores, such as SIGHUP under `nohup`, stays ignored, and a signal that is
    handled outside Python stays handled there.
    """

    SIGNALS = {signal.SIGINT: "Ctrl-C", signal.SIGTERM: "SIGTERM"}
    if hasattr(signal, "SIGHUP"):  # the terminal was closed; Windows has none
        SIGNALS[signal.SIGHUP] = "SIGHUP"

    def __init__(self, max_minutes: float | None = None, waits: bool = True):
        if max_minutes is not None and not max_minutes > 0:
            raise DcilError(f"max_minutes is {max_minutes}; it must be a positive number of minutes")
        self.minutes, self.began, self.waits = max_minutes, time.monotonic(), waits
        self.received: int | None = None
        self._before: dict[signal.Signals, Any] = {}

    def reason(self) -> str | None:
        """Return why to stop, or None to go on."""
        if self.received is not None:
            return self.SIGNALS[signal.Signals(self.received)]
        return f"the limit of {self.minutes:g} min" if self.left_s() < 0 else None

    def left_s(self) -> float:
        """Return the seconds left of the time limit, infinity if there is none."""
        return math.inf if self.minutes is None else 60 * self.minutes - (time.monotonic() - self.began)

    @property
    def code(self) -> int:
        """The exit code for the reason: 128 plus the number of the signal, or 75 ("try again") for the time limit."""
        return TRY_AGAIN if self.received is None else 128 + self.received

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if not self.waits or (self.received is not None and number == signal.SIGINT):
            raise KeyboardInterrupt(number)
        self.received = number

    def __enter__(self) -> Stop:
        if threading.current_thread() is threading.main_thread():
            heard = [s for s in self.SIGNALS if signal.getsignal(s) not in (signal.SIG_IGN, None)]
            self._before = {s: signal.signal(s, self._receive) for s in heard}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}


def stop_at_eof() -> None:
    """Send this process SIGTERM when its standard input ends, as it does when the process that started it is gone."""

    def watch() -> None:
        with contextlib.suppress(OSError):  # closed from the start, as by `<&-`: it has ended
            while os.read(0, 1024):
                pass
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()
