"""PyTorch, the tests' oracle, on one thread: the tests are small and several processes may run them."""

from __future__ import annotations

import torch

torch.set_num_threads(1)
