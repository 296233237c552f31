"""The rectangular view of packed rows, for the plain forms of the operations and for GPUs."""

import torch
from torch import Tensor


def places(offsets: Tensor, longest: int, n_tokens: int) -> Tensor:
    """Return where each token lies in the flattened view of `B` rows by `longest` places, `(N,)` int64."""
    lengths = offsets[1:] - offsets[:-1]
    rows = torch.repeat_interleave(lengths, output_size=n_tokens)
    return torch.arange(n_tokens, device=offsets.device) + rows * longest - offsets[:-1][rows]


def heads_padded(x: Tensor, at: Tensor, n_rows: int, longest: int, heads: int) -> Tensor:
    """Lay `(N, H*D)` out as `(B, H, L, D)`, zeros on the right of each row; `at` is that of `places`."""
    view = x.new_zeros((n_rows * longest, x.shape[1])).index_copy(0, at, x)
    return view.view(n_rows, longest, heads, x.shape[1] // heads).transpose(1, 2)


def heads_packed(view: Tensor, at: Tensor) -> Tensor:
    """Return the tokens of `(B, H, L, D)` end to end again, `(N, H*D)`."""
    return view.transpose(1, 2).flatten(0, 1).flatten(1)[at]


def may_attend(offsets: Tensor, longest: int, causal: bool) -> Tensor:
    """Return which token may attend to which, `(B, 1, L, L)` bool, True = may attend.

    A token attends to the tokens of its row, where `causal` not to later ones.  Padding attends to
    itself: a softmax over nothing has no value and no gradient.
    """
    lengths = offsets[1:] - offsets[:-1]
    place = torch.arange(longest, device=offsets.device)
    keys = (place < lengths[:, None])[:, None, None, :]
    if causal:
        keys = keys & (place[None, :] <= place[:, None])
    return keys | torch.eye(longest, dtype=torch.bool, device=offsets.device)


def relative(table: Tensor, longest: int) -> Tensor:
    """Return the biases of all pairs, `(..., L, L)`: for `i, j` that at `middle + j - i` of a table by distance.

    Raises:
        ValueError: The table, `(..., 2*Lmax - 1)`, is of an even width or too narrow for `longest`.
    """
    middle = check_table(table, longest)
    place = torch.arange(longest, device=table.device)
    return table[..., middle + place[None, :] - place[:, None]]


def check_table(table: Tensor, longest: int) -> int:
    """Return the index of a token's bias for itself in a table by distance; raise ValueError as `relative` does."""
    width = table.shape[-1]
    if width % 2 == 0 or width < 2 * longest - 1:
        raise ValueError(
            f"a bias table for rows of {longest} has an odd width of at least {2 * longest - 1}, not {width}"
        )
    return width // 2
