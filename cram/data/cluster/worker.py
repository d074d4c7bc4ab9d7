"""What runs in the worker processes of a Ray cluster."""

import platform
from collections.abc import Callable
from importlib import metadata
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from typing import Any

from cram.data.cluster.connection import import_ray

# Another version of one of these may read, hash, sign or tokenize a text otherwise.
PACKAGES = ("ray", "tokenizers", "numpy", "pyarrow", "rensa")

_functions: dict[str, Callable[[Any], Any]] = {}


def to_bytes(value: Any) -> bytes:
    """Return what `multiprocessing` sends to another process for a value.

    This is faster than Ray's own way for a list of documents, and arrays that come out of it can be written to.
    """
    return bytes(ForkingPickler.dumps(value))


def from_bytes(data: bytes) -> Any:
    """Return the value that `to_bytes` made the bytes of."""
    return ForkingPickler.loads(data)


def describe_versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that the shards depend on, by name."""
    return {"Python": platform.python_version()} | {name: _version(name) for name in PACKAGES}


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "missing"


def inspect_node(folder: str, token_file: str) -> tuple[dict[str, str], bool]:
    """Return the versions on this node, and whether it shares a folder with the process that started the work.

    Args:
        folder: absolute path of the folder, which that process has made.
        token_file: name of a file that it has written there. If the node sees it, it writes a file beside it, whose
            name has the node's id in addition; the process looks whether it sees that one.
    """
    path = Path(folder) / token_file
    if not path.is_file():
        return describe_versions(), False
    try:
        path.with_name(f"{token_file}.{import_ray().get_runtime_context().get_node_id()}").touch()
    except OSError:
        return describe_versions(), False
    return describe_versions(), True


def call(function: bytes) -> bytes:
    """Call a function without arguments and return the result, both as bytes."""
    return to_bytes(from_bytes(function)())


def run_piece(name: str, reference: list[Any], versions: dict[str, str], piece: bytes) -> bytes:
    """Apply a function to a piece of work and return the result, both as bytes.

    A process keeps its copy of the last function, whose tokenizer and tables stay loaded. The versions are compared
    when the copy is made, because a node may have joined the cluster after the work began.

    Args:
        name: identifies the function.
        reference: holds one reference to the bytes of the function. Inside a list it is not fetched for each piece.
        versions: those of the process that started the work.
        piece: as `to_bytes` makes it.

    Raises:
        RuntimeError: this node has other versions.
    """
    if name not in _functions:
        if (found := describe_versions()) != versions:
            raise RuntimeError(f"a node that joined the cluster has {found}, the others {versions}")
        _functions.clear()
        _functions[name] = from_bytes(import_ray().get(reference[0]))
    return to_bytes(_functions[name](from_bytes(piece)))
