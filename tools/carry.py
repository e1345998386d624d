"""Run a grid on a machine without a network: pack loads to carry there, look after it there, bring the results home.

    python -m tools.carry pack GRID             # here: the last commit, data and checkpoints, as loads
    python3 load1/unpack.py load1 [load2 ...]   # there: makes a checkout of them, dcil-away/
    cd dcil-away
    python3 -m tools.carry start GRID --pack 6  # there: the queue, detached
    python3 -m tools.carry look                 # there: how far it is; what comes home, as one archive
    python3 -m tools.carry stop                 # there: end it with checkpoints, then look
    python -m tools.carry home home.tgz         # here: take in its records and checkpoints

Every command may be given again. The book's page "For clusters" tells the whole way.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from dcil import checkpoint, records
from dcil.cli.main import main as dcil
from dcil.cli.options import Parser, as_path, command
from dcil.cli.queue import planned_runs
from dcil.config import PRECISIONS, RunConfig
from dcil.data import datasets
from dcil.errors import DcilError
from dcil.io import files
from dcil.lab.sweep.grid import Planned
from dcil.runs import RunFolder
from tools.unpack import Refused, extract, git, is_clean

LIMIT_MIB = 60.0
HEADROOM = 2**16  # bytes kept free: in a load for unpack.py and load.json, in an archive for gzip's overhead
RUNS, RECORDS = Path("runs"), Path("records")
LOG, LOCK, STARTED = RUNS / "queue.log", RUNS / "queue.lock", RUNS / "queue.json"


# --- here: pack


def pack(args: argparse.Namespace) -> int:
    """Write the loads of a grid and print what they hold."""
    if not is_clean():
        raise DcilError("only the last commit travels, and tracked files differ from it; commit them first")
    if not git("ls-files", str(args.grid)):
        raise DcilError(f"{args.grid} is in no commit, so it would not travel; commit it first")
    runs, commit = planned_runs(args), git("rev-parse", "HEAD")
    words = " ".join([str(args.grid), *(["--only", *args.only] if args.only else [])])
    with tempfile.TemporaryDirectory() as temp:
        clone, cargo = Path(temp) / "clone", Path(temp) / "cargo.tgz"
        git("clone", "--quiet", "--depth", "1", "--no-checkout", Path.cwd().as_uri(), str(clone))
        git("remote", "remove", "origin", cwd=clone)
        with tarfile.open(cargo, "w:gz") as tar:
            tar.add(clone / ".git", ".git")
            for name, path in data_of(runs, args.data, args.data_dir).items():
                tar.add(path, f"data/{name}")
            carried = add_progress(tar, runs)
        loads = split(cargo, args.to, args.limit, {"commit": commit, "start": words})
    print(f"commit {commit[:12]}, {carried}")
    for load in loads:
        print(f"{load}  {sum(path.stat().st_size for path in load.iterdir()) / 2**20:.1f} MiB")
    return 0


def data_of(runs: list[Planned], named: list[str], data_dir: Path | None) -> dict[str, Path]:
    """Return the files that a grid needs from the data folder, by relative path, after checking CIFAR's checksums."""
    folder, names = datasets.data_folder(data_dir), list(named)
    for dataset in sorted({run.config.dataset for run in runs}):
        known = datasets.get(dataset)
        if known.files:
            datasets.load(dataset, data_dir)
            names += known.files
        elif known.is_folder and not named:
            raise DcilError(
                f"{dataset} is a folder of images; name what travels of {folder} with --data, e.g. --data imagenette160"
            )
    if absent := [name for name in names if not (folder / name).exists()]:
        raise DcilError(f"{absent[0]} is not in {folder.resolve()}; give the folder of the data with --data-dir")
    return {name: folder / name for name in names}


def add_progress(tar: tarfile.TarFile, runs: list[Planned]) -> str:
    """Add these runs' checkpoints and uncommitted records; returns in words how many.

    Raises `DcilError` for a run that is being trained here now, which two machines would then train.
    """
    committed, added = git("ls-files", str(RECORDS)).splitlines(), {"records": 0, "runs": 0}
    for run in runs:
        record, folder = RECORDS / f"{run.run_id}.json", RunFolder(RUNS, run.config)
        if folder.is_held():
            raise DcilError(
                f"{run.run_id} is being trained here by {folder.holder()}; end that first, or leave it out with --only"
            )
        if record.exists():
            if record.as_posix() not in committed:
                tar.add(record)
                added["records"] += 1
        elif file := open_checkpoint(folder.path):
            with file:
                add_checkpoint(tar, run.run_id, file)
                added["runs"] += 1
    return f"{added['runs']} checkpoint(s), {added['records']} record(s) that are in no commit"


def split(cargo: Path, to: Path, limit_mib: float, note: dict[str, Any]) -> list[Path]:
    """Split a file into loads no larger than a limit, each with its piece, all pieces' checksums and unpack.py."""
    size = int(limit_mib * 2**20) - HEADROOM
    if size <= 0:
        raise DcilError(f"--limit is {limit_mib:g} MiB; it must be more than {HEADROOM / 2**20:g}")
    for old in to.glob("load*/load.json"):
        shutil.rmtree(old.parent)
    loads: list[Path] = []
    sums: list[str] = []
    with open(cargo, "rb") as file:
        while piece := file.read(size):
            loads.append(load := to / f"load{len(loads) + 1}")
            load.mkdir(parents=True)
            (load / "cargo").write_bytes(piece)
            sums.append(hashlib.sha256(piece).hexdigest())
    for number, load in enumerate(loads, start=1):
        (load / "load.json").write_text(json.dumps(note | {"number": number, "sums": sums}), encoding="utf-8")
        shutil.copy(Path(__file__).with_name("unpack.py"), load)
    return loads


# --- there: start, look, stop


@contextlib.contextmanager
def queue_lock() -> Iterator[IO[str]]:
    """Hold the lock that a queue inherits and keeps as long as it lives; raises `DcilError` if a queue holds it."""
    RUNS.mkdir(exist_ok=True)
    with open(LOCK, "a+", encoding="utf-8") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = LOCK.read_text(encoding="utf-8")
            raise DcilError(
                f"a grid is under way here already, process {holder}; `look` at it, or `stop` it first"
            ) from error
        yield lock


def is_running() -> bool:
    """Return whether a queue started by `start` is alive."""
    try:
        with queue_lock():
            return False
    except DcilError:
        return True


def start(args: argparse.Namespace) -> int:
    """Print the grid's status, and start its queue detached."""
    words = ["queue", args.grid, *args.options]
    git("rev-parse", "HEAD")  # fail early: without its commit a record is worth little
    with queue_lock() as lock:
        if code := dcil([*words, "--status"]):  # reports what is wrong with the grid or the options
            return code
        with open(LOG, "a", encoding="utf-8") as log:
            queue = subprocess.Popen(
                [sys.executable, "-m", "dcil", *words],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                pass_fds=[lock.fileno()],
                env=os.environ | {"PYTHONUNBUFFERED": "1"},
            )
        lock.truncate(0)
        lock.write(str(queue.pid))
        STARTED.write_text(json.dumps(words), encoding="utf-8")
    print(f"started, process {queue.pid}; its log is {LOG}")
    return 0


def wait_for_end(seconds: float) -> bool:
    """Wait at most `seconds` for the queue to end; returns whether it has."""
    end = time.monotonic() + seconds
    while (running := is_running()) and time.monotonic() < end:
        time.sleep(0.2)
    return not running


def look(args: argparse.Namespace) -> int:
    """Print how far the grid is, and archive what is to be brought home."""
    if not STARTED.exists():
        raise DcilError(f"no grid was started in {Path.cwd()}; begin one with `start`")
    ended = wait_for_end(args.wait)
    print(*LOG.read_text(errors="replace", encoding="utf-8").splitlines()[-args.lines :], sep="\n")
    print("the queue has ended" if ended else f"the queue is running, process {LOCK.read_text(encoding='utf-8')}")
    dcil([*json.loads(STARTED.read_text(encoding="utf-8")), "--status"])
    files.write_atomically(args.to, lambda part: print(f"{args.to}: {archive(part, args.limit)}"))
    return 0


def stop(args: argparse.Namespace) -> int:
    """End the queue with checkpoints, then look."""
    if is_running():
        os.kill(int(LOCK.read_text(encoding="utf-8")), signal.SIGTERM)
        if not wait_for_end(args.wait):
            raise DcilError(f"the queue is still running {args.wait:g} s after SIGTERM; give `stop` again")
    return look(args)


def archive(path: Path, limit_mib: float) -> str:
    """Archive all records, then unfinished runs' checkpoints, newest first, up to a limit; returns a count in words."""
    room, carried, left = int(limit_mib * 2**20) - HEADROOM, {"record": 0, "checkpoint": 0}, []
    with contextlib.ExitStack() as files, tarfile.open(path, "w:gz") as tar:
        unfinished = []
        for run in sorted(path for path in RUNS.iterdir() if path.is_dir()):
            complete = False
            if (record := run / "record.json").exists():
                complete = records.read(record)["status"] == "complete"
                tar.add(record, f"records/{run.name}.json" if complete else record)
                room -= size_in_tar(record.stat())
                carried["record"] += 1
            if not complete and (file := open_checkpoint(run)):
                unfinished.append((os.fstat(files.enter_context(file).fileno()), run.name, file))
        for stat, run_id, file in sorted(unfinished, key=lambda found: found[0].st_mtime, reverse=True):
            if size_in_tar(stat) > room:
                left.append(run_id)
                continue
            add_checkpoint(tar, run_id, file)
            room -= size_in_tar(stat)
            carried["checkpoint"] += 1
    over = f"; over the limit of {limit_mib:g} MiB, which --limit raises: {', '.join(left)}" if left else ""
    return f"{carried['record']} record(s), {carried['checkpoint']} checkpoint(s){over}"


def size_in_tar(stat: os.stat_result) -> int:
    """Return the bytes that a file takes in an uncompressed archive."""
    return stat.st_size + 4 * tarfile.BLOCKSIZE  # up to three header blocks for a long name, and padding


def open_checkpoint(run: Path) -> IO[bytes] | None:
    """Open a run's newest checkpoint, or return None; an open file stays readable while the run trains on."""
    for name in ("checkpoint.pt", "previous.pt"):  # between the trainer's two renames only the second exists
        with contextlib.suppress(FileNotFoundError):
            return open(run / name, "rb")
    return None


def add_checkpoint(tar: tarfile.TarFile, run_id: str, file: IO[bytes]) -> None:
    """Add an open checkpoint to an archive."""
    tar.addfile(tar.gettarinfo(arcname=f"runs/{run_id}/checkpoint.pt", fileobj=file), file)


# --- here: home


def home(args: argparse.Namespace) -> int:
    """Take in the records and checkpoints in archives; failures do not stop the rest and are reported at the end."""
    problems = []
    for path in args.archives:
        with tempfile.TemporaryDirectory() as temp:
            extract(path, Path(temp), "runs", "records")
            for found in sorted(found for found in Path(temp).rglob("*") if found.is_file()):
                take = {"checkpoint.pt": take_checkpoint, "record.json": take_failed}.get(found.name, take_record)
                try:
                    print(take(found), flush=True)
                except DcilError as error:
                    problems.append(str(error))
    if problems:
        raise DcilError("\n".join(problems))
    return 0


def take_record(path: Path) -> str:
    """Take in the record of a complete run, as `python -m dcil records add` does."""
    return f"record: {records.add(path, RECORDS)}"


def take_failed(path: Path) -> str:
    """Put the record of a failed run into the run's folder; the queue will try the run again."""
    record = records.read(path)
    folder = RunFolder(RUNS, RunConfig.from_dict(record["config"]))
    with folder.hold():
        if not folder.finished():
            records.write(record, folder.record)
    return f"failed: {folder.record}, {record.get('reason', 'it does not say why')}"


def take_checkpoint(path: Path) -> str:
    """Take in a checkpoint, unless the run is already as far here."""
    state = checkpoint.load(path)
    folder = RunFolder(RUNS, RunConfig.from_dict(state["config"]))
    run_id, theirs = folder.config.run_id, checkpoint.epochs_done(state)
    with folder.hold():
        if folder.finished() or (RECORDS / f"{run_id}.json").exists():
            return f"done here: {run_id}"
        if theirs <= (ours := folder.epochs_done()):
            return f"as far here: {run_id}, {ours:.2f} epochs, and {theirs:.2f} came"
        folder.save(state)
    return f"checkpoint: {folder.checkpoint}, {theirs:.2f} of {folder.config.epochs} epochs"


# --- the command line


def build_parser() -> Parser:
    """Return the parser of all commands."""
    parser = Parser(
        prog="python -m tools.carry", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    packing = command(commands, "pack", pack, "here: lay out the last commit, a grid's data and checkpoints as loads")
    packing.add_argument("grid", metavar="GRID", type=as_path, help="a committed file such as experiments/paper.yaml")
    packing.add_argument("--only", metavar="RUN", nargs="+", default=[], help="only these run ids, or their beginnings")
    packing.add_argument("--precision", metavar="NAME", choices=PRECISIONS, help="as `queue --precision` has it")
    packing.add_argument("--limit", metavar="MIB", type=float, default=LIMIT_MIB, help="size of a load [%(default)g]")
    packing.add_argument("--to", metavar="D", type=as_path, default="_build/carry", help="[_build/carry]")
    packing.add_argument("--data-dir", metavar="D", help="folder of the data sets [DCIL_DATA, else data]")
    packing.add_argument("--data", metavar="NAME", nargs="+", default=[], help="what else of it travels: images")

    starting = command(commands, "start", start, "there: start a grid's queue, detached; one at a time")
    starting.add_argument("grid", metavar="GRID", help="a file of the checkout")
    starting.add_argument("options", metavar="...", nargs=argparse.REMAINDER, help="options of `python -m dcil queue`")

    for run, wait_s, summary in (
        (look, 0, "there: say how far the grid is; archive records and checkpoints, the newest first"),
        (stop, 120, "there: end the grid with checkpoints, then look"),
    ):
        looking = command(commands, run.__name__, run, summary)
        looking.add_argument(
            "--wait", metavar="S", type=float, default=wait_s, help="seconds to wait for its end, at most [%(default)g]"
        )
        looking.add_argument("--lines", metavar="N", type=int, default=10, help="of the log [%(default)d]")
        looking.add_argument("--to", metavar="FILE", type=as_path, default="_build/home.tgz", help="[_build/home.tgz]")
        looking.add_argument("--limit", metavar="MIB", type=float, default=LIMIT_MIB, help="its size [%(default)g]")

    coming = command(commands, "home", home, "here: take in records and checkpoints; what is further here stays")
    coming.add_argument("archives", metavar="FILE", nargs="+", type=as_path, help="what `look` or `stop` wrote")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code: 0, or 2 for what a person can mend."""
    try:
        args = build_parser().parse_args(argv)
        return args.run(args)
    except (DcilError, Refused, OSError) as error:
        print(f"carry: error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
