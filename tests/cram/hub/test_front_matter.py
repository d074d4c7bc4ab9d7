"""The front matter of a card, read back by the Hub's own classes."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import EvalResult, ModelCard, ModelCardData

from cram.config.config import Config
from cram.config.data import DataConfig
from cram.config.training import CardConfig
from cram.files.atomic import sha256_file, to_json
from cram.files.sealed import write_sealed
from cram.hub.export import export_run
from cram.hub.front_matter import GlueScore, glue_scores, hub_datasets, hub_model, write_front_matter
from cram.hub.kinds import stock_model

MakeReceipt = Callable[[dict[str, float], bool], dict[str, Any]]
FIGURES = {"nats_per_token": 3.14159, "bits_per_masked_byte": 1.5, "accuracy": 0.25}
SCORE = GlueScore("mnli-mm", "accuracy", 81.25, 5)


def read_back(front: str) -> ModelCardData:
    """The front matter as the Hub's client reads it from a card."""
    return ModelCard(f"---\n{front}---\n\n# a model\n").data


def write(config: Config, receipt: dict[str, Any], *glue: GlueScore) -> ModelCardData:
    return read_back(write_front_matter("mine", config, receipt, stock_model(config.model.kind), glue))


def test_the_hub_reads_licence_language_data_set_task_and_results(make_receipt: MakeReceipt) -> None:
    config = Config(card=CardConfig("mit", "no,en"), data=DataConfig(source="hf:allenai/c4:en:train"))
    data = write(config, make_receipt(FIGURES, False), SCORE)
    assert (data.license, data.language, data.datasets) == ("mit", ["no", "en"], ["allenai/c4"])
    assert (data.library_name, data.pipeline_tag, data.model_name) == ("transformers", "fill-mask", "mine")
    assert data.tags == ["modernbert", "fill-mask", "cram"]
    assert "base_model" not in data.to_dict()
    held_out, glue = data.eval_results or []
    assert held_out.is_equal_except_value(
        EvalResult(
            task_type="fill-mask",
            dataset_type="allenai/c4",
            dataset_name="documents of allenai/c4 that were held out",
            metric_type="loss",
            metric_name="nats per token",
            metric_value=0.0,
        )
    )
    assert held_out.metric_value == 3.1416
    assert (glue.dataset_type, glue.dataset_config, glue.dataset_split) == (
        "nyu-mll/glue",
        "mnli",
        "validation_mismatched",
    )
    assert (glue.metric_type, glue.metric_value) == ("accuracy", 0.8125)
    assert glue.metric_name == "median accuracy of 5 fine-tunings"


def test_what_is_not_known_is_left_out(make_receipt: MakeReceipt) -> None:
    found = write(Config(data=DataConfig(source="/home/alice/*.txt")), make_receipt(FIGURES, False)).to_dict()
    assert set(found) == {"library_name", "pipeline_tag", "tags", "model-index"}
    assert "alice" not in str(found)


@pytest.mark.parametrize(
    ("source", "names"),
    [
        ("pydocs", []),
        ("texts/*.txt", []),
        ("hf:allenai/c4:en:train", ["allenai/c4"]),
        ("hf:wikitext", ["wikitext"]),
        ("hf:/home/alice/stories", []),
        ("hf:~/stories", []),
        ("hf:../stories", []),
        ("hf:a b", []),
        ("hf://datasets/nyu-mll/glue/cola/a.parquet", ["nyu-mll/glue"]),
        ("hf://datasets/nyu-mll/glue@main/a.parquet", ["nyu-mll/glue"]),
        ("s3://bucket/a.parquet", []),
        ("[hf:a/b:en, {path: 'hf:a/b:de', weight: 0.2}, hf:c/d, books.txt]", ["a/b", "c/d"]),
    ],
)
def test_data_sets_of_the_hub_are_named(source: str, names: list[str]) -> None:
    assert hub_datasets(source) == names


def test_a_local_folder_of_the_name_of_a_data_set_is_not_the_hubs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "stories").mkdir()
    assert hub_datasets("hf:stories") == []


@pytest.mark.parametrize(
    ("folder", "name"),
    [
        ("hub/models--jonasgeiping--crammed-bert/snapshots/0a1b", "jonasgeiping/crammed-bert"),
        ("hub/models--gpt2/snapshots/0a1b", "gpt2"),
        ("runs/models", None),
    ],
)
def test_the_base_model_is_known_by_the_hubs_cache(
    folder: str, name: str | None, tmp_path: Path, make_receipt: MakeReceipt
) -> None:
    assert hub_model(str(tmp_path / folder)) == name
    data = write(Config(init=str(tmp_path / folder)), make_receipt(FIGURES, False))
    assert data.to_dict().get("base_model") == name


def glue_of(identity: str, kept: bool = True) -> dict[str, Any]:
    """A glue.json of the model whose weights have this hash."""
    scores = {"cola": {"metric": "matthews", "median": 12.5, "seeds": {"0": 12.5}}}
    scores["rte"] = {"metric": "accuracy", "median": None, "seeds": {}}  # type: ignore[dict-item]
    return {"results": {"protocol": {"kept": kept}, "checkpoint": {"identity": identity}, "scores": scores}}


def test_scores_on_glue_count_by_the_protocol_and_for_the_same_weights() -> None:
    assert glue_scores(glue_of("abc"), "abc") == [GlueScore("cola", "matthews", 12.5, 1)]
    assert glue_scores(glue_of("abc"), "other") == []
    assert glue_scores(glue_of("abc", kept=False), "abc") == []
    assert glue_scores(None, "abc") == glue_scores({"settings": {}}, "abc") == []


def test_an_export_shows_the_loss_and_the_scores_of_its_run(
    tmp_path: Path, make_run: Callable[..., Path], exported: Path
) -> None:
    run = make_run(tmp_path / "small")
    record = {"step": 1, "time": 0.0, "charged_seconds": 1.0}
    records = [{"kind": "train", "loss": 4.0, **record}, {"kind": "held_out", "nats_per_token": 3.5, **record}]
    (run / "metrics.jsonl").write_text("".join(to_json(line) + "\n" for line in records))
    write_sealed(run / "glue.json", glue_of(sha256_file(exported / "model.safetensors")))
    to = export_run(run, tmp_path / "one")
    card = ModelCard.load(to / "README.md")
    assert [result.metric_type for result in card.data.eval_results or []] == ["loss", "matthews_correlation"]
    assert card.data.eval_results[0].dataset_name == "documents of the training data that were held out"  # type: ignore[index]
    assert "](loss.png)" in card.text
    assert "| held-out loss |" in card.text
    assert (to / "loss.png").read_bytes().startswith(b"\x89PNG")
    assert "loss.png" not in (exported / "README.md").read_text()
    assert not (exported / "loss.png").exists()
