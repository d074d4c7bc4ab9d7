"""The weights that `init=` names: of a finished run, an unfinished run's newest checkpoint, or an exported folder."""

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
from cram.hub.stock import from_stock_names
from cram.hub.trained import result
from cram.model.kinds import new_model
from cram.run.checksums import RECIPE, WEIGHTS, is_finished, open_checkpoints, read_run_config

# The parts of a tokenizer.json that decide which id a text has; an export's others may differ from its run's.
OF_IDS = ("model", "normalizer", "pre_tokenizer", "added_tokens")


def read_initial(config: Config) -> dict[str, Tensor]:
    """The weights of `init=` under our names, before any other work.

    Errors: CramError where there are none, their shapes are not the recipe's, or its tokenizer would be another.
    """
    folder = Path(str(config.init))
    with torch.device("meta"):
        names = list(new_model(config.model, 64).state_dict())
    if (folder / "recipe.yaml").is_file():
        state = _of_run(folder)
    elif (folder / "config.json").is_file() and (folder / "model.safetensors").is_file():
        check_folder(folder, "Export the run again, to another folder.", required=False)
        try:
            state = from_stock_names(read_tensors(folder / "model.safetensors"), names, config.model.kind)
        except (KeyError, RuntimeError) as error:
            raise CramError(f"init={folder} is not an export of model.kind={config.model.kind} ({error}).") from None
    else:
        raise CramError(f"init={folder} is neither a run folder nor an exported folder. Give one of these.")
    _check_shapes(config, state)
    _check_words(config, folder)
    return state


def initial_name(config: Config) -> str | None:
    """Name of what `init=` took the weights from, without the machine's folders; of an export its run's as well."""
    if not config.init:
        return None
    path = Path(config.init).resolve()
    return f"{path.parent.name}/{path.name}" if (path.parent / "recipe.yaml").is_file() else path.name


def _of_run(folder: Path) -> dict[str, Tensor]:
    if is_finished(folder):
        return read_tensors(result(folder, WEIGHTS))
    newest = open_checkpoints(folder).read_newest()
    if newest is None:
        raise CramError(f"init={folder} has neither final weights nor a checkpoint. Train it first.")
    return newest.model


def _check_shapes(config: Config, state: dict[str, Tensor]) -> None:
    embedding = state.get("embedding.weight", torch.empty(0, 0))
    rows = len(embedding) if embedding.ndim == 2 else 0
    with torch.device("meta"):
        wanted = new_model(config.model, max(rows, 64)).state_dict()
    for name in dict.fromkeys([*wanted, *state]):
        there, here = (list(tensors[name].shape) if name in tensors else "absent" for tensors in (state, wanted))
        if there != here:
            raise CramError(
                f"init={config.init} does not fit the recipe: {name} is {there} there, {here} here. "
                "Set model.* as they were there."
            )
        if not state[name].is_floating_point():
            raise CramError(f"init={config.init}: {name} is of {state[name].dtype}, and weights are needed.")


def _check_words(config: Config, folder: Path) -> None:
    """The tokenizer that the words ask for, as far as it is known before the data is prepared."""
    if config.tokenizer:
        if Path(config.tokenizer).is_file():
            check_tokenizer(config, Path(config.tokenizer))
        return
    own = read_run_config(folder) if (folder / RECIPE).is_file() else None
    if own is None or own.tokenizer or (own.wordpiece, own.data.source) != (config.wordpiece, config.data.source):
        raise CramError(
            f"init={folder}: without tokenizer= another one would be trained on the data. "
            f"Say tokenizer={folder / 'tokenizer.json'}."
        )


def check_tokenizer(config: Config, path: Path) -> None:
    """Errors: CramError where a tokenizer gives other ids than that of `init=`."""
    folder = Path(str(config.init))
    there, here = (_object(file) for file in (folder / "tokenizer.json", path))
    for part in OF_IDS:
        if json.dumps(there.get(part), sort_keys=True) != json.dumps(here.get(part), sort_keys=True):
            raise CramError(
                f"init={folder}: its tokenizer is not {path} (they differ in '{part}'), so ids mean other tokens.\n"
                f"Say tokenizer={folder / 'tokenizer.json'}."
            )


def _object(path: Path) -> dict[str, Any]:
    value = read_json(path)
    if not isinstance(value, dict):
        raise CramError(f"{path}: not a tokenizer, it holds no JSON object.")
    return value
