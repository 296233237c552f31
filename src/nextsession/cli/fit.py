"""`nextsession fit`: learn a model and keep it."""

import time
from json import dumps
from pathlib import Path
from typing import Annotated, Literal

import typer

from nextsession.cli.request import Data, ExperimentFile, agree, open_split, read_experiment
from nextsession.cli.terminal import DryRun, Json, Overrides, bars, examples, remark, show, show_json
from nextsession.cli.together import together

EXAMPLES = examples(
    "nextsession fit recipes/start.toml --set data.path=clicks.parquet",
    "nextsession fit --data ml-latest-small --model markov --set model.order=2 --out runs/markov",
    "nextsession fit --data ml-latest-small --model sasrec --checkpoints runs/checkpoints  # go on the same way",
    "nextsession fit recipes/start.toml --model sasrec --device cuda --set model.batch_tokens=50000",
)


def fit(
    experiment: ExperimentFile = None,
    data: Data = None,
    model: Annotated[str | None, typer.Option("--model", help="The model, in place of the file's.")] = None,
    overrides: Overrides = None,
    device: Annotated[
        str | None, typer.Option("--device", metavar="auto|cpu|cuda", help="Where a network is trained.")
    ] = None,
    checkpoints: Annotated[
        str | None,
        typer.Option(
            "--checkpoints",
            metavar="FOLDER",
            help="Keep training and its curve here; go on with what is there.",
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", help="Where the model goes; runs/<model> if not given.")] = None,
    everything: Annotated[
        bool, typer.Option("--everything", help="Learn from the whole log, test period too: to serve, not to measure.")
    ] = False,
    dry_run: DryRun = False,
    json: Json = False,
) -> None:
    """Learn a model from the training part of a log; keep it with its resolved experiment.

    Started by `torchrun`, the processes train a network together, and the first writes it.
    """
    from nextsession.data.cases import Blocks
    from nextsession.registry import model_class
    from nextsession.runs import check_place, save_run
    from nextsession.sources import open_source

    if model is not None and overrides:
        overrides = [f"models.{model}.{x.removeprefix('model.')}" if x.startswith("model.") else x for x in overrides]
    given = {"device": device, "checkpoints": checkpoints}
    overrides = [*(overrides or ()), *(f"runtime.{name}={dumps(x)}" for name, x in given.items() if x is not None)]
    wanted = read_experiment(experiment, data, [model] if model else [], overrides)
    choice = wanted.model
    place = out or Path("runs") / choice.name
    check_place(place)
    if dry_run:
        show_json({**wanted.tables(), "out": str(place)}) if json else show(f"# would write {place}\n{wanted.toml()}")
        return
    started = time.process_time()
    processes = together(wanted.runtime)
    with bars() as progress:
        if not processes.first:
            processes.wait()  # the first may have to prepare the log
        if everything:
            log, validation = open_source(wanted, agree=agree, progress=progress).log, None
        else:
            _, parts = open_split(wanted, progress)
            log, validation = parts.train, parts.validation
        if processes.first:
            processes.wait()
        remark(
            f"{choice.name} learns from {log.n_events:,} events in {log.n_sessions:,} sessions of {len(log):,} users"
        )
        made = model_class(choice.name)(choice.settings)
        begun = time.process_time()
        cases = Blocks(validation) if validation else ()
        made.fit(log, validation=cases, runtime=wanted.runtime, progress=progress)
        spent = time.process_time() - begun
        if not processes.first:
            return
        learnt_from: Literal["train", "everything"] = "everything" if everything else "train"
        save_run(place, made, wanted, learnt_from, log=log)
    facts = {
        "artifact": str(place),
        "model": choice.name,
        "settings": choice.table(),
        "learnt_from": "everything" if everything else "train",
        "users": len(log),
        "sessions": log.n_sessions,
        "events": log.n_events,
        "items": log.n_items,
        "fit_cpu_s": spent,
        "cpu_s": time.process_time() - started,
    }
    if json:
        show_json(facts)
    else:
        show(f"{choice.name}: {log.n_events:,} events, {log.n_items:,} items, {spent:.1f} CPU-s -> {place}")
