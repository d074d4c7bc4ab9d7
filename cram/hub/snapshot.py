"""A checkpoint of a run as a model that can be used: its weights, held-out rows, and figures so far."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer

from cram.clock import CHARGED
from cram.config.config import Config
from cram.data.shards.epochs import count_epoch_rows
from cram.data.shards.shards import ShardSet
from cram.data.special_tokens import SpecialTokens
from cram.data.tokenizer import load_tokenizer
from cram.errors import CramError
from cram.evaluation.baselines import bigram_bits_per_byte, unigram_nats
from cram.evaluation.held_out import HeldOutSet
from cram.evaluation.held_out_rows import build_held_out
from cram.evaluation.scores import evaluate
from cram.hub.card import strip_folders
from cram.hub.initial import name_initial
from cram.hub.trained import fill_model, load_held_out
from cram.model.count import model_figures
from cram.model.transformer import Transformer
from cram.run.checksums import TOKENIZER, check_file, is_finished, open_checkpoints, read_shard_folder


@dataclass(frozen=True)
class Snapshot:
    """The model and tokenizer of a run at one of its checkpoints, with the checkpoint's state."""

    run: Path
    config: Config
    step: int
    state: dict[str, Any]
    model: Transformer
    tokenizer: Tokenizer

    def shards(self) -> ShardSet:
        """Open the shards that the run learns from.

        Raises:
            CramError: if they are gone.
        """
        folder = read_shard_folder(self.run)
        if not folder.is_dir():
            raise CramError(
                f"checkpoint={self.step}: held-out rows are made from the run's shards, and {folder} is not there. "
                "Prepare them again with cram.prepare and the words of the run."
            )
        return ShardSet.open(folder)

    def held_out(self) -> HeldOutSet:
        """The held-out rows on which the run is evaluated at its end."""
        if is_finished(self.run):
            return load_held_out(self.run, self.model.vocab_size)
        config = self.config
        documents, objective = self.shards().held_out(), config.objective.held_out
        return build_held_out(documents, self.tokenizer, config.data.seq_len, config.evaluation, objective=objective)

    def receipt(self, rows: HeldOutSet, device: torch.device) -> dict[str, Any]:
        """The entries of a receipt that are known at the checkpoint; no rule is judged yet.

        Args:
            rows: the held-out rows.
            device: where to evaluate.
        """
        state, config, shards = self.state, self.config, self.shards()
        clock, budget, process = state["clock"], state["budget"], state["processes"][-1]
        charged = sum(clock["booked"][name] for name in CHARGED)
        spent = {
            "wall": charged,
            "tokens": clock["positions"],
            "steps": clock["updates"],
            "rst": clock.get("reference_seconds"),
        }[budget["clock"]]
        figures = evaluate(self.model, rows, device) | {
            "unigram_nats_per_token": unigram_nats(shards.token_counts(), rows.labels)
        }
        if config.objective.held_out == "causal":
            special = SpecialTokens.of(self.tokenizer).ids()
            figures["bigram_bits_per_byte"] = bigram_bits_per_byte(shards, rows, self.tokenizer, special)
        else:
            figures["mask_rate"] = config.evaluation.mask_rate
        predicted_share = state["predicted"] / max(clock["positions"], 1)
        sizes = model_figures(config.model, shards.vocab_size, shards.seq_len, predicted_share)
        return {
            "unfinished": True,
            "checkpoint": self.step,
            "budget": {**budget, "spent": spent, "progress": state["last_progress"]},
            "positions": clock["positions"],
            "predicted_tokens": state["predicted"],
            "updates": clock["updates"],
            "epochs": state["loader"]["rows_taken"] / count_epoch_rows(shards, config.data.subset_tokens),
            "data": describe_data(config, shards),
            "model": {
                "kind": config.model.kind,
                **sizes,
            },
            "held_out": figures,
            "device": process["device"],
            "precision": process["precision"],
            "processes": state["processes"],
            "extensions": state["extensions"],
            "init": name_initial(config),
            "seed": config.seed,
            "versions": process["environment"]["packages"],
            "commit": process["environment"]["commit"],
            "rules": [],
        }


def describe_data(config: Config, shards: ShardSet) -> dict[str, Any]:
    """Return what a receipt says of the data: source without folders, hash, and sizes in tokens and rows."""
    return {
        "source": strip_folders(config.data.source),
        "hash": shards.hash,
        "tokens": shards.tokens,
        "rows": shards.rows,
        "seq_len": shards.seq_len,
        "vocab_size": shards.vocab_size,
    }


def open_snapshot(run: Path, config: Config, checkpoint_name: str, device: torch.device) -> Snapshot:
    """Open a checkpoint of a run.

    Args:
        run: the run folder.
        config: the run's config.
        checkpoint_name: `newest`, or the number of its update.
        device: where the model is put.

    Raises:
        CramError: if there is no such checkpoint; the message lists those that exist.
    """
    checkpoint = open_checkpoints(run).choose(checkpoint_name)
    tokenizer = load_tokenizer(check_file(run, TOKENIZER))
    where = f"{run / 'checkpoints' / str(checkpoint.step) / 'model.safetensors'}: "
    if config.stacking.enabled:  # the model may not have all of its blocks yet
        blocks = {name.split(".")[1] for name in checkpoint.model if name.startswith("blocks.")}
        config = replace(config, model=replace(config.model, layers=len(blocks)))
    model = fill_model(config.model, checkpoint.model, tokenizer, where)
    return Snapshot(run, config, checkpoint.step, checkpoint.state, model.to(device).eval(), tokenizer)
