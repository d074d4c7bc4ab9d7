"""The stock classes of `transformers` that compute our models: weights under their names, their config, the tokenizer.

An encoder is a `ModernBertForMaskedLM`, a decoder a `Qwen3ForCausalLM`. Nothing is computed here but names: a
decoder's fused weights are cut into the matrices that they are made of.
"""

from typing import TYPE_CHECKING, Any

from cram.config.model import ModelConfig

if TYPE_CHECKING:
    import torch
    from tokenizers import Tokenizer

    from cram.data.special import SpecialTokens

STOCK_CLASSES = {"encoder": "ModernBertForMaskedLM", "decoder": "Qwen3ForCausalLM"}
# The class that loads each kind of model, whatever its architecture, and the pipeline for it.
AUTO_CLASSES = {"encoder": "AutoModelForMaskedLM", "decoder": "AutoModelForCausalLM"}
PIPELINES = {"encoder": "fill-mask", "decoder": "text-generation"}

# Ours first; a name's beginning and its inner parts are renamed apart, so that each rule stands once.
STOCK_BEGINNINGS = {
    "encoder": {
        "embedding.": "model.embeddings.tok_embeddings.",
        "embedding_norm.": "model.embeddings.norm.",
        "blocks.": "model.layers.",
        "final_norm.": "model.final_norm.",
    },
    "decoder": {"embedding.": "model.embed_tokens.", "blocks.": "model.layers.", "final_norm.": "model.norm."},
}
# A fused weight's parts, in the order of its rows.
STOCK_PARTS: dict[str, dict[str, tuple[str, ...]]] = {
    "encoder": {
        ".attention_norm.": (".attn_norm.",),
        ".attention.qkv.": (".attn.Wqkv.",),
        ".attention.out.": (".attn.Wo.",),
        ".mlp.up.": (".mlp.Wi.",),
        ".mlp.down.": (".mlp.Wo.",),
    },
    "decoder": {
        ".attention_norm.": (".input_layernorm.",),
        ".attention.qkv.": (".self_attn.q_proj.", ".self_attn.k_proj.", ".self_attn.v_proj."),
        ".attention.q_norm.": (".self_attn.q_norm.",),
        ".attention.k_norm.": (".self_attn.k_norm.",),
        ".attention.out.": (".self_attn.o_proj.",),
        ".mlp_norm.": (".post_attention_layernorm.",),
        ".mlp.up.": (".mlp.gate_proj.", ".mlp.up_proj."),
        ".mlp.down.": (".mlp.down_proj.",),
    },
}

# What a decoder's tokenizer makes of each WordPiece, and of the spaces in the text that they give: patterns and what
# replaces them. They look at a piece and the one before it: what was written never changes when more follows, as
# streaming needs. An apostrophe stands at the word before it; a piece that may end a contraction gets a mark instead of
# a space, which goes behind an apostrophe.
MARK = "\x01"
DECODED_PIECES = (
    (r"^(?=[.,!?;:)\]}%'-]$)", "##"),
    (r"^(?=(s|t|d|m|re?|ve?|ll?)$)", f"##{MARK}"),
    (r"^(?!##)", " "),
    (r"^##", ""),
)
DECODED_SPACES = (
    (rf"(?<=[(\[{{-])[ {MARK}]|(?<='){MARK}", ""),
    (MARK, " "),
)


def no_stock_class(kind: str) -> str | None:
    """Why a model of this `model.kind` is not exported, or None."""
    return None if kind in STOCK_CLASSES else f"transformers has no class that computes model.kind={kind}"


def to_stock_names(state: "dict[str, torch.Tensor]", kind: str = "encoder") -> "dict[str, torch.Tensor]":
    """The tensors of a model's state under the names of its kind's stock class; the tied decoder has none."""
    renamed: dict[str, torch.Tensor] = {}
    for name, tensor in state.items():
        names = _stock_names(name, kind)
        renamed.update(zip(names, tensor.chunk(len(names)), strict=True))
    return renamed


def from_stock_names(stock: "dict[str, torch.Tensor]", names: list[str], kind: str) -> "dict[str, torch.Tensor]":
    """The inverse: tensors of a stock class under our `names`, parts joined. Errors: KeyError for an absent one."""
    import torch

    return {name: torch.cat([stock[part] for part in _stock_names(name, kind)]) for name in names}


def _stock_names(name: str, kind: str) -> list[str]:
    for ours, stock in STOCK_BEGINNINGS[kind].items():
        if name.startswith(ours):
            name = stock + name.removeprefix(ours)
    for ours, parts in STOCK_PARTS[kind].items():
        if ours in name:
            return [name.replace(ours, part) for part in parts]
    return [name]


def stock_config(config: ModelConfig, vocab_size: int, seq_len: int, special: "SpecialTokens") -> dict[str, Any]:
    """config.json of the exported folder, read alike by versions 4 and 5 of `transformers`."""
    shared = {
        "architectures": [STOCK_CLASSES[config.kind]],
        "dtype": "float32",
        "vocab_size": vocab_size,
        "hidden_size": config.width,
        "intermediate_size": config.mlp_width,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "max_position_embeddings": seq_len,
        "attention_bias": False,
        "attention_dropout": 0.0,
        "tie_word_embeddings": True,
        "layer_types": ["full_attention"] * config.layers,
        "initializer_range": config.init_std,
        "pad_token_id": special.pad,
        "bos_token_id": special.cls,
        "eos_token_id": special.sep,
    }
    return shared | (_qwen3(config) if config.kind == "decoder" else _modernbert(config, seq_len, special))


def _modernbert(config: ModelConfig, seq_len: int, special: "SpecialTokens") -> dict[str, Any]:
    """What is ModernBERT's own.

    Version 5 reads `layer_types` and `rope_parameters`; version 4 ignores these, would take local attention and
    another theta without a word, and so gets its own keys too. text-embeddings-inference and candle have no defaults:
    `local_attention`, `layer_norm_eps` and `initializer_cutoff_factor` are there for them, and change nothing here.
    """
    rope = {"rope_type": "default", "rope_theta": config.rope_theta}
    return {
        "model_type": "modernbert",
        "hidden_activation": "gelu",
        "norm_eps": config.norm_eps,
        "layer_norm_eps": config.norm_eps,
        "norm_bias": False,
        "mlp_bias": False,
        "decoder_bias": False,
        "rope_parameters": {"full_attention": rope, "sliding_attention": rope},
        "global_attn_every_n_layers": 1,
        "global_rope_theta": config.rope_theta,
        "local_rope_theta": config.rope_theta,
        "local_attention": seq_len,
        "initializer_cutoff_factor": 2.0,
        "reference_compile": False,
        "embedding_dropout": 0.0,
        "mlp_dropout": 0.0,
        "classifier_dropout": 0.0,
        "classifier_activation": "gelu",
        "classifier_bias": False,
        "classifier_pooling": "cls",
        "cls_token_id": special.cls,
        "sep_token_id": special.sep,
    }


def _qwen3(config: ModelConfig) -> dict[str, Any]:
    """What is Qwen3's own: version 5 reads `rope_parameters`, version 4 `rope_theta`."""
    return {
        "model_type": "qwen3",
        "hidden_act": "silu",
        "num_key_value_heads": config.heads,
        "head_dim": config.width // config.heads,
        "rms_norm_eps": config.norm_eps,
        "rope_theta": config.rope_theta,
        "rope_parameters": {"rope_type": "default", "rope_theta": config.rope_theta},
        "use_sliding_window": False,
        "sliding_window": None,
        "max_window_layers": config.layers,
        "use_cache": True,
    }


def generation_config(seq_len: int, special: "SpecialTokens") -> dict[str, Any]:
    """generation_config.json: a text ends at a separator, or with half of a row, whose other half is for the prompt."""
    return {
        "bos_token_id": special.cls,
        "eos_token_id": special.sep,
        "pad_token_id": special.pad,
        "max_new_tokens": seq_len // 2,
    }


def stock_tokenizer(tokenizer: "Tokenizer", kind: str, special: "SpecialTokens") -> "Tokenizer":
    """The tokenizer as the model of a kind needs it; texts have the same ids.

    A decoder continues a text: its end gets no separator, and WordPieces are decoded as what follows a text, a space
    before each that begins a word, where the usual decoder leaves out the first one's.
    """
    from tokenizers import Regex, Tokenizer, decoders

    from cram.data.special import set_frame

    copy = Tokenizer.from_str(tokenizer.to_str())
    names = special.names(tokenizer)
    if kind == "decoder" and isinstance(copy.decoder, decoders.WordPiece):
        pieces = [decoders.Replace(Regex(pattern), text) for pattern, text in DECODED_PIECES]
        spaces = [decoders.Replace(Regex(pattern), text) for pattern, text in DECODED_SPACES]
        copy.decoder = decoders.Sequence([*pieces, decoders.Fuse(), *spaces])
    set_frame(copy, names.get("cls"), None if kind == "decoder" else names["sep"])
    return copy


def tokenizer_files(seq_len: int, kind: str, names: dict[str, str]) -> dict[str, dict[str, Any]]:
    """What `AutoTokenizer` reads beside tokenizer.json, by file name; the class is one that every version has.

    names: the special tokens by their roles, as `SpecialTokens.names` gives them.
    """
    tokens = {f"{role}_token": name for role, name in names.items()}
    if kind == "decoder":
        tokens |= {"eos_token": names["sep"]} | ({"bos_token": names["cls"]} if "cls" in names else {})
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": seq_len,
        "model_input_names": ["input_ids", "attention_mask"],
        "clean_up_tokenization_spaces": False,
    }
    if kind == "decoder":
        settings["padding_side"] = "left"  # what is written follows the text, not its padding
    return {"tokenizer_config.json": settings | tokens, "special_tokens_map.json": tokens}
