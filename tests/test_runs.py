"""A run's folder: one process at a time, a spare checkpoint, and nothing lost to kill -9 or a full disk."""

import contextlib
import errno
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time

import pytest
from filelock import FileLock

from dcil import checkpoint, records
from dcil.errors import DcilError
from dcil.export import formats, trained_run
from dcil.io import files
from dcil.runs import Held, RunFolder
from dcil.stopping import Stop, Stopped
from dcil.train import fit
from dcil.trainer import Trainer

KILLS = int(os.environ.get("DCIL_KILLS", 20))


def run(config, dataset, folder, **options):
    return fit(config, dataset=dataset, runs_dir=folder, progress=False, **options)


def same(one, two):
    return records.without_timing(one) == records.without_timing(two)


@pytest.fixture
def whole(tiny_config, tiny_dataset, tmp_path):
    """The record of an uninterrupted run."""
    return run(tiny_config(epochs=4), tiny_dataset, tmp_path / "whole")


def in_child(act):
    """Run `act` in a forked child; returns its process id. It ends with code 0, or 1 for any exception."""
    pid = os.fork()
    if pid == 0:
        code = 1
        with contextlib.suppress(BaseException):
            act()
            code = 0
        os._exit(code)
    return pid


def test_the_home_folder(tiny_config, tiny_dataset, tmp_path, monkeypatch):
    """`~` is the home folder in Python too, as in a command's options."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    record = run(tiny_config(), tiny_dataset, "~/runs")
    (place,) = (tmp_path / "home" / "runs").iterdir()
    records.add(f"~/runs/{place.name}/record.json", "~/records")
    assert records.load_all("~/records")[0].run_id == record["run_id"] == place.name
    net, card, _ = trained_run.network(place.name, "~/runs")
    formats.save(net, card, "~/exports/net.pt", to="state_dict")
    assert formats.load("~/exports/net.pt")[1] == card
    assert not (tmp_path / "~").exists()


def test_killed_at_random_moments(whole, tiny_config, tiny_dataset, tmp_path):
    """After kill -9 at any moment, the same call gives the record of the uninterrupted run."""
    config, draw, killed = tiny_config(epochs=4), random.Random(0), 0
    began = time.perf_counter()
    os.waitpid(in_child(lambda: run(config, tiny_dataset, tmp_path / "timed")), 0)
    takes_s = time.perf_counter() - began
    for trial in range(KILLS):
        folder = tmp_path / str(trial)
        pid = in_child(lambda folder=folder: run(config, tiny_dataset, folder))
        time.sleep(draw.uniform(0, takes_s))
        os.kill(pid, signal.SIGKILL)
        hit = os.waitpid(pid, 0)[1] == signal.SIGKILL
        killed += hit
        takes_s *= 1 if hit else 0.7  # it had ended: the timed run met a busier machine
        assert same(run(config, tiny_dataset, folder), whole), f"trial {trial}"
    assert killed > KILLS / 2  # else the trials proved little


@pytest.mark.parametrize("call", ["fsync", "replace"])
@pytest.mark.parametrize("nth", [1, 2, 3, 6, 7, 9])
def test_killed_while_writing(call, nth, whole, tiny_config, tiny_dataset, tmp_path, monkeypatch):
    """kill -9 in the middle of a write or a rename, of a checkpoint or of the record, loses nothing."""
    config, real, calls = tiny_config(epochs=4), getattr(os, call), []

    def die(*words):
        calls.append(1)
        if len(calls) == nth:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*words)

    with monkeypatch.context() as patch:
        patch.setattr(os, call, die)
        _, status = os.waitpid(in_child(lambda: run(config, tiny_dataset, tmp_path / "run")), 0)
    assert status == signal.SIGKILL or nth > 6  # there are 6 writes: the holder's note, 4 checkpoints, the record
    assert same(run(config, tiny_dataset, tmp_path / "run"), whole)


@pytest.mark.parametrize("steps", [1, 3, 4, 5, 7])
def test_stopped_between_any_two_steps(steps, whole, tiny_config, tiny_dataset, tmp_path, monkeypatch):
    """After SIGTERM the step ends and a checkpoint is written, from which the run ends as an uninterrupted one."""
    config, step, taken = tiny_config(epochs=4), Trainer.step, []

    def terminated(self, *words):
        step(self, *words)
        taken.append(1)
        if len(taken) == steps:
            signal.raise_signal(signal.SIGTERM)

    with monkeypatch.context() as patch, pytest.raises(Stopped, match="stopped by SIGTERM") as stopped:
        patch.setattr(Trainer, "step", terminated)
        run(config, tiny_dataset, tmp_path)
    assert stopped.value.code == 143 and len(taken) == steps
    assert RunFolder(tmp_path, config).epochs_done() == steps / 4
    assert same(run(config, tiny_dataset, tmp_path), whole)
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL  # the handlers are as before


def test_a_closed_terminal(tiny_config, tiny_dataset, tmp_path, monkeypatch):
    """After SIGHUP the step ends and a checkpoint is written, unless the signal is ignored, as under nohup."""
    config, step = tiny_config(), Trainer.step

    def hung_up(self, *words):
        step(self, *words)
        signal.raise_signal(signal.SIGHUP)

    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)  # whatever these tests were started under
    try:
        with monkeypatch.context() as patch, pytest.raises(Stopped, match="stopped by SIGHUP") as stopped:
            patch.setattr(Trainer, "step", hung_up)
            run(config, tiny_dataset, tmp_path)
        assert stopped.value.code == 129 and RunFolder(tmp_path, config).epochs_done() == 1 / 4
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        with Stop() as stop:
            signal.raise_signal(signal.SIGHUP)
            assert stop.reason() is None
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("handler", [signal.SIG_IGN, None], ids=["ignored", "of another language"])
@pytest.mark.parametrize("number", Stop.SIGNALS)
def test_a_signal_that_is_another_s(number, handler, monkeypatch):
    """A signal stays ignored, as Ctrl-C in a shell's background jobs, or with the handler of another language."""
    monkeypatch.setattr(signal, "getsignal", lambda _: handler)
    before = signal.signal(number, signal.SIG_IGN)
    try:
        with Stop() as stop:
            signal.raise_signal(number)
            assert stop.reason() is None
    finally:
        signal.signal(number, before)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_data_load(number, tiny_config, tmp_path, monkeypatch):
    """Before the first step a signal ends the run at once, and what was begun is cleared away."""

    def load(*_):
        files.write_atomically(tmp_path / "decoded" / "pixels", lambda part: signal.raise_signal(number))

    monkeypatch.setattr("dcil.data.datasets.load", load)
    with pytest.raises(KeyboardInterrupt) as caught:
        fit(tiny_config(), runs_dir=tmp_path, progress=False)
    folder = RunFolder(tmp_path, tiny_config())
    assert caught.value.args == (number,) and not folder.is_held() and not folder.holder_note.exists()
    assert list((tmp_path / "decoded").iterdir()) == []


def test_a_run_that_ended_while_it_was_asked_for(whole, tiny_config, tiny_dataset, tmp_path, monkeypatch):
    """A run that another process completes while this one waits for its folder keeps its record."""
    folder, asked = RunFolder(tmp_path / "whole", tiny_config(epochs=4)), []
    before, finished = folder.record.read_bytes(), RunFolder.finished
    monkeypatch.setattr(RunFolder, "finished", lambda self: finished(self) if asked else asked.append(1))
    assert run(tiny_config(epochs=4), tiny_dataset, tmp_path / "whole") == whole
    assert folder.record.read_bytes() == before


def test_a_look_turns_no_trainer_away(tiny_config, tmp_path):
    """A process that only asks whether a run is held has its lock for an instant, and training waits that long."""
    folder = RunFolder(tmp_path, tiny_config())
    with folder.hold():
        pass
    look = FileLock(folder.path / "lock", thread_local=False)
    look.acquire()
    threading.Timer(0.2, look.release).start()
    with folder.hold():
        assert folder.is_held()


def test_a_second_ctrl_c_does_not_wait(monkeypatch):
    """The first asks for a stop after the step, the second interrupts it."""
    with Stop() as stop:
        signal.raise_signal(signal.SIGINT)
        assert stop.reason() == "Ctrl-C" and stop.code == 130
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_a_time_limit(tiny_config, tiny_dataset, tmp_path):
    """A run called again and again with hardly any time gets to its end, one step per call."""
    config, calls = tiny_config(), 0
    while True:
        try:
            record = run(config, tiny_dataset, tmp_path, max_minutes=1e-9)
            break
        except Stopped as stopped:
            calls += 1
            assert stopped.code == 75 and "the limit of 1e-09 min" in str(stopped)
    assert calls == 7  # of 8 steps; after the last there is nothing left to stop
    assert same(record, run(config, tiny_dataset, tmp_path / "whole"))


def test_long_epochs_are_saved_on_the_way(tiny_config, tiny_dataset, tmp_path, monkeypatch):
    """Every `CHECKPOINT_S` seconds a checkpoint is written in the middle of an epoch."""
    saved = []
    monkeypatch.setattr("dcil.train.CHECKPOINT_S", 0)
    monkeypatch.setattr(RunFolder, "save", lambda self, state: saved.append(state["part"]["steps"]))
    run(tiny_config(), tiny_dataset, tmp_path)
    assert saved == [1, 2, 3, 0, 1, 2, 3, 0]


def test_two_processes_one_run(tiny_config, tiny_dataset, tmp_path):
    """The second names the first and leaves; when the first dies, even by kill -9, the run is free."""
    config = tiny_config()
    folder = RunFolder(tmp_path, config)
    code = (
        f"import time\nfrom dcil.runs import RunFolder\nfrom dcil.config import RunConfig\n"
        f"with RunFolder({str(tmp_path)!r}, RunConfig.from_dict({config.as_dict()!r})).hold():\n"
        "    print('in', flush=True); time.sleep(60)\n"
    )
    holder = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout.readline() == "in\n"
        assert folder.is_held()
        with pytest.raises(Held, match=f"is being trained by process {holder.pid} on .*leaves it alone"):
            run(config, tiny_dataset, tmp_path)
        with pytest.raises(Held):
            run(config, tiny_dataset, tmp_path, resume=False)
    finally:
        holder.kill()
        holder.wait()
    assert not folder.is_held()
    assert run(config, tiny_dataset, tmp_path)["status"] == "complete"
    assert not folder.holder_note.exists() and not folder.is_held()


def stop_after(epochs, config, dataset, folder, monkeypatch):
    """Train a number of epochs and stop."""

    def reason(self):
        return "the test" if RunFolder(folder, config).epochs_done() >= epochs else None

    with monkeypatch.context() as patch, pytest.raises(Stopped):
        patch.setattr(Stop, "reason", reason)
        run(config, dataset, folder)


DAMAGES = {
    "half": lambda raw: raw[: len(raw) // 2],
    "empty": lambda raw: b"",
    "bytes": lambda raw: raw.replace(b"0", b"1"),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_checkpoint(damage, whole, tiny_config, tiny_dataset, tmp_path, monkeypatch, capsys):
    """It is named and its bytes are kept, the one before it is used, and the record is that of the whole run."""
    config = tiny_config(epochs=4)
    stop_after(2, config, tiny_dataset, tmp_path, monkeypatch)
    folder = RunFolder(tmp_path, config)
    broken = damage(folder.checkpoint.read_bytes())
    folder.checkpoint.write_bytes(broken)
    assert same(run(config, tiny_dataset, tmp_path), whole)
    said = capsys.readouterr().err
    assert str(folder.checkpoint) in said and "Going on from the one before it, previous.pt" in said
    assert folder.damaged.read_bytes() == broken
    assert len(checkpoint.load(folder.checkpoint, config)["curve"]) == 4


def test_a_full_disk(whole, tiny_config, tiny_dataset, tmp_path, monkeypatch):
    """The error has a remedy, the last checkpoint is whole, no partial file is left, and the run then ends as usual."""
    config = tiny_config(epochs=4)
    folder = RunFolder(tmp_path, config)

    def full(handle):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    stop_after(1, config, tiny_dataset, tmp_path, monkeypatch)
    before = folder.checkpoint.read_bytes()
    with monkeypatch.context() as patch, pytest.raises(DcilError, match="no space left on device.*make room") as error:
        patch.setattr("dcil.checkpoint.os.fsync", lambda h: full(h) if os.fstat(h).st_size > 10_000 else None)
        run(config, tiny_dataset, tmp_path)
    assert str(folder.checkpoint) in str(error.value)
    assert folder.checkpoint.read_bytes() == before
    assert not list(folder.path.glob("*.part")) + list(folder.path.glob(".*.part"))
    assert same(run(config, tiny_dataset, tmp_path), whole)


def test_a_disk_too_full_for_a_note_or_a_record(whole, tiny_config, tiny_dataset, tmp_path, monkeypatch):
    """Each is refused in a sentence; what was trained is kept, and the same call writes the record without training."""
    config, write = tiny_config(epochs=4), files.write_atomically
    folder = RunFolder(tmp_path, config)

    def full_for(name):
        def attempt(path, *words):
            if path.name == name:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
            write(path, *words)

        monkeypatch.setattr(files, "write_atomically", attempt)

    full_for("holder.json")
    with pytest.raises(DcilError, match=r"cannot write the run to .*: no space left on device; choose"):
        run(config, tiny_dataset, tmp_path)
    assert not folder.is_held() and [path.name for path in folder.path.iterdir()] == ["lock"]
    full_for("record.json")
    with pytest.raises(DcilError, match=r"the record .*record\.json could not be written: no space left.*Make room"):
        run(config, tiny_dataset, tmp_path)
    monkeypatch.undo()
    monkeypatch.setattr(Trainer, "step", lambda *_: pytest.fail("trained again"))
    assert same(run(config, tiny_dataset, tmp_path), whole)


@pytest.mark.parametrize("left", [b"", bytes(4096), b'{"schema": 1, "run_'], ids=["nothing", "zeros", "a part"])
def test_a_damaged_record(left, whole, tiny_config, tiny_dataset, tmp_path, monkeypatch):
    """A record that a crash truncated is left as it is; once it is moved away, the checkpoint gives it again."""
    config, folder = tiny_config(epochs=4), RunFolder(tmp_path / "whole", tiny_config(epochs=4))
    folder.record.write_bytes(left)
    with pytest.raises(DcilError, match="record.json cannot be read.*left as it is; move it away, and the same"):
        run(config, tiny_dataset, tmp_path / "whole")
    assert folder.record.read_bytes() == left
    folder.record.rename(tmp_path / "moved")
    monkeypatch.setattr(Trainer, "step", lambda *_: pytest.fail("trained again"))
    assert same(run(config, tiny_dataset, tmp_path / "whole"), whole)


def test_another_users_run_is_looked_at(tiny_config, tmp_path, monkeypatch):
    """Where the lock cannot be opened, the holder's note says whether the run is being trained."""
    folder, opened = RunFolder(tmp_path, tiny_config()), os.open

    def deny(path, flags, *words, **named):
        if str(path).endswith("lock") and flags & os.O_RDWR:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return opened(path, flags, *words, **named)

    with folder.hold(), monkeypatch.context() as patch:
        patch.setattr(os, "open", deny)
        assert folder.is_held()
    monkeypatch.setattr(os, "open", deny)
    assert not folder.is_held()


def test_the_holder_is_named_as_far_as_known(tiny_config, tmp_path):
    """A holder's note that is missing or damaged does not hide that the run is held."""
    folder = RunFolder(tmp_path, tiny_config())
    with folder.hold():
        assert folder.holder().startswith(f"process {os.getpid()} on ")
        folder.holder_note.write_text(json.dumps([1]))
        assert folder.holder() == "another process"
        with pytest.raises(Held, match="another process"), RunFolder(tmp_path, tiny_config()).hold():
            pass
