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

from cram.data.loader import BLOCK_ROWS, Loader, Rows, epoch_order
from cram.data.shards import ShardSet, ShardWriter
from cram.errors import CramError

ROOT = Path(__file__).parents[3]
ROWS = 2 * BLOCK_ROWS + 44
SEQ_LEN = 4


@pytest.fixture(scope="module")
def shard_set(tmp_path_factory: pytest.TempPathFactory) -> ShardSet:
    folder = tmp_path_factory.mktemp("set")
    tokens = np.arange(ROWS * SEQ_LEN, dtype=np.int32).reshape(ROWS, SEQ_LEN)
    writer = ShardWriter(folder, SEQ_LEN, ROWS * SEQ_LEN, 0)
    writer.write(tokens, tokens % SEQ_LEN)
    writer.finish(b"{}", [], {"counts": {"documents": 1}})
    return ShardSet.open(folder)


@pytest.fixture
def loader(shard_set: ShardSet) -> Iterator[Loader]:
    loader = Loader(shard_set, seed=0, epochs=2)
    yield loader
    loader.close()


def same(a: Rows, b: Rows) -> bool:
    return all(np.array_equal(x, y) for x, y in zip(vars(a).values(), vars(b).values(), strict=True))


@given(st.integers(0, 2**31), st.text(max_size=8), st.integers(0, 9), st.integers(1, 500))
def test_the_order_is_a_permutation_and_pure(seed: int, data_hash: str, epoch: int, rows: int) -> None:
    order = epoch_order(seed, data_hash, epoch, rows)
    assert order.dtype == np.int64
    assert sorted(order.tolist()) == list(range(rows))
    np.random.seed(1)
    assert (order == epoch_order(seed, data_hash, epoch, rows)).all()


def test_the_order_is_the_same_for_ever_and_depends_on_each_argument() -> None:
    known = [1, 0, 6, 7, 5, 2, 8, 9, 4, 3]
    assert epoch_order(0, "hash", 0, 10).tolist() == known
    for arguments in ((1, "hash", 0), (0, "other", 0), (0, "hash", 1)):
        assert epoch_order(*arguments, 10).tolist() != known


def test_each_row_once_an_epoch_with_its_own_tokens(loader: Loader) -> None:
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


@settings(max_examples=20, deadline=None)
@given(steps=st.lists(st.integers(1, 2 * BLOCK_ROWS), min_size=1, max_size=8), taken=st.integers(0, 2 * ROWS - 1))
def test_resumed_anywhere_it_goes_on_as_a_straight_run(shard_set: ShardSet, steps: list[int], taken: int) -> None:
    straight, stopped, resumed = (Loader(shard_set, seed=3, epochs=2) for _ in range(3))
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


def test_counts_and_the_end(loader: Loader) -> None:
    loader.next(100)
    assert (loader.rows_total, loader.rows_taken, loader.rows_left) == (2 * ROWS, 100, 2 * ROWS - 100)
    with pytest.raises(CramError, match=rf"{2 * ROWS} more rows needed, {2 * ROWS - 100} of {2 * ROWS} left; .*epochs"):
        loader.next(2 * ROWS)
    assert loader.rows_taken == 100


def test_a_state_of_other_data_or_seed_is_refused(loader: Loader) -> None:
    state = loader.state()
    with pytest.raises(CramError, match=r"the checkpoint was trained with data x, not"):
        loader.resume(state | {"data": "x"})
    with pytest.raises(CramError, match=r"the checkpoint was trained with seed 9, not 0"):
        loader.resume(state | {"seed": 9})
    with pytest.raises(CramError, match=r"data.epochs: the checkpoint has taken 9999 rows"):
        loader.resume(state | {"rows_taken": 9999})


def test_global_random_state_is_left_alone(shard_set: ShardSet) -> None:
    np.random.seed(5)
    expected = np.random.random(3)
    np.random.seed(5)
    loader = Loader(shard_set, seed=0)
    loader.next(ROWS)
    loader.close()
    assert (np.random.random(3) == expected).all()


def test_an_error_in_the_thread_comes_out_of_next(shard_set: ShardSet, monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_a_loader_that_is_dropped_ends_its_thread(shard_set: ShardSet) -> None:
    Loader(shard_set, seed=0, epochs=1000)
    gc.collect()
    assert not reading()


def test_a_program_that_ends_while_rows_are_read_ahead_has_ended_its_thread_before(shard_set: ShardSet) -> None:
    """One in seventy aborted when the interpreter shut down around it. What is registered first, runs last."""
    code = (
        "import atexit, sys, threading\natexit.register(lambda: print([t.name for t in threading.enumerate()]))\n"
        "from cram.data.loader import Loader\nfrom cram.data.shards import ShardSet\n"
        "loader = Loader(ShardSet.open(sys.argv[1]), seed=0, epochs=100_000)\nloader.next(1)"
    )
    words = [sys.executable, "-c", code, str(shard_set.folder)]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "['MainThread']", "")
