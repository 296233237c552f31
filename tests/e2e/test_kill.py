"""Preparing a log that is killed, interrupted or out of room leaves nothing half-written, and can be run again."""

import errno
import os
import signal
import subprocess
import sys
import textwrap
import time

import pytest

from nextsession.data import intake, prepared, storage
from nextsession.data.events import read_events
from nextsession.data.format import Filters, LogFormat, SessionRule
from nextsession.data.prepared import Prepared, prepare
from nextsession.errors import ArtifactError
from nextsession.files import whole_directory

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals and limits of POSIX")

SCRIPT = """
import sys, time
from pathlib import Path
from nextsession.data.events import read_events
from nextsession.data.format import Filters, LogFormat, SessionRule
from nextsession.data.prepared import prepare

def batches():
    for batch in read_events(sys.argv[1], LogFormat()):
        yield batch
    Path(sys.argv[3]).touch()
    time.sleep(float(sys.argv[4]))

if len(sys.argv) > 5:
    import resource
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[5]),) * 2)
prepare(batches(), sys.argv[2], form=LogFormat(), sessions=SessionRule(), filters=Filters(item_events=2))
"""


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "in" / "a.csv"
    path.parent.mkdir()
    rows = "".join(f"u{k % 997},i{k % 89},{1_500_000_000 + k}\n" for k in range(20_000))
    path.write_text("user_id,item_id,timestamp\n" + rows)
    return path


@pytest.fixture
def place(tmp_path):
    (tmp_path / "out").mkdir()
    return tmp_path / "out" / "log"


def run(source, place, *, sleep=60, limit=None):
    """Start preparing in another process; return it once all rows are read, or it has ended."""
    flag = source.parent / "read"
    flag.unlink(missing_ok=True)
    extra = [] if limit is None else [str(limit)]
    command = [sys.executable, "-c", textwrap.dedent(SCRIPT), str(source), str(place), str(flag), str(sleep), *extra]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not flag.exists() and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return process


def here(source, place):
    batches = read_events(source, LogFormat())
    return prepare(batches, place, form=LogFormat(), sessions=SessionRule(), filters=Filters(item_events=2))


def names(place):
    return sorted(path.name for path in place.parent.iterdir())


def test_killed_half_way_and_run_again(source, place):
    process = run(source, place)
    process.kill()
    process.communicate(timeout=60)
    (left,) = names(place)
    assert left.startswith(".log.")
    assert here(source, place).log.n_events == 20_000
    assert names(place) == ["log"]


def test_killed_while_it_would_have_replaced_a_log(source, place):
    before = here(source, place).manifest
    process = run(source, place)
    process.kill()
    process.communicate(timeout=60)
    assert Prepared.load(place).manifest == before


def test_interrupted_from_the_keyboard(source, place):
    process = run(source, place)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert "KeyboardInterrupt" in said
    assert names(place) == []


def test_a_file_that_may_not_grow(source, place):
    process = run(source, place, sleep=0, limit=100_000)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 1
    assert f"ArtifactError: {place} could not be written: File too large. Nothing was left there" in said
    assert names(place) == []


@pytest.mark.parametrize("module", [intake.Spill, storage.ColumnFile, prepared.Vocabulary])
def test_a_full_disk_at_every_stage(module, source, place, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(module, "save" if module is prepared.Vocabulary else "append", full)
        with pytest.raises(ArtifactError, match=r"could not be written: No space left on device.*run it again"):
            here(source, place)
    assert names(place) == []
    assert here(source, place).log.n_events == 20_000


@pytest.mark.parametrize("limit", [100, 3000])
def test_a_full_disk_while_a_log_in_memory_is_saved(limit, place):
    script = f"""
import resource
from nextsession.data.log import SessionLog
from nextsession.data.prepared import Prepared
resource.setrlimit(resource.RLIMIT_FSIZE, ({limit},) * 2)
Prepared.save({str(place)!r}, SessionLog.from_lists([[list(range(500))]]))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert f"ArtifactError: {place} could not be written: File too large" in done.stderr
    assert names(place) == []


def test_a_place_that_may_not_be_written(source, place):
    place.parent.rmdir()
    place.parent.write_text("a file where a folder should be")
    with pytest.raises(ArtifactError, match="could not be written"):
        here(source, place)


def test_what_somebody_is_still_writing_is_left_alone(place):
    with whole_directory(place) as scratch:
        (scratch / "x").write_text("first")
        with whole_directory(place) as other:
            (other / "x").write_text("second")
        assert (scratch / "x").read_text() == "first"
    assert (place / "x").read_text() == "first"
    assert names(place) == ["log"]


def test_a_log_that_was_set_aside_by_a_killed_process_comes_back(place):
    aside = place.parent / ".log.old.abcd_123" / "was"
    aside.mkdir(parents=True)
    (aside / "x").write_text("the log")
    (place.parent / ".log.abcdefgh").mkdir()
    (place.parent / ".log.v2.abcdefgh").mkdir()  # of another target
    with pytest.raises(KeyError), whole_directory(place):
        raise KeyError
    assert (place / "x").read_text() == "the log"
    assert names(place) == [".log.v2.abcdefgh", "log"]
