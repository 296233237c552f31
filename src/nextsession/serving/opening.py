"""Which store a name means: a folder, or the address of a Redis."""

from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from nextsession.errors import ConfigError, ModelError
from nextsession.serving.events import Rules
from nextsession.serving.memory import MemoryStore
from nextsession.serving.reading import Reader
from nextsession.serving.sqlite import SQLiteStore
from nextsession.serving.store import Store

if TYPE_CHECKING:
    from nextsession.serving.redis import RedisStore

FILE = "events.sqlite"


def is_redis(state: str) -> bool:
    """Say whether a name is the address of a Redis.

    >>> is_redis("redis://shop:6379/0"), is_redis("runs/state")
    (True, False)
    """
    return state.startswith(("redis://", "rediss://", "unix://"))


def without_secret(url: str) -> str:
    """Return an address without user and password, for logs.

    >>> without_secret("redis://:secret@shop:6379/0")
    'redis://shop:6379/0'
    """
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="").geturl()


def open_store(state: str | None, rules: Rules, *, patience: float, alone: bool) -> Store:
    """Open the store that a server writes to.

    Args:
        state: A folder, which is made; the address of a Redis; None: in memory.
        rules: How much is remembered.
        patience: How long (s) a write may take.
        alone: No other process writes to the folder.

    Raises:
        StoreError: It cannot be opened.
        ModelError: The client of Redis is not installed.
    """
    if state is None:
        return MemoryStore(rules)
    if is_redis(state):
        return _redis(state, rules, patience)
    Path(state).mkdir(parents=True, exist_ok=True)
    return SQLiteStore(Path(state) / FILE, rules, patience=patience, alone=alone, apart=True)


def open_reader(state: str) -> "Reader | RedisStore":
    """Open what a server has written, to read it.

    Raises:
        ConfigError: There is nothing.
        StoreError: It cannot be opened.
        ModelError: The client of Redis is not installed.
    """
    if is_redis(state):
        return _redis(state, Rules(), 30.0)
    if not (Path(state) / FILE).is_file():
        raise ConfigError(f"{state} holds no events of a server; name the folder that `serve --state` named.")
    return Reader(Path(state) / FILE)


def _redis(url: str, rules: Rules, patience: float) -> "RedisStore":
    try:
        from nextsession.serving.redis import RedisStore
    except ModuleNotFoundError as error:
        raise ModelError(f"This store needs {error.name}: pip install 'nextsession[redis]'.") from None
    return RedisStore(url, rules, patience=patience)
