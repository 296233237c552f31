"""The generated pages of the reference, as Markdown."""

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from nextsession.cli.catalogue import SettingFacts, model_facts, setting_facts
from nextsession.cli.terminal import unwrapped

_NOTE = "<!-- written by `nextsession docs`; do not edit -->"


def pages() -> dict[str, str]:
    """Return every page by its name in `docs/reference/`."""
    from nextsession.registry import names
    from nextsession.serving.openapi import text

    found = {
        "openapi.json": text(),
        "commands.md": _commands(),
        "settings.md": _settings(),
        "data-sets.md": _data_sets(),
        "metrics.md": _metrics(),
        "models/index.md": _model_list(names()),
    }
    found |= {f"models/{name}.md": _model(name) for name in names()}
    return found


def _page(title: str, *parts: str) -> str:
    return "\n\n".join([f"# {title}", _NOTE, *(part.strip() for part in parts if part.strip())]) + "\n"


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [" | ".join(columns), " | ".join("---" for _ in columns)]
    lines += [" | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in row) for row in rows]
    return "\n".join(f"| {line} |" for line in lines)


def _setting_table(settings: Iterable[SettingFacts]) -> str:
    rows = [[f"`{s.name}`", s.kind, f"`{s.default}`" if s.default else "", s.about] for s in settings]
    return _table(["setting", "type", "default", "what it is"], rows) if rows else "There are no settings."


# -- commands -----------------------------------------------------------------------------------


def _commands() -> str:
    from typer.main import get_command

    from nextsession.cli import __doc__ as about
    from nextsession.cli import app

    top = get_command(app)
    intro = (about or "").partition("\n\n")[2]
    parts = [intro, _options("`nextsession`", top), *_walk(top, "nextsession")]
    return _page("Commands", *parts)


def _walk(command: Any, path: str) -> Iterator[str]:
    for name, inner in getattr(command, "commands", {}).items():
        title = f"{path} {name}"
        if getattr(inner, "commands", None):
            yield f"## {title}\n\n{unwrapped(inner.help)}"
            yield from _walk(inner, title)
        else:
            yield f"## {title}\n\n{unwrapped(inner.help)}\n\n{_usage(title, inner)}"
            yield _options("", inner)
            yield _examples(inner.epilog)


def _usage(title: str, command: Any) -> str:
    arguments = [p.metavar or p.name.upper() for p in command.params if p.param_type_name == "argument"]
    return f"`{' '.join([title, '[OPTIONS]', *arguments])}`"


def _options(title: str, command: Any) -> str:
    rows = []
    for option in command.params:
        if option.name == "help":
            continue
        if option.param_type_name == "argument":
            name = option.metavar or option.name.upper()
        else:
            name = ", ".join(option.opts) + (f" {option.metavar or option.name.upper()}" if not option.is_flag else "")
        default = option.default
        known = isinstance(default, str | int | float) and not isinstance(default, bool)
        shown = f" Default: `{default}`." if known or type(default).__name__ == "PosixPath" else ""
        rows.append([f"`{name}`", (option.help or "") + shown])
    return "\n\n".join(part for part in (title, _table(["argument or option", "meaning"], rows)) if part)


def _examples(epilog: str | None) -> str:
    lines = [line.strip().replace("\\[", "[") for line in (epilog or "").split("\n\n")[1:]]
    return _no_run("they work on files of the reader", *lines) if lines else ""


def _no_run(reason: str, *lines: str) -> str:
    return "\n".join([f"<!-- no-run: {reason} -->", "", "```bash", *lines, "```"])


# -- settings -----------------------------------------------------------------------------------


def _settings() -> str:
    from nextsession.experiment import Experiment

    by_table: dict[str, list[SettingFacts]] = {}
    for setting in setting_facts(Experiment):
        table, _, rest = setting.name.partition(".")
        by_table.setdefault(table, []).append(SettingFacts(rest or table, setting.kind, setting.default, setting.about))
    parts = [
        "An experiment is a TOML file; any setting can be changed on the line with `--set table.name=value`. "
        'An empty string means *none*. Durations are text such as `"30m"`, `"2h"` or `"7d"`, or whole milliseconds.',
    ]
    for table, settings in by_table.items():
        about = Experiment.described()[table]
        body = f"{about}\n\n{_setting_table(settings)}"
        if table == "models":
            pages = "the settings are on the [page of each model](models/index.md)"
            body = f"{about} A name, or a table of a name and settings; {pages}."
        parts.append(f"## [{table}]\n\n{body}")
    return _page("Settings of an experiment", *parts)


# -- models -------------------------------------------------------------------------------------


def _model_list(names: Sequence[str]) -> str:
    rows = []
    for name in names:
        facts = model_facts(name)
        rows.append([f"[{name}]({name}.md)", facts["about"], facts["made_for"], *_answers(facts)])
    return _page("Models", _table(["model", "what it does", "made for", *_ASKED], rows))


_ASKED = ("reads the clock", "learns on", "reads ignored events", "draws random numbers")


def _answers(facts: Mapping[str, Any]) -> list[str]:
    return ["yes" if facts[name] else "no" for name in ("reads_clock", "learns_on", "reads_ignored", "stochastic")]


def _model(name: str) -> str:
    from nextsession.registry import model_class

    facts = model_facts(name)
    answers = [[question, answer] for question, answer in zip(_ASKED, _answers(facts), strict=True)]
    exempt = [[promise, reason] for promise, reason in facts["exemptions"].items()]
    return _page(
        name,
        facts["about"],
        facts["details"],
        f"Reference: {facts['reference'] or 'none'}.",
        _table(["", ""], [["made for", facts["made_for"]], *answers]),
        f"## Settings\n\n{_setting_table(setting_facts(model_class(name).settings_class))}",
        f"## Promises of the contract it does not keep\n\n{_table(['promise', 'why'], exempt)}" if exempt else "",
        _no_run("it fetches data", f"nextsession fit --data ml-latest-small --model {name} --out runs/{name}"),
    )


# -- data and metrics ---------------------------------------------------------------------------


def _data_sets() -> str:
    from nextsession.data import sets

    parts = [
        "Sets are looked for in `$NEXTSESSION_DATA`, then in the cache; where there is a public address, "
        "`nextsession data fetch SET` gets one after its terms are shown."
    ]
    for name in sets.names():
        one = sets.get(name)
        how = f"`nextsession data fetch {name}`" if one.addresses else one.by_hand or f"by hand, see {one.homepage}"
        rows = [["terms", one.licence], ["home", one.homepage], ["to get it", how], ["to cite", one.citation]]
        parts.append(f"## {name}\n\n{one.title}. {one.about}\n\n{_table(['', ''], rows)}")
    return _page("Data sets", *parts)


def _metrics() -> str:
    from nextsession import metrics

    functions: dict[str, Callable[..., Any]] = {
        **metrics.RANK_METRICS,
        "popularity": metrics.popularity_of,
        "novelty": metrics.novelty_of,
        "diversity": metrics.ItemSpace.diversity,
        "coverage": metrics.coverage,
        "gini": metrics.gini,
    }
    names = (*metrics.RANK_METRICS, *metrics.LIST_METRICS, *metrics.WHOLE_METRICS)
    rows = [[f"`{name}@k`", _first_sentence(functions[name])] for name in names]
    intro = unwrapped((metrics.__doc__ or "").partition("\n\n")[2])
    return _page("Metrics", intro, _table(["metric", "what it is"], rows))


def _first_sentence(function: Callable[..., Any]) -> str:
    text = unwrapped(inspect.getdoc(function)).partition("\n")[0].removeprefix("Return ")
    return text[:1].upper() + text[1:]
