"""The folder that the shards of a source and its settings belong in, and the lock under which they are made."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from hashlib import sha256
from pathlib import Path
from typing import Any

from cram.config.data import DataConfig
from cram.data.cleaning.decontaminate import BenchmarkNgrams
from cram.data.preparation.vocabulary import TokenizerSource
from cram.data.shards.shards import FORMAT_VERSION, MANIFEST, ShardSet
from cram.data.text.hub_source import HubSource
from cram.data.text.source import Source
from cram.files.atomic import to_json
from cram.files.lock import take_lock, wait_for_lock

# Settings that do not change the shards.
NOT_CONTENT = (
    "source",
    "dir",
    "epochs",
    "subset_tokens",
    "order",
    "on_error",
    "processes",
    "word_table",
    "engine",
    "address",
)
SLUG_LENGTH = 48  # characters of a folder's name that come from the source


def describe_content(source: Source, data: DataConfig, tokenizer: TokenizerSource) -> dict[str, Any]:
    """Return everything that the shards depend on: `fingerprint` of the source, and `settings`.

    Both are kept in the manifest.
    """
    settings = {name: value for name, value in asdict(data).items() if name not in NOT_CONTENT}
    if data.dedupe.decontaminate:
        settings["dedupe"]["decontaminate"] = BenchmarkNgrams(data.dedupe.decontaminate).fingerprint
    settings = {"format": FORMAT_VERSION, **settings, "tokenizer": tokenizer.fingerprint()}
    return {"fingerprint": source.fingerprint(), "settings": settings}


def find_folder(source: Source, data: DataConfig, content: dict[str, Any]) -> Path:
    """Return the folder for shards of this content, which may not exist yet.

    If it does not exist and the Hub cannot be reached, return the newest folder that was prepared earlier from the same
    data set with the same settings, if there is one.
    """
    digest = sha256(to_json(content, sort_keys=True).encode()).hexdigest()
    folder = Path(data.dir) / f"{_slug(data.source)}-{digest[:12]}"
    if folder.is_dir() or not isinstance(source, HubSource) or source.reachable:
        return folder
    return _find_earlier(data, content["settings"]) or folder


def _find_earlier(data: DataConfig, settings: dict[str, Any]) -> Path | None:
    """The newest shards of a Hub data set with these settings, whatever its revision was."""
    folders = [path.parent for path in Path(data.dir).glob(f"{_slug(data.source)}-*/{MANIFEST}")]
    for folder in sorted(folders, key=lambda path: path.stat().st_mtime, reverse=True):
        manifest = ShardSet.open(folder).manifest
        if manifest["settings"] == settings and manifest.get("source") == data.source:
            print(
                f"the Hub cannot be reached for {data.source}; using {folder}, which was prepared earlier", flush=True
            )
            return folder
    return None


def _slug(source: str) -> str:
    """The readable part of a folder's name: the words in the last two steps of the source's path."""
    return "-".join(re.findall(r"[a-z0-9_]+", "/".join(source.lower().split("/")[-2:])))[:SLUG_LENGTH] or "text"


@contextmanager
def lock_folder(folder: Path) -> Iterator[None]:
    """Hold the lock on preparing a folder; wait while another process holds it."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    path = folder.with_name(f".{folder.name}.lock")
    lock = take_lock(path)
    if lock is None:
        print(f"another process is preparing {folder}; waiting for it", flush=True)
        lock = wait_for_lock(path)
    with lock:
        yield
