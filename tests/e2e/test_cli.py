"""The command line as people and programs meet it: results, remarks, refusals and exit codes."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from contextlib import suppress
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
import typer

from nextsession import registry
from nextsession.bootstrap import Estimate
from nextsession.cli import app, main
from nextsession.cli.evaluate import _verdict
from nextsession.cli.terminal import show_table
from nextsession.errors import DataError

CLICKS = """visitor,product,at
ann,milk,2026-03-01T09:00:00Z
ann,bread,2026-03-01T09:01:00Z
ann,milk,2026-03-03T09:00:00Z
ann,tea,2026-03-03T09:01:00Z
bob,milk,2026-03-01T12:00:00Z
bob,tea,2026-03-01T12:04:00Z
bob,milk,2026-03-03T12:00:00Z
bob,bread,2026-03-03T12:04:00Z
"""
COLUMNS = ["--user", "visitor", "--item", "product", "--time", "at"]
SHOP = ["--data", "shop", "--set", "data.shop.users=60", "--set", "data.shop.items=80", "--set", "split.test=14d"]


@pytest.fixture(autouse=True)
def _alone(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NEXTSESSION_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("NEXTSESSION_DATA", raising=False)


@pytest.fixture
def run(capsys):
    """Run a command in this process: its exit code, stdout and stderr."""

    def call(*arguments):
        with pytest.raises(SystemExit) as ended:
            main([str(a) for a in arguments])
        written = capsys.readouterr()
        return ended.value.code, written.out, written.err

    return call


@pytest.fixture
def clicks(tmp_path):
    path = tmp_path / "clicks.csv"
    path.write_text(CLICKS)
    return path


def start(*arguments, **options):
    """Start the command in a process of its own."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen([sys.executable, "-m", "nextsession", *map(str, arguments)], **pipes | options)


def commands(group=None, path=()):
    group = group or typer.main.get_command(app)
    for name, one in group.commands.items():
        if getattr(one, "commands", None):
            yield from commands(one, (*path, name))
        else:
            yield (*path, name)


# -- help, version, refusals --------------------------------------------------------------------


@pytest.mark.parametrize("command", list(commands()), ids=" ".join)
def test_every_command_has_help_with_an_example(run, command):
    code, out, _ = run(*command, "--help")
    assert code == 0
    assert f"nextsession {' '.join(command)}" in out.partition("Examples")[2]


def test_all_commands_are_there():
    names = {" ".join(command) for command in commands()}
    assert names >= {
        "demo",
        "fit",
        "evaluate",
        "compare",
        "recommend",
        "models",
        "check",
        "new-model",
        "bench",
        "doctor",
    }
    assert names >= {f"data {verb}" for verb in ("describe", "prepare", "fetch", "sets", "simulate")}


def test_version(run):
    assert re.fullmatch(r"nextsession \d+\.\d+\.\d+\n", run("--version")[1])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["fit", "--data", "globbo", "--model", "markov"],
            "There is no file, prepared directory or data set 'globbo'. Did",
        ),
        (["fit", "--data", "shop", "--model", "markow"], "There is no model 'markow'. Did you mean 'markov'?"),
        (["fit", "--data", "shop", "--model", "markov", "--set", "model.ordr=2"], "Did you mean 'order'?"),
        (["fit", "--model", "markov"], "Name an experiment file, or the data with --data."),
        (["fit", "--data", "shop"], "There must be exactly one model, got none"),
        (["fit", "none.toml"], "There is no experiment file 'none.toml'"),
        (["compare", *SHOP], "name models with --models a,b,c or --all"),
        (["compare", *SHOP, "--all", "--models", "popular"], "either --models or --all"),
        (["compare", *SHOP, "--all", "--budget", "0"], "--budget must be more than 0"),
        (["evaluate", "nowhere"], "nowhere is not a saved model"),
        (["recommend", "nowhere"], "nowhere is not a saved model"),
        (["models", "vsknnn"], "Did you mean 'vsknn'?"),
        (["check", "vsknnn"], "Did you mean 'vsknn'?"),
        (["data", "fetch", "globoo"], "There is no data set 'globoo'"),
        (["data", "fetch", "globo"], "By hand: "),
        (["data", "prepare", "shop"], "shop is prepared already"),
        (["data", "prepare", "none-*.csv"], "No file matches none-*.csv"),
        (["data", "prepare", "-"], "read from stdin cannot be found again in the cache: prepare it with --out first"),
        (["data", "simulate", "--out", "x.parquet", "--set", "userss=2"], "Did you mean 'users'?"),
        (["new-model", "Big Model"], "got 'Big Model'"),
        (["new-model", "markov"], "There is a model 'markov' already"),
        (["bench"], "There is no recipe"),
        (["docs"], "There is no folder"),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, list) else None,
)
def test_wrong_requests_end_in_one_line_and_2(run, arguments, message):
    code, out, err = run(*arguments)
    assert code == 2
    assert out == ""
    assert message in err
    assert err.startswith("Error: ")
    assert err.count("\n") == 1


def test_help_keeps_its_brackets_and_its_paragraphs(run):
    for command in commands():
        for option in re.findall(r"│ [^│]*│", run(*command, "--help")[1]):
            assert ", ," not in option
    text = " ".join(run("recommend", "--help")[1].split())
    assert '{"sessions": [[...], [...]]}; it may have "times" (ms, in the same form)' in text


def test_a_narrow_terminal_wraps_text_and_breaks_no_number(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    show_table(
        ["model", "what it does", "made for", "ndcg@10", "recall@10"],
        [["associationrules", "Ranks items by pairs of events", "next-session", "0.12345", "0.23456"]],
    )
    out = capsys.readouterr().out
    for whole in ("associationrules", "next-session", "0.12345", "0.23456", "recall@10"):
        assert whole in out
    assert "Ranks items by pairs of events" not in out


def test_a_place_that_cannot_be_written_is_named_with_a_remedy(run, clicks):
    code, _, err = run("data", "simulate", "--events", "200", "--out", clicks / "below" / "s.parquet")
    assert code == 1
    assert re.fullmatch(r"Error: .*clicks.csv.* cannot be read or written: .*(--out; NEXTSESSION_CACHE .*)\.\n", err)


def test_more_popular_items_are_neither_better_nor_worse():
    above, below, around = (Estimate(0.0, low, high) for low, high in ((0.1, 0.2), (-0.2, -0.1), (-0.1, 0.1)))
    assert [_verdict("ndcg@10", x) for x in (above, below, around)] == ["better", "worse", "no clear difference"]
    assert [_verdict("popularity@10", x) for x in (above, below)] == ["more", "less"]


@pytest.mark.parametrize("arguments", [["fit", "--outt"], ["nosuch"], ["evaluate"], ["recommend", "x", "-k", "0"]])
def test_usage_errors_are_2(run, arguments):
    assert run(*arguments)[0] == 2


def test_traceback_on_request(run):
    for arguments in (["--traceback", "data", "describe", "x.csv"], ["data", "describe", "x.csv", "--traceback"]):
        with pytest.raises(DataError, match=r"x\.csv"):
            main(arguments)


# -- data ---------------------------------------------------------------------------------------


def test_prepare_from_flags(run, clicks):
    code, out, err = run("data", "prepare", clicks, *COLUMNS, "--min-item-events", 2, "--out", "p")
    assert code == 0
    assert "8 events, 2 users, 4 sessions, 3 items" in out
    assert "item_events 2" in out
    assert "Next: nextsession data describe" in err
    code, out, _ = run("data", "describe", "p", "--json")
    assert (code, json.loads(out)["events"]) == (0, 8)


def test_prepare_json_is_pure_and_quiet_is_quiet(run, clicks):
    code, out, err = run("data", "prepare", clicks, *COLUMNS, "--json", "--quiet")
    facts = json.loads(out)
    assert (code, err, facts["counts"]["sessions"]) == (0, "", 4)
    assert Path(facts["path"]).is_dir()


def test_dry_run_shows_what_it_understood_and_writes_nothing(run, clicks, tmp_path):
    before = sorted(tmp_path.rglob("*"))
    code, out, _ = run("data", "prepare", clicks, *COLUMNS, "--gap", "1h", "--dry-run", "--json")
    seen = json.loads(out)
    assert code == 0
    assert seen["files"] == [{"file": str(clicks), "bytes": len(CLICKS)}]
    assert seen["sessions"]["gap"] == 3_600_000
    assert seen["rows"][0] == {"user": "ann", "item": "milk", "time": "2026-03-01 09:00:00.000 UTC"}
    assert sorted(tmp_path.rglob("*")) == before
    code, out, _ = run("data", "prepare", clicks, *COLUMNS, "--dry-run")
    assert "Would read 1 file, 259 bytes" in out
    assert "ann" in out


def test_bad_rows_name_file_row_and_column_or_are_set_aside(run, clicks):
    clicks.write_text(CLICKS + "eve,tea,yesterday\n")
    code, _, err = run("data", "prepare", clicks, *COLUMNS, "--out", "p")
    assert code == 2
    assert "clicks.csv, row 10, column 'at'" in err
    assert not Path("p").exists()
    code, out, _ = run("data", "prepare", clicks, *COLUMNS, "--out", "p", "--bad-rows", "quarantine")
    assert code == 0
    assert "1 rows could not be used" in out


def test_prepare_by_config_which_flags_outdo(run, clicks):
    config = Path("log.toml")
    config.write_text(
        '[data.format.columns]\nuser = "visitor"\nitem = "product"\ntime = "at"\n'
        '[sessions]\ngap = "5d"\n[split]\ntest = "1d"\n'
    )
    code, out, _ = run("data", "prepare", clicks, "--config", config, "--json")
    assert (code, json.loads(out)["counts"]["sessions"]) == (0, 2)
    code, out, _ = run("data", "prepare", clicks, "--config", config, "--gap", "30m", "--json")
    assert (code, json.loads(out)["counts"]["sessions"]) == (0, 4)


def test_prepare_reads_stdin(clicks):
    done = start("data", "prepare", "-", *COLUMNS, "--set", "data.format.kind=csv", "--out", "p", "--json")
    out, err = done.communicate(CLICKS)
    assert done.returncode == 0, err
    assert json.loads(out)["counts"]["events"] == 8


def test_sets_are_listed(run):
    code, out, _ = run("data", "sets", "--json")
    rows = {row["name"]: row for row in json.loads(out)}
    assert code == 0
    assert rows["globo"]["at_hand"] is None
    assert rows["ml-latest-small"]["can_be_fetched"]
    assert "MovieLens" in run("data", "sets")[1]


def test_simulate_and_describe_with_plots(run):
    code, out, _ = run("data", "simulate", "--events", 3000, "--out", "shop.parquet", "--json")
    assert code == 0
    assert json.loads(out)["events"] > 0
    arguments = ["data", "describe", "shop.parquet", "--set", "data.format.columns.session=session_id"]
    code, out, err = run(*arguments, "--plots", "shop.png")
    assert code == 0
    assert out.startswith("users")
    assert "Drawn: shop.png" in err
    assert Path("shop.png").stat().st_size > 10_000


# -- models -------------------------------------------------------------------------------------


def test_models_are_listed(run):
    code, out, _ = run("models", "--json")
    assert (code, [row["name"] for row in json.loads(out)]) == (0, registry.names())
    code, out, _ = run("models", "markov", "--json")
    settings = {s["name"]: s for s in json.loads(out)["settings"]}
    assert settings["order"] == {
        "name": "order",
        "kind": "whole number ≥ 1",
        "default": "1",
        "about": "How many of the latest events of the session are looked at.",
    }
    assert "smoothing" in run("models", "markov")[1]


def test_a_broken_model_of_another_package_is_told_and_the_others_are_listed(run, monkeypatch):
    here = registry.names()
    point = EntryPoint("favourite", "nextsession.nowhere:Popular", "nextsession.models")
    monkeypatch.setattr(registry, "entry_points", lambda group: [point])
    code, out, err = run("models", "--json")
    assert (code, [row["name"] for row in json.loads(out)]) == (0, here)
    assert "The model 'favourite' of another package cannot be imported" in err
    assert run("models", "favourite")[0] == 1


def test_fit_evaluate_recommend(run):
    code, out, _ = run("fit", *SHOP, "--model", "markov", "--set", "model.order=2", "--out", "runs/m", "--json")
    assert code == 0
    assert json.loads(out)["settings"]["order"] == 2
    assert (Path("runs/m") / "experiment.toml").is_file()
    code, out, _ = run("fit", "runs/m/experiment.toml", "--out", "runs/again", "--json")
    assert code == 0
    one, two = (Path(f"runs/{x}/arrays.safetensors").read_bytes() for x in ("m", "again"))
    assert one == two
    assert run("fit", *SHOP, "--model", "popular", "--out", "runs/p", "--quiet")[0] == 0
    code, out, _ = run("evaluate", "runs/m", "--against", "runs/p", "--set", "evaluation.bootstrap=20", "--json")
    facts = json.loads(out)
    assert code == 0
    gap = facts["metrics"]["ndcg@10"]["mean"] - facts["against"]["metrics"]["ndcg@10"]["mean"]
    assert facts["differences"]["ndcg@10"]["mean"] == pytest.approx(gap)
    code, out, _ = run("evaluate", "runs/m", "--set", "evaluation.bootstrap=20")
    assert code == 0
    assert "ndcg@10" in out


def test_fit_does_not_overwrite_what_is_no_model(run):
    Path("precious").mkdir()
    (Path("precious") / "manifest.json").write_text('{"format": 1}')
    code, _, err = run("fit", *SHOP, "--model", "popular", "--out", "precious")
    assert code == 2
    assert "precious exists and is not a saved model" in err


def test_fit_dry_run(run, tmp_path):
    code, out, _ = run("fit", *SHOP, "--model", "markov", "--dry-run")
    assert code == 0
    assert 'name = "markov"' in out
    assert list(tmp_path.iterdir()) == []


def test_a_model_that_saw_the_answers_is_refused(run):
    assert run("fit", *SHOP, "--model", "popular", "--everything", "--out", "all")[0] == 0
    code, _, err = run("evaluate", "all")
    assert code == 2
    assert "all learnt from the whole log, answers included; fit it without --everything." in err
    assert run("fit", *SHOP, "--model", "popular", "--out", "some")[0] == 0
    code, _, err = run("evaluate", "some", "--set", "split.test=30d")
    assert code == 2
    assert "some learnt from events later than" in err


def test_a_table_of_models_that_learnt_next_to_nothing_says_so(run):
    wide = [text.replace("split.test=14d", "split.test=58d") for text in SHOP]
    code, out, err = run("compare", *wide, "--models", "popular", "--out", "c", "--set", "evaluation.bootstrap=20")
    assert code == 0
    assert "events are earlier than" in err
    assert "events are earlier than" not in out
    assert "a shorter split.test" in Path("c/report.md").read_text()
    assert "a shorter split.test" in Path("c/report.html").read_text()


def test_compare_writes_and_resumes(run):
    arguments = ["compare", *SHOP, "--models", "popular,markov", "--out", "c", "--set", "evaluation.bootstrap=20"]
    code, out, _ = run(*arguments)
    assert code == 0
    assert "Report: c/report.html" in out
    assert {p.name for p in Path("c").iterdir()} >= {"report.html", "report.md", "rows.json", "experiment.toml"}
    row = next(Path("c").glob("markov-*.json"))
    stamp = row.stat().st_mtime_ns
    code, out, _ = run(*arguments, "--json")
    assert [r["model"] for r in json.loads(out)["rows"]] == ["popular", "markov"]
    assert row.stat().st_mtime_ns == stamp
    assert run(*arguments, "--anew")[0] == 0
    assert row.stat().st_mtime_ns != stamp


def test_a_model_that_fails_makes_the_run_fail_and_the_others_stand(run, monkeypatch):
    def fail(self, log, runtime):
        raise RuntimeError("no luck")

    monkeypatch.setattr(registry.model_class("popular"), "_fit", fail)
    code, out, _ = run("compare", *SHOP, "--models", "popular,markov", "--out", "c", "--json")
    assert code == 1
    assert [row["failure"] for row in json.loads(out)["rows"]] == ["RuntimeError: no luck", None]


def test_a_model_made_for_other_data_is_no_failure(run, clicks):
    assert (
        run(
            "data",
            "prepare",
            clicks,
            "--user",
            "visitor",
            "--item",
            "product",
            "--time",
            "",
            "--by",
            "user",
            "--out",
            "p",
        )[0]
        == 0
    )
    split = ["--set", "split.protocol=leave-one-item-out", "--set", "split.form=paper-like"]
    code, out, _ = run("compare", "--data", "p", "--models", "popular,recent", *split, "--out", "c", "--json")
    assert code == 0
    assert "the log must hold times" in json.loads(out)["rows"][1]["failure"]


def test_an_interrupted_comparison_keeps_what_is_done(run, monkeypatch):
    def interrupt(self, log, runtime):
        raise KeyboardInterrupt

    arguments = ["compare", *SHOP, "--models", "popular,markov", "--out", "c"]
    with monkeypatch.context() as patched:
        patched.setattr(registry.model_class("markov"), "_fit", interrupt)
        assert run(*arguments)[0] == 130
    assert {p.name.partition("-")[0] for p in Path("c").iterdir()} == {"popular"}
    assert run(*arguments)[0] == 0


def test_bench_passes_over_what_is_not_at_hand(run):
    Path("recipes").mkdir()
    Path("recipes/globo.toml").write_text('[data]\nset = "globo"\n')
    code, out, err = run("bench", "--quick", "--json")
    assert (code, json.loads(out)) == (0, [{"recipe": "globo", "rows": None}])
    assert "its data are not at hand" in err


def test_bench_goes_on_after_a_recipe_that_fails(run):
    Path("recipes").mkdir()
    Path("recipes/a.toml").write_text('[data.shop]\nusers = 5\nitems = 30\n[split]\ntest = "365d"\n')
    Path("recipes/b.toml").write_text('[data]\nset = "globo"\n')
    code, out, err = run("bench", "--json")
    assert (code, [result["recipe"] for result in json.loads(out)]) == (1, ["a", "b"])
    assert "a: No event is earlier than" in err


def test_doctor(run):
    code, out, _ = run("doctor", "--json")
    found = {finding["what"]: finding for finding in json.loads(out)}
    assert code == 0
    assert "numba compiles" in found["compiler"]["found"]


# -- recommend ----------------------------------------------------------------------------------


@pytest.fixture
def model(run, clicks):
    arguments = ["fit", "--data", clicks, "--model", "markov", "--everything", "--out", "m", "--quiet"]
    for flag, name in (("user", "visitor"), ("item", "product"), ("time", "at")):
        arguments += ["--set", f"data.format.columns.{flag}={name}"]
    assert run(*arguments)[0] == 0
    return "m"


def test_recommend_answers_each_line(run, model):
    lines = [
        {"items": ["milk"], "user": "ann"},
        {"sessions": [["bread"], ["nothing known"]]},
        {"items": []},
        {"items": ["milk"], "times": [1], "asked_at": 2, "exclude": "history"},
    ]
    Path("h.jsonl").write_text("\n".join(map(json.dumps, lines)))
    code, out, _ = run("recommend", model, "h.jsonl", "-k", 2)
    answers = [json.loads(line) for line in out.splitlines()]
    assert code == 0
    assert answers[0]["user"] == "ann"
    assert sorted(answers[0]["items"]) == ["bread", "tea"]
    assert len(answers) == 4
    assert all(len(a["items"]) == len(a["scores"]) for a in answers)
    assert "milk" not in answers[3]["items"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 2: this is no JSON"),
        ("[1]", "line 2: must be an object such as"),
        ('{"item": ["milk"]}', "line 2: there is no field 'item'. Did you mean 'items'?"),
        ("{}", "line 2: give either items (one session) or sessions"),
        ('{"items": "milk"}', "line 2: sessions must be a list of lists of ids"),
        ('{"items": [1.5]}', "line 2: ids must be strings or whole numbers, got 1.5"),
        ('{"items": ["milk"], "times": [1, 2]}', "line 2: times must have one value an item"),
        ('{"items": ["milk", "tea"], "times": [2, 1]}', "line 2: times must not fall, got 1 after 2"),
        ('{"items": ["milk"], "times": ["x"]}', "line 2: times must be whole milliseconds since 1970, got 'x'"),
        ('{"items": ["milk"], "times": [5], "asked_at": 4}', "line 2: asked_at must not be before the last event at 5"),
        ('{"items": ["milk"], "exclude": "all"}', "line 2: exclude must be one of nothing, session, history"),
    ],
)
def test_a_bad_line_is_named_after_the_good_ones_are_answered(run, model, line, message):
    Path("h.jsonl").write_text('{"items": ["milk"]}\n' + line + "\n")
    code, out, err = run("recommend", model, "h.jsonl")
    assert code == 2
    assert len(out.splitlines()) == 1
    assert message in err


def test_recommend_streams_and_survives_a_closed_pipe(model):
    process = start("recommend", model, "--batch", 1)
    process.stdin.write('{"items": ["milk"]}\n')
    process.stdin.flush()
    assert sorted(json.loads(process.stdout.readline())["items"]) == ["bread", "tea"]
    process.stdout.close()
    with suppress(BrokenPipeError):
        for _ in range(3):
            process.stdin.write('{"items": ["milk"]}\n')
            process.stdin.flush()
            time.sleep(0.1)
    with suppress(BrokenPipeError):
        process.stdin.close()
    assert process.wait(30) == 1
    assert process.stderr.read() == ""
    process.stderr.close()


# -- contract -----------------------------------------------------------------------------------


def test_a_new_model_needs_one_method(run):
    assert run("new-model", "liked_most", "--out", "plugins/liked_most.py")[0] == 0
    path = Path("plugins/liked_most.py")
    code, out, _ = run("check", path)
    assert code == 1
    assert "NotImplementedError: LikedMost._score: return DotScores" in out
    text = path.read_text()
    blank = re.search(r"        # The blank\..*\Z", text, flags=re.S)
    filled = "        return DotScores(np.ones((len(histories), 1), np.float32), self.counts_[:, None])\n"
    Path("plugins/liked_best.py").write_text(
        text.replace(blank[0], filled).replace("liked_most", "liked_best").replace("LikedMost", "LikedBest")
    )
    code, out, err = run("check", "plugins/liked_best.py")
    assert code == 0, out + err
    assert "promises kept" in out


def test_check_reports_each_promise(run):
    code, out, _ = run("check", "noop", "--json")
    found = json.loads(out)
    assert code == 0
    assert found["kept"]
    assert {o["promise"] for o in found["outcomes"]} >= {"exclude_session", "saved"}


# -- interrupts and terminals -------------------------------------------------------------------


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupt_leaves_nothing_half_written(tmp_path, number, code):
    folder = tmp_path / "big"
    process = start("data", "simulate", "--events", "1e8", "--out", folder / "shop.parquet")
    deadline = time.monotonic() + 60
    while not list(folder.glob(".shop.parquet.*")) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (code, "")
    assert "Traceback" not in err
    assert list(folder.iterdir()) == []


def test_no_colour_without_a_terminal():
    process = start("models", env=os.environ | {"FORCE_COLOR": "", "NO_COLOR": "1"})
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert "\x1b" not in out
    assert "vsknn" in out


def test_help_comes_at_once():
    before = os.times().children_user
    process = start("--help")
    process.communicate(timeout=60)
    assert process.returncode == 0
    assert os.times().children_user - before < 2.0
    heavy = "import sys, nextsession.cli; print({'matplotlib', 'polars', 'jinja2'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", heavy], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
