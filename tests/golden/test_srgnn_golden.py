"""The graph of the session 1 2 3 2 4, as the published code builds it, and its weights by the paper's text."""

import numpy as np
import pytest
import torch

from nextsession.nn.jagged import Jagged
from nextsession.nn.session_graph import SessionGraph


def adjacency(graph: SessionGraph) -> tuple[np.ndarray, np.ndarray]:
    """Return `A_in[v, u]` and `A_out[u, v]` of the edges `u -> v`."""
    k = len(graph.nodes)
    incoming, outgoing = np.zeros((k, k)), np.zeros((k, k))
    incoming[graph.targets, graph.sources] = graph.into
    outgoing[graph.sources, graph.targets] = graph.out_of
    return incoming, outgoing


def test_one_session():
    graph = SessionGraph.of(Jagged.of([[1, 2, 3, 2, 4]]))
    assert graph.nodes.tolist() == [1, 2, 3, 4]
    assert graph.nodes[graph.node_of].tolist() == [1, 2, 3, 2, 4]
    incoming, outgoing = adjacency(graph)
    np.testing.assert_array_equal(incoming, [[0, 0, 0, 0], [0.5, 0, 0.5, 0], [0, 1, 0, 0], [0, 1, 0, 0]])
    np.testing.assert_array_equal(outgoing, [[0, 1, 0, 0], [0, 0, 0.5, 0.5], [0, 1, 0, 0], [0, 0, 0, 0]])


def test_edges_taken_twice_weigh_as_one_unless_counted():
    rows = Jagged.of([[7, 8, 7, 8, 9]])
    _, as_in_the_code = adjacency(SessionGraph.of(rows))
    _, as_in_the_text = adjacency(SessionGraph.of(rows, count=True))
    np.testing.assert_allclose(as_in_the_code[1], [1 / 2, 0, 1 / 2])  # 8 -> 7, 8 -> 9
    np.testing.assert_allclose(as_in_the_text[0], [0, 1, 0])
    incoming, outgoing = adjacency(SessionGraph.of(Jagged.of([[1, 2, 1, 2, 1, 3, 3]]), count=True))
    np.testing.assert_allclose(outgoing, [[0, 2 / 3, 1 / 3], [1, 0, 0], [0, 0, 1]])
    np.testing.assert_allclose(incoming, [[0, 1, 0], [1, 0, 0], [1 / 2, 0, 1 / 2]])


@pytest.mark.parametrize(("row", "loops"), [([4, 4], 1), ([4, 5, 4], 0), ([4], 0)])
def test_only_what_is_repeated_at_once_leads_to_itself(row: list[int], loops: int):
    graph = SessionGraph.of(Jagged.of([row]))
    assert int((graph.sources == graph.targets).sum()) == loops


def test_rows_share_no_node():
    graph = SessionGraph.of(Jagged.of([[5, 6], [], [6, 5], [5]]))
    assert graph.nodes.tolist() == [5, 6, 5, 6, 5]
    assert graph.node_of.tolist() == [0, 1, 3, 2, 4]
    assert list(zip(graph.sources.tolist(), graph.targets.tolist(), strict=True)) == [(0, 1), (3, 2)]
    assert graph.into.dtype == graph.out_of.dtype == torch.float32
