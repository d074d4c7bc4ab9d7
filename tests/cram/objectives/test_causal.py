"""Labels of causal rows against a search for them, and the loss against torch's."""

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from cram.config.model import ModelConfig
from cram.config.objective import ObjectiveConfig
from cram.data.shards.loader import TrainingRows
from cram.model.decoder import Decoder
from cram.objectives.batch import IGNORED
from cram.objectives.causal import CausalObjective
from cram.objectives.objective import Setting

PAD, CLS, SEP, VOCAB = 0, 2, 3, 32
SETTING = Setting(special=[PAD, CLS, SEP], pad_id=PAD, mask_id=None, vocab_size=VOCAB, seq_len=16)
OBJECTIVE = CausalObjective(ObjectiveConfig(kind="causal"), SETTING)


def pack(texts: list[list[int]], seq_len: int) -> TrainingRows:
    """Documents one after the other, cut at the ends of rows; the last row is padded by a document of its own."""
    ids = [(token, number) for number, text in enumerate(texts) for token in (CLS, *text, SEP)]
    rows = [ids[begin : begin + seq_len] for begin in range(0, len(ids), seq_len)]
    rows[-1] += [(PAD, len(texts))] * (seq_len - len(rows[-1]))
    tokens, documents = (np.array([[pair[i] for pair in row] for row in rows], np.int32) for i in (0, 1))
    documents -= documents[:, :1]
    return TrainingRows(tokens, documents, np.arange(len(rows)), np.zeros(len(rows), np.int32))


TEXTS = st.lists(st.lists(st.integers(5, VOCAB - 1), max_size=12), min_size=1, max_size=6)


@given(texts=TEXTS, seq_len=st.integers(2, 16), progress=st.floats(0, 1))
def test_each_token_is_predicted_once_from_its_own_document(
    texts: list[list[int]], seq_len: int, progress: float
) -> None:
    rows = pack(texts, seq_len)
    batch = OBJECTIVE.prepare(rows, progress)
    labels = batch.labels.view(rows.tokens.shape)
    predicted = 0
    for row in range(len(rows.tokens)):
        for place in range(seq_len):
            label = int(labels[row, place])
            continues = place + 1 < seq_len and rows.documents[row, place + 1] == rows.documents[row, place]
            if continues and rows.tokens[row, place + 1] != PAD:
                assert label == rows.tokens[row, place + 1]
                assert label != CLS  # it begins a document, so nothing comes before it
                predicted += 1
            else:
                assert label == IGNORED
    assert batch.predicted == predicted
    assert torch.equal(batch.inputs, torch.from_numpy(rows.tokens).long())
    assert torch.equal(batch.documents, torch.from_numpy(rows.documents))
    assert batch.inputs.dtype == batch.labels.dtype == torch.int64
    # A document that no row cuts is predicted whole, with its end and without [CLS].
    whole = sum(len(text) + 1 for text in texts)
    cuts = len(rows.tokens) - 1
    assert whole - cuts <= batch.predicted <= whole


def test_a_document_does_not_predict_the_next_one() -> None:
    batch = OBJECTIVE.prepare(pack([[7, 8], [9], []], 12), 0.0)
    assert batch.inputs.tolist() == [[CLS, 7, 8, SEP, CLS, 9, SEP, CLS, SEP, PAD, PAD, PAD]]
    none = IGNORED
    assert batch.labels.tolist() == [7, 8, SEP, none, 9, SEP, none, SEP, none, none, none, none]
    assert batch.predicted == 6


def test_a_row_of_padding_predicts_nothing() -> None:
    padding = np.zeros((1, 8), np.int32)
    batch = OBJECTIVE.prepare(TrainingRows(padding, padding, padding[0], padding[0]), 0.5)
    assert batch.predicted == 0
    assert bool((batch.labels == IGNORED).all())


def test_the_loss_is_the_sum_of_the_nats_of_the_labels() -> None:
    rows = pack([[7, 8, 9, 10], [11, 12], [13, 14, 15]], 8)
    model = Decoder(
        ModelConfig(kind="decoder", layers=1, width=16, heads=2, mlp_width=16, init_std=0.3, zero_init=False), VOCAB
    )
    model.initialise(0)
    batch = OBJECTIVE.prepare(rows, 0.0)
    assert batch.to(torch.device("cpu")) is batch
    loss = OBJECTIVE.loss(model, batch)
    assert loss.dtype == torch.float32

    def logits(tokens: Tensor, documents: Tensor) -> Tensor:
        return model.head(model(tokens, documents)).double()

    expected = F.cross_entropy(
        logits(batch.inputs, batch.documents), batch.labels, ignore_index=IGNORED, reduction="sum"
    )
    torch.testing.assert_close(loss.double(), expected, rtol=1e-5, atol=1e-5)
    assert float(loss.detach()) / batch.predicted > 1.0
