"""Token superposition: bags of documents, their loss beside a plain one, phases, and how many rows are read."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from cram.config.model import ModelConfig
from cram.config.objective import ObjectiveConfig
from cram.config.recipe import read_config
from cram.data.shards.loader import TrainingRows
from cram.errors import CramError
from cram.model.decoder import Decoder
from cram.model.encoder import Encoder
from cram.objectives.batch import IGNORED
from cram.objectives.causal import CausalObjective
from cram.objectives.objective import Setting
from cram.objectives.phased import PhasedObjective
from cram.objectives.superposed import SuperposedBatch, fold, superpose, superposed_loss
from cram.training.loop import train, update
from tests.cram.training.fake_session import make_session

PAD, VOCAB, SEQ_LEN = 0, 40, 16


def make_rows(seed: int, rows: int) -> TrainingRows:
    random = np.random.default_rng(seed)
    tokens = random.integers(5, VOCAB, (rows, SEQ_LEN)).astype(np.int32)
    documents = np.cumsum(random.random((rows, SEQ_LEN)) < 0.15, axis=1, dtype=np.int32)
    filled = random.integers(SEQ_LEN // 2, SEQ_LEN + 1, rows)
    padding = np.arange(SEQ_LEN) >= filled[:, None]
    tokens[padding], documents[padding] = PAD, 200
    return TrainingRows(tokens, documents, np.arange(rows), np.zeros(rows, np.int32))


def make_model(kind: type[Decoder] | type[Encoder]) -> Decoder | Encoder:
    model = kind(ModelConfig(layers=2, width=16, heads=2, mlp_width=16, init_std=0.3, zero_init=False), VOCAB)
    model.initialise(0)
    return model


@settings(deadline=None)
@given(seed=st.integers(0, 10**6), rows=st.integers(1, 5), size=st.sampled_from([2, 4, 8]))
def test_a_bag_holds_tokens_of_the_document_of_its_first_one(seed: int, rows: int, size: int) -> None:
    data = make_rows(seed, rows)
    bags, owners = fold(data.tokens, data.documents, size)
    for row in range(rows):
        for bag in range(SEQ_LEN // size):
            first = bag * size
            own = data.documents[row, first : first + size] == data.documents[row, first]
            expected = [data.tokens[row, first + place if own[place] else first] for place in range(size)]
            assert bags[row, bag].tolist() == expected
            assert owners[row, bag] == data.documents[row, first]


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6), rows=st.integers(1, 9), size=st.sampled_from([2, 4]))
def test_the_loss_is_the_mean_cross_entropy_of_the_next_bag(seed: int, rows: int, size: int) -> None:
    model = make_model(Decoder if seed % 2 else Encoder).double()
    data = make_rows(seed, rows)
    batch = superpose(data, size, PAD)
    bags, owners = fold(data.tokens, data.documents, size)
    nats, predicted = 0.0, 0
    for row in range(rows):  # each row of the data by itself, and every token's cross-entropy by torch's
        hidden = model(torch.from_numpy(bags[row : row + 1]), torch.from_numpy(owners[row : row + 1]), causal=True)
        logits = model.head(hidden).detach()
        for bag in range(SEQ_LEN // size - 1):
            if owners[row, bag + 1] == owners[row, bag] and bags[row, bag + 1, 0] != PAD:
                target = torch.from_numpy(bags[row, bag + 1])
                nats += float(F.cross_entropy(logits[bag].expand(size, -1), target))
                predicted += 1
    assert batch.predicted == predicted == int((batch.labels != IGNORED).sum())
    assert batch.inputs.shape == (-(-rows // size), SEQ_LEN, size)
    assert superposed_loss(model, batch).item() == pytest.approx(nats, rel=1e-5, abs=1e-6)


def test_gradients_are_those_of_the_mean_cross_entropy() -> None:
    batch, size = superpose(make_rows(1, 4), 4, PAD), 4
    gradients = []
    for plain in (True, False):
        model = make_model(Encoder)
        if plain:
            logits = model.head(model(batch.inputs, batch.documents, causal=True))
            each = F.cross_entropy(logits.repeat_interleave(size, 0), batch.targets.flatten(), reduction="none")
            each.view(-1, size).mean(1)[batch.labels != IGNORED].sum().backward()
        else:
            superposed_loss(model, batch).backward()
        gradients.append({name: parameter.grad for name, parameter in model.named_parameters()})
    for name, expected in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], expected, rtol=1e-4, atol=1e-5)


def test_phases_follow_each_other_and_join_rows_in_the_first_alone() -> None:
    config = ObjectiveConfig(superposition=4, superposition_share=0.2, causal_share=0.5)
    setting = Setting(list(range(5)), PAD, 4, VOCAB, SEQ_LEN)
    causal, phased = CausalObjective(config, setting), PhasedObjective(config, setting)
    assert (causal.phases, phased.phases) == ((0.0, 0.2), (0.0, 0.2, 0.5))
    assert [phased.rows_joined(progress) for progress in (0.0, 0.19, 0.2, 0.5, 1.0)] == [4, 4, 1, 1, 1]
    rows, model = make_rows(0, 8), make_model(Encoder)
    kinds = [phased.prepare(rows, progress) for progress in (0.1, 0.3, 0.7)]
    assert [isinstance(batch, SuperposedBatch) for batch in kinds] == [True, False, False]
    assert [batch.causal for batch in kinds] == [True, True, False]
    assert [len(batch.inputs) for batch in kinds] == [2, 8, 8]
    torch.testing.assert_close(phased.loss(model, kinds[0]), superposed_loss(model, kinds[0]))
    assert config.reading == pytest.approx(1.6)
    assert config.words == "bags of 4 tokens for the first 20%, then causal for the first 50%, then masked"
    off = ObjectiveConfig(causal_share=0.5)
    assert PhasedObjective(off, setting).rows_joined(0.1) == 1 and off.reading == 1.0


def test_an_update_reads_its_rows_times_the_size_of_a_bag(tmp_path: Path) -> None:
    session = make_session(tmp_path, budget="10steps", rows=1000, batch=8)
    objective = session.parts.objective
    objective.phases, objective.joined = (0.0, 0.35), 4
    taken, positions = [], []
    for _ in range(10):
        before = session.parts.loader.rows_taken, session.clock.positions
        update(session)
        taken.append(session.parts.loader.rows_taken - before[0])
        positions.append(session.clock.positions - before[1])
    assert set(positions) == {positions[0]}
    assert taken == [4 * taken[-1]] * 3 + [taken[-1]] * 7


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["objective.superposition=4"], r"causal_share=0\.0 must be at least objective\.superposition_share=0\.3"),
        (["objective.superposition=3", "objective.causal_share=0.5"], r"does not divide data\.seq_len"),
        (["objective.superposition=4", "model.kind=crammed"], r"needs model\.kind=encoder or decoder, not crammed"),
        (
            ["objective.superposition=4", "objective.causal_share=0.5", "selective.beta=1"],
            r"no loss of single tokens, which selective needs",
        ),
    ],
)
def test_what_does_not_go_together_is_refused(words: list[str], message: str) -> None:
    with pytest.raises(CramError, match=message):
        read_config(["recipe=bert_demo", *words])


@settings(max_examples=15, deadline=None)
@given(rows=st.integers(8, 300), batch=st.integers(2, 20), micro=st.integers(1, 2), share=st.floats(0.05, 0.95))
@example(rows=12, batch=2, micro=1, share=0.5)
def test_data_that_ends_first_is_not_read_beyond_its_end(
    tmp_path_factory: pytest.TempPathFactory, rows: int, batch: int, micro: int, share: float
) -> None:
    run = tmp_path_factory.mktemp("run")
    session = make_session(run, "100000steps", rows=rows, batch=batch, micro_rows=micro)
    objective = session.parts.objective
    objective.phases, objective.joined = (0.0, share), 4
    assert train(session)
    assert session.state.last_progress == 1.0
    assert session.parts.loader.rows_left >= 0
    assert objective.progress == sorted(objective.progress)
