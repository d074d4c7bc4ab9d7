"""Changes of a shard folder that keep its checksums right, and a check of the message of `verify_shards`."""

from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from cram.data.inspect import verify
from cram.errors import CramError
from cram.files.sealed import read_sealed, write_sealed

PAD, CLS, SEP = 0, 2, 3
LAST_SHARD = "shard-00002.safetensors"


Change = Callable[[dict[str, np.ndarray]], None]


def fails(folder: Path, message: str) -> None:
    with pytest.raises(CramError, match=message) as error:
        verify.verify_shards(folder)
    assert len(str(error.value).splitlines()) <= 2
    assert str(folder) in str(error.value)


def edit(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change the manifest and renew its checksum, so that only a check of the contents finds the change."""
    manifest = read_sealed(folder / "manifest.json")
    change(manifest)
    write_sealed(folder / "manifest.json", manifest)


def signed(folder: Path, name: str) -> None:
    """Renew the checksum of a file in the manifest."""
    data = (folder / name).read_bytes()

    def sign(manifest: dict[str, Any]) -> None:
        manifest["files"][name] = sha256(data).hexdigest()
        for shard in manifest["shards"]:
            if shard["file"] == name:
                shard["bytes"] = len(data)

    edit(folder, sign)


def rewrite(folder: Path, name: str, change: Change) -> None:
    """Change the arrays of a file, and the manifest with it."""
    arrays = load_file(folder / name)
    change(arrays)
    save_file(arrays, folder / name)
    signed(folder, name)
