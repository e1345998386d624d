"""Untrusted records: what is sent, and what must come back, within bounds of time and memory.

Each row of a table is one hostile or damaged input. What is refused is refused with `DcilError`, nothing is written,
and what is accepted must not break a page.
"""

import base64
import contextlib
import copy
import errno
import json
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
import tracemalloc
import zlib
from pathlib import Path

import pytest

from dcil import fit, records
from dcil.cli import main as cli
from dcil.config import RunConfig, run_id_of
from dcil.dynamics import SAMPLE
from dcil.errors import DcilError
from dcil.lab import checkout
from dcil.lab.book import runs_page
from dcil.lab.evidence import claims, verdict_log
from dcil.lab.page import provenance
from dcil.lab.runs import final_masks, frames, side_by_side, sources, stability
from dcil.lab.tables import device_hours, equal_compute, precision, training_cost
from dcil.run_record import Run

SECONDS, MIB = 10, 96  # of a processor and at the peak, for each input


@contextlib.contextmanager
def bounded(mib=MIB):
    """Fail if the block computes for too long, hangs, or allocates too much."""

    def late(*_):
        raise AssertionError("it waits")

    before, began = signal.signal(signal.SIGALRM, late), time.process_time()
    signal.setitimer(signal.ITIMER_REAL, 20 * SECONDS)  # other work on the machine must not fail a test
    tracemalloc.start()
    try:
        yield
        peak, took = tracemalloc.get_traced_memory()[1] / 2**20, time.process_time() - began
        assert peak < mib and took < SECONDS, f"{peak:.0f} MiB at its peak, {took:.1f} s"
    finally:
        tracemalloc.stop()
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@pytest.fixture(scope="module")
def record(tmp_path_factory, tiny_dataset):
    """The record of a real run of two epochs, with masks, gradients and re-estimated norms."""
    config = RunConfig(model="resnet8", epochs=2, batch_size=20, mask_period=1, ramp_end=0, device="cpu")
    return fit(config, dataset=tiny_dataset, runs_dir=tmp_path_factory.mktemp("runs"), progress=False)


def changed(record, path, value):
    """Return a deep copy with one value replaced, at a path of keys or with dots; `...` removes it."""
    other = copy.deepcopy(record)
    keys = [int(key) if key.isdigit() else key for key in path.split(".")] if isinstance(path, str) else path
    *way, last = keys
    place = other
    for key in way:
        place = place[key]
    if value is ...:
        del place[last]
    else:
        place[last] = value
    return other


def refused(path, folder):
    """Return the error with which `records.add` refuses a file, within the bounds and without writing."""
    with bounded(), pytest.raises(DcilError) as caught:
        records.add(path, folder)
    assert not folder.exists()
    return str(caught.value)


def nested(depth):
    """Return lists nested `depth` deep."""
    value = []
    for _ in range(depth):
        value = [value]
    return value


def packed(content):
    """Return bytes as a record packs them."""
    return base64.b64encode(zlib.compress(content, 9)).decode()


# --- a value that is wrong: place, value, what must be said

VALUES = [
    # passes: names and number come from the method
    ("curve.1.test.sparse", ..., r"curve\[1\].test has the passes \['dense'\], dcil has \['dense', 'sparse'\]"),
    ("curve.0.train", {}, r"curve\[0\].train has the passes \[\]"),
    ("curve.0.test.twin", {"top1": 1, "top5": 1}, "curve.0..test must have at most 2 entries, got 3"),
    ("curve.1.reestimated.sparse", ..., r"curve\[1\].reestimated has the passes \['dense'\]"),
    ("final.passes.sparse", ..., "final does not follow from the curve"),
    ("config.method", "dense", "config.sparsity must be 0.0, as dcil writes it, got 0.9"),
    # one run has one id: its configuration in full, each value as dcil writes it
    ("config.temperature", 2, "config.temperature must be 2.0, as dcil writes it, got 2"),
    ("config.lr", None, "config.lr must be 0.1, as dcil writes it, got null"),
    ("config.milestones", ..., r"config.milestones must be \[1\], as dcil writes it, got nothing"),
    ("config.dense_every", None, "dense_every is None"),
    ("config.device", "auto", "config.device must be"),
    ("config.momentum", -0.0, "config.momentum must be 0.0, as dcil writes it, got -0.0"),
    ("config.epochs", 10**6, "epochs is 1000000; it must be at most 10,000"),
    ("config.seed", 2**40, "seed is"),
    # what a page reads
    ("reason", 5, "reason must be str, got 5"),
    ("reason", "x" * 3000, "reason must have at most 2000 characters, got 3000"),
    ("cost.nonzeros", {}, "cost.nonzeros.conv is missing"),
    ("cost.nonzeros.conv", 0, "cost.nonzeros.conv must be from 1 to"),
    ("cost.layer_sparsity", {"conv1.weight": "most"}, "must be int or float, got 'most'"),
    ("cost.layer_sparsity", {"conv1.weight": 1.5}, "must be from 0 to 1, got 1.5"),
    ("cost.time_s", -1.0, "cost.time_s must be from 0 to"),
    ("cost.dense_macs", 0, "cost.dense_macs must be from 1 to"),
    ("cost.train_macs", 10**15 + 1, "cost.train_macs must be from 1 to"),
    ("cost.shared_by", 0.5, "cost.shared_by must be from 1 to"),
    ("data.train_size", 0, "data.train_size must be from 1 to"),
    ("data.num_classes", 10**9, "data.num_classes must be from 1 to"),
    ("environment.threads", 0, "environment.threads must be from 1 to"),
    ("environment.step", "eager" * 99, "environment.step must have at most 200 characters, got 495"),
    ("environment.device", "D" * 10**5, "environment.device must have at most 200 characters"),
    ("curve.1.sparsity", 1.0, r"curve\[1\].sparsity must be from 0 to"),
    ("curve.1.flips", -1, r"curve\[1\].flips must be from 0 to"),
    ("curve.1.test.sparse.top1", 100.5, "must be from 0 to 100, got 100.5"),
    ("curve.0.gradients", [], r"curve\[0\].gradients must be an object, got list"),
    ("curve.1.gradients", {"cosine": 0.5}, r"curve\[1\].gradients.norm_ratio is missing"),
    ("curve.1.ever_kept", "all", r"curve\[1\].ever_kept must be int or float, got 'all'"),
    # masks
    ("masks.count", 2**40, "masks.count must be from 1 to"),
    ("masks.count", 10**5, "masks has 100000 positions 1 apart, more than the network has weights"),
    ("masks.count", 77000, "the final mask in the record .* cannot be read"),
    ("masks.stride", 0, "masks.stride must be from 1 to"),
    ("masks.stride", 2, "more than the network has weights"),
    ("masks.final", packed(bytes(2**26)), "it does not unpack to the .* bytes that .* bits take"),
    ("masks.final", "A" * 2**18, "masks.final has 262144 characters"),
    ("masks.overlap_with_last", [{"epoch": 7, "jaccard": 1.0}], "must name epochs of the curve, in their order"),
    ("masks.overlap_with_last.1.jaccard", 3.0, "jaccard must be from 0 to 1, got 3.0"),
    # which images are right: 16 of them, two bytes
    ("images_right", None, "images_right must be an object, got NoneType"),
    ("images_right", {}, r"images_right has the passes \[\], the curve has \['dense', 'sparse'\]"),
    ("images_right.dense", ..., r"images_right has the passes \['sparse'\]"),
    ("images_right.dense", 7, "must be str, got 7"),
    ("images_right.dense", packed(bytes(2**26)), "does not unpack to the 2 bytes that 16 bits take"),
    ("images_right.dense", packed(b"a"), r"images_right in the record .* cannot be read: .* 16 bits take\. "),
    ("images_right.dense", packed(b"\xff\xff"), r"\['dense'\] has 16 of 16 images, 100.0 %, but the last top-1 is "),
    ("data.test_size", 10**15, "images_right .* it has 1000000000000000 bits; it must have 1 to 524288"),
    ("data.test_size", 9, "images_right"),
    ("status", "failed", "images_right is of a run's last epoch, and this run is failed"),
    # what no reader of JSON must be sent, in a key of the record's own or in another
    ("note", nested(20), "note.* is nested more than 12 deep"),
    ("note", "half \ud800", r"note has a character that is not text, '\\ud800'"),
    ("note", "\x1b[2J", r"note has a character that is not text, '\\x1b'"),
    ("environment.device", "one\ntwo", r"environment.device has a character that is not text, '\\n'"),
    ("cost", {"\x1b]0;title": 1}, "has a character that is not text"),
    ("note", "x" * 2**18, "note has 262144 characters, at most 131072"),
    ("note", 10**30, "note is a whole number beyond 2.53"),
    ("checksum", "0" * 64, "its checksum is not that of its content"),
]  # fmt: skip


@pytest.mark.parametrize(("path", "value", "words"), VALUES, ids=[f"{p}-{i}" for i, (p, *_) in enumerate(VALUES)])
def test_a_wrong_value_is_refused(record, tmp_path, path, value, words):
    """The error says where the value is and what was expected; the run id is adapted, so nothing else is wrong."""
    bad = changed(record, path, value)
    if path.startswith("config"):
        bad["run_id"] = run_id_of(bad["config"])
    (tmp_path / "bad.json").write_text(json.dumps(bad))
    said = refused(tmp_path / "bad.json", tmp_path / "records")
    assert re.search(words, said) and len(said) < 2000


# --- text that is not JSON, or not the same to every reader: what is replaced in the file, by what, what must be said

TEXTS = [
    ('"lr": ', '"lr": NaN, "was": ', "NaN is not a number of JSON"),
    ('"lr": ', '"lr": -Infinity, "was": ', "-Infinity is not a number of JSON"),
    ('"lr": ', '"lr": 1e999, "was": ', "1e999 is beyond the numbers of a computer"),
    ('"flips": ', f'"flips": {"9" * 400}, "was": ', "a number has 400 characters, at most 40 are read"),
    ('"flips": ', f'"flips": {"9" * 10**6}, "was": ', "a number has 1000000 characters"),
    ('"lr": ', f'"lr": 0.{"1" * 400}, "was": ', "a number has 402 characters"),
    ('"seed": 0', '"seed": 0, "seed": 0', "the key 'seed' stands there twice"),
    ('"run_id": ', '"run_id": "another", "run_id": ', "the key 'run_id' stands there twice"),
    ("{", "[" * 100_000, "it is nested too deeply"),
    ('"tier": ', f'"note": {"[" * 975}{"]" * 975}, "tier": ', "nested"),
    ("{", '{"a": ' * 100_000, "it is nested too deeply"),
    ("{", "\ufeff{", "cannot be read"),
    ('"tier"', '"tier\x00"', "cannot be read"),
    ("}", "", "cannot be read"),
]


@pytest.mark.parametrize(("old", "new", "words"), TEXTS, ids=[f"{t[2][-30:]}-{i}" for i, t in enumerate(TEXTS)])
def test_text_that_is_no_record_is_refused(record, tmp_path, capsys, old, new, words):
    """Such text is refused by the library, and by the command in one line and with exit code 2."""
    path = records.write(record, tmp_path / "bad.json")
    path.write_text(path.read_text().replace(old, new, 1))
    assert words in refused(path, tmp_path / "records")
    assert cli.main(["records", "add", str(path), "--records-dir", str(tmp_path / "records")]) == 2
    assert words in (said := capsys.readouterr().err) and said.count("\n") == 1


@pytest.mark.parametrize("content", [b"", b"\xff\xfe{\x00}\x00", b"\x80", b"null", b'"text"', b"3", b"{}"], ids=repr)
def test_other_content_is_refused(tmp_path, content):
    """An empty file, UTF-16, bytes that are not UTF-8, and JSON of another kind are refused."""
    (tmp_path / "bad.json").write_bytes(content)
    assert "bad.json" in refused(tmp_path / "bad.json", tmp_path / "records")


# --- what is no file, or too large: what is made, what must be said


def sparse_file(path):
    """Make a file of 500 MB that takes no room on the disk."""
    with open(path, "wb") as file:
        file.truncate(500 * 10**6)


def loop(path):
    """Make two links that point to each other."""
    other = path.with_name("other.json")
    path.symlink_to(other)
    other.symlink_to(path)


FILES = [
    (os.mkfifo, "is not a regular file"),
    (os.mkdir, "is a folder"),
    (lambda path: path.symlink_to("/dev/zero"), "is not a regular file"),
    (sparse_file, "has more than 8 MiB"),
    (loop, "symbolic links"),
    (lambda path: None, "there is no record"),
    (lambda path: path.write_text("[" + "{}," * 2_600_000 + "{}]"), "it has more than 524,288 values"),
    (lambda path: path.write_text("[" + "{}," * 500_000 + "{}]"), "must be an object, got list"),
    (lambda path: path.write_text('{"a": ["' + "x" * 7_000_000 + '"]}'), "has 7000000 characters"),
]


@pytest.mark.parametrize(("make", "words"), FILES, ids=[words for _, words in FILES])
def test_what_is_no_file_of_a_record_is_refused(tmp_path, make, words):
    """Refusal is immediate: nothing hangs, no file beyond the limit is read, and the largest takes bounded memory."""
    make(tmp_path / "bad.json")
    with bounded(), pytest.raises(DcilError, match=words):
        records.read(tmp_path / "bad.json")


def test_bits_that_unpack_to_much_take_no_memory(record):
    """64 MiB packed into 64 KiB are refused in little memory, whatever count the record gives."""
    bomb = packed(bytes(2**26))
    for count in (record["masks"]["count"], SAMPLE, 2**29):
        other = changed(record, "data.test_size", count)
        other["images_right"]["dense"] = bomb
        with bounded(mib=4), pytest.raises(DcilError, match="images_right"):
            records.validate(other)
        bad = record | {"masks": record["masks"] | {"count": count, "final": bomb}}
        with bounded(mib=4), pytest.raises(DcilError, match="mask"):
            records.validate(bad)


# --- what is accepted breaks no page

HOSTILE = [None, True, 0, 1, -1, 0.5, 1e300, 10**18, "", "x", "<script>", "=1+2", "../x", [], {}, [0], {"a": 1},
           {"sparse": {}}, "9" * 150, nested(5)]  # fmt: skip


def places(value, path=()):
    """Yield every place in a record; the second row stands for the whole curve, and one layer for all."""
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
        if (isinstance(value, list) and key != 1) or ("layer_sparsity" in path and key != "conv1.weight"):
            continue
        yield (*path, key)
        if isinstance(inner, (dict, list)):
            yield from places(inner, (*path, key))


def draw(found):
    """Make everything that pages make of records."""
    found = [Run(record) for record in found]
    table = frames.runs_table(found)
    made = [
        runs_page.all_runs_page(found),
        *(
            t.to_csv()
            for t in (
                table,
                frames.methods_table(found, ["dcil"]),
                frames.curves_table(found),
                stability.stability_table(found),
                final_masks.layers_table(found),
                final_masks.overlaps_table(found),
                stability.dynamics_table(found),
                final_masks.empty_channels_table(found),
                equal_compute.spent_table(found),
                training_cost.recorded_costs_table(found),
                precision.paired_runs(found),
                device_hours.fitting_table([10], [], found),
            )
        ),
    ]
    made += [provenance.footer(sources.recorded(found), "a#b", table), frames.findings_in_words(table)]
    "".join(made).encode()
    for one in found:
        equal_compute.schedules_table([one])
        side_by_side.comparison(one, found[-1])


def test_what_is_accepted_breaks_no_page(record):
    """A record with any value replaced by a hostile one, or removed, is refused, or all pages can be made."""
    accepted = 0
    for path in places(record):
        found = []
        for value in (*HOSTILE, ...):
            bad = changed(record, path, value)
            if path[0] == "config" != path[-1]:
                with contextlib.suppress(KeyError, TypeError, ValueError):
                    bad["run_id"] = run_id_of(bad["config"])
            with contextlib.suppress(DcilError):
                found.append(records.validate(bad))
        if found:
            draw([*found, record])
        accepted += len(found)
    assert accepted > 100  # texts, times and counts that are plausible


def test_a_failed_run_breaks_no_page(record):
    """Pages can show a failed run, even one that ended in its first epoch."""
    short = {key: value for key, value in record.items() if key not in ("masks", "images_right")}
    for rows in (0, 1):
        curve = record["curve"][:rows]
        end = {"status": "failed", "reason": "<b>&", "curve": curve, "final": records.summarize(curve, 0.9)}
        draw([records.validate(short | end), record])


# --- the order of keys says nothing


def rewritten(record):
    """Return a record as `json.dumps(sort_keys=True)` or `jq -S` writes it."""
    return json.dumps(record, sort_keys=True)


def test_keys_in_another_order_flip_no_verdict(tmp_path):
    """Sorting the keys of all the book's records, which puts "dense" before "sparse", changes no verdict.

    It changed five when the first pass of the file was taken for the deployed one.
    """
    for path in (checkout.root() / "records").glob("*.json"):
        (tmp_path / "in.json").write_text(rewritten(json.loads(path.read_text())))
        records.add(tmp_path / "in.json", tmp_path / "records")
    known = claims.read_claims(checkout.root() / "book" / "claims.yml")
    before, after = records.load_all(checkout.root() / "records"), records.load_all(tmp_path / "records")
    assert verdict_log.current_verdicts(known, after) == verdict_log.current_verdicts(known, before)
    assert [list(r["final"]["passes"]) for r in after] == [list(r["final"]["passes"]) for r in before]
    assert runs_page.all_runs_page(after).count("<tr id") == len(before)
    tables = [frames.runs_table(found) for found in (before, after)]
    assert tables[0].equals(tables[1]) and tables[0]["deployed"].sum() == len(before)
    assert final_masks.overlaps_table(after).equals(final_masks.overlaps_table(before))
    assert final_masks.layers_table(after).equals(final_masks.layers_table(before))


def test_the_deployed_pass_is_the_methods_first(record):
    """The deployed pass is the method's first, also in records that were not read from files."""
    turned = copy.deepcopy(record)
    turned["final"]["passes"] = dict(reversed(turned["final"]["passes"].items()))
    table = frames.runs_table([Run(turned)]).set_index("pass")
    assert table["deployed"].to_dict() == {"dense": False, "sparse": True}


# --- the checksum


def test_a_checksum_stands_in_every_new_file(record, tmp_path):
    """It does not depend on order, spaces or how numbers are written, is compared on reading, and is not returned."""
    path = records.write(record, tmp_path / "a.json")
    held = json.loads(path.read_text())
    assert re.fullmatch("[0-9a-f]{64}", held["checksum"]) and "checksum" not in records.read(path)
    for text in (rewritten(held), path.read_text().replace("100.0", "1e2"), json.dumps(held, separators=(",", ":"))):
        path.write_text(text)
        assert records.read(path) == record
    path.write_text(rewritten(changed(held, "curve.0.lr", 0.123)))
    with pytest.raises(DcilError, match="its checksum is not that of its content"):
        records.read(path)
    del held["checksum"]
    path.write_text(json.dumps(held))  # as older files are
    assert records.read(path) == record


def test_flipped_bits_are_found(record, tmp_path):
    """Each of 400 files with one flipped bit is refused or reads the same; without the checksum, 25 of 200 passed."""
    path = records.write(record, tmp_path / "a.json")
    whole, draw_from = path.read_bytes(), random.Random(0)
    for _ in range(400):
        bit = draw_from.randrange(8 * len(whole))
        flipped = bytearray(whole)
        flipped[bit // 8] ^= 1 << bit % 8
        path.write_bytes(flipped)
        with contextlib.suppress(DcilError):
            found = records.read(path)
            name = (found.keys() - record.keys()) or {"none"}  # the name of the checksum itself may be hit
            assert len(name) == 1 and {k: v for k, v in found.items() if k not in name} == record


# --- taking in


def test_of_two_that_are_added_at_once_one_is_refused(record, tmp_path):
    """Of two threads that add different records of one run, one succeeds and the other is refused, every time."""
    for number in range(2):
        other = changed(record, "cost.time_s", 10.0 + number)
        records.write(other, tmp_path / f"{number}.json")
    for turn in range(20):
        folder, start, said = tmp_path / f"records{turn}", threading.Barrier(2), []

        def bring(number, folder=folder, start=start, said=said):
            start.wait()
            try:
                said.append(records.add(tmp_path / f"{number}.json", folder))
            except DcilError as error:
                said.append(str(error))

        both = [threading.Thread(target=bring, args=(number,)) for number in range(2)]
        for thread in both:
            thread.start()
        for thread in both:
            thread.join()
        assert sorted(isinstance(s, str) for s in said) == [False, True]
        assert "is there already and differs" in next(s for s in said if isinstance(s, str))
        assert len(list(folder.iterdir())) == 1


def test_a_disk_without_hard_links(record, tmp_path, monkeypatch):
    """There a record is added too, never in place of another, and nothing else is left in the folder."""
    path, folder = records.write(record, tmp_path / "a.json"), tmp_path / "records"

    def refuse(*_):
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))

    monkeypatch.setattr(os, "link", refuse)
    added = records.add(path, folder)
    assert added.read_bytes() == path.read_bytes() and records.add(path, folder) == added
    added.write_text("another")
    with pytest.raises(DcilError, match="is there already and differs"):
        records.add(path, folder)
    assert added.read_text() == "another" and list(folder.iterdir()) == [added]


def test_what_is_added_is_what_was_checked(record, tmp_path, monkeypatch):
    """If the file is replaced right after the check, the bytes that were checked are taken in."""
    path = records.write(record, tmp_path / "a.json")
    before, check = path.read_bytes(), records.validate

    def replaced(*args):
        found = check(*args)
        path.write_text("{}")
        return found

    monkeypatch.setattr(records, "validate", replaced)
    assert records.add(path, tmp_path / "records").read_bytes() == before


def test_a_link_in_the_folder_is_not_followed(record, tmp_path, capsys):
    """`records add` does not write through a link, and `records check` names it."""
    path, folder = records.write(record, tmp_path / "a.json"), tmp_path / "records"
    folder.mkdir()
    (folder / f"{record['run_id']}.json").symlink_to(tmp_path / "elsewhere.json")
    with pytest.raises(DcilError, match="is there already and differs"):
        records.add(path, folder)
    assert not (tmp_path / "elsewhere.json").exists()
    assert cli.main(["records", "check", str(folder)]) == 2
    assert "is a link; a record is a file of its own" in capsys.readouterr().err


# --- the check of a change, in a pull request: what is brought, what must be said ("" is: nothing)

OLD, NEW = "records/old.json", "records/new-run.json"


def write(path, text="{}"):
    """Write a file and make the folders above it."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(text, encoding="utf-8")


def linked(path, to):
    """Put a symbolic link in place of whatever was there."""
    Path(path).unlink(missing_ok=True)
    os.symlink(to, path)


CHANGES = [
    ("a new record", lambda: write(NEW), ""),
    ("a file elsewhere", lambda: write("book/page.html"), ""),
    ("one changed", lambda: write(OLD, "{} "), "old.json' was there already"),
    ("one removed", lambda: os.unlink(OLD), "old.json' was there already"),
    ("one renamed", lambda: os.rename(OLD, NEW), "old.json' was there already"),
    ("one made a link", lambda: linked(OLD, "/etc/passwd"), "old.json' was there already"),
    ("one made executable", lambda: os.chmod(OLD, 0o755), "old.json' was there already"),
    ("the folder made a link", lambda: (os.unlink(OLD), os.rmdir("records"), os.symlink("book", "records")),
     "old.json' was there already"),
    ("a new link", lambda: linked(NEW, "old.json"), "mode 120000"),
    ("a new program", lambda: (write(NEW), os.chmod(NEW, 0o755)), "mode 100755"),
    ("a page", lambda: write("records/index.html"), "is no regular file named records/RUN-ID.json"),
    ("a script", lambda: write("records/x.js"), "is no regular file"),
    ("a folder", lambda: write("records/a/b.json"), "is no regular file"),
    ("a hidden file", lambda: write("records/.x.json"), "is no regular file"),
    ("a line break", lambda: write("records/a\n::error::\nb.json"), r"a\\n::error::\\nb.json' \(mode 100644\) is"),
]  # fmt: skip


@pytest.mark.parametrize(("what", "change", "words"), CHANGES, ids=[what for what, *_ in CHANGES])
def test_a_change_brings_new_records_only(tmp_path, monkeypatch, what, change, words):
    """The workflow's script accepts nothing under records/ but new records, in a repository of its own."""
    monkeypatch.chdir(tmp_path)

    def git(*words):
        who = ("-c", "user.name=a", "-c", "user.email=a@b")
        subprocess.run(["git", *who, *words], check=True, capture_output=True)

    write(OLD)
    write("book/keep.json")
    for command in (["init", "-q"], ["add", "."], ["commit", "-qm", "base"], ["branch", "base"]):
        git(*command)
    change()
    git("add", "-A")
    git("commit", "-qm", what)
    script = checkout.root() / ".ci" / "history.py"
    done = subprocess.run([sys.executable, script, "base"], capture_output=True, text=True)
    assert done.returncode == bool(words) and re.search(words, done.stderr), done.stderr
    assert "::error::" not in done.stderr.splitlines()
