"""Compiling: a network is written down as a graph that is served without torch (needs the extra `compile`).

`torch.export` follows the network while it reads one row (`nextsession.nn.one_row`), and the graph is kept
beside the model with the vectors of its items as plain arrays.  Nothing is kept unless the graph
answered histories of all kinds as the network does.
"""

import copy
import importlib.util
import logging
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from nextsession.data.log import SessionLog, offsets_of
from nextsession.data.vocabulary import Vocabulary
from nextsession.errors import ArtifactError, ConfigError, ModelError
from nextsession.neural import NeuralRecommender
from nextsession.nn.embedding import ItemEmbedding
from nextsession.nn.features import SideFeatures
from nextsession.nn.networks import Head, Input, Network
from nextsession.nn.one_row import BatchOfOne
from nextsession.recommender import Recommender
from nextsession.runtime.compiled_network import INPUTS, CompiledNetwork, compiled_network, facts_of
from nextsession.runtime.kept import onnxruntime, save_runtime, session_of
from nextsession.scores import DotScores, Targets

OPSET = 20
"""The operations of ONNX that a graph is written in."""
TOLERANCE = 1e-4
"""How far numbers of a query may lie from those of the network, in parts of the largest; scores of a list likewise."""
_DEPTH = 100
_ROWS = 200
_CHUNK = 1 << 16


@dataclass(frozen=True)
class Comparison:
    """How a compiled network answered beside its model."""

    histories: int
    query: float
    """The largest difference of two queries, in parts of the largest number of the network's."""
    score: float
    """How far an item stands out of place at most in a list of 100: its score by the network, beside the score that
    belongs there, in parts of the largest score of that list."""
    same: float
    """Share of lists of 100 that are the same to the last item."""


def compile_model(model: Recommender[Any], folder: Path, *, tolerance: float = TOLERANCE) -> Comparison:
    """Compile a model, compare it, and keep it in the folder that it was loaded from.

    Raises:
        ConfigError: The model cannot be compiled; the message says why.
        ArtifactError: The graph answers otherwise than the network.
        ModelError: A library is not installed.
    """
    if not isinstance(model, NeuralRecommender):
        raise ConfigError(f"{model.name} is served without torch as it is: there is nothing to compile.")
    if model.uncompiled:
        raise ConfigError(f"This {model.name} cannot be compiled: {model.uncompiled}. It is served with torch.")
    onnxruntime()
    for name in ("onnx", "onnxscript"):
        if importlib.util.find_spec(name) is None:
            raise ModelError(f"A network is compiled with {name}: pip install 'nextsession[compile]'.")
    table = model.table_
    alone, read, unknown_kind = _alone(model.network_)
    if read is not None and read.shape == (len(table), table.shape[1] - 2) and np.array_equal(read, table[:, :-2]):
        read = None
    graph = _written(alone, table.shape[1] - 2 if read is None else read.shape[1])
    facts, reading = facts_of(model), model._reading
    items = table[:, :-2] if read is None else read
    made = compiled_network(facts, session_of(graph), reading, table, items, unknown_kind=unknown_kind)
    made.vocabulary_, made.trained_until_ = model.vocabulary_, model.trained_until_
    found = compare(model, made)
    if not max(found.query, found.score) <= tolerance:
        raise ArtifactError(
            f"The compiled {model.name} answers otherwise than the network: queries differ by up to {found.query:.1e}, "
            f"scores of lists by {found.score:.1e}, and {tolerance:g} is allowed. It is served with torch."
        )
    measured = {"query": found.query, "score": found.score, "same": found.same, "tolerance": tolerance}
    save_runtime(
        folder, graph, table, read, reading, facts, unknown_kind=unknown_kind, opset=OPSET, measured=measured
    )  # fmt: skip
    return found


# -- the graph ----------------------------------------------------------------------------------


class _Given(nn.Module):
    """In place of the vectors of items: events come as vectors, and only special tokens are looked up."""

    special: Tensor

    def __init__(self, items: ItemEmbedding) -> None:
        super().__init__()
        self.n_items, self.dim = items.n_items, items.dim
        self.register_buffer("special", items.weight[items.n_items :].detach().clone())

    def forward(self, given: Tensor) -> Tensor:
        return given if given.is_floating_point() else self.special[given - self.n_items]


class _Mixed(nn.Module):
    """In place of side features that are mixed with the kind of an event: vectors of items come with theirs."""

    def __init__(self, features: SideFeatures) -> None:
        super().__init__()
        self.mix = copy.deepcopy(features.mix)

    def forward(self, _: Tensor, vectors: Tensor, *beside: Tensor) -> Tensor:
        return self.mix(torch.cat([vectors, *beside], dim=-1))  # type: ignore[no-any-return]


class _QueryOfOne(nn.Module):
    """The query of one history."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def forward(self, *given: Tensor) -> Tensor:
        return self.network(BatchOfOne.of_row(*given))  # type: ignore[no-any-return]


def _alone(network: Network) -> tuple[Network, NDArray[np.float32] | None, int]:
    """Return a network without the vectors of its items, what it reads of each item, and what stands for no kind."""
    reader = _reader(network)
    items, features = reader.items, getattr(reader, "features", None)
    mixed = isinstance(reader, Input) and reader.mixed
    memo: dict[int, Any] = {id(items): _Given(items)}
    if network.head.output is not None:
        memo[id(network.head.output)] = _Given(network.head.output)
    if features is not None:
        memo[id(features)] = _Mixed(features)
    alone = copy.deepcopy(network, memo)
    reader = _reader(alone)
    if features is not None and not mixed:
        reader.features = None
    unknown = -1
    if isinstance(reader, Input) and reader.actions is not None and not mixed:
        # Where kinds are not known their vectors are left out: one more kind has a vector of zeros.
        weight = reader.actions.weight.detach()
        unknown = len(weight) - 1
        reader.actions = nn.Embedding(len(weight) + 1, weight.shape[1])
        reader.actions.weight = nn.Parameter(torch.cat([weight, torch.zeros_like(weight[:1])]))
    return alone.eval().requires_grad_(False), _read(items, features, mixed=mixed), unknown


def _reader(network: Network) -> Any:
    """Return the part of a network that looks up the vectors of items that are read."""
    found = [m for m in network.modules() if isinstance(getattr(m, "items", None), ItemEmbedding | _Given)]
    (reader,) = [part for part in found if not isinstance(part, Head)]
    return reader


def _read(items: ItemEmbedding, features: SideFeatures | None, *, mixed: bool) -> NDArray[np.float32]:
    """Return what is read of each item, `(V, W)`: its vector, with its features mixed in or beside it."""
    vectors = items.table()
    if features is None:
        return vectors.detach().numpy()
    parts = []
    with torch.inference_mode():
        for codes in torch.split(torch.arange(len(vectors)), _CHUNK):
            own = vectors[codes]
            parts.append(torch.cat([own, *features.means(codes)], dim=-1) if mixed else features(codes, own))
    return torch.cat(parts).numpy()


def _written(network: Network, width: int) -> bytes:
    """Return the graph of a network that reads one row of vectors `width` wide, in ONNX."""
    n, s = 7, 3
    starts = torch.tensor([0, 2, 3])
    given = (
        torch.randn(n, width, generator=torch.Generator().manual_seed(0)),
        torch.ones(n, dtype=torch.int64),
        torch.zeros(n, dtype=torch.int64),
        torch.arange(n) * 1000,
        torch.tensor([n * 1000]),
        starts,
        torch.tensor([0, 0, 1, 2, 2, 2, 2]),
    )
    assert len(starts) == s
    events, sessions = torch.export.Dim("events", min=3), torch.export.Dim("sessions", min=3)
    sizes = {"asked_at": None, "starts": {0: sessions}}
    shapes = tuple(sizes.get(name, {0: events}) for name in INPUTS)
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)  # of operations of other libraries that are not installed
    try:
        with warnings.catch_warnings(), torch.no_grad():  # in inference mode a GRU would be followed step by step
            warnings.simplefilter("ignore")
            followed = torch.export.export(_QueryOfOne(network), given, dynamic_shapes=(shapes,), strict=False)
            program = torch.onnx.export(
                followed,
                dynamo=True,
                input_names=list(INPUTS),
                output_names=["query"],
                opset_version=OPSET,
                verbose=False,
            )
    finally:
        logging.disable(level)
    assert program is not None
    graph = program.model_proto
    for node in graph.graph.node:
        if node.op_type == "Shape" and node.input[0] in ("labels", "actions", "times", "session_of"):
            node.input[0] = "vectors"  # of any of them the first size is the number of events
    asked = {name for node in graph.graph.node for name in node.input}
    used = [x for x in graph.graph.input if x.name in asked or x.name == "vectors"]
    del graph.graph.input[:]
    graph.graph.input.extend(used)
    found: bytes = graph.SerializeToString()
    return found


# -- the comparison -----------------------------------------------------------------------------


def compare(model: Recommender[Any], made: CompiledNetwork, *, seed: int = 0) -> Comparison:
    """Ask a model and what was compiled of it the same, and measure how far apart they are."""
    log, asked_at = histories_of(model, seed=seed)
    truth, found = model.scores(log, asked_at=asked_at), made.scores(log, asked_at=asked_at)
    assert isinstance(truth, DotScores)
    assert isinstance(found, DotScores)
    sizes = np.maximum(np.abs(truth.queries[:, :-2]).max(axis=1, initial=0), 1e-6)
    query = float((np.abs(truth.queries - found.queries).max(axis=1) / sizes).max(initial=0))
    right, listed = truth.top(_DEPTH), found.top(_DEPTH)
    width = right.items.shape[1]
    known = np.maximum(listed.items, 0)
    own = truth.at(Targets(np.arange(len(known) + 1) * width, known.reshape(-1).astype(np.int32))).reshape(known.shape)
    there = np.isfinite(right.scores)
    largest = np.maximum(np.abs(np.where(there, right.scores, 0)).max(axis=1, initial=0), 1e-6)[:, None]
    apart = np.abs(np.where(there, right.scores - own, 0)) / largest
    score = float(apart.max(initial=0))
    same = int(np.all(right.items == listed.items, axis=1).sum())
    return Comparison(len(log), query, score, same / max(1, len(log)))


def histories_of(model: Recommender[Any], *, seed: int = 0) -> tuple[SessionLog, NDArray[np.int64]]:
    """Make histories of all kinds for a model, and the instant at which each asks.

    None at all, one event, more events than are read; items that the model does not know, and again
    the one before; one session and many; a millisecond, a minute or a year apart; events that were
    shown and ignored, of every kind, where the model reads them.
    """
    rng = np.random.default_rng(seed)
    longest = getattr(getattr(model, "config", None), "max_length", 50)
    sizes = np.concatenate([[0, 1, 1, 2, longest, longest + 1, 2 * longest + 3], rng.integers(1, 60, _ROWS - 7)])
    n = int(sizes.sum())
    ids = model.vocabulary_.ids
    codes = rng.integers(0, len(ids), n).astype(np.int32)
    again = np.flatnonzero(rng.random(n) < 0.2)
    codes[again[again > 0]] = codes[again[again > 0] - 1]
    strange = rng.random(n) < 0.05
    vocabulary = Vocabulary([*ids.tolist(), _stranger(ids.tolist())])
    codes[strange] = len(ids)
    gaps = rng.choice(np.array([0, 1, 1000, 60_000, 86_400_000, 31_536_000_000]), n)
    offsets = offsets_of(sizes)
    times = model.trained_until_ + np.cumsum(gaps)
    begins = rng.random(n) < 0.2
    begins[offsets[:-1][sizes > 0]] = True
    rows = np.repeat(np.arange(len(sizes)), sizes)
    actions: NDArray[np.int16] | None = None
    names: tuple[str, ...] = ()
    if getattr(model, "reads_actions", False):
        known = model._reading.actions if isinstance(model, NeuralRecommender) else ()
        names = (*known, "of no kind that is known")
        actions = rng.integers(0, len(names), n).astype(np.int16)
    log = SessionLog(
        items=codes,
        times=times,
        session_offsets=np.append(np.flatnonzero(begins), n),
        user_offsets=offsets_of(np.bincount(rows[begins], minlength=len(sizes))),
        vocabulary=vocabulary,
        labels=(rng.random(n) < 0.7).astype(np.int8) if model.reads_ignored else None,  # type: ignore[arg-type]
        actions=actions,
        action_names=names,
    )
    waits = rng.choice(np.array([0, 1, 60_000, 3_600_000, 31_536_000_000]), len(sizes))
    return log, np.maximum(log.last_times, 0) + waits


def _stranger(ids: list[Any]) -> Any:
    if not ids or isinstance(ids[0], str):
        name = "unknown"
        while name in set(ids):
            name += "?"
        return name
    return max(ids) + 1
