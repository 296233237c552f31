"""SessionRec: what it reads and refuses, and what must not move its answers."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from nextsession import tasks
from nextsession.answering import Facts
from nextsession.config import Runtime
from nextsession.data.items import ItemFeature, ItemTable
from nextsession.data.log import SessionLog
from nextsession.data.vocabulary import Vocabulary
from nextsession.errors import ConfigError, DataError
from nextsession.models.bst import BST
from nextsession.models.caser import Caser
from nextsession.models.sessionrec import SessionRec
from nextsession.nn.jagged import Batch
from nextsession.testing.subjects import HOUR, training_log

CPU = Runtime(device="cpu")
SMALL = {"dim": 8, "layers": 1, "epochs": 2, "batch_size": 8, "max_length": 10, "learning_rate": 0.01}


def made(**settings: Any) -> SessionRec:
    return SessionRec(**{**SMALL, **settings})


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"reads": "session"}, "whole sessions of a history are read: reads must be 'history'"),
        ({"windows": "chunks"}, "windows 'latest'"),
        ({"augment": [{"kind": "reorder"}]}, "augment must not reorder events"),
        ({"heads": 3}, "must divide dim"),
        ({"within_heads": 3}, "must divide dim"),
        ({"alpha": -1}, "alpha"),
        ({"preset": "kuaishou"}, "preset must be one of kuaisar, recflow"),
    ],
)
def test_settings_that_cannot_be(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        SessionRec(**settings)


def test_a_model_that_ranks_candidates_has_no_moments() -> None:
    with pytest.raises(ConfigError, match=r"bst ranks candidates one by one .*leave moment out"):
        BST(moment={})


def test_queries_wider_than_the_items_meet_moments_too() -> None:
    log = training_log()
    model = Caser(**Caser.examples()[0] | {"epochs": 1, "loss": {"kind": "softmax"}, "moment": {"windows": ["1h"]}})
    assert np.isfinite(model.fit(log, runtime=CPU).scores(log).dense()).all()


@pytest.mark.parametrize("kind", ["crop", "drop", "item_dropout"])
def test_rows_may_be_varied(kind: str) -> None:
    plain, varied = (made(augment=x, dropout=0).fit(training_log(), runtime=CPU) for x in ((), ({"kind": kind},)))
    assert np.isfinite(varied.curve_[:, 1]).all()
    assert varied.curve_[0, 1] != plain.curve_[0, 1]


@pytest.mark.parametrize("per", ["query", "row", "batch"])
def test_negatives_of_any_kind_train(per: str) -> None:
    loss = {"kind": "sampled_softmax", "negatives": {"kind": "uniform", "n": 5, "per": per}}
    model = made(loss=loss, open="always").fit(training_log(), runtime=CPU)
    assert np.isfinite(model.curve_[:, 1]).all()


def test_alpha_0_is_no_rank_loss_and_more_is_some() -> None:
    log = training_log()
    none, plain, some = (
        made(alpha=alpha).fit(x, runtime=CPU) for alpha, x in ((0.0, log), (0.3, replace(log, labels=None)), (0.3, log))
    )
    weights = [model.network_.state_dict() for model in (none, some)]
    assert not all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert np.isfinite(plain.curve_[:, 1]).all()
    wanted = [made(alpha=alpha).fit(log.positives(), runtime=CPU).network_.state_dict() for alpha in (0.0, 0.3)]
    assert all(torch.equal(wanted[0][name], wanted[1][name]) for name in wanted[0])


@pytest.mark.parametrize("tokens", ["sessions", "items", "both"])
@pytest.mark.parametrize("ignored_only", [True, False])
def test_long_histories_in_which_nothing_was_wanted(tokens: str, ignored_only: bool) -> None:
    """A hundred sessions of one ignored event each; the model reads at most five wanted events, and twenty in all."""
    n = 100
    labels = np.zeros(2 * n, np.int8)
    labels[[0, n - 1, n, n + 50, 2 * n - 1]] = 1
    log = SessionLog(
        items=(np.arange(2 * n) % 7).astype(np.int32), times=np.arange(2 * n) * HOUR,
        session_offsets=np.arange(2 * n + 1), user_offsets=np.array([0, n, 2 * n]), labels=labels,
        vocabulary=Vocabulary(np.arange(7)),
    )  # fmt: skip
    settings = {"tokens": tokens, "ignored_only": ignored_only, "max_length": 5}
    model = made(**settings).fit(log, runtime=CPU)
    assert np.isfinite(model.curve_[:, 1]).all()
    assert np.isfinite(model.scores(log).dense()).all()
    assert len(model._reading.slices(log)) == 2
    assert (model._reading.slices(log).lengths == 20).all()


def test_exposures_of_the_asked_session_move_no_answer() -> None:
    """PITFALLS 20: other items are shown there, or none; the questions are put as an evaluation does."""
    log = training_log()
    model = made().fit(log, runtime=CPU)
    last = log.user_offsets[1:] - 1
    asked = np.isin(log.session_of_event, last)
    begins = np.isin(np.arange(log.n_events), log.session_offsets[:-1])
    ignored = asked & (log.labels == 0)
    assert ignored.sum() > 5
    others = replace(log, items=np.where(ignored, (log.items + 1) % 18, log.items).astype(np.int32))
    without = log.events(~ignored | begins)
    scores = []
    for form in (log, others, without):
        sessions = np.array([form.user_offsets[u + 1] - 1 for u in range(len(form))])
        (cases,) = tasks.session_questions(form, tasks.time_order(form), sessions)()
        scores.append(model.scores(cases.histories, asked_at=cases.asked_at).dense().copy())
    np.testing.assert_array_equal(scores[1], scores[0])
    np.testing.assert_array_equal(scores[2], scores[0])


def test_sessions_in_which_nothing_was_wanted_are_read_if_asked_to() -> None:
    log = SessionLog.from_lists([[[0, 1], [2, 3], [4]], [[1, 2], [3, 4], [0]]])
    labels = np.array([1, 1, 0, 0, 1, 1, 1, 0, 0, 1], np.int8)
    log = replace(log, labels=labels)
    others = replace(log, items=np.where(labels == 0, 4 - log.items, log.items).astype(np.int32))
    for reads, moves in (({"ignored_only": True}, True), ({}, False), ({"reads_ignored": False}, False)):
        model = made(**reads).fit(log, runtime=CPU)
        now, then = (model.scores(x, asked_at=10**9).dense().copy() for x in (log, others))
        assert np.allclose(now, then) != moves


def test_histories_without_times_are_refused_by_a_model_that_learnt_from_times() -> None:
    log = training_log()
    for settings in ({}, {"across": "gru"}, {"time": "none"}):
        with pytest.raises(DataError, match="hold only the order of their events"):
            made(**settings).fit(log, runtime=CPU).scores(replace(log, timed=False))
    model = made(time="none", open="never").fit(log, runtime=CPU)
    assert np.isfinite(model.scores(replace(log, timed=False)).dense()).all()


def test_side_features_kinds_and_labels_are_mixed_in() -> None:
    """Eq. 3-4: the vectors stand beside each other, and a map makes one of them."""
    colours = ItemFeature.of([["red"], ["blue", "red"], []])
    model = made(features=("colour",), feature_dim=3, mix_layers=1, dim=4, heads=1)
    model.timed_ = True
    torch.manual_seed(0)
    inputs = model._network(Facts(3, ("view", "buy"), {"colour": colours})).inputs
    log = SessionLog.from_lists([[[0, 1], [2]]], vocabulary=Vocabulary(np.arange(3)))
    log = replace(log, labels=np.array([1, 0, 1], np.int8))
    kinds = [1, -1, 0]
    found = inputs(Batch.of_log(log, log.last_times, np.array(kinds)))
    colour = inputs.features.values[0]
    codes = {name: place for place, name in enumerate(colours.labels)}
    means = [colour[codes["red"]], (colour[codes["blue"]] + colour[codes["red"]]) / 2, torch.zeros(3)]
    for e, (kind, label) in enumerate(zip(kinds, [1, 0, 1], strict=True)):
        parts = [inputs.items.weight[e], means[e], inputs.actions.weight[kind + 1], inputs.labels.weight[label]]
        torch.testing.assert_close(found[e], inputs.features.mix(torch.cat(parts)))
    unknown = inputs(Batch.of_log(replace(log, labels=np.ones(3, np.int8)), log.last_times))
    parts = [inputs.items.weight[2], means[2], inputs.actions.weight[0], inputs.labels.weight[1]]
    torch.testing.assert_close(unknown[2], inputs.features.mix(torch.cat(parts)))


def test_side_features_and_half_precision_train() -> None:
    log = training_log()
    log = replace(log, item_table=ItemTable({"colour": ItemFeature.of([[f"c{i % 3}"] for i in range(log.n_items)])}))
    for more in ({}, {"moment": {"windows": ["1h"]}}):
        model = made(features=("colour",), precision="bfloat16", within="separate", **more).fit(log, runtime=CPU)
        assert np.isfinite(model.scores(log).dense()).all()


@pytest.mark.parametrize("across", ["hstu", "transformer", "gru"])
def test_a_cycle_is_learnt_from_sessions_of_one_event(across: str) -> None:
    rng = np.random.default_rng(0)
    starts = rng.integers(0, 12, 150)
    log = SessionLog.from_lists([[[int((a + i) % 12)] for i in range(5)] for a in starts])
    model = SessionRec(
        dim=16, layers=1, across=across, epochs=40, batch_size=16, max_length=10, learning_rate=0.01, dropout=0.0
    ).fit(log, runtime=CPU)
    asked = SessionLog.from_lists([[[int(a)], [int((a + 1) % 12)]] for a in range(12)])
    found = model.recommend(asked, 1)
    assert np.mean([answer == [(a + 2) % 12] for a, answer in enumerate(found)]) >= 0.99
