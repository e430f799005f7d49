"""Train a network: the loop, its record, its checkpoints, and what it shows at the end."""

from .callbacks import Callback
from .evaluate import Evaluation, evaluate
from .history import Epoch, History, Step
from .loop import fit
from .run import Run, load_run, save_run
from .state import State

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
