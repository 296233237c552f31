"""The Python client against a live server: events count once, whatever happens on the way."""

import http.client
import socket
import threading

import pytest
from live import listening

from nextsession import SessionLog, create
from nextsession.client import Client, ServerError
from nextsession.errors import ConfigError, StoreError
from nextsession.serving.arms import Arms
from nextsession.serving.engine import Engine
from nextsession.serving.memory import MemoryStore
from nextsession.serving.served import prepared
from nextsession.serving.server import Server

LOG = SessionLog.from_lists([[["tea", "milk", "sugar"], ["tea", "milk"]], [["a/b c", "sugar"]]])


class Shaky(MemoryStore):
    """Now and then cannot write, as a disk that is full for a moment."""

    failing = 0

    def submit(self, events, now):
        if self.failing:
            self.failing -= 1
            raise StoreError("full")
        return super().submit(events, now)


@pytest.fixture
def store():
    return Shaky()


@pytest.fixture
def url(store):
    arms = Arms({"markov": (prepared(create("markov").fit(LOG), gap=1_800_000), 1.0)}, now=0)
    with listening(Server(Engine(arms, store), lambda place: None, lambda: 2_000_000_000_000)) as url:
        yield url


def test_everything_a_shop_asks(url, store):
    shop = Client(url)
    answer = shop.recommend("ann", k=2, event=shop.event("ann", "tea"))
    assert (answer["items"][0]["item"], answer["recorded"]["status"]) == ("milk", "accepted")
    clicked = shop.event("ann", "milk", request=answer["request"], action="buy")
    assert [x["status"] for x in shop.record(clicked, shop.event("anon", 7))] == ["accepted", "accepted"]
    assert [x["status"] for x in shop.record(clicked)] == ["duplicate"]
    assert shop.record() == []
    assert shop.merge("anon", "ann") == 1
    assert [one["item"] for one in shop.similar("a/b c", k=1)] == ["sugar"]
    assert len(list(store.events())) == 3
    assert shop.erase("ann")["events"] == 3
    assert shop.recommend(k=3, exclude="nothing", deny=["tea"])["arm"] == "markov"
    shop.close()


def test_what_was_not_acknowledged_is_sent_again_and_counts_once(url, store, monkeypatch):
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    shop = Client(url, tries=4)
    store.failing = 3
    assert shop.record(shop.event("ann", "tea"))[0]["status"] == "accepted"
    store.failing = 9
    with pytest.raises(ServerError, match=r"503: .*send them again") as told:
        shop.record(shop.event("ann", "milk"))
    assert told.value.status == 503
    store.failing = 0
    answered = http.client.HTTPConnection.getresponse
    lost = iter([True, True, False])

    def loses(connection):
        response = answered(connection)
        if next(lost):
            raise ConnectionResetError("the answer was lost on the way")
        return response

    monkeypatch.setattr(http.client.HTTPConnection, "getresponse", loses)
    assert shop.record(shop.event("ann", "sugar"))[0]["status"] == "duplicate"
    assert [s.event.item for s in store.events()] == ["tea", "sugar"]
    shop.close()


def test_a_wrong_request_is_said_once(url):
    shop = Client(url)
    with pytest.raises(ServerError, match=r"422: .*at `\$.k`"):
        shop.recommend(k=0)
    with pytest.raises(ServerError, match="404: "):
        shop.similar("nothing like it")
    with pytest.raises(ConfigError, match="need an id"):
        shop.record({"visitor": "ann", "item": "tea"})
    with pytest.raises(ConfigError, match="begins with http:// or https://"):
        Client("shop.example")
    shop.close()


def test_a_server_that_is_not_there(monkeypatch):
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    with pytest.raises(ServerError, match=r"127\.0\.0\.1 cannot be reached: .* Is the server running") as told:
        Client(f"http://127.0.0.1:{port}", tries=2).recommend("ann")
    assert told.value.status == 0


def test_threads_may_share_it(url, store):
    shop = Client(url)

    def visit(number):
        for i in range(10):
            shop.record(shop.event(f"v{number}", f"i{i}"))
        shop.close()

    threads = [threading.Thread(target=visit, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(list(store.events())) == 40
