"""Exploration: now and then a place of a list goes to an item of which little is known; the probability is logged.

Every place but the first is open, but no more places, from the end, than there are cold items.  Each
open place is, with probability `share` and apart from the others, given to a cold item that the
question may get and the list does not hold; which one is drawn evenly, none twice.  So each of `n`
cold items stands at each open place with the probability `share / n`: the propensity of an item that
stands there.  Draws follow from the id of the request alone.
"""

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from random import Random

import numpy as np
from numpy.typing import NDArray

from nextsession.errors import ConfigError
from nextsession.serving.chain import barred
from nextsession.serving.events import SHOWN
from nextsession.serving.histories import History
from nextsession.serving.questions import Listed, Question
from nextsession.serving.served import Served
from nextsession.serving.store import Store

WANTED, SEEN = 10, 100
"""An item is cold while it was wanted less often than the first, and shown less often than the second."""
_BEHIND = 200_000
"""Entries of the log that are counted when a server starts."""
_KEPT = 8


class Exploring:
    """Knows which items are cold, and gives them places."""

    def __init__(self, share: float) -> None:
        """Take the probability with which a place is given away.

        Raises:
            ConfigError: It is no probability.
        """
        if not 0 <= share <= 1:
            raise ConfigError(f"The share of places to explore with must be from 0 to 1, got {share!r}.")
        self.share = share
        self._wanted: Counter[str] = Counter()
        self._shown: Counter[str] = Counter()
        self._after: int | None = None
        self._cold: dict[str, NDArray[np.bool_]] = {}  # by version: (V,)

    # -- what is cold ---------------------------------------------------------------------------

    def follow(self, store: Store, all_served: Iterable[Served]) -> None:
        """Count what the log has gained since: wanted events, and items that were shown."""
        if not self.share:
            return
        last = store.last()
        if self._after is None:
            self._after = max(0, last - _BEHIND)
        wanted: Counter[str] = Counter()
        shown: Counter[str] = Counter()
        after = self._after
        for stored in store.events(after):
            if stored.seq > last:
                break
            wanted[stored.event.item] += stored.event.label == 1 and stored.event.action != SHOWN
        for seq, listed in store.shown(after):
            if seq > last:
                break
            if not listed.shadow:
                shown.update(listed.items)
        self._wanted.update(wanted)
        self._shown.update(shown)
        self._after = last
        for served in all_served:
            self._count(served, [*wanted, *shown])

    def cold(self, served: Served) -> NDArray[np.bool_]:
        """Return which items of a model are cold, `(V,)`."""
        found = self._cold.get(served.version)
        if found is None or len(found) != len(served.catalogue):
            few = served.popularity
            found = np.ones(len(served.catalogue), np.bool_) if few is None else few < WANTED
            self._cold = {**dict(list(self._cold.items())[1 - _KEPT :]), served.version: found}
            self._count(served, [*self._wanted, *self._shown])
        return found

    def _count(self, served: Served, items: Sequence[str]) -> None:
        mask, popularity = self._cold.get(served.version), served.popularity
        if mask is None:
            return
        for item, code in zip(items, served.catalogue.numbers(items), strict=True):
            if code >= 0:
                learnt = 0 if popularity is None else int(popularity[code])
                mask[code] = learnt + self._wanted[item] < WANTED and self._shown[item] < SEEN

    # -- lists ----------------------------------------------------------------------------------

    def explored(
        self,
        listed: list[Listed],
        served: Served,
        history: History,
        question: Question,
        allowed: NDArray[np.bool_] | None,
        request: str,
    ) -> tuple[list[Listed], dict[str, float]]:
        """Return the list with some places given to cold items, and the propensity of each of those by its id."""
        if not self.share or len(listed) < 2:
            return listed, {}
        pool = self.cold(served).copy() if allowed is None else self.cold(served) & allowed
        catalogue = served.catalogue
        out = [*barred(served, history, question), *(one.item for one in listed)]
        pool[[code for code in catalogue.numbers(out) if code >= 0]] = False
        codes = np.flatnonzero(pool).astype(np.int32)
        drawn = draws(request, len(listed), len(codes), self.share)
        chosen = codes[[number for _, number in drawn]]
        full = list(listed)
        for (place, _), code, item in zip(drawn, chosen.tolist(), catalogue.texts(chosen), strict=True):
            full.insert(place, Listed(item, catalogue.title(code), None, "explore"))
        propensity = self.share / max(1, len(codes))
        return full[: len(listed)], dict.fromkeys(catalogue.texts(chosen), propensity)


def draws(request: str, places: int, pool: int, share: float) -> list[tuple[int, int]]:
    """Return which places (from 0, rising) are given away, each with the number of an item of the pool.

    >>> draws("main.a1", places=5, pool=2, share=1.0)[0][0]
    3
    """
    seed = hashlib.blake2b(request.encode("utf-8", "surrogatepass"), digest_size=16).digest()
    random = Random(int.from_bytes(seed, "big"))
    first = places - min(places - 1, pool)
    chosen = [place for place in range(first, places) if random.random() < share]
    return list(zip(chosen, random.sample(range(pool), len(chosen)), strict=True))
