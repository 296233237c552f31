"""The server does what its description says: schemathesis reads it and asks a running one."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from described import ARMS
from test_serve import serving

from nextsession import SessionLog, create
from nextsession.data.items import ItemFeature, ItemTable
from nextsession.data.storage import write_item_table
from nextsession.golden import write_golden

pytest.importorskip("schemathesis", reason="schemathesis is not installed")


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    """Two models of a shop whose items have titles and a feature, and a key."""
    folder = tmp_path_factory.mktemp("shop")
    table = ItemTable(
        {"kind": ItemFeature.of([["odd"], ["drink"], ["drink"], ["food"], ["drink"]])},
        np.array(["Odd", "Coffee beans", "Fresh milk", "Brown sugar", "Green tea"], dtype=object),
    )
    log = SessionLog.from_lists([[["tea", "milk", "sugar"], ["tea", "milk"]], [["coffee", "sugar"]], [["a/b c"]]])
    for name in ARMS:
        model = create(name).fit(log)
        model.save(folder / name)
        write_item_table(folder / name / "item_table.arrow", table)
        write_golden(model, folder / name)
    secret = hashlib.sha256(b"secret").hexdigest()
    (folder / "keys.toml").write_text(f'[all]\nsha256 = "{secret}"\nscopes = ["read", "write", "admin"]\n')
    return folder


def asked(shop, state, *how):
    """Ask everything that the description allows, and much that it does not; return what was found."""
    places = [str(shop / name) for name in ARMS]
    command = [
        sys.executable,
        "-m",
        "schemathesis.cli",
        "run",
        "--no-color",
        "--checks",
        "all",
        "--continue-on-failure",
    ]
    here = Path(__file__).parent
    names = {"SCHEMATHESIS_HOOKS": "described", "PYTHONPATH": str(here), "NEXTSESSION_TESTED": os.pathsep.join(places)}
    with serving(*places, "--state", state, "--keys", shop / "keys.toml") as process:
        address = f"http://127.0.0.1:{process.port}/openapi.json"
        done = subprocess.run(
            [*command, *how, "-H", "X-API-Key: secret", address],
            capture_output=True, text=True, check=False, cwd=shop, env={**os.environ, **names},
        )  # fmt: skip
        complaints = [line for line in process.lines if json.loads(line)["level"] in ("error", "critical")]
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    assert complaints == []
    return done.stdout


def test_a_running_server_is_as_described(shop, tmp_path):
    assert "Tested: 16" in asked(shop, tmp_path / "state", "--max-examples", "30", "--seed", "1")


@pytest.mark.slow
def test_a_running_server_is_as_described_whatever_is_asked(shop, tmp_path):
    asked(shop, tmp_path / "state", "--max-examples", "500")
