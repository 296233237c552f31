"""Who writes the file of a `SQLiteStore`: takes what waits, a group at a time, and puts it on the disk."""

import contextlib
import os
import sqlite3
import time
from collections.abc import Mapping
from itertools import groupby
from pathlib import Path
from typing import Any

from nextsession.errors import StoreError
from nextsession.serving.adding import Added, Recent
from nextsession.serving.carrying import Carrying
from nextsession.serving.claims import Turns, claimed
from nextsession.serving.events import Shown
from nextsession.serving.groups import Gathering, Job
from nextsession.serving.works import File
from nextsession.serving.writing import SCHEMA, SINCE, VERSION, Writing

NO_FACTS: Mapping[str, Any] = {"groups": 0, "events": 0, "cpu": 0.0, "error": None}
"""Of who has written nothing yet: groups and events that were written, CPU-seconds, what went wrong the last time."""
_REMEMBERED = 200_000
"""Events (and ids of visitors) that are kept in memory by a process that is alone with its file."""


class Committing:
    """The one in its process that writes a file; whoever makes it may let another thread use it, one at a time."""

    def __init__(self, file: File) -> None:
        """Open the file, or make it.

        Raises:
            StoreError: It cannot be opened, is no store, a newer version wrote it, or another process has it alone.
        """
        self._file, self._path = file, Path(file.path)
        self.facts: Mapping[str, Any] = NO_FACTS
        self._claim = claimed(self._path, alone=file.alone)
        try:
            self._connection = self._opened()
        except BaseException:
            if self._claim is not None:
                os.close(self._claim)
            raise
        self.recent = Recent(self._connection, _REMEMBERED) if file.alone else None
        """Records of late, as they are on the disk, if nobody else writes it."""
        self._turns = None if file.alone else Turns(self._path)
        self._carrying = Carrying(self._connected())
        self._careful = False

    def run(self, waiting: Gathering) -> None:
        """Write until no more may come."""
        running = True
        while running:
            jobs, running = waiting.taken()
            with contextlib.nullcontext() if self._turns is None else self._turns.mine():
                results = self.commit(jobs)
            waiting.facts = self.facts
            waiting.settle(jobs, results)
            self._carrying.wrote(self._connection)

    def commit(self, jobs: list[Job]) -> list[Any]:
        """Do all jobs in one transaction; return what each gave, or the error that kept it from being done.

        When this returns, what was done is on the disk.
        """
        results: list[Any] = []
        writing = Writing(self._connection, self._file.rules, self.recent, careful=self._careful)
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            for adds, some in groupby(jobs, _is_addition):
                works = [job.work for job in some]
                results += writing.add_all(works) if adds else [work(writing) for work in works]
            self._connection.execute("COMMIT")
            if not writing.committed() and self.recent is not None:
                self.recent = Recent(self._connection, _REMEMBERED)
            if any(job.after for job in jobs):
                self._carrying.empty(self._connection, self._file.patience)
        except Exception as error:  # nothing may end who writes, and whoever waits must hear what went wrong
            with contextlib.suppress(sqlite3.Error):
                self._connection.execute("ROLLBACK")
            if isinstance(error, sqlite3.IntegrityError) and not self._careful:
                self._careful = True  # an event is there already: find out which
                return self.commit(jobs)
            if len(jobs) > 1 and not isinstance(error, sqlite3.OperationalError):
                return [self.commit([job])[0] for job in jobs]  # it is not the disk but one of them: let others live
            self.facts = {**self.facts, "error": f"{type(error).__name__}: {error}"}
            return [unwritten(self._file.path, error)] * len(jobs)
        self._careful = writing.repeats
        self.facts = {
            "groups": self.facts["groups"] + 1,
            "events": self.facts["events"] + sum(job.weight for job in jobs),
            "cpu": time.thread_time(),
            "error": None,
        }
        return results

    def close(self) -> None:
        """Carry all over into the file, and let go of it."""
        self._carrying.close()
        with contextlib.suppress(sqlite3.Error):
            self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        self._connection.close()
        if self._turns is not None:
            self._turns.close()
        if self._claim is not None:
            os.close(self._claim)

    # -- inside ---------------------------------------------------------------------------------

    def _connected(self) -> sqlite3.Connection:
        """Return a connection that writes, and asks for a flush of every commit."""
        connection = sqlite3.connect(
            self._path, isolation_level=None, timeout=self._file.patience, check_same_thread=False, cached_statements=64
        )
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA wal_autocheckpoint = 0")  # see `Carrying`
        return connection

    def _opened(self) -> sqlite3.Connection:
        try:
            new = not self._path.exists()
            connection = self._connected()
            if new:
                self._path.chmod(0o600)  # what people did is nobody else's business
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA secure_delete = ON")  # what is erased is overwritten
            connection.execute("BEGIN IMMEDIATE")
            found = connection.execute("PRAGMA user_version").fetchone()[0]
            if found == 0:
                for statement in SCHEMA:
                    connection.execute(statement)
            for older in range(found or VERSION, VERSION):
                for statement in SINCE[older]:
                    connection.execute(statement)
            if found < VERSION:
                connection.execute(f"PRAGMA user_version = {VERSION}")
            connection.execute("COMMIT")
            if self._file.largest is not None:
                connection.execute(f"PRAGMA max_page_count = {self._file.largest}")
        except sqlite3.Error as error:
            raise StoreError(f"{self._path} cannot be opened as a store: {error}.") from error
        if found > VERSION:
            connection.close()
            raise StoreError(
                f"{self._path} has format {found}, this version reads up to {VERSION}: upgrade nextsession."
            )
        return connection


def unwritten(path: str, error: Exception) -> StoreError:
    """Return what those hear whose jobs an error kept from being done."""
    failure = StoreError(f"{path} cannot be written: {error}. Nothing was recorded; send it again.")
    failure.__cause__ = error
    return failure


def _is_addition(job: Job) -> bool:
    return isinstance(job.work, Added | Shown)
