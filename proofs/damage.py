"""Edit every field and flip bits of every file that is kept, one at a time, and see what finds it.

    python -m proofs.damage [bits=24] [seed=0] [fields=all] [folders=shards,run,checkpoint,export,glue]

Every value of a JSON file is made another of its type, made one of another type, and left out; every line of a yaml
file gets another value; bits are flipped at random places. Then the folder is used as the commands use it. An edit is
refused with a message; or it is said that something is passed over or made again; or what comes out is the same as
without it. Anything else is wrong: exit status 1. Two minutes for each folder.
"""

import contextlib
import copy
import io
import json
import os
import random
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from cram.data.inspect.verify import verify_shards
from cram.data.shards.loader import Loader
from cram.data.shards.shards import ShardSet
from cram.errors import CramError
from cram.evaluation.held_out import evaluate
from cram.files.atomic import sha256_bytes
from cram.hub.trained import load_held_out, load_trained
from cram.run.files import read_receipt, run_checkpoints, run_config, shard_folder
from cram.run.metrics import Metrics
from proofs.doors import DOORS, Bench, finish

CPU = torch.device("cpu")
SAID = ("warning:", "passed over", "made again", "made anew")


@dataclass(frozen=True)
class Folder:
    """A folder that is kept: its files, and what a command makes of it, as plain values."""

    where: str
    files: tuple[str, ...]
    use: Callable[[Path], Any]


@dataclass
class Found:
    """What became of the edits of one file."""

    edits: int = 0
    by: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)


def use_shards(path: Path) -> Any:
    """What training reads, and then what `verify` says."""
    (folder,) = path.glob("*/manifest.json")
    shards = ShardSet.open(folder.parent)
    shards.verify()
    loader = Loader(shards, 0, 1, "shuffled")
    rows = loader.next(loader.rows_left)
    loader.close()
    read = [sha256_bytes(array.tobytes()) for array in (rows.tokens, rows.documents, rows.index)]
    verify_shards(folder.parent)
    return [read, shards.manifest, shards.token_counts().tolist(), [asdict(one) for one in shards.held_out()]]


def use_run(run: Path) -> Any:
    """What a finished run is evaluated to, and what it says of itself."""
    config = run_config(run)
    model, tokenizer = load_trained(run, config, CPU)
    figures = evaluate(model.eval(), load_held_out(run, model.vocab_size), CPU)
    return [asdict(config), read_receipt(run), figures, tokenizer.to_str(), str(shard_folder(run))]


def use_checkpoint(run: Path) -> Any:
    """What a resumed run goes on from; then every other checkpoint, from which a longer budget may."""
    checkpoints = run_checkpoints(run)
    checkpoint = checkpoints.newest()
    assert checkpoint is not None
    tensors = {**checkpoint.model, **{f"optimizer {name}": one for name, one in checkpoint.optimizer.items()}}
    digests = {name: sha256_bytes(tensor.numpy().tobytes()) for name, tensor in tensors.items()}
    metrics = Metrics(run, checkpoint.state["metrics"])
    metrics.close()
    for step in checkpoints.steps()[1:]:
        checkpoints.read(step)
    return [checkpoint.state, digests, (run / "metrics.jsonl").read_text()]


def use_export(folder: Path) -> Any:
    """What a fine-tuning starts from."""
    from cram.glue.encoder import open_encoder

    encoder = open_encoder(str(folder), 32, "first")
    return [encoder.identity, encoder.config.to_dict(), encoder.tokenizer.backend_tokenizer.to_str()]


def use_glue(folder: Path) -> Any:
    """What the same fine-tuning again, of which all is there, comes to."""
    from cram.glue.__main__ import main

    os.chdir(folder.parent)
    main(list(DOORS["glue"].words))
    results = json.loads((folder / "glue.json").read_text())["results"]
    return [results["scores"], results["mean"], results["learning_rate"], results["rules"]]


FOLDERS = {
    "shards": Folder("shards", ("*/*.json", "*/*.safetensors", "*/held_out.jsonl", "*/orders/*"), use_shards),
    "run": Folder("run", ("*.json", "recipe.yaml", "*.safetensors"), use_run),
    "checkpoint": Folder("run", ("checkpoints/*/*", "metrics.jsonl", "checksums.json"), use_checkpoint),
    "export": Folder("run/export", ("*.json", "*.safetensors"), use_export),
    "glue": Folder("out", ("**/*.json", "**/*.safetensors", "**/*.tsv"), use_glue),
}


def other_values(value: Any) -> Iterator[Any]:
    """A value of its type, and one of another."""
    if isinstance(value, bool):
        yield from (not value, 2)
    elif isinstance(value, int):
        yield from (value + 1, "1")
    elif isinstance(value, float):
        yield from (value * 1.5 + 0.25, "x")
    elif isinstance(value, str):
        yield from (f"{value[:-1]}{'a' if value[-1:] != 'a' else 'b'}", 3)
    else:
        yield from (0, "x")


def edited_json(content: Any) -> Iterator[tuple[str, Any]]:
    """Every content that differs from a JSON value in one field, with the name of the field."""
    for place in _places(content, ()):
        *above, last = place
        inner = content
        for step in above:
            inner = inner[step]
        for new in other_values(inner[last]):
            changed = copy.deepcopy(content)
            _at(changed, above)[last] = new
            yield f"{'.'.join(map(str, place))}={new!r:.20}", changed
        changed = copy.deepcopy(content)
        del _at(changed, above)[last]
        yield f"{'.'.join(map(str, place))} left out", changed


def _places(value: Any, here: tuple[Any, ...]) -> Iterator[tuple[Any, ...]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, one in inner:
        yield (*here, name)
        yield from _places(one, (*here, name))


def _at(value: Any, place: list[Any]) -> Any:
    for step in place:
        value = value[step]
    return value


def edits(path: Path, bits: int, source: random.Random, most: int) -> Iterator[tuple[str, str, bytes]]:
    """Edits of a file: `field` or `bit`, which one, and the file's content then."""
    data = path.read_bytes()
    if path.suffix == ".json":
        changes = list(edited_json(json.loads(data)))
        for name, content in source.sample(changes, min(most, len(changes))):
            yield "field", name, (json.dumps(content, indent=2) + "\n").encode()
    if path.suffix == ".jsonl":
        lines = data.decode().splitlines(keepends=True)
        for number in source.sample(range(len(lines)), min(most, len(lines))):
            changes = list(edited_json(json.loads(lines[number])))
            name, content = source.choice(changes)
            for what, new in ((name, json.dumps(content) + "\n"), ("left out", "")):
                changed = [*lines[:number], new, *lines[number + 1 :]]
                yield "field", f"line {number + 1}: {what}", "".join(changed).encode()
    if path.suffix == ".yaml":
        lines = data.decode().splitlines(keepends=True)
        for number, line in enumerate(lines):
            key, _, value = line.rstrip("\n").partition(": ")
            for new in ("7", "seven", "") if value else ():
                changed = [*lines[:number], f"{key}: {new}\n", *lines[number + 1 :]]
                yield "field", f"{key.strip()}={new!r}", "".join(changed).encode()
    for place in (source.randrange(8 * len(data)) for _ in range(bits if data else 0)):
        flipped = bytearray(data)
        flipped[place // 8] ^= 1 << place % 8
        yield "bit", f"bit {place % 8} of byte {place // 8}", bytes(flipped)


def judge(folder: Folder, path: Path, right: Any) -> str:
    """Use a folder with an edited file: how the edit was found, or `wrong: ...`."""
    printed = io.StringIO()
    try:
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
            value = folder.use(path)
    except CramError as error:
        return "a checksum" if "sha256" in str(error) or "damaged" in str(error) else "another check"
    except Exception as error:  # what a user would see as a traceback
        return f"wrong: {type(error).__name__}: {error!s:.80}"
    if any(word in printed.getvalue() for word in SAID):
        return "passed over with a warning, or made again"
    return "nothing: the same comes out" if value == right else "wrong: another result without a word"


def check(name: str, bench: Path, bits: int, most: int, seed: int) -> dict[tuple[str, str], Found]:
    """Edit every file of one folder. Found edits by file and kind of edit."""
    folder, found = FOLDERS[name], {}
    place = bench / folder.where
    with contextlib.redirect_stdout(io.StringIO()):
        right = folder.use(place)
    whole = bench / "whole"
    shutil.copytree(place, whole)
    for pattern in folder.files:
        for path in sorted(whole.glob(pattern)):
            source = random.Random(f"{seed} {path.name}")
            for kind, what, content in edits(path, bits, source, most):
                shutil.rmtree(place)
                shutil.copytree(whole, place)
                (place / path.relative_to(whole)).write_bytes(content)
                how = judge(folder, place, right)
                one = found.setdefault((str(path.relative_to(whole)), kind), Found())
                one.edits += 1
                one.by[how.partition(":")[0] if how.startswith("wrong") else how] += 1
                if how.startswith("wrong"):
                    one.wrong.append(f"{what}: {how}")
    shutil.rmtree(place)
    whole.rename(place)
    return found


def make(folder: Path) -> Path:
    """A folder with shards, a finished run with its checkpoints and export, and a GLUE folder."""
    bench = Bench(folder)
    here = bench.fresh(DOORS["evaluate"], "here")
    finish(DOORS["glue"], here, folder / "glue.log")
    return here


def main() -> int:
    words = dict(word.split("=", 1) for word in sys.argv[1:])
    bits, seed = int(words.get("bits", 24)), int(words.get("seed", 0))
    most = 10**9 if words.get("fields", "all") == "all" else int(words["fields"])
    wrong = 0
    with tempfile.TemporaryDirectory() as name:
        bench = make(Path(name).resolve())
        os.chdir(bench)
        for folder in words.get("folders", ",".join(FOLDERS)).split(","):
            print(f"\n{folder}", flush=True)
            for (file, kind), found in check(folder, bench, bits, most, seed).items():
                by = "; ".join(f"{count} {how}" for how, count in found.by.most_common())
                print(f"  {file}: {found.edits} {kind}s edited: {by}", flush=True)
                for line in found.wrong[:5]:
                    print(f"    {line}")
                wrong += len(found.wrong)
    print(f"\n{wrong} edits were wrong without a word")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
