"""Indexing: indexes that are built beside the answers, and taken into use whole.

```
 a model without index ──► process of low claim: `nextsession index` ──► folder of the model ──► mapped, swapped in
        └── meanwhile every item is looked at           └── measured; nothing is kept that finds too little
```

An index that appears beside a model by other means, another worker's or `nextsession index` by hand, is
taken into use as well.
"""

import contextlib
import logging
import os
import subprocess
import sys
import tempfile
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from nextsession.errors import NextSessionError, StoreError
from nextsession.files import manifest_of
from nextsession.index.contract import DEPTH, ItemIndex
from nextsession.index.kept import FOLDER, FORMAT, LEAST_RECALL, Kind, load_index
from nextsession.serving.arms import Arms
from nextsession.serving.claims import claimed
from nextsession.serving.served import MANIFEST, Served, version_of

log = logging.getLogger(__name__)


@dataclass
class _Building:
    """A process that builds an index."""

    version: str
    process: "subprocess.Popen[bytes]"
    said: IO[bytes]
    claim: int | None


@dataclass
class _State:
    """What is known of the index of one version of a model."""

    kind: Kind | None = None
    """What is to be built, if anything."""
    promised: float | None = None
    built_at: int | None = None
    failure: str | None = None
    described: bool = False
    tried: bool = False
    seen: int = 0
    """When the manifest was written that was looked at last (ns)."""


class Indexing:
    """Sees to it that models which want an index get one."""

    def __init__(self, arms: Arms, kind: Kind | None = None, least_recall: float = LEAST_RECALL) -> None:
        """Take the arms.

        Args:
            arms: Whose models are looked after.
            kind: What is built for models that come without; None: nothing, unless it is wished for.
            least_recall: What is promised of it.
        """
        self._arms, self._kind, self._least = arms, kind, least_recall
        self._states: dict[str, _State] = {}
        self._building: _Building | None = None
        self._lock = threading.Lock()
        self.failures = 0
        """Indexes that could not be built or used since the process began."""

    def wish(self, version: str, kind: Kind) -> None:
        """Let an index be built for a version of a model; again, if that failed before."""
        with self._lock:
            self._states[version] = _State(kind=kind)

    def look(self) -> None:
        """Take into use what is there, and begin to build what is not; call it every second or so."""
        with self._lock:
            self._look()

    def _look(self) -> None:
        self._finish()
        wanted: Served | None = None
        versions = {arm.served.version: arm.served for arm in self._arms}
        self._states = {v: s for v, s in self._states.items() if v in versions}
        for version, served in versions.items():
            state = self._states.setdefault(version, _State(kind=self._kind))
            if not served.place or not served.indexable or served.before is not None:
                continue  # an index of what was loaded is none of what the model was told since
            if served.index is None and not self._adopted(served, state):
                if wanted is None and state.kind is not None and not state.tried:
                    wanted = served
            elif not state.described:
                self._describe(served, state)
        if wanted is not None and self._building is None:
            self._begin(wanted, self._states[wanted.version])

    def health(self) -> list[dict[str, Any]]:
        """Return for each arm whose model can have an index which it has, and what is being done about it."""
        found = []
        for arm in self._arms:
            served = arm.served
            if not served.indexable:
                continue
            state, index = self._states.get(served.version, _State()), served.index
            building = index is None and self._building is not None and self._building.version == served.version
            found.append(
                {
                    "arm": arm.name,
                    "ok": state.failure is None,
                    "kind": "exact" if index is None else index.kind,
                    "items": len(served.catalogue),
                    "recall": 1.0 if index is None else index.recall,
                    "promised": state.promised,
                    "built_at": state.built_at,
                    "building": building,
                    "failure": state.failure,
                }
            )
        return found

    def close(self) -> None:
        """End what is being built."""
        with self._lock:
            if self._building is not None:
                self._building.process.terminate()
                self._building.process.wait()
                self._let_go()

    # -- inside ---------------------------------------------------------------------------------

    def _begin(self, served: Served, state: _State) -> None:
        folder = Path(served.place)
        if not os.access(folder, os.W_OK):
            state.tried = True
            self._fail(served, state, f"{folder} cannot be written, and an index lies beside its model")
            return
        try:
            claim = claimed(folder / FOLDER, alone=True)
        except StoreError:  # another worker builds it
            return
        state.tried = True
        command = [sys.executable, "-m", "nextsession", "index", str(folder), "--kind", str(state.kind)]
        said = tempfile.TemporaryFile()  # noqa: SIM115 - it lives as long as the process
        process = subprocess.Popen(
            [*command, "--least-recall", str(self._least)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=said,
            env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
        )
        if hasattr(os, "setpriority"):
            with contextlib.suppress(OSError):
                os.setpriority(os.PRIO_PROCESS, process.pid, 19)
        self._building = _Building(served.version, process, said, claim)
        log.info("An index %s is being built for %s, version %s.", state.kind, served.model.name, served.version)

    def _finish(self) -> None:
        """See whether what was being built is done; if it is, the next look finds it."""
        building = self._building
        if building is None or building.process.poll() is None:
            return
        building.said.seek(0)
        lines = building.said.read().decode(errors="replace").strip().splitlines()
        self._let_go()
        state = self._states.get(building.version)
        served = next((arm.served for arm in self._arms if arm.served.version == building.version), None)
        if building.process.returncode and state is not None and served is not None:
            reason = lines[-1].removeprefix("Error: ") if lines else f"exit code {building.process.returncode}"
            self._fail(served, state, reason)

    def _let_go(self) -> None:
        assert self._building is not None
        self._building.said.close()
        if self._building.claim is not None:
            os.close(self._building.claim)
        self._building = None

    def _adopted(self, served: Served, state: _State) -> bool:
        """Take into use an index that lies beside a model; say whether there was one that could be."""
        folder = Path(served.place)
        try:
            written = (folder / FOLDER / MANIFEST).stat().st_mtime_ns
            if written == state.seen or version_of(folder) != served.version:
                return False
        except OSError:
            return False
        state.seen = written
        try:
            index = load_index(served.model, folder)
            if index is None or version_of(folder) != served.version:  # another model has taken its place meanwhile
                return False
            _warm(index)
        except (NextSessionError, OSError) as error:
            self._fail(served, state, str(error))
            return False
        self._arms.equip(served.version, index)
        self._describe(served, state)
        state.failure = None
        log.info("The index %s of %s, version %s, is in use.", index.kind, served.model.name, served.version)
        return True

    def _describe(self, served: Served, state: _State) -> None:
        """Note what the manifest says of an index in use."""
        state.described, place = True, Path(served.place) / FOLDER
        with contextlib.suppress(NextSessionError, OSError, KeyError, ValueError):  # the folder was removed since
            manifest = manifest_of(place, "index of items", FORMAT)
            state.promised = float(manifest["least_recall"])
            state.built_at = (place / MANIFEST).stat().st_mtime_ns // 1_000_000

    def _fail(self, served: Served, state: _State, reason: str) -> None:
        self.failures += 1
        state.failure = reason
        log.warning("%s, version %s, goes on without an index: %s", served.model.name, served.version, reason)


def _warm(index: ItemIndex) -> None:
    """Ask once, so that the first visitor does not wait for what is read from the disk."""
    index.search(np.ascontiguousarray(index.vectors[:1]), min(DEPTH, len(index.vectors)))
