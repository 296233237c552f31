"""An experiment: which data, how cut and split, which models, how measured; one TOML file.

```toml
[data]
set = "globo"                # or: prepared = "prepared/globo", or: path = "clicks/*.csv.gz"

[split]
protocol = "temporal"
test = "1d"

[model]                      # or: models = ["popular", { name = "markov", order = 2 }]
name = "markov"
order = 2

[evaluation]
k = [10, 20]
```

Tables left out have their defaults; tables `sessions` and `filters` left out are what a named set
declares.  An empty string means *none* (`user = ""`: the file has no such column), because TOML has
no word for it.  Every name and value is checked before anything is read.
"""

import sys
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import SerializeAsAny, model_validator

from nextsession import registry
from nextsession.config import Runtime, Settings
from nextsession.data.format import Filters, ItemFile, LogFormat, SessionRule
from nextsession.data.shop_world import ShopSettings
from nextsession.errors import ConfigError
from nextsession.outcomes import EvaluationSettings
from nextsession.splits import SplitSettings


class DataSettings(Settings):
    """Where the log comes from: exactly one of `set`, `prepared`, `path` and `shop`."""

    set: str | None = None
    """The name of a data set (`nextsession data sets` lists them)."""
    prepared: str | None = None
    """A directory that `nextsession data prepare` wrote."""
    path: str | tuple[str, ...] | None = None
    """Files of a raw log, or patterns such as `clicks/*.csv.gz`."""
    shop: ShopSettings | None = None
    """A simulated shop; `shop = {}` has the default size."""
    format: LogFormat = LogFormat()
    """How the files at `path` are written."""
    bad_rows: Literal["fail", "quarantine"] = "fail"
    """What becomes of rows (at `path`, or of a set) that cannot be used: an error, or a count and a list of them."""

    items: ItemFile | None = None
    """What is known of the items of the log at `path`: titles, categories, numbers."""

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        given = [name for name in ("set", "prepared", "path", "shop") if getattr(self, name) is not None]
        if len(given) != 1:
            got = " and ".join(given) or "none of them"
            raise ValueError(f"give exactly one of set, prepared, path and shop, got {got}")
        read = {"path": {"format", "bad_rows", "items"}, "set": {"bad_rows"}}.get(given[0], set())
        useless = sorted(self.model_fields_set & ({"format", "bad_rows", "items"} - read))
        if useless:
            raise ValueError(f"{' and '.join(useless)} is for raw files at a path; leave it out beside {given[0]}")
        return self


class ModelChoice(Settings):
    """One model of an experiment: in TOML its name, or a table of its name and its settings."""

    name: str
    """The name in the registry."""
    settings: SerializeAsAny[Settings]
    """The settings, of the model's own class."""

    @classmethod
    def of(cls, value: object, where: str = "") -> "ModelChoice":
        """Read a name, or a table of `name` and settings.

        Raises:
            ConfigError: A setting is unknown or out of range.
            UnknownNameError: There is no model of that name.
        """
        table = {"name": value} if isinstance(value, str) else value
        if not isinstance(table, Mapping) or not isinstance(table.get("name"), str):
            raise ConfigError(
                f"{where}model: give a name, or a table with a name such as {{ name = 'markov' }}, got {value!r}."
            )
        name = table["name"]
        settings = {key: x for key, x in table.items() if key != "name"}
        settings_class = registry.model_class(name).settings_class
        return cls(name=name, settings=settings_class.read(settings, where + name))

    def table(self) -> dict[str, Any]:
        """Return the table that `of` reads."""
        return {"name": self.name, **self.settings.model_dump(mode="json")}


class Experiment(Settings):
    """Everything that decides a result; equal experiments give equal results."""

    data: DataSettings
    """Which log."""
    sessions: SessionRule | None = None
    """Where sessions begin; none: as the named set declares, else the defaults."""
    filters: Filters | None = None
    """What is left out; none: as the named set declares, else nothing."""
    split: SplitSettings = SplitSettings()
    """What may be learnt from, and what is asked."""
    models: tuple[ModelChoice, ...] = ()
    """The models; `[model]` stands for a list of one."""
    evaluation: EvaluationSettings = EvaluationSettings()
    """What is measured."""
    runtime: Runtime = Runtime()
    """The seed."""

    @model_validator(mode="after")
    def _cut_once(self) -> Self:
        ready = "prepared log" if self.data.prepared is not None else "simulated shop"
        if self.data.set is None and self.data.path is None and (self.sessions or self.filters):
            raise ValueError(f"a {ready} is cut into sessions already; leave out sessions and filters")
        twice = [model for i, model in enumerate(self.models) if model in self.models[:i]]
        if twice:
            raise ValueError(f"the model {twice[0].name!r} is named twice with the same settings; leave one out")
        return self

    @classmethod
    def read(cls, values: Mapping[str, Any], where: str = "experiment") -> Self:
        """Validate the tables of an experiment, to the last leaf.

        Args:
            values: Tables as `tomllib` gives them.
            where: What messages begin with: the file.

        Raises:
            ConfigError: A setting is unknown or out of range; the message names what exists.
            UnknownNameError: There is no model of a name given.
        """
        tables = {name: _without_empty(value) for name, value in values.items()}
        if "model" in tables and "models" in tables:
            raise ConfigError(f"{where}: give either [model] or models, not both.")
        chosen = [tables.pop("model")] if "model" in tables else tables.get("models", [])
        if not isinstance(chosen, list | tuple):
            raise ConfigError(f"{where}: models: must be a list of names or tables, got {chosen!r}.")
        prefix = "" if where == "experiment" else f"{where}: "
        models = tuple(x if isinstance(x, ModelChoice) else ModelChoice.of(x, prefix) for x in chosen)
        return super().read({**tables, "models": models}, where)

    @classmethod
    def load(cls, path: Path | None, overrides: Iterable[str] = (), **tables: Any) -> Self:
        """Read a TOML file (or nothing), then what the caller gives, then the overrides, in this order.

        Args:
            path: The file; none: start empty.
            overrides: Such as `model.order=2`: a path of names, and a value in TOML or a bare string.
            tables: Whole tables, or `models`, to take the place of those in the file.

        Raises:
            ConfigError: The file is missing or no TOML, or anything in it is wrong.
            UnknownNameError: There is no model of a name given.
        """
        values = {} if path is None else read_toml(path)
        if "models" in tables:
            values.pop("model", None)
        values.update(tables)
        for text in overrides:
            override(values, text)
        return cls.read(values, "experiment" if path is None else str(path))

    @property
    def model(self) -> ModelChoice:
        """The only model.

        Raises:
            ConfigError: There is none, or there are several.
        """
        if len(self.models) != 1:
            names = ", ".join(model.name for model in self.models) or "none"
            raise ConfigError(f"There must be exactly one model, got {names}; name it with --model or [model].")
        return self.models[0]

    def tables(self) -> dict[str, Any]:
        """Return the resolved experiment, which `read` reads back: every setting, given or not."""
        found: dict[str, Any] = {"data": self._data_table()}
        for name in ("sessions", "filters"):
            table = getattr(self, name)
            if table is not None:
                found[name] = table.model_dump(mode="json")
        found["split"] = self.split.in_force()
        if self.models:
            found["models"] = [model.table() for model in self.models]
        found["evaluation"] = self.evaluation.model_dump(mode="json")
        found["runtime"] = self.runtime.model_dump(mode="json")
        return found

    def toml(self) -> str:
        """Return the resolved experiment as the text of a TOML file."""
        import tomli_w

        tables = {**self.tables(), "models": [_with_empty(model.table()) for model in self.models]}
        return tomli_w.dumps({name: _with_empty(table) for name, table in tables.items() if table})

    def _data_table(self) -> dict[str, Any]:
        own = {"path", "format", "bad_rows"} if self.data.path is not None else {"set", "prepared", "shop"}
        table = self.data.model_dump(mode="json", include=own)
        return {name: value for name, value in table.items() if value is not None}


def read_toml(path: Path) -> dict[str, Any]:
    """Read a TOML file; `-` is stdin.

    Raises:
        ConfigError: It is missing, or no TOML.
    """
    try:
        return tomllib.loads(sys.stdin.read() if str(path) == "-" else path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"There is no experiment file {str(path)!r}; recipes/start.toml is one to copy.") from None
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} is no readable TOML file: {error}.") from None


def override(tables: dict[str, Any], text: str) -> None:
    """Put `a.b=c` in its place among nested tables.

    Raises:
        ConfigError: It is not of that form, or there is something else in its place.
    """
    name, equals, value = text.partition("=")
    path = name.strip().split(".")
    if not equals or not all(path):
        raise ConfigError(f"--set takes name=value such as split.test=1d, got {text!r}.")
    place: Any = tables
    for i, part in enumerate(path[:-1]):
        if isinstance(place, list):
            place = _among_models(place, part, text)
            continue
        if part == "model" and isinstance(place.get(part), str):
            place[part] = {"name": place[part]}
        place = place.setdefault(part, {})
        if not isinstance(place, dict | list):
            raise ConfigError(f"--set {text}: {'.'.join(path[: i + 1])} is no table, it is {place!r}.")
    if isinstance(place, list):
        raise ConfigError(f"--set {text}: say which setting, as in models.{path[-1]}.order=2.")
    place[path[-1]] = toml_value(value)


def _among_models(models: list[Any], name: str, text: str) -> dict[str, Any]:
    """Find the model called `name`, or the one at that place if several are, as a table."""
    tables: list[dict[str, Any]] = [dict(m) if isinstance(m, Mapping) else {"name": m} for m in models]
    names = [str(table.get("name")) for table in tables]
    places = [i for i, known in enumerate(names) if name in (known, str(i))]
    if len(places) != 1:
        fault = "is no model" if not places else "are several models; say which by its place, from 0,"
        raise ConfigError(f"--set {text}: there {fault} {name!r} in this experiment. Models: {', '.join(names)}.")
    models[places[0]] = tables[places[0]]
    return tables[places[0]]


def toml_value(text: str) -> Any:
    """Read a value as TOML does, and anything else as a bare string.

    >>> toml_value("3"), toml_value("[10, 20]"), toml_value("1d"), toml_value('"7"')
    (3, [10, 20], '1d', '7')
    """
    try:
        found = tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError:
        return text.strip()
    return found["value"] if found.keys() == {"value"} else text.strip()


def _without_empty(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_empty(x) for key, x in value.items()}
    if isinstance(value, list):
        return [_without_empty(x) if isinstance(x, Mapping) else x for x in value]
    return None if value == "" else value


def _with_empty(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _with_empty(x) for key, x in value.items()}
    return "" if value is None else value
