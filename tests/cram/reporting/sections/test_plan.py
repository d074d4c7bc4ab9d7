"""The section on a plan: the choice, the predictions, and the candidates where their file is there."""

from dataclasses import replace
from pathlib import Path

import pytest

from cram.config.config import Config
from cram.reporting.page.blocks import Code, Facts, Fold, Headline, Picture, Table, Text
from cram.reporting.reading.plans import PlanData
from cram.reporting.sections.plan import plan_sections
from tests.cram.planner.test_plan_file import written


@pytest.fixture
def plan() -> PlanData:
    """A plan with all that is known of it."""
    config = Config(recipe="bert_auto")
    predictions = replace(config.plan, budget="10s", device="Some CPU", tokens=409_600, updates=100, nats=4.5)
    config = replace(config, plan=replace(predictions, keep=["model.layers"], tokens_per_second=40_960.0))
    return PlanData(Path("folder/mine.yaml"), config, written())


@pytest.fixture
def no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures are not drawn, which saves a tenth of a second each."""
    monkeypatch.setattr("cram.reporting.sections.plan.draw_svg", lambda name, *_, **__: name)


@pytest.mark.usefixtures("no_pictures")
def test_the_choice_and_its_predictions_stand_first(plan: PlanData) -> None:
    section = plan_sections(plan)[0]
    headline, note, command, chosen = section.blocks
    assert isinstance(headline, Headline) and isinstance(note, Text) and isinstance(chosen, Facts)
    assert [(figure.label, figure.value) for figure in headline.figures] == [
        ("budget", "10s"),
        ("model", "81.9 k"),
        ("predicted held-out loss", "4.500"),
        ("tokens", "410 k"),
        ("updates", "100"),
        ("speed", "40,960"),
    ]
    assert headline.figures[2].detail == "unigram baseline 6.500"
    assert note.text == (
        "Chosen among 9 shapes, 3 of them timed here, by the rule of tokens per parameter, because no fitted law "
        "covers such runs. Seconds of an update: timed in this run, off by 5.0% at shapes left out."
    )
    assert command == Code("python -m cram.train recipe=folder/mine.yaml", "Run it")
    facts = dict(chosen.facts)
    assert facts["model.layers"].endswith("(given, not planned)") and facts["batch.start_tokens"] == "null"


def test_candidates_are_drawn_and_listed_with_the_choice_first(plan: PlanData) -> None:
    picture, best, fold = plan_sections(plan)[1].blocks
    assert isinstance(picture, Picture) and isinstance(best, Table) and isinstance(fold, Fold)
    assert picture.title == "Tokens per parameter of the best candidate of each size"
    assert "One Epoch's rule" in picture.svg
    assert len(best.rows) == 3 and best.rows[0][0].tone == "good"
    assert fold.title == "The other 6 candidates"
    paces = [heading.name for heading in best.columns].index("speed")
    assert "0" in [row[paces].text for row in best.rows]  # a shape that did not fit into memory


def test_a_predicted_loss_is_drawn_where_a_law_covers_the_plan(plan: PlanData) -> None:
    assert plan.written is not None
    candidates = tuple(
        replace(candidate, relative_loss=0.7 + number / 100)
        for number, candidate in enumerate(plan.written.plan.candidates)
    )
    by_law = replace(plan.written.plan, candidates=candidates, chosen=candidates[0], by_law=True)
    picture, best, _ = plan_sections(replace(plan, written=replace(plan.written, plan=by_law)))[1].blocks
    assert isinstance(picture, Picture) and isinstance(best, Table)
    assert picture.title.startswith("Predicted loss") and "unigram baseline (6.500)" in picture.svg
    loss = [heading.name for heading in best.columns].index("predicted loss")
    assert best.rows[0][loss].text == "4.550"


@pytest.mark.usefixtures("no_pictures")
def test_too_little_data_is_said(plan: PlanData) -> None:
    assert plan.written is not None
    note = plan_sections(replace(plan, written=replace(plan.written, available=1000)))[0].blocks[2]
    assert isinstance(note, Text) and note.tone == "warning" and note.text.startswith("The data holds 1,000 tokens")


def test_without_candidates_the_recipe_alone_is_shown(plan: PlanData) -> None:
    (section,) = plan_sections(replace(plan, written=None))
    assert isinstance(section.blocks[1], Text)
    assert section.blocks[1].text == (
        "The candidates are not known: mine.json is not beside the recipe. Plan again to get it."
    )
