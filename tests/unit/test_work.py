"""Work shared among threads: what each part is given, and what becomes of it in a forked process."""

import os
import select
import signal

import numpy as np
import pytest
import torch

from nextsession.nn.ops import work


@pytest.fixture
def two_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    monkeypatch.setattr(work, "SMALL", 1)


def test_parts_cover_all_rows_in_order(two_threads: None) -> None:
    offsets = np.cumsum([0, 5, 0, 7, 1, 3, 9])
    parts = work.in_parts(offsets, lambda rows: rows)
    assert parts[0][0] == 0
    assert parts[-1][1] == len(offsets) - 1
    assert [end for _, end in parts[:-1]] == [first for first, _ in parts[1:]]


def test_no_rows_are_no_work(two_threads: None) -> None:
    assert work.in_parts(np.zeros(1, np.int64), lambda rows: rows) == [(0, 0)]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_process_works_after_its_parent_has(two_threads: None) -> None:
    offsets = np.cumsum([0, 5, 6, 7])
    work.in_parts(offsets, lambda rows: rows)  # now there are threads, which a fork does not take along
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(writer, b"done" if len(work.in_parts(offsets, lambda rows: rows)) == 2 else b"odd!")
        finally:
            os._exit(0)
    try:
        ready, _, _ = select.select([reader], [], [], 30)
        assert ready
        assert os.read(reader, 4) == b"done"
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(reader)
        os.close(writer)
