import hashlib
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load, save
from tokenizers import Tokenizer, models, pre_tokenizers
from torch.nn import functional as F

from cram.config.data import WordPieceConfig
from cram.config.model import ModelConfig
from cram.data.special import set_roles
from cram.data.tokenizer import SpecialTokens, train_tokenizer
from cram.errors import CramError
from cram.evaluation import held_out
from cram.evaluation.held_out import (
    CRAMMING_RULE,
    HeldOutSet,
    MaskRule,
    evaluate,
    make_causal_held_out,
    make_held_out,
    unigram_nats,
)
from cram.model.decoder import Decoder
from cram.model.encoder import Encoder
from cram.objectives.batch import IGNORED

SEQ_LEN = 16
VOCAB = 64
WORDS = (
    *("the", "cat", "sat", "on", "a", "mat", "while", "rain", "fell", "over"),
    *("old", "towns", "and", "café", "naïve", "readers", "slept"),
)


@dataclass
class Document:
    text: str

    @property
    def hash(self) -> str:
        return hashlib.sha256(self.text.encode()).hexdigest()


def write(seed: int, words: int) -> Document:
    """A document of words drawn by a seed."""
    drawn = np.random.default_rng(seed).integers(len(WORDS), size=words)
    return Document(" ".join(WORDS[number] for number in drawn))


# Shorter than a row, of several rows, and everything between.
DOCUMENTS = [write(seed, words) for seed, words in enumerate([1, 3, 8, 14, 15, 40, 90, 7, 25])]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    texts = [document.text + " [ mask ] pad" for document in DOCUMENTS] * 3
    return train_tokenizer(texts, WordPieceConfig(vocab_size=VOCAB))


def make(
    documents: Iterable[Document], tokenizer: Tokenizer, rate: float = 0.15, max_tokens: int = 100_000,
    rule: MaskRule | None = None,
) -> HeldOutSet:  # fmt: skip
    special = SpecialTokens.of(tokenizer)
    rule = rule or MaskRule(rate)
    return make_held_out(documents, tokenizer, special.ids(), special.pad, special.mask, SEQ_LEN, max_tokens, rule)


def masked_rows(rows: HeldOutSet) -> set[tuple[tuple[int, ...], tuple[int, ...]]]:
    """The rows and their labels, whatever their order."""
    pairs = zip(rows.tokens.tolist(), rows.labels.tolist(), strict=True)
    return {(tuple(tokens), tuple(labels)) for tokens, labels in pairs}


def test_masks_depend_on_the_text_of_the_document_alone(tokenizer: Tokenizer) -> None:
    together = masked_rows(make(DOCUMENTS, tokenizer))
    assert masked_rows(make(reversed(DOCUMENTS), tokenizer)) == together
    alone = [masked_rows(make([document], tokenizer)) for document in DOCUMENTS if len(document.text) > 100]
    assert len(alone) >= 3
    assert all(rows <= together for rows in alone)


def test_windows_of_one_document_and_other_documents_have_masks_of_their_own(tokenizer: Tokenizer) -> None:
    window = " ".join(["cat"] * (SEQ_LEN - 1))
    repeated = make([Document(window + " cat" * (10 * SEQ_LEN))], tokenizer)
    patterns = {tuple(row) for row in (repeated.labels[1:-1] != IGNORED).tolist()}
    assert len(patterns) > 5
    mine, other = (make([Document(window + tail)], tokenizer).labels[0] for tail in (" sat", " mat"))
    assert not torch.equal(mine, other)


def test_a_row_holds_one_window_of_one_document_and_padding(tokenizer: Tokenizer) -> None:
    special = SpecialTokens.of(tokenizer)
    rows = make(DOCUMENTS, tokenizer)
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


def test_crammings_rule_shows_some_hidden_tokens_as_random_or_as_they_are(tokenizer: Tokenizer) -> None:
    special = SpecialTokens.of(tokenizer)
    documents = [write(seed, 100) for seed in range(200)]
    rows = make(documents, tokenizer, rule=CRAMMING_RULE)
    hidden = rows.labels != IGNORED
    ordinary = ~torch.isin(rows.tokens, torch.tensor(special.ids()))
    assert abs(float(hidden.sum() / ordinary.sum()) - 0.25) < 0.01
    shown, tokens = rows.inputs[hidden], rows.tokens[hidden]
    masked, same = shown == special.mask, shown == tokens
    assert abs(float(masked.double().mean()) - 0.8) < 0.02
    # A random token is the right one now and then.
    assert abs(float(same.double().mean()) - 0.1 - 0.1 / len(torch.unique(tokens))) < 0.02
    assert not torch.isin(shown[~masked & ~same], torch.tensor(special.ids())).any()
    assert torch.equal(rows.inputs[~hidden], rows.tokens[~hidden])


def test_hidden_tokens_are_shown_as_mask_and_no_special_one_is_hidden(tokenizer: Tokenizer) -> None:
    special = SpecialTokens.of(tokenizer)
    rows = make(DOCUMENTS, tokenizer)
    hidden = rows.labels != IGNORED
    assert torch.equal(rows.labels[hidden], rows.tokens[hidden])
    assert (rows.inputs[hidden] == special.mask).all()
    assert torch.equal(rows.inputs[~hidden], rows.tokens[~hidden])
    ordinary = ~torch.isin(rows.tokens, torch.tensor(special.ids()))
    assert not (hidden & ~ordinary).any()
    share = 0.15 * ordinary.sum(1)
    assert ((hidden.sum(1) >= share.floor()) & (hidden.sum(1) <= share.ceil())).all()


def test_a_rate_of_one_hides_every_ordinary_token(tokenizer: Tokenizer) -> None:
    rows = make(DOCUMENTS, tokenizer, rate=1.0)
    ordinary = ~torch.isin(rows.tokens, torch.tensor(SpecialTokens.of(tokenizer).ids()))
    assert torch.equal(rows.labels != IGNORED, ordinary)


def test_the_names_of_special_tokens_in_a_text_are_text(tokenizer: Tokenizer) -> None:
    special = SpecialTokens.of(tokenizer)
    rows = make([Document("the [PAD] sat [MASK] on [SEP] a mat")], tokenizer)
    count = int((rows.documents == 0).sum())
    flat = rows.tokens.flatten()[:count]
    assert (flat[0], flat[-1]) == (special.cls, special.sep)
    assert not torch.isin(flat[1:-1], torch.tensor([special.pad, special.mask, special.cls, special.sep])).any()
    assert rows.documents.flatten().tolist() == sorted(rows.documents.flatten().tolist())


def test_names_that_a_tokenizer_of_words_finds_are_left_out_and_their_bytes_are_not() -> None:
    vocabulary = {token: number for number, token in enumerate(["<pad>", "<unk>", "</s>", "<mask>", "a", "b"])}
    words = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    set_roles(words, {"pad": "<pad>", "unk": "<unk>", "cls": None, "sep": "</s>", "mask": "<mask>"})
    document = Document("a <pad> b </s> <mask> a </s>")
    rows = make([document], words, rate=1.0)
    assert rows.tokens[0, :4].tolist() == [4, 5, 4, 2]
    assert rows.documents[0].tolist() == [0] * 4 + [1] * (SEQ_LEN - 4)
    assert rows.predicted_bytes == len(document.text)
    # Without a token that begins a document its first word is not predicted.
    assert make_causal([document], words).predicted_bytes == len(document.text) - len("a")


def test_masked_bytes_are_those_of_the_text_behind_the_masks(tokenizer: Tokenizer) -> None:
    accented = Document("Café naïve  the CAT\n")
    unknown = SpecialTokens.of(tokenizer).unk
    assert unknown not in tokenizer.encode(accented.text).ids
    everything = make([accented], tokenizer, rate=1.0)
    assert everything.predicted_bytes == len(accented.text.encode())
    plain = [Document(document.text.replace("é", "e").replace("ï", "i")) for document in DOCUMENTS]
    rows = make(plain, tokenizer)
    hidden = (rows.labels != IGNORED).nonzero().tolist()
    pieces = [tokenizer.id_to_token(int(rows.labels[row, place])) for row, place in hidden]
    # A space belongs to the piece behind it, and no document begins with one.
    cls = SpecialTokens.of(tokenizer).cls
    begins = sum(bool(place) and int(rows.tokens[row, place - 1]) == cls for row, place in hidden)
    spaces = sum(not piece.startswith("##") for piece in pieces) - begins
    assert rows.predicted_bytes == sum(len(piece.removeprefix("##")) for piece in pieces) + spaces > 0


def test_the_share_of_bytes_behind_the_unknown_token_is_told(tokenizer: Tokenizer, tmp_path: Path) -> None:
    text = "the cat % sat on a mat"
    for rows in (make([Document(text)], tokenizer, rate=1.0), make_causal([Document(text)], tokenizer, seq_len=64)):
        assert rows.unknown_share == len(" %") / len(text)
        assert rows.predicted_bytes == len(text) - len(" %")
        (tmp_path / "rows").write_bytes(rows.to_bytes())
        assert HeldOutSet.from_file(tmp_path / "rows").unknown_share == rows.unknown_share
    assert make(DOCUMENTS, tokenizer).unknown_share == 0.0


@pytest.mark.parametrize(("max_tokens", "rows"), [(5 * SEQ_LEN, 5), (5 * SEQ_LEN + 1, 5), (1, 1)])
def test_the_cap_cuts_at_whole_rows_and_leaves_the_first_as_they_are(
    tokenizer: Tokenizer, max_tokens: int, rows: int
) -> None:
    longest_first = sorted(DOCUMENTS, key=lambda document: -len(document.text))

    def read() -> Iterator[Document]:
        yield longest_first[0]
        raise AssertionError("more was read than is wanted")

    capped, whole = make(read(), tokenizer, max_tokens=max_tokens), make(longest_first, tokenizer)
    assert len(capped.tokens) == rows < len(whole.tokens)
    assert torch.equal(capped.inputs, whole.inputs[:rows])
    assert torch.equal(capped.labels, whole.labels[:rows])
    assert capped.predicted_bytes < whole.predicted_bytes


@pytest.mark.parametrize(
    ("documents", "message"), [([], "no held-out document"), ([Document("")], "no token to predict")]
)
def test_nothing_to_evaluate_is_refused(tokenizer: Tokenizer, documents: list[Document], message: str) -> None:
    with pytest.raises(CramError, match=rf"{message}.*data\.held_out"):
        make(documents, tokenizer)


def test_figures_are_those_of_a_plain_cross_entropy(tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = make([Document("a"), Document("on"), *DOCUMENTS], tokenizer)
    model = Encoder(ModelConfig(layers=2, width=16, heads=2, mlp_width=16, init_std=0.3, zero_init=False), VOCAB)
    model.initialise(0)
    with torch.no_grad():
        whole = model.head(model(rows.inputs, rows.documents)).double()
    slots = (rows.labels.flatten() != IGNORED).nonzero().squeeze(1)
    labels = rows.labels.flatten().scatter(0, slots[::3], whole.argmax(-1)[slots[::3]])  # a third is predicted well
    rows = replace(rows, labels=labels.view_as(rows.labels))
    nats = F.cross_entropy(whole, labels, ignore_index=IGNORED, reduction="sum").item()
    # Two rows at a time: some parts have nothing to predict.
    monkeypatch.setattr(held_out, "BATCH_ROWS", 2)
    assert any(not (part != IGNORED).any() for part in rows.labels.split(2))
    figures = evaluate(model, rows, torch.device("cpu"))
    assert figures["nats_per_token"] == pytest.approx(nats / len(slots), rel=1e-5)
    assert figures["bits_per_masked_byte"] == pytest.approx(nats / math.log(2) / rows.predicted_bytes, rel=1e-5)
    assert figures["accuracy"] == (whole.argmax(-1) == labels).sum().item() / len(slots) > 0.3
    assert figures["predicted_tokens"] == len(slots)


def test_the_unigram_baseline_is_that_of_smoothed_frequencies() -> None:
    labels = torch.tensor([[0, IGNORED, 1], [2, 0, IGNORED]])
    expected = -(2 * math.log(4 / 8) + math.log(1 / 8) + math.log(3 / 8)) / 4
    assert unigram_nats(np.array([3, 0, 2]), labels) == pytest.approx(expected)


def test_rows_are_read_back(tokenizer: Tokenizer, tmp_path: Path) -> None:
    rows = make(DOCUMENTS, tokenizer)
    (tmp_path / "rows").write_bytes(rows.to_bytes())
    back = HeldOutSet.from_file(tmp_path / "rows")
    assert back.to_bytes() == rows.to_bytes()
    assert back.predicted_bytes == rows.predicted_bytes
    assert torch.equal(back.documents, rows.documents)


def test_a_damaged_file_of_rows_is_named(tokenizer: Tokenizer, tmp_path: Path) -> None:
    whole = make(DOCUMENTS, tokenizer).to_bytes()
    all_four = {name: torch.zeros(1, 1) for name in ("tokens", "inputs", "labels", "documents")}
    damaged = [
        b"",
        whole[:-1],
        whole[:20],
        b"\xff" + whole[1:],
        save(all_four),
        save(all_four, metadata={"masked_bytes": "many"}),
    ]
    for content in damaged:
        (tmp_path / "rows").write_bytes(content)
        with pytest.raises(CramError, match="rows: not a readable file of held-out rows"):
            HeldOutSet.from_file(tmp_path / "rows")


def make_causal(
    documents: Iterable[Document], tokenizer: Tokenizer, seq_len: int = SEQ_LEN, max_tokens: int = 100_000
) -> HeldOutSet:
    special = SpecialTokens.of(tokenizer)
    return make_causal_held_out(documents, tokenizer, special.ids(), special.pad, seq_len, max_tokens)


def test_a_causal_model_reads_the_same_windows_with_nothing_hidden(tokenizer: Tokenizer) -> None:
    rows, masked = make_causal(DOCUMENTS, tokenizer), make(DOCUMENTS, tokenizer)
    assert torch.equal(rows.tokens, masked.tokens)
    assert torch.equal(rows.inputs, rows.tokens)
    assert torch.equal(rows.documents, masked.documents)
    assert len(make_causal(DOCUMENTS, tokenizer, max_tokens=3 * SEQ_LEN).tokens) == 3


def test_every_ordinary_token_but_a_windows_first_is_predicted_at_the_place_before_it(tokenizer: Tokenizer) -> None:
    special = SpecialTokens.of(tokenizer).ids()
    rows = make_causal([*DOCUMENTS, Document("cat % sat")], tokenizer)
    assert SpecialTokens.of(tokenizer).unk in rows.tokens  # %: no token of the vocabulary, so no text to be right on
    for tokens, labels in zip(rows.tokens.tolist(), rows.labels.tolist(), strict=True):
        wanted = [IGNORED if token in special else token for token in tokens[1:]]
        assert labels == [*wanted, IGNORED]


def test_bytes_of_a_causal_model_are_those_of_the_text(tokenizer: Tokenizer) -> None:
    spaced = Document("  Café \t\n the  CAT sat naïve \n")
    assert SpecialTokens.of(tokenizer).unk not in tokenizer.encode(spaced.text).ids
    assert make_causal([spaced], tokenizer, seq_len=64).predicted_bytes == len(spaced.text.encode())
    # A window's first token is not predicted, and its bytes do not count.
    words = Document(" ".join(["the fell over"] * 4))
    assert all(word in tokenizer.get_vocab() for word in ("the", "fell", "over"))
    assert make_causal([words], tokenizer, seq_len=64).predicted_bytes == len(words.text)
    firsts = ["the", "fell", "over"]  # of the windows but the first: [CLS] and three words, then four by four
    unpredicted = sum(len(f" {word}") for word in firsts)
    assert make_causal([words], tokenizer, seq_len=4).predicted_bytes == len(words.text) - unpredicted


def test_figures_of_a_causal_model_are_those_of_a_plain_cross_entropy(tokenizer: Tokenizer) -> None:
    rows = make_causal(DOCUMENTS, tokenizer)
    model = Decoder(
        ModelConfig(kind="decoder", layers=2, width=16, heads=2, mlp_width=16, init_std=0.3, zero_init=False), VOCAB
    )
    model.initialise(0)
    nats, right, count = 0.0, 0, 0
    for tokens in rows.tokens:
        for place in range(1, SEQ_LEN):
            if int(tokens[place]) in SpecialTokens.of(tokenizer).ids():
                continue
            with torch.no_grad():  # reads what comes before, and nothing else
                before = tokens[None, :place]
                logits = model.head(model(before, torch.zeros_like(before)))[-1].double()
            nats -= float(logits.log_softmax(-1)[tokens[place]])
            right += int(logits.argmax() == tokens[place])
            count += 1
    figures = evaluate(model, rows, torch.device("cpu"))
    assert figures == {
        "nats_per_token": pytest.approx(nats / count, rel=1e-5),
        "bits_per_byte": pytest.approx(nats / math.log(2) / rows.predicted_bytes, rel=1e-5),
        "accuracy": right / count,
        "predicted_tokens": count,
    }


def test_causal_rows_are_read_back_as_such(tokenizer: Tokenizer, tmp_path: Path) -> None:
    rows = make_causal(DOCUMENTS, tokenizer)
    (tmp_path / "rows").write_bytes(rows.to_bytes())
    back = HeldOutSet.from_file(tmp_path / "rows")
    assert (back.objective, back.predicted_bytes) == ("causal", rows.predicted_bytes)
    assert torch.equal(back.labels, rows.labels)


@pytest.mark.parametrize(
    ("documents", "message"), [([], "no held-out document"), ([Document("")], "no token to predict")]
)
def test_nothing_to_predict_from_what_comes_before_is_refused(
    tokenizer: Tokenizer, documents: list[Document], message: str
) -> None:
    with pytest.raises(CramError, match=rf"{message}.*data\.held_out"):
        make_causal(documents, tokenizer)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"labels": None}, r"the tensor labels, \[\d+, \d+\] of int64, is missing"),
        ({"labels": torch.zeros(1, 2, dtype=torch.int64)}, r"the tensor labels is \[1, 2\] of int64, and \["),
        ({"inputs": torch.zeros(3)}, r"the tensor inputs is \[3\] of float32, and \["),
        ({"tokens": torch.zeros((), dtype=torch.int64)}, r"the tensor tokens is \[\] of int64, and \["),
        ({"more": torch.zeros(1)}, r"the tensor more does not belong there"),
        ({"unknown_share": torch.tensor(2.0, dtype=torch.float64)}, r"2 of them unknown"),
        ({"labels": "none"}, r"or predict nothing"),
    ],
)
def test_rows_of_another_form_are_named(changed: Any, message: str, tokenizer: Tokenizer, tmp_path: Path) -> None:
    tensors: Any = load(make(DOCUMENTS, tokenizer).to_bytes())
    if changed == {"labels": "none"}:
        changed = {"labels": torch.full_like(tensors["labels"], IGNORED)}
    tensors = {name: tensor for name, tensor in (tensors | changed).items() if tensor is not None}
    (tmp_path / "rows").write_bytes(save(tensors, metadata={"masked_bytes": "9"}))
    with pytest.raises(CramError, match=message) as caught:
        HeldOutSet.from_file(tmp_path / "rows")
    assert str(tmp_path / "rows") in str(caught.value) and len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("name", ["tokens", "inputs", "labels", "documents"])
@pytest.mark.parametrize("value", [-1, 64, 2**31 - 1])
def test_ids_that_the_model_has_not_are_named(name: str, value: int, tokenizer: Tokenizer) -> None:
    rows = make(DOCUMENTS, tokenizer)
    rows.check_ids(64, Path("rows"))
    getattr(rows, name)[0, 1] = value
    with pytest.raises(CramError, match=rf"rows: the tensor {name} holds {value}, and numbers from 0 to (63|1) are"):
        rows.check_ids(64, Path("rows"))
