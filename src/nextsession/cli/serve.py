"""`nextsession serve`: models behind HTTP, with a store of events and a page."""

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, get_args

import typer

from nextsession.cli.terminal import DryRun, examples, remark, show_json
from nextsession.errors import ConfigError, ModelError
from nextsession.files import hash_ahead

if TYPE_CHECKING:
    from nextsession.index.kept import Kind
    from nextsession.serving.arms import Role
    from nextsession.serving.process import ServeSettings

EXAMPLES = examples(
    "nextsession serve runs/vmisknn",
    "nextsession serve runs/vmisknn runs/gru4rec  # two arms: half of the visitors each, side by side on the page",
    "nextsession serve main=runs/vmisknn:9 new=runs/sasrec:1 --state /var/lib/shop --workers 2",
    "nextsession serve main=runs/vmisknn --state redis://store.internal:6379/0  # the same on each machine",
    "nextsession serve runs/vmisknn --host 0.0.0.0 --keys keys.toml --origin https://shop.example",
    "nextsession serve runs/sasrec --fallback runs/vsknn  # fills the lists that the first leaves short",
    "nextsession serve runs/vmisknn --shadow runs/sasrec  # asked too, seen by nobody",
    "nextsession serve runs/sasrec --explore 0.05  # one place in twenty goes to items of which little is known",
    "nextsession serve runs/sasrec --index ivf  # built in the background, taken into use when it keeps its promise",
    "nextsession serve runs/vmisknn --learn 5m  # told every five minutes what happened; 'never' for no model",
    "nextsession serve runs/vmisknn --dry-run",
)

_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
"""How many threads share a product of vectors, as libraries read it when they are imported.

Products of one request are small, and threads that wait for the next one spin on the core that other requests need.
"""


def serve(
    artifacts: Annotated[
        list[str], typer.Argument(metavar="ARTIFACT...", help="Models that `fit` wrote; \\[ARM=]FOLDER\\[:WEIGHT].")
    ],
    fallback: Annotated[
        str | None,
        typer.Option(
            "--fallback", metavar="\\[ARM=]FOLDER", help="A model that fills lists which the others leave short."
        ),
    ] = None,
    shadow: Annotated[
        list[str] | None,
        typer.Option(
            "--shadow", metavar="\\[ARM=]FOLDER", help="A model that is asked too, and seen by nobody; repeat."
        ),
    ] = None,
    index: Annotated[
        str | None,
        typer.Option(
            "--index", metavar="ivf|pq|hnsw|exact", help="Build such an index for models without, while serving."
        ),
    ] = None,
    explore: Annotated[
        float,
        typer.Option(
            "--explore", min=0.0, max=1.0, help="Probability that a place, not the first, is given to a cold item."
        ),
    ] = 0.0,
    host: Annotated[str, typer.Option("--host", help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="The port; 0 chooses one.")] = 8000,
    workers: Annotated[int, typer.Option("--workers", min=1, max=64, help="Processes that answer.")] = 1,
    state: Annotated[
        str,
        typer.Option(
            "--state",
            envvar="NEXTSESSION_STATE",
            help="The folder of the events, or a Redis as redis://host:6379/0; 'memory' forgets.",
        ),
    ] = "runs/state",
    items: Annotated[
        str | None, typer.Option("--items", help="Titles: a prepared log, or a table with the columns id and title.")
    ] = None,
    history: Annotated[
        str | None, typer.Option("--history", help="A prepared log of what visitors did before.")
    ] = None,
    history_after: Annotated[
        int | None, typer.Option("--history-after", min=0, help="The place up to which `export` had written it.")
    ] = None,
    learn: Annotated[
        str | None,
        typer.Option(
            "--learn",
            metavar="EVERY|never",
            help="How often models are told what happened, as 30s; if not given, each minute, and those alone whose "
            "answers depend on the instant.",
        ),
    ] = None,
    models: Annotated[
        list[str] | None, typer.Option("--models", help="A folder to load artifacts from later; repeat.")
    ] = None,
    keys: Annotated[
        Path | None, typer.Option("--keys", help="A TOML file of keys; needed beyond this machine.")
    ] = None,
    origin: Annotated[
        list[str] | None, typer.Option("--origin", help="A site whose pages may ask, as https://shop.example; repeat.")
    ] = None,
    host_name: Annotated[
        list[str] | None, typer.Option("--host-name", help="A name the server is addressed by; repeat.")
    ] = None,
    rate: Annotated[
        float | None, typer.Option("--rate", min=0.001, help="Requests a second of each key or address.")
    ] = None,
    gap: Annotated[
        str | None, typer.Option("--gap", help="The silence that ends a session; as in training if not given.")
    ] = None,
    ttl: Annotated[str, typer.Option("--ttl", help="A visitor silent for longer is unknown.")] = "30d",
    keep: Annotated[
        int, typer.Option("--keep", min=1, max=10_000, help="Latest events of a visitor that count.")
    ] = 200,
    retention: Annotated[
        str | None, typer.Option("--retention", help="How long events stay in the log; for ever if not given.")
    ] = None,
    largest_body: Annotated[int, typer.Option("--largest-body", min=1000, help="Bytes of a request.")] = 1_000_000,
    access_log: Annotated[bool, typer.Option("--access-log", help="A line for every request.")] = False,
    dry_run: DryRun = False,
) -> None:
    """Serve models: events in, recommendations out, a page at the root.

    An event is acknowledged when it is durable: on the disk, or in a Redis that several machines share.
    Several artifacts are arms of a comparison: each visitor gets one of them, always the same.
    """
    for name in _THREADS:
        os.environ.setdefault(name, "1")
    texts = [*artifacts, *(shadow or ()), *([] if fallback is None else [fallback])]
    hashing = hash_ahead([Path(arm_of(text)[1]) for text in texts])  # on another core, while this one imports
    settings = _settings(
        artifacts, fallback=fallback, shadow=shadow, explore=explore, index=index, host=host, port=port,
        workers=workers, state=state, items=items, history=history, history_after=history_after, learn=learn,
        models=models, keys=keys, origin=origin, host_name=host_name, rate=rate, gap=gap, ttl=ttl, keep=keep,
        retention=retention, largest_body=largest_body, access_log=access_log,
    )  # fmt: skip
    from nextsession.serving.logs import to_stderr
    from nextsession.serving.opening import without_secret
    from nextsession.serving.process import build, check, described, run

    check(settings)
    if workers > 1:
        hashing.join()  # the first process hands on what it knows, but no threads
    if dry_run:
        import msgspec

        server = build(msgspec.structs.replace(settings, state=None, workers=1), clock=lambda: 0)
        shown = msgspec.structs.replace(settings, state=settings.state and without_secret(settings.state))
        show_json({**described(server), "settings": msgspec.to_builtins(shown)})
        server.engine.close()
        return
    to_stderr()
    run(settings, remark)


def _settings(
    artifacts: list[str],
    *,
    fallback: str | None,
    shadow: list[str] | None,
    explore: float,
    index: str | None,
    host: str,
    port: int,
    workers: int,
    state: str,
    items: str | None,
    history: str | None,
    history_after: int | None,
    learn: str | None,
    models: list[str] | None,
    keys: Path | None,
    origin: list[str] | None,
    host_name: list[str] | None,
    rate: float | None,
    gap: str | None,
    ttl: str,
    keep: int,
    retention: str | None,
    largest_body: int,
    access_log: bool,
) -> "ServeSettings":
    try:
        from nextsession.serving.process import ServeSettings
        from nextsession.serving.server import ServerSettings
    except ModuleNotFoundError as error:
        raise ModelError(
            f"The server needs {error.name}, which is not installed: pip install 'nextsession[serve]'."
        ) from None

    named: list[tuple[str, str, float, Role]] = [(*arm_of(text), "answer") for text in artifacts]
    if fallback is not None:
        text = fallback if "=" in fallback else f"fallback={fallback}"
        named.append((*_idle("--fallback", text), "fallback"))
    named += [(*_idle("--shadow", text), "shadow") for text in shadow or ()]
    names = [name for name, *_ in named]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"Two artifacts would be the arm {name!r}; name them, as in old=runs/a new=runs/b.")
    return ServeSettings(
        artifacts={name: place for name, place, _, _ in named},
        weights={name: weight for name, _, weight, _ in named},
        roles={name: role for name, _, _, role in named},
        state=None if state == "memory" else state,
        host=host,
        port=port,
        workers=workers,
        gap=None if gap is None else _duration("--gap", gap),
        ttl=_duration("--ttl", ttl),
        keep=keep,
        items=items,
        history=history,
        history_after=history_after,
        learn=None if learn is None else _every(learn),
        models=tuple(models or ()),
        keys=None if keys is None else str(keys),
        explore=explore,
        index=None if index is None else _kind(index),
        server=ServerSettings(
            largest_body=largest_body,
            rate=rate,
            origins=tuple(origin or ()),
            hosts=tuple(host_name) if host_name else None,
            retention=None if retention is None else _duration("--retention", retention),
            access_log=access_log,
        ),
    )


def arm_of(text: str) -> tuple[str, str, float]:
    """Read `[ARM=]FOLDER[:WEIGHT]`.

    >>> arm_of("runs/sasrec"), arm_of("new=runs/sasrec:0.1")
    (('sasrec', 'runs/sasrec', 1.0), ('new', 'runs/sasrec', 0.1))
    """
    name, given, place = text.partition("=") if "=" in text else ("", "", text)
    folder, colon, number = place.rpartition(":")
    weight = 1.0
    if colon and number and set(number) <= set("0123456789."):
        try:
            place, weight = folder, float(number)
        except ValueError:
            raise ConfigError(f"A weight must be a number from 0, got {number!r} in {text!r}.") from None
    name = name if given else Path(place).resolve().name
    if not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", name):
        raise ConfigError(f"An arm needs a name of letters, digits, - and _, got {name!r} in {text!r}.")
    return name, place, weight


def _idle(flag: str, text: str) -> tuple[str, str, float]:
    """Read `[ARM=]FOLDER` of an arm that answers no visitor of its own."""
    found, place, weight = arm_of(text)
    if weight != 1.0:
        raise ConfigError(f"{flag} takes no weight, got {text!r}: it answers no visitors of its own.")
    return found, place, 0.0


def _kind(text: str) -> "Kind":
    from nextsession.index.kept import Kind

    if text not in get_args(Kind):
        raise ConfigError(f"--index must be one of {', '.join(get_args(Kind))}, got {text!r}.")
    found: Kind = text  # type: ignore[assignment]
    return found


def _every(text: str) -> int:
    """Read how often models learn on: a duration from a second, or `never`.

    >>> _every("30s"), _every("never")
    (30000, 0)
    """
    every = 0 if text == "never" else _duration("--learn", text)
    if text != "never" and every < 1000:
        raise ConfigError(f"--learn must be at least a second, or never; got {text!r}.")
    return every


def _duration(flag: str, text: str) -> int:
    from nextsession.config import milliseconds

    try:
        return milliseconds(int(text) if text.isdecimal() else text)
    except ValueError as error:
        raise ConfigError(f"{flag} {error}.") from None
