"""A compiled network: its query is a graph that ONNX Runtime computes, its items are a table mapped into memory.

Nothing is padded: a graph takes one row, as long as it is.  Several questions are several runs.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from nextsession.config import Runtime, Settings
from nextsession.data.log import SessionLog
from nextsession.errors import ModelError
from nextsession.mapping import rows_of
from nextsession.reading import Reading
from nextsession.recommender import Recommender
from nextsession.scores import DotScores, Scores

INPUTS = ("vectors", "labels", "actions", "times", "asked_at", "starts", "session_of")
"""What a graph may ask for; see `nextsession.nn.one_row.BatchOfOne.of_row`."""


class CompiledSettings(Settings):
    """A compiled network has no settings: they are those of its model."""


class CompiledNetwork(Recommender[CompiledSettings]):
    """Answers as the model that it was compiled of; it cannot learn, and is kept in that model's folder."""

    reads_actions: ClassVar[bool] = False

    def __init__(
        self,
        session: Any,
        reading: Reading,
        table: NDArray[np.float32],
        read: NDArray[np.float32],
        *,
        unknown_kind: int,
    ) -> None:
        """Take the parts.

        Args:
            session: An `onnxruntime.InferenceSession` with some of `INPUTS` and one output, `(1, D)`.
            reading: What is read of histories.
            table: `(V, D + 2)` vectors of the items, their bias, and their popularity.
            read: `(V, W)` what is known of the items that are read; columns of `table` where that is the same.
            unknown_kind: What stands for the kind of an event where kinds are not known.
        """
        super().__init__()
        self._run, self._reading, self._unknown_kind = session.run, reading, unknown_kind
        self._asks = frozenset(given.name for given in session.get_inputs())
        self._table, self._read = table, read

    def _score(self, histories: SessionLog, asked_at: NDArray[np.int64]) -> Scores:
        reading = self._reading
        histories = reading.histories(self.name, histories)
        slices, kinds = reading.slices(histories), reading.kinds(histories)
        queries = np.zeros((len(histories), self._table.shape[1]), np.float32)
        for row, (start, stop) in enumerate(zip(slices.starts.tolist(), slices.stops.tolist(), strict=True)):
            if start == stop:
                queries[row, -1] = 1
                continue
            events = slice(start, stop)
            actions = None if kinds is None else kinds[events]
            queries[row, :-2] = self._run(None, self._given(histories, events, asked_at[row : row + 1], actions))[0][0]
            queries[row, -2] = 1
        return DotScores(queries, self._table)

    def _given(
        self, log: SessionLog, events: slice, asked_at: NDArray[np.int64], actions: NDArray[np.int64] | None
    ) -> dict[str, NDArray[Any]]:
        """Return what the graph asks for of one row."""
        asks = self._asks
        given: dict[str, NDArray[Any]] = {"vectors": rows_of(self._read, log.items[events])}
        n = events.stop - events.start
        if "labels" in asks:
            given["labels"] = log.labels[events].astype(np.int64)
        if "actions" in asks:
            given["actions"] = np.full(n, self._unknown_kind) if actions is None else actions
        if "times" in asks:
            given["times"] = np.ascontiguousarray(log.times[events])
        if "asked_at" in asks:
            given["asked_at"] = asked_at
        if "starts" in asks or "session_of" in asks:
            first = int(np.searchsorted(log.session_offsets, events.start, side="right")) - 1
            last = int(np.searchsorted(log.session_offsets, events.stop, side="left"))
            edges = log.session_offsets[first:last]
            edges = edges[np.append(edges[1:], events.stop) > edges]  # a session without events is none
            starts = np.maximum(edges - events.start, 0)
            if "starts" in asks:
                given["starts"] = starts
            if "session_of" in asks:
                given["session_of"] = np.repeat(np.arange(len(starts)), np.diff(np.append(starts, n)))
        return given

    def _fit(self, log: SessionLog, runtime: Runtime) -> None:
        raise ModelError(f"This {self.name} was compiled to be served; load its artifact to fit it.")

    def _arrays(self) -> dict[str, NDArray[Any]]:
        raise ModelError(f"This {self.name} was compiled to be served; copy the folder of its artifact to keep it.")


def compiled_network(facts: Mapping[str, Any], *parts: Any, unknown_kind: int) -> CompiledNetwork:
    """Make a compiled network that says of itself what its model does.

    Args:
        facts: Those of `facts_of`.
        parts: As `CompiledNetwork` takes them.
        unknown_kind: Likewise.
    """
    kind = type("CompiledNetwork", (CompiledNetwork,), {"__doc__": CompiledNetwork.__doc__, **facts})
    made: CompiledNetwork = kind(*parts, unknown_kind=unknown_kind)
    return made


def facts_of(model: Recommender[Any]) -> dict[str, Any]:
    """Return what a model says of itself, for those who ask it."""
    names = ("name", "reference", "ordered", "predicts", "reads_clock", "reads_ignored", "reads_actions")
    return {name: getattr(model, name) for name in names}
