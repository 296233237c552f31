"""Clients that no library would play: slow ones, and those whose lengths contradict one another."""

import socket
import time
from urllib.parse import urlsplit
from urllib.request import urlopen

import pytest
from live import listening

from nextsession import SessionLog, create
from nextsession.serving.arms import Arms
from nextsession.serving.engine import Engine
from nextsession.serving.memory import MemoryStore
from nextsession.serving.served import prepared
from nextsession.serving.server import Server, ServerSettings


@pytest.fixture(scope="module")
def url():
    model = prepared(create("popular").fit(SessionLog.from_lists([[["tea", "milk"]]])), gap=1_800_000)
    engine = Engine(Arms({"main": (model, 1.0)}, now=0), MemoryStore())
    settings = ServerSettings(slowest_body=0.5)
    with listening(Server(engine, lambda place: None, lambda: 2_000_000_000_000, settings=settings)) as url:
        yield url


def connected(url):
    parts = urlsplit(url)
    return socket.create_connection((parts.hostname, parts.port), timeout=10)


def told(sock):
    """Return all that comes until the server closes, or falls silent."""
    found = b""
    sock.settimeout(2)
    try:
        while part := sock.recv(65536):
            found += part
    except (TimeoutError, ConnectionResetError):
        pass
    return found


def test_a_body_that_drips_is_cut_off_and_holds_nobody_up(url):
    with connected(url) as slow:
        slow.sendall(b"POST /v1/recommendations HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n")
        for _ in range(12):
            slow.sendall(b" ")
            with urlopen(f"{url}/healthz") as other:
                assert other.status == 200
            time.sleep(0.06)
        assert told(slow).startswith(b"HTTP/1.1 408 ")


@pytest.mark.parametrize(
    "lines",
    [
        b"Content-Length: 2\r\nContent-Length: 40",
        b"Content-Length: 2\r\nTransfer-Encoding: chunked",
        b"Content-Length: -1",
        b"Content-Length: two",
        b"Content-Length : 2\r\nX: y",
    ],
)
def test_lengths_that_contradict_one_another_smuggle_nothing(url, lines):
    """Either the request is refused, or it is one request: never is its body taken for a second one."""
    with connected(url) as sock:
        sock.sendall(
            b"POST /v1/recommendations HTTP/1.1\r\nHost: x\r\n"
            + lines
            + b"\r\n\r\n{}GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
        )
        found = told(sock)
    assert found == b"" or found.startswith(b"HTTP/1.1 4"), found
    assert b'"status":"ok"' not in found


def test_headers_without_end_hold_nobody_up(url):
    with connected(url) as sock:
        sock.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\nX-Long: ")
        with urlopen(f"{url}/healthz") as other:
            assert other.status == 200
