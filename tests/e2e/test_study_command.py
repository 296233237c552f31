"""`nextsession study` as people meet it: a plan, a page, and work that is not done twice."""

import json

import pytest

from nextsession.cli import main
from nextsession.comparison import _Job

SMALL = [
    "--data", "shop", "--set", "data.shop.users=50", "--set", "data.shop.items=80", "--set", "study.epochs=1",
    "--set", "study.layers=1", "--set", "study.dim=8", "--set", "study.seeds=1", "--set", "evaluation.bootstrap=20",
]  # fmt: skip


@pytest.fixture(autouse=True)
def _alone(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NEXTSESSION_CACHE", str(tmp_path / "cache"))


def run(capsys, *arguments):
    with pytest.raises(SystemExit) as ended:
        main([str(a) for a in arguments])
    written = capsys.readouterr()
    return ended.value.code, written.out, written.err


def test_a_dry_run_says_what_would_be_trained_and_writes_nothing(capsys, tmp_path):
    code, out, _ = run(capsys, "study", "overall", *SMALL, "--dry-run")
    assert code == 0
    assert "SASRec+" in out
    assert "SASRec+, time-aware ◷" in out
    assert "learning_rate" in out
    code, out, _ = run(capsys, "study", "scaling", "--data", "globo", "--dry-run", "--json")
    assert code == 0
    assert ["1/1 of the people, width 64", "sessionrec", 3] in json.loads(out)["trainings"]
    assert list(tmp_path.iterdir()) == []


def test_studies_share_what_was_trained_and_go_on(capsys, tmp_path, monkeypatch):
    code, out, _ = run(capsys, "study", "alpha", *SMALL)
    assert code == 0
    assert "Report: " in out
    page = (tmp_path / "runs/study/shop/alpha.html").read_text(encoding="utf-8")
    assert page.startswith("<!doctype html>")
    assert "<svg" in page
    summary = json.loads((tmp_path / "runs/study/shop/alpha.json").read_text(encoding="utf-8"))
    assert [model["name"] for model in summary["models"]] == ["0", "0.05", "0.1", "0.2", "0.5", "1", "2"]
    assert (
        summary["models"][1]["differences"]["slate_auc"]["low"]
        <= summary["models"][1]["differences"]["slate_auc"]["high"]
    )
    trained = []
    once = _Job.run
    monkeypatch.setattr(_Job, "run", lambda self, *rest: trained.append(self.spec.seed) or once(self, *rest))
    code, again, _ = run(capsys, "study", "alpha", *SMALL)
    assert (code, trained) == (0, [])
    assert again == out


def test_a_wrong_study_is_refused(capsys):
    code, _, err = run(capsys, "study", "tables", *SMALL)
    assert code == 2
    assert "There is no study 'tables'" in err


def test_scaling_foretells_before_it_checks(capsys, tmp_path):
    sizes = ["--set", "study.steps=4", "--set", "study.widths=[2,4,8]"]
    code, out, _ = run(capsys, "study", "scaling", *SMALL, *sizes)
    assert code == 0
    assert "foretold of the greatest size" in out
    place = tmp_path / "runs/study/shop/scaling"
    assert (place / "prediction.json").stat().st_mtime <= (place / "greatest/rows.json").stat().st_mtime
    found = json.loads((place.parent / "scaling.json").read_text(encoding="utf-8"))["more"]
    assert [cell["held_out"] for cell in found["cells"]] == [False] * 5 + [True]
    assert found["check"]["inside"] in (True, False)


def test_shops_differ_in_how_long_a_wish_lasts_and_in_nothing_else(capsys, tmp_path):
    code, out, _ = run(capsys, "study", "intent", *SMALL, "--set", "study.lasting=[0.2,0.8]", "--dry-run")
    assert code == 0
    assert "0.2: SASRec+" in out
    code, out, _ = run(capsys, "study", "intent", *SMALL, "--set", "study.lasting=[0.2,0.8]")
    assert code == 0
    assert "Persistence 0.8" in out
    found = json.loads((tmp_path / "runs/study/shop/intent.json").read_text(encoding="utf-8"))
    assert [world["persistence"] for world in found["more"]["worlds"]] == [0.2, 0.8]
    assert len({world["fingerprint"] for world in found["more"]["worlds"]}) == 2
    rivals = {model["name"]: model["against"] for model in found["models"]}
    assert {rivals[f"{x}: SessionRec, mean"].partition(": ")[0] for x in ("0.2", "0.8")} == {"0.2", "0.8"}
    assert "http://www.w3.org/2000/svg" in (tmp_path / "runs/study/shop/intent.html").read_text(encoding="utf-8")


def test_how_long_a_wish_lasts_can_be_set_in_the_shop_alone(capsys, tmp_path):
    rows = "".join(f"{u},{i},2026-03-0{1 + i}T09:00:00Z\n" for u in "abcd" for i in range(4))
    (tmp_path / "clicks.csv").write_text(f"user_id,item_id,timestamp\n{rows}")
    code, _, err = run(capsys, "study", "intent", "--data", "clicks.csv")
    assert code == 2
    assert "which only the simulated shop can" in err
