"""Fair timing: contestants take turns, a short call is repeated within a turn, medians and quartiles count."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from statistics import median, quantiles
from time import perf_counter
from timeit import repeat, timeit
from typing import NamedTuple, Protocol, TypeVar, runtime_checkable

from benchmarks.bystanders import Bystanders

Call = Callable[[], object]
Name = TypeVar("Name", bound=Hashable)

TURN = 0.05  # seconds that a turn lasts at least
SETTLE = 0.03  # seconds of calls before it that are not timed; OpenMP's threads spin for some 12 ms after their work
LOUD = 0.1  # of the processors' time: if others take more, they spoil a round; they can slow OpenMP down fiftyfold
TRIES = 3  # times as many rounds as are wanted, at most, while others are loud
INSTALL = "not installed: pip install 'sharedgrad[bench]'"


class Turn(NamedTuple):
    """Milliseconds a call, and seconds of processor time that it took outside of this process."""

    milliseconds: float
    processor: float = 0.0


@runtime_checkable
class Elsewhere(Protocol):
    """A call that another process carries out and times itself."""

    def __call__(self) -> object: ...
    def calls_a_turn(self) -> int: ...
    def turn(self, calls: int) -> Turn: ...


@dataclass(frozen=True)
class Spread:
    """Measurements of one thing: what each run gave.

    Attributes:
        runs: The figures.
        others: The largest part of the processors' time, from 0 to 1, that others took in a run.
    """

    runs: tuple[float, ...]
    others: float = 0.0

    @property
    def median(self) -> float:
        return median(self.runs)

    @property
    def quartiles(self) -> tuple[float, float]:
        """The lower and the upper quartile."""
        if len(self.runs) == 1:
            return self.runs[0], self.runs[0]
        low, _, high = quantiles(self.runs, n=4, method="inclusive")
        return low, high

    @property
    def loud(self) -> bool:
        """Whether others spoilt it."""
        return self.others > LOUD


def alternating(calls: Mapping[Name, Call], repeats: int) -> dict[Name, Spread]:
    """Milliseconds of each call, one run in each of ``repeats`` rounds.

    Every round begins with another contestant, so that none always follows the same one. A turn begins with calls
    that are not timed: the threads that the one before left spinning go to sleep, and the caches fill. A round in which
    other processes were loud is measured again, for all contestants; the quietest rounds count. As ever in ``timeit``,
    Python's collector of cycles rests meanwhile.
    """
    turns = {name: calls_a_turn(call) for name, call in calls.items()}
    rounds: list[tuple[float, dict[Name, float]]] = []
    while len(rounds) < TRIES * repeats and sum(others <= LOUD for others, _ in rounds) < repeats:
        rounds.append(_round(calls, turns, first=len(rounds) % len(calls)))
    quietest = sorted(rounds, key=lambda one: one[0] > LOUD and one[0])[:repeats]
    loudest = quietest[-1][0]
    return {name: Spread(tuple(runs[name] for _, runs in quietest), loudest) for name in calls}


def _round(calls: Mapping[Name, Call], turns: Mapping[Name, int], first: int) -> tuple[float, dict[Name, float]]:
    """What others took, and each call's milliseconds."""
    names, bystanders = list(calls), Bystanders()
    runs: dict[Name, float] = {}
    elsewhere = 0.0
    for name in names[first:] + names[:first]:
        runs[name], processor = turn(calls[name], turns[name])
        elsewhere += processor
    return bystanders.share(elsewhere), runs


def turn(call: Call, calls: int) -> Turn:
    """Some calls that are not timed, then so many that are."""
    if isinstance(call, Elsewhere):
        return call.turn(calls)
    _settle(call)
    return Turn(timeit(call, number=calls) / calls * 1e3)


def _settle(call: Call) -> None:
    until = perf_counter() + SETTLE
    call()
    while perf_counter() < until:
        call()


def calls_a_turn(call: Call) -> int:
    """So many that a turn lasts long enough."""
    if isinstance(call, Elsewhere):
        return call.calls_a_turn()
    call()
    return max(1, round(TURN / min(repeat(call, number=1, repeat=3))))


def ready(makers: Mapping[Name, Callable[[], Call]]) -> tuple[dict[Name, Call], dict[Name, str]]:
    """Every rival's call, made and run once; and for each that failed, why: a row then says so, and the rest goes on.

    A rival may fail in any way that its library likes, so every exception counts.
    """
    calls: dict[Name, Call] = {}
    failures: dict[Name, str] = {}
    for name, make in makers.items():
        try:
            call = make()
            call()
            calls[name] = call
        except ModuleNotFoundError:
            failures[name] = INSTALL
        except Exception as error:
            failures[name] = f"failed: {reason(error)}"
    return calls, failures


def reason(error: Exception) -> str:
    """What went wrong, for a cell of a table."""
    said = str(error) if isinstance(error, RuntimeError) else f"{type(error).__name__}: {error}"
    return " ".join(said.split())[:120].replace("|", "/")
