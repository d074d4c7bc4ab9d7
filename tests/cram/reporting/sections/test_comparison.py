"""Several runs side by side: their names, results, equal budgets, seeds, recipes, and what does not compare."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cram.config.config import Config
from cram.errors import CramError
from cram.files.sealed import write_sealed
from cram.reporting.page.blocks import Block, Cell, Chart, Fold, Picture, Section, Table, Text
from cram.reporting.reading.runs import RunData, read_run
from cram.reporting.sections.comparison import comparison_sections, tell_apart
from cram.run.checksums import register_results, write_start_files
from tests.cram.reporting.written_runs import ENVIRONMENT, held_out_record, train_record, usual_receipt, write_run

Write = Callable[..., RunData]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write a finished run with a held-out curve and read it: `nats` is its last loss, `updates` its length."""

    def write_one(
        name: str,
        nats: float = 4.5,
        updates: int = 100,
        changes: dict[str, Any] | None = None,
        data: str = "of the test",
    ) -> RunData:
        config = Config(recipe="bert_demo", run=str(tmp_path / name), budget="100s")
        for key, value in (changes or {}).items():
            *groups, last = key.split(".")
            owner: Any = config
            for group in groups:
                owner = getattr(owner, group)
            setattr(owner, last, value)
        receipt = usual_receipt()
        receipt["held_out"]["nats_per_token"] = nats
        receipt["positions"], receipt["updates"] = 4096 * updates, updates
        receipt["files"] = {"held_out.safetensors": f"set of {data}"}
        records = [train_record(step) for step in range(10, updates + 1, 10)]
        losses = [(updates // 4, nats + 2), (updates // 2, nats + 1), (updates, nats)]
        records += [held_out_record(step, loss) for step, loss in losses]
        folder = write_run(tmp_path / name, sorted(records, key=lambda record: record["step"]), receipt, config)
        if data != "of the test":
            write_start_files(folder, config, ENVIRONMENT, b"{}", data=data)
            register_results(folder)
        return read_run(folder)

    return write_one


def blocks_of(sections: Sequence[Section], name: str) -> Sequence[Block]:
    (section,) = [section for section in sections if section.name == name]
    return section.blocks


def texts(row: Sequence[Cell]) -> list[str]:
    return [cell.text for cell in row]


def first_table(blocks: Sequence[Block]) -> Table:
    return next(block for block in blocks if isinstance(block, Table))


def notes(sections: Sequence[Section]) -> list[str]:
    return [block.text for block in blocks_of(sections, "comparison") if isinstance(block, Text)]


def column(table: Table, name: str) -> list[Cell]:
    (place,) = [number for number, heading in enumerate(table.columns) if heading.name == name]
    return [row[place] for row in table.rows]


def test_folders_of_the_same_name_are_told_apart_by_what_stands_above_them() -> None:
    paths = [Path(path) for path in ("/a/x/demo", "/b/x/demo", "/b/y/demo", "/c/other")]
    assert tell_apart(paths) == ["a/x/demo", "b/x/demo", "y/demo", "other"]
    assert tell_apart([Path("/demo"), Path("/x/demo")]) == ["//demo", "x/demo"]


def test_results_are_one_table_whose_best_figures_are_marked(write: Write) -> None:
    sections = comparison_sections([write("one"), write("two", 4.0)])
    table = first_table(blocks_of(sections, "comparison"))
    assert texts(column(table, "run")) == ["one", "two"]
    losses = column(table, "held-out loss")
    assert [(cell.text, cell.order, cell.tone) for cell in losses] == [("4.500", 4.5, "plain"), ("4.000", 4.0, "good")]
    assert texts(column(table, "bits per masked byte")) == ["1.800", "1.800"]
    assert "bits per byte" not in [heading.name for heading in table.columns]
    assert texts(column(table, "tokens")) == ["410 k", "410 k"]
    assert texts(column(table, "device")) == ["A Processor"] * 2
    assert notes(sections) == []


def test_the_mean_and_the_scores_of_glue_stand_beside(write: Write) -> None:
    runs = [write("one"), write("two")]
    scores = {"cola": {"median": 44.5}, "rte": {"median": 53.75}}
    write_sealed(runs[1].folder / "glue.json", {"results": {"mean": 78.62, "scores": scores}})
    write_sealed(runs[0].folder / "glue.json", {"results": None})
    runs = [read_run(run.folder) for run in runs]
    results, glue = [block for block in blocks_of(comparison_sections(runs), "comparison") if isinstance(block, Table)]
    assert texts(column(results, "GLUE")) == ["–", "78.6"]
    assert [texts(row) for row in glue.rows] == [["two", "44.5", "53.8"]]


def test_curves_are_drawn_over_every_axis_that_all_runs_have(write: Write) -> None:
    charts = blocks_of(comparison_sections([write("one"), write("two")], "tokens"), "compared-curves")
    held_out = charts[0]
    assert isinstance(held_out, Chart)
    assert [axis.name for axis in held_out.axes] == ["tokens", "seconds", "updates", "flops"]
    assert [series.label for series in held_out.series] == ["one", "two"]


def test_losses_are_interpolated_where_the_shortest_run_ends(write: Write) -> None:
    long, short = write("long", 4.0, 200), write("short", 4.5, 70)
    table = first_table(blocks_of(comparison_sections([long, short]), "equal-budgets"))
    assert [heading.name for heading in table.columns[1:]] == [
        "at 70.0 s",
        "at 287 k tokens",
        "at 70 updates",
        "at 287 GFLOP",
    ]
    # Between 6.0 at 50 updates and 5.0 at 100, by the logarithm: log(70 / 50) / log(2) of the way.
    expected = 6.0 - 0.48542682717
    assert [row[1].order for row in table.rows] == [pytest.approx(expected), 4.5]
    assert [row[1].tone for row in table.rows] == ["plain", "good"]


def test_a_run_that_was_first_evaluated_later_has_no_loss_there(write: Write) -> None:
    table = first_table(
        blocks_of(comparison_sections([write("long", 4.0, 400), write("a", updates=40), write("b")]), "equal-budgets")
    )
    assert texts([row[1] for row in table.rows]) == ["–", "4.500", "5.822"]
    blocks = blocks_of(comparison_sections([write("long", 4.0, 400), write("a", updates=40)]), "equal-budgets")
    assert [block.text for block in blocks if isinstance(block, Text)] == [
        "The runs were not evaluated often enough to be compared at equal budgets."
    ]


def test_runs_that_differ_in_their_seed_alone_are_grouped_with_their_spread(write: Write) -> None:
    runs = [write(f"mine-seed{seed}", 4.0 + seed / 10, changes={"seed": seed}) for seed in range(3)]
    other = write("other", 5.0, changes={"optimizer.lr": 0.01})
    blocks = blocks_of(comparison_sections([*runs, other]), "seeds")
    assert [texts(row) for row in first_table(blocks).rows] == [
        ["mine", "3", "4.100", "4.000", "4.200", "0.100"],
        ["other", "1", "5.000", "5.000", "5.000", "–"],
    ]
    (picture,) = [block for block in blocks if isinstance(block, Picture)]
    assert "mine: 4.000 to 4.200" in picture.description
    assert [section.name for section in comparison_sections([runs[0], other])].count("seeds") == 0


def test_groups_of_seeds_have_different_names(write: Write) -> None:
    runs = [
        write(f"r{number}", 4.0 + number, changes={"seed": number, "optimizer.lr": 0.001 * (1 + number % 2)})
        for number in range(4)
    ]
    names = [row[0].text for row in first_table(blocks_of(comparison_sections(runs), "seeds")).rows]
    assert names == ["r0 and 1 more", "r1 and 1 more"]
    alone = write("r", changes={"optimizer.lr": 0.01})
    names = [row[0].text for row in first_table(blocks_of(comparison_sections([*runs[::2], alone]), "seeds")).rows]
    assert names == ["r0 and 1 more", "r"]


def test_the_keys_that_differ_stand_alone_and_those_of_the_machine_apart(write: Write) -> None:
    changes = {"optimizer.lr": 0.01, "threads": 3, "data.filters.max_words": 50, "compile.cuda_graphs": True}
    blocks = blocks_of(comparison_sections([write("one"), write("two", changes=changes)]), "recipe-differences")
    table, fold = blocks
    assert isinstance(table, Table) and isinstance(fold, Fold)
    assert [texts(row) for row in table.rows] == [
        ["data.filters.max_words", "null", "50"],
        ["optimizer.lr", str(Config().optimizer.lr), "0.01"],
    ]
    assert [texts(row) for row in first_table(fold.blocks).rows] == [
        ["threads", "null", "3"],
        ["compile.cuda_graphs", "false", "true"],
    ]
    assert fold.title.startswith("2 further keys differ")


def test_equal_recipes_are_said_to_be_equal(write: Write) -> None:
    (text,) = blocks_of(comparison_sections([write("one"), write("two")]), "recipe-differences")
    assert isinstance(text, Text) and text.text.startswith("The recipes are the same in every key")


def test_beyond_two_runs_what_is_as_in_the_first_is_muted(write: Write) -> None:
    runs = [write("one"), write("two", changes={"seed": 1}), write("three")]
    table = first_table(blocks_of(comparison_sections(runs), "recipe-differences"))
    assert [cell.tone for cell in table.rows[0][1:]] == ["plain", "plain", "note"]


def test_another_objective_makes_losses_incomparable(write: Write) -> None:
    causal = write("causal", 3.0, changes={"objective.kind": "causal", "model.kind": "decoder"})
    sections = comparison_sections([write("masked"), causal])
    assert notes(sections) == [
        "The losses are not comparable, because the objectives differ: masked (masked tokens); causal (the next token)."
    ]
    assert {cell.tone for cell in column(first_table(blocks_of(sections, "comparison")), "held-out loss")} == {"plain"}


def test_other_data_another_held_out_set_and_another_device_are_said(write: Write) -> None:
    one, other = write("one"), write("other", data="another")
    elsewhere = replace(write("third"), environment={"device_name": "A GPU"})
    assert notes(comparison_sections([one, other, elsewhere])) == [
        "The losses are not comparable, because the held-out sets differ: one and third; other.",
        "The training data differ: one and third; other.",
        "The devices differ, so compare over tokens or compute rather than over time: one and other (A Processor); "
        "third (A GPU).",
    ]


def test_the_best_loss_is_not_marked_where_the_held_out_sets_differ(write: Write) -> None:
    sections = comparison_sections([write("one"), write("other", 4.0, data="another")])
    for name, heading in (("comparison", "held-out loss"), ("equal-budgets", "at 100 updates")):
        assert {cell.tone for cell in column(first_table(blocks_of(sections, name)), heading)} == {"plain"}


def test_another_vocabulary_is_said_with_its_size(write: Write) -> None:
    one, two = write("one"), write("two")
    (two.folder / "tokenizer.json").write_bytes(b"other")
    write_start_files(two.folder, two.config, ENVIRONMENT, b"other", data="of the test")
    register_results(two.folder)
    assert notes(comparison_sections([one, two])) == [
        "The losses per token are not comparable, because the vocabularies differ: one (64 entries); two (64 entries). "
        "Bits per byte are comparable where the held-out text and the objective are the same."
    ]


def test_an_unfinished_and_a_failed_run_are_shown_as_far_as_they_are(write: Write, tmp_path: Path) -> None:
    unfinished = read_run(write_run(tmp_path / "open", finished=False))
    receipt = usual_receipt() | {"failed": "the weights are not finite"}
    receipt["held_out"]["nats_per_token"] = None
    failed = read_run(write_run(tmp_path / "failed", receipt=receipt))
    sections = comparison_sections([write("one"), unfinished, failed])
    assert notes(sections)[-2:] == [
        "open is not finished: the figures are those of its latest records.",
        "failed has no usable model: the weights are not finite",
    ]
    table = first_table(blocks_of(sections, "comparison"))
    assert texts(column(table, "held-out loss")) == ["4.500", "4.500", "–"]
    assert texts(column(table, "status")) == ["finished", "unfinished", "failed"]


def test_a_run_without_records_shares_no_axis(write: Write, tmp_path: Path) -> None:
    empty = read_run(write_run(tmp_path / "empty", records=[], finished=False))
    with pytest.raises(CramError, match=r"run=.*empty shares no axis with the others: it has no records of training\."):
        comparison_sections([write("one"), empty])
