"""A run's folder: who trains in it, and where its checkpoints and its record lie."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout  # comes with PyTorch

from dcil import checkpoint, records
from dcil.config import RunConfig
from dcil.errors import DcilError

LOOK_S = 1  # who only asks whether a run is held takes its lock for an instant, and must not turn its trainer away


class Held(DcilError):
    """Another process trains this run; `code` is sysexits' "unavailable"."""

    code = 69


class RunFolder:
    """`runs_dir`/<run id>: record.json at the end, before it checkpoint.pt and the one before that, previous.pt."""

    def __init__(self, runs_dir: str | Path, config: RunConfig):
        self.config = config
        self.path = Path(runs_dir) / config.run_id
        self.record = self.path / "record.json"
        self.checkpoint = self.path / "checkpoint.pt"
        self.previous = self.path / "previous.pt"
        self.damaged = self.path / "damaged.pt"
        self.holder_note = self.path / "holder.json"
        self._is_damaged = False  # of checkpoint.pt, found out on loading

    def finished(self) -> dict[str, Any] | None:
        """Return the record if the run is complete."""
        if self.record.exists() and (done := records.read(self.record))["status"] == "complete":
            return done
        return None

    def forget(self) -> None:
        """Remove record and checkpoints, so that the run starts anew."""
        for path in (self.record, self.checkpoint, self.previous):
            path.unlink(missing_ok=True)

    @contextlib.contextmanager
    def hold(self) -> Iterator[None]:
        """Keep others out while training; raises `Held` naming who is in. A process that dies lets go."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self.path / "lock")
            lock.acquire(timeout=LOOK_S)
        except Timeout as error:
            raise Held(f"{self.config.run_id} is being trained by {self.holder()}; this process leaves it alone. "
                       "Wait for it, or choose another --runs-dir") from error  # fmt: skip
        except OSError as error:
            where = f"cannot write the run to {self.path}: {error.strerror}; choose another --runs-dir"
            raise DcilError(where) from error
        try:
            note = {"pid": os.getpid(), "host": platform.node(), "since": datetime.now(UTC).isoformat("T", "seconds")}
            checkpoint.write_atomically(self.holder_note, lambda part: part.write_text(json.dumps(note)))
            yield
        finally:
            self.holder_note.unlink(missing_ok=True)
            lock.release()

    def holder(self) -> str:
        """Return in words who holds the run, as far as it said so."""
        try:
            note = json.loads(self.holder_note.read_text())
            return f"process {note['pid']} on {note['host']}, since {note['since']}"
        except (OSError, ValueError, KeyError, TypeError):
            return "another process"

    def is_held(self) -> bool:
        """Return whether some process trains this run now."""
        if not (self.path / "lock").exists():
            return False
        try:
            with FileLock(self.path / "lock", timeout=0):
                return False
        except Timeout:
            return True

    def save(self, state: dict[str, Any]) -> None:
        """Write a checkpoint; the one it replaces is kept as previous.pt, a damaged one as damaged.pt."""
        keep = self.damaged if self._is_damaged else self.previous
        try:
            checkpoint.save(self.checkpoint, self.config, state, keep)
        except OSError as error:
            raise DcilError(f"the checkpoint {self.checkpoint} could not be written: {error.strerror}. The one before "
                            "it is whole; make room, and the same command goes on from there") from error  # fmt: skip
        self._is_damaged = False

    def load(self) -> dict[str, Any] | None:
        """Return the newest checkpoint that is whole, or None where there is none yet.

        A damaged one is named on stderr and left; raises `DcilError` if there is no whole one beside it.
        """
        if not self.checkpoint.exists():  # killed between two renames
            return checkpoint.load(self.previous, self.config) if self.previous.exists() else None
        try:
            return checkpoint.load(self.checkpoint, self.config)
        except checkpoint.Damaged as error:
            if not self.previous.exists():
                raise
            state = checkpoint.load(self.previous, self.config)
            self._is_damaged = True
            print(f"dcil: {error}. Going on from the one before it, {self.previous.name}", file=sys.stderr)
            return state

    def epochs_done(self) -> float:
        """Return how many epochs the newest whole checkpoint holds, parts of one included."""
        state = self.load()
        return 0.0 if state is None else checkpoint.epochs_done(state)
