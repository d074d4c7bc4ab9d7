"""Scores of a model against a plain cross-entropy."""

import math
from dataclasses import replace

import pytest
import torch
from tokenizers import Tokenizer
from torch.nn import functional as F

from cram.config.model import ModelConfig
from cram.config.training import EvaluationConfig
from cram.data.shards.shards import HeldOutDocument
from cram.data.special_tokens import SpecialTokens
from cram.distributed.launch import Launch
from cram.distributed.ranks import Ranks
from cram.evaluation import scores
from cram.evaluation.held_out import HeldOutSet
from cram.evaluation.held_out_rows import build_held_out
from cram.evaluation.scores import evaluate
from cram.model.decoder import Decoder
from cram.model.encoder import Encoder
from cram.objectives.batch import IGNORED

SEQ_LEN = 16
VOCAB = 64


def test_scores_are_those_of_a_plain_cross_entropy(rows: HeldOutSet, monkeypatch: pytest.MonkeyPatch) -> None:
    model = Encoder(ModelConfig(layers=2, width=16, heads=2, mlp_width=16, init_std=0.3, zero_init=False), VOCAB)
    model.initialise(0)
    with torch.no_grad():
        logits = model.head(model(rows.inputs, rows.documents)).double()
    slots = (rows.labels.flatten() != IGNORED).nonzero().squeeze(1)
    labels = rows.labels.flatten().scatter(0, slots[::3], logits.argmax(-1)[slots[::3]])  # a third is predicted well
    rows = replace(rows, labels=labels.view_as(rows.labels))
    nats = F.cross_entropy(logits, labels, ignore_index=IGNORED, reduction="sum").item()
    # Two rows at a time: some batches have nothing to predict.
    monkeypatch.setattr(scores, "BATCH_ROWS", 2)
    assert any(not (batch != IGNORED).any() for batch in rows.labels.split(2))
    values = evaluate(model, rows, torch.device("cpu"))
    assert values["nats_per_token"] == pytest.approx(nats / len(slots), rel=1e-5)
    assert values["bits_per_masked_byte"] == pytest.approx(nats / math.log(2) / rows.predicted_bytes, rel=1e-5)
    assert values["accuracy"] == (logits.argmax(-1) == labels).sum().item() / len(slots) > 0.3
    assert values["predicted_tokens"] == len(slots)


class SharingRanks(Ranks):
    """A rank whose sums are kept; rank 0, which is asked last, adds those of the others."""

    def __init__(self, rank: int, size: int, sums: list[torch.Tensor]) -> None:
        super().__init__(Launch(rank, size, rank, size))
        self._sums = sums

    def sum(self, tensor: torch.Tensor) -> torch.Tensor:
        if self.leads:
            for other in self._sums:
                tensor += other
        self._sums.append(tensor)
        return tensor


@pytest.mark.parametrize("size", [2, 3, 50])
def test_scores_are_the_same_if_ranks_share_the_rows(
    size: int, rows: HeldOutSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = Encoder(ModelConfig(layers=1, width=16, heads=2, mlp_width=16, init_std=0.3, zero_init=False), VOCAB)
    model.initialise(0)
    monkeypatch.setattr(scores, "BATCH_ROWS", 2)
    alone, sums = evaluate(model, rows, torch.device("cpu")), list[torch.Tensor]()
    for rank in range(size - 1, -1, -1):
        shared = evaluate_or_nothing(model, rows, SharingRanks(rank, size, sums))
    assert shared == alone
    of_ranks = torch.stack(sums[:-1])[..., 2]
    assert ((of_ranks > 0).sum(0) <= 1).all()  # no row was scored twice


def evaluate_or_nothing(model: Encoder, rows: HeldOutSet, ranks: Ranks) -> dict[str, object]:
    """The scores as a rank knows them, which divides by zero predictions if its share has none."""
    try:
        return evaluate(model, rows, torch.device("cpu"), ranks)
    except ZeroDivisionError:
        return {}


def test_scores_of_a_causal_model_are_those_of_a_plain_cross_entropy(
    causal_rows: HeldOutSet, tokenizer: Tokenizer
) -> None:
    model = Decoder(
        ModelConfig(kind="decoder", layers=2, width=16, heads=2, mlp_width=16, init_std=0.3, zero_init=False), VOCAB
    )
    model.initialise(0)
    nats, correct, count = 0.0, 0, 0
    for tokens in causal_rows.tokens:
        for place in range(1, SEQ_LEN):
            if int(tokens[place]) in SpecialTokens.of(tokenizer).ids():
                continue
            with torch.no_grad():  # it reads the tokens before the predicted one, and nothing else
                before = tokens[None, :place]
                logits = model.head(model(before, torch.zeros_like(before)))[-1].double()
            nats -= float(logits.log_softmax(-1)[tokens[place]])
            correct += int(logits.argmax() == tokens[place])
            count += 1
    values = evaluate(model, causal_rows, torch.device("cpu"))
    assert {name: values[name] for name in scores.score_names("causal")} == {
        "nats_per_token": pytest.approx(nats / count, rel=1e-5),
        "bits_per_byte": pytest.approx(nats / math.log(2) / causal_rows.predicted_bytes, rel=1e-5),
        "accuracy": correct / count,
        "predicted_tokens": count,
    }


@pytest.mark.parametrize("kind", ["rows", "causal_rows"])
def test_each_half_has_the_scores_of_its_documents_alone(
    kind: str, request: pytest.FixtureRequest, documents: list[HeldOutDocument], tokenizer: Tokenizer
) -> None:
    rows: HeldOutSet = request.getfixturevalue(kind)
    causal = rows.objective == "causal"
    size = ModelConfig(kind="decoder" if causal else "encoder", layers=1, width=16, heads=2, mlp_width=16, init_std=0.3)
    model = (Decoder if causal else Encoder)(size, VOCAB)
    model.initialise(0)
    values = evaluate(model, rows, torch.device("cpu"))
    for bit, half in enumerate(("tuning", "judging")):
        chosen = [document for document in documents if int(document.hash, 16) % 2 == bit]
        alone = build_held_out(chosen, tokenizer, SEQ_LEN, EvaluationConfig(), objective=rows.objective)
        expected = evaluate(model, alone, torch.device("cpu"))
        assert values[half] == {name: pytest.approx(expected[name]) for name in scores.score_names(rows.objective)}
        assert expected[half] == values[half] and expected["judging" if bit == 0 else "tuning"] is None


def test_rows_of_earlier_versions_have_no_halves(rows: HeldOutSet) -> None:
    model = Encoder(ModelConfig(layers=1, width=16, heads=2, mlp_width=16), VOCAB)
    model.initialise(0)
    values = evaluate(model, replace(rows, halves=None, row_bytes=None), torch.device("cpu"))
    assert values["tuning"] is None and values["judging"] is None and values["nats_per_token"] > 0
