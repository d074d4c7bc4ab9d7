"""Reads the model, the tokenizer and the held-out rows of a finished run."""

from pathlib import Path

import torch
from tokenizers import Tokenizer

from cram.config.config import Config
from cram.config.model import ModelConfig
from cram.data.tokenizer import load_tokenizer
from cram.errors import CramError
from cram.evaluation.held_out import HeldOutSet
from cram.files.tensors import check_tensors, count_rows, read_tensors
from cram.model.kinds import new_model
from cram.model.transformer import Transformer
from cram.run.checksums import HELD_OUT, TOKENIZER, WEIGHTS, check_file, read_receipt


def load_trained(run: Path, config: Config, device: torch.device) -> tuple[Transformer, Tokenizer]:
    """Load the model, in evaluation mode, and the tokenizer of a finished run.

    Args:
        run: the run folder.
        config: the run's config.
        device: where the model is put.

    Raises:
        CramError: if a file is missing or damaged.
    """
    weights, tokenizer = find_result(run, WEIGHTS), load_tokenizer(find_result(run, TOKENIZER))
    model = fill_model(config.model, read_tensors(weights), tokenizer, f"{weights}: ")
    return model.to(device).eval(), tokenizer


def fill_model(config: ModelConfig, state: dict[str, torch.Tensor], tokenizer: Tokenizer, where: str) -> Transformer:
    """Make the model and fill it with weights, which must fit the recipe and the tokenizer.

    Args:
        config: the keys `model.*`.
        state: the weights by name.
        tokenizer: the run's tokenizer.
        where: beginning of the error message, which says where the weights are from.

    Raises:
        CramError: naming a tensor that does not fit.
    """
    name = "embedding.weight"
    rows, pieces = count_rows(state, name, where), tokenizer.get_vocab_size()
    if rows < pieces:
        raise CramError(f"{where}the tensor {name} has {rows} rows, and the tokenizer has {pieces} tokens.")
    model = new_model(config, rows)
    check_tensors(state, model.state_dict(), where)
    model.load_state_dict(state)
    return model


def load_held_out(run: Path, vocab_size: int) -> HeldOutSet:
    """Load the held-out rows of a finished run, for a model of this vocabulary size.

    Raises:
        CramError: if they are missing or damaged, or hold ids beyond the vocabulary.
    """
    path = find_result(run, HELD_OUT)
    rows = HeldOutSet.from_file(path)
    rows.check_ids(vocab_size, path)
    return rows


def find_result(run: Path, name: str) -> Path:
    """The path of a file of a finished run, checked.

    Raises:
        CramError: if the run is not finished or failed, or the file is not the one that the run wrote.
    """
    if failed := read_receipt(run).get("failed"):
        raise CramError(f"run={run} has no usable model: {failed}")
    return check_file(run, name)
