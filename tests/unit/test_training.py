"""Training: every step counts once, what is kept goes on exactly, what cannot go on says why."""

import ctypes
import json
import math
import os
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from nextsession.cost import give_back_memory
from nextsession.data.log import SessionLog, offsets_of
from nextsession.data.vocabulary import Vocabulary
from nextsession.errors import ArtifactError, ConfigError, TrainingError
from nextsession.nn.batches import Rows
from nextsession.nn.embedding import ItemEmbedding
from nextsession.nn.losses import FullSoftmax, SampledSoftmax
from nextsession.nn.negatives import ItemStatistics
from nextsession.nn.networks import Head, Input, NextItem
from nextsession.slices import latest
from nextsession.training import (
    TrainingSettings,
    epochs,
    factor,
    load_state,
    save_state,
    start,
    thousands,
)

V, D = 11, 6
CPU = torch.device("cpu")
FACTS = {"model": "small", "data": "abc", "settings": {"dim": D, "epochs": 3}}


class Linear(nn.Module):
    def __init__(self):
        super().__init__()
        self.map = nn.Linear(D, D)

    def forward(self, rows):
        return torch.tanh(self.map(rows.values))


def network(seed=1, rate=0.3):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        items = ItemEmbedding(V, D, std=0.5)
        return NextItem(Input(items, rate=rate), Linear(), Head(items))


def rows(n=30, seed=0):
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, 8, n)
    offsets = offsets_of(lengths)
    items = np.concatenate([(rng.integers(V) + np.arange(length)) % V for length in lengths]).astype(np.int32)
    log = SessionLog(
        items=items,
        times=np.arange(len(items), dtype=np.int64) * 1000,
        session_offsets=offsets,
        user_offsets=np.arange(n + 1, dtype=np.int64),
        vocabulary=Vocabulary(np.arange(V)),
    )
    return Rows(log, latest(offsets, 6).longer_than(1))


STATISTICS = ItemStatistics(torch.ones(V))


def softmax(examples, net):
    return FullSoftmax()(examples, net.head, STATISTICS)


def sampled(examples, net):
    return SampledSoftmax()(examples, net.head, STATISTICS)


def run(state, settings, loss=softmax, **more):
    return list(epochs(state, rows(), loss, settings, seed=7, device=CPU, name="small", **more))


def arrays(state):
    found = {f"network.{k}": v for k, v in state.network.state_dict().items()}
    found |= {f"optimiser.{k}": v for k, v in state.optimiser.state().items()}
    found |= {f"average.{k}": v for k, v in (state.average or {}).items()}
    return found | {f"best.{k}": v for k, v in (state.best or {}).items()}


def expect_same(one, other):
    assert arrays(one).keys() == arrays(other).keys()
    for name, value in arrays(one).items():
        assert torch.equal(value, arrays(other)[name]), name
    for name in ("epoch", "step", "total", "positives", "first_loss", "notes"):
        assert getattr(one, name) == getattr(other, name), name


# -- the loop -----------------------------------------------------------------------------------


def test_it_is_the_obvious_loop():
    settings = TrainingSettings(epochs=2, batch_size=8, learning_rate=0.01, clip=1.0)
    state = start(network(rate=0.0), settings)
    found = run(state, settings)

    other, log = network(rate=0.0), rows()
    optimiser = torch.optim.Adam(other.parameters(), lr=0.01)
    means = []
    for epoch in range(2):
        total = count = 0
        for some in log.order(np.random.default_rng([7, epoch, 0]), 8):
            examples = other.examples(log.batch(some))
            loss = softmax(examples, other)
            optimiser.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(other.parameters(), 1.0)
            optimiser.step()
            total, count = total + loss.item() * len(examples), count + len(examples)
        means.append(total / count)
    assert [e.loss for e in found] == pytest.approx(means, rel=1e-5)
    assert [e.number for e in found] == [1, 2]
    assert {e.positives for e in found} == {count}
    for one, two in zip(state.network.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(one, two)


def test_it_learns_and_leaves_the_generators_of_others_alone():
    settings = TrainingSettings(epochs=30, batch_size=8, learning_rate=0.05)
    torch.manual_seed(3)
    before = torch.get_rng_state().clone()
    found = run(start(network(), settings), settings)
    assert torch.equal(before, torch.get_rng_state())
    assert found[-1].loss < 0.5 * found[0].loss
    assert not start(network(), settings).network.head.items.sparse


def test_the_caller_may_stop_whenever_it_likes():
    settings = TrainingSettings(epochs=30, batch_size=8)
    state = start(network(), settings)
    for epoch in epochs(state, rows(), softmax, settings, seed=7, device=CPU):
        if epoch.number == 2:
            break
    assert (state.epoch, state.step) == (2, 0)
    assert not state.network.training


def test_a_step_is_bounded_by_events_too():
    settings = TrainingSettings(epochs=1, batch_size=8, batch_tokens=12)
    told = []
    run(start(network(), settings), settings, progress=lambda task, done, total, note="": told.append((done, total)))
    assert told[-1] == (len(rows().order(np.random.default_rng([7, 0, 0]), 8, 12)),) * 2


def test_progress_says_how_it_goes():
    settings = TrainingSettings(epochs=2, batch_size=8)
    told = []
    run(start(network(), settings), settings, progress=lambda *facts: told.append(facts))
    steps = len(rows().order(np.random.default_rng(0), 8))
    task, done, total, note = told[-1]
    assert (task, done, total) == ("small: training", 2 * steps, 2 * steps)
    assert note.startswith("epoch 2 of 2 · loss ")
    assert note.endswith(" positions/s")


@pytest.mark.parametrize(
    ("number", "text"),
    [(0.4, "0"), (999, "999"), (1000, "1.00k"), (45_678, "45.7k"), (3e6, "3.00M")],
)
def test_speeds_are_short(number, text):
    assert thousands(number) == text


def test_the_average_of_the_weights_forgets_slowly_and_is_kept_beside_them():
    settings = TrainingSettings(epochs=2, batch_size=8, ema=0.9, learning_rate=0.05)
    state, plain = start(network(), settings), start(network(), settings.model_copy(update={"ema": 0.0}))
    average, step = {k: v.detach().clone() for k, v in plain.network.named_parameters()}, 0
    original = plain.optimiser.step

    def stepped(rate):
        nonlocal step
        original(rate)
        slowly = min(0.9, (1 + step) / (10 + step))
        for name, weight in plain.network.named_parameters():
            average[name] = slowly * average[name] + (1 - slowly) * weight.detach()
        step += 1

    plain.optimiser.step = stepped
    run(state, settings)
    run(plain, settings.model_copy(update={"ema": 0.0}))
    for name, weight in plain.network.named_parameters():
        assert torch.equal(weight, dict(state.network.named_parameters())[name])
        torch.testing.assert_close(state.average[name], average[name])
        assert torch.equal(state.weights()[name], state.average[name])


def test_sparse_tables_learn_as_whole_ones_do_where_the_optimiser_allows_it():
    settings = TrainingSettings(epochs=3, batch_size=8, optimiser="adagrad", learning_rate=0.1, clip=1.0)
    whole, some = (start(network(), settings.model_copy(update={"sparse": x})) for x in (False, True))
    run(whole, settings, sampled)
    run(some, settings, sampled)
    assert some.network.head.items.sparse
    for one, other in zip(whole.network.parameters(), some.network.parameters(), strict=True):
        torch.testing.assert_close(one, other)


def test_bfloat16_is_near_float32_and_weights_stay_float32():
    settings = TrainingSettings(epochs=3, batch_size=8, learning_rate=0.05)
    near = settings.model_copy(update={"precision": "bfloat16"})
    one, other = start(network(rate=0.0), settings), start(network(rate=0.0), near)
    losses = [[e.loss for e in run(state, s)] for state, s in ((one, settings), (other, near))]
    assert losses[0] != losses[1]
    assert losses[0] == pytest.approx(losses[1], rel=0.02)
    assert {p.dtype for p in other.network.parameters()} == {torch.float32}


# -- the learning rate --------------------------------------------------------------------------


def rates(steps=10, **settings):
    made = TrainingSettings(**settings)
    return [factor(made, epoch, step, steps) for epoch in range(made.epochs) for step in range(steps)]


def test_schedules():
    assert rates(epochs=3) == [1.0] * 30
    cosine = rates(epochs=4, schedule="cosine")
    assert cosine[0] == 1
    assert cosine == sorted(cosine, reverse=True)
    assert cosine[20] == pytest.approx((1 + 0.05) / 2)
    assert cosine[-1] == pytest.approx(0.05, abs=0.01)
    assert rates(epochs=4, schedule="linear") == pytest.approx([1 - i / 40 for i in range(40)])
    assert rates(epochs=4, schedule="step", step_epochs=2) == pytest.approx([1.0] * 20 + [0.1] * 20)


def test_the_rate_rises_first():
    found = rates(epochs=4, schedule="linear", warmup=0.25)
    assert found[:10] == pytest.approx([(i + 1) / 10 for i in range(10)])
    assert found[10:] == pytest.approx([1 - i / 30 for i in range(30)])


def test_epochs_of_different_lengths_never_turn_the_rate_negative():
    made = TrainingSettings(epochs=3, schedule="linear", warmup=0.1)
    assert all(0 < factor(made, e, s, n) <= 1 for e, n in enumerate((5, 9, 14)) for s in range(n))


# -- going on -----------------------------------------------------------------------------------

VARIANTS = {
    "adam": {},
    "everything": {"ema": 0.99, "clip": 0.5, "schedule": "cosine", "warmup": 0.2, "optimiser": "adamw"},
    "rows": {"optimiser": "rowwise-adagrad", "sparse": True},
    "tokens": {"batch_tokens": 15, "precision": "bfloat16", "sparse": True},
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_going_on_from_any_step_ends_bit_for_bit_where_it_would_have(tmp_path, variant):
    settings = TrainingSettings(epochs=3, batch_size=8, learning_rate=0.03, **VARIANTS[variant])
    whole, kept = start(network(), settings), []

    def keep(state):
        path = tmp_path / str(len(kept))
        save_state(state, path, FACTS)
        kept.append(path)

    losses = [e.loss for e in run(whole, settings, sampled, checkpoint=keep, every=0.0)]
    assert len(kept) >= 8
    for path in kept:
        again = start(network(seed=99), settings)
        assert load_state(again, path, FACTS)
        assert again.step > 0
        rest = [e.loss for e in run(again, settings, sampled)]
        assert rest == losses[-len(rest) :]
        expect_same(again, whole)


def test_seconds_go_on_too(tmp_path):
    settings = TrainingSettings(epochs=1, batch_size=4)
    state = start(network(), settings)
    state.seconds, state.cpu_seconds = 100.0, 50.0
    (epoch,) = run(state, settings)
    assert 100 < epoch.seconds < 130
    assert 50 < epoch.cpu_seconds < 80
    assert (state.seconds, state.cpu_seconds) == (0, 0)


def test_a_state_that_has_everything_is_taken_back(tmp_path):
    settings = TrainingSettings(epochs=2, batch_size=8, ema=0.9)
    state = start(network(), settings)
    run(state, settings)
    state.best, state.notes = state.weights(), {"curve": [[1, 0.5, None]], "best": 0.25, "since": 1}
    save_state(state, tmp_path / "state", FACTS)
    again = start(network(seed=5), settings)
    assert load_state(again, tmp_path / "state", FACTS)
    expect_same(again, state)
    assert not load_state(again, tmp_path / "other", FACTS)
    assert not load_state(again, tmp_path / "nothing" / "state", FACTS)


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        ({**FACTS, "data": "xyz"}, "its data is 'abc', now it is 'xyz'"),
        ({**FACTS, "model": "large"}, "its model is 'small', now it is 'large'"),
        ({**FACTS, "settings": {"dim": 8, "epochs": 3}}, "its dim is 6, now it is 8"),
        ({**FACTS, "seed": 1}, "its seed is None, now it is 1"),
    ],
)
def test_a_checkpoint_of_another_training_is_refused(tmp_path, facts, said):
    settings = TrainingSettings()
    save_state(start(network(), settings), tmp_path / "state", FACTS)
    with pytest.raises(ArtifactError, match=r"checkpoint of another training.*Choose another folder") as error:
        load_state(start(network(), settings), tmp_path / "state", facts)
    assert said in str(error.value)


def test_a_damaged_checkpoint_is_refused(tmp_path):
    settings, path = TrainingSettings(), tmp_path / "state"

    def kept():
        save_state(start(network(), settings), path, FACTS)
        return start(network(), settings)

    state = kept()
    tensors = path / "state.safetensors"
    content = bytearray(tensors.read_bytes())
    content[-3] ^= 1
    tensors.write_bytes(content)
    with pytest.raises(ArtifactError, match=r"is damaged: its hash.*Remove it to start anew"):
        load_state(state, path, FACTS)
    state = kept()
    (path / "manifest.json").write_text("{")
    with pytest.raises(ArtifactError, match=r"cannot be read.*Remove it to start anew"):
        load_state(state, path, FACTS)
    state = kept()
    tensors.unlink()
    with pytest.raises(ArtifactError, match=r"is missing.*Remove it to start anew"):
        load_state(state, path, FACTS)
    state = kept()
    manifest = json.loads((path / "manifest.json").read_text())
    (path / "manifest.json").write_text(json.dumps({**manifest, "format": 99}))
    with pytest.raises(ArtifactError, match=r"has format 99.*upgrade nextsession"):
        load_state(state, path, FACTS)
    del manifest["epoch"]
    (path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ArtifactError, match=r"is damaged: 'epoch'.*Remove it"):
        load_state(state, path, FACTS)


def test_a_checkpoint_that_was_set_aside_by_a_process_that_died_is_found(tmp_path):
    settings = TrainingSettings()
    save_state(start(network(), settings), tmp_path / "state", FACTS)
    aside = tmp_path / ".state.old.abcdefgh"
    aside.mkdir()
    (tmp_path / "state").rename(aside / "was")
    assert load_state(start(network(), settings), tmp_path / "state", FACTS)


def test_without_room_the_last_checkpoint_stays(tmp_path, monkeypatch):
    settings, path = TrainingSettings(epochs=1), tmp_path / "state"
    state = start(network(), settings)
    save_state(state, path, FACTS)

    def full(tensors, place):
        place.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("nextsession.training_state.save_file", full)
    run(state, settings)
    with pytest.raises(ArtifactError, match=r"cannot be written: .*No space left.*The last checkpoint is whole"):
        save_state(state, path, FACTS)
    again = start(network(), settings)
    assert load_state(again, path, FACTS)
    assert again.epoch == 0
    assert [p.name for p in tmp_path.iterdir()] == ["state"]


# -- what cannot go on --------------------------------------------------------------------------


def test_a_loss_that_is_no_number_names_epoch_step_and_setting():
    settings = TrainingSettings(epochs=3, batch_size=8, learning_rate=0.01)
    steps = len(rows().order(np.random.default_rng(0), 8))
    calls = []

    def sick(examples, net):
        calls.append(1)
        return softmax(examples, net) * (math.nan if len(calls) == steps + 2 else 1.0)

    with pytest.raises(TrainingError) as error:
        run(start(network(), settings), settings, sick)
    assert f"the loss is not a number in epoch 2, by step 2 of {steps}" in str(error.value)
    assert "learning_rate = 0.01" in str(error.value)
    assert "Lower learning_rate" in str(error.value)


@pytest.mark.parametrize("optimiser", ["adam", "adagrad", "sgd"])
def test_a_learning_rate_far_too_large_is_no_garbage(optimiser):
    settings = TrainingSettings(epochs=3, batch_size=8, learning_rate=1e6, optimiser=optimiser)
    with pytest.raises(TrainingError, match=r"learning_rate = 1e\+06.*Lower learning_rate first"):
        run(start(network(), settings), settings)


def test_weights_that_the_last_step_ruined_are_noticed():
    settings = TrainingSettings(epochs=1, batch_size=1000, learning_rate=0.1)
    state = start(network(), settings)
    original = state.optimiser.step

    def ruin(rate):
        original(rate)
        with torch.no_grad():
            state.network.head.items.weight[3, 2] = math.nan

    state.optimiser.step = ruin
    with pytest.raises(TrainingError, match=r"weights are not numbers in epoch 1, after step 1"):
        run(state, settings)


@pytest.mark.parametrize(
    "error",
    [
        MemoryError("Unable to allocate 9.1 TiB"),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:117] . DefaultCPUAllocator: can't allocate memory: you tried"),
    ],
)
def test_memory_that_does_not_suffice_says_what_to_lower(error):
    settings = TrainingSettings(epochs=1, batch_size=8, batch_tokens=40)

    def hungry(examples, net):
        raise error

    with pytest.raises(TrainingError, match=r"memory does not suffice for steps of 8 rows or 40 events.*Lower batch_s"):
        run(start(network(), settings), settings, hungry)


def test_memory_of_this_machine_does_not_suffice():
    settings = TrainingSettings(epochs=1, batch_size=8)

    def hungry(examples, net):
        return softmax(examples, net) + torch.ones(1 << 60).sum()

    with pytest.raises(TrainingError, match=r"memory does not suffice"):
        run(start(network(), settings), settings, hungry)


def test_other_faults_are_not_renamed():
    settings = TrainingSettings(epochs=1, batch_size=8)

    def wrong(examples, net):
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        run(start(network(), settings), settings, wrong)


def test_settings_out_of_range_are_refused():
    for bad in ({"epochs": 0}, {"batch_size": 0}, {"ema": 1.0}, {"warmup": 1.0}, {"clip": -1}, {"optimiser": "lion"}):
        with pytest.raises(ConfigError, match=next(iter(bad))):
            TrainingSettings.read(bad, "small")


def test_an_epoch_is_plain_facts():
    settings = TrainingSettings(epochs=1, batch_size=8, learning_rate=0.02)
    (epoch,) = run(start(network(), settings), settings)
    assert asdict(epoch)["learning_rate"] == 0.02
    json.dumps(asdict(epoch), allow_nan=False)


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="only glibc gives memory back when asked")
def test_memory_that_is_held_and_not_used_is_given_back() -> None:
    def held() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    pieces = [np.ones(10_000) for _ in range(2_000)]  # 160 MB in pieces that the heap does not map one by one
    del pieces[:-1]  # the last lies above the others, so that they are not given back by themselves
    before = held()
    give_back_memory()
    assert before - held() > 100_000_000
    assert pieces[0].sum() == 10_000
