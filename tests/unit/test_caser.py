"""Caser: published widths, what a window must tell apart, what must not matter, and the published recipe."""

import pytest
import torch

from nextsession import SessionLog, Vocabulary, create
from nextsession.models.caser import CaserSettings, WindowFilters, WindowNetwork, window_slices
from nextsession.nn.embedding import ItemEmbedding
from nextsession.nn.jagged import Batch, Jagged


def batch_of(rows: list[list[int]]) -> Batch:
    events = Jagged.of(rows)
    return Batch(events, Jagged(events.offsets[:-1], torch.arange(len(rows) + 1), 1))


def network_of(**settings) -> WindowNetwork:
    torch.manual_seed(2)
    network = WindowNetwork(ItemEmbedding(10, 8, special=1), rate=0.0, **settings).requires_grad_(False)
    network.head.items.weight.uniform_(-1, 1)
    return network


def test_published_widths() -> None:
    v, d, length, n_v, n_h = 3416, 50, 5, 4, 16
    network = WindowNetwork(ItemEmbedding(v, d, special=1), length=length, vertical=n_v, horizontal=n_h, user=True)
    assert network.hidden.in_features == n_v * d + n_h * length  # vertical filters find D numbers each
    table, bias = network.head.table()
    assert table.shape == (v, 2 * d)
    assert bias is not None
    assert bias.abs().sum() == 0
    assert network.items.weight.shape == (v + 1, d)
    filters = sum((h * d + 1) * n_h for h in range(1, length + 1)) + (length + 1) * n_v
    size = (v + 1) * d + d + filters + (network.hidden.in_features + 1) * d + v * (2 * d + 1)
    assert sum(p.numel() for p in network.parameters()) == size


def test_widths_without_a_user() -> None:
    network = WindowNetwork(ItemEmbedding(20, 50, special=1))
    assert network.head.table()[0].shape == (20, 50)
    assert network.user is None


def test_weights_as_drawn() -> None:
    torch.manual_seed(0)
    network = WindowNetwork(ItemEmbedding(2000, 50, special=1), user=True)
    assert network.items.weight.std().item() == pytest.approx(1 / 50, rel=0.05)
    assert network.head.table()[0].std().item() == pytest.approx(1 / 100, rel=0.05)
    assert network.items.weight[-1].abs().sum() > 0  # that of no event is learned like any other


def test_filters_are_convolutions() -> None:
    torch.manual_seed(0)
    filters = WindowFilters(5, 8, horizontal=3, vertical=2)
    windows = torch.randn(4, 5, 8)
    image = windows[:, None]
    found = [
        torch.nn.functional.conv2d(image, filters.vertical.weight.view(2, 1, 5, 1), filters.vertical.bias).flatten(1)
    ]
    for h, linear in enumerate(filters.heights, 1):
        maps = torch.nn.functional.conv2d(image, linear.weight.view(3, 1, h, 8), linear.bias).squeeze(3).relu()
        found.append(torch.nn.functional.max_pool1d(maps, maps.shape[2]).squeeze(2))
    torch.testing.assert_close(filters(windows), torch.cat(found, 1))


def test_sums_are_not_rectified_patterns_are() -> None:
    torch.manual_seed(0)
    found = WindowFilters(5, 8, horizontal=3, vertical=2)(torch.randn(50, 5, 8))
    assert found[:, :16].min() < 0
    assert found[:, 16:].min() == 0


def test_only_the_window_is_read() -> None:
    network = network_of(length=3)
    torch.testing.assert_close(network(batch_of([[9, 9, 1, 2, 3]])), network(batch_of([[1, 2, 3]])))
    assert (network(batch_of([[3, 2, 1]])) - network(batch_of([[1, 2, 3]]))).abs().max() > 1e-4
    assert (network(batch_of([[3]])) - network(batch_of([[3, 3, 3]]))).abs().max() > 1e-4


def test_company_and_order_of_rows_mean_nothing() -> None:
    network = network_of(user=True)
    rows = [[1, 2, 3], [4], [9, 9, 0, 9, 1, 2, 3], [], [1, 2, 3]]
    together = network(batch_of(rows))
    for row, found in zip(rows, together, strict=True):
        torch.testing.assert_close(found, network(batch_of([row]))[0])
    torch.testing.assert_close(network(batch_of(rows[::-1])), together.flip(0))


def test_published_recipe() -> None:
    config = create("caser", preset="caser_2018").config
    assert (config.dim, config.max_length, config.targets, config.vertical, config.horizontal) == (50, 5, 3, 4, 16)
    assert (config.dropout, config.optimiser, config.learning_rate, config.weight_decay) == (0.5, "adam", 1e-3, 1e-6)
    assert (config.batch_size, config.epochs, config.user, config.beginnings) == (512, 50, "default", False)
    assert (config.loss.kind, config.loss.average) == ("bce", True)
    assert (config.loss.negatives.kind, config.loss.negatives.n, config.loss.negatives.per) == ("uniform", 3, "query")


def test_published_windows_are_padded_only_for_short_rows() -> None:
    log = SessionLog.from_lists([[list(range(10))], [[0, 1, 2]], [[4]]], vocabulary=Vocabulary(range(10)))

    def windows(**settings) -> list[list[int]]:
        slices = window_slices(log.event_offsets, create("caser", **settings).config)
        return [log.items[a:z].tolist() for a, z in zip(slices.starts, slices.stops, strict=True)]

    published = [list(range(8)), list(range(1, 9)), list(range(2, 10)), [0, 1, 2]]
    assert windows(preset="caser_2018") == published
    assert [w for w in windows() if len(w) == 8 or w == [0, 1, 2]] == [[0, 1, 2], *published]
    assert [0, 1] in windows()


def test_something_must_be_looked_for() -> None:
    with pytest.raises(ValueError, match="must not both be 0"):
        CaserSettings(horizontal=0, vertical=0)
