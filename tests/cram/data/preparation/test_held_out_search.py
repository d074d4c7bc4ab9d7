import json
import random
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save

from cram.config.data import DataConfig, DedupeConfig, FilterConfig, WordPieceConfig
from cram.data.inspect.verify import verify_shards
from cram.data.preparation import held_out_search
from cram.data.preparation.held_out_search import BOILERPLATE, WINDOW, HeldOutIndex, strip_frame
from cram.data.preparation.prepare import prepare_shards
from cram.data.preparation.row_writer import RowWriter
from cram.data.preparation.samples import Sample
from cram.data.preparation.second_pass import ChunkNote, Overlap, TokenizedDocuments
from cram.data.preparation.vocabulary import TokenizerSource
from cram.data.shards.pack import PackingKind, make_packer
from cram.data.shards.shards import ShardSet, ShardWriter
from cram.data.special_tokens import SpecialTokens
from cram.data.text.document import Location
from cram.errors import CramError
from cram.files.sealed import write_sealed
from cram.terminal.progress import Progress
from proofs.twins import TRANSFORMS, make_twins
from proofs.unseen import count_leaks, encode_held_out, plant_document, train_byte_level

NO_FILTERS = FilterConfig(
    min_words=0, symbols=None, digits=None, repetition=False, boilerplate=False, compressibility=None
)
WORDPIECE = WordPieceConfig(vocab_size=128)
SPECIAL = SpecialTokens(pad=0, unk=1, cls=2, sep=3, mask=4)
small_ids = st.lists(st.integers(5, 7), max_size=30)


def make(
    folder: Path,
    texts: list[str],
    path: str | None = None,
    wordpiece: WordPieceConfig = WORDPIECE,
    **changes: Any,
) -> ShardSet:
    folder.mkdir(exist_ok=True)
    source = folder / "corpus.jsonl"
    source.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    data = DataConfig(source=str(source), dir=str(folder), seq_len=32, held_out=0.1, filters=NO_FILTERS, processes=1)
    return prepare_shards(replace(data, **changes), TokenizerSource(path, wordpiece), Progress(terminal=False))


@pytest.fixture
def short_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Set windows to 6 ids, so that a few ids contain some."""
    monkeypatch.setattr(held_out_search, "WINDOW", 6)
    monkeypatch.setattr(held_out_search, "BLOCK", 3)


def runs(ids: list[int], n: int) -> list[tuple[int, ...]]:
    return [tuple(ids[start : start + n]) for start in range(len(ids) - n + 1)]


@pytest.mark.usefixtures("short_windows")
@given(st.lists(small_ids, max_size=4), st.lists(small_ids, max_size=6), st.data())
def test_the_index_finds_what_a_plain_search_finds(
    held: list[list[int]], texts: list[list[int]], data: st.DataObject
) -> None:
    texts = [*texts, *data.draw(st.lists(st.sampled_from(held), max_size=3))] if held else texts
    held_out = HeldOutIndex.of([np.array(ids) for ids in held])
    known = {run for ids in held for run in runs(ids, 6)}
    assert len(held_out.windows) == len(known)
    framed = [2, *[number for ids in texts for number in [*ids, 3, 2]]]
    places, numbers = held_out.find_windows(np.array(framed, np.int32))
    found = runs(framed, 6)
    assert places.tolist() == [place for place, run in enumerate(found) if run in known]
    pairs = {(found[place], number) for place, number in zip(places.tolist(), numbers.tolist(), strict=True)}
    assert len(pairs) == len({run for run, _ in pairs}) == len({number for _, number in pairs})
    lengths = np.array([len(ids) + 2 for ids in texts], np.int64)
    starts = np.cumsum(lengths) - lengths
    there = lengths > 2
    equal = held_out.match_documents(np.array(framed), starts[there] + 1, (starts + lengths - 1)[there])
    assert equal.tolist() == [ids in held for ids in texts if ids]


def test_an_index_is_written_and_mapped(tmp_path: Path) -> None:
    made = HeldOutIndex.of([np.arange(5, 200), np.arange(9), np.empty(0, np.int64)])
    made.save(tmp_path / "ids")
    again = HeldOutIndex.load(tmp_path / "ids")
    assert all((vars(made)[name] == vars(again)[name]).all() for name in vars(made))
    assert made.lengths.tolist() == [9, 195] and len(made.windows) == 195 - WINDOW + 1
    assert strip_frame(np.array([2, 7, 8, 3]), SPECIAL).tolist() == [7, 8]
    assert strip_frame(np.array([7, 8, 3]), replace(SPECIAL, cls=None)).tolist() == [7, 8]


SYLLABLES = ["ba", "re", "mi", "to", "lu", "ken", "sor", "dal", "fin", "gus"]


def prose(seed: int, words: int, syllables: int = 2) -> str:
    source = random.Random(seed)
    return " ".join("".join(source.choices(SYLLABLES, k=syllables)) for _ in range(words))


PROSE = [prose(number, 20 + number) for number in range(140)]


def test_the_manifest_of_a_folder_without_leaks_has_the_result(tmp_path: Path) -> None:
    made = make(tmp_path, PROSE)
    check = made.manifest["held_out_check"]
    assert check.pop("documents") == len(made.held_out()) and check.pop("windows") > 100
    assert set(check.values()) == {0}
    assert verify_shards(made.folder).rows == made.rows


@pytest.mark.parametrize("cls", [True, False])
def test_verify_finds_what_was_planted(tmp_path: Path, cls: bool) -> None:
    made = make(tmp_path / "set", PROSE, None if cls else train_byte_level(PROSE, tmp_path / "bpe.json"))
    held_out = sorted(encode_held_out(made), key=len)
    short, long = held_out[0], held_out[-1]
    assert len(short) < WINDOW < 2 * WINDOW < len(long)
    part = [*long[: 2 + WINDOW], long[-1]]
    for number, (ids, least) in enumerate([(short, 0), (long, 0), (long, 600), (part, 0)]):
        folder = shutil.copytree(made.folder, tmp_path / f"{number}")
        plant_document(folder, ids, least)
        windows = max(0, len(ids) - (2 if cls else 1) - WINDOW + 1)
        found = rf"{int(ids in held_out)} whole document\(s\) and {windows} window\(s\) of 64 tokens; delete the folder"
        with pytest.raises(CramError, match=rf"{number}: its rows contain held-out text, {found}"):
            verify_shards(folder)


def test_a_manifest_with_another_result_is_refused(tmp_path: Path) -> None:
    made = make(tmp_path, PROSE)
    path = made.folder / "manifest.json"
    write_sealed(path, made.manifest | {"held_out_check": None})
    with pytest.raises(CramError, match=r"manifest.json: held_out_check: None, but \{'documents': \d+, .* in the rows"):
        verify_shards(made.folder)


def rows_of(folder: Path, documents: list[list[int]], kind: PackingKind, seq_len: int) -> ShardSet:
    """Write shards of these documents, each `[CLS] ids [SEP]`."""
    writer, packer = ShardWriter(folder, seq_len, 64, 0), make_packer(kind, seq_len, 0)
    for ids in documents:
        packer.add([2, *ids, 3])
    writer.write(*packer.finish())
    writer.write_file(held_out_search.BOILERPLATE_FILE, save({"windows": np.array([], np.uint64)}))
    writer.finish(b"{}", [], {"counts": {"documents": len(documents)}, "settings": {"packing": kind}})
    return ShardSet.open(folder)


@pytest.mark.usefixtures("short_windows")
@pytest.mark.parametrize("kind", ["greedy", "best_fit"])
@pytest.mark.parametrize("at_once", [1 << 20, 16, 8])
def test_greedy_rows_are_searched_across_their_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: PackingKind, at_once: int
) -> None:
    monkeypatch.setattr("cram.data.shards.shards.TOKENS_AT_ONCE", at_once)
    monkeypatch.setattr(held_out_search, "load_tokenizer", lambda _: None)
    monkeypatch.setattr(held_out_search.SpecialTokens, "of", lambda _: SPECIAL)
    source = random.Random(at_once)
    documents = [[source.randint(5, 60) for _ in range(source.randint(1, 40))] for _ in range(60)]
    shards = rows_of(tmp_path, documents, kind, seq_len=8)
    held = [documents[7], documents[30], [9] * 9, documents[50][:3]]
    held_out = HeldOutIndex.of([np.array(ids) for ids in held])
    found = held_out_search.check_rows(shards, held_out)
    whole = [ids for ids in documents if ids in held]
    pieces = whole if kind == "greedy" else [run for ids in whole for run in _cut([2, *ids, 3])]
    windows = {run for ids in pieces for run in runs(ids, 6) if not {2, 3} & set(run)}
    assert found.windows_found == len(windows) > 0
    assert found.sequences_found == sum(kind == "greedy" or len(ids) <= 6 for ids in whole)
    assert found.boilerplate_windows == found.boilerplate_documents == 0


def _cut(ids: list[int]) -> list[list[int]]:
    whole = len(ids) - len(ids) % 8
    return [*(ids[start : start + 8] for start in range(0, whole, 8)), ids[whole:]]


def touch(rows: RowWriter, first: int, counts: list[int]) -> None:
    """Add one chunk of documents of 4 ids, each of which contains one window."""
    touching = {i: Overlap([window], 100, Sample(i, "", "")) for i, window in enumerate(counts)}
    ids, lengths = np.full(4 * len(counts), 9, np.int32), np.full(len(counts), 4, np.int64)
    rows.add(
        TokenizedDocuments(ids, lengths, lengths, {}, {}, {}, touching),
        ChunkNote([0] * len(counts), Location(0, first), {}, 0),
    )


def test_windows_in_many_documents_are_boilerplate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def writer() -> RowWriter:
        shards = ShardWriter(tmp_path, 8, 64, 0)
        return RowWriter(tmp_path, shards, make_packer("greedy", 8, 0), 8, [1.0], None)

    monkeypatch.setattr("cram.data.preparation.row_writer.TOKENS_PER_SHARD", 8)
    rows = writer()
    touch(rows, 0, [3] * (BOILERPLATE - 1) + [5])
    touch(rows, 1, [3])
    assert rows.counts.documents == 0 and not rows.boilerplate
    touch(rows, 2, [3, 3, 5])
    assert rows.counts.documents == 2 and rows.boilerplate == [3]
    assert rows.counts.dropped == {"window_held_out": [BOILERPLATE + 2, 100 * (BOILERPLATE + 2)]}
    assert len(rows.counts.samples["window_held_out"]) > 0
    again = writer()  # goes on behind the shard
    assert again.cursor == (0, 2) and again.boilerplate == [3]
    touch(again, 3, [5] * (BOILERPLATE - 1))
    assert again.counts.documents == 3 and again.boilerplate == [3, 5]


def test_a_notice_of_many_documents_stays_and_is_counted(tmp_path: Path) -> None:
    notice = prose(-1, 90)
    texts = [f"{text} {notice}" if number % 2 else text for number, text in enumerate(PROSE)]
    made = make(tmp_path, texts, dedupe=DedupeConfig(near=None))
    check, dropped = made.manifest["held_out_check"], made.manifest["dropped"]
    # Some more than its own ten: the windows that begin a word or two before it are in fewer documents.
    lost = dropped["window_held_out"]["documents"]
    assert BOILERPLATE <= lost < 30
    assert check["windows_found"] == check["sequences_found"] == 0 < check["boilerplate_windows"]
    assert check["boilerplate_documents"] == 70 - lost - sum(notice in one.text for one in made.held_out())
    assert verify_shards(made.folder)
    assert "window_held_out" in json.loads((made.folder / "statistics.json").read_text())["samples"]


def test_twins_of_every_kind_are_not_in_the_rows(tmp_path: Path) -> None:
    texts = make_twins(4 * len(TRANSFORMS))
    paths = {"bpe": train_byte_level(texts, tmp_path / "bpe.json"), "wordpiece": None}
    for name, path in paths.items():
        made = make(tmp_path / name, texts, path, seq_len=64)
        assert len(made.held_out()) > 5 and count_leaks(made) == 0
        assert made.manifest["dropped"]["near_held_out"]["documents"] > 5


def test_documents_with_equal_ids_and_different_words_are_dropped(tmp_path: Path) -> None:
    """Words that are too long for the vocabulary all become the same token."""
    unknown = [prose(number, 10, syllables=130) for number in range(60)]
    made = make(tmp_path, [*PROSE, *unknown])
    assert any(one.text in unknown for one in made.held_out())
    assert made.manifest["dropped"]["ids_held_out"]["documents"] > 40 and count_leaks(made) == 0
