"""What is registered, as facts: models, settings and data sets for lists, pages and JSON."""

import inspect
import types
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Annotated, Any, Literal, TypedDict, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from nextsession.config import Duration, Settings, duration_text


@dataclass(frozen=True)
class SettingFacts:
    """One setting, down to the leaf."""

    name: str
    """With the names of the tables that hold it: `columns.user`."""
    kind: str
    """What may be given."""
    default: str
    """As TOML writes it; empty: must be given."""
    about: str

    def cells(self) -> list[str]:
        """Return the cells of a table."""
        return [self.name, self.kind, self.default, self.about]

    def to_dict(self) -> dict[str, str]:
        """Return JSON."""
        return asdict(self)


class ModelFacts(TypedDict):
    """One model."""

    name: str
    about: str
    details: str
    reference: str
    made_for: str
    reads_clock: bool
    learns_on: bool
    reads_ignored: bool
    stochastic: bool
    exemptions: dict[str, str]


def model_facts(name: str) -> ModelFacts:
    """Return what is to be said of a model.

    Raises:
        UnknownNameError: There is none of that name.
    """
    from nextsession.recommender import Recommender
    from nextsession.registry import model_class

    model = model_class(name)
    first, _, rest = inspect.getdoc(model).partition("\n")  # type: ignore[union-attr]
    return ModelFacts(
        name=name,
        about=first,
        details=rest.strip(),
        reference=model.reference,
        made_for=model.predicts,
        reads_clock=model.reads_clock,
        learns_on=model._update is not Recommender._update,
        reads_ignored=model.reads_ignored,
        stochastic=model.stochastic,
        exemptions=dict(model.exemptions),
    )


def setting_facts(settings: type[BaseModel]) -> list[SettingFacts]:
    """Return every setting of a class, those of inner tables under their full names."""
    return list(_walk(settings, ""))


def _walk(settings: type[BaseModel], prefix: str) -> Iterator[SettingFacts]:
    described = settings.described() if issubclass(settings, Settings) else {}
    for name, field in settings.model_fields.items():
        inner = _table_in(field.annotation)
        if inner is not None:
            yield from _walk(inner, f"{prefix}{name}.")
        else:
            about = " ".join(described.get(name, "").split())
            yield SettingFacts(prefix + name, _kind(field), _default(field), about)


def _table_in(annotation: Any) -> type[BaseModel] | None:
    """Return the class of settings that an annotation holds, None for anything else."""
    for part in (annotation, *get_args(annotation)):
        if isinstance(part, type) and issubclass(part, Settings) and part is not Settings:
            return part if get_origin(annotation) is not tuple else None
    return None


def _special(metadata: Iterable[Any]) -> str | None:
    """Return what is to be given where a validator decides: a duration, an instant."""
    from nextsession.splits import Moment

    known = {get_args(Duration)[1].func: "duration", get_args(Moment)[1].func: "duration or instant"}
    return next((known[x.func] for x in metadata if getattr(x, "func", None) in known), None)


def _kind(field: FieldInfo) -> str:
    special = _special(field.metadata)
    if special is not None:
        return special
    limits = [
        f"{sign} {getattr(rule, name)}"
        for rule in field.metadata
        for name, sign in (("ge", "≥"), ("gt", ">"), ("le", "≤"), ("lt", "<"))
        if getattr(rule, name, None) is not None
    ]
    return " ".join([_type_text(field.annotation), *limits])


def _type_text(annotation: Any) -> str:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return " or ".join(repr(x) for x in arguments)
    if origin is Annotated:
        return _special(arguments[1:]) or _type_text(arguments[0])
    if origin in (Union, types.UnionType):
        return " or ".join("none" if x is type(None) else _type_text(x) for x in arguments)
    if origin is tuple:
        return f"list of {_type_text(arguments[0])}"
    names = {str: "text", int: "whole number", float: "number", bool: "true or false"}
    return names.get(annotation, getattr(annotation, "__name__", str(annotation)))


def _default(field: FieldInfo) -> str:
    value = field.get_default(call_default_factory=True, validated_data={})
    if value is PydanticUndefined:
        return ""
    if value is None:
        return "none"
    if _special(field.metadata) is not None and isinstance(value, int):
        return repr(duration_text(value))
    if isinstance(value, bool):
        return str(value).lower()
    return repr(list(value)) if isinstance(value, tuple) else repr(value)
