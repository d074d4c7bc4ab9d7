"""Whole runs with the optimizers that serve all parameters."""

from pathlib import Path

import pytest

from cram.config.choices import MODELS, OBJECTIVES, ModelChoice, ObjectiveChoice
from cram.config.recipe import read_config
from cram.errors import CramError
from cram.files.atomic import read_json
from cram.train import main
from tests.cram.training.test_extension import stop_at, with_run

WORDS = ["model.dropout=0.1", "dropping.theta=0.5", "optimizer.sophia.interval=3", "budget=8steps"]


@pytest.mark.parametrize("kind", ["sophia", "lion", "adam"])
def test_a_run_that_is_stopped_and_resumed_ends_with_the_same_bytes(
    kind: str, tiny_words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = [*tiny_words, *WORDS, f"optimizer.kind={kind}"]
    straight, stopped = tmp_path / "straight", tmp_path / "stopped"
    assert main(with_run(words, straight)) == 0
    with monkeypatch.context() as patch:
        stop_at(patch, 3)
        assert main(with_run(words, stopped)) == 130
    assert main(with_run(words, stopped)) == 0
    assert (stopped / "model.safetensors").read_bytes() == (straight / "model.safetensors").read_bytes()
    receipt, resumed = (read_json(run / "receipt.json") for run in (straight, stopped))
    assert receipt["executed"] == resumed["executed"]
    # The estimates before updates 1, 4 and 7, of one micro-batch each and of both blocks.
    assert receipt["executed"]["overhead"] == ({"training": {"2": 12}} if kind == "sophia" else {})


def test_labels_cannot_be_drawn_for_an_objective_without_predictions(
    tiny_words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(OBJECTIVES, "copying", ObjectiveChoice("copying:Copying", "each token is copied"))
    monkeypatch.setitem(MODELS, "encoder", ModelChoice(MODELS["encoder"].target, "copies", ("copying",)))
    words = [*tiny_words, "objective.kind=copying", "objective.causal_share=0", "optimizer.kind=sophia"]
    with pytest.raises(CramError, match=r"^optimizer\.kind=sophia draws labels .*objective\.kind=copying has none"):
        read_config(words)
    assert list(tmp_path.iterdir()) == []
