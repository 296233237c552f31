"""SR-GNN: what a graph of a session must tell apart, what must not matter, and the published recipe."""

import numpy as np
import pytest
import torch

from nextsession import SessionLog, Vocabulary, create
from nextsession.answering import Facts
from nextsession.models.srgnn import GraphReadout, SessionGraphNetwork
from nextsession.nn.embedding import ItemEmbedding
from nextsession.nn.jagged import Batch, Jagged
from nextsession.nn.session_graph import GatedGraphCell
from nextsession.training import factor


def batch_of(rows: list[list[int]]) -> Batch:
    events = Jagged.of(rows)
    return Batch(events, Jagged(events.offsets[:-1], torch.arange(len(rows) + 1), 1))


@pytest.fixture(scope="module")
def network() -> SessionGraphNetwork:
    torch.manual_seed(3)
    return SessionGraphNetwork(ItemEmbedding(10, 8), GatedGraphCell(8), GraphReadout(8)).requires_grad_(False)


def query(network: SessionGraphNetwork, row: list[int]) -> torch.Tensor:
    return network(batch_of([row]))[0]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ([1, 2], [2, 1]),  # a graph without directions would be the same
        ([2, 1, 2], [2, 1]),  # the last event is not the last node
        ([1, 1, 2], [1, 2]),  # an item repeated at once leads to itself
        ([1, 2, 3, 1, 2, 3], [1, 2, 3]),  # events are weighed, not nodes
    ],
)
def test_these_are_told_apart(network: SessionGraphNetwork, one: list[int], other: list[int]) -> None:
    assert (query(network, one) - query(network, other)).abs().max() > 1e-4


def test_repeats_are_counted_by_the_readout_alone_unless_edges_count() -> None:
    torch.manual_seed(0)
    last_only = SessionGraphNetwork(ItemEmbedding(10, 8), GatedGraphCell(8), GraphReadout(8)).requires_grad_(False)
    last_only.readout.weight.weight.zero_()  # no event weighs anything: only the state of the last node is left
    once, twice = [1, 2, 1, 3, 2], [1, 2, 1, 2, 1, 3, 2]
    torch.testing.assert_close(query(last_only, once), query(last_only, twice))
    last_only.count = True
    assert (query(last_only, once) - query(last_only, twice)).abs().max() > 1e-5


def test_company_and_order_of_rows_mean_nothing(network: SessionGraphNetwork) -> None:
    rows = [[1, 2, 3], [4], [], [9, 9, 0, 9], [1, 2, 3]]
    together = network(batch_of(rows))
    for row, found in zip(rows, together, strict=True):
        if row:
            torch.testing.assert_close(found, query(network, row))
    torch.testing.assert_close(network(batch_of(rows[::-1])), together.flip(0))


def test_weights_are_no_softmax(network: SessionGraphNetwork) -> None:
    events = Jagged.of([[0, 0, 0]])
    nodes = torch.randn(1, 8, generator=torch.Generator().manual_seed(0))
    summed = GraphReadout(8, hybrid=False)
    one = summed(nodes, torch.zeros(1, dtype=torch.int64), Jagged.of([[0]]))
    torch.testing.assert_close(summed(nodes, torch.zeros(3, dtype=torch.int64), events), 3 * one)


def test_nothing_but_empty_rows(network: SessionGraphNetwork) -> None:
    assert network(batch_of([[], []])).shape == (2, 8)


def test_all_weights_are_drawn_evenly() -> None:
    torch.manual_seed(0)
    network = SessionGraphNetwork(ItemEmbedding(50, 25), GatedGraphCell(25), GraphReadout(25))
    for name, weight in network.named_parameters():
        assert weight.abs().max() <= 0.2, name
        assert weight.abs().max() > 0.15, name
    assert network.items.weight.std().item() == pytest.approx(0.2 / 3**0.5, rel=0.1)
    assert network.head.table()[0] is network.items.weight  # items are ranked by the vectors that are read


def test_published_recipe() -> None:
    config = create("srgnn", preset="srgnn_2019").config
    assert (config.dim, config.batch_size, config.epochs, config.patience) == (100, 100, 30, 10)
    assert (config.optimiser, config.learning_rate, config.weight_decay) == ("adam", 1e-3, 1e-5)
    assert (config.steps, config.hybrid, config.count_edges, config.dropout) == (1, True, False, 0)
    assert (config.windows, config.reads, config.loss.kind) == ("prefixes", "session", "softmax")
    rates = [config.learning_rate * factor(config, epoch, 0, 10) for epoch in range(7)]
    np.testing.assert_allclose(rates, [1e-3] * 3 + [1e-4] * 3 + [1e-5])


def test_every_beginning_of_a_session_is_a_sample() -> None:
    log = SessionLog.from_lists([[[0, 1, 2], [3]], [[4, 5]]], vocabulary=Vocabulary(range(6)))
    model = create("srgnn")
    model.facts_ = Facts(log.n_items)
    rows = model._rows(log)
    samples = [log.items[a:z].tolist() for a, z in zip(rows.slices.starts, rows.slices.stops, strict=True)]
    assert samples == [[0, 1], [0, 1, 2], [4, 5]]


def test_published_size() -> None:
    d, v = 100, 43097
    network = SessionGraphNetwork(ItemEmbedding(v, d), GatedGraphCell(d), GraphReadout(d))
    per_cell = 2 * d * d + 4 * d + (6 + 3) * d * d + 6 * d
    per_readout = 2 * (d * d + d) + d + 2 * d * d + d
    assert sum(p.numel() for p in network.parameters()) == v * d + per_cell + per_readout
