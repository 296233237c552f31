"""Who may ask what, and how often: keys that are kept as hashes, scopes, buckets of tokens."""

import hashlib
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, TypeAlias

import msgspec

from nextsession.errors import ConfigError

Scope: TypeAlias = Literal["read", "write", "admin"]
_REMEMBERED = 10_000


class Key(msgspec.Struct, frozen=True):
    """Somebody who may ask."""

    name: str
    scopes: frozenset[Scope]
    rate: float | None = None
    """Requests a second; None: the server's."""


class _Entry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    sha256: str
    scopes: frozenset[Scope] = frozenset({"read", "write"})
    rate: float | None = None


ANYBODY = Key("anybody", frozenset({"read", "write", "admin"}))
"""Who asks where there are no keys."""


class Keys:
    """The keys of a server; secrets are known by their SHA-256 alone.

    ```toml
    [shop]
    sha256 = "…"                   # of the secret
    scopes = ["read", "write"]     # admin too, for models, visitors, stock and numbers
    rate = 500                     # requests a second
    ```
    """

    def __init__(self, keys: Mapping[str, Key] | None = None) -> None:
        """Take keys by the SHA-256 of their secrets; None: everything is open."""
        self._keys = None if keys is None else dict(keys)

    @property
    def open(self) -> bool:
        """May anybody ask anything?"""
        return self._keys is None

    @classmethod
    def read(cls, path: Path) -> "Keys":
        """Read a file of keys.

        Raises:
            ConfigError: It is missing, no TOML, or a key is not as it must be.
        """
        try:
            tables = msgspec.convert(tomllib.loads(path.read_text(encoding="utf-8")), dict[str, _Entry])
        except OSError as error:
            raise ConfigError(f"{path} cannot be read: {error.strerror}. Name a file of keys, or none.") from None
        except (tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
            raise ConfigError(f"{path} is no file of keys: {error}.") from None
        for name, entry in tables.items():
            if len(entry.sha256) != 64 or not set(entry.sha256.lower()) <= set("0123456789abcdef"):
                raise ConfigError(f"{path}: {name}: sha256 must be 64 hexadecimal digits, the hash of the secret.")
        if not tables:
            raise ConfigError(f"{path} holds no key, so nobody could ask anything; add one, or name no file.")
        return cls({e.sha256.lower(): Key(name, e.scopes, e.rate) for name, e in tables.items()})

    def who(self, secret: str | None) -> Key | None:
        """Return whose secret it is, or None."""
        if self._keys is None:
            return ANYBODY
        if secret is None:
            return None
        return self._keys.get(hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest())


class Buckets:
    """A bucket of tokens for each of many: one request takes one, and they flow back at a rate.

    A bucket holds what flows in within two seconds, so short bursts pass.
    """

    def __init__(self, rate: float | None) -> None:
        """Let each have `rate` requests a second; None: as many as they like."""
        self.rate = rate
        self._tokens: dict[str, tuple[float, float]] = {}

    def take(self, who: str, now: float, rate: float | None = None) -> float:
        """Take a token; return 0, or after how many seconds to come again.

        >>> buckets = Buckets(rate=1)
        >>> [buckets.take("a", now) for now in (0.0, 0.0, 0.0, 1.0)]
        [0.0, 0.0, 1.0, 0.0]
        """
        flow = rate or self.rate
        if flow is None:
            return 0.0
        most = max(1.0, 2 * flow)
        tokens, at = self._tokens.get(who, (most, now))
        tokens = min(most, tokens + max(0.0, now - at) * flow)
        if tokens < 1:
            self._tokens[who] = tokens, now
            return (1 - tokens) / flow
        if len(self._tokens) >= _REMEMBERED and who not in self._tokens:
            self._tokens.clear()
        self._tokens[who] = tokens - 1, now
        return 0.0
