"""Promises about what a model is called and how it is set."""

import inspect
import json

from pydantic import ValidationError

from nextsession.errors import ConfigError
from nextsession.testing.subjects import Subject, expect


def check_settings_round_trip(subject: Subject) -> None:
    """Settings written as JSON and read again are the same settings."""
    config = subject.new().config
    again = type(config).read(json.loads(config.model_dump_json()), "settings")
    expect(again == config, f"{config!r} came back as {again!r}.")


def check_settings_documented(subject: Subject) -> None:
    """Every setting has a default and a docstring, and so has the class of settings."""
    kind = subject.model_class.settings_class
    expect(inspect.getdoc(kind), f"{kind.__name__} has no docstring.")
    described = kind.described()
    for name, setting in kind.model_fields.items():
        expect(described[name], f"the setting {name!r} has no docstring.")
        expect(not setting.is_required(), f"the setting {name!r} has no default.")


def check_settings_refused(subject: Subject) -> None:
    """An unknown setting is refused with the names that exist, the nearest suggested."""
    known = list(subject.model_class.settings_class.model_fields)
    wrong = f"{known[0]}x" if known else "no_such_setting"
    try:
        subject.model_class(**{wrong: 1})
    except ConfigError as error:
        for part in (wrong, *known, *(["Did you mean"] if known else [])):
            expect(part in str(error), f"the message does not say {part!r}: {error}")
    else:
        expect(False, f"the setting {wrong!r} was taken.")


def check_settings_frozen(subject: Subject) -> None:
    """Settings cannot be changed once they are given."""
    config = subject.new().config
    for name in type(config).model_fields:
        try:
            setattr(config, name, getattr(config, name))
        except ValidationError:
            continue
        expect(False, f"the setting {name!r} can be changed.")


def check_documented(subject: Subject) -> None:
    """The class and its module have docstrings, and `name` is the name of the module."""
    kind = subject.model_class
    module = inspect.getmodule(kind)
    expect(vars(kind).get("__doc__"), f"the class {kind.__name__} has no docstring.")
    expect(module is not None and module.__doc__, f"the module {kind.__module__} has no docstring.")
    expect(
        kind.name == kind.__module__.rpartition(".")[2],
        f"the model is called {kind.name!r} and its module {kind.__module__!r}.",
    )
