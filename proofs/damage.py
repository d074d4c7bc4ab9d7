"""`python -m proofs.damage`: damage every file that cram keeps, and see what finds the damage."""

import contextlib
import io
import json
import os
import random
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from cram.command import run_door
from cram.config.recipe import read_words
from cram.config.schema import key
from cram.data.inspect.verify import verify_shards
from cram.data.shards.loader import Loader
from cram.data.shards.shards import ShardSet
from cram.errors import CramError
from cram.evaluation.scores import evaluate
from cram.files.atomic import sha256_bytes
from cram.hub.trained import load_held_out, load_trained
from cram.run.checksums import open_checkpoints, read_receipt, read_run_config, read_shard_folder
from cram.run.metrics import Metrics
from proofs.doors import DOORS, Workspace, run_to_end
from proofs.edits import Edit, edit_file

ABOUT = """Edit every field and flip bits of every kept file, one edit at a time, and see what finds the edit.

    python -m proofs.damage bits=24 folders=[shards,run]

Every value of a JSON file is replaced by another value of its type, replaced by one of another type, and removed. Every
line of a yaml file gets other values. Bits are flipped at random places. Then the folder is used as the commands use
it. An edit is harmless if it is refused with a message, if a message says that something is passed over or made again,
or if the result is the same as without it. Exit status 1 for any other edit. Two minutes for each folder."""
CPU = torch.device("cpu")
NOTICES = ("warning:", "passed over", "made again", "made anew")  # words of a message that reports damage


@dataclass(frozen=True)
class KeptFolder:
    """A folder that cram keeps.

    Args:
        path: of the folder, in the working folder.
        files: globs of its files.
        use: uses the folder as a command does, and returns the result as plain values.
    """

    path: str
    files: tuple[str, ...]
    use: Callable[[Path], Any]


@dataclass
class Findings:
    """What found the edits of one file, and the edits that nothing found."""

    edits: int = 0
    found_by: Counter[str] = field(default_factory=Counter)
    undetected: list[str] = field(default_factory=list)


def use_shards(path: Path) -> Any:
    """Read shards as training does, then verify them."""
    (manifest,) = path.glob("*/manifest.json")
    shards = ShardSet.open(manifest.parent)
    shards.verify()
    loader = Loader(shards, 0, 1, "shuffled")
    rows = loader.next(loader.rows_left)
    loader.close()
    hashes = [sha256_bytes(array.tobytes()) for array in (rows.tokens, rows.documents, rows.index)]
    verify_shards(manifest.parent)
    return [
        hashes,
        shards.manifest,
        shards.token_counts().tolist(),
        [asdict(document) for document in shards.held_out()],
    ]


def use_run(run: Path) -> Any:
    """Evaluate a finished run, and read what it says about itself."""
    config = read_run_config(run)
    model, tokenizer = load_trained(run, config, CPU)
    figures = evaluate(model.eval(), load_held_out(run, model.vocab_size), CPU)
    return [asdict(config), read_receipt(run), figures, tokenizer.to_str(), str(read_shard_folder(run))]


def use_checkpoint(run: Path) -> Any:
    """Read the checkpoint from which a run is resumed, then all others: a longer budget may begin at each of them."""
    checkpoints = open_checkpoints(run)
    checkpoint = checkpoints.read_newest()
    assert checkpoint is not None
    optimizer = {f"optimizer {name}": tensor for name, tensor in checkpoint.optimizer.items()}
    hashes = {
        name: sha256_bytes(tensor.numpy().tobytes()) for name, tensor in {**checkpoint.model, **optimizer}.items()
    }
    metrics = Metrics(run, checkpoint.state["metrics"])
    metrics.close()
    for step in checkpoints.steps()[1:]:
        checkpoints.read(step)
    return [checkpoint.state, hashes, (run / "metrics.jsonl").read_text()]


def use_export(folder: Path) -> Any:
    """Open an exported folder as fine-tuning does."""
    from cram.glue.pretrained import open_pretrained

    pretrained = open_pretrained(str(folder), 32, "first")
    return [pretrained.identity, pretrained.config.to_dict(), pretrained.tokenizer.backend_tokenizer.to_str()]


def use_glue(folder: Path) -> Any:
    """Call the fine-tuning again whose results are in the folder."""
    from cram.glue.__main__ import main as fine_tune

    os.chdir(folder.parent)
    fine_tune(list(DOORS["glue"].words))
    results = json.loads((folder / "glue.json").read_text())["results"]
    return [results["scores"], results["mean"], results["learning_rate"], results["rules"]]


FOLDERS = {
    "shards": KeptFolder("shards", ("*/*.json", "*/*.safetensors", "*/held_out.jsonl", "*/orders/*"), use_shards),
    "run": KeptFolder("run", ("*.json", "recipe.yaml", "*.safetensors"), use_run),
    "checkpoint": KeptFolder("run", ("checkpoints/*/*", "metrics.jsonl", "checksums.json"), use_checkpoint),
    "export": KeptFolder("run/export", ("*.json", "*.safetensors"), use_export),
    "glue": KeptFolder("out", ("**/*.json", "**/*.safetensors", "**/*.tsv"), use_glue),
}


@dataclass
class DamageConfig:
    """The keys of this proof."""

    bits: int = key(24, "bits flipped in each file", "bits", least=0)
    fields: int | None = key(None, "edits of fields in each file, drawn at random (null: all)", "edits", least=0)
    folders: list[str] = key(list(FOLDERS), "folders to damage")
    seed: int = key(0, "of everything drawn at random", least=0)


def judge(folder: KeptFolder, path: Path, expected: Any) -> tuple[str, bool]:
    """Use a folder with an edited file. Returns what found the edit, and whether the edit was harmless."""
    printed = io.StringIO()
    try:
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
            result = folder.use(path)
    except CramError as error:
        return ("a checksum" if "sha256" in str(error) or "damaged" in str(error) else "another check"), True
    except Exception as error:  # a user would see a traceback
        return f"a traceback: {type(error).__name__}: {error!s:.80}", False
    if any(word in printed.getvalue() for word in NOTICES):
        return "passed over with a warning, or made again", True
    return ("nothing: the same result", True) if result == expected else ("nothing: another result", False)


def damage_folder(folder: KeptFolder, workspace: Path, config: DamageConfig) -> dict[tuple[str, str], Findings]:
    """Edit every file of one folder. Findings by name of file and kind of edit."""
    findings: dict[tuple[str, str], Findings] = {}
    place, original = workspace / folder.path, workspace / "original"
    with contextlib.redirect_stdout(io.StringIO()):
        expected = folder.use(place)
    shutil.copytree(place, original)
    for path in [path for pattern in folder.files for path in sorted(original.glob(pattern))]:
        name = str(path.relative_to(original))
        for edit in edit_file(path, config.bits, config.fields, random.Random(f"{config.seed} {path.name}")):
            shutil.rmtree(place)
            shutil.copytree(original, place)
            (place / name).write_bytes(edit.content)
            _record(findings.setdefault((name, edit.kind), Findings()), edit, *judge(folder, place, expected))
    shutil.rmtree(place)
    original.rename(place)
    return findings


def _record(findings: Findings, edit: Edit, found_by: str, is_harmless: bool) -> None:
    findings.edits += 1
    findings.found_by[found_by if is_harmless else "WRONG"] += 1
    if not is_harmless:
        findings.undetected.append(f"{edit.place}: {found_by}")


def make_folders(folder: Path) -> Path:
    """Make shards, a finished run with its checkpoints and export, and GLUE results; the working folder of them."""
    workspace = Workspace(folder).new_folder(DOORS["evaluate"], "workspace")
    run_to_end(DOORS["glue"], workspace, folder / "glue.log")
    return workspace


def main(words: list[str]) -> int:
    """Damage the chosen folders and print what found the edits.

    Raises:
        CramError: there is no folder of such a name.
    """
    config = read_words(DamageConfig, words)
    for name in config.folders:
        if name not in FOLDERS:
            raise CramError(f"folders={name} is unknown. Choose from {', '.join(FOLDERS)}.")
    undetected = 0
    with tempfile.TemporaryDirectory() as temporary:
        workspace = make_folders(Path(temporary).resolve())
        os.chdir(workspace)
        for name in config.folders:
            print(f"\n{name}", flush=True)
            for (file, kind), findings in damage_folder(FOLDERS[name], workspace, config).items():
                counts = "; ".join(f"{count} {found_by}" for found_by, count in findings.found_by.most_common())
                print(f"  {file}: {findings.edits} {kind}s edited: {counts}", flush=True)
                for line in findings.undetected[:5]:
                    print(f"    {line}")
                undetected += len(findings.undetected)
    print(f"\n{undetected} edits did harm and were not reported")
    return 1 if undetected else 0


if __name__ == "__main__":
    run_door(main, DamageConfig, ABOUT)
