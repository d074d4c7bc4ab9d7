"""The line that `cram.evaluate` prints, and the documents that it reads."""

import hashlib
from pathlib import Path

import pytest

from cram.config.commands import EvaluateConfig
from cram.errors import CramError
from cram.hub.run_scores import RunScores, read_documents, score_run


@pytest.mark.parametrize(
    ("objective", "bits", "unknown_share", "end"),
    [
        (
            "masked",
            "bits_per_masked_byte",
            0.0,
            "2.5000 bits per masked byte, accuracy 25.0%, 1,234 tokens predicted (h)",
        ),
        (
            "causal",
            "bits_per_byte",
            0.0125,
            "2.5000 bits per byte, accuracy 25.0%, 1,234 tokens predicted (h); "
            "1.2% of the text's bytes are behind the unknown token and not counted",
        ),
    ],
)
def test_the_line_names_model_text_and_units(objective: str, bits: str, unknown_share: float, end: str) -> None:
    scores = {"nats_per_token": 3.0, bits: 2.5, "accuracy": 0.25, "predicted_tokens": 1234}
    line = RunScores("runs/a at update 7", "b.txt", scores, objective, "h", unknown_share).line()
    assert line == f"runs/a at update 7 on b.txt: 3.0000 nats per token, {end}"


def test_documents_have_the_hash_of_their_text_and_blank_ones_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one\n\n \t\n\ntwo\n")
    documents = list(read_documents(str(tmp_path / "*.txt"), "text", "blank_line"))
    assert [document.text.strip() for document in documents] == ["one", "two"]
    assert [document.hash for document in documents] == [
        hashlib.sha256(document.text.encode()).hexdigest() for document in documents
    ]


def test_a_missing_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CramError, match=r"run= is missing\. Give run=DIR"):
        score_run(EvaluateConfig())
    with pytest.raises(CramError, match="run="):
        score_run(EvaluateConfig(run=str(tmp_path / "none")))
