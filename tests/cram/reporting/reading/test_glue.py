import json
from pathlib import Path

import pytest

from cram.errors import CramError
from cram.files.sealed import write_sealed
from cram.glue.tasks import NINE, PUBLISHED
from cram.reporting.reading.glue import read_glue
from tests.cram.reporting.glue_results import RATES, write_probe, write_results


def test_scores_are_those_of_the_results(tmp_path: Path) -> None:
    """The reader computes the scores from the fine-tunings, also of a file that has no results yet."""
    write_results(tmp_path)
    glue = read_glue(tmp_path)
    results = json.loads((tmp_path / "glue.json").read_text())["results"]
    assert glue.learning_rate == results["learning_rate"] == RATES[1]
    assert [score.name for score in glue.scores] == list(NINE)
    for score in glue.scores:
        expected = results["scores"][score.name]
        assert (score.metric, score.median, score.mean) == (expected["metric"], expected["median"], expected["mean"])
        assert {str(seed): value for seed, value in score.seeds.items()} == expected["seeds"]
        assert (score.beside, score.not_finite) == (expected["beside"], expected["not_finite"])


def test_a_metric_that_is_not_finite_counts_as_zero(tmp_path: Path) -> None:
    file = write_results(tmp_path, ["stsb"], finished=False)
    next(iter(file.outcomes.values()))["scores"]["stsb"] = {"pearson": None, "spearman": None}
    file.write(None)
    (score,) = read_glue(tmp_path).scores
    assert (score.seeds[0], score.not_finite) == (0.0, 1)


def test_conclusions_are_read(tmp_path: Path) -> None:
    write_results(tmp_path)
    conclusions = read_glue(tmp_path).conclusions
    assert conclusions is not None
    assert conclusions.mean == pytest.approx(70.0, abs=2)
    assert sorted(conclusions.mean_of_seeds) == [0, 1, 2] and list(conclusions.learning_rates) == list(RATES)
    assert conclusions.published == PUBLISHED
    assert conclusions.untrained["cola"] < 40 and conclusions.majority["cola"] == 50.0
    assert [rule.passed for rule in conclusions.rules] == [True, True, True]


def test_unfinished_results_name_what_is_missing(tmp_path: Path) -> None:
    file = write_results(tmp_path, ["cola", "rte"], finished=False)
    file.outcomes = dict(reversed(file.outcomes.items()))  # as of seeds that were added later
    file.write(None)
    glue = read_glue(tmp_path)
    assert glue.conclusions is None and len(glue.fine_tunings) == 11
    assert glue.missing_seeds() == [("rte", RATES[1], [2])]
    assert glue.learning_rate == RATES[0]
    assert {score.name: list(score.seeds) for score in glue.scores} == {"cola": [0, 1, 2], "rte": [0, 1, 2]}


def test_finished_results_miss_nothing(tmp_path: Path) -> None:
    write_results(tmp_path, ["cola"])
    assert read_glue(tmp_path).missing_seeds() == []


def test_a_probe_alone_and_results_of_checkpoints_are_read(tmp_path: Path) -> None:
    write_probe(tmp_path)
    write_results(tmp_path / "glue-200", ["cola"])
    write_results(tmp_path / "glue-100", ["cola"], finished=False)
    glue = read_glue(tmp_path)
    assert glue.probe is not None and glue.fine_tunings == [] and glue.scores == []
    assert ("pooling", "mean") in glue.probe.facts and "limit" not in dict(glue.probe.facts)
    assert [other.name for other in glue.others] == ["glue-100", "glue-200"]


@pytest.mark.parametrize("name", ["glue.json", "probe.json"])
def test_damaged_results_are_refused(tmp_path: Path, name: str) -> None:
    write_results(tmp_path, ["cola"])
    write_probe(tmp_path)
    path = tmp_path / name
    whole = path.read_text()
    path.write_text(whole[: len(whole) // 2])
    with pytest.raises(CramError, match=rf"^glue=\S+/{name}: not a readable JSON file"):
        read_glue(tmp_path)
    path.write_text(whole.replace("8551", "8552").replace("0.5", "0.6"))
    with pytest.raises(CramError, match=rf"^glue=\S+/{name}: damaged or edited, .* Move it away and run cram.glue ag"):
        read_glue(tmp_path)
    write_sealed(path, {"settings": {}, "jobs": [{}], "results": None})
    with pytest.raises(CramError, match=rf"^glue=\S+/{name}: not GLUE results, or of another version \(KeyError"):
        read_glue(tmp_path)


def test_folders_without_results_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CramError, match=r"^glue=\S+: no GLUE results, it has neither glue.json nor probe.json. Run cr"):
        read_glue(tmp_path)
    with pytest.raises(CramError, match=r"^glue=\S+/none: no GLUE results"):
        read_glue(tmp_path / "none")
    write_results(tmp_path / "run", ["cola"])
    with pytest.raises(CramError, match=r"Name one inside it: run\.$"):
        read_glue(tmp_path)
