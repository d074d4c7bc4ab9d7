import gc
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models

from cram.data.shards import loader as module
from cram.data.shards.epochs import count_epoch_rows
from cram.data.shards.loader import Loader, TrainingRows
from cram.data.shards.order import SORTED, OrderKind, epoch_order, open_order
from cram.data.shards.shards import ShardSet, ShardWriter
from cram.data.wordpiece import SPECIAL_TOKENS
from cram.errors import CramError

ROOT = Path(__file__).parents[4]
BLOCK_ROWS, ROWS, SEQ_LEN = 256, 556, 4
ORDERS: list[OrderKind] = ["shuffled", *SORTED]


@pytest.fixture(scope="module", autouse=True)
def _small_blocks() -> Iterator[None]:
    patch = pytest.MonkeyPatch()
    patch.setattr(module, "BLOCK_TOKENS", BLOCK_ROWS * SEQ_LEN)
    yield
    patch.undo()


@pytest.fixture(scope="module")
def shard_set(tmp_path_factory: pytest.TempPathFactory) -> ShardSet:
    folder = tmp_path_factory.mktemp("set")
    tokens = np.arange(ROWS * SEQ_LEN, dtype=np.int32).reshape(ROWS, SEQ_LEN)
    writer = ShardWriter(folder, SEQ_LEN, ROWS * SEQ_LEN, 0)
    for part in np.split(tokens, [100, 500]):
        writer.write(part, part % SEQ_LEN)
        writer.flush()
    words = {word: number for number, word in enumerate(SPECIAL_TOKENS)}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    writer.finish(tokenizer.to_str().encode(), [], {"counts": {"documents": 1}})
    return ShardSet.open(folder)


@pytest.fixture
def loader(shard_set: ShardSet) -> Iterator[Loader]:
    loader = Loader(shard_set, seed=0, epochs=2)
    yield loader
    loader.close()


def same(a: TrainingRows, b: TrainingRows) -> bool:
    return all(np.array_equal(x, y) for x, y in zip(vars(a).values(), vars(b).values(), strict=True))


def test_each_row_comes_once_an_epoch_with_its_tokens(loader: Loader) -> None:
    rows = loader.next(loader.rows_total)
    assert rows.tokens.shape == rows.documents.shape == (2 * ROWS, SEQ_LEN)
    assert rows.tokens.dtype == rows.documents.dtype == rows.epoch.dtype == np.int32
    assert rows.epoch.tolist() == [0] * ROWS + [1] * ROWS
    for epoch in (0, 1):
        index = rows.index[rows.epoch == epoch]
        assert sorted(index.tolist()) == list(range(ROWS))
    assert rows.index[:ROWS].tolist() != rows.index[ROWS:].tolist()
    assert (rows.tokens == rows.index[:, None] * SEQ_LEN + np.arange(SEQ_LEN)).all()
    assert (rows.documents == np.arange(SEQ_LEN)).all()


def test_shuffled_rows_come_in_a_fixed_order(loader: Loader, shard_set: ShardSet) -> None:
    rows = loader.next(2 * ROWS)
    expected = [epoch_order(0, shard_set.hash, epoch, ROWS) for epoch in (0, 1)]
    assert np.array_equal(rows.index, np.concatenate(expected))
    assert rows.index.dtype == np.int64


@pytest.mark.parametrize("order", SORTED)
def test_sorted_rows_come_in_the_same_order_in_every_epoch_and_for_every_seed(
    shard_set: ShardSet, order: OrderKind
) -> None:
    for seed in (0, 1):
        loader = Loader(shard_set, seed, 2, order)
        rows = loader.next(2 * ROWS)
        loader.close()
        assert np.array_equal(rows.index, np.tile(open_order(shard_set, order, 0, 0), 2))
        assert rows.epoch.tolist() == [0] * ROWS + [1] * ROWS
        assert (rows.tokens == rows.index[:, None] * SEQ_LEN + np.arange(SEQ_LEN)).all()


def test_rows_are_copies(loader: Loader) -> None:
    looked = loader.peek(10)
    before = looked.tokens.copy()
    for array in vars(looked).values():
        array[:] = -1
    taken, later = loader.next(5), loader.next(5)
    assert np.array_equal(np.concatenate([taken.tokens, later.tokens]), before)
    taken.tokens[:] = -1
    assert np.array_equal(later.tokens, before[5:])


@settings(max_examples=30, deadline=None)
@given(
    order=st.sampled_from(ORDERS),
    steps=st.lists(st.integers(1, 2 * BLOCK_ROWS), min_size=1, max_size=8),
    taken=st.integers(0, 2 * ROWS - 1),
)
def test_a_loader_resumed_anywhere_continues_like_one_without_interruption(
    shard_set: ShardSet, order: OrderKind, steps: list[int], taken: int
) -> None:
    straight, stopped, resumed = (Loader(shard_set, 3, 2, order) for _ in range(3))
    try:
        for loader in (straight, stopped):
            if taken:
                loader.next(taken)
        stopped.peek(1)
        resumed.next(5)
        resumed.resume(stopped.state())
        for step in steps:
            n = min(step, straight.rows_left)
            if n:
                assert same(resumed.peek(n), resumed.next(n))
                straight.next(n)
        assert resumed.state() == straight.state()
        if straight.rows_left:
            assert same(resumed.next(resumed.rows_left), straight.next(straight.rows_left))
    finally:
        for loader in (straight, stopped, resumed):
            loader.close()


@pytest.mark.parametrize("chosen", [False, True], ids=["in order", "chosen by a function"])
def test_places_among_the_next_rows_are_those_rows(chosen: bool, shard_set: ShardSet) -> None:
    whole, parts = Loader(shard_set, seed=0, epochs=2), Loader(shard_set, seed=0, epochs=2)
    for each in (whole, parts) if chosen else ():
        each.draw(lambda taken, n, progress: (7 * (taken + np.arange(n))) % ROWS)
    source = np.random.default_rng(0)
    for n in (1, 40, BLOCK_ROWS, 300, ROWS - 57, 1):  # within a block, over several, and over the end of an epoch
        places = np.flatnonzero(source.random(n) < 0.4)
        assert chosen or same(whole.peek(n)[places], parts.peek(n, places))
        assert same(whole.next(n)[places], parts.next(n, 0.0, places))
        assert parts.rows_taken == whole.rows_taken
    assert len(parts.next(5, 0.0, np.empty(0, np.int64)).tokens) == 0
    assert parts.rows_taken == whole.rows_taken + 5
    for each in (whole, parts):
        each.close()


def test_counts_and_the_end(loader: Loader) -> None:
    loader.next(100)
    assert (loader.rows_total, loader.rows_taken, loader.rows_left) == (2 * ROWS, 100, 2 * ROWS - 100)
    with pytest.raises(CramError, match=rf"{2 * ROWS} more rows needed, {2 * ROWS - 100} of {2 * ROWS} left; .*epochs"):
        loader.next(2 * ROWS)
    assert loader.rows_taken == 100


def test_a_state_of_other_data_seed_or_order_is_refused(loader: Loader) -> None:
    state = loader.state()
    with pytest.raises(CramError, match=r"the checkpoint has data x, not"):
        loader.resume(state | {"data": "x"})
    with pytest.raises(CramError, match=r"the checkpoint has seed 9, not 0"):
        loader.resume(state | {"seed": 9})
    with pytest.raises(CramError, match=r"the checkpoint has order likely_first, not shuffled; start"):
        loader.resume(state | {"order": "likely_first"})
    with pytest.raises(CramError, match=r"data.epochs: the checkpoint has taken 9999 rows"):
        loader.resume(state | {"rows_taken": 9999})


def test_a_state_without_an_order_is_shuffled(loader: Loader, shard_set: ShardSet) -> None:
    loader.next(7)
    state = loader.state()
    del state["order"]
    loader.resume(state)
    assert loader.next(3).index.tolist() == epoch_order(0, shard_set.hash, 0, ROWS)[7:10].tolist()
    by_likelihood = Loader(shard_set, 0, order="likely_first")
    with pytest.raises(CramError, match=r"has order shuffled, not likely_first"):
        by_likelihood.resume(state)
    by_likelihood.close()


def test_global_random_state_is_left_alone(shard_set: ShardSet) -> None:
    np.random.seed(5)
    expected = np.random.random(3)
    np.random.seed(5)
    loader = Loader(shard_set, seed=0)
    loader.next(ROWS)
    loader.close()
    assert (np.random.random(3) == expected).all()


def test_an_error_in_the_thread_is_raised_by_next(shard_set: ShardSet, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: np.ndarray) -> None:
        raise OSError("the disk went away")

    monkeypatch.setattr(shard_set, "read", fail)
    loader = Loader(shard_set, seed=0)
    for _ in range(2):
        with pytest.raises(OSError, match="the disk went away"):
            loader.next(1)
    loader.close()


def reading() -> bool:
    return any(thread.name == "cram-loader" and thread.is_alive() for thread in threading.enumerate())


def test_close_ends_the_thread(shard_set: ShardSet) -> None:
    loader = Loader(shard_set, seed=0, epochs=1000)
    assert reading()
    loader.close()
    assert not reading()


def test_a_deleted_loader_ends_its_thread(shard_set: ShardSet) -> None:
    Loader(shard_set, seed=0, epochs=1000)
    gc.collect()
    assert not reading()


def test_a_program_that_ends_while_rows_are_read_ahead_ends_the_thread_first(shard_set: ShardSet) -> None:
    """One program in seventy aborted at shutdown. The exit handler that is registered first runs last."""
    code = (
        "import atexit, sys, threading\natexit.register(lambda: print([t.name for t in threading.enumerate()]))\n"
        "from cram.data.shards.loader import Loader\nfrom cram.data.shards.shards import ShardSet\n"
        "loader = Loader(ShardSet.open(sys.argv[1]), seed=0, epochs=100_000)\nloader.next(1)"
    )
    words = [sys.executable, "-c", code, str(shard_set.folder)]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "['MainThread']", "")


@pytest.mark.parametrize("order", ORDERS)
def test_a_subset_is_random_rows_that_are_the_same_in_every_epoch(shard_set: ShardSet, order: OrderKind) -> None:
    loader = Loader(shard_set, seed=3, epochs=3, order=order, subset_tokens=20 * SEQ_LEN + 3)
    assert (loader.epoch_rows, loader.rows_total) == (20, 60)
    rows = loader.next(60)
    loader.close()
    assert rows.epoch.tolist() == [0] * 20 + [1] * 20 + [2] * 20
    chosen = set(epoch_order(3, shard_set.hash, 0, ROWS)[:20].tolist())
    epochs = [rows.index[rows.epoch == epoch].tolist() for epoch in range(3)]
    assert all(set(epoch) == chosen and len(epoch) == 20 for epoch in epochs)
    whole = open_order(shard_set, order, 3, 1).tolist()
    assert epochs[1] == [number for number in whole if number in chosen]
    assert (epochs[0] != epochs[1]) == (order == "shuffled")


def test_a_subset_resumes_to_the_row(shard_set: ShardSet) -> None:
    first = Loader(shard_set, seed=3, epochs=3, subset_tokens=20 * SEQ_LEN)
    first.next(33)
    state, expected = first.state(), first.next(27)
    second = Loader(shard_set, seed=3, epochs=3, subset_tokens=20 * SEQ_LEN)
    second.resume(state)
    assert same(second.next(27), expected)
    first.close()
    second.close()


def test_a_subset_has_a_row_at_least_and_no_more_than_the_data(shard_set: ShardSet) -> None:
    assert count_epoch_rows(shard_set, None) == count_epoch_rows(shard_set, ROWS * SEQ_LEN) == ROWS
    assert count_epoch_rows(shard_set, 1) == 1
    with pytest.raises(
        CramError, match=r"^data\.subset_tokens=9,999: the data has 2,224 tokens\. Lower it, or give more"
    ):
        count_epoch_rows(shard_set, 9999)


@pytest.mark.parametrize("order", ORDERS)
def test_kept_rows_come_once_an_epoch_in_the_order_that_they_had(shard_set: ShardSet, order: OrderKind) -> None:
    whole, loader = (Loader(shard_set, 3, epochs=2, order=order) for _ in range(2))
    kept = np.arange(0, ROWS, 3)
    loader.keep(kept)
    assert (loader.epoch_rows, loader.rows_total) == (len(kept), 2 * len(kept))
    expected = whole.next(2 * ROWS).index
    assert np.array_equal(loader.next(2 * len(kept)).index, expected[np.isin(expected, kept)])
    assert loader.rows_left == 0


def test_kept_rows_are_resumed_and_are_of_the_subset(shard_set: ShardSet) -> None:
    first, second = (Loader(shard_set, 3, subset_tokens=200 * SEQ_LEN) for _ in range(2))
    numbers = first.numbers()
    assert len(numbers) == 200
    assert np.array_equal(numbers, np.sort(first.peek(200).index))
    first.keep(numbers[::2])
    first.next(30)
    second.resume(first.state())
    second.keep(numbers[::2])
    assert second.rows_left == 70
    assert same(first.next(70), second.next(70))


def test_a_function_can_choose_the_rows(loader: Loader) -> None:
    asked = []

    def choose(first: int, n: int, progress: float) -> np.ndarray:
        asked.append((first, n, progress))
        return np.full(n, 7, np.int64)

    loader.next(5)
    loader.draw(choose)
    assert np.array_equal(loader.peek(2).index, loader.peek(2).index)  # what the probe looks at is not drawn
    rows = loader.next(3, 0.25)
    assert asked == [(5, 3, 0.25)]
    assert rows.index.tolist() == [7, 7, 7]
    assert rows.epoch.tolist() == [5, 6, 7]  # so that other tokens are hidden each time
    assert (rows.tokens == 7 * SEQ_LEN + np.arange(SEQ_LEN)).all()
    assert loader.rows_taken == 8


def test_rows_are_read_joined_and_picked(loader: Loader) -> None:
    rows = loader.read(np.array([5, 3, 9]), epoch=2)
    assert rows.index.tolist() == [5, 3, 9]
    assert rows.epoch.tolist() == [2, 2, 2]
    assert loader.rows_taken == 0
    joined = TrainingRows.join([rows[:1], rows[np.array([2, 1])]])
    assert joined.index.tolist() == [5, 9, 3]
    assert np.array_equal(joined.tokens, loader.read(np.array([5, 9, 3])).tokens)
    restored = loader.restore(joined.tokens, joined.documents, joined.index, joined.epoch)
    assert same(restored, joined)
