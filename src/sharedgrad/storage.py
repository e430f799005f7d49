"""Files that are never half written: arrays as safetensors, text, and whole models in one file.

Every file is written beside its place under another name, flushed to the disk and then renamed. Whoever reads it
finds the old one or the new one, whatever happens in between. Nothing is ever unpickled.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from sharedgrad import configuration
from sharedgrad.errors import CheckpointError, OutputError, SharedgradError
from sharedgrad.network import Network
from sharedgrad.parameter import Array

_MODEL = "sharedgrad model"
_CHECKSUM = "checksum"


def write_bytes(path: str | Path, data: bytes) -> None:
    """Write a whole file or nothing; folders on the way to it are made.

    Raises:
        OutputError: No permission, no space, or a part of the path is a file.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        fix = "choose a folder that is writable and has room"
        raise OutputError(path, f"cannot be written ({reason})", fix) from None
    finally:  # nothing is left of it after an interrupt either; after the rename it is gone anyway
        with contextlib.suppress(OSError):
            temporary.unlink()


def write_text(path: str | Path, text: str) -> None:
    """Write a whole text file (UTF-8) or nothing; errors as for :func:`write_bytes`."""
    write_bytes(path, text.encode())


def ensure_writable(folder: str | Path) -> None:
    """Make a folder and try to write in it, so that hours of work do not end with an error.

    Half-written files of killed processes are cleared away.

    Raises:
        OutputError: It cannot be made or written.
    """
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise OutputError(folder, "is a file, expected a folder", "choose another name for the folder")
    probe = folder / ".probe"
    write_bytes(probe, b"")
    for leftover in (probe, *folder.glob(".*.[0-9]*.tmp")):
        with contextlib.suppress(OSError):
            leftover.unlink()


def save_arrays(path: str | Path, arrays: Mapping[str, Array], metadata: Mapping[str, str]) -> None:
    """Write named arrays, and metadata as text, to one safetensors file with a checksum of it all.

    Raises:
        OutputError: As for :func:`write_bytes`.
    """
    from safetensors.numpy import save as serialized

    plain = {name: np.array(array, order="C") for name, array in arrays.items()}
    write_bytes(path, _ordered(serialized(plain, {**metadata, _CHECKSUM: _checksum(plain, metadata)})))


def _ordered(data: bytes) -> bytes:
    """The same file with its header in order: safetensors shuffles metadata, and the same run makes the same file."""
    start = 8 + int.from_bytes(data[:8], "little")
    header = json.dumps(json.loads(data[8:start]), sort_keys=True, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)  # the format aligns what follows
    return len(header).to_bytes(8, "little") + header + data[start:]


def load_arrays(path: str | Path) -> tuple[dict[str, Array], dict[str, str]]:
    """The arrays and the metadata that :func:`save_arrays` wrote.

    Raises:
        CheckpointError: No such file, or truncated, damaged or foreign content.
    """
    from safetensors import SafetensorError, safe_open

    path = Path(path)
    if not path.is_file():
        raise CheckpointError(path, "is not a file" if path.exists() else "there is no such file")
    try:
        with safe_open(path, "numpy") as file:
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
            metadata = dict(file.metadata() or {})
    except OSError as error:
        raise CheckpointError(path, f"cannot be read ({error.strerror or error})") from None
    except (SafetensorError, TypeError, ValueError, AttributeError, KeyError, MemoryError) as error:
        raise CheckpointError(path, f"is damaged or no safetensors file ({error})") from None
    if _CHECKSUM not in metadata:
        raise CheckpointError(path, "was not written by sharedgrad")
    if metadata.pop(_CHECKSUM) != _checksum(arrays, metadata):
        raise CheckpointError(path, "is damaged (its checksum does not fit its content)")
    return arrays, metadata


def _checksum(arrays: Mapping[str, Array], metadata: Mapping[str, str]) -> str:
    """safetensors has none of its own, and a flipped bit would go unnoticed."""
    digest = hashlib.blake2b(repr(sorted(metadata.items())).encode(), digest_size=16)
    for name, array in sorted(arrays.items()):
        digest.update(repr((name, array.dtype.str, array.shape)).encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def unshared(network: Network) -> dict[str, Array]:
    """The network's ``state_dict`` with every shared parameter and buffer once, under its first name."""
    aliases = network.aliases()
    return {name: array for name, array in network.state_dict().items() if name not in aliases}


def save(network: Network, path: str | Path) -> None:
    """Write a network to one safetensors file: each parameter and buffer once, under its first name.

    The metadata hold the configuration and the other names of shared parameters (``Network.aliases``) as JSON,
    so that the one file is enough to rebuild the network.

    Raises:
        OutputError: The file cannot be written.
    """
    metadata = {
        "format": _MODEL,
        "config": json.dumps(network.to_config()),
        "aliases": json.dumps(network.aliases()),
    }
    save_arrays(path, unshared(network), metadata)


def load(path: str | Path) -> Network:
    """The network that :func:`save` wrote; what was shared is shared again.

    Raises:
        CheckpointError: No such file, a damaged or foreign one, or one whose parts do not fit together.
    """
    arrays, metadata = load_arrays(path)
    if metadata.get("format") != _MODEL:
        raise CheckpointError(path, "is not a model file", "give the model.safetensors of a run")
    try:
        network = rebuilt(json.loads(metadata["config"]), arrays)
        network.load_state_dict(arrays)
    except SharedgradError as error:
        raise CheckpointError(path, f"does not describe a network ({error})") from None
    except (KeyError, TypeError, ValueError, AttributeError, MemoryError, RecursionError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise CheckpointError(path, f"does not describe a network ({reason})") from None
    return network


def rebuilt(config: Any, arrays: Mapping[str, Array]) -> Network:
    """The network of a configuration, after each array that it would draw has been found in the file.

    So none is absurdly large, and there are not absurdly many.
    """
    arguments = configuration.arguments(config)
    shapes = {array.shape for array in arrays.values()}
    for name, (layer, *_) in arguments["layers"].items():
        for attribute, parameter in layer.parameters().items():
            if parameter.base.shape not in shapes:
                problem = f"the file holds no {attribute} of shape {parameter.base.shape}"
                raise CheckpointError(f"node {name!r}", problem)
    drawn = {weight.base for layer, *_ in arguments["layers"].values() for weight in layer.parameters().values()}
    if len(drawn) > len(arrays):
        problem = f"expected an array for each of {len(drawn)} parameters, the file holds {len(arrays)}"
        raise CheckpointError("network", problem)
    return Network(**arguments)
