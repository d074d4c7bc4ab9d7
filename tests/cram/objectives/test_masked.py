import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cram.config.objective import ObjectiveConfig
from cram.data.shards.loader import TrainingRows
from cram.objectives.batch import IGNORED
from cram.objectives.masked import SLOT_MULTIPLE, MaskedObjective
from cram.objectives.objective import Setting
from cram.objectives.slots import CACHED_NUMBERS, choose_slots, mix, row_keys, smallest

SPECIAL, MASK, VOCAB = [0, 1, 2, 3, 4], 4, 512


def make_rows(seed: int, rows: int = 8, seq_len: int = 32, specials: float = 0.2) -> TrainingRows:
    random = np.random.default_rng(seed)
    tokens = random.integers(5, VOCAB, (rows, seq_len)).astype(np.int32)
    tokens[random.random(tokens.shape) < specials] = 0
    return TrainingRows(tokens, np.zeros_like(tokens), np.arange(rows) + seed, np.zeros(rows, np.int32))


def make_objective(static_shapes: bool = True, seq_len: int = 32, seed: int = 0, **config: float) -> MaskedObjective:
    setting = Setting(SPECIAL, 0, MASK, VOCAB, seq_len, seed, static_shapes)
    return MaskedObjective(ObjectiveConfig(**config), setting)


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 10**6), rate=st.floats(0.01, 1.0), specials=st.floats(0, 1), static=st.booleans())
def test_only_ordinary_tokens_are_hidden_and_labels_hold_them(
    seed: int, rate: float, specials: float, static: bool
) -> None:
    rows = make_rows(seed, specials=specials)
    objective = make_objective(static, mask_rate=rate, final_mask_rate=None)
    batch = objective.prepare(rows, 0.5)
    used = batch.labels != IGNORED
    slots = batch.slots[used]
    original = torch.from_numpy(rows.tokens.astype(np.int64)).flatten()
    assert batch.predicted == int(used.sum()) == len(set(slots.tolist()))
    assert torch.equal(original[slots], batch.labels[used])
    assert bool((original[slots] > MASK).all())
    assert bool((batch.inputs.flatten()[slots] == MASK).all())
    untouched = torch.ones(len(original), dtype=torch.bool)
    untouched[slots] = False
    assert torch.equal(batch.inputs.flatten()[untouched], original[untouched])
    if static:
        assert len(batch.slots) == len(rows.tokens) * math.ceil(rate * 32)
    else:
        assert 0 <= len(batch.slots) - batch.predicted < SLOT_MULTIPLE
        assert len(batch.slots) % SLOT_MULTIPLE == 0 or len(batch.slots) == len(rows.tokens) * math.ceil(rate * 32)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), low=st.floats(0.05, 0.5), more=st.floats(0, 0.5))
def test_a_lower_rate_hides_a_subset(seed: int, low: float, more: float) -> None:
    maskable = make_rows(seed).tokens > MASK
    keys = row_keys(seed, np.zeros(8, np.int32), np.arange(8))
    few, few_used = choose_slots(maskable, keys, low, 32)
    many, many_used = choose_slots(maskable, keys, low + more, 32)
    for row in range(8):
        assert set(few[row][few_used[row]]) <= set(many[row][many_used[row]])


def test_masks_are_a_function_of_seed_epoch_and_row_alone() -> None:
    rows = make_rows(1)
    together = make_objective().prepare(rows, 0.3)
    alone = make_objective().prepare(rows[3:4], 0.3)
    assert torch.equal(together.inputs[3:4], alone.inputs)
    assert not torch.equal(make_objective(seed=1).prepare(rows, 0.3).inputs, together.inputs)
    rows.epoch += 1
    assert not torch.equal(make_objective().prepare(rows, 0.3).inputs, together.inputs)


def test_the_rate_holds_on_average_and_falls_over_progress() -> None:
    rows = make_rows(2, rows=4000, specials=0.37)
    ordinary = int((rows.tokens > MASK).sum())
    objective = make_objective()
    for progress, rate in ((0.0, 0.30), (0.5, 0.225), (1.0, 0.15)):
        assert objective.prepare(rows, progress).predicted / ordinary == pytest.approx(rate, rel=0.01)


def test_every_position_is_hidden_equally_often() -> None:
    keys = row_keys(0, np.zeros(20_000, np.int32), np.arange(20_000))
    positions, used = choose_slots(np.ones((20_000, 16), bool), keys, 0.25, 4)
    counts = np.bincount(positions[used], minlength=16)
    assert counts.sum() == 80_000
    assert abs(counts / 5000 - 1).max() < 0.06  # five standard deviations of a binomial


def test_the_bert_rule_shows_eighty_ten_ten() -> None:
    rows = make_rows(3, rows=4000, specials=0.0)
    batch = make_objective(False, replace_mask=0.8, replace_random=0.1).prepare(rows, 0.0)
    used = batch.labels != IGNORED
    shown = batch.inputs.flatten()[batch.slots[used]]
    same = shown == batch.labels[used]
    masked = shown == MASK
    assert float(masked.float().mean()) == pytest.approx(0.8, abs=0.01)
    assert float(same.float().mean()) == pytest.approx(0.1, abs=0.01)
    assert bool((shown[~masked] > MASK).all())  # a random token is never a special one


def test_mix_is_splitmix64() -> None:
    # First outputs of the published generator seeded with 0: the finalizer of successive multiples of the increment.
    golden = 0x9E3779B97F4A7C15
    states = np.array([0, golden, 2 * golden % 2**64], np.uint64)
    assert mix(states).tolist() == [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]


def plain_mix(values: np.ndarray) -> np.ndarray:
    values = values + np.uint64(0x9E3779B97F4A7C15)
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def plain_slots(maskable: np.ndarray, keys: np.ndarray, rate: float, capacity: int) -> tuple[np.ndarray, np.ndarray]:
    """How slots were chosen at first: whole rows of places sorted by their ranks."""
    ranks = plain_mix(keys[:, None] ^ plain_mix(np.arange(1, maskable.shape[1] + 1, dtype=np.uint64)))
    ranks[~maskable] = np.iinfo(np.uint64).max
    order = np.argsort(ranks, axis=1, kind="stable")[:, :capacity]
    available = maskable.sum(axis=1)
    count = np.minimum(np.floor(rate * available + plain_mix(keys) / 2.0**64), np.minimum(available, capacity))
    return order, np.arange(order.shape[1]) < count[:, None]


def plain_batch(rows: TrainingRows, config: ObjectiveConfig, static: bool) -> list[np.ndarray]:
    """Inputs, slots and labels as they were made at first, for seed 0 and progress 0."""
    seq_len = rows.tokens.shape[1]
    keys = row_keys(0, rows.epoch, rows.index)
    capacity = math.ceil(max(config.mask_rate, config.final_mask_rate or 0.0) * seq_len)
    order, used = plain_slots(~np.isin(rows.tokens, SPECIAL), keys, config.mask_rate, capacity)
    slots, used = (order + (np.arange(len(order)) * seq_len)[:, None]).ravel(), used.ravel()
    if not static:
        total = min(len(slots), -(-int(used.sum()) // SLOT_MULTIPLE) * SLOT_MULTIPLE)
        slots, used = np.concatenate([slots[used], slots[~used]])[:total], np.arange(total) < used.sum()
    flat = rows.tokens.astype(np.int64).ravel()
    labels = np.where(used, flat[slots], IGNORED)
    hidden = slots[used]
    bits = plain_mix(
        keys[hidden // seq_len] ^ plain_mix(np.uint64(0x94D049BB133111EB) ^ (hidden % seq_len).astype(np.uint64))
    )
    ordinary = np.arange(len(SPECIAL), VOCAB)
    random = ordinary[plain_mix(bits) % np.uint64(len(ordinary))]
    as_random = bits / 2.0**64 < config.replace_mask + config.replace_random
    flat[hidden] = np.where(bits / 2.0**64 < config.replace_mask, MASK, np.where(as_random, random, flat[hidden]))
    return [flat.reshape(rows.tokens.shape), slots, labels]


seq_lens = st.one_of(st.integers(1, 40), st.sampled_from([127, 128, 129, 512, 1024]))


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    seq_len=seq_lens,
    rate=st.floats(0.01, 1.0) | st.sampled_from([0.15, 0.3, 1.0]),
    specials=st.sampled_from([0.0, 0.02, 0.5, 0.98, 1.0]),
    static=st.booleans(),
    bert=st.booleans(),
)
def test_masks_equal_those_of_the_first_implementation(
    seed: int, seq_len: int, rate: float, specials: float, static: bool, bert: bool
) -> None:
    rows = make_rows(seed, rows=seed % 20 + 1, seq_len=seq_len, specials=specials)
    shown = {"replace_mask": 0.8, "replace_random": 0.1} if bert else {}
    config = ObjectiveConfig(mask_rate=rate, **shown)
    setting = Setting(SPECIAL, 0, MASK, VOCAB, seq_len, 0, static)
    batch = MaskedObjective(config, setting).prepare(rows, 0.0)
    for result, before in zip(
        (batch.inputs, batch.slots, batch.labels), plain_batch(rows, config, static), strict=True
    ):
        assert result.dtype == torch.int64 and np.array_equal(result.numpy(), before)


@pytest.mark.parametrize("seq_len", [128, 1000, 2 * CACHED_NUMBERS])
def test_rows_beyond_one_cache_full_get_their_own_masks(seq_len: int) -> None:
    maskable = make_rows(0, rows=3 * max(1, CACHED_NUMBERS // seq_len) + 1, seq_len=seq_len).tokens > MASK
    keys = row_keys(0, np.zeros(len(maskable), np.int32), np.arange(len(maskable)))
    capacity = math.ceil(0.3 * seq_len)
    for result, before in zip(
        choose_slots(maskable, keys, 0.3, capacity), plain_slots(maskable, keys, 0.3, capacity), strict=True
    ):
        assert result.dtype == before.dtype and np.array_equal(result, before)


# Upper halves that are often the same, and lower ones that then decide, or do not.
alike = st.builds(
    lambda upper, lower: upper << 32 | lower,
    st.sampled_from([0, 1, 7, 8, 2**31, 2**32 - 1]),
    st.sampled_from([0, 1, 2**31, 2**32 - 1]),
)


@settings(deadline=None)
@given(st.integers(1, 70), st.integers(0, 80), st.data())
def test_smallest_is_a_stable_argsort_even_for_equal_values(n: int, count: int, data: st.DataObject) -> None:
    values = np.array(data.draw(st.lists(st.lists(alike, min_size=n, max_size=n), min_size=1, max_size=4)), np.uint64)
    expected = np.argsort(values, axis=1, kind="stable")[:, :count]
    assert np.array_equal(smallest(values, count), expected)
