"""Side features of items: one vector a feature, beside that of the item, mixed by a small network."""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nextsession.data.items import ItemFeature


class SideFeatures(nn.Module):
    """Mixes the vector of an item with those of its features: `MLP([id || f_1 || ... || f_c])` (SessionRec, eq. 3-4).

    An item with several values of a feature gets their mean, one with none zeros.  Numeric features
    come binned.

    Args:
        features: Of all `V` items.
        dim: `D`, width of the vectors of items.
        width: Of the vectors of feature values.
        layers: Hidden layers (GELU) before the linear one.
        beside: Further vectors of that width, of the event rather than of the item, that are mixed in.
    """

    def __init__(
        self, features: Mapping[str, ItemFeature], dim: int, *, width: int = 16, layers: int = 0, beside: int = 0
    ) -> None:
        """Draw a table for each feature."""
        super().__init__()
        self.values = nn.ParameterList()
        self.count, self.width, self.beside = len(features), width, beside
        for place, feature in enumerate(features.values()):
            table = nn.Parameter(torch.empty(max(1, len(feature.labels)), width))
            nn.init.normal_(table, std=0.02)
            self.values.append(table)
            self.register_buffer(f"offsets_{place}", torch.as_tensor(feature.offsets, dtype=torch.int64), False)
            self.register_buffer(f"codes_{place}", torch.as_tensor(feature.codes, dtype=torch.int64), False)
        wide = dim + width * (self.count + beside)
        hidden = [part for _ in range(layers) for part in (nn.Linear(wide, wide), nn.GELU())]
        self.mix = nn.Sequential(*hidden, nn.Linear(wide, dim), nn.LayerNorm(dim))

    def forward(self, codes: Tensor, vectors: Tensor, *beside: Tensor) -> Tensor:
        """Return the mixed vectors, `(N,)` codes, `(N, D)` vectors and those `beside`, `(N, width)`, to `(N, D)`."""
        return self.mix(torch.cat([vectors, *self.means(codes), *beside], dim=-1))  # type: ignore[no-any-return]

    def means(self, codes: Tensor) -> list[Tensor]:
        """Return the mean vector of the values that each item has of each feature, `(N, width)` each."""
        return [self._mean(place, codes) for place in range(self.count)]

    def _mean(self, place: int, codes: Tensor) -> Tensor:
        """Return the mean vector of the values that each item has of one feature, `(N, width)`."""
        offsets, values = self.get_buffer(f"offsets_{place}"), self.get_buffer(f"codes_{place}")
        starts, counts = offsets[codes], offsets[codes + 1] - offsets[codes]
        begins = torch.cumsum(counts, 0) - counts
        events = torch.repeat_interleave(counts)
        own = values[starts[events] + torch.arange(len(events), device=codes.device) - begins[events]]
        return F.embedding_bag(own, self.values[place], begins, mode="mean")
