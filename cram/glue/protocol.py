"""Whether results were made as published: departures from the settings, and Cramming's rules on fine-tuning."""

from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from cram.config.commands import GlueConfig
from cram.glue.finetune import PROTOCOLS, Hyperparameters
from cram.glue.pretrained import PretrainedModel
from cram.glue.results_file import Job, ResultsFile

Outcomes = dict[Job, dict[str, Any]]

PROTOCOL_LENGTH, PROTOCOL_DROPOUT, PROTOCOL_SEEDS, MOST_EPOCHS = 128, 0.1, 5, 5


@dataclass(frozen=True)
class ProtocolReport:
    """How results compare with the published protocol.

    Attributes:
        name: of the protocol.
        departures: settings and data that are not as published; the results are as published if there are none.
        differences: small differences that our fine-tuning always has.
    """

    name: str
    departures: list[str]
    differences: list[str]


def compare_with_protocol(
    config: GlueConfig,
    hyperparameters: Hyperparameters,
    pretrained: PretrainedModel,
    figures: dict[str, Any],
    remarks: Iterable[str],
) -> ProtocolReport:
    """Compare the settings behind some results with the published ones.

    Args:
        figures: of `collect_scores`.
        remarks: how the examples are not as published.
    """
    published = PROTOCOLS[config.protocol]
    settings = (
        ("limit", config.limit, None),
        ("batch", hyperparameters.batch, published.batch),
        ("epochs", hyperparameters.epochs, published.epochs),
        ("optimizer", hyperparameters.optimizer, published.optimizer),
        ("layer_decay", hyperparameters.layer_decay, published.layer_decay),
        ("length", pretrained.longest, PROTOCOL_LENGTH),
        ("dropout", config.dropout, PROTOCOL_DROPOUT),
        ("pooling", config.pooling, "first"),
    )
    departures = [f"{name}={value}" for name, value, published_value in settings if value != published_value]
    rates = learning_rates(config)
    if rates != [published.learning_rate]:
        several = ", the best on the dev sets" if len(rates) > 1 else ""
        departures.append(f"learning_rate={', '.join(map(_format_rate, rates))}{several}")
    seeds = min(len(subset["seeds"]) for subset in figures.values())
    if seeds < PROTOCOL_SEEDS:
        departures.append(f"seeds={seeds}")
    if not pretrained.dropout_settings(0.0):
        departures.append("no dropout: the class has none")
    differences = [
        "head of the stock class, not a new layer of 1024 with tanh",
        "dropout where the class has it: " + ", ".join(pretrained.dropout_settings(0.0)),
        "rows of like length share a batch",
        "a single sentence is fed alone, not beside an empty one with a separator of its own",
    ]
    return ProtocolReport(config.protocol, [*departures, *remarks], differences)


def learning_rates(config: GlueConfig) -> list[float]:
    """The learning rates to try, each once; the protocol's where the user gave none."""
    return list(dict.fromkeys(config.learning_rate)) or [PROTOCOLS[config.protocol].learning_rate]


def _format_rate(rate: float) -> str:
    """`4e-5`, with all its digits."""
    return f"{Decimal(repr(rate)):e}"


def check_rules(file: ResultsFile, learning_rate: float) -> list[dict[str, Any]]:
    """Check Cramming's rules on fine-tuning, from the jobs behind the results.

    Returns:
        A line for each rule: `rule`, `passed`, and what was `found`.

    Source: arXiv:2212.14034 section 2.
    """
    jobs = {
        job: outcome
        for job, outcome in file.outcomes.items()
        if job.learning_rate == learning_rate and not job.untrained
    }
    checks = (
        ("own task's data only", *_own_data_only(jobs)),
        (f"at most {MOST_EPOCHS} epochs", *_few_epochs(jobs)),
        ("one setting for all tasks", *_one_setting(jobs)),
    )
    return [{"rule": rule, "passed": passed, "found": found} for rule, passed, found in checks]


def _own_data_only(jobs: Outcomes) -> tuple[bool, str]:
    """Every job began with the same weights, and saw one training set, which no other task has."""
    weights = sorted({outcome["began_with"] for outcome in jobs.values()})
    training_sets: dict[str, set[str]] = {}
    for job, outcome in jobs.items():
        training_sets.setdefault(job.task, set()).add(outcome["train"])
    foreign = sorted(
        task
        for task, hashes in training_sets.items()
        if len(hashes) > 1 or any(hashes & others for other, others in training_sets.items() if other != task)
    )
    evidence = (
        f"{len(jobs)} fine-tunings, {sum(map(len, training_sets.values()))} training sets for "
        f"{len(training_sets)} tasks, from " + ", ".join(f"weights {identity[:12]}" for identity in weights)
    )
    if foreign:
        evidence += f"; several sets, or another task's, for {', '.join(foreign)}"
    return len(weights) == 1 and not foreign, evidence


def _few_epochs(jobs: Outcomes) -> tuple[bool, str]:
    most = max((outcome["epochs"] for outcome in jobs.values()), default=0)
    return most <= MOST_EPOCHS, f"{most} epochs"


def _one_setting(jobs: Outcomes) -> tuple[bool, str]:
    settings = sorted({(outcome["learning_rate"], outcome["batch"], outcome["epochs"]) for outcome in jobs.values()})
    evidence = "; ".join(
        f"learning rate {_format_rate(rate)}, batch {batch}, {epochs} epochs" for rate, batch, epochs in settings
    )
    return len(settings) == 1, evidence
