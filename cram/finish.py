"""The end of a run: final weights, held-out loss, receipt, export, plot and a short summary."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from safetensors.torch import save

from cram.bigram import bigram_bits_per_byte
from cram.build import RESULTS, Parts, build_held_out, evaluate_parts, model_figures
from cram.clock import Clock
from cram.config import Config, ObjectiveConfig
from cram.console import clock_time
from cram.data.shards import ShardSet
from cram.data.tokenizer import SpecialTokens, load_tokenizer
from cram.device import device_name, environment, peak_flops, peak_memory
from cram.export import export_run
from cram.held_out import BITS, CRAMMING_RULE, held_out_figures, unigram_nats, unknown_text
from cram.loop import record_evaluation
from cram.plot import plot_loss
from cram.receipt import MFU_FORMULA, Facts, mfu, rules, time_table
from cram.record import read_metrics, sha256_file, write_atomic, write_json
from cram.samples import EXAMPLES
from cram.session import Session
from cram.stock import PIPELINES, no_stock_class


def finish_run(config: Config, run: Path, session: Session, parts: Parts, shards: ShardSet) -> dict[str, Any]:
    """Write everything a finished run leaves behind and return the receipt."""
    weights = {name: tensor.cpu().contiguous() for name, tensor in session.model.state_dict().items()}
    write_atomic(run / "model.safetensors", save(weights, metadata={"format": "pt"}))
    write_atomic(run / "held_out.safetensors", parts.held_out.to_bytes())
    record_evaluation(session)
    session.metrics.close()
    held_out = read_metrics(session.metrics.path)[-1]
    unigram = unigram_nats(shards.token_counts(), parts.held_out.labels)
    receipt = make_receipt(config, run, session, shards, held_out, unigram)
    receipt["held_out"] |= further_figures(config, parts, session.clock, shards)
    plot_loss(run, unigram)
    write_json(run / "receipt.json", receipt)
    if no_stock_class(config.model.kind) is None:
        with session.clock.account("export"):
            export_run(run, run / "export")
    receipt["time"] = time_table(session.clock.state()["booked"])
    write_json(run / "receipt.json", receipt)
    return receipt


def further_figures(config: Config, parts: Parts, clock: Clock, shards: ShardSet) -> dict[str, Any]:
    """What is measured on the held-out text at the end alone.

    For a causal model the bytes' bigram baseline. For a masked one nats per token where tokens are hidden as
    Cramming's training hides them, and that rule's figures. For both the share of bytes behind the unknown token.
    """
    unknown = {"unknown_share": parts.held_out.unknown_share}
    with clock.account("evaluation"):
        tokenizer = load_tokenizer(shards.tokenizer_path)
        if config.objective.kind == "causal":
            special = SpecialTokens.of(tokenizer).ids()
            return unknown | {"bigram_bits_per_byte": bigram_bits_per_byte(shards, parts.held_out, tokenizer, special)}
        documents, seq_len = shards.held_out(), config.data.seq_len
        rows = build_held_out(documents, tokenizer, seq_len, config.evaluation, CRAMMING_RULE)
        figures = evaluate_parts(parts, rows)
    return unknown | {"cramming_rule": {"nats_per_token": figures["nats_per_token"], **vars(CRAMMING_RULE)}}


def make_receipt(
    config: Config, run: Path, session: Session, shards: ShardSet, held_out: dict[str, Any], unigram: float
) -> dict[str, Any]:
    """What makes a result believable; every field is computed from the run."""
    clock, loader = session.clock, session.loader
    update_seconds = clock.seconds("updates")
    predicted_share = session.predicted / max(clock.positions, 1)
    figures = model_figures(config, shards.vocab_size, predicted_share)
    repeated = max(0, loader.rows_taken - shards.rows)
    peak = peak_flops(session.device)
    where = environment(session.device)
    return {
        **_spent(clock, session.last_progress),
        "positions": clock.positions,
        "predicted_tokens": session.predicted,
        "updates": clock.updates,
        "epochs": loader.rows_taken / shards.rows,
        "repeated_rows": repeated,
        "data": {
            "source": config.data.source,
            "hash": shards.hash,
            "tokens": shards.tokens,
            "rows": shards.rows,
            "seq_len": shards.seq_len,
            "vocab_size": shards.vocab_size,
            **{name: shards.manifest["tokenizer"].get(name) for name in ("unknown_tokens", "lost_characters")},
        },
        "model": {"kind": config.model.kind, **figures},
        "export": f"none: {reason}" if (reason := no_stock_class(config.model.kind)) else "export/",
        "held_out": {
            **{name: held_out[name] for name in held_out_figures(config.objective.kind)},
            "unigram_nats_per_token": unigram,
            **({"mask_rate": config.evaluation.mask_rate} if config.objective.kind == "masked" else {}),
        },
        "tokens_per_second": clock.positions / max(update_seconds + clock.seconds("waiting"), 1e-9),
        "mfu": mfu(figures["flops_per_position"], clock.positions, update_seconds, peak),
        "mfu_formula": MFU_FORMULA,
        "peak_flops": peak,
        "peak_memory_bytes": peak_memory(session.device),
        "device": device_name(session.device),
        "precision": str(session.precision).removeprefix("torch."),
        "micro_rows": session.micro_rows,
        "out_of_memory_halvings": session.out_of_memory,
        "faults": asdict(session.faults),
        "compile": session.compiled,
        "threads": session.threads,
        "seed": config.seed,
        "versions": where["packages"],
        "commit": where["commit"],
        "files": {name: sha256_file(run / name) for name in RESULTS},
        "rules": rules(_facts(config, session, shards, repeated)),
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
        devices=1,
        objective=learned(config.objective),
        tokenizer_trained_here=shards.manifest["tokenizer"]["trained_here"],
        source=config.data.source,
        repeated_rows=repeated,
        held_out_documents=shards.manifest["counts"]["held_out_documents"],
        initial_weights=session.initial_weights,
        seeded_weights=session.seeded_weights,
    )


def print_summary(run: Path, receipt: dict[str, Any]) -> None:
    """What came out, beside the baseline, a few examples, and where everything lies."""
    held_out, budget = receipt["held_out"], receipt["budget"]
    nats, unigram = held_out["nats_per_token"], held_out["unigram_nats_per_token"]
    charged = sum(receipt["time"]["charged"].values())
    failed = [line["rule"] for line in receipt["rules"] if not line["passed"]]
    mfu_text = "unknown: no published peak for this device" if receipt["mfu"] is None else f"{receipt['mfu']:.1%}"
    lines = [
        ("held-out loss", f"{nats:.3f} nats per token; unigram baseline {unigram:.3f}"),
        ("", _bits_line(held_out)),
        ("trained", f"{receipt['updates']} updates, {receipt['positions'] / 1e6:.2f} M tokens in {clock_time(charged)} "
                    f"at {receipt['tokens_per_second']:,.0f} a second, {budget['progress']:.1%} of the schedule"),
        ("MFU", f"{mfu_text} ({receipt['mfu_formula']})"),
        *_lost_time(receipt),
        ("rules", f"not kept: {'; '.join(failed)}" if failed else "all kept"),
        *_result_lines(run, receipt["model"]["kind"]),
    ]  # fmt: skip
    print()
    for name, text in lines:
        print(f"{name:<14}{text}")


def _lost_time(receipt: dict[str, Any]) -> list[tuple[str, str]]:
    """Of a summary: stalls and sleep, where there were any."""
    stalls, asleep = receipt["stalls"], receipt["time"]["not_charged"]["asleep"]
    lines = []
    if stalls["number"]:
        times = "once" if stalls["number"] == 1 else f"{stalls['number']} times"
        longest = clock_time(stalls["longest_seconds"])
        lines.append(("stalled", f"{times}, {clock_time(stalls['seconds'])} of the budget, the longest {longest}"))
    if asleep and asleep >= 1.0:
        lines.append(("asleep", f"{clock_time(asleep)}, not charged"))
    return lines


def _bits_line(held_out: dict[str, Any]) -> str:
    """Of a summary: bits per byte under their own name, a baseline where there is one, and accuracy."""
    (name,) = (name for name in BITS.values() if name in held_out)
    bigram = held_out.get("bigram_bits_per_byte")
    baseline = "" if bigram is None else f" (bytes' bigram baseline {bigram:.3f})"
    left_out = unknown_text(held_out.get("unknown_share", 0.0))  # receipts did not have it always
    return f"{held_out[name]:.3f} {name.replace('_', ' ')}{baseline}, accuracy {held_out['accuracy']:.1%}{left_out}"


def _result_lines(run: Path, kind: str) -> list[tuple[str, str]]:
    """Of a summary: where everything lies and how it is used, for a model of this kind."""
    files = f"{run}/: receipt.json, metrics.jsonl, loss.png, tensorboard/, model.safetensors"
    if reason := no_stock_class(kind):
        return [("files", files), ("export", f"none: {reason}"), ("use it", f"python -m cram.evaluate run={run}")]
    task = PIPELINES[kind]
    label, examples = EXAMPLES[task]
    return [
        *((label, line) for line in examples(run / "export")),
        ("files", f"{files}, export/"),
        ("use it", f"transformers.pipeline('{task}', '{run}/export')"),
    ]
