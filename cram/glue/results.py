"""The results of all jobs: medians, spread, the mean of nine, controls and published scores."""

import statistics
from collections.abc import Iterable, Sequence
from typing import Any

from cram.glue.metrics import mean_of_nine, nan_to_zero
from cram.glue.protocol import ProtocolReport, check_rules
from cram.glue.results_file import ResultsFile
from cram.glue.tasks import NINE, PUBLISHED, Task


def collect_scores(
    file: ResultsFile, tasks: Iterable[Task], learning_rate: float, untrained: bool = False
) -> dict[str, Any]:
    """Collect the figures of each subset at one learning rate.

    Returns:
        By name of the subset: the published metric over seeds (median, mean, least, largest, each seed), the medians
        of the metrics beside it, and how many seeds were not finite. Tasks without outcomes are left out.
    """
    figures = {}
    for task in tasks:
        outcomes = file.outcomes_by_seed(task.name, learning_rate, untrained)
        for subset in task.subsets if outcomes else ():
            scores = {
                name: {seed: nan_to_zero(outcome["scores"][subset.name][name]) for seed, outcome in outcomes.items()}
                for name in task.metrics
            }
            published_metric, *other_metrics = task.metrics
            values = list(scores[published_metric].values())
            figures[subset.name] = {
                "metric": published_metric,
                "median": statistics.median(values),
                "mean": statistics.fmean(values),
                "least": min(values),
                "largest": max(values),
                "seeds": scores[published_metric],
                "beside": {name: statistics.median(scores[name].values()) for name in other_metrics},
                "not_finite": sum(
                    outcome["scores"][subset.name][published_metric] is None for outcome in outcomes.values()
                ),
            }
    return figures


def mean_of_medians(figures: dict[str, Any]) -> float | None:
    """The mean of the nine medians; None unless all nine are there."""
    return mean_of_nine({name: subset["median"] for name, subset in figures.items()})


def mean_of_each_seed(figures: dict[str, Any]) -> dict[int, float]:
    """The mean of nine of each seed that has all nine."""
    seeds = dict.fromkeys(seed for subset in figures.values() for seed in subset["seeds"])
    means = {
        seed: mean_of_nine({name: subset["seeds"][seed] for name, subset in figures.items() if seed in subset["seeds"]})
        for seed in seeds
    }
    return {seed: mean for seed, mean in means.items() if mean is not None}


def mean_of_each_rate(file: ResultsFile, tasks: Sequence[Task], rates: Sequence[float]) -> dict[float, float]:
    """The mean of the medians at each learning rate, over the subsets that every rate has.

    WNLI counts only where it is alone. The mean is for choosing a rate: with fewer than nine scores it is not the
    published mean.
    """
    figures = {rate: collect_scores(file, tasks, rate) for rate in rates}
    common = [name for name in figures[rates[0]] if all(name in subsets for subsets in figures.values())]
    names = [name for name in common if name in NINE] or common
    return {rate: statistics.fmean(subsets[name]["median"] for name in names) for rate, subsets in figures.items()}


def best_learning_rate(file: ResultsFile, tasks: Sequence[Task], rates: Sequence[float]) -> float:
    """The one rate for all tasks whose medians have the best mean. Among equal means it is the first rate."""
    means = mean_of_each_rate(file, tasks, rates)
    return max(rates, key=lambda rate: means[rate])


def summarize(
    file: ResultsFile,
    tasks: Sequence[Task],
    rates: Sequence[float],
    protocol: ProtocolReport,
    majority: dict[str, float],
) -> dict[str, Any]:
    """The results as glue.json holds them.

    Args:
        majority: score of the most frequent class, by name of the subset.
    """
    means = mean_of_each_rate(file, tasks, rates)
    rate = best_learning_rate(file, tasks, rates)
    figures = collect_scores(file, tasks, rate)
    untrained = {name: subset["median"] for name, subset in collect_scores(file, tasks, rate, untrained=True).items()}
    return {
        "protocol": {
            "name": protocol.name,
            "kept": not protocol.departures,
            "departures": protocol.departures,
            "differences": protocol.differences,
        },
        "mean": mean_of_medians(figures),
        "mean_of_seeds": mean_of_each_seed(figures),
        "missing": [name for name in NINE if name not in figures],
        "learning_rate": rate,
        "learning_rates": {repr(each): means[each] for each in rates},
        "scores": figures,
        "majority": majority | {"mean": mean_of_nine(majority)},
        "untrained": untrained | {"mean": mean_of_nine(untrained)} if untrained else None,
        "published": PUBLISHED,
        "rules": check_rules(file, rate),
    }
