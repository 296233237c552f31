"""Sessions as graphs: the distinct items of each row are nodes, what followed what are edges.

The nodes of all rows lie end to end, and so do the edges: a batch is one graph that falls apart
into as many pieces as it has rows, and no node or edge is padding.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from nextsession.compiled import compiled
from nextsession.nn.jagged import Jagged


@dataclass(frozen=True, eq=False)
class SessionGraph:
    """What followed what in each row of a batch: K nodes and E directed edges over all rows."""

    nodes: Tensor  # (K,) int64 item codes; those of a row together, rising
    node_of: Tensor  # (N,) int64 node of each event
    sources: Tensor  # (E,) int64 node
    targets: Tensor  # (E,) int64 node
    into: Tensor  # (E,) float32 weight among the edges into the same node: they sum to 1
    out_of: Tensor  # (E,) float32 weight among the edges out of the same node: they sum to 1

    @classmethod
    def of(cls, events: Jagged, *, count: bool = False) -> "SessionGraph":
        """Build the graphs of rows of item codes.

        Two items have an edge if one came right after the other, however often; a node has an edge to
        itself only if an item was repeated at once.

        Args:
            events: Codes, `(N,)`.
            count: Does an edge weigh as much as the times it was taken (the paper)?  Otherwise all edges
                into a node weigh the same, and all edges out of it (the published code).
        """
        device = events.offsets.device
        parts = _graphs(events.values.cpu().numpy(), events.offsets.cpu().numpy(), count)
        return cls(*(torch.from_numpy(part).to(device, non_blocking=True) for part in parts))

    def gathered(self, values: Tensor) -> Tensor:
        """Return the weighted sum of what comes into each node from the nodes before it, `(K, D)` to `(K, D)`."""
        return torch.zeros_like(values).index_add(0, self.targets, values[self.sources] * self.into[:, None])

    def returned(self, values: Tensor) -> Tensor:
        """Return the weighted sum of what comes back to each node from the nodes after it, `(K, D)` to `(K, D)`."""
        return torch.zeros_like(values).index_add(0, self.sources, values[self.targets] * self.out_of[:, None])


class GatedGraphCell(nn.Module):
    """One step of a gated graph network (Li et al. 2016): nodes hear their neighbours, a GRU keeps what it wants.

    Args:
        dim: Width of the nodes.
    """

    def __init__(self, dim: int) -> None:
        """Draw the weights."""
        super().__init__()
        self.incoming, self.outgoing = nn.Linear(dim, dim), nn.Linear(dim, dim)
        self.incoming_bias, self.outgoing_bias = nn.Parameter(torch.zeros(dim)), nn.Parameter(torch.zeros(dim))
        self.heard, self.held = nn.Linear(2 * dim, 3 * dim), nn.Linear(dim, 3 * dim)

    def forward(self, nodes: Tensor, graph: SessionGraph) -> Tensor:
        """Map the vectors of nodes, `(K, D)`, to new ones."""
        heard = torch.cat(
            [
                graph.gathered(self.incoming(nodes)) + self.incoming_bias,
                graph.returned(self.outgoing(nodes)) + self.outgoing_bias,
            ],
            dim=1,
        )
        heard_reset, heard_update, heard_new = self.heard(heard).chunk(3, 1)
        held_reset, held_update, held_new = self.held(nodes).chunk(3, 1)
        reset = torch.sigmoid(heard_reset + held_reset)
        update = torch.sigmoid(heard_update + held_update)
        new = torch.tanh(heard_new + reset * held_new)
        return new + update * (nodes - new)


Graphs = tuple[
    NDArray[np.int64],
    NDArray[np.int64],
    NDArray[np.int64],
    NDArray[np.int64],
    NDArray[np.float32],
    NDArray[np.float32],
]


@compiled
def _graphs(codes: NDArray[np.int64], offsets: NDArray[np.int64], count: bool) -> Graphs:
    """Return the parts of a `SessionGraph` in its order."""
    nodes, node_of = np.empty(len(codes), np.int64), np.empty(len(codes), np.int64)
    sources, targets = np.empty(len(codes), np.int64), np.empty(len(codes), np.int64)
    into, out_of = np.empty(len(codes), np.float32), np.empty(len(codes), np.float32)
    degrees_in, degrees_out = np.zeros(len(codes), np.int64), np.zeros(len(codes), np.int64)
    n_nodes = n_edges = 0
    for row in range(len(offsets) - 1):
        start, stop = offsets[row], offsets[row + 1]
        if start == stop:
            continue
        first = n_nodes
        for place in np.argsort(codes[start:stop]):
            code = codes[start + place]
            if n_nodes == first or nodes[n_nodes - 1] != code:
                nodes[n_nodes] = code
                n_nodes += 1
            node_of[start + place] = n_nodes - 1
        width = n_nodes - first
        steps = np.sort((node_of[start : stop - 1] - first) * width + node_of[start + 1 : stop] - first)
        begin = n_edges
        for i in range(len(steps)):
            if i == 0 or steps[i] != steps[i - 1]:
                sources[n_edges], targets[n_edges] = first + steps[i] // width, first + steps[i] % width
                into[n_edges] = 0
                n_edges += 1
            elif not count:
                continue
            into[n_edges - 1] += 1
            degrees_out[sources[n_edges - 1]] += 1
            degrees_in[targets[n_edges - 1]] += 1
        for edge in range(begin, n_edges):
            weight = into[edge]
            into[edge] = weight / degrees_in[targets[edge]]
            out_of[edge] = weight / degrees_out[sources[edge]]
    return nodes[:n_nodes], node_of, sources[:n_edges], targets[:n_edges], into[:n_edges], out_of[:n_edges]
