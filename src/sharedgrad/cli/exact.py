"""``--exact``: 3×3 convolutions by plain sums, as long as a command runs."""

from __future__ import annotations

import click

from sharedgrad import kernels

EXACT = click.option(
    "--exact",
    is_flag=True,
    help="Compute 3x3 convolutions by plain sums, which round less than minimal filtering; training takes 1.1 to 2 "
    "times as long. Kept for --resume and predict.",
)


def plain_sums(wanted: bool) -> None:
    """Turn minimal filtering off until the command ends, if that is wanted."""
    if wanted and not kernels.plain_sums():
        kernels.set_winograd(False)
        click.get_current_context().call_on_close(lambda: kernels.set_winograd(True))
