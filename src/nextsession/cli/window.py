"""The end of the demo: two of its models, served with their page."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nextsession.cli.request import agree
from nextsession.cli.terminal import bars, remark

if TYPE_CHECKING:
    from nextsession.experiment import Experiment
    from nextsession.rows import Row

NETWORK: dict[str, Any] = {"name": "gru4rec", "layers": [64], "epochs": 8, "reads": "history"}
"""A network that learns in seconds and needs no torch: the explorer has gates to show."""


def best(rows: Sequence["Row"], among: Sequence[str]) -> str:
    """Return the model that did best in a comparison."""
    from nextsession.report.leaderboard import Leaderboard

    measured = [entry.row.model for entry in Leaderboard(rows).measured if entry.place is not None]
    return next((name for name in measured if name in among), among[0])


def fit_two(experiment: "Experiment", counting: str, out: Path) -> list[Path]:
    """Learn a counting model and a network from everything there is, and keep them where the server finds them."""
    from nextsession.experiment import Experiment
    from nextsession.registry import model_class
    from nextsession.runs import save_run
    from nextsession.sources import open_source

    places = []
    for choice in (counting, NETWORK):
        wanted = Experiment.read({**experiment.tables(), "models": [choice]})
        place = out / wanted.model.name
        places.append(place)
        stored = place / "experiment.toml"
        if stored.is_file() and stored.read_text(encoding="utf-8") == wanted.toml():
            continue  # learnt the last time
        with bars() as progress:
            log = open_source(wanted, agree=agree, progress=progress).log
            model = model_class(wanted.model.name)(wanted.model.settings)
            model.fit(log, runtime=wanted.runtime, progress=progress)
            save_run(place, model, wanted, "everything", log=log)
    return places


def serve_two(experiment: "Experiment", counting: str, out: Path, port: int) -> None:
    """Serve two models until told to stop; events are kept in the folder of the demo."""
    try:
        from nextsession.serving.logs import to_stderr
        from nextsession.serving.process import ServeSettings, run
    except ModuleNotFoundError as error:
        remark(f"The page needs {error.name}, which is not installed: pip install 'nextsession[serve]'.")
        return
    places = fit_two(experiment, counting, out / "served")
    remark(
        f"Both answer on a page now: {' beside '.join(place.name for place in places)}. Click, and watch them change."
    )
    to_stderr()
    run(
        ServeSettings(
            artifacts={place.name: str(place) for place in places},
            weights={place.name: 1.0 for place in places},
            state=str(out / "state"),
            port=port,
        ),
        remark,
    )
