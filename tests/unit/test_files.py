"""Files and directories appear whole or not at all."""

import hashlib
import json
import signal
import stat
import subprocess
import sys

import pytest

from nextsession import files
from nextsession.errors import ArtifactError
from nextsession.files import hash_ahead, sha256, verify, whole_directory, whole_file


def left_in(folder):
    return sorted(p.name for p in folder.iterdir())


def test_a_directory_appears_whole(tmp_path):
    with whole_directory(tmp_path / "deep" / "model") as scratch:
        (scratch / "part").mkdir()
        (scratch / "part" / "a.txt").write_text("new")
        assert not (tmp_path / "deep" / "model").exists()
    assert (tmp_path / "deep" / "model" / "part" / "a.txt").read_text() == "new"
    assert left_in(tmp_path / "deep") == ["model"]


def test_others_may_read_the_files_of_a_directory(tmp_path):
    """Whoever serves a model may be another than who learnt it; some libraries write for their owner alone."""
    with whole_directory(tmp_path / "model") as scratch:
        (scratch / "part").mkdir(mode=0o700)
        for place in (scratch / "a.txt", scratch / "part" / "b.txt"):
            place.write_text("secretive")
            place.chmod(0o600)
    modes = [stat.S_IMODE(place.stat().st_mode) for place in sorted((tmp_path / "model").rglob("*"))]
    assert modes == [0o644, 0o755, 0o644]
    assert stat.S_IMODE((tmp_path / "model").stat().st_mode) == 0o755


def test_a_directory_takes_the_place_of_the_old_one(tmp_path):
    for text in ("old", "new"):
        with whole_directory(tmp_path / "model") as scratch:
            (scratch / f"{text}.txt").write_text(text)
    assert left_in(tmp_path / "model") == ["new.txt"]
    assert left_in(tmp_path) == ["model"]


def write_and_fail(path):
    with whole_directory(path) as scratch:
        (scratch / "a.txt").write_text("half")
        raise KeyboardInterrupt


def test_a_directory_that_fails_half_way_leaves_the_old_one(tmp_path):
    with whole_directory(tmp_path / "model") as scratch:
        (scratch / "a.txt").write_text("old")
    with pytest.raises(KeyboardInterrupt):
        write_and_fail(tmp_path / "model")
    assert (tmp_path / "model" / "a.txt").read_text() == "old"
    assert left_in(tmp_path) == ["model"]


def test_the_old_directory_comes_back_if_the_new_one_cannot_take_its_place(tmp_path, monkeypatch):
    target = tmp_path / "model"
    with whole_directory(target) as scratch:
        (scratch / "a.txt").write_text("old")
    rename = type(target).rename

    def failing(self, other):
        if other == target and self.parent == tmp_path:
            raise OSError("no")
        return rename(self, other)

    monkeypatch.setattr(type(target), "rename", failing)
    with pytest.raises(OSError, match="no"), whole_directory(target) as scratch:
        (scratch / "a.txt").write_text("new")
    assert (target / "a.txt").read_text() == "old"
    assert left_in(tmp_path) == ["model"]


def test_a_file_appears_whole(tmp_path):
    with whole_file(tmp_path / "deep" / "a.json") as scratch:
        scratch.write_text("new")
        assert not (tmp_path / "deep" / "a.json").exists()
    assert (tmp_path / "deep" / "a.json").read_text() == "new"
    assert left_in(tmp_path / "deep") == ["a.json"]


def test_a_file_that_fails_half_way_leaves_the_old_one(tmp_path):
    (tmp_path / "a.json").write_text("old")
    with pytest.raises(ZeroDivisionError), whole_file(tmp_path / "a.json") as scratch:
        scratch.write_text(str(1 / 0))
    assert (tmp_path / "a.json").read_text() == "old"
    assert left_in(tmp_path) == ["a.json"]


def test_others_may_read_what_was_written(tmp_path):
    with whole_file(tmp_path / "a.json") as scratch:
        scratch.write_text("x")
    with whole_directory(tmp_path / "model"):
        pass
    assert (tmp_path / "a.json").stat().st_mode & 0o777 == 0o644
    assert (tmp_path / "model").stat().st_mode & 0o777 == 0o755


@pytest.mark.parametrize("kind", ["whole_directory", "whole_file"])
def test_a_process_killed_half_way_leaves_the_old_one(tmp_path, kind):
    with whole_directory(tmp_path / "kept") as scratch:
        (scratch / "a.txt").write_text("old")
    target = "kept" if kind == "whole_directory" else "kept/a.txt"
    code = (
        "import os, signal, sys; from pathlib import Path; from nextsession import files\n"
        "with getattr(files, sys.argv[1])(Path(sys.argv[2])) as scratch:\n"
        "    (scratch / 'a.txt' if scratch.is_dir() else scratch).write_text('half')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, kind, str(tmp_path / target)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert (tmp_path / "kept" / "a.txt").read_text() == "old"


def test_hashes(tmp_path):
    file = tmp_path / "a.bin"
    file.write_bytes(b"abc" * 100_000)
    good = hashlib.sha256(b"abc" * 100_000).hexdigest()
    assert sha256(file) == good
    verify(tmp_path, {"a.bin": good})
    with pytest.raises(ArtifactError, match=r"b\.bin is missing\."):
        verify(tmp_path, {"b.bin": good})
    file.write_bytes(b"abx" * 100_000)
    with pytest.raises(ArtifactError, match=r"a\.bin is damaged: its hash is not the manifest's\."):
        verify(tmp_path, {"a.bin": good})


def folder_with(tmp_path, **contents):
    named = {}
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
        named[name] = hashlib.sha256(content).hexdigest()
    (tmp_path / "manifest.json").write_text(json.dumps({"format": 1, "files": named}))
    return named


def test_hashes_that_were_found_ahead_are_used_once(tmp_path, monkeypatch):
    named = folder_with(tmp_path, a=b"x" * 10_000_000, b=b"")
    hash_ahead([tmp_path]).join()
    monkeypatch.setattr(files, "sha256", lambda file: "asked again")
    verify(tmp_path, named)
    with pytest.raises(ArtifactError, match="damaged"):
        verify(tmp_path, named)


def test_what_changed_after_its_hash_was_found_is_hashed_again(tmp_path):
    named = folder_with(tmp_path, a=b"first", b=b"second")
    hash_ahead([tmp_path]).join()
    (tmp_path / "a").write_bytes(b"worst")
    verify(tmp_path, {"b": named["b"]})
    with pytest.raises(ArtifactError, match=r"a is damaged"):
        verify(tmp_path, {"a": named["a"]})


def test_what_is_damaged_already_is_noticed_though_hashed_ahead(tmp_path):
    named = folder_with(tmp_path, a=b"first")
    (tmp_path / "a").write_bytes(b"worse")
    hash_ahead([tmp_path]).join()
    with pytest.raises(ArtifactError, match=r"a is damaged"):
        verify(tmp_path, named)


def test_nothing_is_hashed_ahead_where_there_is_nothing(tmp_path):
    (tmp_path / "manifest.json").write_text("no JSON")
    for place in (tmp_path, tmp_path / "absent"):
        hash_ahead([place]).join()
    folder_with(tmp_path, a=b"first")
    (tmp_path / "a").unlink()
    hash_ahead([tmp_path]).join()
    with pytest.raises(ArtifactError, match="a is missing"):
        verify(tmp_path, {"a": ""})
