"""HSTU and HSTU+: what a state may depend on, which times it reads, and what events with labels teach."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from torch import Tensor

from nextsession import SessionLog, create, load
from nextsession.answering import Facts
from nextsession.data.items import ItemFeature, ItemTable
from nextsession.data.log import offsets_of
from nextsession.errors import ConfigError, DataError
from nextsession.models.hstu import HSTU, HSTUSettings
from nextsession.models.hstuplus import HSTUPlus, NextWanted
from nextsession.nn.batches import Rows
from nextsession.nn.hstu import HSTUEncoder, HSTUForm
from nextsession.nn.jagged import Batch, Jagged
from nextsession.nn.networks import Network, shifted
from nextsession.slices import latest
from nextsession.testing.strategies import logs
from nextsession.transducers import Transducer

DIM = 8
HOUR = 3_600_000
SMALL = {"dim": 16, "max_length": 20, "epochs": 2, "batch_size": 8, "learning_rate": 0.01}
FORMS = [
    HSTUForm(longest=30, heads=2, dqk=3, dv=4, rate=0.0),
    HSTUForm(longest=30, heads=1, dqk=8, dv=8, normaliser="constant", concat=True, rate=0.0),
    HSTUForm(longest=30, heads=2, dqk=4, dv=4, times=False, rate=0.0),
]


def encoder_of(form: HSTUForm) -> HSTUEncoder:
    torch.manual_seed(4)
    encoder = HSTUEncoder(DIM, 2, form)
    for weight in encoder.parameters():
        torch.nn.init.normal_(weight, std=0.4)
    return encoder.eval()


def rows_of(lengths: list[int], seed: int = 0) -> Jagged:
    rng = np.random.default_rng(seed)
    n, offsets = sum(lengths), torch.from_numpy(offsets_of(np.array(lengths)))
    times = torch.from_numpy(np.cumsum(rng.integers(0, 10 * HOUR, n)))
    asked = torch.full((len(lengths),), int(times[-1]) + HOUR)
    return Jagged(torch.from_numpy(rng.normal(size=(n, DIM))).float(), offsets, max(lengths), times, asked)


def row(rows: Jagged, r: int) -> Jagged:
    """Return one row by itself."""
    assert rows.times is not None
    assert rows.asked_at is not None
    a, z = int(rows.offsets[r]), int(rows.offsets[r + 1])
    return Jagged(rows.values[a:z], torch.tensor([0, z - a]), z - a, rows.times[a:z], rows.asked_at[r : r + 1])


# -- the encoder --------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
def test_a_row_is_encoded_alone_as_in_company(form: HSTUForm) -> None:
    encoder, rows = encoder_of(form), rows_of([4, 30, 0, 1, 7])
    found = encoder(rows)
    for r in range(len(rows)):
        a, z = rows.offsets[r], rows.offsets[r + 1]
        torch.testing.assert_close(encoder(row(rows, r)), found[a:z], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("longest", [5, 6, 17, 30])
def test_room_for_longer_rows_changes_nothing(form: HSTUForm, longest: int) -> None:
    encoder, rows = encoder_of(form), rows_of([5, 3])
    torch.testing.assert_close(encoder(replace(rows, longest=longest)), encoder(rows), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("form", FORMS)
def test_rows_in_another_order_have_their_states_in_that_order(form: HSTUForm) -> None:
    encoder, rows = encoder_of(form), rows_of([4, 9, 0, 1])
    states, order = rows.with_values(encoder(rows)), [2, 1, 3, 0]
    parts = [row(rows, r) for r in order]
    shuffled = Jagged(
        torch.cat([p.values for p in parts]),
        torch.from_numpy(offsets_of(np.array([len(p.values) for p in parts]))),
        9,
        torch.cat([p.times for p in parts if p.times is not None]),
        torch.cat([p.asked_at for p in parts if p.asked_at is not None]),
    )
    wanted = torch.cat([row(states, r).values for r in order])
    torch.testing.assert_close(encoder(shuffled), wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("form", FORMS)
def test_no_state_sees_what_comes_later(form: HSTUForm) -> None:
    """Neither in value nor in gradient; the time of the next event is what a state does know, if it knows times."""
    encoder, rows = encoder_of(form), rows_of([6, 5])
    before = encoder(rows)
    for i in range(5):
        values = rows.values.clone()
        values[i + 1 : 6] += 1
        torch.testing.assert_close(encoder(rows.with_values(values))[: i + 1], before[: i + 1], rtol=0, atol=0)
        values = rows.values.clone().requires_grad_()
        encoder(rows.with_values(values))[i].sum().backward()
        assert values.grad is not None
        assert not values.grad[i + 1 :].any()
        assert values.grad[: i + 1].all()


@pytest.mark.parametrize("place", range(6))
def test_a_state_reads_the_time_of_the_next_event_and_none_later(place: int) -> None:
    encoder, rows = encoder_of(FORMS[0]), rows_of([6])
    assert rows.times is not None
    assert rows.asked_at is not None
    later = rows.times + 3000 * HOUR * (torch.arange(6) >= place)  # all that happens from `place` on is later
    moved = replace(rows, times=later, asked_at=rows.asked_at + 3000 * HOUR)
    same = (encoder(moved) == encoder(rows)).all(1)
    assert same.tolist() == [i + 1 < place or place == 0 for i in range(6)]


def test_the_newest_state_reads_the_instant_of_the_question() -> None:
    rows = rows_of([3, 4])
    assert rows.asked_at is not None
    moved = replace(rows, asked_at=rows.asked_at + 50 * HOUR * torch.tensor([0, 1]))
    for form, last in zip(FORMS, [False, False, True], strict=True):
        encoder = encoder_of(form)
        same = (encoder(moved) == encoder(rows)).all(1)
        assert same.tolist() == [True] * 6 + [last]


@pytest.mark.parametrize("form", FORMS)
def test_last_states_by_themselves(form: HSTUForm) -> None:
    encoder, rows = encoder_of(form), rows_of([4, 9, 0, 1])
    found, wanted = encoder.last(rows), rows.with_values(encoder(rows)).last()
    torch.testing.assert_close(found[[0, 1, 3]], wanted[[0, 1, 3]], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("form", FORMS)
def test_rows_without_events(form: HSTUForm) -> None:
    none, zeros = torch.zeros(0, dtype=torch.int64), torch.zeros(3, dtype=torch.int64)
    empty = Jagged(torch.zeros(0, DIM), zeros, 0, none, zeros[:2])
    assert encoder_of(form)(empty).shape == (0, DIM)
    assert encoder_of(form).last(empty).shape == (2, DIM)


def test_rows_without_times_are_refused_where_times_are_read() -> None:
    rows = replace(rows_of([3]), times=None, asked_at=None)
    with pytest.raises(ValueError, match="these rows have none"):
        encoder_of(FORMS[0])(rows)
    assert encoder_of(FORMS[2])(rows).shape == (3, DIM)


# -- rows of training ---------------------------------------------------------------------------


def test_rows_of_training_know_the_time_of_what_they_foretell() -> None:
    minutes = [[[0, 1], [60, 61, 65]], [[7]], [[3, 9]]]
    log = SessionLog.from_lists(
        [[["a", "b"], ["c", "d", "e"]], [["a"]], [["b", "c"]]],
        times=[[[60_000 * m for m in session] for session in user] for user in minutes],
    )
    batch = Rows(log, latest(log.event_offsets, 4)).batch(np.array([2, 0, 1]))
    known, targets, _ = shifted(batch)
    events = known.events
    assert events.times is not None
    assert [log.vocabulary.ids[i] for i in targets] == ["c", "c", "d", "e"]
    assert (events.times // 60_000).tolist() == [3, 1, 60, 61]
    assert (events.next_times // 60_000).tolist() == [9, 60, 61, 65]


# -- the model ----------------------------------------------------------------------------------


def a_log(seed: int = 0, users: int = 20) -> SessionLog:
    rng = np.random.default_rng(seed)
    rows = [[[f"i{i}" for i in rng.integers(0, 12, rng.integers(1, 6))] for _ in range(3)] for _ in range(users)]
    return SessionLog.from_lists(rows)


def test_the_instant_of_the_question_matters_only_where_times_are_read() -> None:
    log = a_log()
    asked = log.rows(0, 5)
    instants = asked.last_times.max() + np.array([[1000], [500 * HOUR]])
    for time, differ in (("relative", True), ("none", False)):
        model = HSTU(**SMALL, time=time).fit(log)
        now, later = (model.scores(asked, asked_at=int(t[0])).dense() for t in instants)
        assert np.allclose(now, later) != differ


def test_a_log_without_times_teaches_no_bias_by_time(tmp_path: Path) -> None:
    log = replace(a_log(), timed=False)
    model, plain = HSTU(**SMALL).fit(log), HSTU(**SMALL, time="none").fit(log)
    asked = log.rows(0, 5)
    assert not any("by_time" in name for name in model.network_.state_dict())
    np.testing.assert_array_equal(model.scores(asked).dense(), plain.scores(asked).dense())
    model.save(tmp_path / "model")
    again = load(tmp_path / "model")
    np.testing.assert_array_equal(model.scores(asked).dense(), again.scores(asked).dense())


def test_histories_without_times_are_refused_by_a_model_that_learnt_from_times() -> None:
    log = a_log()
    model = HSTU(**SMALL).fit(log)
    with pytest.raises(DataError, match="hold only the order"):
        model.recommend(replace(log, timed=False))
    assert len(model.recommend(replace(log.rows(0, 0), timed=False))) == 0
    HSTU(**SMALL, time="none").fit(log).recommend(replace(log, timed=False))


@pytest.mark.parametrize(
    ("name", "windows", "reads"),
    [("hstu", "latest", "session"), ("hstu", "chunks", "history"), ("hstuplus", "latest", "history")],
)
def test_a_session_of_a_hundred_thousand_events(name: str, windows: str, reads: str) -> None:
    rng = np.random.default_rng(0)
    n = 100_000
    log = SessionLog(
        items=rng.integers(0, 50, n).astype(np.int32),
        times=np.arange(n) * 1000,
        session_offsets=np.array([0, n]),
        user_offsets=np.array([0, 1]),
        vocabulary=SessionLog.from_lists([[[f"i{i:02}" for i in range(50)]]]).vocabulary,
    )
    settings = {"dim": 4, "layers": 1, "max_length": 50, "epochs": 1, "windows": windows, "reads": reads}
    model = create(name, **settings).fit(log)
    end = SessionLog(log.items[-50:], log.times[-50:], np.array([0, 50]), np.array([0, 1]), log.vocabulary)
    np.testing.assert_allclose(model.scores(log).dense(), model.scores(end).dense(), rtol=1e-5)


@pytest.mark.parametrize("preset", HSTUSettings.presets)
def test_presets_train(preset: str) -> None:
    small = {"dim": 8, "layers": 1, "epochs": 1, "max_length": 10}
    model = HSTU(preset=preset, **small).fit(a_log())
    assert np.isfinite(model.curve_[:, 1]).all()


@pytest.mark.parametrize("name", ["hstu", "hstuplus"])
def test_side_features_and_half_precision_train(name: str) -> None:
    log = labelled(a_log())
    colours = ItemTable({"colour": ItemFeature.of([[f"c{i % 3}"] for i in range(log.n_items)])})
    log = replace(log, item_table=colours)
    model = create(name, **SMALL, features=("colour",), precision="bfloat16").fit(log)
    assert isinstance(model, Transducer)
    assert any("features" in weight for weight in model.network_.state_dict())
    assert np.isfinite(model.scores(log.rows(0, 4)).dense()).all()


def test_heads_divide_the_width() -> None:
    with pytest.raises(ConfigError, match="heads must divide dim"):
        HSTU(dim=10, heads=3)
    HSTU(dim=10, heads=3, dqk=4, dv=4)


# -- what labels teach --------------------------------------------------------------------------


def labelled(log: SessionLog, seed: int = 0) -> SessionLog:
    labels = (np.random.default_rng(seed).random(log.n_events) < 0.4).astype(np.int8)
    return replace(log, labels=labels)


def a_network(skip: bool, shown: int) -> NextWanted:
    targets = "next-wanted" if skip else "next-event"
    model = HSTUPlus(dim=4, max_length=50, targets=targets, shown=shown)
    model.timed_ = True
    torch.manual_seed(1)
    network = model._network(Facts(10))
    assert isinstance(network, NextWanted)
    return network.eval()


Lesson = tuple[tuple[int, int], list[int], list[int]]


def lessons_by_loops(log: SessionLog, skip: bool, most: int) -> list[Lesson]:
    """Return ((row, place asked after), items wanted, items shown beside them and ignored), from the definition."""
    found = []
    labels, items, session = log.labels, log.items, log.session_of_event
    times = np.arange(log.n_events) if np.all(labels == 1) else log.times  # lists are known by what was ignored
    for r in range(len(log)):
        a, z = log.event_offsets[r], log.event_offsets[r + 1]
        for i in range(a, z - 1):
            if times[i + 1] == times[i]:
                continue
            wanted = [j for j in range(i + 1, z) if labels[j] == 1]
            if not wanted or (not skip and times[wanted[0]] != times[i + 1]):
                continue
            targets = [j for j in wanted if times[j] == times[wanted[0]]]
            shown = set()
            for target in targets:
                shown |= {j for j in range(i + 1, target) if labels[j] == 0 and target - j <= most}
                j = target + 1
                while j < z and labels[j] == 0 and session[j] == session[target] and j - target <= most:
                    shown.add(j)
                    j += 1
            found.append(((r, i - a), [int(items[j]) for j in targets], [int(items[j]) for j in sorted(shown)]))
    return found


def instants_shared(log: SessionLog, seed: int) -> SessionLog:
    """Return the log with some events of a session at the instant of the one before."""
    times = log.times.copy()
    again = np.random.default_rng(seed).random(log.n_events) < 0.4
    for i in range(1, log.n_events):
        if again[i] and log.session_of_event[i] == log.session_of_event[i - 1]:
            times[i] = times[i - 1]
    return replace(log, times=times)


@pytest.mark.parametrize("lists", [False, True])
@pytest.mark.parametrize(("skip", "most"), [(False, 3), (True, 3), (True, 1), (True, 20), (True, 0)])
@given(log=logs(users=4, events=6))
def test_what_labelled_events_teach(skip: bool, most: int, lists: bool, log: SessionLog) -> None:
    network = a_network(skip, most)
    log = labelled(log, log.n_events)
    if lists:
        log = instants_shared(log, log.n_events)
    batch = Batch.of_log(log, log.last_times)
    lessons = network.examples(batch)
    expected = lessons_by_loops(log, skip, most)
    assert lessons.positives.tolist() == [item for _, items, _ in expected for item in items]
    of_query = range(len(expected)) if lessons.of_query is None else lessons.of_query.tolist()
    assert list(of_query) == [query for query, (_, items, _) in enumerate(expected) for _ in items]
    assert lessons.users is not None
    assert lessons.users.tolist() == [r for (r, _), _, _ in expected]
    assert lessons.shown is not None
    assert lessons.shown_of is not None
    beside: list[list[int]] = [[] for _ in expected]
    for item, query in zip(lessons.shown.tolist(), lessons.shown_of.tolist(), strict=True):
        beside[query].append(item)
    if batch.labels is not None:
        assert beside == [shown for _, _, shown in expected]
    for query, ((r, i), _, _) in zip(lessons.queries, expected, strict=True):
        torch.testing.assert_close(query, asked_after(network, log, r, i), rtol=1e-4, atol=1e-5)


def asked_after(network: Network, log: SessionLog, r: int, i: int) -> Tensor:
    """Return the query of a history that ends with event `i` of row `r`, asked when the next event happens."""
    a, last = log.event_offsets[r], log.event_offsets[r] + i
    cut = slice(a, last + 1)
    one = SessionLog(
        log.items[cut], log.times[cut], np.array([0, i + 1]), np.array([0, 1]), log.vocabulary, labels=log.labels[cut]
    )
    with torch.no_grad():
        queries: Tensor = network(Batch.of_log(one, log.times[last + 1 : last + 2]))
    return queries[0]


def test_kinds_and_labels_are_read() -> None:
    log = labelled(a_log())
    kinds = np.random.default_rng(1).integers(0, 2, log.n_events).astype(np.int16)
    log = replace(log, actions=kinds, action_names=("view", "buy"))
    model = HSTUPlus(**SMALL).fit(log)
    asked = log.rows(0, 6)
    known = model.scores(asked).dense()
    assert asked.actions is not None
    others = replace(asked, actions=1 - asked.actions)
    assert not np.allclose(known, model.scores(others).dense())
    flipped = replace(asked, labels=1 - asked.labels)
    assert not np.allclose(known, model.scores(flipped).dense())


def test_what_was_shown_is_pushed_down() -> None:
    """Everybody is shown `no` and takes `yes` after `a`: a loss that sees what was shown ranks `no` below the rest."""
    shown = {"kind": "sampled_softmax", "negatives": {"kind": "shown"}}
    loss = {"kind": "sum", "parts": [{"loss": {"kind": "softmax"}, "weight": 0.3}, {"loss": shown}]}
    log = SessionLog.from_lists([[["a", "no", "yes", "b", "c"]]] * 20)
    log = replace(log, labels=np.tile(np.array([1, 0, 1, 1, 1], np.int8), 20))
    model = HSTUPlus(**{**SMALL, "epochs": 20}, targets="next-wanted", loss=loss).fit(log)
    (ranked,) = model.recommend(SessionLog.from_lists([[["a"]]]), 5)
    assert (ranked[0], ranked[-1]) == ("yes", "no")
