"""Train a network: the loop, its record, its checkpoints, and what it shows at the end."""

from sharedgrad.training.callbacks import Callback
from sharedgrad.training.evaluate import Evaluation, evaluate
from sharedgrad.training.history import Epoch, History
from sharedgrad.training.loop import fit
from sharedgrad.training.run import Run, load_run, save_run
from sharedgrad.training.state import State
from sharedgrad.training.step import Step

__all__ = [
    "Callback",
    "Epoch",
    "Evaluation",
    "History",
    "Run",
    "State",
    "Step",
    "evaluate",
    "fit",
    "load_run",
    "save_run",
]
