"""The training loop: forward, loss, backward, clip, step."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from itertools import pairwise
from math import isfinite
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from sharedgrad.data.batching import Augment, Normalize
from sharedgrad.errors import ConfigError, DataError, SharedgradError
from sharedgrad.losses import CrossEntropy, Loss, measured
from sharedgrad.network import Network
from sharedgrad.optimizers import Adam, Optimizer, Schedule
from sharedgrad.parameter import Array
from sharedgrad.stepping import CompiledStep, compile_step
from sharedgrad.training.arguments import Arguments
from sharedgrad.training.best import Best, stalled
from sharedgrad.training.callbacks import Callback
from sharedgrad.training.checkpoint import Checkpoint
from sharedgrad.training.claim import claimed
from sharedgrad.training.evaluate import measure
from sharedgrad.training.hints import only_known
from sharedgrad.training.history import Epoch, History
from sharedgrad.training.interrupts import ended_by_sigterm, held
from sharedgrad.training.metrics import Metrics
from sharedgrad.training.progress import Progress, watched
from sharedgrad.training.sources import Inputs, passed, source
from sharedgrad.training.state import State
from sharedgrad.training.step import Part, part_of, take

_EVALUATED = 256  # samples at a time


@only_known
def fit(
    network: Network,
    train: Any,
    validation: Any = None,
    *,
    epochs: int = 10,
    batch_size: int = 64,
    loss: Loss | None = None,
    optimizer: Optimizer | None = None,
    schedule: str | Schedule = "constant",
    augment: Augment | None = None,
    normalize: Normalize | None = None,
    max_norm: float | None = None,
    seed: int = 0,
    out: str | Path | None = None,
    resume: bool = False,
    keep: str = "last",
    patience: int | None = None,
    accumulate: int = 1,
    progress: bool | None = None,
    callbacks: Iterable[Callback] = (),
) -> History:
    """Train a network with one output.

    The same arguments give the same bits, for any number of threads, and however often the run was killed and
    resumed.

    Args:
        network: Trained in place.
        train: A pair: images (N, …) and their classes or targets (N, …), as NumPy arrays or PyTorch tensors; for
            several inputs name -> array in place of the images. Or any iterable of batches with a length, e.g. a list
            of such pairs or a PyTorch DataLoader.
        validation: Likewise; evaluated after every epoch.
        epochs: How often every sample is seen.
        batch_size: Samples per step; 1 is online gradient descent.
        loss: ``loss(y, target) -> (value, upstream)``; CrossEntropy() if None.
        optimizer: Adam(network.parameters()) if None.
        schedule: A name in ``optimizers.SCHEDULES``, or a function from progress (0 to 1) to a factor on the
            optimizer's learning rate; applied at every step.
        augment: ``augment(images, random generator)``, e.g. a ``data.Augmentation``.
        normalize: ``normalize(images)``, e.g. a ``data.Normalization``.
        max_norm: Gradients of a larger norm are scaled down to it.
        seed: Of order and augmentation; the network has its own for weights and dropout.
        out: A folder for checkpoint.safetensors and metrics.csv.
        resume: Go on with the run in ``out``, if there is one. More epochs than it was started with are welcome: it
            trains on, the schedule over all of them.
        keep: "last", or "best" to leave the network with the weights of the epoch of the lowest validation loss (the
            checkpoint in ``out`` holds the last).
        patience: End after so many epochs without a lower validation loss.
        accumulate: Compute a batch in so many parts, one after the other, and add their gradients to one update: the
            memory of a small batch, the step of a large one. A loss that sums says so in ``loss.reduction``.
        progress: Whether to print a line for each epoch; by default on a terminal and in a notebook.
        callbacks: See ``Callback``.

    Returns:
        One row per epoch, and a step of the first one for ``training.report``.

    Raises:
        ConfigError, DataError, ShapeError: An argument makes no sense or does not fit.
        CheckpointError: ``out`` holds a run and ``resume`` is false, or one that does not fit; or another run is
            writing to it.
        OutputError: ``out`` cannot be written.
        DivergedError: The loss or a weight has become NaN or infinite; the last good checkpoint stays.
        KeyboardInterrupt: Ctrl-C or SIGTERM; a checkpoint of this moment is in ``out``.
    """
    if not isinstance(network, Network):
        raise ConfigError("fit", f"expected a Network, got {type(network).__name__}", "make one with Network(layers)")
    listeners = list(callbacks)
    if not all(isinstance(listener, Callback) for listener in listeners):
        raise ConfigError("callbacks", "expected objects of subclasses of Callback", "write class Mine(Callback)")
    if watched(progress):
        listeners.append(Progress())
    optimizer = optimizer or Adam(network.parameters())
    arguments = Arguments(
        network,
        source("train", train, network),
        None if validation is None else source("validation", validation, network),
        epochs,
        batch_size,
        loss or CrossEntropy(),
        optimizer,
        schedule,
        augment,
        normalize,
        max_norm,
        seed,
        keep,
        patience,
        accumulate,
    )
    state = State(network, optimizer, epochs, arguments.batches_per_epoch)
    if resume and out is None:
        raise ConfigError("resume", "needs the folder of the run", "give out=…")
    with nullcontext() if out is None else claimed(out):
        if out is not None:
            checkpoint = Checkpoint(out, arguments.settings())
            checkpoint.begin(state, resume, lambda text: _call("on_message", listeners, text))
            listeners = [checkpoint, *listeners]
        best = Best(network, out) if keep == "best" else None
        if best:
            best.resume(state.history)
        state.stopped = stalled(state.history, patience)
        if not state.finished:
            with warnings.catch_warnings():  # numbers that overflow end in a DivergedError
                warnings.filterwarnings("ignore", ".* encountered in ", RuntimeWarning)
                _train(arguments, state, listeners, best)
        if best:
            best.restore()
    return state.history


def _call(hook: str, listeners: Iterable[Callback], argument: State | str) -> None:
    for callback in listeners:
        getattr(callback, hook)(argument)


def _train(arguments: Arguments, state: State, listeners: list[Callback], best: Best | None) -> None:
    """All epochs that are still to come; the optimizer gets its own learning rate back afterwards."""
    lr = arguments.optimizer.lr
    step = compile_step(
        arguments.network, arguments.loss, arguments.optimizer, max_norm=arguments.max_norm, finite_only=True
    )
    _call("on_start", listeners, state)
    try:
        with ended_by_sigterm():
            while not state.finished:
                _train_epoch(arguments, state, lr, step, listeners, best)
    except KeyboardInterrupt:
        _call("on_interrupt", listeners, state)
        raise
    finally:
        arguments.optimizer.lr = lr
        _call("on_end", listeners, state)


def _train_epoch(
    arguments: Arguments, state: State, lr: float, step: CompiledStep, listeners: list[Callback], best: Best | None
) -> None:
    """The batches of this epoch that are still to come, then its row in the history."""
    clock = perf_counter()
    for x, target in arguments.batches(state.epoch, state.batch):
        with held():
            state.learning_rate = arguments.optimizer.lr = lr * arguments.factor(state.step)
            if arguments.accumulate > 1 or _to_explain(state):
                _step(arguments, state, x, target)
            else:
                value = step(x, target)
                if not isfinite(value):
                    raise _not_finite(state, x, value)
                state.metrics.add(value, step.output, target, arguments.loss)
            state.batch += 1
            state.seconds += perf_counter() - clock
        _call("on_batch", listeners, state)
        if state.stopped and state.batch < state.batches:
            return
        clock = perf_counter()
    arguments.optimizer.lr = lr * arguments.factor(state.step - 1)  # also where no batch was left of a resumed epoch
    row = _row(arguments, state)
    with held():
        state.history.rows.append(row)
        state.epoch, state.batch = state.epoch + 1, 0
        state.metrics, state.seconds = Metrics(), 0.0
        if best:
            best.consider(row)
    _call("on_epoch", listeners, state)
    if stalled(state.history, arguments.patience):
        state.stop()


def _to_explain(state: State) -> bool:
    """Whether this step is the one that ``training.report`` explains."""
    return state.history.step is None and state.step >= state.batches // 2


def _step(arguments: Arguments, state: State, x: Inputs, target: Array) -> None:
    """One update from a batch, line by line: it may be computed in parts, and its tape may be looked into."""
    samples, total = len(target), None
    explain = _to_explain(state)
    parameters, parts = arguments.network.parameters(), list[Part]()
    for part in _slices(samples, arguments.accumulate):
        goal = target[part]
        inputs = {name: values[part] for name, values in x.items()} if isinstance(x, dict) else x[part]
        y, tape = arguments.network.forward(*passed(inputs, arguments.network))
        value, upstream = measured(arguments.loss, y, goal)
        if not isfinite(value):
            raise _not_finite(state, inputs, value)
        gradients = tape.backward(upstream)
        if arguments.accumulate > 1 and getattr(arguments.loss, "reduction", "mean") == "mean":
            share = len(goal) / samples
            gradients, upstream = gradients * share, upstream * share
        if explain:
            parts.append(part_of(parameters, tape.trace(upstream), gradients, parts[0] if parts else None))
        total = gradients if total is None else total + gradients
        state.metrics.add(value, y, goal, arguments.loss)
    assert total is not None  # a batch has at least one sample
    applied = total if arguments.max_norm is None else total.clipped(arguments.max_norm)
    if explain:
        when = state.epoch + 1, state.batch + 1, state.batches
        state.history.step = take(when, parameters, parts, total, applied, arguments.optimizer)
    else:
        arguments.optimizer.step(applied)


def _slices(samples: int, parts: int) -> Iterator[slice]:
    """So many parts of nearly one size, fewer where there are fewer samples."""
    parts = min(parts, samples)
    bounds = [samples * part // parts for part in range(parts + 1)]
    return (slice(first, last) for first, last in pairwise(bounds))


def _not_finite(state: State, inputs: Inputs, value: float) -> SharedgradError:
    """Whose fault a loss of NaN is: the data's, or the learning rate's."""
    arrays = inputs.values() if isinstance(inputs, dict) else [inputs]
    if all(np.isfinite(values).all() for values in arrays):
        return state.diverged(f"the loss has become {value}")
    problem = "the images that reach the network are NaN or infinite"
    return DataError("batch", problem, "check the data, augment and normalize")


def _row(arguments: Arguments, state: State) -> Epoch:
    """What the epoch came to, validation included."""
    state.ensure_finite()
    validation = None
    if arguments.validation is not None:
        batches = arguments.validation.batches(_EVALUATED, 0, 0, None, arguments.normalize, 0, shuffle=False)
        validation = measure(arguments.network, batches, arguments.loss)
        if not isfinite(validation.loss):
            raise state.diverged(f"the validation loss has become {validation.loss}")
    rates = arguments.optimizer.rates
    return Epoch(
        epoch=state.epoch + 1,
        train_loss=state.loss,
        train_accuracy=state.accuracy,
        val_loss=validation.loss if validation else None,
        val_accuracy=validation.accuracy if validation else None,
        learning_rate=rates[0] if len(rates) == 1 else rates,
        images_per_second=state.images_per_second,
    )
