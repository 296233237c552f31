"""A log played against a server: the state it leaves is the state that live events would have left.

Events are sent in the order of their times, those of one visitor never two at once.  Each has an id
made of who, what and when, so a replay that was interrupted is begun again without harm.
"""

import contextlib
import http.client
import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from nextsession.data.log import SessionLog
from nextsession.errors import ConfigError, StoreError
from nextsession.progress import Progress, silent
from nextsession.serving.wire import MOST_EVENTS

_TRIES = 8
_LONGEST_WAIT = 5.0


@dataclass
class Replayed:
    """What became of the events of a replay."""

    accepted: int = 0
    duplicate: int = 0
    refused: int = 0
    reasons: tuple[str, ...] = ()
    """Some of the reasons why events were refused."""


def batches(log: SessionLog, size: int) -> Iterator[list[dict[str, Any]]]:
    """Give the events of a log in the order of time, as the messages of `POST /v1/events`."""
    rows = np.repeat(np.arange(len(log)), np.diff(log.event_offsets))
    place = np.arange(log.n_events) - log.event_offsets[rows]
    order = np.argsort(log.times, kind="stable")
    for start in range(0, len(order), size):
        some = order[start : start + size]
        users, ids = log.users[rows[some]].tolist(), log.vocabulary.decode(log.items[some]).tolist()
        times, labels = log.times[some].tolist(), log.labels[some].tolist()
        actions = [log.action_names[a] for a in log.actions[some].tolist()] if log.actions is not None else None
        yield [
            {
                "visitor": str(user),
                "item": str(item),
                "time": when,
                "label": label,
                "action": "click" if actions is None else actions[i],
                # the place tells two equal events of one instant apart
                "id": f"{user}:{at}"[-128:],
            }
            for i, (user, item, when, label, at) in enumerate(
                zip(users, ids, times, labels, place[some].tolist(), strict=True)
            )
        ]


def replay(
    log: SessionLog,
    url: str,
    *,
    speed: float | None = None,
    key: str | None = None,
    batch: int = 500,
    connections: int = 4,
    progress: Progress = silent,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> Replayed:
    """Send the events of a log to a server.

    Args:
        log: The events; times must be instants, not places.
        url: Where the server is.
        speed: How many times faster than they happened; None: as fast as the server takes them.
        key: The key, if it wants one.
        batch: Events in one request at most.
        connections: Requests at once.
        progress: Told how many events were taken.
        sleep: Waits; tests give another.
        clock: Counts seconds; tests give another.

    Raises:
        ConfigError: The address is none, or the log knows no times.
        StoreError: The server refuses, or cannot be reached for a long while.
    """
    if not log.timed:
        raise ConfigError("A log without times cannot be replayed: nobody knows when its events happened.")
    if not 1 <= batch <= MOST_EVENTS:
        raise ConfigError(f"A batch holds 1 to {MOST_EVENTS} events, got {batch}.")
    done, began = Replayed(), clock()
    first = int(log.times.min()) if log.n_events else 0
    lines = [Line(url, key, sleep) for _ in range(connections)]
    with contextlib.ExitStack() as stack:
        for line in lines:
            stack.callback(line.close)
        pool = stack.enter_context(ThreadPoolExecutor(connections))  # at rest before a line is closed
        for events in batches(log, batch * connections):
            if speed is not None:
                sleep(max(0.0, began + (events[0]["time"] - first) / 1000 / speed - clock()))
            parts: list[list[dict[str, Any]]] = [[] for _ in lines]
            for event in events:  # a visitor's events stay in one hand
                parts[hash(event["visitor"]) % connections].append(event)
            pieces = [[part[i : i + batch] for i in range(0, len(part), batch)] for part in parts]
            for outcomes in pool.map(_send_all, lines, pieces):
                _count(done, outcomes)
            progress("replay", done.accepted + done.duplicate + done.refused, log.n_events)
    return done


def _send_all(line: "Line", parts: Sequence[list[dict[str, Any]]]) -> list[dict[str, Any]]:
    return [outcome for part in parts for outcome in line.send(part)]


def _count(done: Replayed, outcomes: Sequence[dict[str, Any]]) -> None:
    for outcome in outcomes:
        setattr(done, outcome["status"], getattr(done, outcome["status"]) + 1)
        if outcome["status"] == "refused" and len(done.reasons) < 5:
            done.reasons = tuple(dict.fromkeys([*done.reasons, outcome["reason"]]))


class Line:
    """One connection to a server; what fails is sent again, with the same ids."""

    def __init__(self, url: str, key: str | None, sleep: Callable[[float], None] = time.sleep) -> None:
        """Note where the server is; connect when something is to be sent.

        Raises:
            ConfigError: The address is none.
        """
        place = urlsplit(url)
        if place.scheme not in ("http", "https") or not place.hostname:
            raise ConfigError(f"A server has an address such as http://127.0.0.1:8000, got {url!r}.")
        self._host, self._port, self._secure = place.hostname, place.port, place.scheme == "https"
        self._path = place.path.rstrip("/") + "/v1/events"
        self._headers = {"Content-Type": "application/json", **({"X-API-Key": key} if key else {})}
        self._url, self._sleep = url, sleep
        self._connection: http.client.HTTPConnection | None = None
        self._lock = threading.Lock()

    def send(self, events: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Send some events, and return what became of them.

        Raises:
            StoreError: The server refuses them, or cannot be reached.
        """
        body, said = json.dumps(events).encode(), ""
        for attempt in range(_TRIES):
            try:
                status, said, wait = self._post(body)
            except (OSError, http.client.HTTPException) as error:
                self.close()
                status, said, wait = 0, f"{type(error).__name__}: {error}", 0.0
            if status == 200:
                outcomes: list[dict[str, Any]] = json.loads(said)["outcomes"]
                return outcomes
            if status not in (0, 408, 429, 500, 502, 503, 504):
                break
            self._sleep(min(_LONGEST_WAIT, max(wait, 0.1 * 2**attempt)))
        self.close()
        raise StoreError(f"{self._url} does not take the events: {said[:300]}")

    def _post(self, body: bytes) -> tuple[int, str, float]:
        with self._lock:
            connection = self._connection
            if connection is None:
                kind = http.client.HTTPSConnection if self._secure else http.client.HTTPConnection
                connection = self._connection = kind(self._host, self._port, timeout=30)
            connection.request("POST", self._path, body, self._headers)
            response = connection.getresponse()
            text = response.read().decode("utf-8", "replace")
            return response.status, text, float(response.headers.get("Retry-After") or 0)

    def close(self) -> None:
        """Let the connection go."""
        if self._connection is not None:
            self._connection.close()
        self._connection = None
