"""SASRec against one obvious loop over one row, and what every causal encoder must keep to."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from nextsession.answering import Facts
from nextsession.config import Runtime
from nextsession.data.log import SessionLog
from nextsession.models.sasrec import SASRec
from nextsession.nn.jagged import Batch, Jagged
from nextsession.nn.networks import NextItem, shifted
from nextsession.nn.transformer import Block, BlockForm, Transformer

FORMS = {
    "original": BlockForm(norm="original", ffn="relu", inner=1, rate=0.0),
    "pre": BlockForm(norm="pre", ffn="gelu", heads=2, rate=0.0),
    "post": BlockForm(norm="post", ffn="gelu", heads=2, rate=0.0, causal=False),
    "ligr": BlockForm(norm="pre", ffn="swiglu", gated=True, heads=4, rate=0.0),
    "relative": BlockForm(norm="pre", ffn="relu", heads=2, rate=0.0, relative=12, project=False),
}


def _norm(x: Tensor, norm: nn.LayerNorm) -> Tensor:
    centred = x - x.mean()
    return centred / torch.sqrt((centred**2).mean() + norm.eps) * norm.weight + norm.bias


def _attend(block: Block, queries: list[Tensor], others: list[Tensor]) -> list[Tensor]:
    form, dim = block.form, block.of_query.in_features
    width = dim // form.heads
    found = []
    for i, query in enumerate(queries):
        heads = []
        for h in range(form.heads):
            part = slice(h * width, (h + 1) * width)
            seen = range(i + 1) if form.causal else range(len(queries))
            scores, values = [], []
            for j in seen:
                key_value = block.of_key_value(others[j])
                score = block.of_query(query)[part] @ key_value[:dim][part] / math.sqrt(width)
                if block.distances is not None:
                    score = score + block.distances[h, block.distances.shape[1] // 2 + j - i]
                scores.append(score)
                values.append(key_value[dim:][part])
            weights = torch.softmax(torch.stack(scores), 0)
            heads.append(sum(w * v for w, v in zip(weights, values, strict=True)))
        mixed = torch.cat(heads)
        found.append(mixed if block.project is None else block.project(mixed))
    return found


def _feed(block: Block, x: Tensor) -> Tensor:
    inner = block.widen(x)
    if block.form.ffn == "swiglu":
        gate, inner = inner.chunk(2)
        return block.narrow(gate * torch.sigmoid(gate) * inner)
    if block.form.ffn == "relu":
        return block.narrow(inner.clamp(min=0))
    return block.narrow(inner * 0.5 * (1 + torch.erf(inner / math.sqrt(2))))


def _block_slowly(block: Block, row: list[Tensor]) -> list[Tensor]:
    def add(stream: Tensor, part: Tensor, gate: nn.Linear | None) -> Tensor:
        return stream + (part if gate is None else torch.sigmoid(gate(stream)) * part)

    a, f = block.attention_norm, block.ffn_norm
    if block.form.norm == "post":
        mixed = _attend(block, row, row)
        row = [_norm(add(x, m, block.attention_gate), a) for x, m in zip(row, mixed, strict=True)]
        return [_norm(add(x, _feed(block, x), block.ffn_gate), f) for x in row]
    normed = [_norm(x, a) for x in row]
    if block.form.norm == "original":
        mixed = _attend(block, normed, row)
        row = [add(q, m, block.attention_gate) for q, m in zip(normed, mixed, strict=True)]
        return [add(_norm(x, f), _feed(block, _norm(x, f)), block.ffn_gate) for x in row]
    mixed = _attend(block, normed, normed)
    row = [add(x, m, block.attention_gate) for x, m in zip(row, mixed, strict=True)]
    return [add(x, _feed(block, _norm(x, f)), block.ffn_gate) for x in row]


def _random(form: BlockForm, layers: int = 2) -> tuple[Transformer, Jagged]:
    torch.manual_seed(3)
    encoder = Transformer(8, layers, form)
    for weight in encoder.parameters():
        nn.init.normal_(weight, std=0.5)
    offsets = torch.tensor([0, 4, 4, 5, 12])
    return encoder, Jagged(torch.randn(12, 8), offsets, 7)


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_blocks_equal_a_loop(form: BlockForm) -> None:
    encoder, rows = _random(form)
    expected = []
    for a, z in zip(rows.offsets[:-1], rows.offsets[1:], strict=True):
        row = list(rows.values[a:z])
        for block in encoder.blocks:
            row = _block_slowly(block, row)
        expected += [x if form.norm == "post" else _norm(x, encoder.norm) for x in row]
    torch.testing.assert_close(encoder(rows), torch.stack(expected), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("form", [form for form in FORMS.values() if form.causal])
def test_no_state_sees_what_follows(form: BlockForm) -> None:
    encoder, rows = _random(form)
    before = encoder(rows)
    values = rows.values.clone()
    values[9] += 1  # the fifth event of the last row
    after = encoder(rows.with_values(values))
    torch.testing.assert_close(after[:9], before[:9], rtol=0, atol=0)
    assert (after[9] != before[9]).any()
    assert (after[10:] != before[10:]).any()
    values.requires_grad_(True)
    encoder(rows.with_values(values))[:9].sum().backward()
    assert values.grad is not None
    assert not values.grad[9:].any()


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_a_row_alone_is_the_row_in_company(form: BlockForm) -> None:
    encoder, rows = _random(form)
    alone = encoder(Jagged(rows.values[5:], torch.tensor([0, 7]), 7))
    torch.testing.assert_close(alone, encoder(rows)[5:], rtol=1e-5, atol=1e-6)


def _network(**settings: object) -> NextItem:
    torch.manual_seed(0)
    model = SASRec(dim=16, max_length=6, dropout=0.0, **settings)
    network = model._network(Facts(9))
    assert isinstance(network, NextItem)
    return network.eval()


def test_a_row_of_l_plus_one_events_has_l_targets() -> None:
    log = SessionLog.from_lists([[list(range(7))], [[3]], [[8, 8]]])
    log = log.recode(SessionLog.from_lists([[list(range(9))]]).vocabulary)
    examples = _network().examples(Batch.of_log(log, np.full(3, 10**9)))
    assert examples.positives.tolist() == [1, 2, 3, 4, 5, 6, 8]
    assert examples.users is not None
    assert examples.users.tolist() == [0] * 6 + [2]
    assert examples.queries.shape == (7, 16)


def test_queries_of_training_are_those_of_answering() -> None:
    """What is learnt at a position is what is asked there: each state is the query of its prefix."""
    network = _network()
    log = SessionLog.from_lists([[[4, 2, 2, 7, 1]]]).recode(SessionLog.from_lists([[list(range(9))]]).vocabulary)
    batch = Batch.of_log(log, np.full(1, 10**9))
    in_one_pass = network.examples(batch).queries
    for length in range(1, 5):
        prefix = log.events(np.arange(5) < length)
        torch.testing.assert_close(network(Batch.of_log(prefix, np.full(1, 10**9)))[0], in_one_pass[length - 1])


@pytest.mark.parametrize(("preset", "count"), [("sasrec+", 281_984), ("sasrec", 281_984)])
def test_sizes_are_those_of_the_public_code(preset: str, count: int) -> None:
    """3,416 items, 200 places, two blocks of width 64: one row (of padding) fewer than the public code has."""
    network = SASRec(preset=preset)._network(Facts(3416))
    assert sum(p.numel() for p in network.parameters()) == count


def test_gsasrec_has_the_parts_of_its_code() -> None:
    """Two tables of vectors drawn as torch does, no root of the width, no map after attention, places from the end."""
    torch.manual_seed(0)
    model = SASRec(preset="gsasrec")
    network = model._network(Facts(3416))
    tables, places, norms = 2 * 3416 * 128, 200 * 128, 5 * 2 * 128
    maps = 2 * 5 * (128 * 128 + 128)
    assert sum(p.numel() for p in network.parameters()) == tables + places + norms + maps
    weights = dict(network.named_parameters())
    for name in ("inputs.items.weight", "head.output.weight", "inputs.positions"):
        assert weights[name].std().item() == pytest.approx(1.0, rel=0.02)
    for name in ("encoder.blocks.0.of_query", "encoder.blocks.1.narrow"):
        bound = 128**-0.5
        assert bound * 0.99 < weights[f"{name}.weight"].abs().max().item() <= bound
        assert 0 < weights[f"{name}.bias"].abs().max().item() <= bound
    assert (model.config.positions, model.config.scale) == ("from-end", False)


@pytest.mark.parametrize("preset", list(SASRec.settings_class.presets))  # type: ignore[attr-defined]
def test_presets_are_read_back_from_their_own_settings(preset: str) -> None:
    model = SASRec(preset=preset)
    again = SASRec(**model.config.model_dump(mode="json"))
    assert again.config == model.config


def test_a_setting_beside_a_preset_wins() -> None:
    assert SASRec(preset="gsasrec", dim=32).config.dim == 32
    assert SASRec(preset="gsasrec").config.dim == 128


def test_shifting_an_empty_batch() -> None:
    log = SessionLog.from_lists([[], []], vocabulary=SessionLog.from_lists([[[1, 2]]]).vocabulary)
    known, targets, _ = shifted(Batch.of_log(log, np.full(2, 10)))
    assert len(targets) == len(known.events.values) == 0


@pytest.mark.parametrize(
    "settings", [{}, {"preset": "esasrec"}, {"positions": "relative"}, {"normalise": True, "temperature": 0.05}]
)
def test_copying_the_last_item_is_learnt(settings: dict[str, object]) -> None:
    rng = np.random.default_rng(0)
    rows = [[[int(rng.integers(20))] * 4] for _ in range(200)]
    model = SASRec(dim=16, max_length=5, epochs=25, batch_size=50, learning_rate=0.01, dropout=0.0, **settings).fit(
        SessionLog.from_lists(rows), runtime=Runtime(seed=1)
    )
    asked = SessionLog.from_lists([[[i]] for i in range(20)])
    found = [answer == [i] for i, answer in enumerate(model.recommend(asked, 1))]
    assert np.mean(found) >= 0.95


def test_items_that_nobody_wanted_come_last_whatever_the_loss() -> None:
    """Binary cross-entropy pushes scores below 0, and draws no item without events: left alone, those would lead."""
    names = SessionLog.from_lists([[list(range(30))]]).vocabulary
    rows = [[[i % 10, (i + 1) % 10, (i + 2) % 10]] for i in range(40)]
    log = SessionLog.from_lists(rows, vocabulary=names)
    model = SASRec(preset="gsasrec", dim=16, max_length=5, epochs=3, batch_size=8).fit(log)
    found = model.recommend(SessionLog.from_lists([[[3, 4]]], vocabulary=names), 30)
    assert set(found.items[0, :10]) == set(range(10))
