"""What goes on inside a model while it reads one history: gates, attention, session tokens.

A look inside is asked of a model that is being served, so nothing here changes it: no hooks, no
switches, only its own weights, read once more.  A model that offers nothing of a kind gives None.
"""

import sys
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import msgspec
import numpy as np
from numpy.typing import NDArray

from nextsession.data.log import SessionLog
from nextsession.recommender import Recommender
from nextsession.runtime.compiled_network import CompiledNetwork

if TYPE_CHECKING:
    from nextsession.models.gru4rec import GRU4Rec

_UNITS = 48
"""Units of a layer that are told one by one."""


class Gates(msgspec.Struct, frozen=True):
    """What the last layer of a GRU did with each event that it read."""

    units: int
    first: int
    """Place of the first event that was read, among those that the model was given."""
    update: tuple[tuple[float, ...], ...]
    """A row for each event, a number for each of some units: the share of the state that the event rewrote."""
    renewed: tuple[float, ...]
    """The mean of that share over all units."""
    reset: tuple[float, ...]
    """The mean share of the old state that was let in on the new one."""
    memory: tuple[float, ...]
    """How much of the final state each event wrote; the rest to 1 is the empty state of the beginning."""


class Attention(msgspec.Struct, frozen=True):
    """Where a transformer looked: the weights of each layer and head, a row for each event that looks."""

    first: int
    causal: bool
    layers: tuple[tuple[tuple[tuple[float, ...], ...], ...], ...]


class Token(msgspec.Struct, frozen=True):
    """One session as one vector."""

    session: int
    """Its place among the sessions that the model was given."""
    events: int
    length: float
    """The norm of its vector."""
    alike: tuple[float, ...]
    """The cosine of its vector to those of its events."""
    open: bool


Nothing: TypeAlias = Literal["unread", "counts", "compiled", "network"]
"""No event was given to the model; it counts and keeps no state; its graph gives lists and nothing on the way; it is a
network of a kind that is not drawn."""


class Insides(msgspec.Struct, frozen=True):
    """What a model offers; None for what it does not have."""

    gates: Gates | None = None
    attention: Attention | None = None
    tokens: tuple[Token, ...] | None = None
    nothing: Nothing | None = None
    """Why there is nothing to draw; null where there is."""


def insides(model: Recommender[Any], log: SessionLog, asked_at: NDArray[np.int64]) -> Insides:
    """Look inside a model while it reads a log of one row."""
    if not log.n_events:
        return Insides(nothing="unread")
    if isinstance(model, CompiledNetwork):
        return Insides(nothing="compiled")
    if model.name == "gru4rec":
        return Insides(gates=gates(model, log))  # type: ignore[arg-type]
    network = getattr(model, "network_", None)
    if network is None or "torch" not in sys.modules:
        return Insides(nothing="counts")
    attention, tokens = _attention(model, log, asked_at), _tokens(model, log, asked_at)
    return Insides(attention=attention, tokens=tokens, nothing=None if attention or tokens else "network")


# -- gates --------------------------------------------------------------------------------------


def gates(model: "GRU4Rec", log: SessionLog) -> Gates:
    """Read the events of one row again, step by step, and keep what the gates of the last layer did.

    With `h' = (1 - z) h + z c` the final state is, unit by unit, a mean of the candidates `c` of all
    steps; an event's weight in it is its own `z` times the `1 - z` of every event after it.
    """
    from nextsession.nn.gru4rec_cell import weights_of

    start = int(log.last_sessions[0][0]) if model.config.reads == "session" else 0
    items, shape = log.items[start:], model._shape()
    cells = [weights_of(model.cells_, layer, shape.n_inputs, shape.n_units) for layer in range(len(shape.n_units))]
    table = model.inputs_ if shape.of_item else model.items_[:, :-2]
    states = [np.zeros(int(units), np.float32) for units in shape.n_units]
    updates, resets = [], []
    for item in items.tolist():
        x = table[item]
        for layer, ((w, u, bias), n_inputs) in enumerate(zip(cells, shape.n_inputs, strict=True)):
            h, units = states[layer], len(states[layer])
            inward = (w[:, :n_inputs] @ x if n_inputs else x) + bias[:3, :units].reshape(-1)
            r = _logistic(inward[:units] + u[:units, :units] @ h + bias[3, :units])
            z = _logistic(inward[units : 2 * units] + u[units : 2 * units, :units] @ h + bias[4, :units])
            rest = u[2 * units :, :units]
            inner = r * (rest @ h + bias[5, :units]) if model.config.reset_gate == "after" else rest @ (r * h)
            x = states[layer] = (1 - z) * h + z * np.tanh(inward[2 * units :] + inner)
        updates.append(z)
        resets.append(r)
    z, r = np.array(updates), np.array(resets)
    later = np.cumprod((1 - z)[::-1], axis=0)[::-1]
    kept = np.concatenate([later[1:], np.ones_like(z[:1])])
    shown = np.sort(np.argsort(-z.std(axis=0), kind="stable")[:_UNITS])  # those that tell events apart
    return Gates(
        units=z.shape[1],
        first=start,
        update=_rows(z[:, shown]),
        renewed=_row(z.mean(axis=1)),
        reset=_row(r.mean(axis=1)),
        memory=_row((z * kept).mean(axis=1)),
    )


def _logistic(x: NDArray[np.float32]) -> NDArray[np.float32]:
    found: NDArray[np.float32] = np.float32(0.5) * (np.tanh(np.float32(0.5) * x) + 1)
    return found


# -- networks -----------------------------------------------------------------------------------


def _batch(model: Any, log: SessionLog, asked_at: NDArray[np.int64]) -> tuple[Any, int]:
    """Return what the network reads of a log of one row, and the place of its first event in the log."""
    from nextsession.nn.batches import Rows

    reading = model._reading
    asked = reading.slices(log)
    rows = Rows(log, asked, asked_at, reading.kinds(log))
    return rows.batch(np.zeros(1, np.int64)), int(asked.starts[0])


def _attention(model: Any, log: SessionLog, asked_at: NDArray[np.int64]) -> Attention | None:
    """Walk the blocks of a transformer over the events of one row, and keep its weights."""
    import torch

    from nextsession.nn.networks import NextItem
    from nextsession.nn.transformer import Transformer

    network = model.network_
    if not isinstance(network, NextItem) or not isinstance(network.encoder, Transformer):
        return None
    with torch.inference_mode():
        batch, first = _batch(model, log, asked_at)
        rows = batch.events.with_values(network.inputs(batch))
        layers, blocks = [], list[Any](network.encoder.blocks)
        for block in blocks:
            layers.append(tuple(_rows(head) for head in weights_of_block(block, rows.values).numpy()))
            rows = rows.with_values(block(rows))
    return Attention(first, bool(blocks[0].form.causal), tuple(layers))


def weights_of_block(block: Any, x: Any) -> Any:
    """Return the attention of a block over the vectors of one row, `(H, L, L)`, from the definition."""
    import torch

    from nextsession.nn.ops.padding import relative

    form, n = block.form, len(x)
    normed = x if form.norm == "post" else block.attention_norm(x)
    others = x if form.norm == "original" else normed
    keys, _ = block.of_key_value(others).chunk(2, dim=-1)
    q, k = (part.view(n, form.heads, -1).transpose(0, 1) for part in (block.of_query(normed), keys))
    scores = q @ k.mT * q.shape[-1] ** -0.5
    if block.distances is not None:
        scores = scores + relative(block.distances, n)
    if form.causal:
        scores = scores.masked_fill(torch.ones(n, n, dtype=torch.bool).triu(1), float("-inf"))
    return scores.softmax(-1)


def _tokens(model: Any, log: SessionLog, asked_at: NDArray[np.int64]) -> tuple[Token, ...] | None:
    """Return the sessions of one row as a model of sessions sees them: one vector each."""
    network = model.network_
    if not all(hasattr(network, part) for part in ("within", "across", "inputs", "_sequence", "_are_open")):
        return None
    if getattr(network, "tokens", "") != "sessions":
        return None
    import torch

    with torch.inference_mode():
        read = model._reading.histories(model.name, log)
        batch, _ = _batch(model, read, asked_at)
        events = network.inputs(batch)
        opened = network._are_open(batch)
        tokens = network._sequence(batch, opened)[0].values
        starts = [*batch.sessions.values.tolist(), len(events)]
        skipped = log.n_sessions - len(tokens)  # the oldest are left out where there are too many
        found = []
        for s, token in enumerate(tokens):
            own = events[starts[s] : starts[s + 1]]
            alike = torch.nn.functional.cosine_similarity(own, token[None], dim=-1)
            still = opened is not None and bool(opened[0]) and s == len(tokens) - 1
            found.append(Token(skipped + s, len(own), round(float(token.norm()), 4), _row(alike.numpy()), still))
    return tuple(found)


def _row(values: NDArray[Any]) -> tuple[float, ...]:
    return tuple(round(x, 4) for x in np.asarray(values, np.float64).tolist())


def _rows(values: NDArray[Any]) -> tuple[tuple[float, ...], ...]:
    return tuple(map(_row, values))
