"""A public data set as a declaration: what it is, how its files look, where they are found or fetched.

Each file in `nextsession/data/sets/` declares one:

```
find     $NEXTSESSION_DATA, then the cache          ──► folder, layout
fetch    licence shown, agreed to, download, unpack ──► the cache
prepare  layout: files ──► event batches ──► Prepared (kept in the cache, too)
```
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatch
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import numpy as np
import polars as pl

from nextsession.config import Settings
from nextsession.data.cases import Cases
from nextsession.data.events import read_events
from nextsession.data.fetch import Address, cache_folder, download, unpack
from nextsession.data.format import EventBatch, Filters, LogFormat, SessionRule
from nextsession.data.intake import BadRows
from nextsession.data.items import ItemFeature, ItemTable
from nextsession.data.log import offsets_of
from nextsession.data.prepared import Prepared, prepare
from nextsession.data.vocabulary import Vocabulary
from nextsession.errors import ArtifactError, DataError
from nextsession.progress import Progress, silent

T = TypeVar("T")
Reader: TypeAlias = Callable[[Sequence[Path], LogFormat, Progress], Iterator[EventBatch]]
"""Reads event files into batches whose columns are those the format names."""


def read_tables(files: Sequence[Path], form: LogFormat, progress: Progress) -> Iterator[EventBatch]:
    """Read files that are plain tables: the reader of most sets."""
    return read_events(list(files), form, progress=progress)


@dataclass(frozen=True)
class Layout:
    """One way in which the files of a set lie in a folder."""

    files: tuple[str, ...]
    """Patterns of the event files, relative to the folder; there must be a file for each."""
    form: LogFormat
    """How the files are written, or what `read` makes of them."""
    sessions: SessionRule = field(default_factory=SessionRule)
    """Where sessions begin and end."""
    side: tuple[str, ...] = ()
    """Further files that must be there."""
    read: Reader = read_tables
    """Reads the event files."""
    items: Callable[[Path, Vocabulary], ItemTable] | None = None
    """Reads titles and features of the items from the folder."""
    item_files: tuple[str, ...] = ()
    """Patterns of what `items` reads; where one of them finds nothing, nothing is known of the items."""
    questions: Callable[[Path, Vocabulary], Cases] | None = None
    """Reads ready-made questions from the folder, beside the log to learn from."""
    facts: Callable[[Sequence[Path]], Mapping[str, Any]] | None = None
    """Counts in the files what the log cannot tell; noted in the manifest."""

    def match(self, place: Path) -> list[Path] | None:
        """Return the event files of this layout in a folder (or the file itself, if that is one), else None."""
        if place.is_file():
            one = len(self.files) == 1 and not self.side and fnmatch(place.name, self.files[0].rpartition("/")[2])
            return [place] if one else None
        if not all((place / name).is_file() for name in self.side):
            return None
        found: dict[Path, None] = {}
        for pattern in self.files:
            files = [f for f in sorted(place.glob(pattern)) if f.is_file() and not f.name.startswith("README")]
            if not files:
                return None
            found |= dict.fromkeys(files)
        return list(found)


@dataclass(frozen=True)
class Found:
    """The files of a set on this machine."""

    place: Path
    """The folder, or the one file that was named."""
    layout: Layout
    files: tuple[Path, ...]

    @property
    def folder(self) -> Path:
        """The folder the files are in."""
        return self.place.parent if self.place.is_file() else self.place

    def reader(
        self, read: Callable[[Path, Vocabulary], T] | None, patterns: Sequence[str]
    ) -> Callable[[Vocabulary], T] | None:
        """Bind a reader to the folder; None if there is no reader, or nothing there for it."""
        if read is None or not all(any(self.folder.glob(pattern)) for pattern in patterns):
            return None
        return lambda vocabulary: read(self.folder, vocabulary)


@dataclass(frozen=True)
class DataSet:
    """A named public data set."""

    name: str
    title: str
    about: str
    """What it is, what an event and a session are, and what is wanted (label 1)."""
    homepage: str
    licence: str
    """The terms in a few words; shown before anything is fetched."""
    citation: str
    layouts: tuple[Layout, ...]
    """Known ways in which its files lie in a folder; the first that fits is read."""
    folders: tuple[str, ...] = ()
    """Names of folders it is usually kept in, beside its own name."""
    addresses: tuple[Address, ...] = ()
    """Where it can be fetched without an account; empty: only by hand."""
    by_hand: str = ""
    """How a person gets it."""
    loose: bool = False
    """Its files have names that anybody's files have: they are looked for only in folders of its
    name, and where the caller says."""
    filters: Filters = field(default_factory=Filters)
    """What is left out by convention; nothing, as a rule."""

    # -- looking ----------------------------------------------------------------------------------

    def find(self, folder: Path | None = None) -> Path | None:
        """Return the folder (or file) that holds the set, or None.

        Args:
            folder: Look only here and in its sub-folders of known names; by default in
                `$NEXTSESSION_DATA`, then in the cache.
        """
        found = self.locate(folder)
        return None if found is None else found.place

    def locate(self, folder: Path | None = None) -> Found | None:
        """Return the set's files and their layout, or None; see `find`."""
        roots = [folder] if folder is not None else [r for r in (_data_folder(), self._home.parent) if r is not None]
        for root in roots:
            itself = () if self.loose and folder is None else (root,)
            for place in (*(root / name for name in (self.name, *self.folders)), *itself):
                for layout in self.layouts if place.exists() else ():
                    if files := layout.match(place):
                        return Found(place, layout, tuple(files))
        return None

    @property
    def _home(self) -> Path:
        """Where the set is unpacked to."""
        return cache_folder() / "sets" / self.name

    # -- getting ----------------------------------------------------------------------------------

    def fetch(self, *, agree: Callable[[str], bool], progress: Progress = silent) -> Path:
        """Return the folder that holds the set; download it into the cache if it is nowhere yet.

        Args:
            agree: Shown the title, terms, addresses and sizes; nothing is downloaded unless it says yes.
            progress: Told the bytes done and to do.

        Raises:
            DataError: There is no public address or network, the terms were not agreed to, or what
                came is not what was promised.
        """
        if (folder := self.find()) is not None:
            return folder
        if not self.addresses:
            raise DataError(self.missing())
        if not agree(self.terms()):
            raise DataError(f"{self.name} was not fetched: its terms were not agreed to.")
        packs = cache_folder() / "downloads" / self.name
        unpack([download(address, packs, progress=progress) for address in self.addresses], self._home)
        if (folder := self.find()) is None:
            raise DataError(f"{self._home} holds what was fetched, but not {self._patterns()}: the set has changed.")
        for address in self.addresses:
            (packs / address.name).unlink(missing_ok=True)
        return folder

    def terms(self) -> str:
        """Return what a person must have read before the set is fetched: title, terms, addresses, sizes."""
        sizes = [f"{a.url}" + (f" ({a.size / 1e6:,.1f} MB)" if a.size else "") for a in self.addresses]
        return "\n".join([self.title, f"Terms: {self.licence}", f"See {self.homepage}", *sizes])

    def missing(self, folder: Path | None = None) -> str:
        """Return what to say where the set is not found: what was looked for, where, and how to get it."""
        where = str(folder) if folder is not None else f"$NEXTSESSION_DATA ({_data_folder() or 'not set'}) or the cache"
        how = f"`nextsession data fetch {self.name}` gets it. " if self.addresses else ""
        return (
            f"{self.title} is not in {where}: there is no {self._patterns()}. {how}"
            f"By hand: {self.by_hand or f'see {self.homepage}.'} "
            f"Put the files into {self._home}, or into a folder {self.name} of $NEXTSESSION_DATA."
        )

    def _patterns(self) -> str:
        return ", nor ".join(" with ".join(layout.files) for layout in self.layouts)

    # -- preparing --------------------------------------------------------------------------------

    def prepare(
        self,
        out: Path | None = None,
        *,
        folder: Path | None = None,
        form: LogFormat | None = None,
        sessions: SessionRule | None = None,
        filters: Filters | None = None,
        bad_rows: BadRows = "fail",
        agree: Callable[[str], bool] | None = None,
        progress: Progress = silent,
    ) -> Prepared:
        """Read the set's files into the prepared form.

        Args:
            out: Where to write it; by default into the cache, from which it comes at once the next
                time, as long as settings, sizes and dates of the files are the same.
            folder: The folder that holds the files, or the one file; by default see `find`.
            form: What to read instead of what the set declares (another label, say).
            sessions: Instead of the set's own rule.
            filters: Instead of the set's own (as a rule, none).
            bad_rows: What becomes of rows that cannot be used: `fail`, or `quarantine` counts them
                and writes them beside the log.
            agree: If given, the set is fetched where it is missing and this agrees to its terms.
            progress: Told how far the work has come.

        Raises:
            DataError: The files are not there, or not what they should be.
        """
        found = self.locate(folder)
        if found is None and folder is None and agree is not None and self.addresses:
            self.fetch(agree=agree, progress=progress)
            found = self.locate()
        if found is None:
            raise DataError(self.missing(folder))
        layout = found.layout
        form, sessions, filters = form or layout.form, sessions or layout.sessions, filters or self.filters
        target = out
        if target is None:
            target = cache_folder() / "prepared" / f"{self.name}-{_key(found, bad_rows, form, sessions, filters)}"
            if target.exists():
                try:
                    return Prepared.load(target)
                except ArtifactError:  # damaged, or of another version: made again below
                    pass
        notes = {"set": self.name, "title": self.title, "licence": self.licence, "citation": self.citation}
        if layout.facts is not None:
            notes |= dict(layout.facts(found.files))
        return prepare(
            layout.read(found.files, form, progress),
            target,
            form=form,
            sessions=sessions,
            filters=filters,
            bad_rows=bad_rows,
            item_table=found.reader(layout.items, layout.item_files),
            questions=found.reader(layout.questions, layout.side),
            notes=notes,
            progress=progress,
        )


def item_table(
    vocabulary: Vocabulary, titles: Mapping[str, str], features: Mapping[str, Mapping[str, Sequence[str]]]
) -> ItemTable:
    """Arrange what is known of items, by their ids as text, in the order of a vocabulary."""
    ids = [str(x) for x in vocabulary.ids.tolist()]
    named = np.array([titles.get(x, "") for x in ids], dtype=object) if titles else None
    return ItemTable({name: ItemFeature.of([of.get(x, ()) for x in ids]) for name, of in features.items()}, named)


def item_feature(vocabulary: Vocabulary, ids: pl.Series, values: pl.Series) -> ItemFeature:
    """Arrange a feature with at most one value an item; null and `""` are none.

    Args:
        vocabulary: The items wanted, in this order.
        ids: Ids of items, as text or numbers, `(n,)`; of an id that occurs twice the first row counts.
        values: The value of each, as text, `(n,)`.
    """
    known = pl.DataFrame({"item": ids.cast(pl.String), "value": values}).filter(pl.col("value") != "")
    wanted = pl.DataFrame({"item": [str(x) for x in vocabulary.ids.tolist()]}, schema={"item": pl.String})
    found = wanted.join(known.unique("item", keep="first"), on="item", how="left", maintain_order="left")["value"]
    labels = found.drop_nulls().unique().sort()
    codes = labels.search_sorted(found.drop_nulls()).to_numpy().astype(np.int32)
    return ItemFeature(offsets_of(found.is_not_null().to_numpy()), codes, tuple(labels.to_list()))


def _data_folder() -> Path | None:
    chosen = os.environ.get("NEXTSESSION_DATA")
    return Path(chosen) if chosen else None


def _key(found: Found, bad_rows: BadRows, *settings: Settings) -> str:
    """Return a short name for what would come of these files and settings."""
    beside = sorted(f for f in found.folder.iterdir() if f.is_file())
    state = [[[str(f), f.stat().st_size, f.stat().st_mtime_ns] for f in files] for files in (found.files, beside)]
    parts = [version("nextsession"), bad_rows, state, *(s.model_dump(mode="json") for s in settings)]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]
