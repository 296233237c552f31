"""Everything nextsession raises on purpose.

```
NextSessionError
├── DataError (ValueError)            a log, file or data set is not what it must be
├── ConfigError (ValueError)          a setting, flag or experiment file is wrong
├── UnknownNameError (LookupError)    no model, data set or metric of that name
├── NotFittedError (RuntimeError)     a model was asked before it learnt
├── ModelError (RuntimeError)         a model broke its contract (NaN scores, wrong shapes)
├── TrainingError (RuntimeError)      learning cannot go on: the loss is not a number, memory does not suffice
├── ArtifactError (RuntimeError)      a saved model or prepared log is damaged, missing or too new
└── StoreError (OSError)              the events of a server cannot be read or written
```

Each is also a built-in kind, so `except ValueError` works.  Messages say what must hold, what was
found, and what to do, in one or two sentences.
"""

import difflib
from collections.abc import Iterable


class NextSessionError(Exception):
    """The root of all errors raised on purpose."""


class DataError(NextSessionError, ValueError):
    """A log, file or data set is not what it must be."""


class ConfigError(NextSessionError, ValueError):
    """A setting, flag or experiment file is wrong."""


class UnknownNameError(NextSessionError, LookupError):
    """There is no model, data set, metric or protocol of that name."""


class NotFittedError(NextSessionError, RuntimeError):
    """A model was asked before it learnt anything."""


class ModelError(NextSessionError, RuntimeError):
    """A model broke its contract: NaN scores, arrays of the wrong shape."""


class TrainingError(NextSessionError, RuntimeError):
    """Learning cannot go on: the loss is not a number, memory does not suffice."""


class ArtifactError(NextSessionError, RuntimeError):
    """A saved model or prepared log is damaged, missing or written by a newer version."""


class StoreError(NextSessionError, OSError):
    """The events of a server cannot be read or written."""


def suggestion(name: str, known: Iterable[str]) -> str:
    """Return ` Did you mean 'x'?` for the closest known name, or nothing.

    >>> suggestion("sasrek", ["sasrec", "markov"])
    " Did you mean 'sasrec'?"
    >>> suggestion("vsnk", ["sknn", "vsknn", "vstan"])  # letters that changed places
    " Did you mean 'vsknn'?"
    >>> suggestion("zzz", ["sasrec", "markov"])
    ''
    """
    close = difflib.get_close_matches(name, list(known), n=3)
    best = max(close, key=lambda x: difflib.SequenceMatcher(None, sorted(name), sorted(x)).ratio(), default=None)
    return "" if best is None else f" Did you mean {best!r}?"
