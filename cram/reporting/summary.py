"""The summary of a finished run: its loss beside the baselines, its speed, some examples, and its files."""

import sys
from pathlib import Path
from typing import Any

from cram.evaluation.halves import HALVES
from cram.evaluation.scores import BITS_NAMES, unknown_note
from cram.files.sealed import check_folder
from cram.hub.kinds import stock_model
from cram.reporting.make import REPORT
from cram.run.history import describe_extension
from cram.terminal.progress import format_duration, format_tokens

# A line has a label and a text; the label is empty where the line continues the one above.
Line = tuple[str, str]

LABEL_WIDTH = 14


def print_summary(run: Path, receipt: dict[str, Any]) -> int:
    """Print the summary of a finished run.

    Returns:
        The exit status: 1 for a run that has no usable model.

    Raises:
        CramError: where the exported folder is damaged or was edited.
    """
    lines = [
        *_loss_lines(receipt["held_out"]),
        ("trained", _training_text(receipt)),
        *(("", describe_extension(extension)) for extension in receipt["extensions"]),
        *_rank_lines(receipt),
        ("MFU", _mfu_text(receipt["mfu"])),
        *lost_time_lines(receipt),
        ("rules", _rules_text(receipt["rules"])),
        *result_lines(run, receipt),
    ]
    print()
    for label, text in lines:
        print(f"{label:<{LABEL_WIDTH}}{text}")
    failure = receipt.get("failed")  # receipts of early versions do not have it
    if failure:
        print(f"cram: run={run} has no usable model: {failure}", file=sys.stderr)
    return 1 if failure else 0


def _loss_lines(held_out: dict[str, Any]) -> list[Line]:
    """The held-out loss beside the baseline, and the reason where it is not below it."""
    nats, unigram = held_out["nats_per_token"], held_out["unigram_nats_per_token"]
    if nats is None:
        return [("held-out loss", f"not finite; unigram baseline {unigram:.3f}")]
    lines = [
        ("held-out loss", f"{nats:.3f} nats per token; unigram baseline {unigram:.3f}"),
        ("", _bits_text(held_out)),
    ]
    if all(held_out.get(half) for half in HALVES):  # receipts of early versions do not have them
        halves = [f"{held_out[half]['nats_per_token']:.3f} on the {half} half" for half in HALVES]
        lines.append(("", f"{' and '.join(halves)} of the held-out text"))
    if warning := held_out.get("too_few"):
        lines.append(("", warning))
    if reason := held_out.get("why_not_below_unigram"):
        lines.append(("", f"not below the baseline, which knows only how frequent each token is: {reason}"))
    return lines


def _bits_text(held_out: dict[str, Any]) -> str:
    """Bits per byte under the name of their kind, the bigram baseline where there is one, and accuracy."""
    (name,) = (name for name in BITS_NAMES.values() if name in held_out)
    bigram = held_out.get("bigram_bits_per_byte")
    baseline = "" if bigram is None else f" (bytes' bigram baseline {bigram:.3f})"
    note = unknown_note(held_out.get("unknown_share", 0.0))  # receipts of early versions do not have it
    return f"{held_out[name]:.3f} {name.replace('_', ' ')}{baseline}, accuracy {held_out['accuracy']:.1%}{note}"


def _training_text(receipt: dict[str, Any]) -> str:
    charged_seconds = sum(receipt["time"]["charged"].values())
    return (
        f"{receipt['updates']} updates, {format_tokens(receipt['positions'])} tokens in "
        f"{format_duration(charged_seconds)} at {receipt['tokens_per_second']:,.0f} a second, "
        f"{receipt['budget']['progress']:.1%} of the schedule"
    )


def _rank_lines(receipt: dict[str, Any]) -> list[Line]:
    """A line on the ranks, where there were several."""
    ranks = receipt.get("ranks")  # receipts of earlier versions do not have it
    if not ranks or ranks["world_size"] == 1:
        return []
    waiting = format_duration(ranks["waiting_seconds"])
    text = f"{ranks['world_size']} over {ranks['backend']}, {ranks['tokens_per_second']:,.0f} tokens a second each"
    if ranks["scaling_efficiency"] is not None:
        text += f", {ranks['scaling_efficiency']:.0%} of the passes of one alone"
    return [("ranks", f"{text}; {waiting} of waiting for each other")]


def _mfu_text(mfu: float | None) -> str:
    return "unknown: no published peak for this device" if mfu is None else f"{mfu:.1%}"


def _rules_text(rules: list[dict[str, Any]]) -> str:
    broken = [line["rule"] for line in rules if not line["passed"]]
    return f"not kept: {'; '.join(broken)}" if broken else "all kept"


def lost_time_lines(receipt: dict[str, Any]) -> list[Line]:
    """Lines on stalls and sleep, where there were any."""
    stalls = receipt.get("stalls")  # receipts of early versions do not have it
    asleep_seconds = receipt["time"]["not_charged"].get("asleep")
    lines = []
    if stalls and stalls["number"]:
        count = "once" if stalls["number"] == 1 else f"{stalls['number']} times"
        longest = "" if stalls["number"] == 1 else f", the longest {format_duration(stalls['longest_seconds'])}"
        text = f"{count}, for {format_duration(stalls['seconds'])}{longest}: charged, but not to the updates"
        lines.append(("stalled", text))
    if asleep_seconds and asleep_seconds >= 1.0:
        lines.append(("asleep", f"{format_duration(asleep_seconds)}, not charged"))
    return lines


def result_lines(run: Path, receipt: dict[str, Any]) -> list[Line]:
    """Lines on the files of the run and how to use them, after some examples of what the exported model answers.

    Raises:
        CramError: where the exported folder is damaged or was edited.
    """
    files = f"{run}/: receipt.json, metrics.jsonl, loss.png, tensorboard/, model.safetensors"
    page = [("page", f"{run / REPORT}: open it in a browser")] if (run / REPORT).is_file() else []
    if receipt["export"] != "export/":
        use = [] if receipt.get("failed") else [("use it", f"python -m cram.evaluate run={run}")]
        return [("files", files), *page, ("export", receipt["export"]), *use]
    check_folder(run / "export", "Remove the folder: the same command makes it again.")
    task = stock_model(receipt["model"]["kind"]).task
    return [
        *((task.examples_label, example) for example in receipt.get("examples", [])),  # older receipts have none
        ("files", f"{files}, export/"),
        *page,
        ("use it", f"transformers.pipeline('{task.pipeline}', '{run}/export')"),
    ]
