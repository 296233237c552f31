"""The neighbour models on real logs, against the figures of the literature's reference implementation (session-rec).

Per-event protocol: every prefix of every test session asks for the next event, all items compete, nothing is
excluded; test events of items that are not in the training log are left out, and sessions of one event with them.
"""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from nextsession import Cases, SessionLog, Vocabulary, create
from nextsession.data.log import offsets_of

DAY = 86_400_000
MIDNIGHT = 1_508_112_000_000  # 2017-10-16 00:00 UTC, where the last day of Globo begins
STRAYS = 1_508_299_200_000  # 2017-10-18 04:00 UTC; 688 clicks of Globo are dated later


def folder(name: str) -> Path:
    root = os.environ.get("NEXTSESSION_DATA")
    if root is None or not (Path(root) / name).is_dir():
        pytest.skip(f"set NEXTSESSION_DATA to the folder that holds {name}/")
    return Path(root) / name


def log_of(clicks: pl.DataFrame, vocabulary: Vocabulary | None = None) -> SessionLog:
    """Columns session, item, time (ms); one row of the log a session."""
    clicks = clicks.sort("session", "time", maintain_order=True)
    items = clicks["item"].to_numpy()
    vocabulary = vocabulary or Vocabulary.of(items)
    offsets = offsets_of(clicks.group_by("session", maintain_order=True).len()["len"].to_numpy())
    return SessionLog(vocabulary.encode(items), clicks["time"].to_numpy(), offsets, np.arange(len(offsets)), vocabulary)


def next_events(log: SessionLog) -> Cases:
    """Every prefix of every session, and the event that came next."""
    prefixes = np.diff(log.session_offsets) - 1
    session = np.repeat(np.arange(log.n_sessions), prefixes)
    lengths = np.arange(len(session)) - np.repeat(offsets_of(prefixes)[:-1], prefixes) + 1
    start, offsets = log.session_offsets[session], offsets_of(lengths)
    events = np.arange(offsets[-1]) + np.repeat(start - offsets[:-1], lengths)
    rows = np.arange(len(session) + 1)
    histories = SessionLog(log.items[events], log.times[events], offsets, rows, log.vocabulary)
    return Cases(histories, log.times[start + lengths], log.items[start + lengths], rows, session)


def quality(model, cases: Cases) -> tuple[float, float]:
    """HR@20 and MRR@20, mean over events; ties count half."""
    counts = model.rank(cases).counts
    rank = np.where(counts.equal > 0, 1 + counts.greater + (counts.equal - 1) / 2, np.inf)
    return float(np.mean(rank <= 20)), float(np.mean(np.where(rank <= 20, 1 / rank, 0)))


def known_sessions(test: pl.DataFrame, train: SessionLog) -> pl.DataFrame:
    known = test.filter(pl.col("item").is_in(train.vocabulary.ids.tolist()))
    return known.filter(pl.len().over("session") > 1)


@pytest.fixture(scope="module")
def rsc15() -> tuple[SessionLog, pl.DataFrame]:
    def clicks(part: str) -> pl.DataFrame:
        file = folder("rsc15_100k") / f"yoochoose-clicks-100k_{part}.txt"
        time_ms = (pl.col("Time") * 1000).round().cast(pl.Int64)
        return pl.read_csv(file, separator="\t").select(session="SessionId", item="ItemId", time=time_ms)

    train = log_of(clicks("train_full"))
    return train, known_sessions(clicks("test"), train)


SETTINGS = {  # those of the reference's own example experiment; it has none for STAN and VSTAN
    "sknn": {"neighbours": 100, "sample": 500, "similarity": "cosine"},
    "vsknn": {"neighbours": 500, "sample": 5000, "weighting": "quadratic", "decay": "div", "idf": 5},
    "stan": {"neighbours": 100, "sample": 5000},
    "vstan": {"neighbours": 100, "sample": 5000},
}


@pytest.mark.parametrize(
    ("name", "hit_rate", "mrr"),
    [("sknn", 0.653, 0.319), ("vsknn", 0.704, 0.366), ("stan", 0.688, 0.362), ("vstan", 0.684, 0.371)],
)
def test_rsc15_is_within_two_per_cent_of_the_reference_on_the_500_sessions_that_began_first(rsc15, name, hit_rate, mrr):
    train, test = rsc15
    first = test.group_by("session").agg(pl.col("time").min()).sort("time", "session")["session"][:500]
    cases = next_events(log_of(test.filter(pl.col("session").is_in(first.implode())), train.vocabulary))
    found = quality(create(name, **SETTINGS[name]).fit(train), cases)
    assert found == pytest.approx((hit_rate, mrr), rel=0.02)


@pytest.mark.parametrize(
    ("name", "hit_rate", "mrr"),
    [
        ("sknn", 0.642, 0.321),
        ("vsknn", 0.688, 0.367),
        ("stan", 0.682, 0.369),
        ("vstan", 0.678, 0.374),
        ("vmisknn", 0.685, 0.359),
    ],
)
def test_rsc15_whole_test_file(rsc15, name, hit_rate, mrr):
    """Our own figures, kept still; the reference's are for the 500 sessions above, which are easier by 2 %."""
    train, test = rsc15
    model = create(name, **SETTINGS.get(name, {})).fit(train)
    cases = next_events(log_of(test, train.vocabulary))
    assert quality(model, cases) == pytest.approx((hit_rate, mrr), abs=0.002)


@pytest.fixture(scope="module")
def globo() -> tuple[pl.DataFrame, pl.DataFrame]:
    """Sessions that began before the last day, and those that began on it; items of 5 clicks or more."""
    files = sorted((folder("globo") / "clicks").glob("clicks_hour_*.csv.gz"))
    names = {"session_id": "session", "click_article_id": "item", "click_timestamp": "time"}
    whole = dict.fromkeys(names, pl.Int64)  # an hour without clicks has no types of its own
    clicks = pl.concat(pl.read_csv(file, columns=list(names), schema_overrides=whole) for file in files).rename(names)
    clicks = clicks.filter(pl.col("time") < STRAYS)
    clicks = clicks.filter(pl.len().over("item") >= 5).filter(pl.len().over("session") > 1)
    begun = pl.col("time").min().over("session") < MIDNIGHT
    return clicks.filter(begun), clicks.filter(~begun)


@pytest.fixture(scope="module")
def last_day(globo) -> tuple[SessionLog, Cases]:
    train = log_of(globo[0])
    test = known_sessions(globo[1], train)
    ids = test["session"].unique().sort().to_numpy()
    chosen = np.random.default_rng(0).choice(ids, 5000, replace=False)
    return train, next_events(log_of(test.filter(pl.col("session").is_in(chosen)), train.vocabulary))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "settings", "hit_rate", "mrr"),
    [
        ("vsknn", {"neighbours": 100, "sample": 1000, "weighting": "div", "decay": "div", "idf": 0}, 0.397, 0.101),
        ("stan", {"neighbours": 100, "sample": 5000}, 0.399, None),
        ("vstan", {"neighbours": 100, "sample": 5000}, 0.408, 0.096),
    ],
)
def test_globo_gives_the_figures_of_the_reference_if_sessions_that_cross_midnight_are_learnt(
    last_day, name, settings, hit_rate, mrr
):
    """The reference asked 300 sessions, not named; samples of 300 have a standard deviation of 0.023.

    It learns sessions that began before the last day to their ends, with what was clicked after
    midnight; asked months later, our models know those too.
    """
    train, cases = last_day
    assert train.n_sessions == 959_484
    found = quality(create(name, **settings).fit(train), replace(cases, asked_at=cases.asked_at + 60 * DAY))
    assert found[0] == pytest.approx(hit_rate, abs=0.06)
    assert mrr is None or found[1] == pytest.approx(mrr, abs=0.01)


@pytest.mark.slow
def test_globo_half_of_the_hits_are_gone_once_nothing_is_known_before_it_happens(globo, last_day):
    """The articles of the last day are known from sessions that cross midnight, and only from those."""
    train = log_of(globo[0].filter(pl.col("time").max().over("session") < MIDNIGHT))
    test = known_sessions(globo[1], train)
    ids = test["session"].unique().sort().to_numpy()
    chosen = np.random.default_rng(0).choice(ids, 5000, replace=False)
    cases = next_events(log_of(test.filter(pl.col("session").is_in(chosen)), train.vocabulary))
    for name in ("vsknn", "stan", "vstan"):
        assert quality(create(name).fit(train), cases)[0] == pytest.approx(0.22, abs=0.03)
    clocked = quality(create("stan").fit(last_day[0]), last_day[1])[0]
    assert 0.22 < clocked < 0.40  # it learns from those that have ended when it is asked
