"""What a report knows of GLUE results: glue.json and probe.json, as `cram.glue` writes them."""

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cram.errors import CramError
from cram.files.sealed import read_sealed

RESULTS, PROBE = "glue.json", "probe.json"
OF_CHECKPOINTS = "glue-*"  # folders in a run folder with the results of its checkpoints
REMEDY = ". Move it away and run cram.glue again."

Scores = Mapping[str, Mapping[str, float | None]]  # by name of the score and of the metric; None is not finite


@dataclass(frozen=True)
class FineTuning:
    """One fine-tuning.

    Attributes:
        task: that was trained on.
        learning_rate, seed: of the fine-tuning.
        untrained: whether it began from random weights, as a control.
        scores: on the dev sets, in percent, the published metric first.
        loss: of the last update; None if it is not finite.
        rows, updates: of its training.
        seconds: that it took.
    """

    task: str
    learning_rate: float
    seed: int
    untrained: bool
    scores: Scores
    loss: float | None
    rows: int
    updates: int
    seconds: float


@dataclass(frozen=True)
class Score:
    """A score over seeds, in percent. A seed whose metric is not finite counts as 0, as in `cram.glue`.

    Attributes:
        name: such as `mnli-m`.
        metric: the published one.
        seeds: the score of each seed, in their order.
        beside: medians of the other metrics.
        not_finite: of how many seeds the metric is not finite.
    """

    name: str
    metric: str
    seeds: Mapping[int, float]
    beside: Mapping[str, float]
    not_finite: int

    @property
    def median(self) -> float:
        """The median over seeds, which is the published figure."""
        return statistics.median(self.seeds.values())

    @property
    def mean(self) -> float:
        """The mean over seeds."""
        return statistics.fmean(self.seeds.values())


@dataclass(frozen=True)
class Rule:
    """One of Cramming's rules on fine-tuning: whether it was kept, and what was found."""

    rule: str
    passed: bool
    found: str


@dataclass(frozen=True)
class Conclusions:
    """What `cram.glue` wrote when all fine-tunings were done.

    Attributes:
        protocol: name of the protocol.
        departures: settings and data that are not as published.
        differences: small differences that our fine-tuning always has.
        mean: of the nine medians; None unless all nine are there.
        mean_of_seeds: the mean of nine of each seed that has all nine.
        missing: scores of the nine that were not run.
        learning_rates: mean of the medians at each rate.
        majority, untrained: controls by name of the score; `untrained` is empty if there is none.
        published: rows of published scores by their name, in the order of the published table.
        rules: of Cramming.
        checkpoint: the run as it was named.
        device: that was used.
        models: path, seed and score of the saved model of each task.
        submission: path of the archive.
        filled: files of the archive that hold the majority class instead of predictions.
        wrong_counts: why the archive cannot be handed in.
    """

    protocol: str
    departures: Sequence[str]
    differences: Sequence[str]
    mean: float | None
    mean_of_seeds: Mapping[int, float]
    missing: Sequence[str]
    learning_rates: Mapping[float, float]
    majority: Mapping[str, float]
    untrained: Mapping[str, float]
    published: Mapping[str, Mapping[str, float]]
    rules: Sequence[Rule]
    checkpoint: str
    device: str
    models: Mapping[str, tuple[str, int, float]]
    submission: str
    filled: Sequence[str]
    wrong_counts: Sequence[str]


@dataclass(frozen=True)
class FrozenProbe:
    """The scores of linear models on the hidden states of a checkpoint that was not trained further.

    Attributes:
        facts: the settings, as names with values.
        rows: training rows by task.
        scores: by task.
        majority: the same for the majority class.
        untrained: the same for random weights; empty if there are none.
        remarks: how the examples are not as published.
    """

    facts: Sequence[tuple[str, str]]
    rows: Mapping[str, int]
    scores: Mapping[str, Scores]
    majority: Mapping[str, Scores]
    untrained: Mapping[str, Scores]
    remarks: Sequence[str]


@dataclass(frozen=True)
class GlueData:
    """GLUE results of a checkpoint.

    Attributes:
        folder: its path as the user wrote it.
        settings: that all fine-tunings share; empty if there is only a probe.
        fine_tunings: that are finished.
        learning_rate: the best one, which the scores are of; before the end the one of the most fine-tunings.
        scores: at that rate, in the published order.
        conclusions: None while fine-tunings are missing.
        probe: None if there is none.
        others: results of checkpoints of the same run.
    """

    folder: Path
    settings: Mapping[str, Any]
    fine_tunings: Sequence[FineTuning]
    learning_rate: float | None
    scores: Sequence[Score]
    conclusions: Conclusions | None
    probe: FrozenProbe | None
    others: Sequence["GlueData"] = ()

    @property
    def name(self) -> str:
        """The name of the folder."""
        return self.folder.resolve().name

    def missing_seeds(self) -> list[tuple[str, float, list[int]]]:
        """Task, learning rate and seeds of the fine-tunings that others of the same kind suggest."""
        trained = [one for one in self.fine_tunings if not one.untrained]
        done = {(one.task, one.learning_rate, one.seed) for one in trained}
        tasks, rates, seeds = (dict.fromkeys(values) for values in zip(*done, strict=True)) if done else ({}, {}, {})
        gaps = [
            (task, rate, [seed for seed in sorted(seeds) if (task, rate, seed) not in done])
            for task in sorted(tasks)
            for rate in sorted(rates)
        ]
        return [gap for gap in gaps if gap[2]]


def has_results(folder: Path) -> bool:
    """Whether a folder holds GLUE results."""
    return (folder / RESULTS).is_file() or (folder / PROBE).is_file()


def read_glue(folder: str | Path) -> GlueData:
    """Read GLUE results.

    Args:
        folder: of a run, or another one that `cram.glue` wrote results to.

    Raises:
        CramError: it holds no GLUE results, or damaged ones.
    """
    folder = Path(folder)
    if not has_results(folder):
        inside = sorted(path.parent.name for path in folder.glob(f"*/{RESULTS}"))
        remedy = f"Name one inside it: {', '.join(inside[:3])}." if inside else "Run cram.glue first."
        raise CramError(f"glue={folder}: no GLUE results, it has neither {RESULTS} nor {PROBE}. {remedy}")
    return _read_folder(folder, tuple(path.parent for path in sorted(folder.glob(f"{OF_CHECKPOINTS}/{RESULTS}"))))


def _read_folder(folder: Path, others: Iterable[Path] = ()) -> GlueData:
    path = folder / RESULTS
    content: dict[str, Any] = {"settings": {}, "jobs": [], "results": None}
    try:
        if path.is_file():
            content = read_sealed(path, REMEDY)
        fine_tunings = [_fine_tuning(**entry["job"], outcome=entry["outcome"]) for entry in content["jobs"]]
        conclusions = _conclude(content["results"]) if content["results"] is not None else None
        rate = content["results"]["learning_rate"] if conclusions else _usual_rate(fine_tunings)
        order = list(next(iter(conclusions.published.values()), ())) if conclusions else []
        scores, settings = _collect(fine_tunings, rate, order), dict(content["settings"])
        path = folder / PROBE
        probe = _probe(read_sealed(path, REMEDY)) if path.is_file() else None
    except CramError as error:
        raise CramError(f"glue={error}") from None
    except OSError as error:
        raise CramError(f"glue={path}: cannot be read ({error.strerror}).") from None
    except (KeyError, TypeError, AttributeError, ValueError, statistics.StatisticsError) as error:
        raise CramError(f"glue={path}: not GLUE results, or of another version ({error!r}){REMEDY}") from error
    return GlueData(
        folder, settings, fine_tunings, rate, scores, conclusions, probe, [_read_folder(other) for other in others]
    )


def _fine_tuning(task: str, learning_rate: float, seed: int, untrained: bool, outcome: Mapping[str, Any]) -> FineTuning:
    return FineTuning(
        task=task,
        learning_rate=learning_rate,
        seed=seed,
        untrained=untrained,
        scores={name: dict(metrics) for name, metrics in outcome["scores"].items()},
        loss=outcome["loss"],
        rows=outcome["rows"],
        updates=outcome["updates"],
        seconds=outcome["seconds"],
    )


def _usual_rate(fine_tunings: Sequence[FineTuning]) -> float | None:
    """The learning rate of the most fine-tunings; the first one where several have as many."""
    rates = [one.learning_rate for one in fine_tunings if not one.untrained]
    return statistics.mode(rates) if rates else None


def _collect(fine_tunings: Iterable[FineTuning], rate: float | None, order: Sequence[str]) -> list[Score]:
    """The scores at a learning rate, those of `order` first."""
    chosen = [one for one in fine_tunings if one.learning_rate == rate and not one.untrained]
    chosen.sort(key=lambda one: one.seed)
    by_name: dict[str, dict[int, Mapping[str, float | None]]] = {}
    for one in chosen:
        for name, metrics in one.scores.items():
            by_name.setdefault(name, {})[one.seed] = metrics
    names = [*(name for name in order if name in by_name), *(name for name in by_name if name not in order)]
    return [_score(name, by_name[name]) for name in names]


def _score(name: str, seeds: Mapping[int, Mapping[str, float | None]]) -> Score:
    published, *others = next(iter(seeds.values()))
    return Score(
        name=name,
        metric=published,
        seeds={seed: metrics[published] or 0.0 for seed, metrics in seeds.items()},
        beside={other: statistics.median(metrics[other] or 0.0 for metrics in seeds.values()) for other in others},
        not_finite=sum(metrics[published] is None for metrics in seeds.values()),
    )


def _conclude(results: Mapping[str, Any]) -> Conclusions:
    protocol, submission = results["protocol"], results["submission"]
    return Conclusions(
        protocol=protocol["name"],
        departures=list(protocol["departures"]),
        differences=list(protocol["differences"]),
        mean=results["mean"],
        mean_of_seeds={int(seed): mean for seed, mean in results["mean_of_seeds"].items()},
        missing=list(results["missing"]),
        learning_rates={float(rate): mean for rate, mean in results["learning_rates"].items()},
        majority=_known(results["majority"]),
        untrained=_known(results["untrained"] or {}),
        published={name: dict(row) for name, row in results["published"].items()},
        rules=[Rule(line["rule"], line["passed"], line["found"]) for line in results["rules"]],
        checkpoint=results["checkpoint"]["run"],
        device=results["device"],
        models={task: (model["path"], model["seed"], model["score"]) for task, model in results["models"].items()},
        submission=submission["path"],
        filled=list(submission["majority_class"]),
        wrong_counts=list(submission["wrong_counts"]),
    )


def _known(scores: Mapping[str, float | None]) -> dict[str, float]:
    return {name: score for name, score in scores.items() if score is not None}


def _probe(content: Mapping[str, Any]) -> FrozenProbe:
    facts = [(name, str(content[name])) for name in ("run", "pooling", "length", "limit", "device")]
    return FrozenProbe(
        facts=[(name, value) for name, value in facts if value != "None"],
        rows=dict(content["rows"]),
        scores=dict(content["scores"]),
        majority=dict(content["majority"]),
        untrained=dict(content["untrained"]),
        remarks=list(content["remarks"]),
    )
