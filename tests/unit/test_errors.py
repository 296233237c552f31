"""The tree of errors: each is also a built-in kind, and drawn in the module's docstring."""

import inspect

import pytest

from nextsession import errors

TREE = {
    "DataError": ValueError,
    "ConfigError": ValueError,
    "UnknownNameError": LookupError,
    "NotFittedError": RuntimeError,
    "ModelError": RuntimeError,
    "TrainingError": RuntimeError,
    "ArtifactError": RuntimeError,
    "StoreError": OSError,
}


@pytest.mark.parametrize(("name", "builtin"), TREE.items())
def test_each_error_is_ours_and_a_built_in_kind(name, builtin):
    error = getattr(errors, name)
    assert issubclass(error, errors.NextSessionError)
    assert issubclass(error, builtin)
    assert f"{name} ({builtin.__name__})" in (errors.__doc__ or "")


def test_the_tree_is_complete():
    classes = {n for n, c in vars(errors).items() if inspect.isclass(c) and issubclass(c, errors.NextSessionError)}
    assert classes == {"NextSessionError", *TREE}


def test_suggestions():
    assert errors.suggestion("marcov", ["popular", "markov"]) == " Did you mean 'markov'?"
    assert errors.suggestion("vsnkk", ["sknn", "vsknn", "vstan"]) == " Did you mean 'vsknn'?"
    assert errors.suggestion("x", []) == ""
