"""Hard pieces are hidden more often: the weights, the weighted draw, and the loss that tells the nats of tokens."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cram.config.model import ModelConfig
from cram.config.objective import ObjectiveConfig
from cram.config.recipe import read_config
from cram.data.shards.loader import TrainingRows
from cram.errors import CramError
from cram.model.encoder import Encoder
from cram.objectives.batch import IGNORED
from cram.objectives.difficulty import LARGEST, LISTEN, PRIOR, PieceDifficulty
from cram.objectives.masked import MaskedObjective
from cram.objectives.objective import Setting
from cram.objectives.slots import choose_slots, mix, row_keys, weigh

VOCAB, SEQ_LEN = 40, 16


def make_rows(rows: int) -> TrainingRows:
    tokens = np.random.default_rng(0).integers(5, VOCAB, (rows, SEQ_LEN)).astype(np.int32)
    return TrainingRows(tokens, np.zeros_like(tokens), np.arange(rows), np.zeros(rows, np.int32))


def make_objective(difficulty: float = 1.0, updates: int = 2) -> MaskedObjective:
    config = ObjectiveConfig(mask_rate=0.25, difficulty=difficulty, difficulty_updates=updates)
    return MaskedObjective(config, Setting(list(range(5)), 0, 4, VOCAB, SEQ_LEN))


def hear(pieces: PieceDifficulty, update: int, labels: list[int], nats: list[float]) -> None:
    pieces.begin_update(update)
    pieces.record(torch.tensor(labels), torch.tensor(nats))
    pieces.end_update(update)


def test_weights_are_the_relative_losses_drawn_towards_the_mean() -> None:
    pieces = PieceDifficulty(4, strength=2.0, updates=9)
    hear(pieces, 0, [0, 0, 1, IGNORED, 2], [4.0, 2.0, 1.0, 9.0, float("nan")])
    assert pieces.weights.tolist() == [1.0] * 4
    hear(pieces, LISTEN, [1], [1.0])
    mean = 8.0 / 4.0
    expected = [((6.0 + PRIOR * mean) / (2 + PRIOR) / mean) ** 2, ((2.0 + PRIOR * mean) / (2 + PRIOR) / mean) ** 2]
    assert pieces.weights == pytest.approx([*expected, 1.0, 1.0])
    assert pieces.spread() == pytest.approx(np.log(pieces.weights).std())
    assert pieces.state_tensors()["count"].tolist() == [1.0, 1.0, 0.0, 0.0]  # half of it stays


@given(
    nats=st.lists(st.floats(0, 1e4), min_size=8, max_size=8),
    strength=st.floats(0.1, 4),
    times=st.lists(st.integers(0, 500), min_size=8, max_size=8).filter(any),
)
def test_weights_stay_in_their_range_and_rise_with_the_loss(
    nats: list[float], strength: float, times: list[int]
) -> None:
    pieces = PieceDifficulty(8, strength, updates=1)
    labels = np.repeat(np.arange(8), times)
    hear(pieces, 0, labels.tolist(), np.array(nats)[labels].tolist())
    assert pieces.weights.min() >= 1 / LARGEST and pieces.weights.max() <= LARGEST
    frequent = [piece for piece in range(8) if times[piece] == max(times)]
    order = sorted(frequent, key=lambda piece: nats[piece])
    assert all(np.diff(pieces.weights[order]) >= 0)


def test_updates_in_between_are_not_listened_to() -> None:
    pieces = PieceDifficulty(4, strength=1.0, updates=100)
    listened = []
    for update in range(2 * LISTEN):
        pieces.begin_update(update)
        listened.append(pieces.listening)
        pieces.end_update(update)
        assert not pieces.listening
    assert [update for update, yes in enumerate(listened) if yes] == [0, LISTEN]


def test_the_state_comes_back_and_another_one_is_refused() -> None:
    first, second = PieceDifficulty(4, 1.0, 1), PieceDifficulty(4, 1.0, 1)
    hear(first, 0, [0, 1, 1], [3.0, 1.0, 2.0])
    second.load_state_tensors(first.state_tensors())
    for pieces in (first, second):
        hear(pieces, LISTEN, [2], [7.0])
    for name, tensor in first.state_tensors().items():
        assert torch.equal(tensor, second.state_tensors()[name])
    second.load_state_tensors({})
    assert second.weights.tolist() == [1.0] * 4 and not second.state_tensors()["count"].any()
    with pytest.raises(CramError, match=r"the tensor weights is \[4\] of float32, and \[5\] of float32 is needed"):
        PieceDifficulty(5, 1.0, 1).load_state_tensors(first.state_tensors())
    with pytest.raises(CramError, match=r"the tensor weights does not belong there"):
        make_objective(difficulty=0.0).load_state_tensors(first.state_tensors())


@pytest.mark.parametrize("weights", [[1.0, 1.0, 1.0, 1.0], [4.0, 1.0, 0.5, 0.25]])
def test_a_weighted_draw_takes_each_token_by_its_share_of_the_weights(weights: list[float]) -> None:
    keys = row_keys(0, np.zeros(40_000, np.int32), np.arange(40_000))
    given_weights = np.tile(np.array(weights, np.float32), (len(keys), 1))
    positions, used = choose_slots(np.ones((len(keys), 4), bool), keys, 0.5, 2, given_weights)
    assert used.all()
    shares = np.array(weights) / sum(weights)
    assert np.bincount(positions[:, 0]) / len(keys) == pytest.approx(shares, abs=0.01)
    second = sum(shares[other] * np.where(np.arange(4) == other, 0, shares / (1 - shares[other])) for other in range(4))
    assert np.bincount(positions[:, 1]) / len(keys) == pytest.approx(second, abs=0.01)


@settings(deadline=None)
@given(seed=st.integers(0, 10**6))
def test_equal_weights_keep_the_order_of_the_ranks_reversed(seed: int) -> None:
    ranks = mix(np.arange(seed, seed + 50, dtype=np.uint64))
    weighed = weigh(ranks, np.ones(50, np.float32))
    assert np.array_equal(np.argsort(weighed), np.argsort(ranks)[::-1])


def test_hard_pieces_are_hidden_more_often_and_the_rate_holds() -> None:
    objective, rows = make_objective(), make_rows(2000)
    assert objective.difficulty is not None
    plain = objective.prepare(rows, 0.0)
    objective.difficulty.weights[5:20] = 3.0
    batch = objective.prepare(rows, 0.0)
    assert batch.predicted == plain.predicted
    hard = [((made.labels >= 5) & (made.labels < 20)).sum().item() / made.predicted for made in (plain, batch)]
    assert hard[0] == pytest.approx(15 / 35, abs=0.02)
    assert hard[1] == pytest.approx(45 / 65, abs=0.06)  # a little less, because tokens run short in a row
    assert objective.scheduled(0.0)["mask_weight_spread"] > 0.3


def test_the_loss_is_the_same_while_it_listens() -> None:
    model = Encoder(ModelConfig(layers=1, width=16, heads=2, mlp_width=16, init_std=0.3, zero_init=False), VOCAB)
    model.initialise(0)
    objective, batch = make_objective(updates=1), make_objective().prepare(make_rows(8), 0.0)
    results = []
    for update in (1, 0):
        objective.begin_update(update)
        loss = objective.loss(model, batch)
        model.zero_grad()
        loss.backward()
        results.append((loss.detach(), model.embedding.weight.grad.clone()))  # type: ignore[union-attr]
    objective.end_update(0)
    torch.testing.assert_close(results[0], results[1], rtol=1e-5, atol=1e-5)
    state = objective.state_tensors()
    assert state["count"].sum() * 2 == batch.predicted
    assert state["nats"].sum().item() * 2 == pytest.approx(results[0][0].item(), rel=1e-5)
    assert (state["weights"] != 1.0).any()


def test_only_masked_models_have_difficult_pieces() -> None:
    with pytest.raises(CramError, match=r"objective\.difficulty=1\.0 is for objective\.kind=masked: leave it out\."):
        read_config(["recipe=gpt_demo", "objective.difficulty=1"])
