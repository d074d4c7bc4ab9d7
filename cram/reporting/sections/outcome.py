"""What a run came to: where its time went, the rules it is judged by, and its plan beside the outcome."""

from typing import Any

from cram.clock import CHARGED
from cram.reporting.page.blocks import Block, Cell, Column, Facts, Picture, Section, Table, Text
from cram.reporting.pictures.shares import draw_shares
from cram.reporting.reading.runs import RunData, find_value
from cram.reporting.sections.formats import (
    ABSENT,
    format_fixed,
    format_seconds,
    format_share,
    format_whole,
    is_number,
)

ACCOUNTS = {
    "updates": "forward and backward passes, optimizer",
    "compilation": "compiling the model",
    "waiting": "waiting for data",
    "methods": "methods of the recipe",
    "probe": "timing shapes, micro-batches and threads",
    "crash": "work that a crash lost",
    "stalls": "what single updates took beyond three times the usual",
    "preparation": "preparing the data, or finding it prepared",
    "evaluation": "held-out loss",
    "saving": "checkpoints",
    "export": "export for Hugging Face, and its check",
    "report": "pages like this one",
    "asleep": "the machine was asleep",
    "discarded": "updates that a longer budget threw away",
}
GROUPS = {"charged": "charged", "not_charged": "not charged"}
PREDICTIONS = {
    "tokens_per_second": ("tokens per second", 0),
    "update_seconds": ("time of an update, s", 4),
    "tokens": ("tokens", 0),
    "updates": ("updates", 0),
    "nats": ("held-out loss, nats per token", 3),
}


def time_section(run: RunData) -> Section:
    """Where the time of a run went, charged to the budget and not; of an unfinished run up to its newest checkpoint."""
    time = run.time
    if not time:
        return Section("time", "Where the time went", [Text("Nothing has been written about the time yet.", "note")])
    blocks: list[Block] = []
    if run.receipt is None:
        update = format_whole(find_value(run.state, "step"))
        blocks.append(Text(f"Up to update {update}, the newest checkpoint.", "note"))
    accounts = {group: time.get(group) or {} for group in GROUPS}
    blocks += [_time_picture(accounts), _time_table(accounts)]
    if stalls := run.figure("stalls", "number"):
        longest = format_seconds(run.figure("stalls", "longest_seconds"))
        blocks.append(Text(f"Updates stalled {stalls} times, the longest for {longest}.", "note"))
    return Section("time", "Where the time went", blocks)


def _time_picture(accounts: dict[str, dict[str, Any]]) -> Picture:
    bars = [
        (GROUPS[group], {name: value for name, value in parts.items() if is_number(value) and value >= 0.0005})
        for group, parts in accounts.items()
    ]
    told = [
        f"{group}: " + ", ".join(f"{name} {format_seconds(value)}" for name, value in of.items()) for group, of in bars
    ]
    scale, unit = _time_unit(max(sum(parts.values()) for _, parts in bars))
    scaled = [(group, {name: value / scale for name, value in parts.items()}) for group, parts in bars]
    svg = draw_shares("time", scaled, unit, lambda value: format_seconds(scale * value))
    return Picture("Time by account", svg, "; ".join(told))


def _time_unit(seconds: float) -> tuple[float, str]:
    """The unit of the time axis: its seconds, and its name."""
    return (1.0, "seconds") if seconds < 300 else (60.0, "minutes") if seconds < 7200 else (3600.0, "hours")


def _time_table(accounts: dict[str, dict[str, Any]]) -> Table:
    total = sum(value for value in accounts["charged"].values() if is_number(value))
    rows, empty = [], []
    for group, parts in accounts.items():
        for name, seconds in parts.items():
            if seconds == 0:
                empty.append(name)
                continue
            share = seconds / total if is_number(seconds) and total > 0 and name in CHARGED else None
            rows.append(
                [
                    Cell(name),
                    Cell(GROUPS[group]),
                    Cell(format_seconds(seconds) if is_number(seconds) else "unknown", seconds),
                    Cell(format_share(share) if share is not None else "", share),
                    Cell(ACCOUNTS.get(name, "")),
                ]
            )
    columns = [
        Column("account"),
        Column("budget"),
        Column("time", numeric=True),
        Column("share of the charged", numeric=True),
        Column("what it is"),
    ]
    return Table(columns, rows, note=f"Nothing was booked to {', '.join(empty)}." if empty else "")


def rules_section(run: RunData) -> Section:
    """The rules of Cramming, each with what it was judged by."""
    rules = run.figure("rules")
    if not rules:
        return Section("rules", "Rules", [Text("The rules are judged when the run ends.", "note")])
    rows = [
        [
            Cell("kept" if rule["passed"] else "not kept", tone="good" if rule["passed"] else "bad"),
            Cell(rule["rule"]),
            Cell(rule["found"]),
        ]
        for rule in rules
    ]
    note = "The rules of Cramming (arXiv:2212.14034, section 2), with those on budget, repeats and held-out text added."
    columns = [Column("verdict"), Column("rule"), Column("judged by")]
    return Section("rules", "Rules", [Table(columns, rows, note=note)])


def plan_section(run: RunData) -> Section | None:
    """The plan of a run beside what came of it; None for a run that was not planned."""
    plan = run.figure("plan") or _predictions(run)
    if not plan:
        return None
    rows = []
    for name, (label, digits) in PREDICTIONS.items():
        line = plan.get(name)
        if not isinstance(line, dict):
            continue
        predicted, came, ratio = (line.get(key) for key in ("predicted", "came", "ratio"))
        texts = [format_fixed(value, digits) for value in (predicted, came)]
        ratio_text = format_fixed(ratio, 2) if is_number(ratio) else ABSENT
        cells = [Cell(text, value) for text, value in zip(texts, (predicted, came), strict=True)]
        rows.append([Cell(label), *cells, Cell(ratio_text, ratio)])
    came_word = "came" if run.receipt is not None else "so far"
    columns = [Column("figure"), *(Column(name, numeric=True) for name in ("predicted", came_word, "came / predicted"))]
    facts = [("planned for", f"{plan.get('budget')} on {plan.get('device')}")]
    note = "A dash: not predicted, or not known yet."
    return Section("plan", "Plan and outcome", [Facts(facts), Table(columns, rows, note=note, sortable=False)])


def _predictions(run: RunData) -> dict[str, Any] | None:
    """The predictions of a run that is not finished, beside its latest records; None without a plan."""
    plan, last = run.config.plan, run.last("train")
    if plan.budget is None:
        return None
    so_far = {"tokens_per_second": last.get("tokens_per_second"), "nats": run.last("held_out").get("nats_per_token")}
    so_far |= {"tokens": last.get("positions"), "updates": last.get("step")}
    # Where the run stands now says nothing yet on how good the prediction is, so there is no ratio.
    predicted = {
        name: {"predicted": getattr(plan, name), "came": so_far.get(name), "ratio": None} for name in PREDICTIONS
    }
    return {"budget": plan.budget, "device": plan.device, **predicted}
