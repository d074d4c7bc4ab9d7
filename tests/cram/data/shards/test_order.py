import itertools
import threading
import time
import tracemalloc
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file
from tokenizers import Tokenizer, models

from cram.data.shards import order
from cram.data.shards.order import SORTED, epoch_order, open_order, write_orders
from cram.data.shards.shards import ShardSet, ShardWriter
from cram.data.wordpiece import SPECIAL_TOKENS
from cram.errors import CramError
from cram.files.atomic import write_atomic

PAD, VOCAB = 0, 64
SPECIAL = len(SPECIAL_TOKENS)


def make_set(folder: Path, tokens: np.ndarray) -> ShardSet:
    folder.mkdir()
    writer = ShardWriter(folder, tokens.shape[1], VOCAB, PAD)
    for start in range(0, len(tokens), 40):
        writer.write(tokens[start : start + 40], np.zeros_like(tokens[start : start + 40]))
        writer.flush()
    words = [*SPECIAL_TOKENS, *(f"a{number}" for number in range(VOCAB - SPECIAL))]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    writer.finish(tokenizer.to_str().encode(), [], {"counts": {"documents": 1}})
    return ShardSet.open(folder)


def random_tokens(seed: int, rows: int = 100, seq_len: int = 6) -> np.ndarray:
    """Rows of frequent and rare tokens, some of them padded."""
    random = np.random.default_rng(seed)
    tokens = (SPECIAL + random.geometric(0.15, (rows, seq_len)) % (VOCAB - SPECIAL)).astype(np.int32)
    tokens[np.arange(seq_len) >= random.integers(1, 3 * seq_len, rows)[:, None]] = PAD
    return tokens


@pytest.fixture
def shards(tmp_path: Path) -> ShardSet:
    return make_set(tmp_path / "set", random_tokens(0))


def means(tokens: np.ndarray) -> np.ndarray:
    """The mean log2-likelihood of each row, by the definition."""
    counts = Counter(token for token in tokens.ravel().tolist() if token != PAD)
    likelihood = {token: np.log2((count + 1) / (counts.total() + VOCAB)) for token, count in counts.items()}
    return np.array([np.mean([likelihood[token] for token in row if token != PAD]) for row in tokens.tolist()])


@settings(deadline=None)
@given(st.integers(0, 2**31), st.text(max_size=8), st.integers(0, 9), st.integers(0, 3000))
def test_a_shuffled_order_is_a_permutation_and_a_function_of_its_arguments(
    seed: int, data_hash: str, epoch: int, rows: int
) -> None:
    numbers = epoch_order(seed, data_hash, epoch, rows)
    assert numbers.dtype == np.uint32
    assert sorted(numbers.tolist()) == list(range(rows))
    np.random.seed(1)
    assert (numbers == epoch_order(seed, data_hash, epoch, rows)).all()


def test_a_shuffled_order_never_changes_and_depends_on_each_argument() -> None:
    known = [1, 0, 6, 7, 5, 2, 8, 9, 4, 3]
    assert epoch_order(0, "hash", 0, 10).tolist() == known
    for arguments in ((1, "hash", 0), (0, "other", 0), (0, "hash", 1)):
        assert epoch_order(*arguments, 10).tolist() != known


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**32 - 1), st.one_of(st.integers(0, 5000), st.sampled_from([1 << 16, 300_000])))
def test_shuffling_in_place_is_numpys_permutation(seed: int, rows: int) -> None:
    patch = pytest.MonkeyPatch()
    patch.setattr(order, "NUMBERS_AT_ONCE", 1 << 14)
    patch.setattr(order.np.random, "RandomState", lambda _, make=np.random.RandomState: make(seed))
    shuffled = epoch_order(0, "", 0, rows)
    patch.undo()
    assert (shuffled == np.random.RandomState(seed).permutation(rows)).all()


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10**6), st.integers(1, 120), st.integers(1, 9))
def test_sorted_by_the_mean_likelihood(
    tmp_path_factory: pytest.TempPathFactory, seed: int, rows: int, seq_len: int
) -> None:
    tokens = random_tokens(seed, rows, seq_len)
    shards = make_set(tmp_path_factory.mktemp("sorted") / "set", tokens)
    scores = means(tokens)
    for kind, sign in (("likely_first", 1), ("unlikely_first", -1)):
        numbers = open_order(shards, kind, 0, 0)
        assert sorted(numbers.tolist()) == list(range(rows))
        assert (np.diff(sign * scores[numbers]) <= 2e-6).all()
        for a, b in itertools.pairwise(numbers.tolist()):  # the same tokens, in whatever order, are as likely
            assert a < b or sorted(tokens[a][tokens[a] != PAD]) != sorted(tokens[b][tokens[b] != PAD])


def test_the_two_sorted_orders_differ_only_in_direction(shards: ShardSet) -> None:
    likely, unlikely = (open_order(shards, kind, 0, 0) for kind in SORTED)
    scores = means(shards.read(np.arange(shards.rows))[0])
    assert scores[likely[0]] == scores.max() and scores[unlikely[0]] == scores.min()
    assert np.allclose(scores[likely], scores[unlikely][::-1], atol=2e-6)


def test_padding_does_not_count(tmp_path: Path) -> None:
    often, rare = SPECIAL, SPECIAL + 1
    tokens = np.array([[often, rare, often, rare], [often, rare, PAD, PAD], [often] * 4, [rare, often, PAD, PAD]])
    shards = make_set(tmp_path / "set", tokens.astype(np.int32))
    assert open_order(shards, "likely_first", 0, 0).tolist() == [2, 0, 1, 3]
    assert open_order(shards, "unlikely_first", 0, 0).tolist() == [0, 1, 3, 2]


def test_scores_of_the_largest_sets_do_not_overflow(shards: ShardSet, monkeypatch: pytest.MonkeyPatch) -> None:
    counts = np.zeros(VOCAB, np.int64)
    counts[SPECIAL : SPECIAL + 2] = 2**60, 2**40
    rows = np.array([[VOCAB - 1] * 6, [SPECIAL + 1] * 6, [SPECIAL] * 6, [VOCAB - 1] * 3 + [SPECIAL] * 3])
    monkeypatch.setattr(shards, "token_counts", lambda: counts)
    table = order._surprisal(shards)
    assert order._mean(table, rows) / 2.0**order.ROW_BITS == pytest.approx([60, 20, 0, 30], abs=1e-5)
    assert (np.argsort(order._mean(table, np.repeat(rows, 4000, axis=1))) == [2, 1, 3, 0]).all()


@pytest.mark.parametrize("kind", ["shuffled", *SORTED])
def test_an_order_is_made_once_and_then_mapped(
    shards: ShardSet, kind: order.OrderKind, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = open_order(shards, kind, 3, 1)
    name = "shuffled-seed3-epoch1" if kind == "shuffled" else kind
    path = shards.folder / "orders" / f"{name}.safetensors"
    assert np.array_equal(load_file(path)["order"], made)
    monkeypatch.setattr(order, "_build_file", None)
    read = open_order(shards, kind, 3, 1)
    assert not read.flags.owndata and not read.flags.writeable
    assert np.array_equal(read, made) and read.dtype == np.uint32
    if kind == "shuffled":
        assert np.array_equal(read, epoch_order(3, shards.hash, 1, shards.rows))
    else:  # the same for every seed and epoch
        assert np.array_equal(open_order(shards, kind, 4, 2), made)


def flip(at: int, data: bytes) -> bytes:
    changed = bytearray(data)
    changed[at] ^= 1
    return bytes(changed)


DAMAGES = {
    "last bit": lambda data: flip(-1, data),
    "first of the numbers": lambda data: flip(8 + int.from_bytes(data[:8], "little"), data),
    "length of the header": lambda data: flip(0, data),
    "header": lambda data: flip(9, data),
    "cut short": lambda data: data[:-4],
    "cut in the header": lambda data: data[:20],
    "too long": lambda data: data + b"1234",
    "empty": lambda data: b"",
    "other data": lambda data: data.replace(b'"data": "', b'"data": "0')[:-1],
}


def test_a_damaged_list_of_orders_is_made_anew(shards: ShardSet) -> None:
    expected = {kind: np.array(open_order(shards, kind, 0, 0)) for kind in ("shuffled", "likely_first")}
    path = shards.folder / "orders" / "checksums.json"
    good = path.read_bytes()
    path.write_bytes(good.replace(b"likely", b"lively"))
    for kind, order_before in expected.items():
        assert np.array_equal(open_order(shards, kind, 0, 0), order_before)
    assert path.read_bytes() == good


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("kind", ["shuffled", "likely_first"])
def test_a_damaged_file_is_made_anew(shards: ShardSet, kind: order.OrderKind, damage: str) -> None:
    expected = np.array(open_order(shards, kind, 0, 0))
    (path,) = (shards.folder / "orders").glob("*.safetensors")
    good = path.read_bytes()
    path.write_bytes(DAMAGES[damage](good))
    assert np.array_equal(open_order(shards, kind, 0, 0), expected)
    assert path.read_bytes() == good


def test_a_file_of_other_shards_or_of_another_order_is_made_anew(tmp_path: Path, shards: ShardSet) -> None:
    other = make_set(tmp_path / "other", random_tokens(1))  # as many rows
    for kind, name in (("likely_first", "likely_first"), ("shuffled", "shuffled-seed0-epoch0")):
        right = np.array(open_order(shards, kind, 0, 0))
        path = shards.folder / f"orders/{name}.safetensors"
        open_order(other, kind, 0, 0)
        path.write_bytes((other.folder / "orders" / path.name).read_bytes())
        assert np.array_equal(open_order(shards, kind, 0, 0), right)
    open_order(shards, "shuffled", 0, 1)
    path.write_bytes(path.with_stem("shuffled-seed0-epoch1").read_bytes())
    assert np.array_equal(open_order(shards, "shuffled", 0, 0), right)


def test_an_order_that_cannot_be_written_is_kept_in_memory_with_one_warning(
    shards: ShardSet, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(path: Path, _: bytes) -> None:
        raise CramError(f"{path}: the disk is full")

    expected = {kind: np.array(open_order(shards, kind, 0, 0)) for kind in ("shuffled", "likely_first")}
    for path in (shards.folder / "orders").iterdir():
        path.unlink()
    monkeypatch.setattr(order, "write_atomic", full)
    for kind, numbers in expected.items():
        for _ in range(2):
            assert np.array_equal(open_order(shards, kind, 0, 0), numbers)
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith(f"warning: {shards.folder / 'orders'} cannot be written, so orders of rows are kept in mem")
    assert line.endswith("the disk is full")
    with pytest.raises(CramError, match="the disk is full"):  # preparation cannot do without
        write_orders(shards)


def test_a_folder_without_room_for_orders_is_not_an_error(shards: ShardSet, capsys: pytest.CaptureFixture[str]) -> None:
    (shards.folder / "orders").write_text("in the way")
    assert np.array_equal(open_order(shards, "shuffled", 0, 0), epoch_order(0, shards.hash, 0, shards.rows))
    assert capsys.readouterr().out.startswith("warning: ")
    with pytest.raises(OSError):
        write_orders(shards)


def test_preparation_writes_the_sorted_orders_and_leaves_good_ones(shards: ShardSet) -> None:
    write_orders(shards)
    folder = shards.folder / "orders"
    assert {path.name for path in folder.glob("*.*s")} == {f"{kind}.safetensors" for kind in SORTED}
    first, second = (folder / f"{kind}.safetensors" for kind in SORTED)
    good, before = first.read_bytes(), second.stat().st_mtime_ns
    first.write_bytes(b"")
    write_orders(shards)
    assert first.read_bytes() == good
    assert second.stat().st_mtime_ns == before


@pytest.mark.parametrize("kind", ["shuffled", "unlikely_first"])
def test_memory_is_eight_bytes_a_row(shards: ShardSet, kind: order.OrderKind, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = 3_000_000
    monkeypatch.setattr(order, "NUMBERS_AT_ONCE", 1 << 16)

    def blocks() -> Iterator[tuple[None, np.ndarray, None]]:
        for start in range(0, rows, 1 << 15):
            index = np.arange(start, min(start + (1 << 15), rows))
            yield None, (np.stack([index % 50, index % 13], axis=1) + SPECIAL).astype(np.uint16), None

    large = SimpleNamespace(
        **vars(shards) | {"rows": rows, "seq_len": 2},
        blocks=blocks,
        token_counts=shards.token_counts,
        tokenizer_path=shards.tokenizer_path,
    )
    tracemalloc.start()
    numbers = open_order(large, kind, 0, 0)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (np.bincount(numbers, minlength=rows) == 1).all()
    assert peak < 8 * rows + 6_000_000


def test_runs_that_start_together_write_one_after_the_other_and_get_the_same_order(
    shards: ShardSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    writing, most, found = [], [], []
    barrier = threading.Barrier(4)

    def write(path: Path, data: bytes) -> None:
        writing.append(path)
        most.append(len(writing))
        time.sleep(0.02)
        write_atomic(path, data)
        writing.pop()

    def run() -> None:
        barrier.wait()
        found.append(np.array(open_order(shards, "shuffled", 0, 7)))

    monkeypatch.setattr(order, "write_atomic", write)
    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert max(most) == 1
    expected = epoch_order(0, shards.hash, 7, shards.rows)
    assert len(found) == 4 and all(np.array_equal(numbers, expected) for numbers in found)
