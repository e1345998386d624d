"""A run's folder: the process that trains in it, its checkpoints and its record."""

from __future__ import annotations

import contextlib
import json
import os
import platform
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout  # comes with PyTorch

from dcil import checkpoint, records
from dcil.config import RunConfig
from dcil.errors import DcilError, reason, unknown
from dcil.io.files import expanded, read_bytes, remove_parts, write_text_atomically
from dcil.io.messages import say

LOOK_S = 1  # `is_held` takes the lock for an instant, and a trainer that starts just then must not be refused
NOTE_BYTES = 4096  # upper bound; a holder's note is shorter


class Held(DcilError):
    """Another process is training this run; `code` is EX_UNAVAILABLE of sysexits."""

    code = 69


class RunFolder:
    """The folder `runs_dir`/<run id>: checkpoint.pt, its predecessor previous.pt, and at the end record.json."""

    def __init__(self, runs_dir: str | Path, config: RunConfig):
        self.config = config
        self.path = expanded(runs_dir) / config.run_id
        self.record = self.path / "record.json"
        self.checkpoint = self.path / "checkpoint.pt"
        self.previous = self.path / "previous.pt"
        self.damaged = self.path / "damaged.pt"
        self.holder_note = self.path / "holder.json"
        self._is_damaged = False  # whether checkpoint.pt is, found out on loading

    def read_record(self) -> dict[str, Any] | None:
        """Return the record, complete or failed, or None if there is none; raises `DcilError` for another run's."""
        if not self.record.exists():
            return None
        try:
            record = records.read(self.record)
        except records.Damaged as error:
            mend = "move it away, and the same command writes it anew from the checkpoint"
            raise records.Damaged(f"{error}; {mend}") from error
        if record["run_id"] != self.config.run_id:
            raise DcilError(
                f"{self.record} is the record of another run, {record['run_id']}. It was left as it is; "
                "move it away or choose another --runs-dir"
            )
        return record

    def finished(self) -> dict[str, Any] | None:
        """Return the record if the run is complete; raises `DcilError` if it is another run's."""
        record = self.read_record()
        return record if record and record["status"] == "complete" else None

    def network_state(self, record: Mapping[str, Any]) -> dict[str, Any]:
        """Return the checkpoint of a finished run; raises `DcilError` if it is not the record's."""
        state = checkpoint.load(self.checkpoint, self.config)
        self.refuse_other_data(record["data"]["sha256"], state.get("data_sha256"))
        if [row["test"] for row in state["curve"]] != [row["test"] for row in record["curve"]]:
            raise DcilError(
                f"{self.checkpoint} does not belong to the {self.record.name} beside it: their curves "
                "differ. Train the run again with --no-resume"
            )
        return state

    def refuse_other_data(self, before: str | None, now: str | None) -> None:
        """Raise `DcilError` if the checksum of a run's data differs from before; None is an unknown checksum."""
        if before and now and before != now:
            raise DcilError(
                f"{self.config.run_id} was started on other data (with checksum {before[:12]}, now {now[:12]}). "
                "Give the folder it was started on, or choose another --runs-dir"
            )

    def forget(self) -> None:
        """Remove the record and the checkpoints, so that the run starts from scratch."""
        for path in (self.record, self.checkpoint, self.previous):
            path.unlink(missing_ok=True)

    @contextlib.contextmanager
    def hold(self) -> Iterator[None]:
        """Context that holds the run's lock while training; raises `Held` naming the process that has it.

        The lock of a process that dies is released.
        """
        note = {"pid": os.getpid(), "host": platform.node(), "since": datetime.now(UTC).isoformat("T", "seconds")}
        with contextlib.ExitStack() as stack:
            try:
                self.path.mkdir(parents=True, exist_ok=True)
                stack.enter_context(FileLock(self.path / "lock").acquire(timeout=LOOK_S))
                stack.callback(self.holder_note.unlink, missing_ok=True)
                remove_parts(self.path)  # only the holder writes here
                write_text_atomically(self.holder_note, json.dumps(note))
            except Timeout as error:
                raise Held(
                    f"{self.config.run_id} is being trained by {self.holder()}; this process leaves it alone. "
                    "Wait for it, or choose another --runs-dir"
                ) from error
            except OSError as error:
                where = f"cannot write the run to {self.path}: {reason(error)}; choose another --runs-dir"
                raise DcilError(where) from error
            yield

    def holder(self) -> str:
        """Return a description of the process that holds the run, as far as its note is readable."""
        try:
            note = json.loads(read_bytes(self.holder_note, NOTE_BYTES))
            return f"process {note['pid']} on {note['host']}, since {note['since']}"
        except (OSError, ValueError, KeyError, TypeError):
            return "another process"

    def is_held(self) -> bool:
        """Return whether a process is training this run now; its note decides where the lock cannot be opened."""
        if not (self.path / "lock").exists():
            return False
        try:
            with FileLock(self.path / "lock", timeout=0):
                return False
        except Timeout:
            return True
        except OSError:  # another user's folder, or a read-only disk
            return self.holder_note.exists()

    def save(self, state: dict[str, Any]) -> None:
        """Write a checkpoint; the one it replaces is kept as previous.pt, a damaged one as damaged.pt."""
        keep = self.damaged if self._is_damaged else self.previous
        try:
            checkpoint.save(self.checkpoint, self.config, state, keep)
        except OSError as error:
            rest = (
                "The one before it is whole; make room, and the same command goes on from there"
                if self.checkpoint.exists() or self.previous.exists()
                else "There is none before it; make room, and the same command starts anew"
            )
            raise DcilError(
                f"the checkpoint {self.checkpoint} could not be written: {reason(error)}. {rest}"
            ) from error
        self._is_damaged = False

    def write_record(self, record: dict[str, Any]) -> None:
        """Write the record, complete or failed."""
        try:
            records.write(record, self.record)
        except OSError as error:
            raise DcilError(
                f"the record {self.record} could not be written: {reason(error)}. Make room, and the same command "
                "writes it, going on from the checkpoint"
            ) from error

    def load(self) -> dict[str, Any] | None:
        """Return the newest intact checkpoint, or None if there is none yet.

        A damaged checkpoint is named on stderr and left in place; raises `DcilError` if no intact one is beside it.
        """
        if not self.checkpoint.exists():  # a process was killed between two renames
            return checkpoint.load(self.previous, self.config) if self.previous.exists() else None
        try:
            return checkpoint.load(self.checkpoint, self.config)
        except checkpoint.Damaged as error:
            if not self.previous.exists():
                raise
            state = checkpoint.load(self.previous, self.config)
            self._is_damaged = True
            say(f"dcil: {error}. Going on from the one before it, {self.previous.name}")
            return state

    def epochs_done(self) -> float:
        """Return the number of epochs in the newest intact checkpoint, including the fraction of an unfinished one."""
        state = self.load()
        return 0.0 if state is None else checkpoint.epochs_done(state)


def by_id(name: str, known: dict[str, Path], what: str) -> Path:
    """Return the path of the run whose id starts with `name`, or whose hash is `name`, as in the footers of figures.

    `known` maps run ids to paths, and `what` is the word for them in errors; raises `DcilError` if `name` matches no
    run, or more than one.
    """
    matches = [run for run in known if run.startswith(name) or run.rpartition("-")[2] == name]
    if not matches:
        raise unknown(what, name, known)
    if len(matches) > 1:
        raise DcilError(f"{name} names no single {what}; it is the beginning of {len(matches)}: {', '.join(matches)}")
    return known[matches[0]]
