"""The training loop: forward, loss, backward, clip, step."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from contextlib import nullcontext
from math import isfinite
from pathlib import Path
from time import perf_counter

import numpy as np

from sharedgrad.errors import ConfigError, DataError
from sharedgrad.losses import CrossEntropy
from sharedgrad.network import Network
from sharedgrad.optimizers import Adam, Optimizer, Schedule
from sharedgrad.parameter import Array
from sharedgrad.training.arguments import Arguments, Augment, Normalize, Pair
from sharedgrad.training.callbacks import Callback
from sharedgrad.training.checkpoint import Checkpoint
from sharedgrad.training.claim import claimed
from sharedgrad.training.evaluate import Loss, evaluate, measured
from sharedgrad.training.history import Epoch, History
from sharedgrad.training.interrupts import ended_by_sigterm, held
from sharedgrad.training.metrics import Metrics
from sharedgrad.training.state import State
from sharedgrad.training.step import take


def fit(
    network: Network,
    train: Pair,
    validation: Pair | None = None,
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
    callbacks: Iterable[Callback] = (),
) -> History:
    """Train a network with one input and one output.

    The same arguments give the same bits, for any number of threads, and however often the run was killed and
    resumed.

    Args:
        network: Trained in place.
        train: Images (N, …) and their classes or targets (N, …).
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
        resume: Go on with the run in ``out``, if there is one.
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
    optimizer = optimizer or Adam(network.parameters())
    arguments = Arguments(
        network,
        train,
        validation,
        epochs,
        batch_size,
        loss or CrossEntropy(),
        optimizer,
        schedule,
        augment,
        normalize,
        max_norm,
        seed,
    )
    state = State(network, optimizer, epochs, arguments.batches_per_epoch)
    if resume and out is None:
        raise ConfigError("resume", "needs the folder of the run", "give out=…")
    with nullcontext() if out is None else claimed(out):
        if out is not None:
            checkpoint = Checkpoint(out, arguments.settings())
            checkpoint.begin(state, resume, lambda text: _call("on_message", listeners, text))
            listeners = [checkpoint, *listeners]
        if not state.finished:
            with warnings.catch_warnings():  # numbers that overflow end in a DivergedError
                warnings.filterwarnings("ignore", ".* encountered in ", RuntimeWarning)
                _train(arguments, state, listeners)
    return state.history


def _call(hook: str, listeners: Iterable[Callback], argument: State | str) -> None:
    for callback in listeners:
        getattr(callback, hook)(argument)


def _train(arguments: Arguments, state: State, listeners: list[Callback]) -> None:
    """All epochs that are still to come; the optimizer gets its own learning rate back afterwards."""
    lr = arguments.optimizer.lr
    _call("on_start", listeners, state)
    try:
        with ended_by_sigterm():
            while not state.finished:
                _train_epoch(arguments, state, lr, listeners)
    except KeyboardInterrupt:
        _call("on_interrupt", listeners, state)
        raise
    finally:
        arguments.optimizer.lr = lr
        _call("on_end", listeners, state)


def _train_epoch(arguments: Arguments, state: State, lr: float, listeners: list[Callback]) -> None:
    """The batches of this epoch that are still to come, then its row in the history."""
    clock = perf_counter()
    for x, target in arguments.batches(state.epoch, state.batch):
        with held():
            state.learning_rate = arguments.optimizer.lr = lr * arguments.factor(state.step)
            _step(arguments, state, x, target)
            state.batch += 1
            state.seconds += perf_counter() - clock
        _call("on_batch", listeners, state)
        clock = perf_counter()
    row = _row(arguments, state, lr * arguments.factor(state.step - 1))
    with held():
        state.history.rows.append(row)
        state.epoch, state.batch = state.epoch + 1, 0
        state.metrics, state.seconds = Metrics(), 0.0
    _call("on_epoch", listeners, state)


def _step(arguments: Arguments, state: State, x: Array, target: Array) -> None:
    y, tape = arguments.network.forward(x)
    value, upstream = measured(arguments.loss, y, target)
    if not isfinite(value):
        if not np.isfinite(x).all():
            raise DataError(
                "batch", "augmented and normalized images are NaN or infinite", "check augment and normalize"
            )
        raise state.diverged(f"the loss has become {value}")
    gradients = tape.backward(upstream)
    applied = gradients if arguments.max_norm is None else gradients.clipped(arguments.max_norm)
    if state.history.step is None and state.step >= state.batches // 2:
        when = state.epoch + 1, state.batch + 1, state.batches
        parameters, trace = arguments.network.parameters(), tape.trace(upstream)
        state.history.step = take(when, parameters, trace, gradients, applied, arguments.optimizer)
    else:
        arguments.optimizer.step(applied)
    state.metrics.add(value, y, target, arguments.loss)


def _row(arguments: Arguments, state: State, learning_rate: float) -> Epoch:
    """What the epoch came to, validation included."""
    state.ensure_finite()
    validation = None
    if arguments.validation is not None:
        validation = evaluate(arguments.network, *arguments.validation, arguments.loss, arguments.normalize)
        if not isfinite(validation.loss):
            raise state.diverged(f"the validation loss has become {validation.loss}")
    return Epoch(
        epoch=state.epoch + 1,
        train_loss=state.loss,
        train_accuracy=state.accuracy,
        val_loss=validation.loss if validation else None,
        val_accuracy=validation.accuracy if validation else None,
        learning_rate=learning_rate,
        images_per_second=state.images_per_second,
    )
