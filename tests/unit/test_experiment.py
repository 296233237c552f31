"""Experiments: read, overridden, refused to the leaf, written down and read back."""

import os
import tomllib
from pathlib import Path

import pytest

from nextsession.data.format import Filters
from nextsession.errors import ConfigError, UnknownNameError
from nextsession.experiment import Experiment, ModelChoice, toml_value
from nextsession.models.markov import MarkovSettings

RECIPES = sorted((Path(__file__).parents[2] / "recipes").glob("*.toml"))
GLOBO = {"set": "globo"}


def refused(tables, *overrides):
    with pytest.raises(ConfigError) as caught:
        Experiment.load(None, overrides, **tables)
    return str(caught.value)


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_builds_and_repeats(recipe):
    experiment = Experiment.load(recipe)
    assert experiment.models
    assert Experiment.read(tomllib.loads(experiment.toml())) == experiment


def test_there_are_recipes():
    assert {path.stem for path in RECIPES} >= {"start", "globo-temporal", "rsc15-100k", "shop"}


def test_defaults_are_the_honest_ones():
    experiment = Experiment.load(None, data=GLOBO)
    assert experiment.split.protocol == "temporal"
    assert experiment.filters is None
    assert experiment.evaluation.ties == "median"


def test_models_are_names_or_tables():
    experiment = Experiment.load(None, data=GLOBO, models=["popular", {"name": "markov", "order": 2}])
    assert [model.name for model in experiment.models] == ["popular", "markov"]
    assert experiment.models[1].settings == MarkovSettings(order=2)


def test_one_model_table(tmp_path):
    path = tmp_path / "one.toml"
    path.write_text('[data]\nset = "globo"\n[model]\nname = "markov"\n')
    experiment = Experiment.load(path, ["model.order=3"])
    assert experiment.model == ModelChoice.of({"name": "markov", "order": 3})
    with pytest.raises(ConfigError, match=r"exactly one model, got none; name it with --model"):
        _ = Experiment.load(None, data=GLOBO).model


def test_overrides_reach_every_leaf():
    overrides = [
        "models.markov.order=2",
        "split.test=2d",
        "filters.item_events=5",
        "evaluation.k=[5, 10]",
        "data.set=tafeng",
    ]
    experiment = Experiment.load(None, overrides, data=GLOBO, models=["popular", "markov"])
    assert experiment.models[1].settings == MarkovSettings(order=2)
    assert experiment.split.test == 2 * 86_400_000
    assert experiment.filters == Filters(item_events=5)
    assert experiment.evaluation.k == (5, 10)
    assert experiment.data.set == "tafeng"


def test_overriding_one_of_two_models_of_a_name():
    models = [{"name": "recent", "window": "1h"}, {"name": "recent", "window": "24h"}]
    experiment = Experiment.load(None, ["models.1.window=2h"], data=GLOBO, models=models)
    assert [model.settings.window for model in experiment.models] == [3_600_000, 7_200_000]
    message = refused({"data": GLOBO, "models": models}, "models.recent.window=3h")
    assert "several models; say which by its place" in message


def test_empty_text_means_none():
    tables = {"path": "x.csv", "format": {"columns": {"user": "", "time": ""}}}
    experiment = Experiment.load(None, data=tables)
    assert experiment.data.format.columns.user is None
    again = Experiment.read(tomllib.loads(experiment.toml()))
    assert again == experiment


@pytest.mark.parametrize(
    ("text", "value"),
    [("3", 3), ("2.5", 2.5), ("true", True), ("[1, 2]", [1, 2]), ("1d", "1d"), ('"3"', "3"), ("{a = 1}", {"a": 1})],
)
def test_values_are_toml_or_bare_text(text, value):
    assert toml_value(text) == value


def test_a_value_cannot_smuggle_in_another_name():
    assert toml_value("1\nother = 2") == "1\nother = 2"


# -- messages -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("models.markov.ordr=2", "markov: ordr: there is no such setting (got 2). Did you mean 'order'? Settings: "),
        ("models.markov.order=0", "markov: order: must be greater than or equal to 1, got 0."),
        (
            "evaluation.exclude=past",
            "evaluation.exclude: must be 'nothing', 'session' or 'history', got 'past'",
        ),
        ("splt.test=1d", "splt: there is no such setting (got {'test': '1d'}). Did you mean 'split'?"),
        ("split.test=soon", "split.test: must be a duration such as '1d'"),
        ("split.step=1h", "split: the protocol 'temporal' does not read step; leave it out"),
        ('evaluation.metrics=["ndgc"]', "There is no metric 'ndgc'. Did you mean 'ndcg'? "),
        (
            "data.format.columns.itm=x",
            "data.format.columns.itm: there is no such setting (got 'x'). Did you mean 'item'?",
        ),
        ("evaluation.k=10", "evaluation.k: must be a list such as [1, 2] or ['a', 'b'], got 10."),
        ("data.path=x.csv", "data: give exactly one of set, prepared, path and shop, got set and path"),
        ("data.items.path=x.csv", "data: items is for raw files at a path; leave it out beside set"),
        ("models.stan.k=2", "there is no model 'stan' in this experiment. Models: popular, markov."),
        ("models.markov=2", "say which setting, as in models.markov.order=2"),
        ("split.test.x=1", "split.test is no table, it is '1d'"),
        ("nonsense", "--set takes name=value such as split.test=1d, got 'nonsense'."),
        ("a..b=1", "--set takes name=value"),
    ],
)
def test_what_is_wrong_is_named(override, message):
    tables = {"data": dict(GLOBO), "models": ["popular", "markov"], "split": {"test": "1d"}}
    assert message in refused(tables, override)


def test_a_prepared_log_is_not_cut_again():
    assert "a prepared log is cut into sessions already" in refused(
        {"data": {"prepared": "x"}, "filters": {"item_events": 2}}
    )


def test_the_same_model_twice_is_refused():
    assert "'markov' is named twice with the same settings" in refused({"data": GLOBO, "models": ["markov", "markov"]})


def test_no_data():
    assert "data: Field required" in refused({"models": ["popular"]})
    assert "got none of them" in refused({"data": {}})


def test_unknown_model():
    with pytest.raises(UnknownNameError, match=r"There is no model 'markow'. Did you mean 'markov'\?"):
        Experiment.load(None, data=GLOBO, models=["markow"])


@pytest.mark.parametrize("models", [3, "popular", [3], [{"order": 2}]])
def test_models_of_another_form(models):
    assert "model" in refused({"data": GLOBO, "models": models})


def test_files(tmp_path):
    with pytest.raises(ConfigError, match=r"There is no experiment file .*; recipes/start.toml is one to copy"):
        Experiment.load(tmp_path / "none.toml")
    bad = tmp_path / "bad.toml"
    bad.write_text("[data\n")
    with pytest.raises(ConfigError, match=r"bad.toml is no readable TOML file"):
        Experiment.load(bad)
    both = tmp_path / "both.toml"
    both.write_text('models = ["popular"]\n[model]\nname = "markov"\n[data]\nset = "globo"\n')
    with pytest.raises(ConfigError, match=r"both.toml: give either \[model\] or models, not both"):
        Experiment.load(both)
    wrong = tmp_path / "wrong.toml"
    wrong.write_text('[data]\nset = "globo"\n[model]\nname = "markov"\norder = "two"\n')
    with pytest.raises(ConfigError, match=r"wrong.toml: markov: order: must be a valid integer"):
        Experiment.load(wrong)


@pytest.mark.slow
@pytest.mark.parametrize("recipe", [r for r in RECIPES if r.stem != "start"], ids=lambda path: path.stem)
def test_every_recipe_opens(recipe):
    if "NEXTSESSION_DATA" not in os.environ:
        pytest.skip("set NEXTSESSION_DATA to the folder that holds globo/ and the other sets")
    from nextsession.sources import open_split

    _, split = open_split(Experiment.load(recipe))
    assert split.facts["test_questions"] > 0
