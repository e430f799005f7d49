"""What the command was asked to do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Options:
    """The command's arguments.

    Attributes:
        sections: What to measure, by name.
        nets: The nets to narrow each section to, or none.
        batches: Batch sizes that take the place of those of training steps and inference, or none.
        repeats: Rounds of each measurement.
        threads: Threads for sharedgrad, PyTorch and NumPy alike.
        rivals: Whether PyTorch and what builds on it are measured too.
        compile: Whether torch.compile is among them.
        winograd: Whether sharedgrad's 3×3 convolutions may take fewer multiplications.
        budget: Seconds after which a section starts no further row, or None.
        json: File for everything that was measured, or None.
        plots: Folder for pictures of the scaling, or None.
    """

    sections: tuple[str, ...] = ()
    nets: tuple[str, ...] = ()
    batches: tuple[int, ...] = ()
    repeats: int = 9
    threads: int = 2
    rivals: bool = True
    compile: bool = False
    winograd: bool = True
    budget: float | None = None
    json: Path | None = None
    plots: Path | None = None

    def narrowed(self, nets: Sequence[str]) -> list[str]:
        """Those of a section's nets that were asked for."""
        return [name for name in nets if not self.nets or name in self.nets]

    def kinds(self) -> tuple[str, ...]:
        """The kinds in which PyTorch runs a net; it counts at its best."""
        if not self.rivals:
            return ()
        return ("eager", "channels_last", *(("compiled", "compiled channels_last") if self.compile else ()))
