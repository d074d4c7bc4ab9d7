"""What jobs come to: medians, the mean, the choice of a rate, departures and rules."""

import statistics
from pathlib import Path
from typing import Any, Literal

import pytest

from cram.config.commands import GlueConfig
from cram.glue.encoder import open_encoder
from cram.glue.finetune import PROTOCOLS, Setting
from cram.glue.jobs import Job, Record
from cram.glue.results import best_learning_rate, mean, mean_of_seeds, protocol, rules, scores, summary
from cram.glue.show import plot, table
from cram.glue.tasks import NINE, find_tasks

EIGHT = find_tasks([])


def value(part: str, metric: str, seed: int, rate: float) -> float:
    return 50.0 + 3 * NINE.index(part) + [0.0, 5.0, -2.0][seed] + (rate > 1e-5) + 0.5 * (metric == "accuracy")


def fill(path: Path, rates: tuple[float, ...] = (4e-5,), untrained: bool = False) -> Record:
    """A record of the eight tasks with three seeds."""
    record = Record(path / "glue.json", {})
    for task in EIGHT:
        for rate in rates:
            for seed in range(3):
                figures = {p.name: {m: value(p.name, m, seed, rate) for m in task.metrics} for p in task.parts}
                outcome: dict[str, Any] = {
                    "scores": figures, "data": "d", "began_with": "w" * 64, "train": f"rows of {task.name}",
                    "learning_rate": rate, "epochs": 5, "batch": 16,
                }  # fmt: skip
                record.outcomes[Job(task.name, rate, seed, untrained)] = outcome
    return record


def test_medians_and_the_mean_of_nine(tmp_path: Path) -> None:
    found = scores(fill(tmp_path), EIGHT, 4e-5)
    assert set(found) == set(NINE)
    rte = found["rte"]
    base = value("rte", "accuracy", 0, 4e-5)
    assert (rte["median"], rte["least"], rte["largest"]) == (base, base - 2, base + 5)
    assert rte["mean"] == pytest.approx(base + 1)
    assert found["mrpc"]["metric"] == "f1"
    assert found["mrpc"]["beside"] == {"accuracy": found["mrpc"]["median"] + 0.5}
    assert mean(found) == pytest.approx(statistics.fmean(figures["median"] for figures in found.values()))
    by_seed = mean_of_seeds(found)
    assert by_seed[1] - by_seed[0] == pytest.approx(5.0)
    assert mean({name: figures for name, figures in found.items() if name != "cola"}) is None


def test_a_nan_of_a_seed_counts_as_zero(tmp_path: Path) -> None:
    record = fill(tmp_path)
    for seed in (0, 1):
        record.outcomes[Job("stsb", 4e-5, seed)]["scores"]["stsb"]["pearson"] = None
    found = scores(record, EIGHT, 4e-5)["stsb"]
    assert (found["median"], found["not_finite"]) == (0.0, 2)


def test_the_best_rate_is_one_for_all_tasks_and_compares_what_all_have(tmp_path: Path) -> None:
    record = fill(tmp_path, (1e-5, 3e-5))
    assert best_learning_rate(record, EIGHT, [1e-5, 3e-5]) == 3e-5
    for seed in range(3):
        del record.outcomes[Job("mnli", 3e-5, seed)]
        record.outcomes[Job("mnli", 1e-5, seed)]["scores"]["mnli-m"]["accuracy"] = 100.0
    assert best_learning_rate(record, EIGHT, [1e-5, 3e-5]) == 3e-5


def test_departures_from_the_protocol(checkpoint: Path, tmp_path: Path) -> None:
    encoder = open_encoder(str(checkpoint), 128, "first")
    found = scores(fill(tmp_path), EIGHT, 4e-5)
    said = GlueConfig(limit=100, pooling="mean", dropout=0.0)
    meant = protocol(said, Setting(4e-5, 8, 3), encoder, found, ["a file is short"])
    assert meant.departures == [
        "limit=100", "batch=8", "epochs=3", "length=32", "dropout=0.0", "pooling=mean", "seeds=3", "a file is short",
    ]  # fmt: skip
    assert "head of the stock class" in meant.differences[0]
    assert "a single sentence is fed alone" in meant.differences[3]
    for outcomes in found.values():
        outcomes["seeds"] = dict.fromkeys(range(5), 1.0)
    encoder.config.max_position_embeddings = 128
    long = type(encoder)(encoder.source, "", encoder.config, encoder.tokenizer, 128, {})

    def departures(name: Literal["cramming", "bert"], *rates: float) -> list[str]:
        said = GlueConfig(protocol=name, learning_rate=list(rates))
        return protocol(said, PROTOCOLS[name], long, found, []).departures

    assert departures("cramming") == departures("cramming", 4e-5, 4e-5) == departures("bert", 2e-5) == []
    assert departures("cramming", 1e-3) == ["learning_rate=1e-3"]
    assert departures("cramming", 3e-5, 4e-5) == ["learning_rate=3e-5, 4e-5, the best on the dev sets"]
    assert departures("bert", 4.25e-5) == ["learning_rate=4.25e-5"]


def test_rules_are_computed_from_the_jobs(tmp_path: Path) -> None:
    record = fill(tmp_path)
    assert [line["passed"] for line in rules(record, 4e-5)] == [True, True, True]
    assert rules(record, 4e-5)[0]["found"].startswith("24 fine-tunings, 8 training sets for 8 tasks, from weights wwww")


@pytest.mark.parametrize(
    ("seeds", "changed", "passed", "found"),
    [
        ([0], {"train": "more rows of rte"}, [False, True, True], "or another task's, for rte"),
        ([0, 1, 2], {"train": "rows of mnli"}, [False, True, True], "or another task's, for mnli, rte"),
        ([0], {"began_with": "another"}, [False, True, True], "from weights another, weights wwww"),
        ([0, 1, 2], {"epochs": 6}, [True, False, False], "6 epochs"),
        (
            [0],
            {"batch": 32},
            [True, True, False],
            "learning rate 4e-5, batch 16, 5 epochs; learning rate 4e-5, batch 32",
        ),
        ([0, 1, 2], {"learning_rate": 3e-5}, [True, True, False], "learning rate 3e-5, batch 16, 5 epochs; learning"),
        ([0], {"epochs": 4}, [True, True, False], "batch 16, 4 epochs; learning rate 4e-5, batch 16, 5 epochs"),
    ],
)
def test_each_rule_can_be_broken(
    tmp_path: Path, seeds: list[int], changed: dict[str, Any], passed: list[bool], found: str
) -> None:
    record = fill(tmp_path)
    for seed in seeds:
        record.outcomes[Job("rte", 4e-5, seed)] |= changed
    lines = rules(record, 4e-5)
    assert [line["passed"] for line in lines] == passed
    assert found in next(line["found"] for line in lines if not line["passed"])


def test_table_and_plot_show_everything(checkpoint: Path, tmp_path: Path) -> None:
    from rich.console import Console

    record = fill(tmp_path)
    record.outcomes |= fill(tmp_path, untrained=True).outcomes
    record.outcomes[Job("rte", 4e-5, 1)]["scores"]["rte"]["accuracy"] = None
    encoder = open_encoder(str(checkpoint), 32, "first")
    meant = protocol(GlueConfig(), PROTOCOLS["cramming"], encoder, scores(record, EIGHT, 4e-5), [])
    results = summary(record, EIGHT, [4e-5], meant, dict.fromkeys(NINE, 33.0))
    assert results["majority"]["mean"] == pytest.approx(33.0)
    assert results["untrained"]["mean"] == pytest.approx(mean(scores(fill(tmp_path), EIGHT, 4e-5)))
    console = Console(width=200, record=True)
    console.print(table(results, "title"))
    text = console.export_text()
    for wanted in (
        *NINE,
        "80.9",
        "78.6",
        "80.7",
        "33.0",
        "untrained",
        "61.5 (1 not finite)",
        f"{results['mean']:.1f}",
        "mean of nine",
    ):
        assert wanted in text
    assert plot(tmp_path / "glue.png", results, "title").read_bytes().startswith(b"\x89PNG")
