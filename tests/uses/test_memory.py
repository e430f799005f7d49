"""A table of 50,000 rows that is the embedding and the head of one network: every question in bounded memory."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ASK = """
import re
import numpy as np
from sharedgrad.parameter import Parameter
from sharedgrad.uses import Lookup, Outer, SharedWeight, View

rows, width, samples, tokens, transposed = 50_000, 64, 16, 32, {transposed}
rng = np.random.default_rng(0)
table = Parameter((width, rows) if transposed else (rows, width), lambda r, s: np.zeros(s), "table")
view = View.transpose(table.shape) if transposed else View()
axes = {{"sample": (samples,), "token": (tokens,)}}


def draw(*shape):
    return rng.standard_normal(shape, dtype=np.float32)


embedding = Lookup(table, rng.integers(0, rows, (samples, tokens)), draw(samples, tokens, width), axes, view)
head = Outer(table, draw(samples, tokens, 1, rows), draw(samples, tokens, 1, width), axes, view)
u = SharedWeight([embedding, head])
for by in ("sample", "call", ("call", "sample"), ("sample", "token")):
    norm, share = u.norm(by), u.share(by)
    assert norm.min() > 0 and abs(share.sum() - 1) < 1e-5, by
inner = u.inner("call")
assert np.allclose(np.sqrt(np.diag(inner)), u.norm("call"), rtol=1e-6)
assert np.isclose(np.sqrt(inner.sum()), u.norm(), rtol=1e-6)
status = open("/proc/self/status", encoding="utf-8").read()
print(int(re.search("VmHWM: *\\t? *([0-9]+) kB", status)[1]) * 1024)  # ru_maxrss would begin with the parent's
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads Linux's own account of memory")
@pytest.mark.parametrize("transposed", [False, True])
def test_an_embedding_tied_to_a_head_is_asked_within_a_gigabyte(transposed: bool) -> None:
    """All samples' gradients together would take 205 MB in each call, and all tokens' 6.5 GB."""
    code = ASK.format(transposed=transposed)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr == ""
    assert int(done.stdout) < 1 << 30
