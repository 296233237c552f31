"""From the log of a server to the log that models learn from, with what was erased left out."""

import json
from dataclasses import replace

import numpy as np
import pytest

from nextsession import SessionLog
from nextsession.cli import main
from nextsession.data.prepared import Prepared
from nextsession.serving.events import Event, Shown, Tombstone, digest_of
from nextsession.serving.export import export, without_erased
from nextsession.serving.sqlite import SQLiteStore

NOW = 1_700_000_000_000


@pytest.fixture
def state(tmp_path):
    (tmp_path / "state").mkdir()
    store = SQLiteStore(tmp_path / "state" / "events.sqlite", alone=True)
    store.append([Event("a", "anon", "tea", NOW), Event("b", "ann", "milk", NOW + 1, "cart", request="r")], NOW + 9)
    store.append([Event("c", "eve", "soap", NOW), Event("d", "ann", "x", NOW + 2, "shown", 0)], NOW + 9)
    store.submit_shown(Shown("r", "ann", NOW, "main", "v1", ("milk", "tea"), explored={"tea": 0.25}))
    store.merge("anon", "ann", NOW + 9)
    yield store
    store.close()


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def run(*arguments):
    with pytest.raises(SystemExit) as ended:
        main([str(a) for a in arguments])
    return ended.value.code


def test_events_come_out_while_the_server_runs(state, tmp_path):
    assert export(state, tmp_path / "out.jsonl") == {"rows": 3, "last": 5}
    found = lines(tmp_path / "out.jsonl")
    assert [(row["visitor"], row["item"], row["action"]) for row in found] == [
        ("ann", "tea", "click"),
        ("ann", "milk", "cart"),
        ("eve", "soap", "click"),
    ]
    everything = tmp_path / "all.jsonl"
    assert run("export", tmp_path / "state", everything, "--shown", "--erased", tmp_path / "erased.json") == 0
    assert [(row["item"], row["label"], row["request"]) for row in lines(everything) if row["action"] == "shown"] == [
        ("x", 0, ""),
        ("milk", 0, "r"),
        ("tea", 0, "r"),
    ]
    assert [row["propensity"] for row in lines(everything)] == [None, None, None, None, None, 0.25]
    assert "propensity" not in found[0]
    assert json.loads((tmp_path / "erased.json").read_text()) == []
    assert run("export", tmp_path / "state", everything, "--after", "5") == 0
    assert lines(everything) == []


def test_what_was_erased_is_in_no_export(state, tmp_path):
    state.erase("anon", NOW + 10)
    state.close()
    assert run("export", tmp_path / "state", tmp_path / "out.jsonl", "--shown", "--erased", tmp_path / "e.json") == 0
    assert {row["visitor"] for row in lines(tmp_path / "out.jsonl")} == {"eve"}
    erased = json.loads((tmp_path / "e.json").read_text())
    assert {stone["sha256"] for stone in erased} == {digest_of("ann"), digest_of("anon")}


def test_an_export_can_be_prepared_and_learnt_from(state, tmp_path):
    state.append([Event("bad", "eve", "tea", NOW + 5, label=0)], NOW + 9)
    run("export", tmp_path / "state", tmp_path / "out.jsonl")
    prepare = ["data", "prepare", tmp_path / "out.jsonl", "--user", "visitor", "--item", "item", "--time", "time"]
    assert run(*prepare, "--label", "label", "--label-value", "1", "--out", tmp_path / "prepared") == 0
    log = Prepared.load(tmp_path / "prepared").log
    assert log.users.tolist() == ["ann", "eve"]
    assert log.vocabulary.decode(log.items).tolist() == ["tea", "milk", "soap", "tea"]
    assert log.times.tolist() == [NOW, NOW + 1, NOW, NOW + 5]
    assert log.labels.tolist() == [1, 1, 1, 0]


def test_older_logs_lose_what_was_erased_since():
    log = SessionLog.from_lists([[["a", "b"]], [["c"]]], times=[[[1, 5]], [[1]]])
    log = replace(log, users=np.array(["ann", "bob"], dtype=object))
    left = without_erased(log, [Tombstone(digest_of("ann"), 1), Tombstone(digest_of("eve"), 9)])
    assert left.users.tolist() == ["ann", "bob"]
    assert left.vocabulary.decode(left.items).tolist() == ["b", "c"]


def test_a_folder_without_events(tmp_path, capsys):
    assert run("export", tmp_path, tmp_path / "out") == 2
    assert "holds no events of a server; name the folder that `serve --state` named" in capsys.readouterr().err
