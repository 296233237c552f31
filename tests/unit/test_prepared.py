import json
from dataclasses import replace

import numpy as np
import polars as pl
import pyarrow as pa
import pytest

from nextsession.data import columns as writing
from nextsession.data import spill
from nextsession.data.cases import Cases
from nextsession.data.coding import Coder
from nextsession.data.events import read_events
from nextsession.data.filters import filtered
from nextsession.data.format import Columns, EventBatch, Filters, Labels, LogFormat, Rejected, SessionRule
from nextsession.data.items import ItemFeature, ItemTable
from nextsession.data.log import SessionLog
from nextsession.data.prepared import Prepared, prepare
from nextsession.data.vocabulary import Vocabulary
from nextsession.errors import ArtifactError, DataError

ALL = Columns(session="session", label="rating", action="type", position="rank", features=("device", "price"))


def table(n=2000, seed=0):
    """A log with every kind of column, in any order."""
    rng = np.random.default_rng(seed)
    return pl.DataFrame(
        {
            "user_id": rng.integers(0, 50, n),
            "item_id": [f"i{k}" for k in rng.zipf(1.5, n) % 97],
            "timestamp": 1_500_000_000_000 + rng.integers(0, 10_000_000, n) // 1000 * 1000,
            "session": rng.integers(0, 9, n),
            "rating": rng.integers(1, 6, n),
            "type": rng.choice(["click", "buy"], n),
            "rank": rng.integers(0, 5, n),
            "device": rng.choice(["phone", "desk", ""], n),
            "price": rng.random(n).round(3),
        }
    )


def make(frame, out, columns=ALL, by="id", filters=None, **options):
    form = LogFormat(columns=columns, labels=options.pop("labels", Labels(at_least=4) if columns.label else Labels()))
    rule = SessionRule(by=by)
    batches = frame if isinstance(frame, list) else read_events(frame, form)
    return prepare(batches, out, form=form, sessions=rule, filters=filters or Filters(), **options)


def same(a, b):
    for name in ("items", "times", "session_offsets", "user_offsets", "labels", "users"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name))
    assert a.vocabulary == b.vocabulary
    assert a.action_names == b.action_names
    assert (a.actions is None) == (b.actions is None)
    if a.actions is not None:
        np.testing.assert_array_equal(a.actions, b.actions)
    assert list(a.features) == list(b.features)
    for name in a.features:
        np.testing.assert_array_equal(a.features[name], b.features[name])


def by_dictionaries(frame):
    """{user: {session: rows}} in the order of the prepared log."""
    users = {}
    order = sorted(range(len(frame)), key=lambda r: (frame["timestamp"][r], frame["rank"][r], r))
    for row in order:
        users.setdefault(frame["user_id"][row], {}).setdefault(frame["session"][row], []).append(row)
    return {user: list(users[user].values()) for user in sorted(users)}


def test_every_column_stands_where_its_row_is(tmp_path):
    frame = table()
    log = make(frame, tmp_path / "log").log
    users = by_dictionaries(frame)
    rows = [row for sessions in users.values() for session in sessions for row in session]
    assert log.users.tolist() == list(users)
    assert np.diff(log.user_offsets).tolist() == [len(sessions) for sessions in users.values()]
    assert np.diff(log.session_offsets).tolist() == [len(s) for sessions in users.values() for s in sessions]
    expected = frame[rows]
    assert log.vocabulary.ids[log.items].tolist() == expected["item_id"].to_list()
    assert log.times.tolist() == expected["timestamp"].to_list()
    assert log.labels.tolist() == (expected["rating"] >= 4).cast(pl.Int8).to_list()
    assert [log.action_names[a] for a in log.actions] == expected["type"].to_list()
    assert log.features["device"].tolist() == expected["device"].to_list()
    assert log.features["price"].tolist() == expected["price"].to_list()
    assert log.vocabulary == Vocabulary.of(frame["item_id"].to_list())
    assert isinstance(log.items, np.memmap)


@pytest.mark.parametrize("size", [1, 7, 500])
@pytest.mark.parametrize("filters", [Filters(), Filters(item_events=4, session_events=2, user_sessions=2)])
def test_batches_and_partitions_do_not_matter(size, filters, tmp_path, monkeypatch):
    frame = table(400)
    whole = make(frame, tmp_path / "whole", filters=filters)
    monkeypatch.setattr(writing, "EVENTS_AT_ONCE", 3 * size)
    monkeypatch.setattr(writing, "_CHUNK", size)
    monkeypatch.setattr(spill, "CHUNK", 2 * size)
    batches = [EventBatch(frame[k : k + size], "the frame", k + 1) for k in range(0, len(frame), size)]
    parts = make(batches, tmp_path / "parts", filters=filters)
    same(whole.log, parts.log)
    assert whole.manifest["files"] == parts.manifest["files"]
    assert whole.manifest["filters"] == parts.manifest["filters"]


@pytest.mark.parametrize("by", ["gap", "id", "time", "user"])
def test_text_and_typed_columns_give_the_same_log(by, tmp_path):
    frame = table(300)
    frame.write_csv(tmp_path / "a.csv")
    frame.write_parquet(tmp_path / "a.parquet")
    frame.write_ndjson(tmp_path / "a.jsonl")
    logs = [make(tmp_path / f"a.{kind}", tmp_path / kind, by=by).log for kind in ("csv", "jsonl", "parquet")]
    same(logs[0], logs[1])
    same(logs[0], logs[2])


def test_rows_in_any_order_give_the_same_log_if_times_differ(tmp_path):
    frame = table(300).with_columns(timestamp=1_500_000_000_000 + 777 * pl.int_range(300))
    mixed = frame.sample(fraction=1, shuffle=True, seed=1)
    logs = [make(rows, tmp_path / name).log for name, rows in (("a", frame), ("b", mixed))]
    same(*(replace(log, actions=None, action_names=()) for log in logs))
    names = [np.array(log.action_names)[log.actions].tolist() for log in logs]
    assert names[0] == names[1]


def test_a_session_is_a_visitor_where_there_are_no_users(tmp_path):
    frame = pl.DataFrame({"s": ["y", "x", "y"], "item_id": [1, 2, 3], "timestamp": [9, 8, 7]})
    log = make(frame, tmp_path / "log", Columns(user=None, session="s")).log
    assert log.users.tolist() == ["x", "y"]
    assert log.items.tolist() == [1, 2, 0]
    assert log.n_sessions == 2


def test_without_times_the_order_of_rows_counts(tmp_path):
    frame = pl.DataFrame({"user_id": [2, 1, 2], "item_id": [5, 6, 7]})
    prepared = make(frame, tmp_path / "log", Columns(time=None), by="user")
    assert (prepared.log.items.tolist(), prepared.log.times.tolist()) == ([1, 0, 2], [0, 0, 1])
    assert not prepared.log.timed
    assert prepared.manifest["span"] == []


def test_without_times_positions_count_before_rows(tmp_path):
    frame = pl.DataFrame({"user_id": [1, 1, 1], "item_id": [5, 6, 7], "pos": [3, 1, 2]})
    log = make(frame, tmp_path / "log", Columns(time=None, position="pos"), by="user").log
    assert log.vocabulary.ids[log.items].tolist() == [6, 7, 5]


def test_labels_by_value_and_events_that_were_not_wanted_left_out(tmp_path):
    frame = pl.DataFrame({"user_id": [1] * 3, "item_id": [5, 6, 7], "timestamp": [1, 2, 3], "l": ["a", "b", "c"]})
    columns = Columns(label="l")
    kept = make(frame, tmp_path / "a", columns, "gap", labels=Labels(values=("a", "c")))
    assert kept.log.labels.tolist() == [1, 0, 1]
    assert kept.manifest["counts"]["wanted"] == 2
    left = make(frame, tmp_path / "b", columns, "gap", labels=Labels(values=("a", "c"), otherwise="dropped"))
    assert left.log.vocabulary.ids.tolist() == [5, 7]
    assert left.manifest["unwanted"] == 1
    with pytest.raises(DataError, match="it holds none; 3 events were not wanted"):
        make(frame, tmp_path / "c", columns, "gap", labels=Labels(values=("z",), otherwise="dropped"))


def test_features_of_numbers_are_numbers_with_nan_where_missing(tmp_path):
    (tmp_path / "a.csv").write_text("user_id,item_id,timestamp,x,y,z\nu,a,1,2.5,7,\nu,a,2,,x,\n")
    features = make(tmp_path / "a.csv", tmp_path / "log", Columns(features=("x", "y", "z")), "gap").log.features
    np.testing.assert_array_equal(features["x"], [2.5, np.nan])
    assert features["y"].tolist() == ["7", "x"]
    assert features["z"].tolist() == ["", ""]


def test_a_feature_must_be_of_one_kind(tmp_path):
    columns = {"user_id": [1], "item_id": [1], "timestamp": [1]}
    batches = [EventBatch(pl.DataFrame({**columns, "x": [x]}), f"part{x}") for x in (1, "a")]
    with pytest.raises(DataError, match="parta: column 'x' must hold numbers in all files or text in all"):
        make(batches, tmp_path / "log", Columns(features=("x",)), "gap")


def test_too_many_actions(tmp_path):
    frame = pl.DataFrame({"user_id": 1, "item_id": 1, "timestamp": 1, "type": [f"{k}" for k in range(40_000)]})
    with pytest.raises(DataError, match="at most 32,768 kinds of action"):
        make(frame, tmp_path / "log", Columns(action="type"), "gap")


def test_the_manifest_tells_how_the_log_was_made(tmp_path):
    for name in ("a.csv", "b.csv"):
        (tmp_path / name).write_text("user_id,item_id,timestamp\nu,a,1\nu,b,2\nv,a\n")
    options = {"bad_rows": "quarantine", "notes": {"set": "toy"}}
    prepared = make(tmp_path / "*.csv", tmp_path / "log", Columns(), "gap", Filters(item_events=2), **options)
    manifest = json.loads((tmp_path / "log" / "manifest.json").read_text())
    assert manifest == prepared.manifest
    assert manifest["counts"] == {"events": 4, "sessions": 1, "users": 1, "items": 2, "wanted": 4}
    assert manifest["span"] == [1000, 2000]
    assert manifest["sources"] == [
        {"name": str(tmp_path / name), "rows": 3, "bytes": (tmp_path / name).stat().st_size}
        for name in ("a.csv", "b.csv")
    ]
    assert (manifest["quarantined"], manifest["unwanted"], manifest["notes"]) == (2, 0, {"set": "toy"})
    assert manifest["settings"]["sessions"] == {"by": "gap", "gap": 1_800_000}
    assert manifest["filters"]["settled"]
    assert set(manifest["versions"]) == {"nextsession", "numpy", "polars", "pyarrow"}
    assert set(manifest["files"]) == {path.name for path in (tmp_path / "log").iterdir()} - {"manifest.json"}


@pytest.mark.parametrize("rule", [Filters(item_events=25), Filters(item_events=20, session_events=2, repeats="drop")])
def test_filters_on_the_way_leave_what_filters_in_memory_do(rule, tmp_path):
    whole = make(table(), tmp_path / "whole")
    part = make(table(), tmp_path / "part", filters=rule)
    expected, account = filtered(whole.log, rule)
    left = np.diff(expected.user_offsets) > 0
    assert part.log.users.tolist() == expected.users[left].tolist()
    same(part.log, replace(expected, users=part.log.users, user_offsets=part.log.user_offsets))
    assert part.manifest["filters"] == json.loads(json.dumps(account.to_dict()))
    starts = whole.log.times[whole.log.session_offsets[:-1]]
    assert np.any(np.isin(starts, part.log.times, invert=True))  # sessions lost their first events


def test_wanted_values_that_never_occur_are_refused(tmp_path):
    frame = pl.DataFrame({"user_id": ["u"], "item_id": ["a"], "timestamp": [1], "label": ["buy"]})
    message = r"Some event must be wanted, but column 'label' nowhere holds 'bye' or 'by'; .* --label-value"
    with pytest.raises(DataError, match=message):
        make(frame, tmp_path / "a", Columns(label="label"), "gap", labels=Labels(values=("bye", "by")))
    message = r"the label must be a number, or say which are wanted: --label-value \(labels.values\) \(got 'buy'\)"
    with pytest.raises(DataError, match=message):
        make(frame, tmp_path / "a", Columns(label="label"), "gap", labels=Labels())
    with pytest.raises(ValueError, match="labels say what is wanted by a column; name it: --label COLUMN"):
        LogFormat(labels=Labels(values=("buy",)))


def test_filters_that_leave_nothing(tmp_path):
    with pytest.raises(
        DataError, match=r"The filters leave nothing of the log; ask for less. Account: before +2,000 events"
    ):
        make(table(), tmp_path / "log", filters=Filters(item_events=10**6))
    assert list(tmp_path.iterdir()) == []


def test_what_is_known_of_items_is_kept(tmp_path):
    def look_up(vocabulary):
        ids = vocabulary.ids.tolist()
        colours = ItemFeature.of([["red", "blue"] if k % 2 else [] for k in range(len(ids))])
        return ItemTable({"colour": colours}, np.array([f"title of {x}" for x in ids], dtype=object))

    make(table(), tmp_path / "log", item_table=look_up)
    log = Prepared.load(tmp_path / "log").log
    expected = look_up(log.vocabulary)
    assert log.item_table.features["colour"].rows() == expected.features["colour"].rows()
    assert log.item_table.titles.tolist() == expected.titles.tolist()
    with pytest.raises(DataError, match="must have"):
        make(table(), tmp_path / "log", item_table=lambda vocabulary: ItemTable({"x": ItemFeature.of([[]])}))
    same(Prepared.load(tmp_path / "log").log, log)  # what was there is there still


def test_rejected_rows_of_a_reader_count(tmp_path):
    batch = EventBatch(table(5), "part", rejected=(Rejected("part", 9, "", "x", "the row is odd"),))
    with pytest.raises(DataError, match=r"^part, row 9: the row is odd \(got 'x'\)"):
        make([batch], tmp_path / "log")
    prepared = make([batch], tmp_path / "log", bad_rows="quarantine")
    assert prepared.manifest["sources"] == [{"name": "part", "rows": 6, "bytes": None}]


def test_progress_tells_of_every_stage(tmp_path):
    heard = []
    make(table(), tmp_path / "log", filters=Filters(item_events=2), progress=lambda *said: heard.append(said))
    assert {task for task, _, _ in heard} == {"clean", "order", "filter"}
    assert ("order", 2000, 2000) in heard


# -- saving and loading --------------------------------------------------------------------------


def questions(vocabulary):
    histories = SessionLog.from_lists([[["a"]], [["b", "a"]]], vocabulary=vocabulary)
    return Cases(histories, np.array([5, 6]), np.array([1, 0], np.int32), np.array([0, 1, 2]), np.array([0, 1]))


def test_a_log_in_memory_with_questions_comes_back(tmp_path):
    log = SessionLog.from_lists([[["a", "b"]], [["b"], ["a"]]])
    log = replace(log, labels=np.array([1, 0, 1, 1], np.int8), features={"x": np.array(["p", "q", "r", "s"], object)})
    saved = Prepared.save(tmp_path / "log", log, questions=questions(log.vocabulary), notes={"from": "memory"})
    for prepared in (saved, Prepared.load(str(tmp_path / "log"))):
        same(prepared.log, log)
        assert prepared.manifest["notes"] == {"from": "memory"}
        asked = prepared.questions
        same(asked.histories, questions(log.vocabulary).histories)
        assert asked.targets.tolist() == [1, 0]
        assert asked.asked_at.tolist() == [5, 6]
        assert len(asked.ignored) == 0
    assert saved.manifest["counts"]["events"] == 4


def test_saving_over_a_prepared_log_replaces_it(tmp_path):
    for ids in (["a"], ["b", "c"]):
        Prepared.save(tmp_path / "log", SessionLog.from_lists([[ids]]))
        assert Prepared.load(tmp_path / "log").log.vocabulary.ids.tolist() == ids
    assert [path.name for path in tmp_path.iterdir()] == ["log"]


def test_an_empty_log_can_be_saved(tmp_path):
    Prepared.save(tmp_path / "log", SessionLog.from_lists([]))
    assert Prepared.load(tmp_path / "log").log.n_events == 0


def test_questions_with_news_are_refused(tmp_path):
    log = SessionLog.from_lists([[["a", "b"]]])
    with pytest.raises(DataError, match="must be without news"):
        Prepared.save(tmp_path / "log", log, questions=replace(questions(log.vocabulary), news=log))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["items.npy", "vocabulary.arrow", "questions/targets.npy"])
def test_damage_is_found_and_the_file_named(name, tmp_path):
    log = SessionLog.from_lists([[["a", "b"]], [["b"]]])
    Prepared.save(tmp_path / "log", log, questions=questions(log.vocabulary))
    file = tmp_path / "log" / name
    content = file.read_bytes()
    file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(ArtifactError, match=f"{name} is damaged"):
        Prepared.load(tmp_path / "log")
    file.unlink()
    with pytest.raises(ArtifactError, match=f"{name} is missing"):
        Prepared.load(tmp_path / "log")


@pytest.mark.parametrize(
    ("manifest", "said"),
    [
        (None, "is not a prepared log: it has no manifest.json"),
        ("{", "manifest.json cannot be read"),
        ("[]", "manifest.json is damaged: it names no format"),
        ('{"format": 99}', "has format 99, this version reads up to 1: upgrade nextsession"),
        ('{"format": 1, "files": {}}', "is not a prepared log: its manifest names no columns"),
    ],
)
def test_manifests_that_are_none(manifest, said, tmp_path):
    (tmp_path / "log").mkdir()
    if manifest is not None:
        (tmp_path / "log" / "manifest.json").write_text(manifest)
    with pytest.raises(ArtifactError, match=said):
        Prepared.load(tmp_path / "log")


def test_a_place_that_does_not_exist(tmp_path):
    with pytest.raises(ArtifactError, match="`nextsession data prepare` makes one"):
        Prepared.load(tmp_path / "log")


# -- codes ---------------------------------------------------------------------------------------


def test_codes_grow_with_what_is_seen_and_settle_in_the_order_of_ids():
    coder, other = Coder(), Coder()
    assert coder.encode(pl.Series(["10", "9", "10"])).tolist() == [0, 1, 0]
    assert other.encode(pl.Series(["9"])).tolist() == [0]
    assert coder.encode(pl.Series(["8", "9"])).tolist() == [2, 1]
    ids, place = coder.settle()
    assert (ids.tolist(), place.tolist()) == ([8, 9, 10], [2, 1, 0])


def test_codes_hold_no_text_but_that_of_the_ids():
    coder = Coder()
    for batch in range(10):
        coder.encode(pl.Series([f"an id of some length {batch + row // 500}" for row in range(10_000)]))
    chunks = [chunk.to_arrow(compat_level=pl.CompatLevel.newest()) for chunk in coder.texts().get_chunks()]
    assert sum(buffer.size for chunk in chunks for buffer in chunk.buffers() if buffer is not None) < 10_000


@pytest.mark.parametrize("odd", ["07", "+7", "-0", "7.0", " 7", "x", str(2**63)])
def test_ids_are_numbers_only_if_all_are_written_as_numbers_are(odd):
    coder = Coder()
    coder.encode(pl.Series(["10", odd]))
    ids, _ = coder.settle()
    assert ids.tolist() == sorted(["10", odd])


def test_typed_ids_of_every_kind(tmp_path):
    for kind in (pa.int8(), pa.uint64(), pa.float64(), pa.decimal128(22, 2)):
        frame = pa.table({"user_id": [1, 2], "item_id": pa.array([7, 5]).cast(kind), "timestamp": [1, 2]})
        assert make(frame, tmp_path / "log", Columns(), "gap").log.vocabulary.ids.tolist() == [5, 7]
    for kind in (pl.Categorical, pl.Enum(["x", "y"]), pl.Binary):
        frame = pl.DataFrame({"user_id": [1, 2], "item_id": pl.Series(["y", "x"]).cast(kind), "timestamp": [1, 2]})
        assert make(frame, tmp_path / "log", Columns(), "gap").log.vocabulary.ids.tolist() == ["x", "y"]
