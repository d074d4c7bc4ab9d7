"""What a finished run says: what came out, beside the baseline, a few examples, and where everything lies."""

import sys
from pathlib import Path
from typing import Any

from cram.evaluation.scores import BITS_NAMES, unknown_note
from cram.files.sealed import check_folder
from cram.hub.kinds import stock_model
from cram.run.history import describe_extension
from cram.terminal.progress import format_duration, format_tokens


def print_summary(run: Path, receipt: dict[str, Any]) -> int:
    """Say what came out, beside the baseline, a few examples, and where everything lies.

    Returns: the exit status, 1 for a run that failed.
    """
    budget = receipt["budget"]
    charged = sum(receipt["time"]["charged"].values())
    broken = [line["rule"] for line in receipt["rules"] if not line["passed"]]
    mfu_text = "unknown: no published peak for this device" if receipt["mfu"] is None else f"{receipt['mfu']:.1%}"
    lines = [
        *_loss_lines(receipt["held_out"]),
        ("trained", f"{receipt['updates']} updates, {format_tokens(receipt['positions'])} tokens "
                    f"in {format_duration(charged)} "
                    f"at {receipt['tokens_per_second']:,.0f} a second, {budget['progress']:.1%} of the schedule"),
        *(("", describe_extension(facts)) for facts in receipt["extensions"]),
        ("MFU", mfu_text),
        *_lost_time(receipt),
        ("rules", f"not kept: {'; '.join(broken)}" if broken else "all kept"),
        *_result_lines(run, receipt),
    ]  # fmt: skip
    print()
    for name, text in lines:
        print(f"{name:<14}{text}")
    failed = receipt.get("failed")  # receipts of before had neither this nor stalls
    if failed:
        print(f"cram: run={run} has no usable model: {failed}", file=sys.stderr)
    return 1 if failed else 0


def _loss_lines(held_out: dict[str, Any]) -> list[tuple[str, str]]:
    """Of a summary: the held-out loss beside the baseline, and why it is not below it where it is not."""
    nats, unigram = held_out["nats_per_token"], held_out["unigram_nats_per_token"]
    if nats is None:
        return [("held-out loss", f"not finite; unigram baseline {unigram:.3f}")]
    lines = [
        ("held-out loss", f"{nats:.3f} nats per token; unigram baseline {unigram:.3f}"),
        ("", _bits_line(held_out)),
    ]
    if few := held_out.get("too_few"):
        lines.append(("", few))
    if why := held_out.get("why_not_below_unigram"):
        lines.append(("", f"not below the baseline, which knows only how frequent each token is: {why}"))
    return lines


def _lost_time(receipt: dict[str, Any]) -> list[tuple[str, str]]:
    """Of a summary: stalls and sleep, where there were any."""
    stalls, asleep = receipt.get("stalls"), receipt["time"]["not_charged"].get("asleep")
    lines = []
    if stalls and stalls["number"]:
        often = "once" if stalls["number"] == 1 else f"{stalls['number']} times"
        longest = "" if stalls["number"] == 1 else f", the longest {format_duration(stalls['longest_seconds'])}"
        lines.append(
            ("stalled", f"{often}, for {format_duration(stalls['seconds'])}{longest}: charged, but not to the updates")
        )
    if asleep and asleep >= 1.0:
        lines.append(("asleep", f"{format_duration(asleep)}, not charged"))
    return lines


def _bits_line(held_out: dict[str, Any]) -> str:
    """Of a summary: bits per byte under their own name, a baseline where there is one, and accuracy."""
    (name,) = (name for name in BITS_NAMES.values() if name in held_out)
    bigram = held_out.get("bigram_bits_per_byte")
    baseline = "" if bigram is None else f" (bytes' bigram baseline {bigram:.3f})"
    left_out = unknown_note(held_out.get("unknown_share", 0.0))  # receipts did not have it always
    return f"{held_out[name]:.3f} {name.replace('_', ' ')}{baseline}, accuracy {held_out['accuracy']:.1%}{left_out}"


def _result_lines(run: Path, receipt: dict[str, Any]) -> list[tuple[str, str]]:
    """Of a summary: where everything lies and how it is used."""
    kind = receipt["model"]["kind"]
    files = f"{run}/: receipt.json, metrics.jsonl, loss.png, tensorboard/, model.safetensors"
    if receipt["export"] != "export/":
        use = [] if receipt.get("failed") else [("use it", f"python -m cram.evaluate run={run}")]
        return [("files", files), ("export", receipt["export"]), *use]
    check_folder(run / "export", "Remove the folder: the same command makes it again.")
    task = stock_model(kind).task
    return [
        *((task.examples_label, line) for line in task.examples(run / "export")),
        ("files", f"{files}, export/"),
        ("use it", f"transformers.pipeline('{task.pipeline}', '{run}/export')"),
    ]
