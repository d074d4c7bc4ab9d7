"""Windows and masks of held-out rows, and the bytes of text that they stand for."""

import hashlib
import math
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers

from cram.config.data import WordPieceConfig
from cram.config.training import EvaluationConfig
from cram.data.shards.shards import HeldOutDocument
from cram.data.special_tokens import SpecialTokens, write_roles
from cram.data.wordpiece import train_tokenizer
from cram.errors import CramError
from cram.evaluation.held_out import HeldOutSet
from cram.evaluation.held_out_rows import CRAMMING_RULE, MaskRule, build_held_out
from cram.objectives.batch import IGNORED

SEQ_LEN = 16
VOCAB = 64
WORDS = (
    *("the", "cat", "sat", "on", "a", "mat", "while", "rain", "fell", "over"),
    *("old", "towns", "and", "café", "naïve", "readers", "slept"),
)


def document_of(text: str) -> HeldOutDocument:
    return HeldOutDocument(text, hashlib.sha256(text.encode()).hexdigest())


def write(seed: int, words: int) -> HeldOutDocument:
    """A document of words drawn by a seed."""
    drawn = np.random.default_rng(seed).integers(len(WORDS), size=words)
    return document_of(" ".join(WORDS[number] for number in drawn))


# Shorter than a row, of several rows, and everything between.
DOCUMENTS = [write(seed, words) for seed, words in enumerate([1, 3, 8, 14, 15, 40, 90, 7, 25])]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    texts = [document.text + " [ mask ] pad" for document in DOCUMENTS] * 3
    return train_tokenizer(texts, WordPieceConfig(vocab_size=VOCAB))


def make_masked(
    documents: Iterable[HeldOutDocument],
    tokenizer: Tokenizer,
    rate: float = 0.15,
    max_tokens: int = 100_000,
    rule: MaskRule | None = None,
) -> HeldOutSet:
    config = EvaluationConfig(tokens=max_tokens, mask_rate=rate)
    return build_held_out(documents, tokenizer, SEQ_LEN, config, rule)


def make_causal(
    documents: Iterable[HeldOutDocument], tokenizer: Tokenizer, seq_len: int = SEQ_LEN, max_tokens: int = 100_000
) -> HeldOutSet:
    config = EvaluationConfig(tokens=max_tokens)
    return build_held_out(documents, tokenizer, seq_len, config, objective="causal")


def tokens_and_labels(rows: HeldOutSet) -> set[tuple[tuple[int, ...], tuple[int, ...]]]:
    """The rows and their labels, whatever their order."""
    pairs = zip(rows.tokens.tolist(), rows.labels.tolist(), strict=True)
    return {(tuple(tokens), tuple(labels)) for tokens, labels in pairs}


def test_masks_depend_on_the_text_of_the_document_alone(tokenizer: Tokenizer) -> None:
    together = tokens_and_labels(make_masked(DOCUMENTS, tokenizer))
    assert tokens_and_labels(make_masked(reversed(DOCUMENTS), tokenizer)) == together
    alone = [
        tokens_and_labels(make_masked([document], tokenizer)) for document in DOCUMENTS if len(document.text) > 100
    ]
    assert len(alone) >= 3
    assert all(rows <= together for rows in alone)


def test_windows_of_one_document_and_other_documents_have_masks_of_their_own(tokenizer: Tokenizer) -> None:
    window = " ".join(["cat"] * (SEQ_LEN - 1))
    repeated = make_masked([document_of(window + " cat" * (10 * SEQ_LEN))], tokenizer)
    patterns = {tuple(row) for row in (repeated.labels[1:-1] != IGNORED).tolist()}
    assert len(patterns) > 5
    labels, other_labels = (make_masked([document_of(window + tail)], tokenizer).labels[0] for tail in (" sat", " mat"))
    assert not torch.equal(labels, other_labels)


def test_a_row_holds_one_window_of_one_document_and_padding(tokenizer: Tokenizer) -> None:
    special = SpecialTokens.of(tokenizer)
    rows = make_masked(DOCUMENTS, tokenizer)
    begin = 0
    for document in DOCUMENTS:
        ids = tokenizer.encode(document.text).ids
        count = math.ceil(len(ids) / SEQ_LEN)
        padded = ids + [special.pad] * (count * SEQ_LEN - len(ids))
        assert rows.tokens[begin : begin + count].flatten().tolist() == padded
        padding = [0] * len(ids) + [1] * (len(padded) - len(ids))
        assert rows.documents[begin : begin + count].flatten().tolist() == padding
        begin += count
    assert begin == len(rows.tokens)
    assert (rows.tokens.dtype, rows.inputs.dtype, rows.labels.dtype) == (torch.int64,) * 3
    assert rows.documents.dtype == torch.int32


def test_crammings_rule_shows_some_hidden_tokens_as_random_or_unchanged(tokenizer: Tokenizer) -> None:
    special = SpecialTokens.of(tokenizer)
    documents = [write(seed, 100) for seed in range(200)]
    rows = make_masked(documents, tokenizer, rule=CRAMMING_RULE)
    hidden = rows.labels != IGNORED
    ordinary = ~torch.isin(rows.tokens, torch.tensor(special.ids()))
    assert abs(float(hidden.sum() / ordinary.sum()) - 0.25) < 0.01
    shown, tokens = rows.inputs[hidden], rows.tokens[hidden]
    masked, same = shown == special.mask, shown == tokens
    assert abs(float(masked.double().mean()) - 0.8) < 0.02
    # A random token is sometimes the right one.
    assert abs(float(same.double().mean()) - 0.1 - 0.1 / len(torch.unique(tokens))) < 0.02
    assert not torch.isin(shown[~masked & ~same], torch.tensor(special.ids())).any()
    assert torch.equal(rows.inputs[~hidden], rows.tokens[~hidden])


def test_hidden_tokens_are_shown_as_mask_and_special_tokens_stay(tokenizer: Tokenizer) -> None:
    special = SpecialTokens.of(tokenizer)
    rows = make_masked(DOCUMENTS, tokenizer)
    hidden = rows.labels != IGNORED
    assert torch.equal(rows.labels[hidden], rows.tokens[hidden])
    assert (rows.inputs[hidden] == special.mask).all()
    assert torch.equal(rows.inputs[~hidden], rows.tokens[~hidden])
    ordinary = ~torch.isin(rows.tokens, torch.tensor(special.ids()))
    assert not (hidden & ~ordinary).any()
    share = 0.15 * ordinary.sum(1)
    assert ((hidden.sum(1) >= share.floor()) & (hidden.sum(1) <= share.ceil())).all()


def test_a_rate_of_one_hides_every_ordinary_token(tokenizer: Tokenizer) -> None:
    rows = make_masked(DOCUMENTS, tokenizer, rate=1.0)
    ordinary = ~torch.isin(rows.tokens, torch.tensor(SpecialTokens.of(tokenizer).ids()))
    assert torch.equal(rows.labels != IGNORED, ordinary)


def test_the_names_of_special_tokens_in_a_text_are_text(tokenizer: Tokenizer) -> None:
    special = SpecialTokens.of(tokenizer)
    rows = make_masked([document_of("the [PAD] sat [MASK] on [SEP] a mat")], tokenizer)
    count = int((rows.documents == 0).sum())
    flat = rows.tokens.flatten()[:count]
    assert (flat[0], flat[-1]) == (special.cls, special.sep)
    assert not torch.isin(flat[1:-1], torch.tensor([special.pad, special.mask, special.cls, special.sep])).any()
    assert rows.documents.flatten().tolist() == sorted(rows.documents.flatten().tolist())


def test_written_names_of_special_tokens_are_left_out_by_a_word_tokenizer_but_their_bytes_count() -> None:
    vocabulary = {token: number for number, token in enumerate(["<pad>", "<unk>", "</s>", "<mask>", "a", "b"])}
    words = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    write_roles(words, {"pad": "<pad>", "unk": "<unk>", "cls": None, "sep": "</s>", "mask": "<mask>"})
    document = document_of("a <pad> b </s> <mask> a </s>")
    rows = make_masked([document], words, rate=1.0)
    assert rows.tokens[0, :4].tolist() == [4, 5, 4, 2]
    assert rows.documents[0].tolist() == [0] * 4 + [1] * (SEQ_LEN - 4)
    assert rows.predicted_bytes == len(document.text)
    # Without a token that begins a document its first word is not predicted.
    assert make_causal([document], words).predicted_bytes == len(document.text) - len("a")


def test_masked_bytes_are_those_of_the_hidden_text(tokenizer: Tokenizer) -> None:
    accented = document_of("Café naïve  the CAT\n")
    unknown = SpecialTokens.of(tokenizer).unk
    assert unknown not in tokenizer.encode(accented.text).ids
    everything = make_masked([accented], tokenizer, rate=1.0)
    assert everything.predicted_bytes == len(accented.text.encode())
    plain = [document_of(document.text.replace("é", "e").replace("ï", "i")) for document in DOCUMENTS]
    rows = make_masked(plain, tokenizer)
    hidden = (rows.labels != IGNORED).nonzero().tolist()
    pieces = [tokenizer.id_to_token(int(rows.labels[row, place])) for row, place in hidden]
    # A space belongs to the piece behind it, and no document begins with one.
    cls = SpecialTokens.of(tokenizer).cls
    begins = sum(bool(place) and int(rows.tokens[row, place - 1]) == cls for row, place in hidden)
    spaces = sum(not piece.startswith("##") for piece in pieces) - begins
    assert rows.predicted_bytes == sum(len(piece.removeprefix("##")) for piece in pieces) + spaces > 0


def test_the_share_of_bytes_behind_the_unknown_token_is_reported(tokenizer: Tokenizer, tmp_path: Path) -> None:
    text = "the cat % sat on a mat"
    for rows in (
        make_masked([document_of(text)], tokenizer, rate=1.0),
        make_causal([document_of(text)], tokenizer, seq_len=64),
    ):
        assert rows.unknown_share == len(" %") / len(text)
        assert rows.predicted_bytes == len(text) - len(" %")
        (tmp_path / "rows").write_bytes(rows.to_bytes())
        assert HeldOutSet.from_file(tmp_path / "rows").unknown_share == rows.unknown_share
    assert make_masked(DOCUMENTS, tokenizer).unknown_share == 0.0


@pytest.mark.parametrize(("max_tokens", "rows"), [(5 * SEQ_LEN, 5), (5 * SEQ_LEN + 1, 5), (1, 1)])
def test_the_cap_keeps_the_first_whole_rows_unchanged(tokenizer: Tokenizer, max_tokens: int, rows: int) -> None:
    longest_first = sorted(DOCUMENTS, key=lambda document: -len(document.text))

    def read() -> Iterator[HeldOutDocument]:
        yield longest_first[0]
        raise AssertionError("more was read than is needed")

    capped, whole = make_masked(read(), tokenizer, max_tokens=max_tokens), make_masked(longest_first, tokenizer)
    assert len(capped.tokens) == rows < len(whole.tokens)
    assert torch.equal(capped.inputs, whole.inputs[:rows])
    assert torch.equal(capped.labels, whole.labels[:rows])
    assert capped.predicted_bytes < whole.predicted_bytes


@pytest.mark.parametrize(
    ("documents", "message"), [([], "no held-out document"), ([document_of("")], "no token to predict")]
)
def test_nothing_to_evaluate_is_refused(tokenizer: Tokenizer, documents: list[HeldOutDocument], message: str) -> None:
    with pytest.raises(CramError, match=rf"{message}.*data\.held_out"):
        make_masked(documents, tokenizer)


def test_a_causal_model_reads_the_same_windows_with_nothing_hidden(tokenizer: Tokenizer) -> None:
    rows, masked = make_causal(DOCUMENTS, tokenizer), make_masked(DOCUMENTS, tokenizer)
    assert torch.equal(rows.tokens, masked.tokens)
    assert torch.equal(rows.inputs, rows.tokens)
    assert torch.equal(rows.documents, masked.documents)
    assert len(make_causal(DOCUMENTS, tokenizer, max_tokens=3 * SEQ_LEN).tokens) == 3


def test_every_ordinary_token_but_the_first_of_a_window_is_predicted(tokenizer: Tokenizer) -> None:
    special = SpecialTokens.of(tokenizer).ids()
    rows = make_causal([*DOCUMENTS, document_of("cat % sat")], tokenizer)
    assert SpecialTokens.of(tokenizer).unk in rows.tokens  # % is not in the vocabulary, so it is not predicted
    for tokens, labels in zip(rows.tokens.tolist(), rows.labels.tolist(), strict=True):
        expected = [IGNORED if token in special else token for token in tokens[1:]]
        assert labels == [*expected, IGNORED]


def test_bytes_of_a_causal_model_are_those_of_the_text(tokenizer: Tokenizer) -> None:
    spaced = document_of("  Café \t\n the  CAT sat naïve \n")
    assert SpecialTokens.of(tokenizer).unk not in tokenizer.encode(spaced.text).ids
    assert make_causal([spaced], tokenizer, seq_len=64).predicted_bytes == len(spaced.text.encode())
    # A window's first token is not predicted, and its bytes do not count.
    words = document_of(" ".join(["the fell over"] * 4))
    assert all(word in tokenizer.get_vocab() for word in ("the", "fell", "over"))
    assert make_causal([words], tokenizer, seq_len=64).predicted_bytes == len(words.text)
    firsts = ["the", "fell", "over"]  # of the windows but the first: [CLS] and three words, then four by four
    unpredicted = sum(len(f" {word}") for word in firsts)
    assert make_causal([words], tokenizer, seq_len=4).predicted_bytes == len(words.text) - unpredicted


@pytest.mark.parametrize(
    ("documents", "message"), [([], "no held-out document"), ([document_of("")], "no token to predict")]
)
def test_no_token_for_a_causal_model_to_predict_is_refused(
    tokenizer: Tokenizer, documents: list[HeldOutDocument], message: str
) -> None:
    with pytest.raises(CramError, match=rf"{message}.*data\.held_out"):
        make_causal(documents, tokenizer)
