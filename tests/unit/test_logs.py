"""The log of a server in an outage: what is wrong is said at once, and after that counted and not repeated."""

import io
import json
import logging
import time

import pytest

from nextsession.serving.logs import JsonLines, Seldom


@pytest.fixture
def written():
    """A log, and the rows that were written of it; counts are written after half a second."""
    stream = io.StringIO()
    handler = Seldom(stream, every=0.5)
    handler.setFormatter(JsonLines())
    log = logging.Logger("nextsession.test", logging.DEBUG)
    log.addHandler(handler)
    yield log, lambda: [json.loads(line) for line in stream.getvalue().splitlines()]
    handler.close()


def until(rows, number):
    for _ in range(400):
        if len(rows()) >= number:
            return rows()
        time.sleep(0.01)
    raise AssertionError(rows())


def fail(log, number, error=ValueError):
    for place in range(number):
        try:
            raise error(f"no. {place}")
        except error:
            log.exception("The model %s failed.", f"m{place}")


def test_a_thousand_failures_are_one_line_and_a_count(written):
    log, rows = written
    fail(log, 1000)
    (first,) = rows()
    assert first["says"] == "The model m0 failed."
    assert "ValueError: no. 0" in first["trace"]
    count = until(rows, 2)[1]
    assert (count["says"], count["more"], count["seconds"]) == ("The model m999 failed.", 999, 0.5)
    assert "trace" not in count
    fail(log, 5)  # it goes on: no new first line
    assert until(rows, 3)[2]["more"] == 5
    log.handlers[0].close()
    assert len(rows()) == 3
    assert sum(row.get("more", 1) for row in rows()) == 1005


def test_kinds_are_told_apart(written):
    log, rows = written
    fail(log, 3)
    fail(log, 3, KeyError)
    for route in ("/a", "/b", "/a"):
        log.warning("POST 503 in %.1f ms", 1.0, extra={"route": route, "request": "r"})
        log.warning("POST 500 in %.1f ms", 1.0, extra={"route": route, "request": "r"})
    assert [row["level"] for row in rows()] == ["error"] * 2 + ["warning"] * 4
    log.handlers[0].close()
    assert [row["more"] for row in rows()[6:]] == [2, 2, 1, 1]


def test_what_is_well_is_never_counted(written):
    log, rows = written
    for _ in range(50):
        log.info("GET 200 in %.1f ms", 1.0)
    assert len(rows()) == 50
    assert all("more" not in row for row in rows())


def test_after_a_quiet_time_it_is_said_again(written):
    log, rows = written
    fail(log, 1)
    time.sleep(0.8)
    fail(log, 1)
    assert ["trace" in row for row in rows()] == [True, True]
