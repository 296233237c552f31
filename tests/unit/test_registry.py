"""Models are found by name: a file, or another package's entry point."""

import subprocess
import sys
from importlib.metadata import EntryPoint
from types import ModuleType

import pytest

from nextsession import create, registry
from nextsession.errors import ConfigError, ModelError, UnknownNameError
from nextsession.models.popular import Popular


def test_names_are_the_files():
    names = registry.names()
    assert "popular" in names
    assert names == sorted(names)
    assert not any(name.startswith("_") for name in names)


def test_naming_models_imports_none():
    code = (
        "import sys; from nextsession import registry; registry.names()\n"
        "print([m for m in sys.modules if m.startswith(('nextsession.models.', 'matplotlib', 'jinja2', 'typer'))])"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"


def test_a_model_is_made_with_its_settings():
    assert registry.model_class("popular") is Popular
    assert create("popular", count="sessions").config.count == "sessions"


def test_an_unknown_name_is_refused_with_the_nearest():
    with pytest.raises(UnknownNameError, match=r"There is no model 'popularr'\. Did you mean 'popular'\? Models: "):
        create("popularr")


def test_an_unknown_setting_is_refused_with_the_nearest():
    with pytest.raises(ConfigError, match=r"popular: countt: there is no such setting .* Did you mean 'count'\?"):
        create("popular", countt="events")


def test_other_packages_register_models(monkeypatch):
    point = EntryPoint("favourite", "nextsession.models.popular:Popular", "nextsession.models")
    monkeypatch.setattr(registry, "entry_points", lambda group: [point] if group == "nextsession.models" else [])
    assert "favourite" in registry.names()
    assert registry.model_class("favourite") is Popular


def test_a_model_of_another_package_that_cannot_be_imported_is_named(monkeypatch):
    point = EntryPoint("favourite", "nextsession.nowhere:Popular", "nextsession.models")
    monkeypatch.setattr(registry, "entry_points", lambda group: [point])
    message = r"The model 'favourite' of another package cannot be imported from nextsession.nowhere:Popular: Module"
    with pytest.raises(ModelError, match=message):
        registry.model_class("favourite")


def test_a_file_without_a_model_is_refused(monkeypatch):
    monkeypatch.setattr(registry, "_names", lambda points: ["errors"])
    monkeypatch.setattr(registry.importlib, "import_module", lambda name: sys.modules["nextsession.errors"])
    with pytest.raises(UnknownNameError, match="errors defines no Recommender"):
        registry.model_class("errors")


def test_a_private_class_of_a_file_is_not_its_model(monkeypatch):
    module = ModuleType("nextsession.models.popular")
    for name in ("_Base", "Shown"):
        setattr(module, name, type(name, (Popular,), {"__module__": module.__name__}))
    monkeypatch.setattr(registry.importlib, "import_module", lambda name: module)
    assert registry.model_class("popular").__name__ == "Shown"
