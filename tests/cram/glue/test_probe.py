"""The frozen probe: its vectors, its linear models, its file, and what it refuses."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cram.config.commands import GlueConfig
from cram.errors import CramError
from cram.glue.__main__ import main
from cram.glue.pretrained import open_pretrained
from cram.glue.printing import probe_lines
from cram.glue.probe import FrozenProbe, fit_linear, pool_states
from cram.glue.splits import Split
from cram.glue.tasks import TASKS


def words(checkpoint: Path, data: Path, to: Path, *more: str) -> list[str]:
    """Words for the probe on the small GLUE folder."""
    shared = ["frozen=true", "check_counts=false", "threads=1", "device=cpu"]
    return [f"run={checkpoint}", f"data={data}", f"to={to}", *shared, *more]


def read_probe(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "probe.json").read_text())  # type: ignore[no-any-return]


def test_the_probe_scores_each_task_and_repeats_itself(
    checkpoint: Path, glue_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path: path.read_bytes() for path in checkpoint.iterdir()}
    command = ["tasks=[sst2,stsb,mnli]", "untrained=true", "limit=48"]
    assert main(words(checkpoint, glue_folder, tmp_path / "one", *command)) == 0
    out = capsys.readouterr().out
    content = read_probe(tmp_path / "one")
    assert content["pooling"] == "mean" and content["limit"] == 48 and content["length"] == 32
    assert content["rows"] == {"sst2": 48, "stsb": 48, "mnli": 48}
    assert set(content["scores"]["mnli"]) == {"mnli-m", "mnli-mm"}
    assert set(content["scores"]["stsb"]["stsb"]) == {"pearson", "spearman"}
    assert content["scores"]["sst2"]["sst2"]["accuracy"] > 80.0  # one word of a sentence shows the label
    assert content["majority"]["sst2"]["sst2"]["accuracy"] == 50.0
    assert set(content["untrained"]) == {"sst2", "stsb", "mnli"}
    assert any("SST-2/train.tsv: 64 rows" in text for text in content["remarks"])
    score, control = (content[name]["sst2"]["sst2"]["accuracy"] for name in ("scores", "untrained"))
    line = f"sst2        accuracy {score:.1f} (majority 50.0, random weights {control:.1f}), 48 training rows"
    assert line in out.splitlines()
    assert f"files       {tmp_path}/one/probe.json" in out
    assert {path: path.read_bytes() for path in checkpoint.iterdir()} == before
    main(words(checkpoint, glue_folder, tmp_path / "two", *command))
    assert (tmp_path / "two" / "probe.json").read_bytes() == (tmp_path / "one" / "probe.json").read_bytes()
    assert not (tmp_path / "one" / "glue.json").exists()


@pytest.mark.parametrize("pooling", ["first", "mean"])
def test_the_vectors_are_those_of_the_stock_class_one_text_at_a_time(
    checkpoint: Path, tmp_path: Path, pooling: Any
) -> None:
    from transformers import AutoModel, AutoTokenizer

    pretrained = open_pretrained(str(checkpoint), 128, "first")
    config = GlueConfig(run=str(checkpoint), pooling=pooling, device="cpu", threads=1)
    task = TASKS["rte"]
    probe = FrozenProbe(config, tmp_path, [task], pretrained)
    texts = [
        ("the warm film", "the grim island winter"),
        ("the dull letter garden doctor", "the fine"),
        ("the", "film"),
    ]
    classifier: Any = pretrained.new_classifier(task, 0, 0.0, "first", untrained=False)
    vectors = probe._vectors(task, Split(texts, None), classifier.base_model.eval())
    model = AutoModel.from_pretrained(checkpoint).eval()
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    for (first, second), vector in zip(texts, vectors, strict=True):
        with torch.no_grad():
            states = model(**tokenizer(first, second, return_tensors="pt")).last_hidden_state[0]
        expected = states[0] if pooling == "first" else states.mean(0)
        np.testing.assert_allclose(vector, expected.numpy(), atol=2e-5)


def test_padding_does_not_count() -> None:
    states, mask = torch.randn(2, 5, 3), torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]])
    pooled = pool_states(states, mask, "mean")
    torch.testing.assert_close(pooled, torch.stack([states[0, :3].mean(0), states[1].mean(0)]))
    torch.testing.assert_close(pool_states(states, mask, "first"), states[:, 0])


def test_the_linear_models_are_at_the_minimum_of_their_losses() -> None:
    source = np.random.default_rng(0)
    train = source.normal(3.0, 10.0, (60, 4))
    standard = (train - train.mean(0)) / train.std(0)
    scores = standard @ [1.0, -2.0, 0.0, 0.5] + source.normal(size=60)
    centred = scores - scores.mean()
    weights = np.linalg.solve(standard.T @ standard + np.eye(4), standard.T @ centred)
    outputs = fit_linear(TASKS["stsb"], train, scores, {"stsb": train})["stsb"]
    np.testing.assert_allclose(outputs[:, 0], standard @ weights + scores.mean(), atol=1e-9)

    labels = (scores > 0).astype(np.int64) + (scores > 1)
    probabilities = fit_linear(TASKS["mnli"], train, labels, {"dev": train})["dev"]
    # Where the gradient is zero, the weights are X'(y - p). What is left of the logits is then the bias of each class.
    weights = standard.T @ (np.eye(3)[labels] - probabilities)
    rest = np.log(probabilities) - standard @ weights
    biases = rest - rest.mean(1, keepdims=True)
    np.testing.assert_allclose(biases, np.tile(biases.mean(0), (60, 1)), atol=2e-2)


def test_a_class_that_the_training_rows_lack_gets_no_probability() -> None:
    train, labels = np.array([[0.0], [1.0], [2.0], [3.0]]), np.array([0, 0, 2, 2])
    outputs = fit_linear(TASKS["mnli"], train, labels, {"dev": train})["dev"]
    assert (outputs[:, 1] == 0).all()
    assert outputs.argmax(-1).tolist() == [0, 0, 2, 2]


def test_a_run_is_exported_and_gets_its_file(new_run: Callable[..., Path], glue_folder: Path, tmp_path: Path) -> None:
    run = new_run(tmp_path / "run")
    main([word for word in words(run, glue_folder, run, "tasks=cola", "pooling=first") if not word.startswith("to=")])
    assert read_probe(run)["pooling"] == "first"
    assert set(read_probe(run)["scores"]) == {"cola"}


@pytest.mark.parametrize(
    "word", ["protocol=bert", "seeds=3", "learning_rate=1e-4", "batch=8", "epochs=3", "dropout=0.0", "precision=bf16"]
)
def test_keys_of_fine_tuning_are_refused(word: str) -> None:
    name = word.partition("=")[0]
    with pytest.raises(CramError, match=f"{name}= has no effect with frozen=true, which does not fine-tune. Leave it"):
        main(["run=x", "frozen=true", word])


def test_one_label_and_states_that_are_not_finite_are_refused(
    checkpoint: Path, glue_folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(CramError, match=r"cola: all training rows have the same label.* Give a larger limit="):
        main(words(checkpoint, glue_folder, tmp_path, "tasks=cola", "limit=1"))
    pretrained = open_pretrained(str(checkpoint), 128, "first")
    probe = FrozenProbe(GlueConfig(run="mine", pooling="mean", device="cpu"), tmp_path, [TASKS["cola"]], pretrained)
    classifier: Any = pretrained.new_classifier(TASKS["cola"], 0, 0.0, "first", untrained=True)
    torch.nn.init.constant_(classifier.base_model.final_norm.weight, torch.nan)
    with pytest.raises(CramError, match="run=mine: its hidden states on cola are not finite"):
        probe._vectors(TASKS["cola"], Split([("the film",)], None), classifier.base_model)
    assert not (tmp_path / "probe.json").exists()


def test_remarks_and_tasks_without_data_are_printed() -> None:
    results = {"run": "r", "pooling": "mean", "scores": {}, "remarks": ["a file is short"]}
    assert probe_lines(results, Path("there"), ["QNLI has no train.tsv"]) == [
        "frozen probe of r, mean pooling, dev scores",
        "remark      a file is short",
        "left out    QNLI has no train.tsv",
        "files       there/probe.json",
    ]
