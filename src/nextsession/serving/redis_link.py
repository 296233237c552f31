"""The connection of a `RedisStore`: what is asked of Redis, whether it answers, and how durable it is.

Who answers visitors must not wait for a Redis that is gone.  So one that has not answered is `blind`
(nothing is read from it) or, if the connection itself failed, `down` (nothing is written either), until
`try_again` finds it well.
"""

import contextlib
import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as NoConnection
from redis.exceptions import NoScriptError, ReadOnlyError, RedisError, ResponseError
from redis.exceptions import TimeoutError as NoAnswer
from redis.retry import Retry

from nextsession.errors import ConfigError, StoreError
from nextsession.serving.opening import without_secret

log = logging.getLogger(__name__)

FORMAT = 1
DURABLE = {
    "always": "what was acknowledged is on the disk",
    "everysec": "what was acknowledged within the last second or two is lost if Redis or its machine is killed",
    "no": "what was acknowledged within the last half minute or so is lost if the machine of Redis is killed",
    "snapshots": "what was acknowledged since the last snapshot is lost if Redis is killed; set appendonly yes",
    "unknown": "this Redis does not tell its settings; see that it has appendonly yes and appendfsync always",
}
"""What an acknowledgement means, by how Redis writes its file."""

Raw: TypeAlias = "list[bytes | int | float | str]"
Command: TypeAlias = tuple[str | None, Raw]
"""What the script is to do, with its arguments; or None, and a command of Redis."""

_QUICK = 0.25
"""Seconds that an answer waits for a record."""
_REWRITE = 60.0
"""Seconds between two rewritings of the file of Redis, which take what was erased out of it."""
_gone = (NoConnection, NoAnswer, ReadOnlyError, OSError)


class Link:
    """A connection to one database, with the script in it; several threads may read, one writes."""

    def __init__(self, url: str, *, patience: float, namespace: str) -> None:
        """Connect.

        Raises:
            StoreError: It cannot be reached, holds another format, or may throw keys away.
            ConfigError: That is no address of a Redis.
        """
        self.where = without_secret(url)
        self.error, self.down, self.blind = "", False, False
        self.durable = "unknown"
        self.rewrite = False
        """Was something erased that still is in the file of Redis?"""
        self._rewritten = -_REWRITE
        self._ns = f"{{{namespace}}}"  # the braces keep all keys together where Redis is a cluster
        self._script = (Path(__file__).parent / "redis.lua").read_text(encoding="utf-8")
        self._sha = ""
        try:
            self._quick, self._slow = (
                Redis.from_url(url, socket_timeout=s, socket_connect_timeout=s, retry=Retry(NoBackoff(), 0))
                for s in (min(_QUICK, patience), patience)
            )
        except ValueError as error:
            raise ConfigError(f"{self.where} is no address of a Redis: {error}.") from None
        try:
            self._meet()
        except (OSError, RedisError) as error:
            self.close()
            if isinstance(error, StoreError):
                raise
            raise StoreError(f"{self.where} cannot be opened as a store: {error}") from error

    def close(self) -> None:
        """Let go."""
        for redis in (self._quick, self._slow):
            with contextlib.suppress(RedisError, OSError):
                redis.close()

    def key(self, name: str) -> str:
        """Return the key of a part of the store."""
        return f"{self._ns}:{name}"

    # -- reading --------------------------------------------------------------------------------

    def run(self, what: str, told: Raw, *, quick: bool = False) -> Any:
        """Let the script read something; `quick` where an answer waits for it.

        Raises:
            StoreError: It does not answer.
        """
        redis = self._quick if quick else self._slow
        try:
            return self.read(lambda _: redis.evalsha(self._sha, 1, self._ns, what, *told))
        except NoScriptError:  # somebody has emptied its cache
            return self.read(lambda _: redis.eval(self._script, 1, self._ns, what, *told))

    def read(self, ask: Callable[["Redis"], Any]) -> Any:
        """Ask something.

        Raises:
            StoreError: It does not answer.
        """
        if self.blind:
            raise StoreError(f"{self.where} does not answer: {self.error}.")
        try:
            return ask(self._slow)
        except NoScriptError:
            raise
        except (OSError, RedisError) as error:
            if isinstance(error, _gone):
                self.lost(error, whole=not isinstance(error, NoAnswer))
            raise StoreError(f"{self.where} cannot be read: {error}.") from error

    # -- writing --------------------------------------------------------------------------------

    def replies(self, commands: Sequence[Command]) -> list[Any]:
        """Send all at once; return what each gave, or the error that kept it from being done.

        Each is one step of Redis: it is done whole or not at all.
        """
        try:
            found = self._sent(commands)
            again = [place for place, one in enumerate(found) if isinstance(one, NoScriptError)]
            if again:  # somebody has emptied its cache; what was not run may be sent again
                self._sha = str(self._slow.script_load(self._script))
                for place, one in zip(again, self._sent([commands[place] for place in again]), strict=True):
                    found[place] = one
        except (OSError, RedisError) as error:
            found = [error] * len(commands)
        wrong = next((one for one in found if isinstance(one, Exception)), None)
        if wrong is None:
            self._well()
        elif isinstance(wrong, _gone):
            self.lost(wrong, whole=True)
        else:
            self.error = str(wrong)
        return found

    def _sent(self, commands: Sequence[Command]) -> list[Any]:
        with self._slow.pipeline(transaction=False) as pipe:
            for what, told in commands:
                if what is None:
                    pipe.execute_command(*told)  # type: ignore[no-untyped-call]
                else:
                    pipe.evalsha(self._sha, 1, self._ns, what, *told)
            return pipe.execute(raise_on_error=False)

    def rewrite_file(self) -> None:
        """Let Redis write its file anew, without what was erased; one process does it for all, not too often."""
        now = time.monotonic()
        if not self.rewrite or self.down or now - self._rewritten < _REWRITE:
            return
        try:
            if self._slow.delete(self.key("rewrite")):
                try:
                    self._slow.bgrewriteaof()
                except ResponseError as error:
                    if "in progress" in str(error):  # it began before the erasure
                        self._slow.set(self.key("rewrite"), 1)
                        return
                    log.warning("The file of %s still holds what was erased: %s", self.where, error)
        except (OSError, RedisError) as error:
            self.lost(error, whole=True)
        else:
            self.rewrite, self._rewritten = False, now

    # -- whether it answers ---------------------------------------------------------------------

    def try_again(self) -> None:
        """See whether it answers now."""
        try:
            self._meet()
        except (OSError, RedisError) as error:
            self.lost(error, whole=self.down)
        else:
            self._well()

    def lost(self, error: Exception, *, whole: bool) -> None:
        """Ask nothing until it answers again; with `whole`, refuse to write too."""
        self.error = str(error).rstrip(".") or type(error).__name__
        if not self.blind:
            log.warning("The store %s does not answer: %s", self.where, self.error)
        self.blind, self.down = True, self.down or whole

    def _well(self) -> None:
        if self.blind:
            log.warning("The store %s answers again.", self.where)
        self.error, self.down, self.blind = "", False, False

    def _meet(self) -> None:
        """See what kind of Redis it is, and give it the script."""
        found = {name: self._setting(name) for name in ("appendonly", "appendfsync", "maxmemory", "maxmemory-policy")}
        policy = found["maxmemory-policy"] or ""
        if found["maxmemory"] not in (None, "0") and policy.startswith("allkeys"):
            raise StoreError(
                f"{self.where} throws keys away when its memory is full (maxmemory-policy {policy}), and events "
                "with them; set it to noeviction."
            )
        written = int(self._slow.get(self.key("format")) or 0)
        if written > FORMAT:
            raise StoreError(
                f"{self.where} has format {written}, this version reads up to {FORMAT}: upgrade nextsession."
            )
        if not written:
            self._slow.set(self.key("format"), FORMAT)
        self._sha = str(self._slow.script_load(self._script))
        self.rewrite = self.rewrite or bool(self._slow.exists(self.key("rewrite")))
        before, self.durable = self.durable, _durability(found["appendonly"], found["appendfsync"])
        if self.durable not in ("always", before):
            log.warning("The store %s: %s (%s).", self.where, DURABLE[self.durable], self.durable)

    def _setting(self, name: str) -> str | None:
        try:
            found = self._slow.config_get(name)
        except ResponseError:  # those who rent one out often forbid it
            return None
        return str(found[name]) if name in found else None


def _durability(appendonly: str | None, appendfsync: str | None) -> str:
    if appendonly is None:
        return "unknown"
    if appendonly != "yes":
        return "snapshots"
    return appendfsync if appendfsync in DURABLE else "unknown"
