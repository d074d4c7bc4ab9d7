"""The special tokens of other tokenizers, found by file, by name or by key."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from cram.config.data import SpecialConfig
from cram.data.special_tokens import SpecialTokens, find_written_controls, padded_vocabulary_size, select_text_tokens
from cram.data.tokenizer import check_mask, load_tokenizer
from cram.errors import CramError

TEXTS = ["the old river is wide", "a painter walks over the old bridge", "rain fell on the café"] * 5
END = "<|endoftext|>"


def byte_level(*special: str) -> Tokenizer:
    """As GPT-2's or RoBERTa's file has it: special tokens first, or one behind the vocabulary."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=290, special_tokens=list(special), initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
    return tokenizer


def gpt2() -> Tokenizer:
    tokenizer = byte_level()
    tokenizer.add_special_tokens([AddedToken(END, normalized=False)])
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    return tokenizer


def roberta() -> Tokenizer:
    tokenizer = byte_level("<s>", "<pad>", "</s>", "<unk>")
    tokenizer.add_special_tokens([AddedToken("<mask>", lstrip=True, normalized=False)])
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    return tokenizer


def t5() -> Tokenizer:
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=60, special_tokens=["<pad>", "</s>", "<unk>"], unk_token="<unk>", show_progress=False
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
    return tokenizer


def words(*tokens: str, ids: dict[str, int] | None = None) -> Tokenizer:
    vocabulary = {token: number for number, token in enumerate([*tokens, "[UNK]", "a", "b"])} | (ids or {})
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return tokenizer


def saved(folder: Path, tokenizer: Tokenizer, **beside: Any) -> Path:
    """A folder as of the Hub; `beside` is what tokenizer_config.json says."""
    tokenizer.save(str(folder / "tokenizer.json"))
    if beside:
        (folder / "tokenizer_config.json").write_text(json.dumps(beside))
    return folder / "tokenizer.json"


def test_gpt2_ends_documents_by_its_only_token_and_is_padded_by_one_of_its_own(tmp_path: Path) -> None:
    path = saved(tmp_path, gpt2(), bos_token=END, eos_token=END, unk_token=END, pad_token=END)
    tokenizer = load_tokenizer(path)
    special = SpecialTokens.of(tokenizer)
    assert special.names(tokenizer) == {"sep": END, "pad": "<pad>"}
    assert (special.sep, special.pad, special.frame) == (290, 291, 1)
    assert tokenizer.decode(tokenizer.encode("the old").ids, skip_special_tokens=False) == f"the old{END}"
    assert padded_vocabulary_size(tokenizer) == 320
    assert special.ids() == list(range(290, 320))
    with pytest.raises(CramError, match=r"objective.kind=masked needs a mask, .* special.mask=TOKEN"):
        check_mask(str(path), SpecialConfig())
    check_mask(str(path), SpecialConfig(mask="<mask>"))


def test_robertas_tokens_are_found_by_name_and_by_file(tmp_path: Path) -> None:
    for beside in ({}, {"mask_token": {"content": "<mask>", "lstrip": True}, "cls_token": "<s>"}):
        tokenizer = load_tokenizer(saved(tmp_path, roberta(), **beside))
        special = SpecialTokens.of(tokenizer)
        found = {"cls": "<s>", "sep": "</s>", "pad": "<pad>", "mask": "<mask>"}
        assert special.names(tokenizer) == found  # a byte-level model knows every text
        assert tokenizer.encode("a").tokens == ["<s>", "a", "</s>"]
        assert special.frame == 2


def test_t5_has_no_token_that_begins_a_document(tmp_path: Path) -> None:
    tokenizer = load_tokenizer(saved(tmp_path, t5()))
    special = SpecialTokens.of(tokenizer)
    assert special.names(tokenizer) == {"sep": "</s>", "pad": "<pad>", "unk": "<unk>"}
    assert tokenizer.encode("the old river", "rain").tokens[-1] == "</s>"
    assert tokenizer.encode("the old river", "rain").ids.count(special.sep) == 2


def test_a_file_goes_before_a_name_and_a_key_before_both(tmp_path: Path) -> None:
    tokens = ("[PAD]", "[SEP]", "<end>", "<stop>", "<hidden>")
    path = saved(tmp_path, words(*tokens), eos_token="<end>", mask_token="not there")
    assert SpecialTokens.of(load_tokenizer(path)).sep == tokens.index("<end>")
    assert SpecialTokens.of(load_tokenizer(path)).mask is None
    tokenizer = load_tokenizer(path, SpecialConfig(sep="<stop>", mask="<hidden>", cls="<begin>"))
    assert tokenizer.encode("a").tokens == ["<begin>", "a", "<stop>"]  # <begin> was added
    assert SpecialTokens.of(tokenizer).mask == tokens.index("<hidden>")
    with pytest.raises(CramError, match=r"special.mask=<stop> has another role already"):
        load_tokenizer(path, SpecialConfig(sep="<stop>", mask="<stop>"))


def test_a_saved_tokenizer_holds_its_roles(tmp_path: Path) -> None:
    first = load_tokenizer(saved(tmp_path, words("<hidden>", "<stop>")), SpecialConfig(sep="<stop>", mask="<hidden>"))
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    again = load_tokenizer(saved(elsewhere, first))
    assert again.to_str() == first.to_str()
    assert SpecialTokens.of(again) == SpecialTokens.of(first)


def test_files_that_are_damaged_or_name_no_tokens_are_ignored(tmp_path: Path) -> None:
    path = saved(tmp_path, words("[PAD]", "[SEP]"))
    for content in ("{", '{"eos_token": 3}', "[]", "null"):
        (tmp_path / "special_tokens_map.json").write_text(content)
        assert SpecialTokens.of(load_tokenizer(path)).sep == 1


def test_ids_may_have_gaps(tmp_path: Path) -> None:
    tokenizer = load_tokenizer(saved(tmp_path, words("[PAD]", "[SEP]", ids={"far": 130})))
    special = SpecialTokens.of(tokenizer)
    assert padded_vocabulary_size(tokenizer) == 192
    assert set(range(192)) - set(special.ids()) == {tokenizer.token_to_id(token) for token in ("a", "b", "far")}


@pytest.mark.parametrize("ours", [False, True])
def test_two_pieces_with_one_id_are_refused(ours: bool, tmp_path: Path) -> None:
    path = saved(tmp_path, words("[PAD]", "[SEP]"))
    content = json.loads(load_tokenizer(path).to_str() if ours else path.read_text())
    content["model"]["vocab"]["b"] = 0
    path.write_text(json.dumps(content))
    with pytest.raises(CramError, match=r"'\[PAD\]' and 'b' have the same id 0; give a tokenizer.json in which each"):
        load_tokenizer(path)


@pytest.mark.parametrize("change", ["ids", "tokens", "left out"])
def test_roles_of_other_tokens_than_the_vocabulary_has_are_refused(change: str, tmp_path: Path) -> None:
    path = saved(tmp_path, words("[PAD]", "[SEP]"))
    content = json.loads(load_tokenizer(path).to_str())
    special = content["post_processor"]["special_tokens"]
    if change == "left out":
        del special["role:pad"]
    else:
        special["role:sep"][change] = [3] if change == "ids" else ["[END]"]
    path.write_text(json.dumps(content))
    with pytest.raises(CramError, match=r"its post_processor names special tokens that its vocabulary does not have"):
        load_tokenizer(path)


@pytest.mark.parametrize("token", ["a", "##a", "▁a", "."])
def test_a_piece_that_occurs_in_texts_gets_no_role(token: str, tmp_path: Path) -> None:
    path = saved(tmp_path, words("[PAD]", "[SEP]", "##a", "▁a", "."))
    with pytest.raises(CramError, match=r"^special\.sep='.*': tokenizer=.* makes texts of this piece; name a token"):
        load_tokenizer(path, SpecialConfig(sep=token))
    assert load_tokenizer(path, SpecialConfig(sep="new")).encode("a").tokens[-1] == "new"


def test_a_tokenizer_that_fails_at_unknown_text_is_refused(tmp_path: Path) -> None:
    model = models.BPE({"[SEP]": 0, "a": 1}, [], unk_token="[UNK]")
    with pytest.raises(
        CramError, match=r"it fails at characters that it does not know \(Unk token `\[UNK\]` not found"
    ):
        load_tokenizer(saved(tmp_path, Tokenizer(model)))


def test_a_token_with_spaces_may_end_documents_but_one_with_a_colon_may_not(tmp_path: Path) -> None:
    path = saved(tmp_path, words("[PAD]", "[SEP]"))
    assert load_tokenizer(path, SpecialConfig(sep="the end")).encode("a").tokens == ["a", "the end"]
    for token in ("$A", "end:1"):
        with pytest.raises(
            CramError, match=r"^special\.sep='.*' is not a valid name: it must not begin with \$ or hold"
        ):
            load_tokenizer(path, SpecialConfig(sep=token))


def test_a_gap_where_a_token_must_be_added_is_refused(tmp_path: Path) -> None:
    path = saved(tmp_path, words("[SEP]", ids={"b": 4}))  # four tokens, whose largest id is 4
    with pytest.raises(CramError, match=r"its ids have gaps, so <pad> cannot be added; give a tokenizer.json"):
        load_tokenizer(path)


@pytest.mark.parametrize("make", [gpt2, roberta, t5, lambda: words("<pad>", "<s>", "</s>", "<mask>")])
@given(parts=st.lists(st.sampled_from([END, "</s>", "<s>", "<pad>", "<mask>", "a", " ", "old "]), max_size=8))
def test_a_text_that_writes_special_tokens_produces_none(make: Any, parts: list[str], tmp_path_factory: Any) -> None:
    folder = tmp_path_factory.getbasetemp() / f"written-{make.__name__}"
    if not folder.exists():
        folder.mkdir()
        saved(folder, make())
    tokenizer = load_tokenizer(folder / "tokenizer.json")
    special = SpecialTokens.of(tokenizer)
    controls = find_written_controls(tokenizer, special)
    encoding = tokenizer.encode("".join(parts))
    ids = [encoding.ids[place] for place in select_text_tokens(encoding, controls)]
    assert special.controls().isdisjoint(ids[special.frame - 1 : -1])
    assert ids[-1] == special.sep
