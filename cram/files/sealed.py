"""JSON files that carry their own checksum, and lists of the files of a folder with theirs.

The one scheme behind runs, checkpoints, shards and what is made of them. It finds damage and single edits. It is not a
signature: whoever makes the checksums anew is not found out.
"""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from cram.errors import CramError
from cram.files.atomic import read_json, sha256_bytes, sha256_file, to_json, write_json

OWN = "sha256"  # the key under which a file has the checksum of all its other keys
LIST = "checksums.json"  # the list of a folder: {"files": {name: sha256}, "sha256": ...}


def write_sealed(path: Path, value: Mapping[str, Any]) -> None:
    """Write a JSON object with its own checksum, whole or not at all."""
    plain = json.loads(to_json(value))  # as it will be read: names of keys as text, null for what is not finite
    write_json(path, {**plain, OWN: digest(plain)})


def read_sealed(path: Path, tail: str = ".") -> dict[str, Any]:
    """What `write_sealed` wrote, without the checksum.

    Errors: CramError where it does not hold; it ends in `tail`, which says what to do.
    """
    value = read_json(path)
    if not isinstance(value, dict) or value.pop(OWN, None) != digest(value):
        raise CramError(f"{path}: damaged or edited, its content is not what its own sha256 says{tail}")
    return value


def digest(value: Mapping[str, Any]) -> str:
    """sha256 of what a JSON object holds, however it is laid out in a file."""
    return sha256_bytes(json.dumps(value, sort_keys=True).encode())  # `to_json` would make null of 1e999


def listed(folder: Path, names: Iterable[str]) -> dict[str, str]:
    """The sha256 of some files of a folder, by name; a name may hold a path within the folder."""
    return {name: sha256_file(folder / name) for name in names}


def check_listed(folder: Path, files: Mapping[str, str]) -> None:
    """Compare files of a folder with their checksums. Errors: CramError naming the first that differs."""
    for name, expected in files.items():
        if not (folder / name).is_file():
            raise CramError(f"{folder / name}: missing.")
        if sha256_file(folder / name) != expected:
            raise CramError(f"{folder / name}: damaged or edited, its content is not what its sha256 says.")


def add_to_list(folder: Path, name: str) -> None:
    """Put a file that was just written into its folder's list; a damaged list begins anew. One writer at a time."""
    try:
        files = read_list(folder)
    except CramError:
        files = {}
    write_sealed(folder / LIST, {"files": files | listed(folder, [name])})


def is_listed(folder: Path, name: str) -> bool:
    """Whether a file is there as its folder's list has it."""
    try:
        return (folder / name).is_file() and read_list(folder).get(name) == sha256_file(folder / name)
    except CramError:
        return False


def check_own_list(folder: Path, remedy: str, ours: bool = True) -> None:
    """Compare a folder with its list, which one that is not `ours` may lack.

    Errors: CramError, with what to do, where a file differs.
    """
    if not ours and not (folder / LIST).is_file():
        return
    try:
        check_listed(folder, read_list(folder))
    except CramError as error:
        raise CramError(f"{error} {remedy}") from None


def write_list(folder: Path, names: Iterable[str]) -> None:
    """Write the list of some files of a folder."""
    write_sealed(folder / LIST, {"files": listed(folder, names)})


def read_list(folder: Path) -> dict[str, str]:
    """The files in a folder's list, with their checksums. Errors: CramError where there is none, or a damaged one."""
    files = read_sealed(folder / LIST).get("files")
    if not isinstance(files, dict):
        raise CramError(f"{folder / LIST}: not a list of files.")
    return files
