"""`nextsession recommend`: histories in, lists out, one JSON object a line."""

import itertools
import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TextIO, cast, get_args

import typer

from nextsession.cli.terminal import examples, show_json
from nextsession.errors import DataError, suggestion

if TYPE_CHECKING:
    from nextsession.recommender import Exclude, Recommender

EXAMPLES = examples(
    """echo '{"items": [2959, 296]}' | nextsession recommend runs/markov -k 5""",
    "nextsession recommend runs/stan histories.jsonl > lists.jsonl",
)

_FIELDS = ("items", "sessions", "times", "asked_at", "exclude", "user")


def recommend(
    artifact: Annotated[Path, typer.Argument(metavar="ARTIFACT", help="A model that `fit` wrote.")],
    histories: Annotated[Path, typer.Argument(metavar="HISTORIES", help="JSON lines; - reads stdin.")] = Path("-"),
    k: Annotated[int, typer.Option("-k", min=1, help="Length of each list.")] = 20,
    batch: Annotated[int, typer.Option("--batch", min=1, help="Lines answered together; 1 answers at once.")] = 256,
) -> None:
    """Read histories as JSON lines and write a list for each.

    A line is {"items": [...]} for one session, or {"sessions": [[...], [...]]}; it may have "times"
    (ms, in the same form), "asked_at" (ms), "exclude" ("nothing", "session" or "history") and "user",
    which is written back.  Without times, events are taken to be a second apart, up to the instant
    of the question; that is, unless given, the end of what the model learnt.

    Items that the model does not know are passed over.  A list is shorter than -k, even empty, where
    the model has nothing to say: many say nothing to an empty history.
    """
    from nextsession.registry import load

    model = load(artifact)
    with _opened(histories) as lines:
        asked = (Question.read(line, number, model) for number, line in enumerate(lines, 1) if line.strip())
        for group in _groups(asked, batch):
            _answer(model, group, k)


@dataclass(frozen=True)
class Question:
    """One line."""

    sessions: list[list[Any]]
    times: list[list[int]]
    asked_at: int
    exclude: "Exclude"
    user: Any

    @classmethod
    def read(cls, line: str, number: int, model: "Recommender[Any]") -> "Question":
        """Read a line.

        Raises:
            DataError: It is wrong; the message names the line.
        """
        try:
            return cls._read(json.loads(line), model)
        except json.JSONDecodeError as error:
            raise DataError(f"line {number}: this is no JSON: {error}.") from None
        except ValueError as error:
            raise DataError(f"line {number}: {error}") from None

    @classmethod
    def _read(cls, values: Any, model: "Recommender[Any]") -> "Question":
        from nextsession.recommender import Exclude

        if not isinstance(values, Mapping):
            raise ValueError(f'must be an object such as {{"items": [...]}}, got {values!r}.')
        for name in values:
            if name not in _FIELDS:
                raise ValueError(
                    f"there is no field {name!r}.{suggestion(name, _FIELDS)} Fields: {', '.join(_FIELDS)}."
                )
        if ("items" in values) == ("sessions" in values):
            raise ValueError("give either items (one session) or sessions (a list of them).")
        single = "items" in values
        sessions = [values["items"]] if single else values["sessions"]
        if not isinstance(sessions, list) or not all(isinstance(s, list) for s in sessions):
            raise ValueError(f"sessions must be a list of lists of ids, got {sessions!r}.")
        exclude = values.get("exclude", "nothing")
        if exclude not in get_args(Exclude):
            raise ValueError(f"exclude must be one of {', '.join(get_args(Exclude))}, got {exclude!r}.")
        ids = [[_id(x, model) for x in session] for session in sessions]
        asked_at = values.get("asked_at")
        if asked_at is not None and not _is_instant(asked_at):
            raise ValueError(f"asked_at must be whole milliseconds since 1970, got {asked_at!r}.")
        times = values.get("times")
        if times is None:
            asked_at = model.trained_until_ if asked_at is None else asked_at
            return cls(ids, _seconds_before(asked_at, ids), asked_at, cast("Exclude", exclude), values.get("user"))
        stamps = _times([times] if single else times, ids)
        latest = max((t for session in stamps for t in session), default=model.trained_until_ - 1)
        asked_at = latest + 1 if asked_at is None else asked_at
        if asked_at < latest:
            raise ValueError(f"asked_at must not be before the last event at {latest}, got {asked_at}.")
        return cls(ids, stamps, asked_at, cast("Exclude", exclude), values.get("user"))


def _id(value: object, model: "Recommender[Any]") -> Any:
    """Return an id in the kind of the model's ids, for JSON from elsewhere may quote numbers."""
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise ValueError(f"ids must be strings or whole numbers, got {value!r}.")
    if model.vocabulary_.ids.dtype.kind == "i":
        return value if isinstance(value, int) else int(value) if value.isdecimal() else None
    return str(value)


def _is_instant(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**62


def _seconds_before(instant: int, ids: list[list[Any]]) -> list[list[int]]:
    stamps = itertools.count(instant - 1000 * sum(map(len, ids)), 1000)
    return [[next(stamps) for _ in session] for session in ids]


def _times(times: Any, ids: list[list[Any]]) -> list[list[int]]:
    if not isinstance(times, list) or not all(isinstance(t, list) for t in times):
        raise ValueError(f"times must have the form of the items, got {times!r}.")
    if [len(t) for t in times] != [len(s) for s in ids]:
        raise ValueError("times must have one value an item.")
    before = None
    for stamp in itertools.chain.from_iterable(times):
        if not _is_instant(stamp):
            raise ValueError(f"times must be whole milliseconds since 1970, got {stamp!r}.")
        if before is not None and stamp < before:
            raise ValueError(f"times must not fall, got {stamp} after {before}.")
        before = stamp
    return cast("list[list[int]]", times)


def _groups(questions: Iterable[Question], size: int) -> Iterator[list[Question]]:
    """Give the questions in groups of equal `exclude`, in their order; a bad line ends the last group first."""
    group: list[Question] = []
    try:
        for question in questions:
            if group and question.exclude != group[0].exclude:
                yield group
                group = []
            group.append(question)
            if len(group) == size:
                yield group
                group = []
    except DataError:
        if group:
            yield group
        raise
    if group:
        yield group


def _answer(model: "Recommender[Any]", questions: list[Question], k: int) -> None:
    from nextsession.data.log import SessionLog

    sessions = [[[x for x in s if x is not None] for s in q.sessions] for q in questions]
    times = [
        [
            [t for x, t in zip(s, stamps, strict=True) if x is not None]
            for s, stamps in zip(q.sessions, q.times, strict=True)
        ]
        for q in questions
    ]
    log = SessionLog.from_lists(sessions, vocabulary=model.vocabulary_, times=times)
    found = model.recommend(log, k, asked_at=[q.asked_at for q in questions], exclude=questions[0].exclude)
    for question, items, scores in zip(questions, found, found.scores, strict=True):
        user = {} if question.user is None else {"user": question.user}
        show_json({**user, "items": items, "scores": scores[: len(items)].tolist()})
    sys.stdout.flush()


@contextmanager
def _opened(path: Path) -> Iterator[TextIO]:
    if str(path) == "-":
        yield sys.stdin
        return
    if not path.is_file():
        raise DataError(f"There is no file {str(path)!r}; histories are JSON lines, - reads stdin.")
    with path.open(encoding="utf-8") as file:
        yield file
