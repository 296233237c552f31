"""Clients that no library would play: slow and endless ones, and those that say two things at once."""

import hashlib
import json
import re
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
from nextsession.serving.protocol import LARGEST_HEAD, LONGEST_TARGET, MOST_FIELDS, Guarded
from nextsession.serving.security import Key, Keys
from nextsession.serving.served import prepared
from nextsession.serving.server import Server, ServerSettings


@pytest.fixture(scope="module")
def url():
    model = prepared(create("popular").fit(SessionLog.from_lists([[["tea", "milk"]]])), gap=1_800_000)
    engine = Engine(Arms({"main": (model, 1.0)}, now=0), MemoryStore())
    settings = ServerSettings(slowest_body=0.5, hosts=("x",))
    with listening(Server(engine, lambda place: None, lambda: 2_000_000_000_000, settings=settings)) as url:
        yield url


@pytest.fixture(scope="module")
def locked():
    """The same with a key."""
    model = prepared(create("popular").fit(SessionLog.from_lists([[["tea", "milk"]]])), gap=1_800_000)
    keys = Keys({hashlib.sha256(b"secret").hexdigest(): Key("shop", frozenset({"read"}))})
    engine = Engine(Arms({"main": (model, 1.0)}, now=0), MemoryStore())
    with listening(Server(engine, lambda place: None, lambda: 2_000_000_000_000, keys=keys)) as url:
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


def answer(url, *parts):
    """Return status, headers and body of the answer to bytes; 0 if the server hung up without one."""
    with connected(url) as sock:
        try:
            for part in parts:
                sock.sendall(part)
        except (BrokenPipeError, ConnectionResetError):
            pass  # it has heard enough
        sock.settimeout(5)
        found = b""
        try:
            while b"\r\n\r\n" not in found and (part := sock.recv(65536)):
                found += part
        except ConnectionResetError:
            pass
    if not found:
        return 0, "", ""
    head, _, body = found.decode().partition("\r\n\r\n")
    return int(head.split(" ", 2)[1]), head.lower(), body


def problem(url, status, *parts):
    """The answer is the one form of error, and the connection ends; return what it says."""
    found, head, body = answer(url, *parts)
    assert found == status, (head, body)
    assert "content-type: application/problem+json" in head
    assert json.loads(body)["status"] == status
    return json.loads(body)["detail"]


QUESTION = b'{"visitor": "ann"}'
ASK = b"POST /v1/recommendations HTTP/1.1\r\nHost: x\r\n"


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


# -- heads: how large, how many, how slow --------------------------------------------------------


@pytest.mark.parametrize("in_one", [True, False])
def test_heads_have_limits(url, in_one):
    """Whether the end of the head arrives with its beginning or never."""
    end = b"\r\n\r\n" if in_one else b""

    def head(target=b"/healthz", fields=b""):
        return b"GET " + target + b" HTTP/1.1\r\nHost: x\r\n" + fields + end

    assert answer(url, b"GET /healthz?" + b"a" * (LONGEST_TARGET - 9) + b" HTTP/1.1\r\nHost: x\r\n\r\n")[0] == 200
    said = problem(url, 414, b"GET /" + b"a" * LONGEST_TARGET * 2 + (b" HTTP/1.1\r\nHost: x" + end if in_one else b""))
    assert said == f"Path and query may have {LONGEST_TARGET} bytes; these have more."
    said = problem(url, 431, head(fields=b"X-Long: " + b"a" * 8 * LARGEST_HEAD))
    assert said == f"The headers of a request may have {LARGEST_HEAD} bytes."
    many = b"\r\n".join([b"A: b"] * MOST_FIELDS)
    if in_one:
        assert problem(url, 431, head(fields=many)).startswith(f"A request may have {MOST_FIELDS} headers, got ")
    problem(url, 431, head(fields=many + b"".join(b"\r\nA: b" * 1000 for _ in range(100))))


def test_who_opens_a_connection_must_ask_in_time(url, monkeypatch):
    monkeypatch.setattr(Guarded, "slowest", 0.2)
    with connected(url) as silent, connected(url) as slow, connected(url) as again:
        again.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        assert again.recv(65536).startswith(b"HTTP/1.1 200 ")
        slow.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\nX-Long: ")
        assert told(slow).startswith(b"HTTP/1.1 408 ")
        assert told(silent) == b""
        again.sendall(b"\r\nGET /hea")  # one that stays open may rest between requests, not within one
        assert told(again).startswith(b"HTTP/1.1 408 ")


def test_what_trails_a_body_is_no_header_and_has_a_limit(locked):
    ask = ASK + b"Transfer-Encoding: chunked\r\n"
    body = b"\r\n12\r\n" + QUESTION + b"\r\n0\r\n"
    assert answer(locked, ask + b"X-API-Key: secret\r\n" + body + b"X-More: 1\r\n\r\n")[0] == 200
    assert answer(locked, ask + body + b"X-API-Key: secret\r\n\r\n")[0] == 401
    with connected(locked) as endless, pytest.raises((BrokenPipeError, ConnectionResetError)):  # noqa: PT012
        endless.sendall(ask + b"X-API-Key: secret\r\n" + body)
        for _ in range(1000):
            endless.sendall(b"X-More: 1\r\n" * 1000)


# -- two things at once --------------------------------------------------------------------------


@pytest.mark.parametrize("hosts", [b"", b"Host: x\r\nHost: y\r\n", b"Host: x\r\nhost: x\r\n"])
def test_a_request_names_one_host(url, hosts):
    said = problem(url, 400, b"GET /healthz HTTP/1.1\r\n" + hosts + b"\r\n")
    assert said.startswith("A request must have one header Host, got ")
    assert answer(url, b"GET /healthz HTTP/1.0\r\n\r\n")[0] == 200


def test_the_host_of_an_absolute_target_is_the_one_that_counts(url):
    for target, host, status in (("x", "evil", 200), ("x:80", "x", 200), ("evil", "x", 403)):
        found, _, body = answer(url, f"GET http://{target}/v1/models HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
        assert found == status, body


def test_of_keys_the_first_counts(locked):
    for first, second, status in (("secret", "wrong", 200), ("wrong", "secret", 401)):
        fields = f"X-API-Key: {first}\r\nX-API-Key: {second}\r\n\r\n".encode()
        assert answer(locked, b"GET /v1/items HTTP/1.1\r\nHost: x\r\n" + fields)[0] == status


@pytest.mark.parametrize(
    "wrong",
    [
        b"CONNECT x:80 HTTP/1.1\r\nHost: x\r\n\r\n",
        b"BREW /healthz HTTP/1.1\r\nHost: x\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET http://x:99999/healthz HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: x\r\nX: a\r\n b\r\n\r\n",
        b"GET /healthz HTTP/1.1\nHost: x\n\n",
        b"GET /healthz HTTP/1.1\r\nHost: x\r\nX: a\x00b\r\n\r\n",
        "GET /v1/items/é HTTP/1.1\r\nHost: x\r\n\r\n".encode(),
        ASK + b"Transfer-Encoding: gzip\r\n\r\n" + QUESTION,
        ASK + b"Content-Length: 18\r\nContent-Length: 18\r\n\r\n" + QUESTION,
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(100),
    ],
)
def test_what_is_no_request_is_refused_in_the_one_form(url, wrong):
    assert problem(url, 400, wrong) == "This is no request of HTTP/1.1."


def test_ids_in_paths_are_text_of_a_certain_length(url):
    for name, status in ((b"a" * 256, 404), (b"a" * 257, 422), (b"%ff", 400), (b"%ED%A0%80", 400), (b"%EF%BF%BD", 404)):
        found, _, body = answer(url, b"GET /v1/visitors/" + name + b" HTTP/1.1\r\nHost: x\r\n\r\n")
        assert found == status, body


# -- offers --------------------------------------------------------------------------------------


def test_who_waits_to_be_let_on_is_let_on_or_refused_before_the_body(url):
    with connected(url) as sock:
        sock.sendall(ASK + b"Content-Length: 18\r\nExpect: 100-continue\r\n\r\n")
        assert sock.recv(65536) == b"HTTP/1.1 100 Continue\r\n\r\n"
        sock.sendall(QUESTION)
        assert sock.recv(65536).startswith(b"HTTP/1.1 200 ")
    assert answer(url, ASK + b"Content-Length: 9999999\r\nExpect: 100-continue\r\n\r\n")[0] == 413


@pytest.mark.parametrize("protocol", [b"h2c", b"websocket"])
def test_who_offers_another_protocol_is_answered_in_this_one(url, protocol):
    """As clients of Java do by default, with a body and on a connection that stays open."""
    offer = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: " + protocol + b"\r\nHTTP2-Settings: AAE\r\n"
    ask = ASK + offer + b"Content-Length: 18\r\n\r\n"
    for parts in ((ask + QUESTION,), (ask, QUESTION[:9], QUESTION[9:])):
        found, _, body = answer(url, *parts)
        assert (found, json.loads(body)["arm"]) == (200, "main")
    with connected(url) as sock:
        sock.sendall(ask + QUESTION + b"GET /healthz HTTP/1.1\r\nHost: x\r\n" + offer + b"\r\n")
        assert told(sock).count(b"HTTP/1.1 200 ") == 2


# -- the short way -------------------------------------------------------------------------------


def posted(body, *headers, path=b"/v1/recommendations", version=b"1.1"):
    lines = [b"POST %s HTTP/%s" % (path, version), b"Host: x", b"Content-Length: %d" % len(body), *headers]
    return b"\r\n".join([*lines, b"", body])


def one_answer(sock):
    """Return the head and the body of the next answer."""
    found = b""
    while b"\r\n\r\n" not in found:
        found += sock.recv(65536)
    head, _, body = found.partition(b"\r\n\r\n")
    length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
    while len(body) < length:
        body += sock.recv(65536)
    assert len(body) == length, "more came than one answer"
    return head, body


LONG_WAY = (b"X-Forwarded-For: 10.0.0.1", b"Expect: 100-continue", b"Origin: http://elsewhere")
BODIES = (b'{"k": 2, "shown": false}', b"{}", b"", b"no json", b'{"k": -1}', b'{"arm": "none"}', b" " * 1_000_001)


@pytest.mark.parametrize("body", BODIES, ids=lambda body: body[:20].decode() or "nothing")
def test_the_short_way_answers_what_the_long_way_answers(url, body):
    def told_apart(answer):
        head, _, rest = answer.partition(b"\r\n\r\n")
        return head.split(b"\r\n"), re.sub(rb'"(request|history|model)":("[^"]*"|[0-9.e-]+)', b"", rest)

    answers = []
    for headers in ((), (b"X-Forwarded-For: 127.0.0.1",)):
        with connected(url) as sock:
            sock.sendall(posted(body, b"Connection: close", *headers))
            answers.append(told_apart(told(sock)))
    (short, content), (long, other) = answers
    assert content == other
    assert [line for line in short if b"content-length" not in line] == [
        line for line in long if b"content-length" not in line
    ]
    assert short[0].startswith(b"HTTP/1.1 ")


def test_a_request_in_pieces_is_answered_as_a_whole_one(url):
    whole = posted(b'{"k": 2}')
    with connected(url) as sock:
        for at in (10, len(whole) - 8, len(whole) - 3, len(whole) - 1):
            sock.sendall(whole[:at])
            time.sleep(0.02)
            sock.sendall(whole[at:])
            head, body = one_answer(sock)
            assert head.startswith(b"HTTP/1.1 200 ")
            assert len(json.loads(body)["items"]) == 2


def test_requests_sent_without_waiting_are_answered_in_their_order(url):
    """Short way and long way in turn, on one connection."""
    with connected(url) as sock:
        for _ in range(5):
            sizes = [1, 2, 1, 2, 2, 1]
            parts = [posted(b'{"k": %d}' % k, *LONG_WAY[: place % 2]) for place, k in enumerate(sizes)]
            sock.sendall(b"".join(parts))
            found, counts = b"", []
            while len(counts) < len(sizes):
                found += sock.recv(65536)
                counts = [len(json.loads(b"{" + one)["items"]) for one in complete(found)]
            assert counts == sizes


def complete(found):
    """Return the bodies of the answers that are there, without their first brace."""
    return [part.partition(b"\r\n\r\n{")[2] for part in re.split(rb"(?=HTTP/1.1 )", found) if part.endswith(b"}")]


def test_a_connection_is_kept_or_closed_as_was_asked(url):
    with connected(url) as sock:
        for _ in range(3):
            sock.sendall(posted(b"{}"))
            assert b"connection: close" not in one_answer(sock)[0]
        sock.sendall(posted(b"{}", b"Connection: close"))
        assert b"connection: close" in told(sock)
    with connected(url) as sock:
        sock.sendall(posted(b"{}", version=b"1.0"))
        assert b"connection: close" in told(sock)
    with connected(url) as sock:
        sock.sendall(posted(b"{}", b"Expect: 100-continue"))
        assert told(sock).startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n")


def test_who_leaves_before_the_answer_disturbs_nobody(url):
    for _ in range(20):
        with connected(url) as sock:
            sock.sendall(posted(b"{}"))
    with connected(url) as sock:
        sock.sendall(posted(b"{}"))
        assert one_answer(sock)[0].startswith(b"HTTP/1.1 200 ")
