"""Saved models: whole, verified, and refused when they are not what they must be."""

import json
import signal
import subprocess
import sys

import numpy as np
import pytest

from nextsession import SessionLog, create, load
from nextsession.artifacts import FORMAT, read_manifest, read_model, write_model
from nextsession.data.prepared import Prepared
from nextsession.data.vocabulary import Vocabulary
from nextsession.errors import ArtifactError, UnknownNameError

LOG = SessionLog.from_lists([[["milk", "bread"], ["milk"]]])


@pytest.fixture
def saved(tmp_path):
    create("popular", count="sessions").fit(LOG).save(tmp_path / "model", notes={"by": "a test"})
    return tmp_path / "model"


def change(path, **values):
    manifest = json.loads((path / "manifest.json").read_text())
    manifest.update(values)
    (path / "manifest.json").write_text(json.dumps({k: v for k, v in manifest.items() if v is not None}))


def test_a_model_comes_back(saved):
    model = load(saved)
    assert repr(model) == "Popular(count='sessions')"
    assert list(model.recommend(LOG, 1)) == [["milk"]]
    assert model.trained_until_ == int(LOG.times.max()) + 1


def test_the_manifest_says_what_the_model_is(saved):
    manifest = read_manifest(saved)
    assert manifest["format"] == FORMAT
    assert manifest["model"] == "popular"
    assert manifest["config"] == {"count": "sessions"}
    assert manifest["notes"] == {"by": "a test"}
    assert set(manifest["versions"]) == {"nextsession", "numpy"}
    assert set(manifest["files"]) == {"arrays.safetensors", "vocabulary.arrow"}


def test_saving_twice_gives_the_same_bytes(saved, tmp_path):
    load(saved).save(tmp_path / "again", notes={"by": "a test"})
    for file in ("manifest.json", "arrays.safetensors", "vocabulary.arrow"):
        assert (saved / file).read_bytes() == (tmp_path / "again" / file).read_bytes()


def test_arrays_of_every_kind_come_back(tmp_path):
    arrays = {
        "bits": np.array([True, False]),
        "none": np.zeros((0, 3), np.float32),
        "one": np.array(3.5),
        "turned": np.arange(6, dtype=np.int16).reshape(2, 3).T,
        "sliced": np.arange(10)[::3],
    }
    write_model(tmp_path / "m", {}, arrays, Vocabulary([1]))
    _, again, items = read_model(tmp_path / "m")
    assert items == Vocabulary([1])
    assert set(again) == set(arrays)
    for name, values in arrays.items():
        assert again[name].dtype == values.dtype
        assert again[name].shape == values.shape
        assert np.array_equal(again[name], values)


@pytest.mark.parametrize("file", ["arrays.safetensors", "vocabulary.arrow"])
def test_a_damaged_file_is_named(saved, file):
    content = bytearray((saved / file).read_bytes())
    content[-1] ^= 1
    (saved / file).write_bytes(content)
    with pytest.raises(ArtifactError, match=f"{file} is damaged: its hash is not the manifest's"):
        load(saved)


@pytest.mark.parametrize("file", ["arrays.safetensors", "vocabulary.arrow"])
def test_a_missing_file_is_named(saved, file):
    (saved / file).unlink()
    with pytest.raises(ArtifactError, match=f"{file} is missing"):
        load(saved)


def test_a_wrong_hash_is_noticed(saved):
    change(saved, files={"arrays.safetensors": "0" * 64, "vocabulary.arrow": "0" * 64})
    with pytest.raises(ArtifactError, match=r"arrays\.safetensors is damaged"):
        load(saved)


def test_a_newer_format_says_to_upgrade(saved):
    change(saved, format=FORMAT + 1)
    with pytest.raises(ArtifactError, match=rf"has format {FORMAT + 1}, this version reads up to {FORMAT}: upgrade"):
        load(saved)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", r"manifest\.json cannot be read: "),
        ("\xff", r"manifest\.json cannot be read: "),
        ("[]", r"manifest\.json is damaged: it names no format"),
        ("{}", r"manifest\.json is damaged: it names no format"),
        ('{"format": "1"}', r"manifest\.json is damaged: it names no format"),
        ('{"format": 1}', r"manifest\.json is damaged: it names no files"),
    ],
)
def test_a_damaged_manifest_is_refused(saved, text, message):
    (saved / "manifest.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(ArtifactError, match=message):
        load(saved)


@pytest.mark.parametrize("entry", ["model", "config", "trained_until"])
def test_a_manifest_without_an_entry_is_refused(saved, entry):
    change(saved, **{entry: None})
    with pytest.raises(ArtifactError, match=f"is damaged: its manifest has no '{entry}'"):
        load(saved)


def test_what_is_no_model_is_refused(tmp_path):
    Prepared.save(tmp_path / "log", LOG)
    with pytest.raises(ArtifactError, match=r"log is a prepared log, not a saved model; `nextsession fit` makes one"):
        load(tmp_path / "log")
    with pytest.raises(ArtifactError, match=r"nowhere is not a saved model: it has no manifest\.json"):
        load(tmp_path / "nowhere")
    (tmp_path / "file").write_text("x")
    with pytest.raises(ArtifactError, match=r"file is not a saved model: it has no manifest\.json"):
        load(tmp_path / "file")


def test_a_model_that_is_not_installed_is_refused(saved):
    change(saved, model="popularr")
    with pytest.raises(UnknownNameError, match=r"There is no model 'popularr'\. Did you mean 'popular'\?"):
        load(saved)


@pytest.mark.parametrize("kind", ["folder", "file"])
def test_what_is_no_model_is_not_overwritten(tmp_path, kind):
    place = tmp_path / "mine"
    if kind == "folder":
        place.mkdir()
        (place / "thesis.txt").write_text("years of work")
    else:
        place.write_text("years of work")
    with pytest.raises(ArtifactError, match="mine exists and is not a saved model; choose another place or remove it"):
        create("popular").fit(LOG).save(place)
    assert (place / "thesis.txt" if kind == "folder" else place).read_text() == "years of work"


def test_a_saved_model_is_replaced(saved):
    create("popular").fit(LOG).save(saved)
    assert repr(load(saved)) == "Popular()"


def test_a_process_killed_while_saving_leaves_the_old_model(saved):
    code = (
        "import os, signal, sys\n"
        "from nextsession import artifacts, load\n"
        "model = load(sys.argv[1])\n"
        "artifacts.sha256 = lambda path: os.kill(os.getpid(), signal.SIGKILL)\n"
        "model.counts_ *= 0\n"
        "model.save(sys.argv[1])\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(saved)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert load(saved).counts_.max() > 0


def test_what_is_loaded_may_be_changed_and_the_file_stays(tmp_path):
    arrays = {
        "words": np.arange(5, dtype=np.float32),
        "odd": np.array([True, False, True]),
        "none": np.zeros((0, 4), np.int64),
        "one": np.array(7, np.int16),
    }
    write_model(tmp_path / "m", {"model": "x"}, arrays, Vocabulary([1, 2]))
    _, loaded, _ = read_model(tmp_path / "m")
    for name, array in arrays.items():
        assert loaded[name].dtype == array.dtype
        assert loaded[name].flags.aligned
        np.testing.assert_array_equal(loaded[name], array)
    loaded["words"][:] = 9
    _, again, _ = read_model(tmp_path / "m")
    np.testing.assert_array_equal(again["words"], arrays["words"])
