"""The command line: one file a command, nothing heavy imported before a command runs.

Results go to stdout (JSON alone with `--json`); progress and remarks go to stderr.

| exit code | meaning                                                       |
|-----------|---------------------------------------------------------------|
| 0         | done                                                          |
| 1         | a run failed: a model, the disk, a promise that was not kept  |
| 2         | the request was wrong; a short message says how              |
| 130       | interrupted; what is on disk is whole                         |
"""

import os
import signal
import sys
from collections.abc import Sequence
from types import FrameType
from typing import Annotated, NoReturn

import typer

from nextsession.cli import (
    bench,
    check,
    compare,
    compile,
    data,
    demo,
    docs,
    doctor,
    evaluate,
    export,
    fit,
    index,
    models,
    new_model,
    prepare,
    recommend,
    replay,
    serve,
    study,
)
from nextsession.cli.terminal import be_quiet, complain, unwrapped
from nextsession.errors import ModelError, NextSessionError, TrainingError

_ANYWHERE = ("--quiet", "--traceback")

app = typer.Typer(
    name="nextsession",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)
data.app.command("prepare", epilog=prepare.EXAMPLES)(prepare.prepare)
app.command("demo", epilog=demo.EXAMPLES)(demo.demo)
app.add_typer(data.app, name="data")
app.command("fit", epilog=fit.EXAMPLES)(fit.fit)
app.command("evaluate", epilog=evaluate.EXAMPLES)(evaluate.evaluate)
app.command("compare", epilog=compare.EXAMPLES)(compare.compare)
app.command("recommend", epilog=recommend.EXAMPLES)(recommend.recommend)
app.command("index", epilog=index.EXAMPLES)(index.index)
app.command("compile", epilog=compile.EXAMPLES)(compile.compile_network)
app.command("serve", epilog=serve.EXAMPLES)(serve.serve)
app.command("replay", epilog=replay.EXAMPLES)(replay.replay)
app.command("export", epilog=export.EXAMPLES)(export.export)
app.command("models", epilog=models.EXAMPLES)(models.models)
app.command("check", epilog=check.EXAMPLES)(check.check)
app.command("new-model", epilog=new_model.EXAMPLES)(new_model.new_model)
app.command("bench", epilog=bench.EXAMPLES)(bench.bench)
app.command("study", epilog=study.EXAMPLES)(study.study)
app.command("doctor", epilog=doctor.EXAMPLES)(doctor.doctor)
app.command("docs", epilog=docs.EXAMPLES)(docs.docs)
for _command in (*app.registered_commands, *data.app.registered_commands):
    _command.help = unwrapped(_command.callback.__doc__)


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"nextsession {version('nextsession')}")
        raise typer.Exit


@app.callback(epilog="Start with [bold]nextsession demo[/bold]; every command has its own --help with examples.")
def nextsession(
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress and no remarks; anywhere on the line.")] = False,
    traceback: Annotated[
        bool, typer.Option("--traceback", help="Show where an error arose; anywhere on the line.")
    ] = False,
    version: Annotated[
        bool, typer.Option("--version", help="Show the version.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    """From a raw click log to session recommendations: data, models, honest evaluation."""
    be_quiet(quiet)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit with the code of the table above.

    Args:
        arguments: In place of those of the process.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    end = given.index("--") if "--" in given else len(given)
    first = [x for x in given[:end] if x in _ANYWHERE]
    rest = [x for x in given[:end] if x not in _ANYWHERE] + given[end:]
    if arguments is None:
        signal.signal(signal.SIGTERM, _terminated)
    try:
        try:
            app(args=[*first, *rest], prog_name="nextsession")
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
    except (NextSessionError, OSError) as error:
        if "--traceback" in first:
            raise
        complain(error)
        sys.exit(1 if isinstance(error, ModelError | TrainingError | OSError) else 2)
    sys.exit(0)


def _terminated(number: int, frame: FrameType | None) -> NoReturn:
    """Leave as an interrupt does, so that nothing half-written stays behind."""
    sys.exit(128 + number)
