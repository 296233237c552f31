"""The authors' GRU4Rec in PyTorch on the sessions of a file: how fast it trains, and how well it ranks.

    python benchmarks/peers/gru4rec_official.py CHECKOUT SESSIONS.npz '{"batch_size": 32, ...}'

`CHECKOUT` is a clone of github.com/hidasib/GRU4Rec_PyTorch_Official; `SESSIONS.npz`, which
`benchmarks/gru4rec.py` writes, holds `train_items`, `train_times`, `train_offsets`,
`test_items`, `test_offsets`: sessions end to end.  Needs torch, NumPy and pandas.  None of its code is here: it is
imported, and its iterator is watched to know when an epoch begins.  Prints one line of JSON.
"""

import argparse
import json
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch

CUTOFF = 20
DRAWN_AT_ONCE = 500
"""Extra items are drawn for so many steps at once, not 10 million, so that a short run pays for what it draws."""


def trained(module, data: pd.DataFrame, settings: dict):
    """Train, and return the model with the CPU seconds of each epoch, set-up left out."""
    began, walk = [], module.SessionDataIterator.__call__

    def watched(iterator, *arguments, **named):
        began.append(time.process_time())
        yield from walk(iterator, *arguments, **named)

    module.SessionDataIterator.__call__ = watched
    model = module.GRU4Rec(**settings, device=torch.device("cpu"))
    drawn = DRAWN_AT_ONCE * settings["n_sample"]
    model.fit(data, sample_cache_max_size=drawn, compatibility_mode=False)  # NumPy 2 breaks the other initial weights
    ends = [*began[1:], time.process_time()]
    return model, [end - start for start, end in zip(began, ends, strict=True)]


@torch.no_grad()
def quality(model, items: np.ndarray, offsets: np.ndarray) -> tuple[float, float]:
    """Recall@20 and MRR@20 over every next event of the sessions; ties count half.  Sessions walk side by side."""
    network, codes = model.model.eval(), model.data_iterator.itemidmap[items].to_numpy()
    lengths, places = np.diff(offsets), []
    order = np.argsort(-lengths, kind="stable")
    hidden = [torch.zeros(len(order), units) for units in model.layers]
    for step in range(int(lengths.max()) - 1):
        rows = order[lengths[order] > step + 1]
        hidden = [h[: len(rows)] for h in hidden]
        given = torch.as_tensor(codes[offsets[rows] + step], dtype=torch.int64)
        target = torch.as_tensor(codes[offsets[rows] + step + 1], dtype=torch.int64)
        scores = network.forward(given, hidden, None, training=False)
        own = scores.gather(1, target[:, None])
        places.append((scores > own).sum(1) + ((scores == own).sum(1) - 1) / 2 + 1)
    place = torch.cat(places).double()
    found = place <= CUTOFF
    return found.double().mean().item(), torch.where(found, 1 / place, 0.0).mean().item()


def main() -> None:
    """Train on the file and print what it took and what it gave."""
    parser = argparse.ArgumentParser()
    parser.add_argument("checkout", type=Path)
    parser.add_argument("sessions", type=Path)
    parser.add_argument("settings", type=json.loads)
    given = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    sys.path.insert(0, str(given.checkout))
    import gru4rec_pytorch

    with np.load(given.sessions) as file:
        items, offsets = file["train_items"], file["train_offsets"]
        times = file["train_times"]
        asked, ends = file["test_items"], file["test_offsets"]
    sessions = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
    data = pd.DataFrame({"SessionId": sessions, "ItemId": items, "Time": times})
    model, seconds = trained(gru4rec_pytorch, data, given.settings)
    pairs = len(items) - len(offsets) + 1
    row = {"pairs": pairs, "cpu_s": [round(s, 3) for s in seconds], "settings": given.settings}
    row |= {"events_per_cpu_s": round(pairs / min(seconds))}
    if len(asked):
        row |= dict(zip(("recall@20", "mrr@20"), quality(model, asked, ends), strict=True))
    print(json.dumps(row))


if __name__ == "__main__":
    main()
