"""Explain: the whole calculation of a small network, with its actual numbers.

explanation.py  explain(…) and what it returns
whole.py        a calculation from the first layer to the updated weights
forward.py, losses.py, backward.py, windows.py, recurrent.py      its steps
general.py      the general formulas, names.py what arrays are called, cells.py how much is written out
overview.py     networks that are too large to write out
one_weight.py   one weight and all its uses
trained.py      a trained model and an image
gallery/        worked examples with their sources
templates.py    files to start from
"""

from sharedgrad.explaining.explanation import Explanation, explain

__all__ = ["Explanation", "explain"]
