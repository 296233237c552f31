"""NeuralRecommender: what all models that are trained by gradients keep to, shown by a small network."""

import json
import math
from dataclasses import replace
from typing import ClassVar, Literal

import numpy as np
import pytest
import torch
from torch import nn

from nextsession import training_run
from nextsession.config import Runtime
from nextsession.data.cases import Cases
from nextsession.data.items import ItemFeature
from nextsession.data.log import SessionLog
from nextsession.data.vocabulary import Vocabulary
from nextsession.errors import ArtifactError, ConfigError, TrainingError
from nextsession.models.sasrec import SASRec
from nextsession.neural import NeuralRecommender, NeuralSettings, device_of
from nextsession.nn.embedding import ItemEmbedding
from nextsession.nn.networks import CausalEncoder, Head, Input, NextItem
from nextsession.testing.subjects import questions, wanted_log
from nextsession.training import _Passes
from nextsession.training_facts import columns_key
from nextsession.training_log import CURVE, TrainingLog

CPU = Runtime(device="cpu")
LOSS, VALIDATION = CURVE.index("loss"), CURVE.index("validation")


class SmallSettings(NeuralSettings):
    width: int = 3
    """Of nothing."""
    reads: Literal["session", "history"] = "history"
    """Rows."""
    presets: ClassVar = {"wide": {"width": 9, "dim": 12}}


class Linear(CausalEncoder):
    def __init__(self, dim):
        super().__init__()
        self.map = nn.Linear(dim, dim)

    def forward(self, rows):
        return torch.tanh(self.map(rows.values))


class Small(NeuralRecommender[SmallSettings]):
    name = "small"

    def _network(self, facts):
        items = ItemEmbedding(facts.n_items, self.config.dim, std=0.5)
        return NextItem(Input(items, rate=self.config.dropout), Linear(self.config.dim), Head(items))


def made(**settings):
    return Small(**{"dim": 8, "epochs": 3, "batch_size": 8, "learning_rate": 0.01, "max_length": 6, **settings})


def validation():
    """Return ten questions that the next item of a cycle answers."""
    asked = questions()
    next_items = (np.arange(len(asked)) % 10 + 1).astype(np.int32)
    return [Cases(asked, asked.last_times + 1, next_items, np.arange(len(asked) + 1), np.arange(len(asked)))]


def scripted(monkeypatch, scores):
    """Let validations have these scores; return the weights that were asked."""
    asked, left = [], list(scores)

    def validated(self, cases):
        asked.append({name: weight.clone() for name, weight in self.network_.state_dict().items()})
        return left.pop(0)

    monkeypatch.setattr(NeuralRecommender, "_validated", validated)
    return asked


def same(one, other):
    return all(torch.equal(one[name], other[name]) for name in one)


# -- settings -----------------------------------------------------------------------------------


def test_presets_stand_in_for_defaults_and_what_is_given_beside_them_wins():
    assert (Small(preset="wide").config.width, Small(preset="wide").config.dim) == (9, 12)
    assert (Small(preset="wide", dim=5).config.width, Small(preset="wide", dim=5).config.dim) == (9, 5)
    config = Small(preset="wide", dim=5).config
    assert SmallSettings.read(config.model_dump(mode="json"), "small") == config


def test_an_unknown_preset_says_which_there_are():
    with pytest.raises(ConfigError, match=r"preset must be one of wide, got 'wied'"):
        Small(preset="wied")


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ({"validation_metric": "ndcg"}, r"must be a metric and a length such as ndcg@10, got 'ndcg'"),
        ({"validation_metric": "ndgc@10"}, r"ndcg"),
        ({"sparse": True}, r"sparse = true needs a loss that samples"),
        ({"patience": -1}, r"patience"),
        ({"dropout": 1.0}, r"dropout"),
    ],
)
def test_settings_that_cannot_be_are_refused_before_anything_is_trained(setting, said):
    with pytest.raises(ConfigError, match=said):
        Small(**setting)


def test_a_gpu_that_is_not_there():
    if torch.cuda.is_available():
        pytest.skip("there is one")
    with pytest.raises(ConfigError, match=r"device = 'cuda', and torch finds no GPU; use 'auto' or 'cpu'"):
        made().fit(wanted_log(), runtime=Runtime(device="cuda"))
    assert device_of(Runtime(device="auto")).type == "cpu"


# -- learning -----------------------------------------------------------------------------------


def test_the_curve_has_a_row_for_each_epoch():
    model = made().fit(wanted_log(), runtime=CPU)
    assert model.curve_.shape == (3, len(CURVE))
    assert model.curve_[:, 0].tolist() == [1, 2, 3]
    assert np.all(np.isnan(model.curve_[:, VALIDATION]))
    seconds = model.curve_[:, CURVE.index("cpu_seconds")].tolist()
    assert model.learning_curve == {"epoch": [1, 2, 3], "loss": model.curve_[:, LOSS].tolist(), "cpu_seconds": seconds}
    assert model.curve_[2, LOSS] < model.curve_[0, LOSS]


def test_a_validation_after_each_epoch_is_in_the_curve_too():
    model = made(validation_metric="mrr@5").fit(wanted_log(), validation=validation(), runtime=CPU)
    assert list(model.learning_curve) == ["epoch", "loss", "cpu_seconds", "mrr@5"]
    assert all(0 <= score <= 1 for score in model.learning_curve["mrr@5"])


def test_training_stops_once_patience_is_over_and_the_best_weights_answer(monkeypatch):
    asked = scripted(monkeypatch, [0.1, 0.3, 0.2, 0.3, 0.25, 0.9])
    model = made(epochs=20, patience=3).fit(wanted_log(), validation=validation(), runtime=CPU)
    assert model.curve_[:, VALIDATION].tolist() == [0.1, 0.3, 0.2, 0.3, 0.25]
    assert same(asked[1], model.network_.state_dict())
    assert not same(asked[4], model.network_.state_dict())


def test_without_patience_all_epochs_are_trained_and_the_best_weights_answer(monkeypatch):
    asked = scripted(monkeypatch, [0.3, 0.2, 0.1, 0.1])
    model = made(epochs=4, patience=0).fit(wanted_log(), validation=validation(), runtime=CPU)
    assert len(model.curve_) == 4
    assert same(asked[0], model.network_.state_dict())


def test_scores_that_nobody_could_give_stop_nothing(monkeypatch):
    scripted(monkeypatch, [math.nan] * 5)
    model = made(epochs=5, patience=2).fit(wanted_log(), validation=validation(), runtime=CPU)
    assert len(model.curve_) == 5


def test_validations_may_be_rarer_but_the_last_epoch_has_one(monkeypatch):
    scripted(monkeypatch, [0.1, 0.2, 0.3])
    model = made(epochs=5, validate_every=2).fit(wanted_log(), validation=validation(), runtime=CPU)
    assert np.isnan(model.curve_[:, VALIDATION]).tolist() == [True, False, True, False, False]


def test_averaged_weights_are_validated_and_answer_and_training_goes_on_with_the_others(monkeypatch):
    asked = scripted(monkeypatch, [0.1, 0.2, 0.3])
    averaged = made(ema=0.9).fit(wanted_log(), validation=validation(), runtime=CPU)
    plain = made().fit(wanted_log(), runtime=CPU)
    assert averaged.curve_[:, LOSS].tolist() == plain.curve_[:, LOSS].tolist()
    assert same(asked[2], averaged.network_.state_dict())
    assert not same(plain.network_.state_dict(), averaged.network_.state_dict())


def test_a_log_without_a_single_pair_leaves_popularity():
    log = SessionLog(
        items=np.array([1, 1, 0], np.int32), times=np.arange(3, dtype=np.int64), session_offsets=np.array([0, 1, 2, 3]),
        user_offsets=np.array([0, 1, 2, 3]), vocabulary=Vocabulary(np.arange(4)),
    )  # fmt: skip
    model = made().fit(log, runtime=CPU)
    assert model.curve_.shape == (0, len(CURVE))
    assert model.recommend(log.rows(0, 0), 4).items.shape == (0, 4)
    assert len(model.recommend(log, 2)) == 3


def test_empty_and_unknown_histories_are_answered_by_popularity():
    log = wanted_log()
    model = made().fit(log, runtime=CPU)
    counts = np.bincount(log.items, minlength=log.n_items)
    strangers = SessionLog(
        items=np.array([0, 1, 0], np.int32), times=np.full(3, log.times.max() + 10, np.int64),
        session_offsets=np.array([0, 2, 3]), user_offsets=np.array([0, 1, 1, 2]),
        vocabulary=Vocabulary(np.array(["never", "seen"], dtype=object)),
    )  # fmt: skip
    found = model.recommend(strangers, 5)
    for row in found.items:
        assert counts[row].tolist() == sorted(counts, reverse=True)[:5]


# -- checkpoints and logs -----------------------------------------------------------------------


def kept(tmp_path, **more):
    return Runtime(device="cpu", checkpoints=str(tmp_path), **more)


def test_what_is_finished_is_not_trained_again(tmp_path, monkeypatch):
    first = made().fit(wanted_log(), validation=validation(), runtime=kept(tmp_path))

    def refuse(*arguments, **more):
        raise AssertionError

    monkeypatch.setattr("nextsession.training._Passes.step", refuse)
    again = made().fit(wanted_log(), validation=validation(), runtime=kept(tmp_path))
    assert same(first.network_.state_dict(), again.network_.state_dict())
    np.testing.assert_array_equal(first.curve_, again.curve_)


def test_training_may_go_on_for_longer_where_the_rate_is_constant(tmp_path):
    made(epochs=2).fit(wanted_log(), runtime=kept(tmp_path))
    longer = made(epochs=4).fit(wanted_log(), runtime=kept(tmp_path))
    whole = made(epochs=4).fit(wanted_log(), runtime=CPU)
    assert same(longer.network_.state_dict(), whole.network_.state_dict())
    assert longer.curve_[:, LOSS].tolist() == whole.curve_[:, LOSS].tolist()
    with pytest.raises(ArtifactError, match=r"after 4 epochs, and there are to be 3"):
        made(epochs=3).fit(wanted_log(), runtime=kept(tmp_path))


def test_training_may_go_on_to_another_multiple_of_the_epochs_between_validations(tmp_path):
    every = {"validate_every": 2, "patience": 0}
    made(epochs=2, **every).fit(wanted_log(), validation=validation(), runtime=kept(tmp_path))
    longer = made(epochs=4, **every).fit(wanted_log(), validation=validation(), runtime=kept(tmp_path))
    whole = made(epochs=4, **every).fit(wanted_log(), validation=validation(), runtime=CPU)
    assert same(longer.network_.state_dict(), whole.network_.state_dict())
    with pytest.raises(ArtifactError, match=r"its epochs is None, now it is 5"):
        made(epochs=5, **every).fit(wanted_log(), validation=validation(), runtime=kept(tmp_path))


class KilledError(Exception):
    pass


@pytest.mark.parametrize("validated", [True, False])
def test_training_killed_within_an_epoch_may_end_before_it_if_there_are_weights_of_its_beginning(
    tmp_path, monkeypatch, validated
):
    asked = validation() if validated else ()
    step, steps = _Passes.step, []

    def killed(passes, *arguments):
        steps.append(passes.state.epoch)
        if steps.count(2) == 2:
            raise KilledError
        step(passes, *arguments)

    monkeypatch.setattr(_Passes, "step", killed)
    with pytest.raises(KilledError):
        made(epochs=4).fit(wanted_log(), validation=asked, runtime=kept(tmp_path, checkpoint_every=1))
    monkeypatch.setattr(_Passes, "step", step)
    if not validated:
        with pytest.raises(ArtifactError, match=r"after 2 epochs and some steps, and there are to be 2"):
            made(epochs=2).fit(wanted_log(), validation=asked, runtime=kept(tmp_path))
        return
    shorter = made(epochs=2).fit(wanted_log(), validation=asked, runtime=kept(tmp_path))
    whole = made(epochs=2).fit(wanted_log(), validation=asked, runtime=CPU)
    assert same(shorter.network_.state_dict(), whole.network_.state_dict())


def test_a_checkpoint_counts_the_seconds_of_all_processes_that_trained(tmp_path):
    def spent():
        return json.loads((tmp_path / "small" / "state" / "manifest.json").read_text())["notes"]["cpu_seconds"]

    made(epochs=2).fit(wanted_log(), runtime=kept(tmp_path))
    before = spent()
    made(epochs=4).fit(wanted_log(), runtime=kept(tmp_path))
    assert 0 < before < spent()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"settings": {"learning_rate": 0.5}}, "its learning_rate is 0.01, now it is 0.5"),
        ({"settings": {"epochs": 9, "schedule": "cosine"}}, "its schedule is 'constant', now it is 'cosine'"),
        ({"seed": 9}, "its seed is 0, now it is 9"),
        ({"log": wanted_log(seed=4)}, "its data is"),
        ({"validation": validation()}, "its questions is"),
    ],
)
def test_a_checkpoint_of_another_training_is_refused_with_the_reason(tmp_path, change, said):
    made().fit(wanted_log(), runtime=kept(tmp_path))
    with pytest.raises(ArtifactError, match=r"checkpoint of another training") as error:
        made(**change.get("settings", {})).fit(
            change.get("log", wanted_log()),
            validation=change.get("validation", ()),
            runtime=kept(tmp_path, seed=change.get("seed", 0)),
        )
    assert said in str(error.value)


def test_kinds_of_events_side_features_and_times_are_part_of_what_a_checkpoint_is_of():
    log = wanted_log()
    shop = ItemFeature.of([["a"]] * log.n_items)
    other = ItemFeature.of([["a"], *[["b"]] * (log.n_items - 1)])

    def key(log, actions=None, names=(), **features):
        return columns_key(log, actions, names, features)

    kinds = np.zeros(log.n_events, np.int64)
    assert key(log) == key(wanted_log())
    keys = [
        key(log),
        key(replace(log, timed=False)),
        key(log, kinds, ("view",)),
        key(log, kinds, ("buy",)),
        key(log, kinds + 1, ("view",)),
        key(log, shop=shop),
        key(log, shop=other),
        key(log, brand=shop),
    ]
    assert len(set(keys)) == len(keys)


def test_a_checkpoint_of_another_version_is_refused(tmp_path, monkeypatch):
    made().fit(wanted_log(), runtime=kept(tmp_path))
    monkeypatch.setattr(training_run, "version", lambda name: "99.0")
    with pytest.raises(ArtifactError, match=r"its version is '.*', now it is '99\.0'"):
        made().fit(wanted_log(), runtime=kept(tmp_path))


def test_the_curve_lies_beside_the_checkpoint_as_a_table_and_a_page(tmp_path):
    model = made().fit(wanted_log(), validation=validation(), runtime=kept(tmp_path))
    lines = (tmp_path / "small" / "curve.csv").read_text().splitlines()
    assert lines[0].split(",") == list(CURVE)
    assert [float(line.split(",")[LOSS]) for line in lines[1:]] == model.curve_[:, LOSS].tolist()
    page = (tmp_path / "small" / "curve.html").read_text()
    assert page.count("<svg") == 2  # the loss and the score; the learning rate never changes
    assert "3 epochs" in page
    assert "http" not in page.replace("http-equiv", "")


def test_tensorboard_is_only_needed_by_who_asks_for_it(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "torch.utils.tensorboard", None)
    made(epochs=1).fit(wanted_log(), runtime=CPU)
    with pytest.raises(ConfigError, match=r"tensorboard is not installed: `pip install tensorboard`"):
        made(epochs=1).fit(wanted_log(), runtime=Runtime(device="cpu", logs=str(tmp_path)))


def test_events_for_tensorboard_are_each_written_once():
    class Recorder:
        def __init__(self):
            self.told = []

        def add_scalar(self, tag, value, step):
            self.told.append((tag, value, step))

        def close(self):
            self.told.append("closed")

    writer = Recorder()
    log = TrainingLog(None, "small", "ndcg@10", writer)
    rows = [[1, 2.5, None, 0.1, 0.2, 30, 0.001], [2, 2.0, 0.5, 0.1, 0.2, 30, 0.001]]
    log.write(rows[:1])
    log.write(rows)
    assert [x for x in writer.told if x[0] in ("loss", "ndcg@10")] == [
        ("loss", 2.5, 1), ("loss", 2.0, 2), ("ndcg@10", 0.5, 2),
    ]  # fmt: skip


# -- bad input ----------------------------------------------------------------------------------


def test_a_learning_rate_far_too_large_gives_an_error_and_no_model():
    model = SASRec(dim=8, epochs=5, batch_size=8, learning_rate=1e6, max_length=6)
    with pytest.raises(TrainingError, match=r"sasrec: the loss .* in epoch 1, by step .*learning_rate = 1e\+06"):
        model.fit(wanted_log(), runtime=CPU)
    assert not hasattr(model, "network_")


@pytest.mark.parametrize("windows", ["latest", "chunks"])
def test_sessions_of_a_hundred_thousand_events_of_one_and_of_strangers(windows):
    rng = np.random.default_rng(0)
    log = wanted_log()
    long = 100_000
    items = np.concatenate([np.arange(long) % 10, rng.integers(10, size=3), [4]]).astype(np.int32)
    both = SessionLog(
        items=items, times=np.arange(len(items), dtype=np.int64), user_offsets=np.arange(4), vocabulary=log.vocabulary,
        session_offsets=np.array([0, long, long + 3, long + 4]),
    )  # fmt: skip
    model = SASRec(dim=8, epochs=1, layers=1, max_length=500, windows=windows, batch_tokens=4000, learning_rate=0.01)
    model.fit(both, runtime=CPU)
    assert np.isfinite(model.curve_[:, LOSS]).all()
    asked = SessionLog(
        items=np.concatenate([items, [0]]).astype(np.int32), times=np.arange(len(items) + 1, dtype=np.int64) + long * 2,
        session_offsets=np.array([0, long, long + 3, long + 4, long + 5]), user_offsets=np.array([0, 1, 2, 3, 4]),
        vocabulary=log.vocabulary,
    )  # fmt: skip
    found = model.recommend(asked, 5)
    assert np.isfinite(found.scores[:, 0]).all()
