"""The files of a run folder that are read again, and the checksum list that proves them unchanged.

checksums.json is written when the run begins, and rewritten when it is finished:

    files       SHA-256 by name: first of the start files, later of the result files too. A run is finished when its
                receipt is in the list
    identity    hashes of recipe, data and tokenizer, which every checkpoint of the run carries too
    sha256      of the list itself
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from cram.config.config import Config
from cram.config.recipe import format_config, load_config
from cram.config.schema import collect_keys, get_value
from cram.errors import CramError
from cram.files.atomic import read_json, sha256_bytes, sha256_file, to_json, write_atomic, write_json
from cram.files.sealed import CHECKSUMS, check_hashes, hash_files, read_sealed, write_sealed
from cram.run.checkpoint import Checkpoints

RECIPE, ENVIRONMENT, TOKENIZER, RECEIPT = "recipe.yaml", "environment.json", "tokenizer.json", "receipt.json"
WEIGHTS, HELD_OUT = "model.safetensors", "held_out.safetensors"
START_FILES = (RECIPE, ENVIRONMENT, TOKENIZER)  # written when a run begins
RESULT_FILES = (WEIGHTS, HELD_OUT, RECEIPT)  # written when it ends
REMEDY = "Put it back as the run wrote it, or choose another run"


def hash_identity(config: Config, data: str, tokenizer: str) -> dict[str, str]:
    """Return hashes of everything that the weights of a run depend on, apart from the budget and the machine.

    Args:
        config: of the run. Only keys that identify a run are hashed, see `cram.config.schema.key`.
        data: hash of the rows.
        tokenizer: hash of tokenizer.json.

    Returns:
        Hashes of `recipe`, `data` and `tokenizer`, by these names.
    """
    names = (name for name, spec in collect_keys(Config).items() if spec.metadata["identifies"])
    recipe = to_json({name: get_value(config, name) for name in names}, sort_keys=True)
    return {"recipe": sha256_bytes(recipe.encode()), "data": data, "tokenizer": tokenizer}


def write_start_files(run: Path, config: Config, environment: Mapping[str, Any], tokenizer: bytes, data: str) -> None:
    """Write the start files of a run and their checksum list.

    The recipe is written last: a folder without it is not yet a run, and a killed process leaves no run half begun.

    Args:
        run: the run folder.
        config: of the run.
        environment: content of environment.json; `shards` is the path of the shard folder.
        tokenizer: content of tokenizer.json.
        data: hash of the rows.
    """
    recipe = format_config(config).encode()
    write_atomic(run / TOKENIZER, tokenizer)
    write_json(run / ENVIRONMENT, environment)
    hashes = hash_files(run, (TOKENIZER, ENVIRONMENT)) | {RECIPE: sha256_bytes(recipe)}
    write_sealed(run / CHECKSUMS, {"files": hashes, "identity": hash_identity(config, data, hashes[TOKENIZER])})
    write_atomic(run / RECIPE, recipe)


def register_results(run: Path) -> None:
    """Add all result files to the checksum list, which makes the run finished."""
    _rewrite_list(run, (*START_FILES, *RESULT_FILES))


def unregister_results(run: Path) -> None:
    """Remove the result files from the checksum list, before one of them is written again or moved."""
    if RECEIPT in _read_list(run)["files"]:
        _rewrite_list(run, START_FILES)


def _rewrite_list(run: Path, names: Iterable[str]) -> None:
    """Write the list for some files. Files that were in it keep their checksum, so that damage is not hidden."""
    content = _read_list(run)
    hashes = {name: content["files"].get(name) or sha256_file(run / name) for name in names}
    write_sealed(run / CHECKSUMS, content | {"files": hashes})


def _read_list(run: Path) -> dict[str, Any]:
    if not (run / CHECKSUMS).is_file():
        raise CramError(
            f"run={run}: {CHECKSUMS} is missing, so nothing says whether its files are intact. Choose another run."
        )
    return read_sealed(run / CHECKSUMS, f". {REMEDY}.")


def is_finished(run: Path) -> bool:
    """Whether a run has ended: its receipt exists and is in its checksum list."""
    return (run / RECEIPT).is_file() and (run / CHECKSUMS).is_file() and RECEIPT in _read_list(run)["files"]


def check_file(run: Path, name: str) -> Path:
    """Compare a file of a run with its checksum, and return its path.

    Raises:
        CramError: the file is not in the checksum list, is missing or differs.
    """
    hashes = _read_list(run)["files"]
    if name not in hashes:
        raise CramError(f"run={run}: there is no {name}. Finish the run first: cram.train with the same words.")
    try:
        check_hashes(run, {name: hashes[name]})
    except CramError as error:
        raise CramError(f"{error} {REMEDY}.") from None
    return run / name


def read_run_config(run: Path) -> Config:
    """Read the config that a run began with."""
    return load_config(check_file(run, RECIPE))


def read_shard_folder(run: Path) -> Path:
    """Return the path of the shard folder that a run began with. The folder may be gone since."""
    return Path(read_json(check_file(run, ENVIRONMENT))["shards"])


def read_receipt(run: Path) -> dict[str, Any]:
    """Read the receipt of a finished run."""
    receipt: dict[str, Any] = read_json(check_file(run, RECEIPT))
    return receipt


def read_identity(run: Path) -> dict[str, str]:
    """Return the hashes that a run began with: of `recipe`, `data` and `tokenizer`, as in `hash_identity`."""
    identity: dict[str, str] = _read_list(run)["identity"]
    return identity


def open_checkpoints(run: Path, decay: float = 1.0) -> Checkpoints:
    """Return the checkpoints of a run, bound to its identity.

    Args:
        run: the run folder.
        decay: progress at which the learning rate begins to fall.
    """
    return Checkpoints(run, decay, _read_list(run)["identity"])
