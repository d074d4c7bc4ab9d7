"""The end of a run: final weights, held-out loss, receipt, export and plot."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from safetensors.torch import save

from cram.clock import Clock
from cram.config.config import Config
from cram.config.optimizer import OptimizerConfig
from cram.data.shards.shards import ShardSet
from cram.data.special_tokens import SpecialTokens
from cram.data.tokenizer import load_tokenizer
from cram.distributed.ranks import ALONE
from cram.evaluation.baselines import bigram_bits_per_byte, unigram_nats
from cram.evaluation.by_position import nats_by_position
from cram.evaluation.held_out_rows import CRAMMING_RULE, build_held_out
from cram.evaluation.replaced import replaced_scores
from cram.files.atomic import nonfinite_to_none, write_atomic, write_json
from cram.hub.export import export_run
from cram.hub.kinds import stock_model
from cram.reporting.diagnosis import explain_failure, explain_loss_above_unigram
from cram.reporting.reading.runs import read_run
from cram.reporting.sections.loss_picture import plot_loss
from cram.run.checksums import HELD_OUT, RECEIPT, WEIGHTS, register_results, unregister_results
from cram.run.receipt import tabulate_time
from cram.training.gradients import eagerly, in_evaluation_mode
from cram.training.records import record_evaluation
from cram.training.results import make_receipt
from cram.training.session import Parts, Session


def finish_run(
    config: Config, run: Path, session: Session, shards: ShardSet, probe_seconds: float | None = None
) -> dict[str, Any]:
    """Write everything that a finished run leaves behind.

    Args:
        probe_seconds: of an update of the plan's shape, timed again after training; None where it was not.

    Returns:
        The receipt.
    """
    parts, clock = session.parts, session.clock
    weights = {name: tensor.cpu().contiguous() for name, tensor in parts.model.state_dict().items()}
    unregister_results(run)
    write_atomic(run / WEIGHTS, save(weights, metadata={"format": "pt"}))
    write_atomic(run / HELD_OUT, parts.held_out.to_bytes())
    held_out = nonfinite_to_none(record_evaluation(session))
    session.metrics.close()
    unigram = unigram_nats(shards.token_counts(), parts.held_out.labels)
    nats = held_out["nats_per_token"]
    weights_finite = all(bool(tensor.isfinite().all()) for tensor in weights.values())
    last_good = clock.updates - session.state.faults.in_a_row
    rates = _rates(config.optimizer)
    failed = explain_failure(weights_finite, nats is not None, clock.updates, last_good, rates)
    receipt = make_receipt(config, run, session, shards, held_out, unigram, failed, probe_seconds)
    receipt["held_out"] |= further_figures(config, parts, clock, shards)
    if nats is not None and nats >= unigram:
        receipt["held_out"]["why_not_below_unigram"] = explain_loss_above_unigram(receipt, rates)
    receipt["examples"] = []  # until there is an export that answers
    plot_loss(replace(read_run(run), receipt=receipt))
    _write_receipt(run, receipt)
    if receipt["export"] == "export/":
        with clock.account("export"):
            receipt["examples"] = _export(run, config)
        receipt["time"] = tabulate_time(clock.state()["booked"])
        _write_receipt(run, receipt)
    return receipt


def _export(run: Path, config: Config) -> list[str]:
    """Export a run into its folder, and give some examples of what the exported model answers."""
    export_run(run, run / "export", config.card)
    return stock_model(config.model.kind).task.examples(run / "export")


def _write_receipt(run: Path, receipt: dict[str, Any]) -> None:
    """Write the receipt. A run that is killed during this is not finished, and the same command finishes it."""
    unregister_results(run)
    write_json(run / RECEIPT, receipt)
    register_results(run)


def _rates(config: OptimizerConfig) -> dict[str, float]:
    """Collect the learning rates of a config, by key."""
    rates = {} if config.serves_all() and config.matrices() is not config else {"optimizer.lr": config.lr}
    if config.embedding_lr is not None:
        rates["optimizer.embedding_lr"] = config.embedding_lr
    if (matrices := config.matrices()) is not config:
        rates[f"optimizer.{config.kind}.lr"] = matrices.lr
    return rates


def further_figures(config: Config, parts: Parts, clock: Clock, shards: ShardSet) -> dict[str, Any]:
    """Measure what is measured on the held-out text at the end only.

    Returns:
        The share of bytes behind the unknown token; of a causal model also the bits per byte of the bigram baseline and
        the nats per token by the length of the context; of a masked one also the nats per token by Cramming's masking
        rule, with the figures of that rule.
    """
    unknown: dict[str, Any] = {"unknown_share": parts.held_out.unknown_share}
    with clock.account("evaluation"):
        tokenizer = load_tokenizer(shards.tokenizer_path)
        if config.objective.held_out == "causal":
            special = SpecialTokens.of(tokenizer).ids()
            bigram = bigram_bits_per_byte(shards, parts.held_out, tokenizer, special)
            with eagerly(), in_evaluation_mode(parts.model):
                by_position = nats_by_position(parts.model, parts.held_out, parts.device)
            return unknown | {"bigram_bits_per_byte": bigram, "by_position": by_position}
        documents, seq_len = shards.held_out(), config.data.seq_len
        rows = build_held_out(documents, tokenizer, seq_len, config.evaluation, CRAMMING_RULE)
        figures = parts.evaluate(rows, ALONE)
        if config.objective.kind == "replaced":
            with eagerly(), in_evaluation_mode(parts.model):
                unknown["discriminator"] = replaced_scores(parts.model, parts.held_out, parts.device)
    return unknown | {"cramming_rule": figures | vars(CRAMMING_RULE)}
