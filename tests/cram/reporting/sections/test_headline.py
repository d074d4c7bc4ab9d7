"""The headline: scores beside their baselines, costs, and what is said of a run that is not finished or has failed."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from cram.files.sealed import write_sealed
from cram.reporting.page.blocks import Facts, Figure, Headline, Text
from cram.reporting.reading.runs import RunData, read_run
from cram.reporting.sections.headline import headline_section, origin_section
from tests.cram.reporting.written_runs import usual_receipt, write_run


def figures(run: RunData) -> dict[str, Figure]:
    (headline,) = (block for block in headline_section(run).blocks if isinstance(block, Headline))
    return {figure.label: figure for figure in headline.figures}


def texts(run: RunData) -> list[tuple[str, str]]:
    return [(block.tone, block.text) for block in headline_section(run).blocks if isinstance(block, Text)]


def with_held_out(**figures: Any) -> dict[str, Any]:
    receipt = usual_receipt()
    return receipt | {"held_out": receipt["held_out"] | figures}


def test_the_figures_of_a_finished_run(tmp_path: Path) -> None:
    found = figures(read_run(write_run(tmp_path / "a")))
    assert found["held-out loss"] == Figure(
        "held-out loss", "4.500", "nats per token", "unigram baseline 6.700", "good"
    )
    assert found["held-out bits per masked byte"].value == "1.800"
    assert (found["accuracy"].value, found["accuracy"].unit) == ("19.0", "%")
    assert (found["time charged"].value, found["time charged"].detail) == ("100.2 s", "of a budget of 100s")
    assert (found["tokens seen"].value, found["tokens seen"].detail) == ("410 k", "100 updates")
    assert found["throughput"].detail == "41.2% of the device's peak"
    assert (found["parameters"].value, found["parameters"].detail) == ("912", "400 without the embedding")
    assert (found["computed"].value, found["computed"].unit) == ("410", "GFLOP")


def test_the_cost_where_the_reader_gives_a_price(tmp_path: Path) -> None:
    """105.4 seconds without the preparation and the sleep, which is unknown."""
    run = read_run(write_run(tmp_path / "a"))
    assert "cost" not in figures(run)
    cost = figures(replace(run, price=36.0))["cost"]
    assert (cost.value, cost.detail[:30]) == ("1.05", "0.0293 hours at 36 an hour, ch")


def test_a_loss_that_is_not_below_the_baseline_is_bad(tmp_path: Path) -> None:
    receipt = with_held_out(nats_per_token=7.0, why_not_below_unigram="few updates", too_few="only 3 documents")
    run = read_run(write_run(tmp_path / "a", receipt=receipt))
    assert figures(run)["held-out loss"].tone == "bad"
    told = str(texts(run))
    assert "few updates" in told
    assert "only 3 documents" in told


def test_a_loss_that_is_not_finite(tmp_path: Path) -> None:
    receipt = with_held_out(nats_per_token=None) | {"failed": "the weights are not finite"}
    run = read_run(write_run(tmp_path / "a", receipt=receipt))
    assert (figures(run)["held-out loss"].value, figures(run)["held-out loss"].tone) == ("–", "bad")
    assert texts(run) == [("bad", "This run has no usable model: the weights are not finite")]


def test_a_causal_model_has_its_bigram_baseline_and_contexts(tmp_path: Path) -> None:
    context = {"least": 2, "most": 3, "nats_per_token": 5.9, "predicted_tokens": 1016}
    receipt = with_held_out(bits_per_byte=2.1, bigram_bits_per_byte=3.5, by_position=[context])
    run = read_run(write_run(tmp_path / "a", receipt=receipt))
    assert figures(run)["held-out bits per byte"].detail == "bigram baseline of bytes 3.500"
    assert "2 to 3" in str(headline_section(run).blocks)


def test_a_run_that_is_not_finished_shows_its_last_records(tmp_path: Path) -> None:
    run = read_run(write_run(tmp_path / "a", finished=False))
    found = figures(run)
    assert (found["held-out loss"].value, found["held-out loss"].detail) == ("4.500", "at update 100")
    assert found["tokens seen"].value == "410 k"
    tone, text = texts(run)[0]
    assert (tone, text[:44]) == ("warning", "The run is not finished: 100.0% of its sched")
    assert texts(replace(run, status="running"))[0][1].startswith("The run goes on: 100.0% of its schedule is done.")


def test_a_run_that_has_only_begun(tmp_path: Path) -> None:
    run = read_run(write_run(tmp_path / "a", records=[], finished=False))
    assert "The run is not finished: no update has been logged." in str(texts(run))
    found = figures(run)
    assert found["training loss"].detail == "no held-out text was scored yet"


def test_the_mean_of_glue(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "a")
    write_sealed(folder / "glue.json", {"results": {"mean": 71.25}})
    assert figures(read_run(folder))["GLUE"].value == "71.2"
    (folder / "glue.json").write_text("damaged")
    assert "GLUE" not in figures(read_run(folder))


def test_the_origin(tmp_path: Path) -> None:
    (facts,) = (
        block for block in origin_section(read_run(write_run(tmp_path / "a"))).blocks if isinstance(block, Facts)
    )
    told = dict(facts.facts)
    assert (told["device"], told["commit"], told["recipe"]) == ("A Processor", "0123456789ab", "bert_demo")
    assert told["versions"] == "python 3.11.7, cram 0.1.0, torch 2.13.0"
    assert told["trained"] == "2026-11-18 11:06 UTC to 2026-11-18 11:08 UTC"
    assert told["tokens of the data"] == "15,616,144, hash 1c068f06"
