"""BERT4Rec: what is hidden, what is read, what is ranked."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nextsession import SessionLog, create
from nextsession.answering import Facts
from nextsession.models.bert4rec import BERT4Rec
from nextsession.nn.batches import Rows
from nextsession.nn.cloze import Cloze, appended, hidden_events
from nextsession.nn.jagged import Batch, Jagged
from nextsession.slices import sliding

V = 9
SHORT = {"dim": 8, "max_length": 5, "epochs": 1, "batch_size": 4}
ROWS = [[1, 2, 3, 4, 5], [6], [7, 8], [0, 0, 0, 1]]


def network(**settings) -> Cloze:
    torch.manual_seed(3)
    return BERT4Rec(**{**SHORT, **settings})._network(Facts(V)).eval()


def batch(rows: list[list[int]]) -> Batch:
    events = Jagged.of(rows)
    sessions = Jagged(events.offsets[:-1][events.lengths > 0], (events.lengths > 0).cumsum(0), 1)
    return Batch(events, sessions)


def flags(events: Jagged, *how) -> torch.Tensor:
    """Which events are hidden, `(N,)`."""
    places = hidden_events(events, *how)
    found = torch.zeros(len(events.values), dtype=torch.bool)
    found[places] = True
    assert int(found.sum()) == len(places)  # none twice
    assert events.rows[places].tolist() == sorted(events.rows[places].tolist())
    return found


def read_by(monkeypatch, net: Cloze, asked) -> tuple[Jagged, torch.Tensor, object]:
    seen = []
    states = net.states
    monkeypatch.setattr(net, "states", lambda events, at: seen.append((events, at)) or states(events, at))
    result = asked()
    return *seen[0], result


# -- what is hidden ------------------------------------------------------------------------------


@given(
    st.lists(st.integers(0, 12), min_size=1, max_size=8),
    st.floats(0.01, 0.99),
    st.integers(0, 9),
    st.sampled_from([0, 1]),
)
def test_so_many_of_each_row_are_hidden(lengths, share, seed, last_only):
    torch.manual_seed(seed)
    events = Jagged.of([[0] * n for n in lengths])
    hidden = flags(events, share, last_only)
    for row, n in zip(torch.split(hidden, lengths), lengths, strict=True):
        if last_only:
            assert row.tolist() == [False] * (n - 1) + [True] * (n > 0)
        else:
            assert int(row.sum()) == (max(1, round(n * share)) if n else 0)


def test_each_choice_is_as_likely_as_any_other():
    torch.manual_seed(0)
    events = Jagged.of([[0] * 5] * 20_000)
    hidden = flags(events, 0.4, 0.0).view(-1, 5)
    pairs = hidden.double().T @ hidden.double() / len(hidden)
    np.testing.assert_allclose(pairs.diagonal(), 0.4, atol=0.02)
    np.testing.assert_allclose(pairs[~torch.eye(5, dtype=torch.bool)], 0.1, atol=0.015)


def test_the_last_alone_is_hidden_as_often_as_asked():
    torch.manual_seed(0)
    events = Jagged.of([[0] * 10] * 20_000)
    hidden = flags(events, 0.5, 0.3).view(-1, 10)
    alone = hidden.sum(1) == 1
    assert alone.double().mean() == pytest.approx(0.3, abs=0.02)
    assert hidden[alone][:, -1].all()
    assert (hidden[~alone].sum(1) == 5).all()


@given(
    st.lists(st.lists(st.booleans(), max_size=8), min_size=1, max_size=6), st.integers(0, 9), st.sampled_from([0, 1])
)
def test_ignored_events_are_never_hidden(rows, seed, last_only):
    torch.manual_seed(seed)
    events, allowed = Jagged.of([[0] * len(row) for row in rows]), torch.tensor([x for row in rows for x in row]).bool()
    hidden = flags(events, 0.5, last_only, allowed)
    for row, found in zip(rows, torch.split(hidden, [len(row) for row in rows]), strict=True):
        assert not (found & ~torch.tensor(row, dtype=torch.bool)).any()
        if last_only and any(row):
            assert found.nonzero().flatten().tolist() == [max(i for i, wanted in enumerate(row) if wanted)]
        else:
            assert int(found.sum()) == (max(1, round(sum(row) * 0.5)) if any(row) else 0)


def test_masks_come_from_torchs_generator_anew_in_every_step():
    net, rows = network(), batch([[1, 2, 3, 4, 5]] * 50)
    torch.manual_seed(1)
    first, second = net.examples(rows).positives, net.examples(rows).positives
    torch.manual_seed(1)
    assert torch.equal(first, net.examples(rows).positives)
    assert not torch.equal(first, second)


# -- what is read ----------------------------------------------------------------------------------


def test_hidden_events_are_the_mask_and_all_others_what_they_were(monkeypatch):
    net, rows = network(masked=0.4), batch(ROWS)
    for seed in range(20):
        torch.manual_seed(seed)
        with monkeypatch.context() as patch:
            read, at, examples = read_by(patch, net, lambda: net.examples(rows))
        is_hidden = torch.zeros(len(read.values), dtype=torch.bool)
        is_hidden[at] = True
        assert (read.values[is_hidden] == net.mask_code).all()
        assert torch.equal(read.values[~is_hidden], rows.events.values[~is_hidden])
        assert torch.equal(examples.positives, rows.events.values[at])
        assert torch.equal(examples.users, rows.events.rows[at])
        assert len(set(at.tolist())) == len(at)
        assert set(examples.users.tolist()) == {0, 1, 2, 3}  # of every row
        assert len(examples.queries) == len(examples.positives)
        assert int(examples.positives.max()) < V


def test_a_question_is_the_mask_after_the_newest_that_fit(monkeypatch):
    net = network()
    read, at, _ = read_by(monkeypatch, net, lambda: net(batch(ROWS)))
    assert [row.tolist() for row in torch.split(read.values, read.lengths.tolist())] == [
        [2, 3, 4, 5, V],
        [6, V],
        [7, 8, V],
        [0, 0, 0, 1, V],
    ]
    assert (read.values[at] == V).all()


@given(st.lists(st.lists(st.integers(0, 8), max_size=7), min_size=1, max_size=6), st.integers(1, 6))
def test_appended_as_a_loop_does_it(rows, longest):
    found = appended(Jagged.of(rows), 99, longest)
    expected = [[*row[max(0, len(row) - longest + 1) :], 99] for row in rows]
    assert [row.tolist() for row in torch.split(found.values, found.lengths.tolist())] == expected
    assert found.longest == max(len(row) for row in expected)


@given(st.lists(st.integers(0, 20), max_size=8), st.integers(1, 6), st.integers(1, 6))
def test_windows_slide_as_in_the_original(lengths, length, stride):
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    expected = []
    for a, z in itertools.pairwise(offsets.tolist()):
        if z - a <= length:
            expected += [(a, z)] if z > a else []
            continue
        starts = [*range(z - length, a, -stride), a]
        expected += [(s, s + length) for s in starts]
    found = sliding(offsets, length, min(stride, length))
    if stride <= length:
        assert list(zip(found.starts, found.stops, strict=True)) == expected


@pytest.mark.parametrize("windows", ["latest", "chunks"])
def test_rows_of_training(windows):
    log = SessionLog.from_lists([[list("abcdefghi")], [["a"]]])
    model = BERT4Rec(**{**SHORT, "max_length": 4, "windows": windows})
    model.facts_ = Facts(log.n_items)
    rows = model._rows(log)
    lengths = rows.slices.lengths.tolist()
    assert lengths == ([4, 1] if windows == "latest" else [4, 4, 4, 4, 1])  # a row of one event teaches, too
    assert isinstance(rows, Rows)


# -- what comes out --------------------------------------------------------------------------------


def test_company_and_padding_do_not_matter():
    net = network()
    together = net(batch(ROWS))
    for i, row in enumerate(ROWS):
        torch.testing.assert_close(net(batch([row]))[0], together[i], rtol=1e-5, atol=1e-6)
    double = net.double()
    plainly = double(batch(ROWS))
    events = batch(ROWS).events
    padded = Batch(Jagged(events.values, events.offsets, events.longest + 7), batch(ROWS).sessions)
    torch.testing.assert_close(double(padded), plainly, rtol=1e-9, atol=1e-9)


def test_attention_goes_both_ways():
    net = network()
    events = Jagged.of([[1, 2, V, 4]])
    before, after = net.states(events, torch.tensor([2])), net.states(Jagged.of([[1, 2, V, 5]]), torch.tensor([2]))
    assert not torch.allclose(before, after)


def test_the_mask_is_never_ranked():
    log = SessionLog.from_lists([[list("abcde")], [list("bcdea")]])
    model = create("bert4rec", **SHORT).fit(log)
    assert model.table_.shape == (5, 8 + 2)
    assert model.network_.items.weight.shape == (6, 8)
    [first, _] = model.recommend(log, 20, exclude="nothing")
    assert set(first) == set("abcde")


def test_weights_begin_as_the_originals():
    net = network(dim=64)
    for name, weight in net.named_parameters():
        if weight.dim() >= 2:
            assert 0.01 < weight.std() < 0.02
            assert weight.abs().max() <= 0.04
        else:
            assert (weight == (0 if name.endswith("bias") else 1)).all()
    assert {module.eps for module in net.modules() if isinstance(module, torch.nn.LayerNorm)} == {1e-12}


def test_presets_say_what_they_are():
    official = BERT4Rec(preset="bert4rec").config
    assert (official.dropout, official.batch_size, official.optimiser, official.clip) == (0.2, 256, "adamw", 5.0)
    later = BERT4Rec(preset="bert4rec+").config
    assert (later.masked, later.dim, later.dropout, later.epochs, later.patience) == (0.2, 64, 0.1, 200, 20)
