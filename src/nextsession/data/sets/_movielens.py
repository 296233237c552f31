"""What the MovieLens sets share: terms, citation, labels, and the files of movies."""

import re
from pathlib import Path
from typing import Final

import polars as pl

from nextsession.data.dataset import item_table
from nextsession.data.format import Labels
from nextsession.data.items import ItemTable
from nextsession.data.vocabulary import Vocabulary

LICENCE: Final = (
    "research use; no endorsement by the University of Minnesota may be implied, the paper must be "
    "cited, no redistribution without permission, no commercial use without permission (GroupLens)"
)
CITATION: Final = (
    "F. Maxwell Harper and Joseph A. Konstan. The MovieLens Datasets: History and Context. "
    "ACM Transactions on Interactive Intelligent Systems 5(4), 2015. https://doi.org/10.1145/2827872"
)
LIKED: Final = Labels(at_least=4)
"""A film was wanted if it got at least four of five stars."""


def movies_dat(folder: Path, vocabulary: Vocabulary) -> ItemTable:
    """Read `movies.dat`: `id::title (year)::genre|genre`, Latin-1."""
    file = folder / "movies.dat"
    rows = [line.split("::") for line in file.read_text(encoding="latin-1").splitlines() if line]
    return _table(vocabulary, [(r[0], r[1], r[2].split("|")) for r in rows])


def movies_csv(folder: Path, vocabulary: Vocabulary) -> ItemTable:
    """Read `movies.csv`: `movieId,title,genres`, UTF-8, titles quoted where they hold a comma."""
    file = folder / "movies.csv"
    rows = pl.read_csv(file, schema_overrides={"movieId": pl.String}, infer_schema=False).rows()
    return _table(vocabulary, [(r[0], r[1], r[2].split("|")) for r in rows])


def u_item(folder: Path, vocabulary: Vocabulary) -> ItemTable:
    """Read `u.item` (Latin-1: `id|title|date|video|url|` and a 0 or 1 for each genre) and `u.genre`."""
    file, names = folder / "u.item", folder / "u.genre"
    genres = [line.split("|")[0] for line in names.read_text(encoding="latin-1").splitlines() if line]
    rows = [line.split("|") for line in file.read_text(encoding="latin-1").splitlines() if line]
    return _table(
        vocabulary, [(r[0], r[1], [g for g, on in zip(genres, r[5:], strict=True) if on == "1"]) for r in rows]
    )


def recbole_items(folder: Path, vocabulary: Vocabulary) -> ItemTable:
    """Read `ml-100k.item`: tab separated id, title, year, genres between blanks; one line of heads."""
    file = folder / "ml-100k.item"
    rows = [line.split("\t") for line in file.read_text(encoding="utf-8").splitlines()[1:] if line]
    return _table(vocabulary, [(r[0], f"{r[1]} ({r[2]})" if r[2] else r[1], r[3].split(" ")) for r in rows])


def _table(vocabulary: Vocabulary, rows: list[tuple[str, str, list[str]]]) -> ItemTable:
    years = {x: year[1] for x, title, _ in rows if (year := re.search(r"\((\d{4})\)\s*$", title))}
    return item_table(
        vocabulary,
        {x: title for x, title, _ in rows},
        {
            "genre": {
                x: [g for g in genres if g not in ("", "(no genres listed)", "unknown")] for x, _, genres in rows
            },
            "year": {x: [year] for x, year in years.items()},
        },
    )
