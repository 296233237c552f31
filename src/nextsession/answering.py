"""Answering: what a fitted network makes of histories and of items, and how it is kept."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from nextsession.data.items import ItemFeature
from nextsession.nn.batches import Rows
from nextsession.nn.features import SideFeatures
from nextsession.nn.networks import Network

_NEVER_WANTED = -1e6
"""Bias of items that nobody wanted in training: no loss that samples has moved them, and where it pushes all
scores below 0 they would stand above everything that was learnt."""

ASKED_TOKENS = 1 << 16
"""Events of histories that are encoded at once when questions are answered."""


@dataclass(frozen=True)
class Facts:
    """What a network must know of the log before it is built."""

    n_items: int
    actions: tuple[str, ...] = ()
    """Kinds of events, if the log has kinds and the model reads them."""
    features: Mapping[str, ItemFeature] = field(default_factory=dict)
    """Side features of the items, if the settings name any."""

    def side_features(self, dim: int, width: int) -> SideFeatures | None:
        """Return what mixes the side features, `width` wide each, into the vectors of the items, if there are any."""
        return SideFeatures(self.features, dim, width=width) if self.features else None

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return kinds and features as arrays by name."""
        arrays: dict[str, NDArray[Any]] = {"actions": np.frombuffer("\n".join(self.actions).encode(), np.uint8).copy()}
        for name, feature in self.features.items():
            arrays[f"feature/{name}/offsets"], arrays[f"feature/{name}/codes"] = feature.offsets, feature.codes
            arrays[f"feature/{name}/values"] = np.array([len(feature.labels)])
        return arrays

    @classmethod
    def restored(cls, arrays: Mapping[str, NDArray[Any]], n_items: int, features: tuple[str, ...]) -> "Facts":
        """Take back what `arrays` gave."""
        names = arrays["actions"].tobytes().decode()
        known = {
            name: ItemFeature(
                arrays[f"feature/{name}/offsets"],
                arrays[f"feature/{name}/codes"],
                ("",) * int(arrays[f"feature/{name}/values"][0]),  # what they are called is not needed to answer
            )
            for name in features
        }
        return cls(n_items, tuple(names.split("\n")) if names else (), known)


def queries_of(network: Network, rows: Rows) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
    """Give the queries of all rows that are not empty, some rows at a time: their places and `(b, D)`."""
    lengths = rows.slices.lengths
    some = np.flatnonzero(lengths)
    some = some[np.argsort(lengths[some], kind="stable")]  # of like lengths: little padding where there is any
    edges = np.searchsorted(np.cumsum(lengths[some]), np.arange(ASKED_TOKENS, lengths.sum(), ASKED_TOKENS))
    device = next(network.parameters()).device
    with torch.inference_mode():
        for part in np.split(some, np.unique(edges)):
            if len(part):
                yield part, network(rows.batch(part).to(device)).float().cpu().numpy()


def table_of(network: Network, popularity: NDArray[np.float32]) -> NDArray[np.float32]:
    """Lay out the vectors of the items as answers need them: `(V, D + 2)`, the last two their bias and popularity."""
    with torch.inference_mode():
        vectors, bias = network.head.table()
        table = torch.zeros(len(vectors), vectors.shape[1] + 2)
        table[:, :-2] = vectors
        if bias is not None:
            table[:, -2] = bias
        table[:, -1] = torch.from_numpy(popularity)
        table[torch.from_numpy(popularity == 0), -2] = _NEVER_WANTED
    return table.numpy()
