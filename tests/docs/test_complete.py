"""Nothing public goes undocumented, and a new public name is a decision."""

import importlib
import inspect
import pkgutil
import re
from functools import cache
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest
import typer

import nextsession
from nextsession import Settings, errors, registry, testing
from nextsession.cli import app
from nextsession.cli.pages import pages
from nextsession.data import sets
from nextsession.data.format import Columns, Filters, Labels, LogFormat, SessionRule
from nextsession.outcomes import EvaluationSettings
from nextsession.splits import SplitSettings
from nextsession.testing import checks

ROOT = Path(__file__).parents[2]
REFERENCE = ROOT / "docs/reference"


@cache
def documentation(folder: str = "docs") -> str:
    return "\n".join(page.read_text(encoding="utf-8") for page in sorted((ROOT / folder).rglob("*.md")))


def mentioned(name: str, text: str) -> bool:
    return re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])", text) is not None


def modules() -> list[str]:
    found = [module.name for module in pkgutil.walk_packages(nextsession.__path__, "nextsession.")]
    return ["nextsession", *(name for name in found if not name.endswith("__main__"))]


def test_the_public_names() -> None:
    assert nextsession.__all__ == [
        "Cases",
        "NextSessionError",
        "Recommendations",
        "Recommender",
        "Runtime",
        "SessionLog",
        "Settings",
        "Vocabulary",
        "create",
        "load",
    ]
    assert testing.__all__ == ["Outcome", "Subject", "check", "checks", "outcomes", "subjects"]


@pytest.mark.parametrize("module", modules())
def test_public_names_exist(module: str) -> None:
    found = importlib.import_module(module)
    names = getattr(found, "__all__", [])
    assert [name for name in names if not hasattr(found, name)] == []


@pytest.mark.parametrize("name", nextsession.__all__)
def test_public_names_are_in_the_reference(name: str) -> None:
    assert mentioned(name, documentation("docs/reference"))


@pytest.mark.parametrize("name", [name for name in vars(errors) if name.endswith("Error")])
def test_errors_are_in_the_reference(name: str) -> None:
    assert mentioned(name, (ROOT / "docs/reference/errors.md").read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", [module.name for module in pkgutil.iter_modules(nextsession.__path__)])
def test_modules_have_a_place_in_the_architecture(name: str) -> None:
    page = (ROOT / "docs/explanation/architecture.md").read_text(encoding="utf-8")
    assert name == "__main__" or f"`{name}`" in page or f"`{name}/" in page


def test_promises_are_listed_as_they_are_made() -> None:
    page = (ROOT / "docs/explanation/contract.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \| (.*) \|$", page, flags=re.M)
    assert rows == [(name, (check.__doc__ or "").partition("\n")[0]) for name, check in checks()]


def test_generated_pages_are_current() -> None:
    stale = [n for n, text in pages().items() if not (REFERENCE / n).exists() or (REFERENCE / n).read_text() != text]
    assert stale == [], "run `make docs`"


@pytest.mark.parametrize("name", registry.names())
def test_models_and_their_settings_have_a_page(name: str) -> None:
    text = (REFERENCE / "models" / f"{name}.md").read_text(encoding="utf-8")
    for setting in registry.model_class(name).settings_class.model_fields:
        assert mentioned(setting, text), setting


def commands(group: Any, path: str) -> list[str]:
    inner = getattr(group, "commands", None)
    return [path] if inner is None else [c for name, one in inner.items() for c in commands(one, f"{path} {name}")]


@pytest.mark.parametrize("command", commands(typer.main.get_command(app), "nextsession"))
def test_commands_are_in_the_reference(command: str) -> None:
    assert mentioned(command, (REFERENCE / "commands.md").read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", sets.names())
def test_data_sets_are_in_the_reference(name: str) -> None:
    assert mentioned(name, documentation("docs/reference"))


@pytest.mark.parametrize("group", [SplitSettings, EvaluationSettings, SessionRule, Filters, Columns, Labels, LogFormat])
def test_settings_are_in_the_reference(group: type[Settings]) -> None:
    text = documentation("docs/reference")
    assert [name for name in group.model_fields if not mentioned(name, text)] == []


@pytest.mark.parametrize("protocol", get_args(get_type_hints(SplitSettings)["protocol"]))
def test_protocols_are_explained(protocol: str) -> None:
    assert mentioned(protocol, documentation())


def public_things(module: str) -> list[tuple[str, Any]]:
    """Return the public functions, classes and methods that a module defines."""
    found = importlib.import_module(module)
    things: list[tuple[str, Any]] = [(module, found)]
    for name, thing in vars(found).items():
        thing = getattr(thing, "py_func", thing)  # compiled functions
        if name.startswith("_") or getattr(thing, "__module__", None) != module:
            continue
        if inspect.isfunction(thing):
            things.append((f"{module}.{name}", thing))
        elif inspect.isclass(thing):
            things.append((f"{module}.{name}", thing))
            methods = [(n, m) for n, m in vars(thing).items() if inspect.isfunction(m) and not n.startswith("_")]
            things += [(f"{module}.{name}.{n}", m) for n, m in methods]
    return things


@pytest.mark.parametrize("module", modules())
def test_public_things_are_documented_and_typed(module: str) -> None:
    for name, thing in public_things(module):
        assert inspect.getdoc(thing), f"{name} has no docstring"
        if inspect.isfunction(thing):
            parameters = inspect.signature(thing).parameters.values()
            untyped = [p.name for p in parameters if p.annotation is p.empty and p.name not in ("self", "cls")]
            assert untyped == [], f"{name} has parameters without a type: {untyped}"
            assert thing.__annotations__.get("return", "missing") != "missing", f"{name} returns an unknown type"
