"""Which fine-tuned models stay on the disk."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from cram.glue.model_store import ModelStore, check_model, load_model, save_model
from cram.glue.pretrained import open_pretrained
from cram.glue.results_file import Job, ResultsFile
from cram.glue.tasks import TASKS


def test_only_the_median_seed_is_kept_once_all_seeds_are_finished(
    checkpoint: Path, filled_file: Callable[..., ResultsFile], tmp_path: Path
) -> None:
    pretrained = open_pretrained(str(checkpoint), 32, "first")
    file = filled_file(tmp_path)  # its seeds have 0, 5 and -2 points more than 50
    store = ModelStore(tmp_path, file)
    for seed in range(3):
        model = pretrained.new_classifier(TASKS["rte"], seed, 0.1, "first", untrained=False)
        save_model(tmp_path, pretrained, model, Job("rte", 4e-5, seed).name)
    store.keep_median("rte", 4e-5, seeds=4)
    assert list(store.find("rte", 4e-5)) == [0, 1, 2]
    store.keep_median("rte", 4e-5, seeds=3)
    folders = store.find("rte", 4e-5)
    assert list(folders) == [0]
    assert not list(tmp_path.glob(".*.partial"))
    check_model(folders[0])
    loaded = load_model(folders[0], torch.device("cpu"))
    expected = pretrained.new_classifier(TASKS["rte"], 0, 0.1, "first", untrained=False)
    for name, tensor in expected.state_dict().items():
        torch.testing.assert_close(loaded.state_dict()[name], tensor, rtol=0, atol=0)


def test_a_model_that_is_saved_again_loses_its_predictions(checkpoint: Path, tmp_path: Path) -> None:
    pretrained = open_pretrained(str(checkpoint), 32, "first")
    name = Job("rte", 4e-5, 0).name
    predictions = tmp_path / "predictions"
    predictions.mkdir()
    (predictions / f"{name}-rte-dev-01234567.tsv").write_text("index\tprediction\n")
    (predictions / "cola-4e-05-seed0-cola-dev-01234567.tsv").write_text("index\tprediction\n")
    save_model(tmp_path, pretrained, pretrained.new_classifier(TASKS["rte"], 0, 0.1, "first", untrained=False), name)
    assert [path.name for path in predictions.iterdir()] == ["cola-4e-05-seed0-cola-dev-01234567.tsv"]


def test_a_model_that_cannot_be_saved_leaves_no_folder(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretrained = open_pretrained(str(checkpoint), 32, "first")

    def fail(*_: object) -> None:
        raise OSError("the disk is full")

    monkeypatch.setattr("cram.glue.model_store.write_checksums", fail)
    model = pretrained.new_classifier(TASKS["rte"], 0, 0.1, "first", untrained=False)
    with pytest.raises(OSError, match="the disk is full"):
        save_model(tmp_path, pretrained, model, "rte-4e-05-seed0")
    assert list(tmp_path.iterdir()) == []
