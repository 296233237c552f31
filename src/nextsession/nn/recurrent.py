"""Recurrent encoders of jagged rows."""

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from nextsession.nn.jagged import Jagged
from nextsession.nn.networks import CausalEncoder
from nextsession.nn.ops.dropout import dropout
from nextsession.nn.ops.gru import gru_layer


class GRU(CausalEncoder):
    """A gated recurrent unit reads each row from its first value on (Cho et al., EMNLP 2014).

    Each step is one matrix product for all rows that are long enough; nothing is computed for padding.

    Args:
        dim: Width of the values.
        layers: Units on top of each other.
        width: Width of the states; that of the values by default.
        bias: Have the maps biases?
        rate: Dropout between layers.
    """

    def __init__(
        self, dim: int, layers: int = 1, *, width: int | None = None, bias: bool = True, rate: float = 0.0
    ) -> None:
        """Draw the weights evenly from `+-1 / sqrt(width)`."""
        super().__init__()
        self.width = width or dim
        self.unit = nn.GRU(dim, self.width, layers, bias=bias, dropout=rate if layers > 1 else 0.0)

    def forward(self, rows: Jagged) -> Tensor:
        """Map vectors `(N, D)` to states `(N, width)`."""
        if rows.values.shape[0] == 0:
            return rows.values.new_zeros((0, self.width))
        if torch.compiler.is_exporting():  # one row
            return self._written(rows.values)
        order, sizes = step_by_step(rows)
        kind = next(self.unit.parameters()).dtype
        with torch.autocast(rows.values.device.type, enabled=False):  # the states of many steps add up
            states = self._states(rows.values[order].to(kind), sizes)
        places = torch.empty_like(order)
        places[order] = torch.arange(len(order), device=order.device)
        return states[places]

    def _written(self, x: Tensor) -> Tensor:
        """Map the values of one row, `(N, D)`, to states, by the operation of ONNX."""
        for layer in range(self.unit.num_layers):
            into, again, *biases = (getattr(self.unit, name) for name in self.unit._all_weights[layer])
            both = torch.cat([_in_order_of_onnx(bias) for bias in biases])[None] if biases else None
            states = torch.onnx.ops.symbolic(
                "GRU",
                [x[:, None], _in_order_of_onnx(into)[None], _in_order_of_onnx(again)[None], both],
                {"hidden_size": self.width, "linear_before_reset": 1},
                dtype=x.dtype,
                shape=(x.shape[0], 1, 1, self.width),
                version=14,
            )
            x = states[:, 0, 0]
        return x

    def _states(self, x: Tensor, sizes: Tensor) -> Tensor:
        """Map values step by step, `(N, D)`, to states."""
        if x.device.type != "cpu" or x.dtype != torch.float32:
            return self.unit(PackedSequence(x, sizes))[0].data  # type: ignore[no-any-return]
        for layer in range(self.unit.num_layers):
            if layer:
                x = dropout(x, self.unit.dropout, self.training)
            into, again, *biases = (getattr(self.unit, name) for name in self.unit._all_weights[layer])
            x = gru_layer(x, sizes.tolist(), into, again, (biases[0], biases[1]) if biases else None)
        return x


def _in_order_of_onnx(gates: Tensor) -> Tensor:
    """Put update before reset, `(3H, ...)`."""
    reset, update, new = gates.chunk(3)
    return torch.cat([update, reset, new])


def step_by_step(rows: Jagged) -> tuple[Tensor, Tensor]:
    """Return the order of the values in which all first ones come first, and how many there are of each step.

    Returns:
        `(N,)` places; the first step holds the first values of all rows, the longest row first, and so on.
        `(L,)` sizes of the steps, never rising, on the CPU.
    """
    longest_first = torch.argsort(rows.lengths, descending=True, stable=True)
    rank = torch.empty_like(longest_first)
    rank[longest_first] = torch.arange(len(rows), device=rank.device)
    order = torch.argsort(rows.positions * len(rows) + rank[rows.rows])
    ended = torch.bincount(rows.lengths_on_host)[:-1]  # after each number of steps
    return order, len(rows) - ended.cumsum(0)
