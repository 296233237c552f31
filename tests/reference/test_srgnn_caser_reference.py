"""SR-GNN and Caser against loops over sessions and windows, with the dense matrices of their definitions."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from nextsession import SessionLog, Vocabulary
from nextsession.models.caser import CaserSettings, WindowNetwork, window_slices
from nextsession.models.srgnn import GraphReadout, SessionGraphNetwork
from nextsession.nn.batches import Rows
from nextsession.nn.embedding import ItemEmbedding
from nextsession.nn.jagged import Batch, Jagged
from nextsession.nn.losses import BCE, FullSoftmax
from nextsession.nn.negatives import ItemStatistics, Uniform
from nextsession.nn.networks import Examples
from nextsession.nn.session_graph import GatedGraphCell, SessionGraph

N_ITEMS, DIM = 9, 6
ROWS = st.lists(st.lists(st.integers(0, N_ITEMS - 1), min_size=1, max_size=12), min_size=1, max_size=5)


def batch_of(rows: list[list[int]]) -> Batch:
    events = Jagged.of(rows)
    return Batch(events, Jagged(events.offsets[:-1], torch.arange(len(rows) + 1), 1))


# -- SR-GNN: the slow twin ----------------------------------------------------------------------


def adjacency(row: list[int], count: bool) -> tuple[list[int], list[int], Tensor, Tensor]:
    nodes = np.unique(row).tolist()
    alias = [nodes.index(item) for item in row]
    times = torch.zeros(len(nodes), len(nodes), dtype=torch.float64)
    for u, v in pairwise(alias):
        times[u, v] = times[u, v] + 1 if count else 1
    out_degree, in_degree = times.sum(1), times.sum(0)
    outgoing = times / torch.where(out_degree == 0, 1, out_degree)[:, None]
    incoming = times.T / torch.where(in_degree == 0, 1, in_degree)[:, None]
    return nodes, alias, incoming, outgoing


def answer(w: dict[str, Tensor], row: list[int], *, count: bool, steps: int, hybrid: bool) -> Tensor:
    """Return the query of one session, `(D,)`."""
    nodes, alias, incoming, outgoing = adjacency(row, count)
    h = w["items.weight"][nodes]
    d = h.shape[1]
    for _ in range(steps):
        a_in = incoming @ (h @ w["cell.incoming.weight"].T + w["cell.incoming.bias"]) + w["cell.incoming_bias"]
        a_out = outgoing @ (h @ w["cell.outgoing.weight"].T + w["cell.outgoing.bias"]) + w["cell.outgoing_bias"]
        a = torch.cat([a_in, a_out], 1)
        gi = a @ w["cell.heard.weight"].T + w["cell.heard.bias"]
        gh = h @ w["cell.held.weight"].T + w["cell.held.bias"]
        r = torch.sigmoid(gi[:, :d] + gh[:, :d])
        z = torch.sigmoid(gi[:, d : 2 * d] + gh[:, d : 2 * d])
        n = torch.tanh(gi[:, 2 * d :] + r * gh[:, 2 * d :])
        h = n + z * (h - n)
    last = h[alias[-1]]
    total = torch.zeros_like(last)
    for place in alias:
        key = w["readout.of_last.weight"] @ last + w["readout.of_last.bias"]
        key = torch.sigmoid(key + w["readout.of_each.weight"] @ h[place] + w["readout.of_each.bias"])
        total = total + (w["readout.weight.weight"][0] @ key) * h[place]
    if not hybrid:
        return total
    return w["readout.joined.weight"] @ torch.cat([last, total]) + w["readout.joined.bias"]


def weights_of(network: torch.nn.Module) -> dict[str, Tensor]:
    return {k: v.detach().double().requires_grad_() for k, v in network.named_parameters()}


def graph_network(*, count: bool = False, steps: int = 1, hybrid: bool = True, seed: int = 0) -> SessionGraphNetwork:
    torch.manual_seed(seed)
    readout = GraphReadout(DIM, hybrid=hybrid)
    return SessionGraphNetwork(ItemEmbedding(N_ITEMS, DIM), GatedGraphCell(DIM), readout, steps=steps, count=count)


@settings(max_examples=60)
@given(rows=ROWS, count=st.booleans())
def test_graphs(rows: list[list[int]], count: bool) -> None:
    graph = SessionGraph.of(Jagged.of(rows), count=count)
    k = len(graph.nodes)
    incoming, outgoing = torch.zeros(k, k), torch.zeros(k, k)
    incoming[graph.targets, graph.sources] = graph.into
    outgoing[graph.sources, graph.targets] = graph.out_of
    twins = [adjacency(row, count) for row in rows]
    assert graph.nodes.tolist() == [node for nodes, *_ in twins for node in nodes]
    firsts = np.cumsum([0] + [len(nodes) for nodes, *_ in twins])
    assert graph.node_of.tolist() == [f + a for f, (_, alias, *_) in zip(firsts, twins, strict=False) for a in alias]
    torch.testing.assert_close(incoming, torch.block_diag(*[a for _, _, a, _ in twins]).float())
    torch.testing.assert_close(outgoing, torch.block_diag(*[a for *_, a in twins]).float())


@pytest.mark.parametrize("count", [False, True])
@pytest.mark.parametrize("steps", [0, 1, 2])
@pytest.mark.parametrize("hybrid", [True, False])
def test_srgnn_value_and_gradient(count: bool, steps: int, hybrid: bool) -> None:
    network = graph_network(count=count, steps=steps, hybrid=hybrid)
    rows = [[1, 2, 3, 2, 4], [0, 1], [5, 5, 5, 2, 5, 2], [7, 8, 7, 8, 7, 0, 8]]
    examples = network.examples(batch_of([*rows, [3]]))  # one event: nothing to foretell
    FullSoftmax()(examples, network.head, ItemStatistics(torch.ones(N_ITEMS))).backward()

    w = weights_of(network)
    queries = torch.stack([answer(w, row[:-1], count=count, steps=steps, hybrid=hybrid) for row in rows])
    targets = torch.tensor([row[-1] for row in rows])
    torch.nn.functional.cross_entropy(queries @ w["items.weight"].T, targets).backward()

    assert examples.positives.tolist() == targets.tolist()
    torch.testing.assert_close(examples.queries.double(), queries, rtol=1e-5, atol=1e-6)
    for name, weight in network.named_parameters():
        expected = w[name].grad
        if expected is None or weight.grad is None:  # no step is taken: its weights are not read
            assert steps == 0
            continue
        torch.testing.assert_close(weight.grad.double(), expected, rtol=1e-4, atol=1e-6, msg=name)


@settings(max_examples=20)
@given(rows=ROWS, count=st.booleans())
def test_srgnn_of_any_rows(rows: list[list[int]], count: bool) -> None:
    network = graph_network(count=count)
    w = weights_of(network)
    expected = torch.stack([answer(w, row, count=count, steps=1, hybrid=True) for row in rows])
    torch.testing.assert_close(network(batch_of(rows)).double(), expected, rtol=1e-5, atol=1e-6)


# -- Caser: the slow twin -----------------------------------------------------------------------


def window_answer(w: dict[str, Tensor], row: list[int], length: int) -> Tensor:
    """Return the query of one window, with the filters as they slide over the image."""
    window = ([N_ITEMS] * length + row)[-length:]
    image = w["items.weight"][window]  # (L, D)
    d = image.shape[1]
    found = []
    if "filters.vertical.weight" in w:
        for weights, bias in zip(w["filters.vertical.weight"], w["filters.vertical.bias"], strict=True):
            found.append(sum(weights[place] * image[place] for place in range(length)) + bias)
    for height in range(1, length + 1):
        name = f"filters.heights.{height - 1}"
        if f"{name}.weight" not in w:
            continue
        best = []
        for kernel, bias in zip(w[f"{name}.weight"], w[f"{name}.bias"], strict=True):
            kernel = kernel.view(height, d)
            seen = [(kernel * image[top : top + height]).sum() + bias for top in range(length - height + 1)]
            best.append(torch.relu(torch.stack(seen)).max())
        found.append(torch.stack(best))
    hidden = torch.relu(w["hidden.weight"] @ torch.cat(found) + w["hidden.bias"])
    return torch.cat([hidden, w["user"]]) if "user" in w else hidden


def window_network(*, horizontal: int = 3, vertical: int = 2, user: bool = True) -> WindowNetwork:
    torch.manual_seed(1)
    items = ItemEmbedding(N_ITEMS, DIM, special=1)
    return WindowNetwork(items, length=4, targets=3, horizontal=horizontal, vertical=vertical, user=user, rate=0.0)


@pytest.mark.parametrize(("horizontal", "vertical"), [(3, 2), (3, 0), (0, 2)])
@pytest.mark.parametrize("user", [True, False])
def test_caser_value_and_gradient(horizontal: int, vertical: int, user: bool) -> None:
    network = window_network(horizontal=horizontal, vertical=vertical, user=user)
    with torch.no_grad():  # as drawn, numbers are so small that little is rectified
        for weight in network.parameters():
            weight.uniform_(-0.7, 0.7)
    rows = [[1, 2, 3, 4, 5, 6, 7], [5, 2], [3, 3, 3], [0, 8, 1, 5, 2], [6, 5, 4, 3, 2, 1, 0, 1, 2]]
    examples = network.examples(batch_of(rows))
    negatives = torch.tensor([[0, 8, 2], [1, 4, 0], [7, 8, 0], [3, 4, 6], [5, 6, 8]])

    w = weights_of(network)
    split = [max(1, len(row) - 3) for row in rows]
    queries = torch.stack([window_answer(w, row[:t], 4) for row, t in zip(rows, split, strict=True)])
    torch.testing.assert_close(examples.queries.double(), queries, rtol=1e-5, atol=1e-6)
    assert examples.positives.tolist() == [item for row, t in zip(rows, split, strict=True) for item in row[t:]]
    assert examples.of_query.tolist() == [r for r, t in enumerate(split) for _ in rows[r][t:]]

    table, bias = w["head.output.weight"], w["head.bias"]
    scores = queries @ table.T + bias
    (scores[examples.of_query, examples.positives].sum() - scores.gather(1, negatives).sum()).backward()
    vectors, offset = network.head.table()
    ours = examples.queries @ vectors.T + offset
    (ours[examples.of_query, examples.positives].sum() - ours.gather(1, negatives).sum()).backward()
    for name, weight in network.named_parameters():
        torch.testing.assert_close(weight.grad.double(), w[name].grad, rtol=1e-4, atol=1e-5, msg=name)


def test_caser_loss_is_the_mean_over_targets_plus_the_mean_over_negatives() -> None:
    network = window_network()
    examples = network.examples(batch_of([[1, 2, 3, 4, 5, 6, 7], [0, 8, 7, 5, 2], [6, 5, 4, 3]]))
    sampler = Uniform(n=3, mask=False)  # what is drawn cannot be left out: nothing but the means is looked at
    items = ItemStatistics(torch.ones(N_ITEMS))
    torch.manual_seed(4)
    ours = BCE(negatives=sampler, average=True)(examples, network.head, items)
    torch.manual_seed(4)
    drawn = sampler(examples, network.head, items).items
    table, bias = network.head.table()
    scores = examples.queries @ table.T + bias
    positive = -torch.log(torch.sigmoid(scores[examples.of_query, examples.positives])).mean()
    negative = -torch.log(1 - torch.sigmoid(scores.gather(1, drawn))).mean()
    torch.testing.assert_close(ours, positive + negative)


def windows_slowly(row: list[int], length: int, targets: int, beginnings: bool) -> list[tuple[list[int], list[int]]]:
    """Return what is read and what is to be foretold, of each window of one row."""
    size = length + targets
    found = []
    for stop in range(2, len(row) + 1):
        piece = row[max(0, stop - size) : stop]
        if not beginnings and len(piece) < size and stop < len(row):
            continue
        split = max(1, len(piece) - targets)
        found.append((piece[:split], piece[split:]))
    return found


@settings(max_examples=30)
@given(
    rows=st.lists(st.lists(st.integers(0, N_ITEMS - 1), max_size=14), min_size=1, max_size=5),
    targets=st.integers(1, 3),
    beginnings=st.booleans(),
)
def test_caser_windows(rows: list[list[int]], targets: int, beginnings: bool) -> None:
    log = SessionLog.from_lists([[row] for row in rows], vocabulary=Vocabulary(range(N_ITEMS)))
    config = CaserSettings(max_length=4, targets=targets, beginnings=beginnings)
    windows = Rows(log, window_slices(log.event_offsets, config))
    expected = [window for row in rows for window in windows_slowly(row, 4, targets, beginnings)]
    assert len(windows) == len(expected)
    if not expected:
        return
    batch = windows.batch(np.arange(len(windows)))
    network = WindowNetwork(
        ItemEmbedding(N_ITEMS, DIM, special=1), length=4, targets=targets, horizontal=2, vertical=1, rate=0.0
    )
    examples: Examples = network.examples(batch)
    w = weights_of(network)
    queries = torch.stack([window_answer(w, read, 4) for read, _ in expected])
    torch.testing.assert_close(examples.queries.double(), queries, rtol=1e-5, atol=1e-6)
    assert examples.positives.tolist() == [item for _, wanted in expected for item in wanted]
    assert examples.of_query.tolist() == [q for q, (_, wanted) in enumerate(expected) for _ in wanted]
