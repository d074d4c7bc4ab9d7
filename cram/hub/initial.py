"""The initial weights that `init=` names: of a finished run, of a run's newest checkpoint, or of an exported folder."""

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cram.config.config import Config
from cram.errors import CramError
from cram.files.atomic import read_json
from cram.files.sealed import check_folder
from cram.files.tensors import read_tensors
from cram.hub.kinds import find_stock_model
from cram.hub.trained import find_result
from cram.model.kinds import new_model
from cram.run.checksums import RECIPE, WEIGHTS, is_finished, open_checkpoints, read_run_config

# The parts of a tokenizer.json that decide which ids a text has. Other parts differ between a run and its export.
PARTS_THAT_DECIDE_IDS = ("model", "normalizer", "pre_tokenizer", "added_tokens")


def read_initial(config: Config) -> dict[str, Tensor]:
    """Read the weights of `init=`, under our names, before any other work.

    Raises:
        CramError: if there are no weights, their shapes do not fit the recipe, or the run would have another tokenizer.
    """
    folder = Path(str(config.init))
    with torch.device("meta"):
        names = list(new_model(config.model, 64).state_dict())
    if (folder / "recipe.yaml").is_file():
        state = _read_run(folder)
    elif (folder / "config.json").is_file() and (folder / "model.safetensors").is_file():
        check_folder(folder, "Export the run again, to another folder.", required=False)
        state = _read_export(config, folder, names)
    else:
        raise CramError(f"init={folder} is neither a run folder nor an exported folder. Give one of these.")
    _check_shapes(config, state)
    _check_tokenizer_words(config, folder)
    return state


def name_initial(config: Config) -> str | None:
    """The name of the folder that `init=` names, without the folders above it; an export is named as RUN/EXPORT."""
    if not config.init:
        return None
    path = Path(config.init).resolve()
    return f"{path.parent.name}/{path.name}" if (path.parent / "recipe.yaml").is_file() else path.name


def _read_export(config: Config, folder: Path, names: list[str]) -> dict[str, Tensor]:
    stock = find_stock_model(config.model.kind)
    try:
        if stock is None:
            raise KeyError(config.model.kind)
        return stock.restore(read_tensors(folder / "model.safetensors"), names)
    except (KeyError, RuntimeError) as error:
        raise CramError(f"init={folder} is not an export of model.kind={config.model.kind} ({error}).") from None


def _read_run(folder: Path) -> dict[str, Tensor]:
    if is_finished(folder):
        return read_tensors(find_result(folder, WEIGHTS))
    newest = open_checkpoints(folder).read_newest()
    if newest is None:
        raise CramError(f"init={folder} has neither final weights nor a checkpoint. Train it first.")
    return newest.model


def _check_shapes(config: Config, state: dict[str, Tensor]) -> None:
    embedding = state.get("embedding.weight", torch.empty(0, 0))
    rows = len(embedding) if embedding.ndim == 2 else 0
    with torch.device("meta"):
        expected = new_model(config.model, max(rows, 64)).state_dict()
    for name in dict.fromkeys([*expected, *state]):
        found_shape, shape = (
            list(tensors[name].shape) if name in tensors else "absent" for tensors in (state, expected)
        )
        if found_shape != shape:
            raise CramError(
                f"init={config.init} does not fit the recipe: {name} is {found_shape} there, {shape} here. "
                "Set model.* as they were there."
            )
        if not state[name].is_floating_point():
            raise CramError(f"init={config.init}: {name} is of {state[name].dtype}, and weights are needed.")


def _check_tokenizer_words(config: Config, folder: Path) -> None:
    """Check the tokenizer that the words ask for, as far as it is known before the data is prepared."""
    if config.tokenizer:
        if Path(config.tokenizer).is_file():
            check_tokenizer(config, Path(config.tokenizer))
        return
    run = read_run_config(folder) if (folder / RECIPE).is_file() else None
    if run is None or run.tokenizer or (run.wordpiece, run.data.source) != (config.wordpiece, config.data.source):
        raise CramError(
            f"init={folder}: without tokenizer= another one would be trained on the data. "
            f"Use tokenizer={folder / 'tokenizer.json'}."
        )


def check_tokenizer(config: Config, path: Path) -> None:
    """Check that a tokenizer gives the same ids as that of `init=`.

    Raises:
        CramError: if the two differ in a part that decides ids.
    """
    folder = Path(str(config.init))
    initial, tokenizer = (_read_object(file) for file in (folder / "tokenizer.json", path))
    for part in PARTS_THAT_DECIDE_IDS:
        if json.dumps(initial.get(part), sort_keys=True) != json.dumps(tokenizer.get(part), sort_keys=True):
            raise CramError(
                f"init={folder}: its tokenizer is not {path} (they differ in '{part}'), so ids mean other tokens.\n"
                f"Use tokenizer={folder / 'tokenizer.json'}."
            )


def _read_object(path: Path) -> dict[str, Any]:
    value = read_json(path)
    if not isinstance(value, dict):
        raise CramError(f"{path}: not a tokenizer, it holds no JSON object.")
    return value
