"""What the jobs come to: medians, spread, the mean of nine, controls, published rows and rules."""

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from cram.config.commands import GlueConfig
from cram.glue.encoder import Encoder
from cram.glue.finetune import PROTOCOLS, Setting
from cram.glue.jobs import Record
from cram.glue.metrics import counted, mean_of_nine
from cram.glue.tasks import NINE, PUBLISHED, Task

PROTOCOL_LENGTH, PROTOCOL_DROPOUT, PROTOCOL_SEEDS, MOST_EPOCHS = 128, 0.1, 5, 5


def scores(record: Record, tasks: Iterable[Task], learning_rate: float, untrained: bool = False) -> dict[str, Any]:
    """Figures of each part at one learning rate: of the published metric over seeds, and medians of those beside it."""
    found = {}
    for task in tasks:
        outcomes = record.seeds(task.name, learning_rate, untrained)
        for part in task.parts if outcomes else ():
            of_metric = {
                name: {seed: counted(outcome["scores"][part.name][name]) for seed, outcome in outcomes.items()}
                for name in task.metrics
            }
            headline, *beside = task.metrics
            values = list(of_metric[headline].values())
            found[part.name] = {
                "metric": headline,
                "median": statistics.median(values),
                "mean": statistics.fmean(values),
                "least": min(values),
                "largest": max(values),
                "seeds": of_metric[headline],
                "beside": {name: statistics.median(of_metric[name].values()) for name in beside},
                "not_finite": sum(o["scores"][part.name][headline] is None for o in outcomes.values()),
            }
    return found


def mean(found: dict[str, Any]) -> float | None:
    """The mean of the nine medians; None unless all are there."""
    return mean_of_nine({name: figures["median"] for name, figures in found.items()})


def mean_of_seeds(found: dict[str, Any]) -> dict[int, float]:
    """The mean of nine of each seed that has all nine."""
    seeds = dict.fromkeys(seed for figures in found.values() for seed in figures["seeds"])
    means = {
        seed: mean_of_nine({name: f["seeds"][seed] for name, f in found.items() if seed in f["seeds"]})
        for seed in seeds
    }
    return {seed: value for seed, value in means.items() if value is not None}


def means_of_rates(record: Record, tasks: Sequence[Task], rates: Sequence[float]) -> dict[float, float]:
    """Mean of the medians at each learning rate, over the parts that all rates have, WNLI only where it is alone.

    To choose by: with fewer than the nine scores it is no mean to publish.
    """
    found = {rate: scores(record, tasks, rate) for rate in rates}
    common = [name for name in found[rates[0]] if all(name in of_rate for of_rate in found.values())]
    counting = [name for name in common if name in NINE] or common
    return {rate: statistics.fmean(of_rate[name]["median"] for name in counting) for rate, of_rate in found.items()}


def best_learning_rate(record: Record, tasks: Sequence[Task], rates: Sequence[float]) -> float:
    """The one rate for all tasks whose medians have the best mean; the first of equals."""
    means = means_of_rates(record, tasks, rates)
    return max(rates, key=lambda rate: means[rate])


@dataclass(frozen=True)
class Protocol:
    """The published settings that were meant, what departs from them, and what always differs a little."""

    name: str
    departures: list[str]
    differences: list[str]


def protocol(
    said: GlueConfig, setting: Setting, encoder: Encoder, found: dict[str, Any], remarks: Iterable[str]
) -> Protocol:
    """What of the results is as published, and what is not.

    Args:
        found: the figures of `scores`.
        remarks: how the rows are not as published.
    """
    meant = PROTOCOLS[said.protocol]
    wanted = (
        ("limit", said.limit, None),
        ("batch", setting.batch, meant.batch),
        ("epochs", setting.epochs, meant.epochs),
        ("length", encoder.longest, PROTOCOL_LENGTH),
        ("dropout", said.dropout, PROTOCOL_DROPOUT),
        ("pooling", said.pooling, "first"),
    )
    departures = [f"{name}={value}" for name, value, published in wanted if value != published]
    rates = list(dict.fromkeys(said.learning_rate)) or [meant.learning_rate]
    if rates != [meant.learning_rate]:
        several = ", the best on the dev sets" if len(rates) > 1 else ""
        departures.append(f"learning_rate={', '.join(map(_written, rates))}{several}")
    seeds = min(len(figures["seeds"]) for figures in found.values())
    if seeds < PROTOCOL_SEEDS:
        departures.append(f"seeds={seeds}")
    if not encoder.dropouts(0.0):
        departures.append("no dropout: the class has none")
    differences = [
        "head of the stock class, not a new layer of 1024 with tanh",
        "dropout where the class has it: " + ", ".join(encoder.dropouts(0.0)),
        "rows of like length share a batch",
        "a single sentence is fed alone, not beside an empty one with a separator of its own",
    ]
    return Protocol(said.protocol, [*departures, *remarks], differences)


def _written(rate: float) -> str:
    """`4e-5`, with all its digits."""
    return f"{Decimal(repr(rate)):e}"


def rules(record: Record, learning_rate: float) -> list[dict[str, Any]]:
    """A line for each of Cramming's rules on fine-tuning, from the jobs behind the result: `rule`, `passed`, `found`.

    Source: arXiv:2212.14034 section 2.
    """
    used = [
        (job, outcome)
        for job, outcome in record.outcomes.items()
        if job.learning_rate == learning_rate and not job.untrained
    ]
    starts = {outcome["began_with"] for _, outcome in used}
    rows: dict[str, set[str]] = {}
    for job, outcome in used:
        rows.setdefault(job.task, set()).add(outcome["train"])
    foreign = sorted(
        task
        for task, own in rows.items()
        if len(own) > 1 or any(own & others for other, others in rows.items() if other != task)
    )
    most = max((outcome["epochs"] for _, outcome in used), default=0)
    settings = sorted({(outcome["learning_rate"], outcome["batch"], outcome["epochs"]) for _, outcome in used})
    lines = [
        (
            "own task's data only",
            len(starts) == 1 and not foreign,
            f"{len(used)} fine-tunings, {sum(map(len, rows.values()))} training sets for {len(rows)} tasks, from "
            + ", ".join(f"weights {start[:12]}" for start in sorted(starts))
            + (f"; several sets, or another task's, for {', '.join(foreign)}" if foreign else ""),
        ),
        (f"at most {MOST_EPOCHS} epochs", most <= MOST_EPOCHS, f"{most} epochs"),
        (
            "one setting for all tasks",
            len(settings) == 1,
            "; ".join(
                f"learning rate {_written(rate)}, batch {batch}, {epochs} epochs" for rate, batch, epochs in settings
            ),
        ),
    ]
    return [{"rule": rule, "passed": passed, "found": found} for rule, passed, found in lines]


def summary(
    record: Record, tasks: Sequence[Task], rates: Sequence[float], meant: Protocol, majority: dict[str, float]
) -> dict[str, Any]:
    """The results as glue.json has them.

    Args:
        majority: score of the majority class, by part.
    """
    rate = best_learning_rate(record, tasks, rates)
    found = scores(record, tasks, rate)
    means = means_of_rates(record, tasks, rates)
    untrained = {name: figures["median"] for name, figures in scores(record, tasks, rate, untrained=True).items()}
    return {
        "protocol": {
            "name": meant.name,
            "kept": not meant.departures,
            "departures": meant.departures,
            "differences": meant.differences,
        },
        "mean": mean(found),
        "mean_of_seeds": mean_of_seeds(found),
        "missing": [name for name in NINE if name not in found],
        "learning_rate": rate,
        "learning_rates": {repr(each): means[each] for each in rates},
        "scores": found,
        "majority": majority | {"mean": mean_of_nine(majority)},
        "untrained": untrained | {"mean": mean_of_nine(untrained)} if untrained else None,
        "published": PUBLISHED,
        "rules": rules(record, rate),
    }
