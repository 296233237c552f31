"""Machine code on disk follows everything that it was made of."""

import importlib
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from nextsession.compiled import compiled, compiled_fast, ingredients

_CALLER = """
from nextsession.compiled import compiled
from {package}.callee import STEP, inner

@compiled
def outer(x):
    return inner(x) * 10 + STEP
"""
_CALLEE = """
from nextsession.compiled import compiled
STEP = {step}

def _adder(by):
    @compiled
    def add(x):
        return x + by
    return add

_add = _adder({by})

@compiled
def inner(x):
    return _add(x)
"""


def _imported(folder: Path, by: int, step: int) -> ModuleType:
    """Import the caller anew, after only the file of the callee has been written."""
    (folder / "callee.py").write_text(_CALLEE.format(by=by, step=step))
    for name in [name for name in sys.modules if name.partition(".")[0] == folder.name]:
        del sys.modules[name]
    importlib.invalidate_caches()
    return importlib.import_module(f"{folder.name}.caller")


def _package(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Write a package that can be imported, without the module that it calls."""
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    (folder / "caller.py").write_text(_CALLER.format(package=folder.name))
    monkeypatch.syspath_prepend(str(folder.parent))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # the stamp of `.pyc` files is coarser than these tests
    return folder


def test_code_kept_on_disk_is_not_used_once_a_function_of_another_module_has_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = _package(tmp_path / "kept_code", monkeypatch)
    first = _imported(folder, 1, 5)
    assert first.outer(2) == 35
    assert first.outer.stats.cache_misses
    again = _imported(folder, 1, 5)
    assert again.outer(2) == 35
    assert again.outer.stats.cache_hits
    assert _imported(folder, 3, 5).outer(2) == 55
    assert _imported(folder, 3, 7).outer(2) == 57
    for name in [name for name in sys.modules if name.partition(".")[0] == folder.name]:
        del sys.modules[name]


def test_ingredients_follow_constants_options_and_callees() -> None:
    def made(constant: object, decorate: object = compiled) -> str:
        space = {"decorate": decorate, "inner": compiled(_one), "CONSTANT": constant, "__name__": __name__}
        exec("def outer(x):\n    return inner(x) + CONSTANT\nfound = decorate(outer)", space)
        return ingredients(space["found"])

    assert made(1) == made(1)
    assert made(np.float32(1)) == made(np.float32(1))
    different = [made(1), made(2), made(1.0), made(np.float32(1)), made((1, 2)), made(1, compiled_fast)]
    assert len(set(different)) == len(different)


def test_functions_run_where_no_code_can_be_kept() -> None:
    space: dict[str, Any] = {"__name__": __name__}
    exec("def twice(x):\n    return 2 * x", space)  # of no file, so there is no place beside it
    assert compiled(space["twice"])(4) == 8


def _one(x: int) -> int:
    return x + 1


@pytest.mark.parametrize("content", [b"", b"\x80\x05cut short", b"cnowhere_at_all\nthing\n."])
def test_code_that_cannot_be_loaded_is_compiled_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes
) -> None:
    folder = _package(tmp_path / "cut_short", monkeypatch)
    assert _imported(folder, 1, 5).outer(2) == 35
    kept = list(folder.rglob("caller.outer*.nbc"))
    assert kept
    for file in kept:
        file.write_bytes(content)
    again = _imported(folder, 1, 5)
    assert again.outer(2) == 35
    assert again.outer.stats.cache_misses
    once_more = _imported(folder, 1, 5)
    assert once_more.outer(2) == 35
    assert once_more.outer.stats.cache_hits
