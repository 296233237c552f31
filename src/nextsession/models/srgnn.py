"""SR-GNN: a session is a graph of its items; its answer weighs them by what was seen last."""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from nextsession.answering import Facts
from nextsession.neural import NeuralRecommender, NeuralSettings
from nextsession.nn.embedding import ItemEmbedding
from nextsession.nn.features import SideFeatures
from nextsession.nn.jagged import Batch, Jagged
from nextsession.nn.networks import Head, LastItem, Network
from nextsession.nn.ops.dropout import dropout
from nextsession.nn.session_graph import GatedGraphCell, SessionGraph
from nextsession.slices import Windows


class SRGNNSettings(NeuralSettings):
    """Settings of `SRGNN`; by default those of `srgnn_2019`, with weights chosen by validation."""

    reads: Literal["session", "history"] = "session"
    """What is one row, and so one graph: each session by itself, or all that a person did."""
    max_length: int = Field(default=50, ge=1)
    """Newest events of a row that are read."""
    windows: Windows = "prefixes"
    """Which slices of rows are trained on; a slice has one target, its last event."""
    dim: int = Field(default=100, ge=1)
    """Width of the vectors."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Share of the numbers of the items that are read set to 0 while training; the paper has none."""
    steps: int = Field(default=1, ge=0)
    """How often nodes hear their neighbours."""
    count_edges: bool = False
    """Does an edge weigh as much as the times it was taken?  So says the paper; its code says no."""
    hybrid: bool = True
    """Is the answer made of the last event and the sum of all, or of the sum alone?"""
    epochs: int = Field(default=30, ge=1)
    """Passes over the rows of training, at most."""
    batch_size: int = Field(default=100, ge=1)
    """Rows in a step, at most."""
    weight_decay: float = Field(default=1e-5, ge=0)
    """L2 penalty (`adam`, `adagrad`, `sgd`), or decay beside the gradient (`adamw`)."""
    schedule: Literal["constant", "cosine", "linear", "step"] = "step"
    """How the learning rate falls: not, to a twentieth, to nothing, or tenfold every `step_epochs`."""
    patience: int = Field(default=10, ge=0)
    """Validations without a better score before training ends; 0: train all epochs."""

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"srgnn_2019": {}}


class GraphReadout(nn.Module):
    """One vector a row: the sum of its events, each weighed by how it goes with the last, and the last.

    The weights are no softmax: a row may find all of its events important, or none.

    Args:
        dim: Width of the events.
        hybrid: Is the last event joined to the sum?
    """

    def __init__(self, dim: int, *, hybrid: bool = True) -> None:
        """Draw the weights."""
        super().__init__()
        self.of_last, self.of_each = nn.Linear(dim, dim), nn.Linear(dim, dim)
        self.weight = nn.Linear(dim, 1, bias=False)
        self.joined = nn.Linear(2 * dim, dim) if hybrid else None

    def forward(self, nodes: Tensor, node_of: Tensor, events: Jagged) -> Tensor:
        """Map the vectors of nodes, `(K, D)`, to one of each row, `(B, D)`.

        Args:
            nodes: States of the nodes.
            node_of: `(N,)` node of each event: an item that came twice counts twice.
            events: The rows.
        """
        each = events.with_values(nodes[node_of])
        last = each.last()
        keys = torch.sigmoid(self.of_last(last)[events.rows] + self.of_each(nodes)[node_of])
        summed = each.with_values(self.weight(keys) * each.values).sum()
        return summed if self.joined is None else self.joined(torch.cat([last, summed], dim=1))


class SessionGraphNetwork(LastItem):
    """Foretells the last event of a row from the graph of those before it.

    Args:
        items: Vectors of the items.
        cell: One step of hearing neighbours.
        readout: Makes one vector of a row.
        features: What is mixed into the vectors of the items that are read.
        steps: How often nodes hear their neighbours.
        count: Does an edge weigh as much as the times it was taken?
        rate: Dropout of the vectors that are read.
    """

    def __init__(
        self,
        items: ItemEmbedding,
        cell: GatedGraphCell,
        readout: GraphReadout,
        *,
        features: SideFeatures | None = None,
        steps: int = 1,
        count: bool = False,
        rate: float = 0.0,
    ) -> None:
        """Put the parts together, and draw the weights evenly from `+-1 / sqrt(D)`."""
        Network.__init__(self)  # there is no encoder of rows of vectors: graphs are made of codes
        self.items, self.cell, self.readout, self.head = items, cell, readout, Head(items)
        self.steps, self.count, self.rate = steps, count, rate
        for weight in self.parameters():
            nn.init.uniform_(weight, -(items.dim**-0.5), items.dim**-0.5)
        self.features = features

    def forward(self, batch: Batch) -> Tensor:
        """Return the query of each row, `(B, D)`."""
        graph = SessionGraph.of(batch.events, count=self.count)
        nodes = self.items(graph.nodes)
        if self.features is not None:
            nodes = self.features(graph.nodes, nodes)
        nodes = dropout(nodes, self.rate, self.training)
        for _ in range(self.steps):
            nodes = self.cell(nodes, graph)
        return self.head.queries(self.readout(nodes, graph.node_of, batch.events))


class SRGNN(NeuralRecommender[SRGNNSettings]):
    """A gated graph network runs once over the items of a session; attention by the last event sums them.

    The distinct items of a session are nodes, with an edge from each to what followed it.  A node
    hears the mean of the nodes before it and the mean of those after it; a GRU cell makes its state
    of that.  Events weigh `q . sigmoid(W1 last + W2 event + c)`, without a softmax, and the answer is
    a linear map of the last event and the weighted sum.  Items are scored by the raw vectors that
    are read; the loss is the softmax over all items.

    Training expands each session into all its beginnings (`windows`), each a graph of its own with
    one target, and draws all weights, those of the items too, evenly from `+-1 / sqrt(dim)`.  As
    published the learning rate falls tenfold every three epochs.  The authors took the best epoch
    by the test questions, for each metric by itself; here validation questions choose it.
    """

    name = "srgnn"
    reference = "Wu et al., Session-based recommendation with graph neural networks, AAAI 2019"

    def _network(self, facts: Facts) -> Network:
        settings = self.config
        return SessionGraphNetwork(
            ItemEmbedding(facts.n_items, settings.dim),
            GatedGraphCell(settings.dim),
            GraphReadout(settings.dim, hybrid=settings.hybrid),
            features=facts.side_features(settings.dim, settings.feature_dim),
            steps=settings.steps,
            count=settings.count_edges,
            rate=settings.dropout,
        )

    @property
    def uncompiled(self) -> str:
        """Why the network cannot be written down; see the base."""
        return "it makes a graph of every session before it reads it"

    @classmethod
    def examples(cls) -> list[dict[str, Any]]:
        """As published, and with the options of the paper's text."""
        small = {"dim": 16, "epochs": 20, "batch_size": 32, "learning_rate": 0.01, "schedule": "constant"}
        return [small, {**small, "count_edges": True, "hybrid": False, "steps": 2, "dropout": 0.1}]
