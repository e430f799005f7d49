"""Messages are one line that says where, what and how to mend it."""

from __future__ import annotations

import copy
import pickle

import pytest

from sharedgrad import errors


def classes() -> list[type[errors.SharedgradError]]:
    return [c for c in vars(errors).values() if isinstance(c, type) and issubclass(c, errors.SharedgradError)]


@pytest.mark.parametrize("kind", classes())
def test_every_error_says_where_what_and_how(kind: type[errors.SharedgradError]) -> None:
    error = kind("layer 'conv'", "expected 3 channels, got 1", "set in_channels=1")
    assert str(error) == "layer 'conv': expected 3 channels, got 1; set in_channels=1"
    assert (error.where, error.problem, error.fix) == (
        "layer 'conv'", "expected 3 channels, got 1", "set in_channels=1"
    )  # fmt: skip
    assert str(kind("conv", "is wrong")) == "conv: is wrong"
    assert str(kind("", "is wrong", "mend it")) == "is wrong; mend it"


@pytest.mark.parametrize("kind", classes())
def test_every_error_survives_a_process_boundary(kind: type[errors.SharedgradError]) -> None:
    error = kind("a", "b", "c")
    for copied in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert type(copied) is kind
        assert (str(copied), copied.where, copied.fix) == ("a: b; c", "a", "c")


@pytest.mark.parametrize("kind", classes())
def test_every_error_is_documented(kind: type[errors.SharedgradError]) -> None:
    assert kind.__doc__


@pytest.mark.parametrize(
    ("kind", "builtin"),
    [
        (errors.ShapeError, ValueError),
        (errors.ConfigError, ValueError),
        (errors.DataError, ValueError),
        (errors.OutputError, OSError),
        (errors.StaleTapeError, RuntimeError),
        (errors.DivergedError, ArithmeticError),
        (errors.MissingDependencyError, ImportError),
    ],
)
def test_errors_are_caught_as_what_python_would_raise(kind: type[errors.SharedgradError], builtin: type) -> None:
    assert issubclass(kind, builtin)


def test_an_optional_library_that_is_there_is_returned() -> None:
    assert errors.require("json.decoder", "reading").JSONDecoder


def test_an_optional_library_that_is_missing_is_named_with_the_way_to_get_it() -> None:
    with pytest.raises(errors.MissingDependencyError) as caught:
        errors.require("no_such_library.part", "reading images")
    assert str(caught.value) == (
        "reading images: needs no_such_library, which is not installed; pip install 'sharedgrad[cli]'"
    )


@pytest.mark.parametrize(("module", "package"), [("PIL.NoSuchPart", "pillow"), ("sklearn.no_such", "scikit-learn")])
def test_a_library_is_named_as_it_is_installed(module: str, package: str) -> None:
    with pytest.raises(errors.MissingDependencyError, match=f"needs {package}, which"):
        errors.require(module, "this")
