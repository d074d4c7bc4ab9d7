from pathlib import Path

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

from cram.data.tokenizer import load_tokenizer
from cram.data.wordpiece import SPECIAL_TOKENS
from cram.errors import CramError


def test_a_file_that_is_missing_or_not_a_tokenizer(tmp_path: Path) -> None:
    with pytest.raises(CramError, match=r"tokenizer=.*none.json: there is no such file"):
        load_tokenizer(tmp_path / "none.json")
    (tmp_path / "bad.json").write_text("{}")
    with pytest.raises(CramError, match=r"tokenizer=.*bad.json: not a tokenizer.json"):
        load_tokenizer(tmp_path / "bad.json")
    Tokenizer(models.WordPiece({"[PAD]": 0, "[UNK]": 1}, unk_token="[UNK]")).save(str(tmp_path / "other.json"))
    with pytest.raises(CramError, match=r"no token ends a document, none of \[SEP\] </s> .* special.sep=TOKEN"):
        load_tokenizer(tmp_path / "other.json")
    Tokenizer(models.WordPiece({"[PAD]": 0, "[SEP]": 1}, unk_token="[UNK]")).save(str(tmp_path / "unknown.json"))
    with pytest.raises(CramError, match=r"unknown.json: \[UNK\], which it gives for unknown words, is not in its voc"):
        load_tokenizer(tmp_path / "unknown.json")


def test_a_loaded_tokenizer_frames_whole_documents(tmp_path: Path) -> None:
    vocabulary = {token: number for number, token in enumerate([*SPECIAL_TOKENS, "a"])}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.enable_truncation(4)
    tokenizer.enable_padding(length=4)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    assert load_tokenizer(tmp_path / "tokenizer.json").encode("a a a a a").ids == [2, 5, 5, 5, 5, 5, 3]


def test_a_loaded_tokenizer_gives_the_same_tokens_each_time(tmp_path: Path) -> None:
    vocabulary = {token: number for number, token in enumerate([*SPECIAL_TOKENS, "a", "aa", "aaaa"])}
    tokenizer = Tokenizer(models.BPE(vocabulary, [("a", "a"), ("aa", "aa")], dropout=0.5))
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    loaded = load_tokenizer(tmp_path / "tokenizer.json")
    assert {tuple(loaded.encode("aaaa" * 8).ids) for _ in range(5)} == {(2, *[7] * 8, 3)}
