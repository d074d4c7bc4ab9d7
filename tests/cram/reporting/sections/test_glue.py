from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cram.reporting.page.blocks import Block, Fold, Headline, Links, Page, Picture, Table, Text
from cram.reporting.page.render import render_page
from cram.reporting.reading.glue import Conclusions, GlueData, read_glue
from cram.reporting.sections import glue_picture
from cram.reporting.sections.glue import glue_blocks, glue_sections
from cram.reporting.sections.glue_protocol import write_rate, write_scores
from tests.cram.reporting.glue_results import RATES, write_probe, write_results

HOSTILE = "<script>alert(1)</script>\u202e\x1b\"&'{{ 7 * 7 }} $x$ \\frac{"


@pytest.fixture(scope="module")
def glue(tmp_path_factory: pytest.TempPathFactory) -> GlueData:
    folder = tmp_path_factory.mktemp("glue") / "run"
    write_results(folder)
    write_probe(folder)
    return read_glue(folder)


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures take most of the time, and these tests are not about them."""
    monkeypatch.setattr(glue_picture, "draw_svg", lambda *_, **__: "<svg></svg>")


@pytest.fixture(scope="module")
def blocks(glue: GlueData) -> list[Block]:
    return blocks_of(glue)


def blocks_of(glue: GlueData) -> list[Block]:
    return [block for section in glue_sections(glue) for block in section.blocks]


def of_kind(blocks: Iterable[Block], kind: type) -> list[Any]:
    return [block for block in blocks if isinstance(block, kind)]


def table(blocks: Iterable[Block], title: str) -> dict[str, dict[str, str]]:
    """A table whose title begins so: the cells by the first cell of their row and by column."""
    (found,) = [block for block in of_kind(blocks, Table) if block.title.startswith(title)]
    names = [column.name for column in found.columns]
    return {row[0].text: dict(zip(names, [cell.text for cell in row], strict=True)) for row in found.rows}


def headline(blocks: Iterable[Block]) -> dict[str, tuple[str, str]]:
    (found,) = of_kind(blocks, Headline)
    return {figure.label: (figure.value, figure.detail) for figure in found.figures}


def conclusions_of(glue: GlueData) -> Conclusions:
    assert glue.conclusions is not None
    return glue.conclusions


def test_the_headline_compares_the_mean_of_nine_with_published_ones(glue: GlueData, blocks: list[Block]) -> None:
    figures = headline(blocks)
    conclusions = conclusions_of(glue)
    means = conclusions.mean_of_seeds.values()
    assert figures["mean of nine"] == (
        f"{conclusions.mean:.1f}",
        f"single seeds {min(means):.1f} to {max(means):.1f}",
    )
    assert figures["BERT-base"] == ("80.9", "published") and figures["crammed v2"] == ("80.4", "published")
    assert figures["protocol"] == ("cramming", "departs in 1 point")
    assert "Not finished" not in str(blocks)


@pytest.mark.usefixtures("undrawn")
def test_fewer_than_nine_scores_are_compared_with_the_same_published_ones(tmp_path: Path) -> None:
    write_results(tmp_path, ["cola", "rte"])
    figures = headline(blocks_of(read_glue(tmp_path)))
    assert figures["mean of 2 scores"] == ("71.0", "7 of the nine were not run")
    assert figures["crammed"] == (f"{(53.8 + 44.5) / 2:.1f}", "published, on the same scores")
    assert "crammed v2" not in figures


def test_scores_stand_beside_published_ones_and_controls(blocks: list[Block]) -> None:
    scores = table(blocks, "Median dev scores")
    assert scores["rte"] == {
        "score": "rte",
        "metric": "accuracy",
        "median": "71.0",
        "BERT-base": "59.2",
        "crammed": "53.8",
        "crammed v2, best of 5": "58.5",
        "untrained": "31.0",
        "majority class": "50.0",
    }
    assert scores["mean of nine"]["BERT-base"] == "80.9"
    seeds = table(blocks, "Every seed")
    assert [seeds["mrpc"][f"seed {seed}"] for seed in range(3)] == ["68.2", "70.2", "75.2"]
    assert seeds["mrpc"]["other metrics"] == "accuracy 71.0"
    assert list(seeds)[-1] == "mean of nine" and seeds["mean of nine"]["seed 2"] == "75.8"


@pytest.mark.usefixtures("undrawn")
def test_a_median_below_the_majority_class_stands_out(tmp_path: Path) -> None:
    write_results(tmp_path, ["cola", "rte"], majority={"cola": 90.0, "rte": 10.0, "mean": None})
    (found,) = [one for one in of_kind(blocks_of(read_glue(tmp_path)), Table) if one.title.startswith("Median")]
    assert {row[0].text: row[2].tone for row in found.rows} == {"cola": "warning", "rte": "plain"}
    assert found.note == "Not above the majority class: cola."


def test_how_it_was_fine_tuned(glue: GlueData, blocks: list[Block]) -> None:
    sections = {section.name: section for section in glue_sections(glue)}
    assert sections["glue-protocol"].title == "Not as published: 1 departure"
    assert "Not as published: seeds=3." in [block.text for block in of_kind(blocks, Text)]
    rates = table(blocks, "Learning rates")
    assert {rate: row["chosen"] for rate, row in rates.items()} == {"4e-5": "", "2e-4": "yes"}
    rules = table(blocks, "Cramming's rules")
    assert {row["result"] for row in rules.values()} == {"kept"}
    assert sections["glue-fine-tunings"].title == f"{8 * 9} fine-tunings"


@pytest.mark.usefixtures("undrawn")
def test_a_broken_rule_and_a_submission_of_wrong_counts_stand_out(tmp_path: Path) -> None:
    submission = {"path": "glue/submission.zip", "majority_class": [], "wrong_counts": ["RTE has 3 rows"]}
    rules = [{"rule": "at most 5 epochs", "passed": False, "found": "9 epochs"}]
    write_results(tmp_path, ["rte"], submission=submission, rules=rules)
    blocks = blocks_of(read_glue(tmp_path))
    assert table(blocks, "Cramming's rules")["at most 5 epochs"]["result"] == "broken"
    said = [block.text for block in of_kind(blocks, Text) if block.tone == "warning"]
    assert "glue/submission.zip cannot be handed in: RTE has 3 rows." in said


@pytest.mark.usefixtures("undrawn")
def test_unfinished_results_are_shown_so_far(tmp_path: Path) -> None:
    write_results(tmp_path, ["cola", "rte"], finished=False)
    blocks = blocks_of(read_glue(tmp_path))
    (said,) = [block.text for block in of_kind(blocks, Text) if block.tone == "warning"]
    assert said == (
        "Not finished: 11 fine-tunings done. The same command goes on. Missing at least rte at 2e-4: seed 2."
    )
    assert headline(blocks)["mean of 2 scores"][0] == "61.0"
    assert len(of_kind(blocks, Picture)) == 1


def test_the_probe_alone_is_shown(tmp_path: Path) -> None:
    write_probe(tmp_path)
    blocks = blocks_of(read_glue(tmp_path))
    probe = table(blocks, "Dev scores of the frozen probe")
    assert probe["stsb"]["probe"] == "pearson 40.0, spearman not finite"
    assert (probe["cola"]["majority class"], probe["stsb"]["majority class"]) == ("matthews 0.0", "")
    assert not of_kind(blocks, Headline) and not of_kind(blocks, Picture)


@pytest.mark.usefixtures("undrawn")
def test_links_are_to_files_that_are_there(tmp_path: Path) -> None:
    write_results(tmp_path, ["rte"])
    (links,) = of_kind(blocks_of(read_glue(tmp_path)), Links)
    assert [path for _, path, _ in links.files] == ["glue.json"]
    (tmp_path / "glue" / "rte-seed1").mkdir(parents=True)
    (links,) = of_kind(blocks_of(read_glue(tmp_path)), Links)
    assert [path for _, path, _ in links.files] == ["glue.json", "glue/rte-seed1"]


@pytest.mark.usefixtures("undrawn")
def test_a_run_page_has_blocks_where_there_are_results(tmp_path: Path) -> None:
    assert glue_blocks(tmp_path) == []
    write_results(tmp_path, ["cola"])
    write_probe(tmp_path)
    write_results(tmp_path / "glue-100", ["rte"])
    blocks = glue_blocks(tmp_path)
    assert len(of_kind(blocks, Headline)) == 1
    assert [fold.title for fold in of_kind(blocks, Fold)] == [
        "Not as published: 1 departure",
        "9 fine-tunings",
        "The frozen probe",
        "The checkpoint glue-100",
    ]
    (tmp_path / "glue.json").write_text("{}")
    (said,) = glue_blocks(tmp_path)
    assert isinstance(said, Text) and said.tone == "bad" and "damaged" in said.text


def test_words_of_strangers_are_shown_as_they_are(glue: GlueData) -> None:
    conclusions = replace(
        conclusions_of(glue),
        checkpoint=HOSTILE,
        protocol=HOSTILE,
        departures=[HOSTILE],
        differences=[HOSTILE],
        device=HOSTILE,
        published={HOSTILE: {score.name: 50.0 for score in glue.scores}},
    )
    scores = [replace(score, name=HOSTILE, metric=HOSTILE) for score in glue.scores[:3]]
    sections = glue_sections(replace(glue, conclusions=conclusions, scores=scores, settings={HOSTILE: HOSTILE}))
    page = render_page(Page("glue", sections, 0.0))
    assert "<script>alert" not in page and "&lt;script&gt;alert(1)" in page
    assert "\u202e" not in page and "\x1b" not in page


def test_rates_and_scores_in_words() -> None:
    assert [write_rate(rate) for rate in (*RATES, 1.25e-5)] == ["4e-5", "2e-4", "1.25e-5"]
    scores = {"mnli-m": {"accuracy": 84.04}, "mnli-mm": {"accuracy": None}}
    assert write_scores(scores) == "mnli-m: accuracy 84.0; mnli-mm: accuracy not finite"
