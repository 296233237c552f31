"""HSTU: pointwise attention that knows distances and times, and the recipes of the field for training it."""

from collections.abc import Mapping
from typing import Any, ClassVar

from nextsession.answering import Facts
from nextsession.nn.networks import Network, NextItem
from nextsession.transducers import PUBLISHED, Transducer, TransducerSettings


class HSTUSettings(TransducerSettings):
    """Settings of `HSTU`."""

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "hstu-ml1m": PUBLISHED,
        "hstu-ml1m-large": {**PUBLISHED, "layers": 8, "heads": 2},
        "hstu-softmax": {**PUBLISHED, "normaliser": "length", "loss": {"kind": "softmax"}},
    }


class HSTU(Transducer[HSTUSettings]):
    """Attention without softmax reads the events of a row; times and distances bias it, a gate weighs what it adds.

    `E[x] sqrt(D) + P`, blocks (`nextsession.nn.hstu.HSTUBlock`), and the cosine of the state after
    the last event with each item, divided by a temperature.

    With `time = "relative"` the state after an event knows when the next one happens, in training, and
    the instant of the question, in answers: on MovieLens 1M, where films are rated in bursts, that alone lifts
    NDCG@10 from .169 to .187 (RecTools' rerun).  Compare such a model with others that read the clock;
    `time = "none"` is the other kind.  A log that only knows the order of events (`SessionLog.timed`) teaches no times.

    Presets: `hstu-ml1m` and `hstu-ml1m-large` (Zhai et al. 2024: 128 negatives for each event, sums divided by a
    constant), and `hstu-softmax` (the softmax over all items, and sums divided by the number of events,
    which NetEase's public implementation found to be better).
    """

    name = "hstu"
    reference = "Zhai et al., Actions speak louder than words: trillion-parameter sequential transducers, ICML 2024"

    def _network(self, facts: Facts) -> Network:
        items = self._items(facts)
        return NextItem(self._inputs(items, facts), self._encoder(), self._head(items))

    @classmethod
    def examples(cls) -> list[dict[str, Any]]:
        """With and without times, as published, and with every option."""
        small = {"dim": 16, "max_length": 20, "epochs": 30, "batch_size": 8, "learning_rate": 0.01}
        return [
            small,
            {**small, "time": "none", "reads": "session", "epochs": 5},
            {**small, "preset": "hstu-ml1m", "epochs": 5},
            {**small, "time": "none", "distance": False, "heads": 2, "dqk": 4, "dv": 6, "concat": True, "epochs": 5},
        ]
