"""BST: the fast form equals a sequence for every candidate, and what the paper says of it."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from nextsession.config import Runtime
from nextsession.data.log import SessionLog
from nextsession.errors import ModelError
from nextsession.models.bst import BST, Ranker, _reaching
from nextsession.nn.batches import Rows
from nextsession.nn.embedding import ItemEmbedding
from nextsession.nn.jagged import Batch
from nextsession.slices import Slices, prefixes
from nextsession.testing.subjects import questions, training_log

SMALL = {"dim": 12, "age_dim": 4, "heads": 2, "mlp": (8,), "max_length": 6, "dropout": 0.0}


def _batch() -> Batch:
    log = SessionLog.from_lists([[[0, 1, 2]], [[3]], [[4, 5, 6, 7, 8]]])
    log = SessionLog.from_lists([[[0, 1, 2]], [[3]], [], [[4, 5, 6, 7, 8]]], vocabulary=log.vocabulary)
    return Batch.of_log(log, np.full(4, 3_600_000))


def _ranker(timed: bool = True, **settings: object) -> Ranker:
    torch.manual_seed(1)
    ranker = Ranker(ItemEmbedding(9, 12, std=1.0), BST(**(SMALL | settings)).config, timed=timed)
    torch.nn.init.normal_(ranker.ages)
    return ranker.eval()


@pytest.mark.parametrize("timed", [True, False])
def test_scores_at_the_target_equal_a_sequence_for_every_candidate(timed: bool) -> None:
    ranker, batch = _ranker(timed), _batch()
    candidates = torch.randint(9, (4, 5), generator=torch.Generator().manual_seed(0))
    fast = ranker.score(batch, candidates)
    for row in range(4):
        begin, end = batch.events.offsets[row], batch.events.offsets[row + 1]
        items = batch.events.values[begin:end]
        ages = ranker._age(batch.events)[begin:end]
        history = torch.cat([ranker.items(items), ranker.ages[ages]], -1)
        for column in range(5):
            target = torch.cat([ranker.items(candidates[row, column]), ranker.ages[-1]])
            tokens = torch.cat([history, target[None]])
            out = ranker.blocks[0](tokens[None], torch.ones(1, len(tokens), dtype=torch.bool))
            torch.testing.assert_close(ranker.rank(out[0, -1])[0], fast[row, column])


def test_gradients_of_both_forms_are_the_same() -> None:
    ranker, batch = _ranker(), _batch()
    candidates = torch.tensor([[1, 2], [3, 3], [0, 1], [8, 4]])
    ranker.score(batch, candidates).square().sum().backward()
    fast = {name: p.grad.clone() for name, p in ranker.named_parameters() if p.grad is not None}
    ranker.zero_grad()
    history = batch.events.with_values(
        torch.cat([ranker.items(batch.events.values), ranker.ages[ranker._age(batch.events)]], -1)
    )
    own = ranker.ages[-1].expand(4, 2, -1)
    ranker._score_plainly(history, torch.cat([ranker.items(candidates), own], -1)).square().sum().backward()
    for name, p in ranker.named_parameters():
        if name in fast:
            torch.testing.assert_close(p.grad, fast[name], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("settings", [{}, {"readout": "flatten", "layers": 2}])
def test_a_row_is_scored_alone_as_in_company(settings: dict[str, object]) -> None:
    ranker, batch = _ranker(**settings), _batch()
    candidates = torch.randint(9, (4, 3), generator=torch.Generator().manual_seed(0))
    together = ranker.score(batch, candidates)
    log = SessionLog.from_lists([[[4, 5, 6, 7, 8]]])
    alone = ranker.score(
        Batch.of_log(log.recode(SessionLog.from_lists([[list(range(9))]]).vocabulary), np.full(1, 3_600_000)),
        candidates[3:],
    )
    torch.testing.assert_close(alone, together[3:])


def test_the_candidate_changes_what_the_history_says_when_all_places_are_read_out() -> None:
    ranker, batch = _ranker(readout="flatten"), _batch()
    tokens = []
    ranker.blocks[0].register_forward_hook(lambda module, given, out: tokens.append(out))
    for candidate in (0, 8):
        ranker.score(batch, torch.full((4, 1), candidate))
    assert not torch.allclose(tokens[0][0, 0], tokens[1][0, 0]), "the first event of the first history"


def test_ages_are_logarithmic_and_of_the_question() -> None:
    batch = _batch()
    ages = _ranker()._age(batch.events)
    seconds = 3600 - batch.events.times.double() / 1000
    assert ages.tolist() == torch.floor(seconds.log() / 0.301).long().tolist()


def test_it_has_no_query() -> None:
    with pytest.raises(ModelError, match="no query"):
        _ranker()(_batch())


def test_only_what_the_first_stage_found_is_listed() -> None:
    model = BST(candidates=3, epochs=1, **SMALL).fit(training_log(), runtime=Runtime(seed=0))
    found = model.recommend(questions(), 10)
    first = model.first_.recommend(questions(), 3)
    for mine, theirs in zip(found.items, first.items, strict=True):
        assert set(mine[mine >= 0]) == set(theirs[theirs >= 0])


def test_ignored_events_are_its_negatives() -> None:
    """Two items always shown together, one always taken: the ranker tells them apart, whatever the history."""
    log = SessionLog.from_lists([[["start", "good", "bad"]] for _ in range(60)])
    labels = np.tile(np.array([1, 1, 0], np.int8), 60)
    log = SessionLog(**{**_fields(log), "labels": labels})
    model = BST(first_stage="popular", epochs=10, learning_rate=0.01, **SMALL).fit(log)
    scores = model.scores(SessionLog.from_lists([[["start"]]])).dense()[0]
    good, bad = (int(model.vocabulary_.encode([name])[0]) for name in ("good", "bad"))
    assert scores[good] > scores[bad] or scores[bad] == -np.inf


def _fields(log: SessionLog) -> dict[str, object]:
    names = ("items", "times", "session_offsets", "user_offsets", "vocabulary", "users")
    return {name: getattr(log, name) for name in names}


@pytest.mark.parametrize("lists", [False, True])
@pytest.mark.parametrize("readout", ["target", "flatten"])
def test_a_history_of_training_is_as_long_as_that_of_an_answer_however_much_was_ignored(
    readout: str, lists: bool
) -> None:
    rng = np.random.default_rng(3)
    log = SessionLog.from_lists([[rng.integers(0, 9, 30).tolist()], [[1, 2]], [rng.integers(0, 9, 12).tolist()]])
    log = replace(log, labels=(rng.random(log.n_events) < (0.5 if lists else 0.2)).astype(np.int8))
    if lists:  # three events at every instant: what else was wanted at that of the candidate is not known then
        log = replace(log, times=log.times // 3000 * 3000)
    whole = prefixes(log.event_offsets, 3)
    rows = Rows(log, _reaching(whole, log.event_offsets, log, 3))
    ranker = _ranker(readout=readout, max_length=3)
    asked = ranker.examples(rows.batch(np.arange(len(rows))))
    histories = asked.history.events
    for row, stop in enumerate(whole.stops):
        begin = log.event_offsets[np.searchsorted(log.event_offsets, stop - 1, side="right") - 1]
        before = np.arange(begin, stop - 1)
        known = (log.labels[before] == 1) & (log.times[before] < log.times[stop - 1])
        expected = log.items[before[known]][-3:]
        found = histories.values[histories.offsets[row] : histories.offsets[row + 1]]
        assert found.tolist() == expected.tolist()
    assert histories.longest == 3
    assert ranker.score(asked.history, asked.positives[:, None]).shape == (len(whole), 1)


def test_no_rows_reach_nowhere() -> None:
    none = np.zeros(0, np.int64)
    assert len(_reaching(Slices(none, none), np.zeros(1, np.int64), training_log(), 3)) == 0
