"""A real server of a small shop, and a real browser that looks at its page."""

import contextlib
import hashlib
import threading
import time

import pytest
import uvicorn

from browser.visitors import FLAGS, GAP, NAMES, PICTURES, Visitor, chromium_path, learnt
from nextsession import create
from nextsession.serving.app import application
from nextsession.serving.arms import Arms
from nextsession.serving.engine import Engine
from nextsession.serving.events import Rules
from nextsession.serving.learning import Learner
from nextsession.serving.memory import MemoryStore
from nextsession.serving.process import LOOPBACK
from nextsession.serving.served import prepared
from nextsession.serving.server import Server, ServerSettings
from nextsession.serving.sqlite import SQLiteStore
from nextsession.serving.straight import straight_protocol


@pytest.fixture(scope="session")
def site(tmp_path_factory):
    """Serve two models from this process; give the server and its address."""
    log, table, settings = learnt()
    models = {"vmisknn": create("vmisknn"), "gru4rec": create("gru4rec", **settings)}
    with contextlib.suppress(ModuleNotFoundError):
        import torch  # noqa: F401

        models["sasrec"] = create(
            "sasrec", dim=16, epochs=2 if PICTURES is None else 12, learning_rate=0.005, max_length=20, heads=2
        )
    arms = {
        name: (
            prepared(model.fit(log), gap=GAP, version=hashlib.sha256(name.encode()).hexdigest()[:12], table=table),
            float(name != "sasrec"),
        )
        for name, model in models.items()
    }
    store = SQLiteStore(tmp_path_factory.mktemp("state") / "events.sqlite", Rules(), alone=True)
    server = Server(
        Engine(Arms(arms, now=_now()), store),
        lambda place: None,
        _now,
        settings=ServerSettings(hosts=LOOPBACK),
    )
    with listening(server) as address:
        yield server, address


@pytest.fixture(scope="module")
def learning_site():
    """Serve two models of which one is told every second what happens; give the server and its address."""
    log, table, settings = learnt()
    models = {"recent": create("recent"), "gru4rec": create("gru4rec", **settings)}
    arms = Arms(
        {name: (prepared(m.fit(log), gap=GAP, version=f"{name}-1", table=table), 1.0) for name, m in models.items()},
        now=_now(),
    )
    store = MemoryStore()
    learner = Learner(arms, store, every=1000)
    server = Server(Engine(arms, store), lambda place: None, _now, learner=learner)
    with listening(server) as address:
        yield server, address


@contextlib.contextmanager
def listening(server):
    """Answer until the block ends; give the address."""
    app = application(server)
    http = straight_protocol(app.state.straight)
    config = uvicorn.Config(app, http=http, host="127.0.0.1", port=0, log_config=None)
    running = uvicorn.Server(config)
    thread = threading.Thread(target=running.run, daemon=True)
    thread.start()
    while not running.started:
        time.sleep(0.02)
    port = running.servers[0].sockets[0].getsockname()[1]
    try:
        yield f"http://127.0.0.1:{port}/"
    finally:
        running.should_exit = True
        thread.join(15)


def _now():
    return time.time_ns() // 1_000_000


@pytest.fixture(scope="session")
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    path = chromium_path()
    if path is None:
        pytest.skip(f"there is no browser: none of {', '.join(NAMES)}; name one in NEXTSESSION_CHROMIUM")
    with playwright.sync_playwright() as running:
        chromium = running.chromium.launch(executable_path=path, args=list(FLAGS))
        yield chromium
        chromium.close()


@pytest.fixture
def visit(browser, site):
    """Open windows; when the test is over each must have had nothing to complain of and asked nobody else."""
    here = []

    def one(name, view="shop", address=None, **window):
        here.append(Visitor(browser, address or site[1], **window).come(name, view))
        return here[-1]

    yield one
    for visitor in here:
        visitor.leave()
