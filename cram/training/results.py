"""What a finished run reports: every field of its receipt, computed from the config, the session and the data."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from cram.clock import Clock
from cram.config.choices import METHODS
from cram.config.config import Config
from cram.data.cleaning.held_out_split import describe_shortage
from cram.data.shards.shards import ShardSet
from cram.evaluation.halves import HALVES
from cram.evaluation.scores import score_names
from cram.files.sealed import hash_files
from cram.hub.initial import name_initial
from cram.hub.kinds import why_not_exported
from cram.hub.snapshot import describe_data
from cram.machine.device import device_name, environment, peak_memory
from cram.model.count import model_figures
from cram.model.kinds import build_model
from cram.run.checksums import HELD_OUT, TOKENIZER, WEIGHTS
from cram.run.history import describe_changes, describe_extension
from cram.run.receipt import MFU_FORMULA, RuleInputs, compare_plan, compute_mfu, judge_rules, tabulate_time
from cram.training.rank_report import report_ranks
from cram.training.restoring import weights_hash
from cram.training.session import RunState, Session
from cram.training.threads import threads_changed


def make_receipt(
    config: Config,
    run: Path,
    session: Session,
    shards: ShardSet,
    held_out: dict[str, Any],
    unigram: float,
    failed: str | None,
    probe_seconds: float | None,
) -> dict[str, Any]:
    """Compose the receipt of a run.

    Args:
        held_out: figures of the evaluation, with None for a figure that is not finite.
        unigram: nats per token of the unigram baseline.
        failed: why the run has no usable model; None where it has one.
        probe_seconds: of an update of the plan's shape, timed again after training; None where it was not.
    """
    clock, loader, counts = session.clock, session.parts.loader, shards.manifest["counts"]
    predicted_share = session.state.predicted / max(clock.positions, 1)
    figures = model_figures(config.model, shards.vocab_size, shards.seq_len, predicted_share)
    counted = [method.repeated_rows(loader.rows_taken) for method in session.parts.methods]
    repeated = max([max(0, loader.rows_taken - loader.epoch_rows), *(number for number in counted if number)])
    machine = environment(session.parts.device)
    no_export = "the run failed" if failed else why_not_exported(config.model.kind)
    return {
        "failed": failed,
        **_spent(clock, session.state.last_progress),
        "positions": clock.positions,
        "predicted_tokens": session.state.predicted,
        "updates": clock.updates,
        "rows_read": loader.rows_taken,
        "epochs": loader.rows_taken / loader.epoch_rows,
        "repeated_rows": repeated,
        "data": _data(config, shards),
        "model": {"kind": config.model.kind, **figures},
        "export": f"none: {no_export}" if no_export else "export/",
        "held_out": {
            **{name: held_out[name] for name in (*score_names(config.objective.held_out), *HALVES)},
            "unigram_nats_per_token": unigram,
            "too_few": describe_shortage(counts["held_out_documents"], counts["held_out_bytes"]),
            **({"mask_rate": config.evaluation.mask_rate} if config.objective.held_out == "masked" else {}),
        },
        **_methods(session),
        **_speed(session),
        "ranks": report_ranks(session, _pace(session.clock)),
        "plan": _plan(config, clock, held_out["nats_per_token"], probe_seconds),
        **_updates(session.state),
        **_processes(session),
        "init": name_initial(config),
        "seed": config.seed,
        "kernels": machine["kernels"],
        "kernel_settings": machine["kernel_settings"],
        "versions": machine["packages"],
        "commit": machine["commit"],
        "files": hash_files(run, (WEIGHTS, TOKENIZER, HELD_OUT)),
        "rules": judge_rules(_rule_inputs(config, session, shards, repeated)),
    }


def _data(config: Config, shards: ShardSet) -> dict[str, Any]:
    """Compose the fields on the data and on what its tokenizer loses."""
    of_tokenizer = {name: shards.manifest["tokenizer"].get(name) for name in ("unknown_tokens", "lost_characters")}
    return describe_data(config, shards) | of_tokenizer


def _methods(session: Session) -> dict[str, Any]:
    """Compose the fields on methods: names of those that no key of the recipe names, figures, and what was executed."""
    methods = list(session.parts.methods)
    foreign = [method.name for method in methods if method.name not in METHODS]
    return {
        **({"methods": foreign} if foreign else {}),
        "method_figures": {method.name: figures for method in methods if (figures := method.figures())},
        "executed": session.parts.work.state(),
    }


def _processes(session: Session) -> dict[str, Any]:
    """The processes of the run and their threads, and whether the same run would give the same bytes."""
    state = session.state
    return {
        "threads": session.threads,
        "thread_choices": state.thread_choices,
        "processes": state.processes,
        "bytes_repeat": not describe_changes(state.processes) and not threads_changed(session),
        "extensions": state.extensions,
    }


def _updates(state: RunState) -> dict[str, Any]:
    """Compose the fields on how updates were computed and what their gradients were like."""
    return {
        "micro_rows": state.micro_rows,
        "out_of_memory_halvings": state.out_of_memory,
        "faults": asdict(state.faults),
        "noise_scale": state.noise_scale.report(),
        "compile": state.compiled,
    }


def _speed(session: Session) -> dict[str, Any]:
    """Compose the fields on speed and machine."""
    clock, parts, peak = session.clock, session.parts, session.peak_flops
    flops, update_seconds = parts.flops.training(parts.work, session.state.predicted), clock.seconds("updates")
    return {
        "tokens_per_second": _pace(clock),
        "mfu": compute_mfu(flops, update_seconds, peak),
        "mfu_formula": MFU_FORMULA,
        "peak_flops": peak,
        "peak_memory_bytes": peak_memory(session.parts.device),
        "device": device_name(session.parts.device),
        "precision": str(session.parts.precision).removeprefix("torch."),
    }


def _plan(config: Config, clock: Clock, nats: float | None, probe_seconds: float | None) -> dict[str, Any] | None:
    """Compare the plan with what came: pace and time of an update tell how far the machine itself has changed."""
    came = {
        "tokens_per_second": _pace(clock),
        "update_seconds": probe_seconds,
        "tokens": clock.positions,
        "updates": clock.updates,
        "nats": nats,
    }
    return compare_plan(config.plan, came)


def _pace(clock: Clock) -> float:
    """Compute the positions of a second, over the time of updates and of waiting for data."""
    return clock.positions / max(clock.seconds("updates") + clock.seconds("waiting"), 1e-9)


def _spent(clock: Clock, progress: float) -> dict[str, Any]:
    """Compose the fields on budget, time and stalls."""
    spent = clock.spent()
    return {
        "budget": {
            "clock": clock.budget.clock,
            "limit": clock.budget.limit,
            "spent": spent,
            "overshoot": spent - clock.budget.limit,
            "progress": progress,
        },
        "time": tabulate_time(clock.state()["booked"]),
        "stalls": {
            "number": clock.stalls,
            "seconds": round(clock.seconds("stalls"), 3),
            "longest_seconds": round(clock.longest_stall, 3),
        },
    }


def _rule_inputs(config: Config, session: Session, shards: ShardSet, repeated: int) -> RuleInputs:
    clock = session.clock
    return RuleInputs(
        budget=clock.budget,
        charged_seconds=clock.charged(),
        stalls=clock.seconds("stalls"),
        spent=clock.spent(),
        half_update=clock.half_update(),
        devices=_devices(session),
        objective=config.objective.words,
        tokenizer_trained_here=shards.manifest["tokenizer"]["trained_here"],
        source=config.data.source,
        repeated_rows=repeated,
        held_out_check=shards.manifest["held_out_check"],
        initial_weights=session.state.initial_weights,
        seeded_weights=_seeded_weights(config, session, shards),
        decontaminated=_decontaminated(config, shards),
        extensions=tuple(describe_extension(facts) for facts in session.state.extensions),
        init=name_initial(config),
    )


def _seeded_weights(config: Config, session: Session, shards: ShardSet) -> str:
    """Hash the weights that the seed gives, of the blocks that the run began with."""
    model = build_model(config.model, shards.vocab_size, config.seed, torch.device("cpu"))
    for method in session.parts.methods:
        method.shape(model)
    return weights_hash(model)


def _devices(session: Session) -> list[str]:
    """Name every device that took part: of all ranks and all processes, and those that hold parameters now."""
    present = sorted({str(parameter.device) for parameter in session.parts.model.parameters()})
    return [*session.state.devices, *present[1:]]


def _decontaminated(config: Config, shards: ShardSet) -> int | None:
    """Count the documents that were dropped because they share words with task files; None if none were compared."""
    if not config.data.dedupe.decontaminate:
        return None
    return int(shards.manifest["dropped"].get("decontaminate", {"documents": 0})["documents"])
