"""Side features: the mean vector of the values of each item, mixed into that of the item."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from nextsession import registry
from nextsession.data.items import ItemFeature, ItemTable
from nextsession.data.storage import read_item_table, write_item_table
from nextsession.errors import ConfigError
from nextsession.neural import NeuralRecommender
from nextsession.nn.features import SideFeatures
from nextsession.testing.subjects import questions, training_log

COLOURS = ItemFeature.of([["red"], [], ["blue", "red"], ["green"]])


def test_equals_a_loop() -> None:
    torch.manual_seed(0)
    side = SideFeatures({"colour": COLOURS, "again": COLOURS}, 8, width=3, layers=1)
    codes, vectors = torch.tensor([2, 1, 2, 0]), torch.randn(4, 8)
    expected = []
    for code, vector in zip(codes.tolist(), vectors, strict=True):
        parts = [vector]
        for table in side.values:
            own = COLOURS.codes[COLOURS.offsets[code] : COLOURS.offsets[code + 1]]
            parts.append(torch.stack([table[c] for c in own]).mean(0) if len(own) else torch.zeros(3))
        expected.append(side.mix(torch.cat(parts)))
    torch.testing.assert_close(side(codes, vectors), torch.stack(expected))


def test_gradient_reaches_the_values() -> None:
    side = SideFeatures({"colour": COLOURS}, 4)
    side(torch.tensor([0, 1]), torch.zeros(2, 4)).square().sum().backward()
    gradient = side.values[0].grad
    assert gradient is not None
    red = COLOURS.labels.index("red")
    assert gradient[red].abs().sum() > 0
    assert gradient[COLOURS.labels.index("green")].abs().sum() == 0


SMALL = {"dim": 8, "epochs": 2, "max_length": 10, "features": ("kind",)}


def test_a_model_with_features_learns_saves_and_loads(tmp_path: Path) -> None:
    log = training_log()
    kinds = ItemFeature.of([[str(code % 3)] for code in range(log.n_items)])
    log = replace(log, item_table=ItemTable({"kind": kinds}))
    model = registry.create("sasrec", **SMALL).fit(log)
    model.save(tmp_path / "model")
    again = registry.load(tmp_path / "model")
    np.testing.assert_array_equal(again.recommend(questions()).items, model.recommend(questions()).items)
    plain = registry.create("sasrec", **(SMALL | {"features": ()})).fit(log)
    assert not np.array_equal(plain.recommend(questions()).scores, model.recommend(questions()).scores)


def test_bins_are_learnt_from_the_items_of_training(tmp_path: Path) -> None:
    log = training_log()
    prices = np.arange(log.n_items, dtype=np.float64)
    last = log.n_items - 1
    seen = log.events(log.items != last)  # one item is in the vocabulary, and nowhere in training

    def learnt(price: float) -> NeuralRecommender[Any]:
        prices[last] = price
        table = ItemTable({"kind": ItemFeature.binned(prices.copy(), bins=4)})
        write_item_table(tmp_path / "items.arrow", table)  # as when a prepared log is read
        model = registry.create("sasrec", **SMALL).fit(
            replace(seen, item_table=read_item_table(tmp_path / "items.arrow"))
        )
        assert isinstance(model, NeuralRecommender)
        return model

    one, other = learnt(-1.0), learnt(1e6)
    np.testing.assert_array_equal(one.curve_[:, 1], other.curve_[:, 1])
    codes = [model.facts_.features["kind"].codes for model in (one, other)]
    np.testing.assert_array_equal(codes[0][:last], codes[1][:last])
    assert np.bincount(codes[0][:last]).tolist() == [-(-last * (i + 1) // 4) - -(-last * i // 4) for i in range(4)]


def test_a_feature_that_is_not_there_is_named() -> None:
    with pytest.raises(ConfigError, match=r"no feature 'kind'.*Features: none"):
        registry.create("sasrec", **SMALL).fit(training_log())
