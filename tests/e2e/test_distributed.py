"""Two processes that train one network together learn what one does alone."""

import json
import os
import socket
import subprocess
import sys

import numpy as np
import pytest

pytestmark = pytest.mark.skipif(os.name != "posix", reason="gloo between processes of one machine")

SCRIPT = """
import os, sys
import numpy as np
import torch
from nextsession.config import Runtime
from nextsession.data.cases import Cases
from nextsession.models.sasrec import SASRec
from nextsession.testing.subjects import questions, wanted_log

torch.set_num_threads(1)
ASKED = questions()
VALIDATION = Cases(
    ASKED, ASKED.last_times + 1, (np.arange(len(ASKED)) % 10 + 1).astype(np.int32), np.arange(len(ASKED) + 1),
    np.arange(len(ASKED)),
)
LOG = wanted_log()
SMALL = dict(dim=8, max_length=6, epochs=2, batch_size=9, learning_rate=0.003, layers=1, dropout=0.0, clip=0.5, ema=0.9)
SHARED = {"kind": "sampled_softmax", "negatives": {"kind": "uniform", "n": 8, "per": "batch"}}
VARIANTS = {
    "softmax": {},
    "shared": {"loss": SHARED, "batch_tokens": 20},
    "rows": {"loss": SHARED, "sparse": True, "optimiser": "rowwise-adagrad", "learning_rate": 0.05},
}
out, checkpoints = sys.argv[1:]
rank = os.environ.get("RANK", "0")
for name, more in VARIANTS.items():
    runtime = Runtime(seed=3, device="cpu", checkpoints=f"{checkpoints}/{name}")
    model = SASRec(**{**SMALL, **more}).fit(LOG, validation=[VALIDATION], runtime=runtime)
    np.savez(f"{out}/{name}-{rank}.npz", **model._arrays())
# one that is finished goes on in all processes: epochs may grow as the rate is constant
runtime = Runtime(seed=3, device="cpu", checkpoints=f"{checkpoints}/softmax")
longer = SASRec(**{**SMALL, "epochs": 3}).fit(LOG, validation=[VALIDATION], runtime=runtime)
np.savez(f"{out}/longer-{rank}.npz", **longer._arrays())
# a batch of one row leaves a process with nothing
model = SASRec(**{**SMALL, "batch_size": 1, "epochs": 1}).fit(LOG, runtime=Runtime(seed=3, device="cpu"))
np.savez(f"{out}/single-{rank}.npz", **model._arrays())
"""
COLUMNS = [0, 1, 2, 5, 6]  # of the curve: all but the times


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def together(*command, processes=2, cwd=None):
    torchrun = [
        sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(processes),
        "--master-addr", "127.0.0.1", "--master-port", str(free_port()),
    ]  # fmt: skip
    return run(*torchrun, *command, cwd=cwd)


def run(*command, cwd=None):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False, env=environment, cwd=cwd)
    assert done.returncode == 0, done.stderr[-3000:]
    return done


def test_two_processes_equal_one(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    for name in ("one", "two", "kept-one", "kept-two"):
        (tmp_path / name).mkdir()
    run(sys.executable, script, tmp_path / "one", tmp_path / "kept-one")
    together(script, tmp_path / "two", tmp_path / "kept-two")
    for name in ("softmax", "shared", "rows", "longer", "single"):
        alone, first, second = (
            dict(np.load(tmp_path / place)) for place in (f"one/{name}-0.npz", f"two/{name}-0.npz", f"two/{name}-1.npz")
        )
        for key in alone:
            if key == "curve":
                curves = [x[key][:, COLUMNS] for x in (alone, first, second)]
                np.testing.assert_allclose(curves[1], curves[0], rtol=1e-5, atol=1e-5, err_msg=name)
                np.testing.assert_array_equal(curves[1], curves[2], err_msg=name)
                continue
            if key.endswith("of_key_value.bias"):  # a bias of keys changes no answer: its gradient is rounding alone
                continue
            np.testing.assert_allclose(first[key], alone[key], rtol=1e-4, atol=5e-6, err_msg=f"{name} {key}")
            np.testing.assert_array_equal(first[key], second[key], err_msg=f"{name} {key}")
    assert len(np.load(tmp_path / "two" / "longer-1.npz")["curve"]) == 3
    for name in ("softmax", "shared", "rows"):
        place = tmp_path / "kept-two" / name / "sasrec"
        assert {p.name for p in place.iterdir()} == {"curve.csv", "curve.html", "state"}


@pytest.mark.slow
def test_the_command_runs_in_two_processes_and_writes_once(tmp_path):
    shop = ["--data", "shop", "--set", "data.shop.users=60", "--set", "data.shop.items=40", "--set", "split.test=14d"]
    model = [
        "--model", "sasrec", "--set", "model.dim=8", "--set", "model.epochs=2", "--set", "model.max_length=10",
        "--device", "cpu", "--checkpoints", "kept", "--out", "model", "--json",
    ]  # fmt: skip
    done = together("-m", "nextsession", "fit", *shop, *model, cwd=tmp_path)
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("{")]
    assert json.loads(line)["model"] == "sasrec"
    assert (tmp_path / "model" / "manifest.json").is_file()
    assert (tmp_path / "kept" / "sasrec" / "state" / "manifest.json").is_file()
