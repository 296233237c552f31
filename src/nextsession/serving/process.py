"""Processes: one server, or several that share a socket and a store; the only place that reads the clock."""

import contextlib
import gc
import logging
import multiprocessing
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import msgspec

from nextsession.artifacts import read_manifest
from nextsession.config import milliseconds
from nextsession.cost import give_back_memory
from nextsession.data.items import ItemTable
from nextsession.data.vocabulary import Vocabulary
from nextsession.errors import ConfigError, NextSessionError
from nextsession.index.kept import Kind
from nextsession.scores import tie_keys
from nextsession.serving.app import application
from nextsession.serving.arms import Arms, Role
from nextsession.serving.engine import Engine
from nextsession.serving.events import Rules
from nextsession.serving.learning import Learner
from nextsession.serving.opening import is_redis, open_store
from nextsession.serving.past import Past
from nextsession.serving.security import Keys
from nextsession.serving.served import Served, serve
from nextsession.serving.server import Server, ServerSettings
from nextsession.serving.straight import straight_protocol

log = logging.getLogger(__name__)

LOOPBACK = ("127.0.0.1", "localhost", "::1")
GAP = 1_800_000
_AGAIN = 1.0
"""Seconds until a worker that died is started again."""
_ENDING = 20.0
"""Seconds that workers have to end."""
_BACKLOG = 2048
"""Connections that wait to be taken."""


class ServeSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that a worker process must know, as JSON can say it."""

    artifacts: dict[str, str]
    """Places of artifacts by arm."""
    weights: dict[str, float]
    roles: dict[str, Role] = {}
    """What arms are for that do not answer; their weights are 0."""
    state: str | None
    """The folder of the store, or the address of a Redis; None: in memory."""
    numbers: str | None = None
    """A folder in which workers tell one another their numbers."""
    host: str = "127.0.0.1"
    port: int = 8000
    workers: int = 1
    gap: int | None = None
    """The silence (ms) that ends a session; None: what the model learnt from."""
    ttl: int = Rules().ttl
    keep: int = Rules().keep
    items: str | None = None
    """Where titles are: a prepared log, or a table with the columns `id` and `title`."""
    history: str | None = None
    """A prepared log of what visitors did before."""
    history_after: int | None = None
    """The place in the log of the server up to which it holds everything."""
    learn: int | None = None
    """How often (ms) models are told what happened; 0: never; None: each minute those whose answers depend on the
    instant."""
    models: tuple[str, ...] = ()
    """Folders that artifacts may be loaded from later; by default those of the first."""
    keys: str | None = None
    index: Kind | None = None
    """The index that is built in the background for models that come without; None: every item is looked at."""
    explore: float = 0.0
    """Probability with which a place of a list is given to an item of which little is known."""
    server: ServerSettings = ServerSettings()


def check(settings: ServeSettings) -> None:
    """See that settings make sense before anything is loaded.

    Raises:
        ConfigError: They do not.
    """
    if settings.keys is None and settings.host not in LOOPBACK:
        raise ConfigError(
            f"Without keys anybody who reaches {settings.host} could read and erase visitors: name a file of keys with "
            "--keys, or serve this machine alone with --host 127.0.0.1."
        )
    if settings.state is None and settings.workers > 1:
        raise ConfigError("Several workers need a store that they share: name a folder, or a Redis, with --state.")
    if settings.keys is not None:
        Keys.read(Path(settings.keys))


def build(settings: ServeSettings, *, clock: Callable[[], int]) -> Server:
    """Open the store, load the models, and return a server that is ready but not listening.

    Raises:
        NextSessionError: A model or the store cannot be used, or a setting is wrong.
    """
    check(settings)
    rules = Rules(ttl=settings.ttl, keep=settings.keep)
    store = open_store(settings.state, rules, patience=settings.server.patience, alone=settings.workers == 1)
    try:
        tables = Titles(settings.items)

        def load(place: str) -> Served:
            gap = gap_of(place) if settings.gap is None else settings.gap
            return serve(place, gap=gap, table=tables, learnt_to=_learnt_to(place, settings))

        now = clock()
        loaded = {n: (load(p), settings.weights.get(n, 1.0)) for n, p in settings.artifacts.items()}
        arms = Arms(loaded, now=now, roles=settings.roles)
        folders = settings.models or tuple(str(Path(place).resolve().parent) for place in settings.artifacts.values())
        return Server(
            Engine(arms, store, past=_past(settings), explore=settings.explore),
            load,
            clock,
            index=settings.index,
            models=tuple(Path(folder) for folder in folders),
            keys=Keys() if settings.keys is None else Keys.read(Path(settings.keys)),
            settings=settings.server,
            numbers=None if settings.numbers is None else Path(settings.numbers),
            learner=Learner(arms, store, every=settings.learn, table=tables),
        )
    except BaseException:
        store.close()
        raise


def _learnt_to(place: str, settings: ServeSettings) -> int | None:
    """Return the place in the log up to which a model has learnt: that of `history`, if it learnt all of it."""
    if settings.history is None or settings.history_after is None:
        return None
    notes = read_manifest(Path(place)).get("notes", {})
    source = notes.get("experiment", {}).get("data", {}).get("prepared")
    if notes.get("learnt_from") != "everything" or source is None:
        return None
    return settings.history_after if Path(source).resolve() == Path(settings.history).resolve() else None


def _past(settings: ServeSettings) -> Past | None:
    if settings.history is None:
        return None
    from nextsession.data.prepared import Prepared

    return Past(Prepared.load(settings.history).log, after=settings.history_after)


class Titles:
    """What is known of items besides what lies with a model: read once, put in the order of each model."""

    def __init__(self, place: str | None) -> None:
        """Note where it is."""
        self._place = place
        self._log = None
        if place is not None and (Path(place) / "manifest.json").is_file():
            from nextsession.data.prepared import Prepared  # with Polars, which a server can do without

            self._log = Prepared.load(place).log
            if self._log.item_table is None:
                raise ConfigError(f"{place} knows nothing of its items; prepare it with titles, or name a table.")

    def __call__(self, vocabulary: Vocabulary) -> ItemTable | None:
        """Return what is known of the items of a vocabulary, in its order; None if nobody said where it is."""
        if self._place is None:
            return None
        if self._log is not None:
            assert self._log.item_table is not None
            return self._log.item_table.take(self._log.vocabulary.encode(vocabulary.ids))
        from nextsession.data.format import ItemFile
        from nextsession.data.item_file import read_items

        return read_items(ItemFile(path=self._place, id="id", title="title"), vocabulary)


def gap_of(place: str) -> int:
    """Return the gap that the sessions were cut by which a model learnt from; half an hour if it does not say."""
    sessions = read_manifest(Path(place)).get("notes", {}).get("experiment", {}).get("sessions", {})
    if isinstance(sessions, dict) and sessions.get("by", "gap") == "gap" and "gap" in sessions:
        return milliseconds(sessions["gap"])
    return GAP


def run(settings: ServeSettings, say: Callable[[str], None] = lambda text: None) -> None:
    """Serve until told to stop.

    Args:
        settings: What to serve, and how.
        say: Told the address, once somebody answers there.

    Raises:
        NextSessionError: It cannot begin.
        OSError: The address is taken.
    """
    check(settings)
    bound = _bound(settings)
    host = f"[{settings.host}]" if ":" in settings.host else settings.host

    def begun() -> None:
        say(f"Serving on http://{host}:{bound.getsockname()[1]} (Ctrl-C ends it)")

    if settings.workers == 1:
        _serve(settings, bound, begun)
        return
    with _shared(settings) as numbers:
        _supervise(msgspec.structs.replace(settings, numbers=numbers), bound, begun)


@contextlib.contextmanager
def _shared(settings: ServeSettings) -> Iterator[str]:
    """Give a folder that the workers of this machine share."""
    if settings.state is not None and not is_redis(settings.state):
        folder = Path(settings.state) / "workers"
        folder.mkdir(parents=True, exist_ok=True)
        yield str(folder)
    else:
        with tempfile.TemporaryDirectory(prefix="nextsession-") as scratch:
            yield scratch


def _serve(settings: ServeSettings, bound: socket.socket, begun: Callable[[], None]) -> None:
    import uvicorn

    sys.setswitchinterval(0.0005)  # a thread that writes to a Redis must not wait 5 ms for the one that answers
    hosts = (*LOOPBACK, "[::1]") if settings.host in LOOPBACK else None
    server = build(msgspec.structs.replace(settings, server=_with_hosts(settings.server, hosts)), clock=_clock)
    gc.collect()
    gc.freeze()  # what has been loaded stays: no request need wait until it has been looked through
    give_back_memory()
    app = application(server)
    config = uvicorn.Config(
        app,
        http=straight_protocol(app.state.straight),
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=False,
        backlog=_BACKLOG,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=10,
        lifespan="on",
    )
    try:
        bound.listen(_BACKLOG)  # not before: a proxy asks another as long as it is refused here
    except OSError as error:
        server.close()
        raise _taken(settings, error) from None
    serving = uvicorn.Server(config)

    def end(number: int, frame: Any) -> None:
        serving.should_exit = True

    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, end)  # while uvicorn runs it hears it, and raises it again at its end
    begun()
    serving.run(sockets=[bound])


def _with_hosts(settings: ServerSettings, hosts: tuple[str, ...] | None) -> ServerSettings:
    return settings if settings.hosts is not None else ServerSettings(**{**vars(settings), "hosts": hosts})


def _bound(settings: ServeSettings) -> socket.socket:
    """Take the address; nobody is let in yet."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM)
    if settings.port:  # one that is chosen must be nobody's
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((settings.host, settings.port))
    except OSError as error:
        bound.close()
        raise _taken(settings, error) from None
    bound.set_inheritable(True)
    return bound


def _taken(settings: ServeSettings, error: OSError) -> ConfigError:
    return ConfigError(
        f"{settings.host}:{settings.port} cannot be listened on: {error.strerror}. End what does, or choose another "
        "--port."
    )


def _worker(text: bytes, bound: socket.socket, told: Connection | None) -> None:
    """Serve, in a process of its own; say that it could begin, or what kept it from that."""
    from nextsession.serving.logs import to_stderr

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the first process hears it and says what to do
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    to_stderr()
    heard = False

    def begun() -> None:
        nonlocal heard
        heard = True
        if told is not None:
            told.send(None)

    try:
        _serve(msgspec.json.decode(text, type=ServeSettings), bound, begun)
    except NextSessionError as error:
        if told is None or heard:
            raise
        told.send(error)


def _supervise(settings: ServeSettings, bound: socket.socket, begun: Callable[[], None]) -> None:
    """Keep as many workers alive as were asked for, until told to stop; the first shows that they can begin.

    Where it is safe they are copies of this process, which has done nothing but import: what it
    imported is in memory once.

    Raises:
        NextSessionError: The first cannot begin.
    """
    context: Any = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
    text, stop = msgspec.json.encode(settings), threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    tie_keys(1)  # what compiled functions need besides themselves is half of what a worker would have for itself
    gc.collect()
    gc.freeze()  # looking through it would make it each worker's own

    def start(told: Connection | None = None) -> BaseProcess:
        process: BaseProcess = context.Process(target=_worker, args=(text, bound, told), daemon=False)
        process.start()
        return process

    hearing, telling = context.Pipe(duplex=False)
    workers = [start(telling)]
    telling.close()
    wrong = _heard(hearing, workers[0], stop)
    if wrong is not None:
        raise wrong
    if not stop.is_set():
        begun()
    workers += [start() for _ in range(1, settings.workers) if not stop.is_set()]
    while not stop.wait(_AGAIN):
        for place, worker in enumerate(workers):
            if not worker.is_alive():
                log.error("A worker ended with exit code %s; another is started.", worker.exitcode)
                workers[place] = start()
    until = time.monotonic() + _ENDING
    while (alive := [worker for worker in workers if worker.is_alive()]) and time.monotonic() < until:
        for worker in alive:
            worker.terminate()  # more than once: one that was started just now may not have heard it
        alive[0].join(0.5)
    for worker in alive:
        worker.kill()


def _heard(hearing: Connection, worker: BaseProcess, stop: threading.Event) -> NextSessionError | None:
    """Wait until a worker says that it has begun, or that this is to stop; return what kept it from beginning."""
    while not hearing.poll(0.1):
        if stop.is_set():
            return None
    try:
        wrong: NextSessionError | None = hearing.recv()
    except EOFError:
        worker.join()
        wrong = ConfigError(f"A worker ended with exit code {worker.exitcode} before it could begin; its log says why.")
    return wrong


def _clock() -> int:
    return time.time_ns() // 1_000_000


def described(server: Server) -> dict[str, Any]:
    """Return what a server would do, for those who ask before it begins."""
    return {
        "arms": [
            {
                "arm": arm.name,
                "model": arm.served.model.name,
                "version": arm.served.version,
                "items": len(arm.served.catalogue),
                "weight": arm.weight,
                "role": arm.role,
                "golden": arm.served.asked,
                "gap": arm.served.gap,
                "titles": arm.served.catalogue.table.titles is not None,
            }
            for arm in server.engine.arms
        ],
        "chain": server.engine.chain.order,
        "explore": server.engine.exploring.share,
        "store": server.engine.store.health(),
        "keys": not server.keys.open,
    }
