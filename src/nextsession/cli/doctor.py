"""`nextsession doctor`: what this machine has, and what each missing thing would give."""

import os
import platform
import shutil
import sys
import time
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import typer

from nextsession.cli.terminal import Json, examples, show_json, show_table

EXAMPLES = examples("nextsession doctor", "nextsession doctor --json")

_PACKAGES = ("numpy", "numba", "scipy", "polars", "pyarrow", "pydantic", "safetensors", "matplotlib", "jinja2")


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    what: str
    found: str
    fine: bool = True
    advice: str = ""
    """What it would give, if it is not fine."""


def doctor(json: Json = False) -> None:
    """Look at versions, cores, memory, folders, data sets and the compiler; exit code 1 if something must be mended."""
    findings = [
        Finding("nextsession", version("nextsession")),
        Finding("python", f"{platform.python_version()} at {sys.executable}"),
        *(_package(name) for name in _PACKAGES),
        Finding("cores", str(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count())),
        _memory(),
        _compiler(),
        *_folders(),
        _sets(),
    ]
    if json:
        show_json([asdict(finding) for finding in findings])
    else:
        cells = [[f.what, "ok" if f.fine else "missing", f.found, f.advice] for f in findings]
        show_table(["what", "", "found", "what to do"], cells)
    if not all(finding.fine for finding in findings):
        raise typer.Exit(1)


def _package(name: str) -> Finding:
    try:
        return Finding(name, version(name))
    except PackageNotFoundError:
        return Finding(name, "not installed", False, f"pip install {name}: nextsession needs it")


def _memory() -> Finding:
    try:
        size = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return Finding("memory", "not known")
    return Finding("memory", f"{size / 1e9:.1f} GB")


def _compiler() -> Finding:
    started = time.process_time()
    try:
        import numba
        import numpy as np

        total = numba.njit(lambda values: values.sum())(np.arange(10))
    except Exception as error:  # any failure of the compiler is what is looked for
        return Finding("compiler", f"{type(error).__name__}: {error}", False, "reinstall numba: every model needs it")
    if total != 45:
        return Finding("compiler", f"wrong sum {total}", False, "reinstall numba: every model needs it")
    return Finding("compiler", f"numba compiles ({time.process_time() - started:.1f} CPU-s)")


def _folders() -> list[Finding]:
    from nextsession.data.fetch import cache_folder

    cache = cache_folder()
    there = cache
    while not there.exists():
        there = there.parent
    writable = os.access(there, os.W_OK)
    free = shutil.disk_usage(there).free
    return [
        Finding(
            "cache folder", str(cache), writable, "" if writable else "set NEXTSESSION_CACHE to a place to write to"
        ),
        Finding("free disk", f"{free / 1e9:.1f} GB", free > 1e9, "" if free > 1e9 else "make room for prepared logs"),
    ]


def _sets() -> Finding:
    from nextsession.data import sets

    folder = os.environ.get("NEXTSESSION_DATA")
    at_hand = [name for name in sets.names() if sets.get(name).locate() is not None]
    where = f"in {folder} and the cache" if folder else "in the cache"
    advice = "" if folder else "optional: set NEXTSESSION_DATA to a folder of data sets and they are found by name"
    if folder and not Path(folder).is_dir():
        return Finding("data sets", f"NEXTSESSION_DATA is no folder: {folder}", False, "set it to a folder that exists")
    return Finding("data sets", f"{', '.join(at_hand) or 'none'} {where}", True, advice)
