"""Checking code: run a person's backward pass where it can do no harm by accident, and name its mistake.

wire.py      messages between two processes          names.py, forms.py   how people write a backward pass
child.py     what runs beside the person's code      calls.py             one call of it, watched
process.py   its process, with its limits            probes.py            numbers on which mistakes differ
observe.py   calls, the same way for every probe     match.py             mistakes that reproduce them all
conditions.py where it works and where not           shrink.py            the smallest case that fails
findings.py  faults of state, types and shapes       judge.py             from all this to a report
graphs.py    a person's own automatic differentiation
audit.py, mutants.py  which mistakes a test lets pass
"""
