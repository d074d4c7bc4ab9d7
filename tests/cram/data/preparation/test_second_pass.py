import json
import pickle
import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers

from cram.config.data import FilterConfig, WordPieceConfig
from cram.data.preparation import chunks
from cram.data.preparation.samples import Sample
from cram.data.preparation.second_pass import DocumentTokenizer, KeptDocumentReader, TokenizedDocuments
from cram.data.special_tokens import SpecialTokens, write_roles
from cram.data.text.document import Document, Location
from cram.data.text.source import SourcePart
from cram.data.text.sources import open_source
from cram.data.wordpiece import train_tokenizer

WORDS = [
    "river",
    "castle",
    "teacher",
    "garden",
    "letter",
    "window",
    "soldier",
    "winter",
    "market",
    "doctor",
    "engine",
    "island",
    "painter",
    "bridge",
    "farmer",
    "sailor",
    "kitchen",
    "village",
    "harbour",
    "forest",
]
COOKIES = "We use cookies to make this site better for you."
DENSE = "x y z " * 9 + "x"  # a token every second character
FILTERS = FilterConfig(compressibility=0.45)  # the vocabulary here is small

some_texts = st.one_of(st.lists(st.sampled_from([*WORDS, "x", "\n", COOKIES]), max_size=12).map(" ".join), st.text())


def prose(seed: int, words: int = 30) -> str:
    return " ".join(random.Random(seed).choices(WORDS, k=words)) + "."


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer([prose(seed) for seed in range(50)] + [DENSE] * 2, WordPieceConfig(vocab_size=128))


@pytest.fixture(scope="module")
def definition(tokenizer: Tokenizer) -> str:
    return tokenizer.to_str()


def encoded(definition: str, texts: list[str], filters: FilterConfig = FILTERS) -> TokenizedDocuments:
    documents = [Document(text, f"folder/a.jsonl:{number}") for number, text in enumerate(texts)]
    return DocumentTokenizer(definition, filters)(documents)


def split(found: TokenizedDocuments) -> list[list[int]]:
    return [part.tolist() for part in np.split(found.ids, np.cumsum(found.lengths)[:-1])]


def test_documents_are_what_the_tokenizer_makes_of_them(tokenizer: Tokenizer, definition: str) -> None:
    texts = [prose(0), "Größer " + prose(1), prose(2)]
    found = encoded(definition, texts)
    assert split(found) == [tokenizer.encode(text).ids for text in texts]
    special = SpecialTokens.of(tokenizer)
    assert all((ids[0], ids[-1]) == (special.cls, special.sep) for ids in split(found))
    assert (found.ids.dtype, found.lengths.dtype, found.bytes.dtype) == (np.uint16, np.int64, np.int64)
    assert found.bytes.tolist() == [len(text.encode()) for text in texts]
    assert found.dropped == {} and found.samples == {}
    assert found.seconds.keys() == {"cleaning", "tokenizing", "gathering"}


def test_boilerplate_is_cut_before_tokenizing(tokenizer: Tokenizer, definition: str) -> None:
    text = f"{prose(0)}\n{COOKIES}\n{prose(1)}"
    found = encoded(definition, [text])
    cleaned = f"{prose(0)}\n{prose(1)}"
    assert split(found) == [tokenizer.encode(cleaned).ids] and found.bytes.tolist() == [len(cleaned)]
    assert split(encoded(definition, [text], replace(FILTERS, boilerplate=False))) == [tokenizer.encode(text).ids]


def test_too_many_tokens_a_character_is_dropped(definition: str) -> None:
    dropped = f"{COOKIES}\n{DENSE}"
    found = encoded(definition, [prose(0), dropped, DENSE, prose(1)])
    assert [length > 0 for length in found.lengths] == [True, False, False, True]
    assert found.dropped == {"compressibility": [len(dropped), len(DENSE)]}, "bytes as they were read"
    assert {(one.origin, one.text) for one in found.samples["compressibility"]} == {
        ("a.jsonl:1", DENSE),
        ("a.jsonl:2", DENSE),
    }
    assert found.lengths.sum() == len(found.ids)
    assert encoded(definition, [DENSE], FilterConfig(compressibility=None)).dropped == {}


def test_the_bound_of_compressibility(tokenizer: Tokenizer, definition: str) -> None:
    text = prose(0)
    share = (len(tokenizer.encode(text).ids) - 2) / len(text)
    assert encoded(definition, [text], FilterConfig(compressibility=share)).dropped
    assert not encoded(definition, [text], FilterConfig(compressibility=share + 1e-9)).dropped


@pytest.mark.parametrize("text", ["", " ", "\u200b", "\x00\x01", "\u0301"])
def test_a_document_without_tokens_is_empty(definition: str, text: str) -> None:
    found = encoded(definition, [prose(0), text], FilterConfig(compressibility=None))
    assert found.lengths[1] == 0 and found.dropped == {"empty": [len(text.encode())]}
    assert [one.text for one in found.samples["empty"]] == [text]


def test_a_mask_in_the_text_is_text(tokenizer: Tokenizer, definition: str) -> None:
    special = SpecialTokens.of(tokenizer)
    (ids,) = split(encoded(definition, [f"{prose(0)} [MASK] [SEP] [PAD] {prose(1)}"]))
    assert len(ids) > 60
    assert not set(ids[1:-1]) & {special.mask, special.sep, special.pad, special.cls}


@given(st.lists(some_texts, min_size=1, max_size=6), st.sampled_from([None, 0.3, 0.6]))
def test_chunks_do_not_matter_and_every_document_is_kept_or_dropped(
    definition: str, texts: list[str], compressibility: float | None
) -> None:
    filters = FilterConfig(compressibility=compressibility)
    found = encoded(definition, texts, filters)
    apart = [encoded(definition, [text], filters) for text in texts]
    assert split(found) == [ids for one in apart for ids in split(one)]
    assert found.bytes.tolist() == [size for one in apart for size in one.bytes]
    sizes = [size for dropped in found.dropped.values() for size in dropped]
    assert (found.lengths == 0).sum() == len(sizes)
    assert sorted(sizes) == sorted(
        len(text.encode()) for text, length in zip(texts, found.lengths, strict=True) if not length
    )


@pytest.mark.parametrize("word_table", [0, 1, 20])
def test_the_table_of_words_changes_nothing(definition: str, word_table: int) -> None:
    texts = [prose(0), DENSE, "", "\u200b", f"{prose(1)}\n{COOKIES}", prose(0)]
    documents = [Document(text, f"folder/a.jsonl:{number}") for number, text in enumerate(texts)]
    found = DocumentTokenizer(definition, FILTERS, word_table=word_table)(documents)
    expected = encoded(definition, texts)
    assert split(found) == split(expected)
    assert (found.dropped, found.samples) == (expected.dropped, expected.samples)


def test_a_document_tokenizer_can_be_pickled(definition: str) -> None:
    again = pickle.loads(pickle.dumps(DocumentTokenizer(definition, FILTERS)))
    assert split(again([Document(prose(0), "")])) == split(encoded(definition, [prose(0)]))


TEXTS = [[f"{part}-{record} {prose(record, 5)}" for record in range(count)] for part, count in enumerate((7, 0, 1, 12))]
TAKEN = [5, 0, 1, 10]  # of what the files hold
EVERY = [(part, record) for part, taken in enumerate(TAKEN) for record in range(taken)]


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> list[SourcePart]:
    folder: Path = tmp_path_factory.mktemp("corpus")
    for number, texts in enumerate(TEXTS):
        (folder / f"{number}.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return open_source(f"{folder}/*.jsonl").parts


masks = st.lists(st.booleans(), min_size=len(EVERY), max_size=len(EVERY))


@given(masks, st.sets(st.integers(0, len(EVERY) - 1)), st.data())
def test_kept_documents_after_a_cursor_are_read(
    parts: list[SourcePart], kept: list[bool], shown: set[int], data: st.DataObject
) -> None:
    expected = [place for place, keep in zip(EVERY, kept, strict=True) if keep]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(chunks, "CHUNK_DOCUMENTS", 3)
        whole = list(KeptDocumentReader(parts, np.array(kept), TAKEN, shown))
        assert [document.text for documents, _ in whole for document in documents] == [
            TEXTS[part][record] for part, record in expected
        ]
        behind = data.draw(st.integers(0, len(whole)))
        cursor = whole[behind - 1][1].cursor if behind else Location(0, -1)
        reader = KeptDocumentReader(parts, np.array(kept), TAKEN, shown, cursor)
        rest = list(reader)
    assert [documents for documents, _ in rest] == [documents for documents, _ in whole[behind:]]
    assert [(note.parts, note.cursor, note.excerpts) for _, note in rest] == [
        (note.parts, note.cursor, note.excerpts) for _, note in whole[behind:]
    ]
    excerpts: dict[int, Sample] = {}
    for _, note in [*whole[:behind], *rest]:
        assert not excerpts.keys() & note.excerpts.keys()
        excerpts |= note.excerpts
    excerpts |= reader.excerpts
    assert {number: one.text for number, one in excerpts.items()} == {
        number: TEXTS[EVERY[number][0]][EVERY[number][1]] for number in shown
    }


@pytest.mark.parametrize("cursor", [Location(0, -1), Location(0, 4), Location(3, 2)])
def test_progress_is_the_text_that_was_read(
    parts: list[SourcePart], cursor: Location, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chunks, "CHUNK_DOCUMENTS", 3)
    taken = list(map(len, TEXTS))
    pairs = list(KeptDocumentReader(parts, np.ones(sum(taken), bool), taken, set(), cursor))
    for documents, note in pairs:
        assert note.progress == sum(len(document.text.encode()) for document in documents)


def test_names_of_special_tokens_in_a_text_give_no_special_tokens() -> None:
    vocabulary = {token: number for number, token in enumerate(["<pad>", "<unk>", "</s>", "a", "b"])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    write_roles(tokenizer, {"pad": "<pad>", "unk": "<unk>", "cls": None, "sep": "</s>", "mask": None})
    texts = ["a <pad> b </s> a c", "</s>"]
    found = encoded(tokenizer.to_str(), texts, FilterConfig(compressibility=None))
    assert found.ids.tolist() == [3, 4, 3, 1, 2]
    assert found.lengths.tolist() == [5, 0]  # nothing but a name: an empty document
