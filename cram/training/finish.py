"""The end of a run: final weights, held-out loss, receipt, export and plot."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save

from cram.build import Parts, build_held_out, build_model, evaluate_parts, model_figures
from cram.clock import Clock
from cram.config.config import Config
from cram.config.training import ObjectiveConfig, OptimizerConfig
from cram.data.cleaning.held_out_split import too_few
from cram.data.shards.shards import ShardSet
from cram.data.tokenizer import SpecialTokens, load_tokenizer
from cram.evaluation.baselines import bigram_bits_per_byte
from cram.evaluation.held_out import CRAMMING_RULE, held_out_figures, unigram_nats
from cram.files.atomic import write_atomic, write_json
from cram.files.sealed import hash_files
from cram.hub.card import public_source
from cram.hub.export import export_run
from cram.hub.initial import initial_name
from cram.hub.stock import no_stock_class
from cram.machine.device import device_name, environment, peak_flops, peak_memory
from cram.reporting.curves import plot_loss
from cram.reporting.diagnosis import failure, why_not_below_unigram
from cram.run.files import HELD_OUT, RECEIPT, TOKENIZER, WEIGHTS, list_results, unlist_results
from cram.run.history import bytes_changed, extension_line
from cram.run.metrics import read_metrics
from cram.run.receipt import MFU_FORMULA, Facts, mfu, rules, time_table
from cram.training.loop import record_evaluation
from cram.training.session import Session, weights_hash


def finish_run(config: Config, run: Path, session: Session, parts: Parts, shards: ShardSet) -> dict[str, Any]:
    """Write everything a finished run leaves behind and return the receipt."""
    weights = {name: tensor.cpu().contiguous() for name, tensor in session.model.state_dict().items()}
    unlist_results(run)
    write_atomic(run / WEIGHTS, save(weights, metadata={"format": "pt"}))
    write_atomic(run / HELD_OUT, parts.held_out.to_bytes())
    record_evaluation(session)
    session.metrics.close()
    held_out = read_metrics(session.metrics.path)[-1]
    unigram = unigram_nats(shards.token_counts(), parts.held_out.labels)
    updates, nats = session.clock.updates, held_out["nats_per_token"]
    weights_finite = all(bool(tensor.isfinite().all()) for tensor in weights.values())
    last_good = updates - session.faults.in_a_row
    rates = _rates(config.optimizer)
    failed = failure(weights_finite, nats is not None, updates, last_good, rates)
    receipt = make_receipt(config, run, session, shards, held_out, unigram, failed)
    receipt["held_out"] |= further_figures(config, parts, session.clock, shards)
    if nats is not None and nats >= unigram:
        receipt["held_out"]["why_not_below_unigram"] = why_not_below_unigram(receipt, rates)
    plot_loss(run, unigram)
    _write_receipt(run, receipt)
    if receipt["export"] == "export/":
        with session.clock.account("export"):
            export_run(run, run / "export", config.card)
        receipt["time"] = time_table(session.clock.state()["booked"])
        _write_receipt(run, receipt)
    return receipt


def _write_receipt(run: Path, receipt: dict[str, Any]) -> None:
    """Write the receipt. A run that is killed meanwhile is not finished: the same command finishes it."""
    unlist_results(run)
    write_json(run / RECEIPT, receipt)
    list_results(run)


def _rates(config: OptimizerConfig) -> dict[str, float]:
    """The learning rates of a config, by key."""
    rates = {"optimizer.lr": config.lr}
    if config.embedding_lr is not None:
        rates["optimizer.embedding_lr"] = config.embedding_lr
    if (matrices := config.matrices()) is not config:
        rates[f"optimizer.{config.kind}.lr"] = matrices.lr
    return rates


def further_figures(config: Config, parts: Parts, clock: Clock, shards: ShardSet) -> dict[str, Any]:
    """What is measured on the held-out text at the end alone.

    For a causal model the bytes' bigram baseline. For a masked one nats per token where tokens are hidden as
    Cramming's training hides them, and that rule's figures. For both the share of bytes behind the unknown token.
    """
    unknown = {"unknown_share": parts.held_out.unknown_share}
    with clock.account("evaluation"):
        tokenizer = load_tokenizer(shards.tokenizer_path)
        if config.objective.held_out == "causal":
            special = SpecialTokens.of(tokenizer).ids()
            return unknown | {"bigram_bits_per_byte": bigram_bits_per_byte(shards, parts.held_out, tokenizer, special)}
        documents, seq_len = shards.held_out(), config.data.seq_len
        rows = build_held_out(documents, tokenizer, seq_len, config.evaluation, CRAMMING_RULE)
        figures = evaluate_parts(parts, rows)
    return unknown | {"cramming_rule": {"nats_per_token": figures["nats_per_token"], **vars(CRAMMING_RULE)}}


def make_receipt(
    config: Config,
    run: Path,
    session: Session,
    shards: ShardSet,
    held_out: dict[str, Any],
    unigram: float,
    failed: str | None,
) -> dict[str, Any]:
    """What makes a result believable; every field is computed from the run.

    `failed` says why it has no usable model, if it has none.
    """
    clock, loader = session.clock, session.loader
    predicted_share = session.predicted / max(clock.positions, 1)
    figures = model_figures(config, shards.vocab_size, predicted_share)
    repeated = max(0, loader.rows_taken - shards.rows)
    where = environment(session.device)
    no_export = "the run failed" if failed else no_stock_class(config.model.kind)
    return {
        "failed": failed,
        **_spent(clock, session.last_progress),
        "positions": clock.positions,
        "predicted_tokens": session.predicted,
        "updates": clock.updates,
        "epochs": loader.rows_taken / shards.rows,
        "repeated_rows": repeated,
        "data": {
            "source": public_source(config.data.source),
            "hash": shards.hash,
            "tokens": shards.tokens,
            "rows": shards.rows,
            "seq_len": shards.seq_len,
            "vocab_size": shards.vocab_size,
            **{name: shards.manifest["tokenizer"].get(name) for name in ("unknown_tokens", "lost_characters")},
        },
        "model": {"kind": config.model.kind, **figures},
        "export": f"none: {no_export}" if no_export else "export/",
        "held_out": {
            **{name: held_out[name] for name in held_out_figures(config.objective.held_out)},
            "unigram_nats_per_token": unigram,
            "too_few": too_few(*(shards.manifest["counts"][f"held_out_{unit}"] for unit in ("documents", "bytes"))),
            **({"mask_rate": config.evaluation.mask_rate} if config.objective.held_out == "masked" else {}),
        },
        **_speed(session, figures["flops_per_position"]),
        "micro_rows": session.micro_rows,
        "out_of_memory_halvings": session.out_of_memory,
        "faults": asdict(session.faults),
        "compile": session.compiled,
        "threads": session.threads,
        "processes": session.processes,
        "bytes_repeat": not bytes_changed(session.processes),
        "extensions": session.extensions,
        "init": initial_name(config),
        "seed": config.seed,
        "versions": where["packages"],
        "commit": where["commit"],
        "files": hash_files(run, (WEIGHTS, TOKENIZER, HELD_OUT)),
        "rules": rules(_facts(config, session, shards, repeated)),
    }


def _speed(session: Session, flops_per_position: float) -> dict[str, Any]:
    """Of a receipt: how fast it went, and on what."""
    clock, peak = session.clock, peak_flops(session.device)
    update_seconds = clock.seconds("updates")
    return {
        "tokens_per_second": clock.positions / max(update_seconds + clock.seconds("waiting"), 1e-9),
        "mfu": mfu(flops_per_position, clock.positions, update_seconds, peak),
        "mfu_formula": MFU_FORMULA,
        "peak_flops": peak,
        "peak_memory_bytes": peak_memory(session.device),
        "device": device_name(session.device),
        "precision": str(session.precision).removeprefix("torch."),
    }


def _spent(clock: Clock, progress: float) -> dict[str, Any]:
    """Of a receipt: the budget, where the time went, and what of it was lost."""
    spent = clock.spent()
    return {
        "budget": {
            "clock": clock.budget.clock,
            "limit": clock.budget.limit,
            "spent": spent,
            "overshoot": spent - clock.budget.limit,
            "progress": progress,
        },
        "time": time_table(clock.state()["booked"]),
        "stalls": {
            "number": clock.stalls,
            "seconds": round(clock.seconds("stalls"), 3),
            "longest_seconds": round(clock.longest_stall, 3),
        },
    }


def learned(config: ObjectiveConfig) -> str:
    """What was learned, in words: a kind, or two phases."""
    share = config.causal_share
    return f"causal for the first {share:.0%}, then {config.kind}" if share else config.kind


def _facts(config: Config, session: Session, shards: ShardSet, repeated: int) -> Facts:
    clock = session.clock
    return Facts(
        budget=clock.budget,
        charged_seconds=clock.charged(),
        stalls=clock.seconds("stalls"),
        spent=clock.spent(),
        half_update=clock.half_update(),
        devices=_devices(session),
        objective=learned(config.objective),
        tokenizer_trained_here=shards.manifest["tokenizer"]["trained_here"],
        source=config.data.source,
        repeated_rows=repeated,
        held_out_check=shards.manifest["held_out_check"],
        initial_weights=session.initial_weights,
        seeded_weights=weights_hash(build_model(config.model, shards.vocab_size, config.seed, torch.device("cpu"))),
        decontaminated=_decontaminated(config, shards),
        extensions=tuple(extension_line(facts) for facts in session.extensions),
        init=initial_name(config),
    )


def _devices(session: Session) -> list[str]:
    """A name for each device that took part: of each process' parameters, and of those the run was resumed on."""
    here = sorted({str(parameter.device) for parameter in session.model.parameters()})
    together = torch.distributed.is_available() and torch.distributed.is_initialized()
    ranks = torch.distributed.get_world_size() if together else 1
    others = [f"{name} of rank {rank}" for rank in range(1, ranks) for name in here]
    return [*session.devices, *here[1:], *others]


def _decontaminated(config: Config, shards: ShardSet) -> int | None:
    """Documents that were dropped because they share words with task files; None where none were compared."""
    if not config.data.dedupe.decontaminate:
        return None
    return int(shards.manifest["dropped"].get("decontaminate", {"documents": 0})["documents"])
