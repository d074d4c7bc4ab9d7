"""The loss by the length of the context, against a direct computation token by token."""

import pytest
import torch

from cram.config.model import ModelConfig
from cram.evaluation import scores
from cram.evaluation.by_position import nats_by_position
from cram.evaluation.held_out import HeldOutSet
from cram.evaluation.scores import evaluate
from cram.model.kinds import build_model
from cram.objectives.batch import IGNORED

VOCAB, CPU = 64, torch.device("cpu")


@pytest.mark.parametrize("kind", ["decoder", "lstm"])
def test_each_token_counts_where_its_context_belongs(
    kind: str, causal_rows: HeldOutSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = ModelConfig(kind=kind, layers=1, width=16, heads=2, mlp_width=16, init_std=0.3, zero_init=False)
    model = build_model(config, VOCAB, 0, CPU)
    nats: dict[int, list[float]] = {}
    for tokens, labels in zip(causal_rows.tokens, causal_rows.labels, strict=True):
        for place in (labels != IGNORED).nonzero().flatten().tolist():
            with torch.no_grad():
                logits = model.head(model(tokens[None, : place + 1]))[-1]
            nats.setdefault(place + 1, []).append(-float(logits.log_softmax(-1)[labels[place]]))
    monkeypatch.setattr(scores, "BATCH_ROWS", 3)
    found = nats_by_position(model, causal_rows, CPU)
    assert [(part["least"], part["most"]) for part in found] == [(1, 1), (2, 3), (4, 7), (8, 15)]
    for part in found:
        expected = [value for length in range(part["least"], part["most"] + 1) for value in nats.get(length, [])]
        assert part["predicted_tokens"] == len(expected)
        assert part["nats_per_token"] == pytest.approx(sum(expected) / len(expected), rel=1e-4)
    whole = evaluate(model, causal_rows, CPU)
    total = sum(part["nats_per_token"] * part["predicted_tokens"] for part in found)
    assert total / whole["predicted_tokens"] == pytest.approx(whole["nats_per_token"], rel=1e-5)


def test_lengths_without_a_predicted_token_are_left_out(causal_rows: HeldOutSet) -> None:
    model = build_model(ModelConfig(kind="decoder", layers=1, width=16, heads=2, mlp_width=16), VOCAB, 0, CPU)
    causal_rows.labels[:, 1:3] = IGNORED
    assert [part["least"] for part in nats_by_position(model, causal_rows, CPU)] == [1, 4, 8]
