"""PyTorch, the tests' oracle, on one thread: the tests are small and several processes may run them."""

from __future__ import annotations

import pytest
import torch

from sharedgrad import kernels

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _compiled_kernels_serve_few_samples_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests have small batches, for which convolutions would otherwise fall back to NumPy."""
    if kernels.compiled():
        monkeypatch.setattr(kernels.native, "FEW_SAMPLES", 1)
