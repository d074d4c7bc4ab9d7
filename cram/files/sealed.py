"""JSON files that carry their own checksum, and checksum lists for the files of a folder.

Runs, checkpoints, shards and everything made from them use this one scheme. It finds damage and accidental edits. It is
not a signature: whoever recomputes the checksums can change the files unnoticed.
"""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from cram.errors import CramError
from cram.files.atomic import read_json, sha256_bytes, sha256_file, to_json, write_json

SEAL = "sha256"  # the key of a sealed file that holds the checksum of all its other keys
CHECKSUMS = "checksums.json"  # the checksum list of a folder: {"files": {name: sha256}, "sha256": ...}


def write_sealed(path: Path, value: Mapping[str, Any]) -> None:
    """Write a JSON object together with its own checksum, atomically."""
    # The checksum is of the value as it will be read: keys as text, null in place of numbers that are not finite.
    plain = json.loads(to_json(value))
    write_json(path, {**plain, SEAL: hash_json(plain)})


def read_sealed(path: Path, remedy: str = ".") -> dict[str, Any]:
    """Read a file that `write_sealed` wrote, and return its content without the checksum.

    Args:
        path: of the file.
        remedy: the end of the error message, which says what to do about a damaged file.

    Raises:
        CramError: the file is missing or unreadable, or its content does not match its checksum.
    """
    value = read_json(path)
    if not isinstance(value, dict) or value.pop(SEAL, None) != hash_json(value):
        raise CramError(f"{path}: damaged or edited, its content is not what its own sha256 says{remedy}")
    return value


def hash_json(value: Mapping[str, Any]) -> str:
    """Return the SHA-256 of a JSON object's content, whatever its layout in a file."""
    # Not by `to_json`, which would make 1e999 in an edited file equal to null.
    return sha256_bytes(json.dumps(value, sort_keys=True).encode())


def hash_files(folder: Path, names: Iterable[str]) -> dict[str, str]:
    """Return the SHA-256 of some files of a folder by name. A name may be a path within the folder."""
    return {name: sha256_file(folder / name) for name in names}


def check_hashes(folder: Path, hashes: Mapping[str, str]) -> None:
    """Compare files of a folder with their SHA-256.

    Raises:
        CramError: a file is missing or differs. The message names the first such file.
    """
    for name, expected in hashes.items():
        if not (folder / name).is_file():
            raise CramError(f"{folder / name}: missing.")
        if sha256_file(folder / name) != expected:
            raise CramError(f"{folder / name}: damaged or edited, its content is not what its sha256 says.")


def write_checksums(folder: Path, names: Iterable[str]) -> None:
    """Write the checksum list of a folder for some of its files."""
    write_sealed(folder / CHECKSUMS, {"files": hash_files(folder, names)})


def read_checksums(folder: Path) -> dict[str, str]:
    """Read the checksum list of a folder: SHA-256 by name of file.

    Raises:
        CramError: the list is missing or damaged.
    """
    hashes = read_sealed(folder / CHECKSUMS).get("files")
    if not isinstance(hashes, dict):
        raise CramError(f"{folder / CHECKSUMS}: not a list of files.")
    return hashes


def add_to_checksums(folder: Path, name: str) -> None:
    """Add a file that was just written to the checksum list of its folder. Only one process at a time may do this.

    A missing or damaged list is replaced by a new one that holds this file alone.
    """
    try:
        hashes = read_checksums(folder)
    except CramError:
        hashes = {}
    write_sealed(folder / CHECKSUMS, {"files": hashes | hash_files(folder, [name])})


def is_intact(folder: Path, name: str) -> bool:
    """Whether a file exists and matches its checksum in the list of its folder."""
    try:
        return (folder / name).is_file() and read_checksums(folder).get(name) == sha256_file(folder / name)
    except CramError:
        return False


def check_folder(folder: Path, remedy: str, required: bool = True) -> None:
    """Compare the files of a folder with its checksum list.

    Args:
        folder: the folder.
        remedy: a sentence for the error message that says what to do.
        required: whether the list must exist. A folder that cram did not write has none.

    Raises:
        CramError: a file is missing or differs, or the list is missing or damaged.
    """
    if not required and not (folder / CHECKSUMS).is_file():
        return
    try:
        check_hashes(folder, read_checksums(folder))
    except CramError as error:
        raise CramError(f"{error} {remedy}") from None
