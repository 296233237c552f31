"""Mapped files: what is read is what lies there, and nothing is left open."""

import gc
import os
from pathlib import Path

import numpy as np
import pytest

from nextsession import mapping
from nextsession.errors import ArtifactError
from nextsession.mapping import FEW, mapped, mapped_array, rows_of

RNG = np.random.default_rng(0)
MATRIX = RNG.normal(size=(3 * FEW, 18)).astype(np.float32)


@pytest.fixture
def file(tmp_path):
    np.save(tmp_path / "matrix.npy", MATRIX)
    return tmp_path / "matrix.npy"


@pytest.mark.parametrize("number", [0, 1, 50, FEW, FEW + 1])
@pytest.mark.parametrize("kind", [np.int32, np.int64])
def test_rows_are_those_of_the_matrix(file, number, kind):
    found, codes = mapped_array(file), RNG.integers(0, len(MATRIX), number).astype(kind)
    assert np.array_equal(rows_of(found, codes), MATRIX[codes])
    assert np.array_equal(rows_of(found[:, :-2], codes), MATRIX[codes, :-2])
    assert np.array_equal(rows_of(found[5:, 3:9], codes % 100), MATRIX[5:, 3:9][codes % 100])
    assert np.array_equal(rows_of(found[::-1], codes), MATRIX[::-1][codes])
    assert np.array_equal(rows_of(found[:, ::-1], codes), MATRIX[:, ::-1][codes])
    assert np.array_equal(rows_of(MATRIX, codes), MATRIX[codes])


def test_rows_touch_no_pages(file):
    def resident():
        smaps = Path("/proc/self/smaps")
        lines = smaps.read_text().splitlines() if smaps.exists() else []
        at = next((i for i, line in enumerate(lines) if line.endswith(str(file))), None)
        return None if at is None else next(int(x.split()[1]) for x in lines[at:] if x.startswith("Rss:"))

    found = mapped_array(file)
    if resident() is None:
        pytest.skip("the system does not say which pages are in memory")
    before = resident()
    for _ in range(20):
        rows_of(found, RNG.integers(0, len(MATRIX), 1000))
    assert resident() == before
    found[RNG.integers(0, len(MATRIX), 1000)]
    assert resident() > before


@pytest.mark.parametrize("code", [-1, len(MATRIX)])
def test_there_is_no_row_outside(file, code):
    with pytest.raises(IndexError):
        rows_of(mapped_array(file), np.array([0, code]))
    with pytest.raises(IndexError):
        rows_of(MATRIX, np.array([0, code]))


def test_a_file_that_was_cut_short_is_noticed(file):
    found = mapped_array(file)
    os.truncate(file, 1000)
    with pytest.raises(OSError, match="cut short"):
        rows_of(found, np.array([len(MATRIX) - 1]))


def test_a_file_that_is_no_array_is_refused(tmp_path):
    for content in (b"", b"nothing", MATRIX.tobytes()):
        (tmp_path / "wrong.npy").write_bytes(content)
        with pytest.raises(ArtifactError, match=r"wrong\.npy is damaged"):
            mapped_array(tmp_path / "wrong.npy")


def test_a_map_is_forgotten_with_its_last_array(file):
    gc.collect()
    before = set(mapping._maps)
    part = mapped(file)[100:]
    (descriptor,) = set(mapping._maps) - before
    gc.collect()
    assert rows_of(part[: 16 * 4].reshape(16, 4), np.array([3])).shape == (1, 4)
    del part
    gc.collect()
    assert set(mapping._maps) == before
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)


def test_what_is_written_to_a_map_stays_in_the_process(file):
    found = mapped_array(file)
    found[0, 0] = 7
    assert np.array_equal(np.load(file), MATRIX)
