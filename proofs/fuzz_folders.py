"""Cases of the fuzz proof: shard, run, export and GLUE folders with one damaged file.

With a damaged folder a command must give the same result as with the undamaged one, or report what it found.
"""

import json
import os
import random
import re
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from cram.config.recipe import keep_last_words
from cram.files.atomic import read_json, sha256_file
from proofs.damage import NOTICES
from proofs.doors import DOORS, RECIPE, Workspace, run_to_end
from proofs.edits import edit_json
from proofs.fuzz_run import Case, Result, run_case

HALF_RUN = [*RECIPE, "run=half", "budget=400steps"]
NEW_RUN = ["model.kind=crammed", "budget=3steps", "run=new"]


@dataclass(frozen=True)
class Use:
    """A use of a folder in which a file is damaged.

    Args:
        words: the name of the door and its words.
        folder: in which a file is damaged.
        results: files that must be the same as with the undamaged folder, besides the figures that are printed.
    """

    words: tuple[str, ...]
    folder: str
    results: tuple[str, ...] = ()


USES = {
    "evaluate": Use(("evaluate", "run=run", "device=cpu"), "run"),
    "finished": Use(("train", *DOORS["train"].words), "run"),
    "export": Use(("export", "run=run", "to=made"), "run", ("made/model.safetensors", "made/config.json")),
    "resume": Use(("train", *HALF_RUN), "half", ("half/model.safetensors", "half/held_out.safetensors")),
    "verify": Use(("prepare", "verify=shards/SET"), "shards"),
    "shards": Use(("train", *HALF_RUN, *NEW_RUN), "shards", ("new/model.safetensors",)),
    "glue": Use(("glue", *DOORS["glue"].words[1:]), "out"),
    "start": Use(("glue", "run=run/export", *DOORS["glue"].words[2:]), "run/export"),
}
QUICK_USES = ("evaluate", "verify")
SLOW_USES = ("finished", "export", "resume", "shards", "glue", "start")
# Files that do not influence a result: locks, pictures, reports of time.
DERIVED = re.compile(
    r"\.lock$|\.png$|heartbeat\.json$|timing\.json$|tensorboard/|wandb/|tracker\.json$|\.log$|README\.md$|\.zip$"
)
DAMAGES = (
    *("field", "field", "bit", "bit"),  # these more often
    *("cut", "empty", "tail", "zeros", "gone", "another file", "a folder", "a pipe", "a dangling link"),
)
_base: list[Path] = []
_expected_results: dict[str, Any] = {}


def make_base(folder: Path) -> None:
    """Make the folders that the cases copy: a finished run, an unfinished run, shards and GLUE results."""
    base = Workspace(folder).new_folder(DOORS["evaluate"], "base")
    run_to_end(DOORS["glue"], base, folder / "glue.log")
    process = replace(DOORS["train"], words=tuple(HALF_RUN)).start(base, folder / "half.log")
    while not list(base.glob("half/checkpoints/[1-9]*")) and process.poll() is None:
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    process.wait()
    _base.append(base)


def copy_base(folder: Path, *names: str) -> None:
    """Copy what `make_base` made into the folder of a case: all of it, or the folders of these names."""
    if not names:
        shutil.copytree(_base[0], folder, dirs_exist_ok=True)
    for name in names:
        shutil.copytree(_base[0] / name, folder / name)


def make_folders(source: random.Random, count: int) -> Iterator[Case]:
    """Yield uses of a folder in which one file is damaged."""
    for _ in range(count):
        use = source.choice(SLOW_USES if source.random() < 0.25 else QUICK_USES)
        seed = source.getrandbits(64)
        yield Case("folders", f"{use}, damage {seed}", partial(_make, use, seed), partial(_judge, use, seed), 120.0)


def damage_file(folder: Path, source: random.Random) -> tuple[str, str]:
    """Damage one file of a folder. Returns its name and the kind of damage."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    path, damage = source.choice(paths), source.choice(DAMAGES)
    data, name = path.read_bytes(), str(path.relative_to(folder))
    if damage == "field" and path.suffix == ".json":
        _, content = source.choice(list(edit_json(json.loads(data))))
        path.write_text(json.dumps(content, indent=2))
        return name, damage
    path.unlink()
    if damage == "a folder":
        path.mkdir()
    elif damage == "a pipe":
        os.mkfifo(path)
    elif damage == "a dangling link":
        path.symlink_to("nowhere")
    elif damage == "another file":
        path.write_bytes(source.choice([other for other in paths if other != path] or [path]).read_bytes())
    elif damage != "gone":
        position = source.randrange(max(1, len(data)))
        flipped = bytearray(data or b"x")
        flipped[position] ^= 1 << source.randrange(8)
        contents = {"cut": data[:position], "empty": b"", "tail": data + b"\n", "zeros": bytes(len(data))}
        path.write_bytes(contents.get(damage, bytes(flipped)))
    return name, damage


def _make(use: str, seed: int, folder: Path) -> list[str]:
    words = _make_undamaged(use, folder)
    damage_file(folder / USES[use].folder, random.Random(seed))
    return words


def _make_undamaged(use: str, folder: Path) -> list[str]:
    copy_base(folder)
    words = keep_last_words(USES[use].words)
    if use == "verify":
        (manifest,) = (folder / "shards").glob("*/manifest.json")
        words = [word.replace("SET", manifest.parent.name) for word in words]
    return words


def _judge(use: str, seed: int, folder: Path, result: Result) -> str:
    if any(notice in result.out + result.err for notice in NOTICES):
        return ""
    name, damage = _find_damage(use, seed, folder)
    if use == "verify" and damage == "gone" and "/orders/" in name:
        return ""  # an order is made anew when it is needed
    if use == "verify" and not DERIVED.search(name):
        # `verify` must refuse every damaged file, unless the JSON in it is the same as before.
        is_same = damage in ("field", "tail") and _is_same_json(folder / "shards" / name, _base[0] / "shards" / name)
        return "" if is_same else f"{name}: {damage}"
    is_same = _collect_results(use, folder, result) == _expect_results(use, folder)
    return "" if is_same else f"{name}: {damage}: another result, and no message"


def _find_damage(use: str, seed: int, folder: Path) -> tuple[str, str]:
    """Damage a copy in the same way, to learn the name of the file and the kind of damage."""
    copy = folder.with_name(f"{folder.name}-again")
    shutil.copytree(_base[0] / USES[use].folder, copy)
    name, damage = damage_file(copy, random.Random(seed))
    shutil.rmtree(copy)
    return name, damage


def _is_same_json(path: Path, other: Path) -> bool:
    return path.suffix == ".json" and path.is_file() and json.loads(path.read_text()) == json.loads(other.read_text())


def _collect_results(use: str, folder: Path, result: Result) -> Any:
    """Hashes of the files that must be the same, and the figures that the command printed or wrote."""
    hashes = {name: sha256_file(folder / name) for name in USES[use].results}
    if USES[use].words[0] == "glue":
        results = read_json(folder / "out/glue.json")["results"]
        return [hashes, results["scores"], results["mean"]]
    return [hashes, re.findall(r"[\d.]+ nats per token", result.out)]


def _expect_results(use: str, folder: Path) -> Any:
    """The results with the undamaged folder. Each process computes them once."""
    if use not in _expected_results:
        undamaged = folder.with_name(f"undamaged-{use}")
        make: Callable[[Path], list[str]] = partial(_make_undamaged, use)
        result = run_case(Case("folders", use, make, lambda *_: "", 300.0), undamaged)
        _expected_results[use] = _collect_results(use, undamaged, result)
        shutil.rmtree(undamaged)
    return _expected_results[use]


GROUPS: dict[str, Callable[[random.Random, int], Iterator[Case]]] = {"folders": make_folders}
