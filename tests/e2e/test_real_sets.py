"""The named data sets on their real files: exactly the published or counted sizes.

Skipped, set by set, where `$NEXTSESSION_DATA` is not given or does not hold the set.
"""

import os
import subprocess
import sys

import numpy as np
import pytest

from nextsession.data import sets
from nextsession.data.describe import describe
from nextsession.data.log import SessionLog
from nextsession.data.prepared import Prepared


@pytest.fixture
def real(monkeypatch, tmp_path_factory):
    """Give a function that prepares a real set from nothing, into a cache of this test run."""
    monkeypatch.setenv("NEXTSESSION_CACHE", str(tmp_path_factory.mktemp("cache")))

    def prepare(name: str, **settings: object) -> Prepared:
        one = sets.get(name)
        if not os.environ.get("NEXTSESSION_DATA") or one.find() is None:
            pytest.skip(f"set NEXTSESSION_DATA to the folder that holds {one.folders[0] if one.folders else name}/")
        return one.prepare(**settings)

    return prepare


def sizes(log: SessionLog) -> tuple[int, int, int, int]:
    """Events, users, sessions, items."""
    return log.n_events, len(log), log.n_sessions, log.n_items


def test_globo_has_its_exact_sizes(real):
    found = real("globo")
    log = found.log
    assert sizes(log) == (2_988_181, 322_897, 1_048_594, 46_033)
    assert sum(source["rows"] for source in found.manifest["sources"]) == 2_988_181
    assert real("globo").log.n_events == log.n_events  # from the cache
    lengths = np.diff(log.session_offsets)
    assert (lengths.min(), lengths.max(), round(lengths.mean(), 2)) == (2, 124, 2.85)
    assert int(np.count_nonzero(log.times >= 1_508_299_200_000)) == 688  # 2017-10-18 04:00 UTC
    text = describe(log).text()
    assert "events           2,988,181" in text
    assert "0.0% of the sessions have one event" in text


MEMORY = """
import resource, sys
from pathlib import Path
from nextsession.data import sets
small, large = sys.argv[1:]
sets.get("globo").prepare(Path(small), folder=Path(small).parent)  # loops are compiled once per machine
sets.get("globo").prepare(Path(large))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6)
"""


def test_globo_is_prepared_in_1_5_gb(real, tmp_path):
    if sets.get("globo").find() is None:
        real("globo")  # skips, and says why
    head = "user_id,session_id,click_article_id,click_timestamp\n"
    (tmp_path / "clicks_hour_000.csv").write_text(head + "0,1,5,1506826828020\n", encoding="utf-8")
    command = [sys.executable, "-c", MEMORY, str(tmp_path / "small"), str(tmp_path / "large")]
    gigabytes = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert float(gigabytes) < 1.5


def test_ebnerd_has_its_exact_sizes(real):
    found = real("ebnerd")
    log = found.log
    notes = found.manifest["notes"]
    assert (notes["impressions"], notes["shown"], notes["clicks"]) == (24_724, 278_139, 24_888)
    assert len(np.unique(log.features["impression_id"])) == 24_724
    assert int(log.labels.sum()) == 24_888
    assert log.n_events == 278_139 + 59  # 59 second clicks on an article of the same impression
    assert (len(log), log.n_sessions, log.n_items) == (1_590, 12_944, 2_478)


def test_mind_sample(real):
    log = real("mind").log
    assert (log.n_events, int(log.labels.sum()), log.n_sessions, len(log)) == (189_359, 7_542, 5_000, 4_637)
    titles = log.item_table.titles
    assert np.count_nonzero(titles != "") > 0


@pytest.mark.parametrize(
    ("name", "events", "users", "items"),
    [
        ("ml-100k", 100_000, 943, 1_682),
        ("ml-latest-small", 100_004, 671, 9_066),
        ("ml-1m-order", 999_611, 6_040, 3_416),
        ("beauty", 198_502, 22_363, 12_101),
        ("kuairand", 41_828, 664, 9_359),
    ],
)
def test_sizes_by_user(real, name, events, users, items):
    log = real(name).log
    assert (log.n_events, len(log), log.n_items) == (events, users, items)


def test_labels_and_titles_of_movielens(real):
    log = real("ml-100k").log
    assert int(log.labels.sum()) == 55_375
    place = log.vocabulary.encode([50])[0]
    assert log.item_table.titles[place] == "Star Wars (1977)"
    assert "Sci-Fi" in log.item_table.features["genre"].rows()[place]


def test_titles_of_latest_small(real):
    log = real("ml-latest-small").log
    assert np.all(log.item_table.titles != "")


def test_attributes_of_beauty(real):
    log = real("beauty").log
    assert not log.timed
    assert min(len(row) for row in log.item_table.features["attribute"].rows()) >= 1


def test_tafeng(real):
    log = real("tafeng").log
    assert sizes(log) == (571_933, 13_858, 91_227, 11_997)
    assert not log.timed


@pytest.mark.parametrize(
    ("name", "sessions", "prefixes", "items", "events"),
    [("diginetica-gce", 186_670, 60_858, 43_097, 719_470), ("tmall-gce", 65_286, 25_898, 40_727, 351_268)],
)
def test_gce(real, name, sessions, prefixes, items, events):
    found = real(name)
    assert (found.log.n_sessions, found.log.n_items) == (sessions, items)
    assert found.log.n_events - sessions == events  # each event but the first ends a training prefix
    cases = found.questions
    assert len(cases) == prefixes
    assert len(cases.histories.vocabulary) == items
    assert not found.log.timed


@pytest.mark.parametrize(
    ("name", "clicks", "sessions", "items", "asked_clicks", "asked_sessions"),
    [
        ("rsc15-100k", 70_278, 17_794, 2_933, 13_568, 3_416),
        ("rsc15-64", 99_943, 24_761, None, 7_299, 1_703),
        ("serenade-toy", 113_601, 23_753, 18_009, 1_233, 302),
    ],
)
def test_session_rec(real, name, clicks, sessions, items, asked_clicks, asked_sessions):
    found = real(name)
    log, cases = found.log, found.questions
    assert (log.n_events, log.n_sessions) == (clicks, sessions)
    assert items in (None, log.n_items)
    assert len(cases) == asked_clicks - asked_sessions
    assert len(np.unique(cases.groups)) == asked_sessions
    assert np.all(cases.asked_at > cases.histories.last_times)


def test_otto_fixture(real):
    log = real("otto").log
    assert log.n_sessions == 20
    assert set(log.action_names) == {"clicks", "carts", "orders"}
