"""List folders in an order that does not depend on the file system."""

from __future__ import annotations

import os
import re
from pathlib import Path

from sharedgrad.errors import DataError


def listing(folder: Path) -> tuple[list[Path], list[Path]]:
    """The subfolders and the regular files of a folder, each in natural order (1, 2, 10).

    Hidden entries are left out, as are __MACOSX and the like, which archives and desktops leave behind; and so is
    what is neither folder nor file: reading a pipe could wait forever.

    Raises:
        DataError: The folder cannot be listed.
    """
    try:
        names = sorted((name for name in os.listdir(folder) if not _is_hidden(name)), key=_natural)
    except OSError as error:
        raise DataError(folder, f"the folder cannot be listed ({error.strerror})") from error
    paths = [folder / name for name in names]
    return [path for path in paths if os.path.isdir(path)], [path for path in paths if os.path.isfile(path)]


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name in ("__MACOSX", "Thumbs.db", "desktop.ini", "$RECYCLE.BIN")


def _natural(name: str) -> tuple[list[str | int], str]:
    # Splitting at a group alternates text and digits, so that like is always compared with like.
    parts = re.split(r"([0-9]+)", name)
    return [int(part) if place % 2 else part for place, part in enumerate(parts)], name
