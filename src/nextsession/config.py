"""Settings: typed, closed, frozen, documented by their docstrings; durations; the runtime.

A setting changes the *result*; what chooses among equally meant results is in `Runtime`.
"""

import ast
import inspect
import itertools
import re
import textwrap
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from nextsession.errors import ConfigError, suggestion

_UNITS = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 604_800_000}


def milliseconds(duration: object) -> int:
    """Read a length of time such as `"30m"`, `"1.5h"`, `"7d"`, or a whole number of milliseconds.

    >>> milliseconds("30m"), milliseconds("1.5h"), milliseconds(250)
    (1800000, 5400000, 250)
    """
    if isinstance(duration, bool):
        raise ValueError(f"must be a duration such as '30m', '2h' or '7d', got {duration!r}")
    if isinstance(duration, int):
        return duration
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(ms|s|m|h|d|w)\s*", duration) if isinstance(duration, str) else None
    if match is None:
        raise ValueError(f"must be a duration such as '30m', '2h' or '7d', got {duration!r}")
    return round(float(match[1]) * _UNITS[match[2]])


def duration_text(ms: int) -> str:
    """Write milliseconds the way people do: the largest unit that divides them.

    >>> duration_text(1800000), duration_text(604800000), duration_text(1500)
    ('30m', '1w', '1500ms')
    """
    for unit in ("w", "d", "h", "m", "s"):
        if ms and ms % _UNITS[unit] == 0:
            return f"{ms // _UNITS[unit]}{unit}"
    return f"{ms}ms"


_MILLISECONDS = BeforeValidator(milliseconds)

Duration = Annotated[int, _MILLISECONDS, Field(ge=0)]
"""Milliseconds; written as `"30m"`, `"2h"`, `"7d"` or a whole number of milliseconds."""


class Settings(BaseModel):
    """Base of all settings: unknown names are refused, values are frozen, docstrings are the help (`described`)."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)

    @classmethod
    def read(cls, values: Mapping[str, Any], where: str) -> Self:
        """Validate `values`; errors name `where`, the setting, what was got, and what exists.

        Raises:
            ConfigError: A name is unknown or a value out of range.
        """
        try:
            return cls.model_validate(dict(values))
        except ValidationError as error:
            raise ConfigError(" ".join(_sentence(cls, where, e) for e in error.errors()[:5])) from None

    @classmethod
    def described(cls) -> dict[str, str]:
        """Return what the docstring of each setting says, `""` where there is none; read from the source when asked."""
        found: dict[str, str] = {}
        for kind in reversed(cls.__mro__):
            if issubclass(kind, Settings):
                found |= _docstrings(kind)
        return {name: field.description or found.get(name, "") for name, field in cls.model_fields.items()}

    def changed(self) -> dict[str, Any]:
        """Return the settings that are not the defaults, durations as people write them."""
        fields = type(self).model_fields
        return {
            name: duration_text(value) if _is_duration(fields[name]) and isinstance(value, int) else value
            for name, value in self.model_dump(exclude_defaults=True).items()
        }


def _docstrings(kind: type) -> dict[str, str]:
    """Return the docstrings that stand below the attributes of a class, by name."""
    (made,) = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
    assert isinstance(made, ast.ClassDef)
    return {
        one.target.id: inspect.cleandoc(below.value.value)
        for one, below in itertools.pairwise(made.body)
        if isinstance(one, ast.AnnAssign) and isinstance(one.target, ast.Name)
        if isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant) and isinstance(below.value.value, str)
    }


def _is_duration(field: FieldInfo) -> bool:
    parts = (field.annotation, *get_args(field.annotation))  # `Duration`, or `Duration | None`
    return _MILLISECONDS in field.metadata or any(_MILLISECONDS in getattr(part, "__metadata__", ()) for part in parts)


def _sentence(settings: type[BaseModel], where: str, error: ErrorDetails) -> str:
    path = [str(part) for part in error["loc"]]
    name = ": ".join([where, ".".join(path)] if path else [where])
    message = error["msg"].removeprefix("Value error, ").removesuffix(".").replace("Input should be", "must be")
    if error["type"] == "tuple_type":
        message = "must be a list such as [1, 2] or ['a', 'b']"
    if error["type"] != "extra_forbidden":
        got = "" if ", got " in message or error["type"] == "missing" else f", got {error['input']!r}"
        return f"{name}: {message}{got}."
    known = sorted(_fields_at(settings, path[:-1]))
    hint = suggestion(path[-1], known)
    return f"{name}: there is no such setting (got {error['input']!r}).{hint} Settings: {', '.join(known) or 'none'}."


def _fields_at(settings: type[BaseModel], path: list[str]) -> list[str]:
    for part in path:
        field = settings.model_fields.get(part)
        inner = field.annotation if field else None
        if not (isinstance(inner, type) and issubclass(inner, BaseModel)):
            return []
        settings = inner
    return list(settings.model_fields)


class Runtime(Settings):
    """What changes a result but not its meaning."""

    seed: int = Field(default=0, ge=0)
    """Every random choice is drawn from this."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where networks are trained; `auto`: on a GPU if there is one."""
    checkpoints: str | None = None
    """A folder in which training is kept as it goes; what is there already is gone on with.  None: nothing is kept."""
    checkpoint_every: Duration = 60_000
    """How long at least from one checkpoint to the next within an epoch; after each epoch there is one."""
    logs: str | None = None
    """A folder for TensorBoard's event files (needs `tensorboard`).  None: none are written."""
