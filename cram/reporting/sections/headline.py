"""The headline of a run: what it reached, in what time, on how many tokens, and where it comes from."""

from datetime import UTC, datetime
from typing import Any

from cram.evaluation.halves import HALVES
from cram.reporting.page.blocks import Block, Cell, Column, Facts, Figure, Fold, Headline, Section, Table, Text, Tone
from cram.reporting.reading.runs import RunData, find_value
from cram.reporting.sections.formats import (
    format_fixed,
    format_flops,
    format_large,
    format_seconds,
    format_share,
    format_whole,
    is_number,
)

BITS = {"bits_per_byte": "bits per byte", "bits_per_masked_byte": "bits per masked byte"}


def headline_section(run: RunData) -> Section:
    """What a run reached or, before its end, where it is."""
    return Section(
        "headline",
        "Result" if run.receipt is not None else "So far",
        [*_status(run), Headline(headline_figures(run)), *_remarks(run)],
    )


def headline_figures(run: RunData) -> list[Figure]:
    """The figures of a run that a reader looks for first, on its page and on the model card of its export."""
    return [*_score_figures(run), *_cost_figures(run)]


def origin_section(run: RunData) -> Section:
    """Where a run comes from: device, data, versions, commit, seed."""
    packages = run.figure("versions") or run.environment.get("packages") or {}
    rows = [[Cell(name), Cell(str(version))] for name, version in packages.items()]
    versions = Fold("Versions of all packages", [Table([Column("package"), Column("version")], rows)])
    return Section("origin", "Origin", [Facts(_origin(run)), versions])


def _status(run: RunData) -> list[Block]:
    if run.status == "failed":
        return [Text(f"This run has no usable model: {run.figure('failed')}", "bad")]
    if run.receipt is not None:
        return []
    progress = run.last("train").get("progress")
    done = f"{format_share(progress)} of its schedule is done" if is_number(progress) else "no update has been logged"
    missing = "The final loss, the rules, the export and its examples come when the run ends."
    if run.status == "running":
        return [Text(f"The run goes on: {done}. {missing}", "note")]
    return [
        Text(f"The run is not finished: {done}. The same command continues it.", "warning"),
        Text(missing, "note"),
    ]


def held_out_scores(run: RunData) -> dict[str, Any]:
    """The scores on held-out text, of the receipt or before the end of the last evaluation; empty before the first."""
    scores: dict[str, Any] = run.figure("held_out") or run.last("held_out")
    return scores


def _score_figures(run: RunData) -> list[Figure]:
    scores = held_out_scores(run)
    nats, unigram = scores.get("nats_per_token"), scores.get("unigram_nats_per_token")
    if not scores:
        loss = run.last("train").get("loss")
        return [Figure("training loss", format_fixed(loss), "nats per token", "no held-out text was scored yet")]
    tone: Tone = "plain"
    detail = f"at update {format_whole(scores.get('step'))}" if run.receipt is None else ""
    if is_number(unigram):
        detail = f"unigram baseline {format_fixed(unigram)}"
        tone = "good" if is_number(nats) and nats < unigram else "bad"
    figures = [Figure("held-out loss", format_fixed(nats), "nats per token", detail, tone)]
    for name, label in BITS.items():
        if name in scores:
            bigram = scores.get("bigram_bits_per_byte")
            beside = f"bigram baseline of bytes {format_fixed(bigram)}" if is_number(bigram) else ""
            figures.append(Figure(f"held-out {label}", format_fixed(scores[name]), "", beside))
    predicted = f"of {format_whole(scores.get('predicted_tokens'))} predicted tokens"
    accuracy = scores.get("accuracy")
    figures.append(Figure("accuracy", format_share(accuracy).removesuffix("%"), "%", predicted))
    if is_number(mean := find_value(run.glue, "results", "mean")):
        figures.append(Figure("GLUE", format_fixed(mean, 1), "", "mean of the tasks"))
    return figures


def _cost_figures(run: RunData) -> list[Figure]:
    """Time, tokens, speed and size."""
    last = run.last("train")
    charged = run.figure("time", "charged") or {}
    seconds = sum(filter(is_number, charged.values())) if charged else last.get("charged_seconds")
    tokens = run.figure("positions") if run.receipt is not None else last.get("positions")
    updates = run.figure("updates") if run.receipt is not None else last.get("step")
    pace = run.figure("tokens_per_second") if run.receipt is not None else last.get("tokens_per_second")
    mfu = run.figure("mfu") if run.receipt is not None else last.get("mfu")
    utilisation = f"{format_share(mfu)} of the device's peak" if is_number(mfu) else "peak of the device not published"
    return [
        Figure("time charged", format_seconds(seconds), "", f"of a budget of {_budget(run)}"),
        Figure("tokens seen", format_large(tokens), "", f"{format_whole(updates)} updates"),
        Figure("throughput", format_whole(pace), "tokens per second", utilisation),
        *_model_figures(run),
        *_price_figures(run),
    ]


def _price_figures(run: RunData) -> list[Figure]:
    """What the run has cost, where the reader has given a price."""
    if run.cost is None:
        return []
    detail = f"{run.machine_hours:.3g} hours at {run.price:g} an hour, charged or not, without preparation"
    return [Figure("cost", format_fixed(run.cost, 2), "", detail)]


def _model_figures(run: RunData) -> list[Figure]:
    parameters, flops = run.figure("model", "parameters"), run.last("train").get("flops")
    figures = []
    if is_number(parameters):
        without = format_large(run.figure("model", "parameters_without_embedding"))
        figures.append(Figure("parameters", format_large(parameters), "", f"{without} without the embedding"))
    if is_number(flops):
        value, unit = format_flops(flops).split()
        figures.append(Figure("computed", value, unit, "forward and backward passes"))
    return figures


def _budget(run: RunData) -> str:
    processes = run.told("processes") or []
    return str(processes[-1].get("budget", run.config.budget)) if processes else run.config.budget


def _remarks(run: RunData) -> list[Block]:
    """Warnings on the held-out loss, and the same loss by other rules."""
    held_out = run.figure("held_out") or {}
    remarks: list[Block] = []
    if too_few := held_out.get("too_few"):
        remarks.append(Text(f"{too_few}.", "warning"))
    if reason := held_out.get("why_not_below_unigram"):
        remarks.append(
            Text(f"Not below the baseline, which knows only how frequent each token is: {reason}.", "warning")
        )
    facts = []
    if is_number(mask_rate := held_out.get("mask_rate")):
        facts.append(("scored with", f"{format_share(mask_rate)} of the tokens masked"))
    if rule := held_out.get("cramming_rule"):
        label = f"loss with Cramming's masks, {format_share(rule.get('rate'))} of the tokens"
        facts.append((label, f"{format_fixed(rule.get('nats_per_token'))} nats per token"))
    for half in HALVES:
        if scores := held_out.get(half):
            facts.append((f"loss on the {half} half", f"{format_fixed(scores.get('nats_per_token'))} nats per token"))
    if is_number(unknown := held_out.get("unknown_share")):
        facts.append(("bytes behind the unknown token, not counted", format_share(unknown, 2)))
    if facts:
        remarks.append(Facts(facts))
    if positions := held_out.get("by_position"):
        remarks.append(Fold("Loss by the length of the context", [_position_table(positions)]))
    return remarks


def _position_table(positions: list[dict[str, Any]]) -> Table:
    rows = [
        [
            Cell(f"{line['least']} to {line['most']}", line["least"]),
            Cell(format_fixed(line["nats_per_token"]), line["nats_per_token"]),
            Cell(format_whole(line["predicted_tokens"]), line["predicted_tokens"]),
        ]
        for line in positions
    ]
    names = ("tokens before", "nats per token", "predicted tokens")
    return Table([Column(name, numeric=True) for name in names], rows)


def _origin(run: RunData) -> list[tuple[str, str]]:
    environment = run.environment
    began = next((record["time"] for record in run.records if is_number(record.get("time"))), None)
    ended = next((record["time"] for record in reversed(run.records) if is_number(record.get("time"))), None)
    data = run.figure("data") or {}
    facts = [
        ("recipe", run.config.recipe or "the defaults"),
        ("device", f"{run.figure('device') or environment.get('device_name')}"),
        ("cores", str(environment.get("cores"))),
        ("number format", run.figure("precision") or run.config.precision),
        ("commit", str(run.figure("commit") or environment.get("commit") or "unknown")),
        ("versions", ", ".join(f"{name} {version}" for name, version in _main_versions(run).items())),
        ("seed", str(run.config.seed)),
        ("text", run.config.data.source),
    ]
    if data:
        facts.append(("tokens of the data", f"{format_whole(data.get('tokens'))}, hash {str(data.get('hash'))[:12]}"))
        facts.append(("epochs", f"{format_fixed(run.figure('epochs'))}, {run.figure('repeated_rows')} rows repeated"))
        facts.append(("vocabulary", f"{format_whole(data.get('vocab_size'))} tokens, rows of {data.get('seq_len')}"))
    if run.figure("init"):
        facts.append(("initial weights", str(run.figure("init"))))
    if began is not None and ended is not None:
        facts.append(("trained", f"{_date(began)} to {_date(ended)}"))
    return facts


def _main_versions(run: RunData) -> dict[str, Any]:
    packages = run.figure("versions") or run.environment.get("packages") or {}
    python = {"python": run.environment["python"]} if "python" in run.environment else {}
    return python | {name: packages[name] for name in ("cram", "torch", "triton") if name in packages}


def _date(seconds: float) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M} UTC"
