"""A client of the server for Python programs, of the standard library alone.

```python no-run
from nextsession.client import Client

shop = Client("http://127.0.0.1:8000", key="…")
answer = shop.recommend("ann", k=5, event=shop.event("ann", "tea"))
shop.record(shop.event("ann", answer["items"][0]["item"], request=answer["request"]))
```

An event gets its id and its time when it is made, so that it counts once however often it is sent:
`record` sends it again until the server has acknowledged it.
"""

import http.client
import json
import threading
import time
import uuid
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias
from urllib.parse import quote, urlencode, urlsplit

from nextsession.errors import ConfigError, NextSessionError

Event: TypeAlias = Mapping[str, Any]

_LATER = (429, 503)
"""Statuses after which the same request may be sent again."""


class ServerError(NextSessionError, RuntimeError):
    """The server refused, or could not be reached."""

    def __init__(self, status: int, detail: str) -> None:
        """Say what it said; status 0: there was no answer."""
        super().__init__(f"{status}: {detail}" if status else detail)
        self.status, self.detail = status, detail


class Client:
    """Asks a server; threads may share it, each has a connection of its own.

    Args:
        url: Where the server is, such as `https://recommend.shop.example`.
        key: The secret of a key, if the server wants one.
        timeout: Seconds to wait for an answer.
        tries: How often a request is sent before it fails.
        pause: Seconds before the second try; each later pause is twice as long, unless the server says how long.
    """

    def __init__(
        self, url: str, *, key: str | None = None, timeout: float = 10.0, tries: int = 5, pause: float = 0.2
    ) -> None:
        """Note where the server is; it is asked when something is wanted.

        Raises:
            ConfigError: That is no address of a server.
        """
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigError(f"The address of a server begins with http:// or https://, got {url!r}.")
        self._kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        self._host, self._port, self._base = parts.hostname, parts.port, parts.path.rstrip("/")
        self._headers = {"content-type": "application/json", **({} if key is None else {"x-api-key": key})}
        self._timeout, self._tries, self._pause = timeout, max(1, tries), pause
        self._local = threading.local()

    def event(self, visitor: str | int, item: str | int, **more: Any) -> dict[str, Any]:
        """Return an event with an id and the present as its time; `more`: action, label, request, consent, id, time."""
        now = time.time_ns() // 1_000_000
        return {"id": uuid.uuid4().hex, "time": now, "visitor": visitor, "item": item, **more}

    def record(self, *events: Event) -> list[dict[str, str]]:
        """Record events (at most 1000), each once; return what became of each when they are durable.

        Raises:
            ServerError: The server refused, or could not be reached however often it was tried.
            ConfigError: An event has no id, so that sending it again would count it twice.
        """
        if any(not event.get("id") for event in events):
            raise ConfigError("Events need an id to be sent again safely; make them with `Client.event`.")
        found: list[dict[str, str]] = self._ask("POST", "/v1/events", list(events))["outcomes"] if events else []
        return found

    def recommend(
        self, visitor: str | int | None = None, k: int = 20, *, event: Event | None = None, **more: Any
    ) -> dict[str, Any]:
        """Return an answer: `items`, `request`, `arm`, `degraded` and what else the reference says.

        Where `recorded` is None although an event came along, the event could not be made durable: `record` it.

        Args:
            visitor: Who asks; None: nobody known.
            k: How many items.
            event: What the visitor just did; recorded on the way.
            more: Other fields of a question: item, items, exclude, deny, allow, where, consent, explain, arm, shown.
        """
        told = {"visitor": visitor, "k": k, "event": event, **more}
        if event is not None and not event.get("id"):
            raise ConfigError("Events need an id to be sent again safely; make them with `Client.event`.")
        answer: dict[str, Any] = self._ask(
            "POST", "/v1/recommendations", {n: x for n, x in told.items() if x is not None}
        )
        return answer

    def similar(self, item: str | int, k: int = 20) -> list[dict[str, Any]]:
        """Return items like one."""
        listed: list[dict[str, Any]] = self._ask("GET", f"/v1/items/{_part(item)}/similar?{urlencode({'k': k})}")[
            "items"
        ]
        return listed

    def merge(self, visitor: str | int, into: str | int) -> int:
        """Make two ids one person, at login; return how many events changed hands."""
        return int(self._ask("POST", f"/v1/visitors/{_part(visitor)}/merge", {"into": into})["moved"])

    def erase(self, visitor: str | int) -> dict[str, Any]:
        """Erase a visitor; return the receipt.  Sent again after an answer was lost, it says that nothing was left."""
        receipt: dict[str, Any] = self._ask("DELETE", f"/v1/visitors/{_part(visitor)}")
        return receipt

    def close(self) -> None:
        """Let go of the connection of this thread."""
        connection: http.client.HTTPConnection | None = self._local.__dict__.pop("connection", None)
        if connection is not None:
            connection.close()

    # -- inside ---------------------------------------------------------------------------------

    def _ask(self, method: str, path: str, body: Any = None) -> Any:
        sent = None if body is None else json.dumps(body).encode()
        for left in reversed(range(self._tries)):
            pause = self._pause * 2 ** (self._tries - 1 - left)
            try:
                status, told, found = self._once(method, path, sent)
            except (OSError, http.client.HTTPException) as error:
                self.close()
                failed = ServerError(0, f"{self._host} cannot be reached: {error}. Is the server running?")
            else:
                if status < 300:
                    return found
                failed = ServerError(status, str(found.get("detail", found)))
                if status not in _LATER:
                    raise failed
                pause = float(told) if told is not None and told.isdigit() else pause
            if not left:
                raise failed
            time.sleep(pause)
        raise AssertionError("unreachable")

    def _once(self, method: str, path: str, body: bytes | None) -> tuple[int, str | None, Any]:
        connection = getattr(self._local, "connection", None)
        if connection is None:
            connection = self._local.connection = self._kind(self._host, self._port, timeout=self._timeout)
        connection.request(method, self._base + path, body, self._headers)
        response = connection.getresponse()
        content = response.read()
        try:
            found = json.loads(content)
        except ValueError:
            found = {"detail": content[:200].decode("utf-8", "replace")}
        return response.status, response.headers.get("retry-after"), found


def _part(name: str | int) -> str:
    return quote(str(name), safe="")


__all__: Sequence[str] = ("Client", "Event", "ServerError")
