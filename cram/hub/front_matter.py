"""The front matter of a model card: what the Hub reads of a model, written by the Hub's own classes."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cram.config.config import Config
from cram.config.sources import parse_sources
from cram.config.training import CardConfig
from cram.hub.stock import StockModel

if TYPE_CHECKING:
    from huggingface_hub import EvalResult

# A data set or model of the Hub: OWNER/NAME, or NAME alone for the oldest ones.
HUB_NAME = re.compile(r"(?:[A-Za-z0-9][\w.-]*/)?[A-Za-z0-9][\w.-]*")
# The folder of a model in the cache of the Hub's client: models--OWNER--NAME/snapshots/COMMIT. No name has "--" in it.
CACHED_MODEL = re.compile(r"models--([\w.-]+)")
GLUE = "nyu-mll/glue"
# What the Hub calls the metrics of GLUE; its scores are shares.
GLUE_METRICS = {
    "accuracy": "accuracy",
    "f1": "f1",
    "matthews": "matthews_correlation",
    "pearson": "pearson",
    "spearman": "spearmanr",
}
# Subsets of GLUE that are not the validation split of the configuration of their name.
GLUE_SPLITS = {"mnli-m": ("mnli", "validation_matched"), "mnli-mm": ("mnli", "validation_mismatched")}


@dataclass(frozen=True)
class GlueScore:
    """The score of a model on a subset of GLUE.

    Attributes:
        subset: its name in glue.json, such as `cola` or `mnli-m`.
        metric: its name there, such as `matthews`.
        median: over the seeds, in percent.
        seeds: how many there are.
    """

    subset: str
    metric: str
    median: float
    seeds: int


def write_front_matter(
    name: str, config: Config, receipt: dict[str, Any], stock: StockModel, glue: Sequence[GlueScore]
) -> str:
    """Write the lines between the two `---` of a card.

    Args:
        name: of the model, in one line.
        config: of the run; licence and language are what the user has stated.
        receipt: of the run, or the same figures of a checkpoint.
        stock: how the stock class names the model.
        glue: its scores on GLUE.
    """
    from huggingface_hub import ModelCardData

    pipeline = stock.task.pipeline
    datasets = hub_datasets(config.data.source)
    held_out = [_held_out_result(receipt, pipeline, datasets)] if stock.scores_text else []
    results = [*held_out, *map(_glue_result, glue)]
    data = ModelCardData(
        language=split_languages(config.card) or None,
        license=config.card.license,
        library_name="transformers",
        pipeline_tag=pipeline,
        tags=[stock.model_type, pipeline, "cram"],
        datasets=datasets or None,
        base_model=hub_model(config.init) if config.init else None,
        model_name=name,
        eval_results=results or None,
    )
    return f"{data.to_yaml()}\n"


def _held_out_result(receipt: dict[str, Any], pipeline: str, datasets: list[str]) -> "EvalResult":
    from huggingface_hub import EvalResult

    (source,) = datasets if len(datasets) == 1 else ("the training data",)
    return EvalResult(
        task_type=pipeline,
        dataset_type=datasets[0] if len(datasets) == 1 else "text",
        dataset_name=f"documents of {source} that were held out",
        metric_type="loss",
        metric_name="nats per token",
        metric_value=round(receipt["held_out"]["nats_per_token"], 4),
    )


def _glue_result(score: GlueScore) -> "EvalResult":
    from huggingface_hub import EvalResult

    config, split = GLUE_SPLITS.get(score.subset, (score.subset, "validation"))
    return EvalResult(
        task_type="text-classification",
        dataset_type=GLUE,
        dataset_name=f"GLUE {score.subset}",
        dataset_config=config,
        dataset_split=split,
        metric_type=GLUE_METRICS.get(score.metric, score.metric),
        metric_name=f"median {score.metric} of {score.seeds} fine-tunings",
        metric_value=round(score.median / 100.0, 4),
    )


def glue_scores(glue: Mapping[str, Any] | None, weights: str) -> list[GlueScore]:
    """Take the scores of an exported model on GLUE, which cram.glue has reached by its protocol.

    Args:
        glue: content of glue.json; None without it.
        weights: SHA-256 of the exported weights, which the scores must be of.

    Returns:
        A score for each subset; none without results, or where they depart from the protocol.
    """
    results = (glue or {}).get("results") or {}
    kept = results.get("protocol", {}).get("kept")
    if not kept or results.get("checkpoint", {}).get("identity") != weights:
        return []
    return [
        GlueScore(subset, score["metric"], score["median"], len(score["seeds"]))
        for subset, score in results["scores"].items()
        if score["median"] is not None
    ]


def hub_datasets(source: str) -> list[str]:
    """Name the data sets of the Hub that a `data.source` names, without folders of this machine."""
    names = []
    for entry in parse_sources(source):
        if address := re.match(r"hf://datasets/([^/]+/[^/@]+)", entry.path):
            names.append(address[1])
        elif re.match(r"hf:(?!//)", entry.path):
            name = entry.path.removeprefix("hf:").split(":")[0]
            if HUB_NAME.fullmatch(name) and not Path(name).is_dir():
                names.append(name)
    return list(dict.fromkeys(names))


def hub_model(init: str) -> str | None:
    """Name the model of the Hub that the folder of `init=` was downloaded as; None for any other folder."""
    for part in Path(init).resolve().parts:
        if match := CACHED_MODEL.fullmatch(part):
            return match[1].replace("--", "/")
    return None


def split_languages(card: CardConfig) -> list[str]:
    """Split `card.language` into its codes."""
    return [] if card.language is None else [code.strip() for code in card.language.split(",")]
