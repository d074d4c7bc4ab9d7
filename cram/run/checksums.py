"""The files of a run that are read again, each compared with the run's list of checksums, and whose a checkpoint is.

checksums.json   files: sha256 by name, of what names the run from its beginning, and of its results once it is
                 finished: it is finished when its receipt is in the list
                 identity: of the recipe, the data and the tokenizer; every checkpoint has the same
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
START_FILES, RESULT_FILES = (RECIPE, ENVIRONMENT, TOKENIZER), (WEIGHTS, HELD_OUT, RECEIPT)
REMEDY = "Put it back as the run wrote it, or choose another run"


def hash_identity(config: Config, data: str, tokenizer: str) -> dict[str, str]:
    """What a run's weights depend on beside the seconds it had: hashes of recipe, data and tokenizer, by name."""
    names = (name for name, item in collect_keys(Config).items() if item.metadata["identifies"])
    recipe = to_json({name: get_value(config, name) for name in names}, sort_keys=True)
    return {"recipe": sha256_bytes(recipe.encode()), "data": data, "tokenizer": tokenizer}


def write_start_files(run: Path, config: Config, environment: Mapping[str, Any], tokenizer: bytes, data: str) -> None:
    """Write what names a run and the list of it, the recipe last: with it the run has begun."""
    recipe = format_config(config).encode()
    write_atomic(run / TOKENIZER, tokenizer)
    write_json(run / ENVIRONMENT, environment)
    files = hash_files(run, (TOKENIZER, ENVIRONMENT)) | {RECIPE: sha256_bytes(recipe)}
    own = hash_identity(config, data, files[TOKENIZER])
    write_sealed(run / CHECKSUMS, {"files": files, "identity": own})
    write_atomic(run / RECIPE, recipe)


def register_results(run: Path) -> None:
    """Put the results into the list, all of which must be there: the run is finished."""
    _list(run, (*START_FILES, *RESULT_FILES))


def unregister_results(run: Path) -> None:
    """Take the results out of the list, before one of them is written or moved."""
    if RECEIPT in _read(run)["files"]:
        _list(run, START_FILES)


def _list(run: Path, names: Iterable[str]) -> None:
    """Write the list anew, for the files that it had with the checksums that it had."""
    before = _read(run)
    files = {name: before["files"].get(name) or sha256_file(run / name) for name in names}
    write_sealed(run / CHECKSUMS, before | {"files": files})


def _read(run: Path) -> dict[str, Any]:
    if not (run / CHECKSUMS).is_file():
        raise CramError(
            f"run={run}: {CHECKSUMS} is missing, so nothing says whether its files are whole. Choose another run."
        )
    return read_sealed(run / CHECKSUMS, f". {REMEDY}.")


def is_finished(run: Path) -> bool:
    """Whether a run has come to its end: its receipt is there and in its list."""
    return (run / RECEIPT).is_file() and (run / CHECKSUMS).is_file() and RECEIPT in _read(run)["files"]


def check_file(run: Path, name: str) -> Path:
    """The path of a file in a run's list. Errors: CramError where it is not in it, or not as the run wrote it."""
    files = _read(run)["files"]
    if name not in files:
        raise CramError(f"run={run}: there is no {name}. Finish the run first: cram.train with the same words.")
    try:
        check_hashes(run, {name: files[name]})
    except CramError as error:
        raise CramError(f"{error} {REMEDY}.") from None
    return run / name


def read_run_config(run: Path) -> Config:
    """The recipe of a run."""
    return load_config(check_file(run, RECIPE))


def read_shard_folder(run: Path) -> Path:
    """Where the shards were that a run has begun with."""
    return Path(read_json(check_file(run, ENVIRONMENT))["shards"])


def read_receipt(run: Path) -> dict[str, Any]:
    """The receipt of a finished run."""
    receipt: dict[str, Any] = read_json(check_file(run, RECEIPT))
    return receipt


def open_checkpoints(run: Path, decay: float = 1.0) -> Checkpoints:
    """The checkpoints of a run that has begun; those of another recipe, data or tokenizer are not its own."""
    return Checkpoints(run, decay, _read(run)["identity"])
