"""Names of weights and tokenizers in the stock classes, piece by piece; `test_export` loads whole folders."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models
from tokenizers.decoders import DecodeStream

from cram.config.data import WordPieceConfig
from cram.config.model import ModelConfig
from cram.data.special_tokens import SpecialTokens
from cram.data.wordpiece import train_tokenizer
from cram.hub.fill_mask import FILL_MASK
from cram.hub.kinds import exported_kinds, find_stock_model, stock_model, why_not_exported
from cram.hub.qwen3 import QWEN3
from cram.hub.text_generation import TEXT_GENERATION
from cram.model.kinds import new_model

TEXT = "The state-of-the-art cat (see [1] and {2}) isn't bad: it's 50% of what you'd want! We've slept; they're old."


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer(
        [TEXT, "Rain fell over old towns while quick brown readers slept in gardens."] * 4,
        WordPieceConfig(vocab_size=128),
    )


def test_every_kind_but_crammed_has_a_stock_class() -> None:
    classes = {kind: stock_model(kind).class_name for kind in exported_kinds()}
    assert classes == {
        "encoder": "ModernBertForMaskedLM",
        "decoder": "Qwen3ForCausalLM",
        "bert": "BertForMaskedLM",
        "electra": "ModernBertForSequenceClassification",
    }
    assert find_stock_model("crammed") is None
    assert why_not_exported("crammed") == "transformers has no class that computes model.kind=crammed"
    assert why_not_exported("decoder") is None


def test_fused_weights_of_a_decoder_are_cut_in_the_order_of_their_rows() -> None:
    state = {
        "blocks.11.attention.qkv.weight": torch.arange(12.0).view(6, 2),
        "blocks.11.mlp.up.weight": torch.arange(8.0).view(4, 2),
        "blocks.11.mlp.down.weight": torch.zeros(2, 2),
        "final_norm.weight": torch.ones(2),
    }
    renamed = QWEN3.rename(state)
    layer = "model.layers.11"
    assert [renamed[f"{layer}.self_attn.{name}_proj.weight"][0, 0].item() for name in "qkv"] == [0.0, 4.0, 8.0]
    assert renamed[f"{layer}.mlp.gate_proj.weight"].tolist() == [[0.0, 1.0], [2.0, 3.0]]
    assert renamed[f"{layer}.mlp.up_proj.weight"].tolist() == [[4.0, 5.0], [6.0, 7.0]]
    assert set(renamed) == {
        *(f"{layer}.self_attn.{name}_proj.weight" for name in "qkv"),
        *(f"{layer}.mlp.{name}_proj.weight" for name in ("gate", "up", "down")),
        "model.norm.weight",
    }


def test_a_decoders_tokenizer_joins_pieces_to_natural_text(tokenizer: Tokenizer) -> None:
    before = tokenizer.to_str()
    decoder = TEXT_GENERATION.tokenizer(tokenizer, SpecialTokens.of(tokenizer))
    ids = tokenizer.encode(TEXT).ids
    assert decoder.encode(TEXT).ids == ids[:-1]
    assert decoder.decode(ids) == " " + TEXT.lower()
    assert Tokenizer.from_str(decoder.to_str()).decode(ids) == " " + TEXT.lower()
    assert tokenizer.to_str() == before
    encoder = FILL_MASK.tokenizer(tokenizer, SpecialTokens.of(tokenizer))
    assert (encoder.encode(TEXT).ids, encoder.decode(ids)) == (ids, tokenizer.decode(ids))
    assert "role:" not in encoder.to_str() + decoder.to_str()  # roles are for our own tokenizers only


def test_another_kind_of_tokenizer_keeps_its_decoder(tokenizer: Tokenizer) -> None:
    other = Tokenizer(models.WordLevel(tokenizer.get_vocab(), unk_token="[UNK]"))
    other.decoder = decoders.Fuse()
    decoder = TEXT_GENERATION.tokenizer(other, SpecialTokens.of(tokenizer))
    assert isinstance(decoder.decoder, decoders.Fuse)


@given(
    st.lists(st.sampled_from([*TEXT.split(), "x ' y ' z", "3 - 2", "- 1", "the 's", "(t", "they'read"]), max_size=12)
)
def test_decoded_text_does_not_change_when_more_tokens_follow(tokenizer: Tokenizer, words: list[str]) -> None:
    decoder = TEXT_GENERATION.tokenizer(tokenizer, SpecialTokens.of(tokenizer))
    ids = decoder.encode(" ".join(words)).ids
    stream = DecodeStream(skip_special_tokens=True)
    assert "".join(stream.step(decoder, number) or "" for number in ids) == decoder.decode(ids)


@pytest.mark.parametrize("kind", [kind for kind in exported_kinds() if not stock_model(kind).companion])
def test_stock_names_are_ours_again(kind: str) -> None:
    stock = stock_model(kind)
    model = new_model(ModelConfig(kind=kind, layers=2, width=32, heads=2, mlp_width=48), 64)
    model.initialise(0)  # without values, weights may be NaN, which nothing equals
    state = model.state_dict()
    back = stock.restore(stock.rename(state), list(state))
    assert list(back) == list(state)
    assert all(torch.equal(back[name], state[name]) for name in state)
    with pytest.raises(KeyError):
        stock.restore({}, list(state))
