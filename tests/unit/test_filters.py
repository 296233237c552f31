import os
from pathlib import Path

import numpy as np
import pytest

from nextsession.data.events import read_events
from nextsession.data.filters import Sizes, filtered
from nextsession.data.format import Columns, Filters, LogFormat, SessionRule
from nextsession.data.log import SessionLog
from nextsession.data.prepared import prepare


def left(users, **rule):
    """What the filters leave of users' sessions, and the account."""
    log = SessionLog.from_lists(users)
    out, account = filtered(log, Filters(**rule))
    ids = out.vocabulary.ids[out.items].tolist()
    sessions = [ids[a:b] for a, b in zip(out.session_offsets[:-1], out.session_offsets[1:], strict=True)]
    cuts = zip(out.user_offsets[:-1], out.user_offsets[1:], strict=True)
    return {u: sessions[a:b] for u, (a, b) in zip(out.users.tolist(), cuts, strict=True) if b > a}, account


def test_nothing_asked_for_changes_nothing():
    users, account = left([[["a", "b"]], [["a"]]])
    assert users == {0: [["a", "b"]], 1: [["a"]]}
    assert (account.removals, account.settled) == ((), True)
    assert account.before == account.after == Sizes(3, 2, 2, 2)


def test_items_of_fewer_events_go():
    assert left([[["a", "b"], ["a"]], [["a"]]], item_events=3)[0] == {0: [["a"], ["a"]], 1: [["a"]]}


def test_sessions_too_short_and_too_long_go():
    users = [[["a"], ["a", "b"], ["a", "b", "c"]]]
    assert left(users, session_events=2, longest_session=2)[0] == {0: [["a", "b"]]}


def test_users_of_too_little_go():
    users = [[["a", "b", "c"]], [["a"], ["b"]]]
    assert left(users, user_events=3)[0] == {0: [["a", "b", "c"]]}
    assert left(users, user_sessions=2)[0] == {1: [["a"], ["b"]]}


def test_only_consecutive_repeats_go():
    assert left([[["a", "a", "b", "a"], ["a"]]], repeats="drop")[0] == {0: [["a", "b", "a"], ["a"]]}


def test_repeats_that_another_rule_brings_together_go_in_the_next_round():
    users, account = left([[["a", "b", "a"]]], repeats="drop", item_events=2)
    assert users == {}
    assert max(removal.round for removal in account.removals) == 3  # b goes; then both a; then nothing


def test_rounds_go_on_until_nothing_changes_and_the_account_says_what_each_rule_took():
    users = [[["a", "b"]], [["b", "c"]], [["a", "c", "c"]], [["d", "c", "b"], ["e"]]]
    out, account = left(users, item_events=2, session_events=2)
    assert out == {0: [["a", "b"]], 1: [["b", "c"]], 2: [["a", "c", "c"]], 3: [["c", "b"]]}
    assert [(r.round, r.rule, r.least, r.removed.events) for r in account.removals] == [
        (1, "item_events", 2, 2),
        (1, "session_events", 2, 0),
        (2, "item_events", 2, 0),
        (2, "session_events", 2, 0),
    ]
    assert account.removals[0].removed == Sizes(2, 1, 0, 2)
    assert str(account).splitlines()[1] == "round 1  item_events 2: removed 2 events, 1 sessions, 0 users, 2 items"
    assert account.to_dict()["after"] == {"events": 9, "sessions": 4, "users": 4, "items": 3}


def test_passes_end_it_sooner_and_the_account_says_so():
    users = [[["a", "b"]], [["b", "c"]], [["c", "d"]], [["d", "d"]]]
    out, account = left(users, item_events=2, session_events=2, passes=1)
    assert out == {1: [["b", "c"]], 2: [["c", "d"]], 3: [["d", "d"]]}
    assert not account.settled
    assert str(account).endswith("(rounds were limited)")


def test_sessions_without_enough_wanted_events_go():
    log = SessionLog(
        items=np.array([0, 1, 0], np.int32),
        times=np.arange(3),
        session_offsets=np.array([0, 2, 3]),
        user_offsets=np.array([0, 2]),
        vocabulary=SessionLog.from_lists([[["a", "b"]]]).vocabulary,
        labels=np.array([1, 0, 0], np.int8),
    )
    out, _ = filtered(log, Filters(session_positives=1))
    assert (out.items.tolist(), out.labels.tolist()) == ([0, 1], [1, 0])


def test_overlapping_sessions_stay_in_the_order_of_what_is_left():
    log = SessionLog.from_lists([[["x", "a", "a"], ["a", "b", "b"]]], times=[[[0, 9, 10], [5, 6, 7]]])
    out, _ = filtered(log, Filters(item_events=2))
    assert out.vocabulary.ids[out.items].tolist() == ["a", "b", "b", "a", "a"]
    assert out.times.tolist() == [5, 6, 7, 9, 10]


@pytest.mark.slow
@pytest.mark.skipif("NEXTSESSION_DATA" not in os.environ, reason="set NEXTSESSION_DATA to the folder that holds globo/")
def test_a_large_news_log_is_filtered_to_the_published_sizes(tmp_path):
    files = Path(os.environ["NEXTSESSION_DATA"]) / "globo" / "clicks" / "*.csv.gz"
    form = LogFormat(columns=Columns(item="click_article_id", time="click_timestamp", session="session_id"))
    rule = Filters(item_events=5, user_events=5, user_sessions=3, passes=3)
    by_id = SessionRule(by="id")
    prepared = prepare(read_events(str(files), form), tmp_path / "log", form=form, sessions=by_id, filters=rule)
    sizes = {name: prepared.manifest["counts"][name] for name in ("events", "sessions", "users", "items")}
    assert prepared.manifest["filters"]["before"] == {
        "events": 2_988_181,
        "sessions": 1_048_594,
        "users": 322_897,
        "items": 46_033,
    }
    assert sizes == {"events": 2_317_236, "sessions": 785_775, "users": 125_089, "items": 11_587}
