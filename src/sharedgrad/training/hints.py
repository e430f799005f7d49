"""What arguments of other libraries' training functions are called here."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

from sharedgrad.configuration import close
from sharedgrad.errors import ConfigError

P = ParamSpec("P")
R = TypeVar("R")

_OPTIMIZER = "give it to the optimizer: optimizer=sg.SGD(net.parameters(), lr=0.1)"
_PAIR = "pass images and labels as a pair: sg.fit(net, (x, y))"
_WEIGHTS = "weigh the classes in the loss: loss=sg.CrossEntropy(weight=[…])"
_WATCHED = "validation=(x, y), or the third argument: sg.fit(net, train, held_out)"
_HERE: dict[str, str] = {
    "validation_split": "split before: train, held_out = data.split(0.2), then sg.fit(net, train, held_out)",
    **dict.fromkeys(("validation_data", "val_data", "valid", "val", "eval_set"), _WATCHED),
    **dict.fromkeys(("class_weight", "class_weights"), _WEIGHTS),
    **dict.fromkeys(("lr", "learning_rate", "momentum", "weight_decay", "wd", "max_lr"), _OPTIMIZER),
    **dict.fromkeys(("x", "y", "X", "images", "labels", "data"), _PAIR),
    **dict.fromkeys(("early_stopping", "early_stop"), 'patience=3, keep="best"'),
    **dict.fromkeys(("clip_norm", "clipnorm", "gradient_clip_val", "clip_grad_norm"), "max_norm=1.0"),
    **dict.fromkeys(("accumulate_grad_batches", "gradient_accumulation_steps"), "accumulate=4"),
    **dict.fromkeys(("verbose", "progress_bar"), "progress=True or False"),
    **dict.fromkeys(("max_epochs", "n_epochs", "num_epochs", "n_epoch"), "epochs=10"),
    **dict.fromkeys(("bs", "batch"), "batch_size=64"),
    **dict.fromkeys(("criterion", "loss_fn", "loss_func"), "loss=sg.CrossEntropy()"),
    **dict.fromkeys(("optim", "opt", "opt_func"), "optimizer=sg.Adam(net.parameters(), lr=0.001)"),
    **dict.fromkeys(("callback", "cbs"), "callbacks=[…]"),
    **dict.fromkeys(("scheduler", "lr_scheduler"), 'schedule="one-cycle"'),
    "shuffle": "batches are shuffled in every epoch, by seed; an iterable of batches keeps its own order",
    "metrics": "loss and accuracy are always measured; sg.evaluate gives the predictions for others",
    "device": "it trains on the processor; sg.set_threads(n) sets how many threads",
    "initial_epoch": "out=FOLDER, resume=True goes on with a run",
    "restore_best_weights": 'keep="best"',
}


def only_known(function: Callable[P, R]) -> Callable[P, R]:
    """The same function, which answers an unknown argument with what it is called here.

    Raises:
        ConfigError: There is no such argument.
    """
    known = inspect.signature(function).parameters

    @wraps(function)
    def called(*args: P.args, **kwargs: P.kwargs) -> R:
        for name in kwargs:
            if name not in known:
                guess = "" if name in _HERE else close({name}, known)
                raise ConfigError(function.__name__, f"there is no argument {name!r}{guess}", _HERE.get(name, ""))
        return function(*args, **kwargs)

    return called
