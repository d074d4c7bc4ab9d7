"""The encoder as a `ModernBertForMaskedLM`."""

from typing import TYPE_CHECKING, Any

from cram.config.model import ModelConfig
from cram.hub.fill_mask import FILL_MASK
from cram.hub.stock import StockModel

if TYPE_CHECKING:
    from cram.data.special_tokens import SpecialTokens


def class_config(config: ModelConfig, seq_len: int, special: "SpecialTokens") -> dict[str, Any]:
    """The keys of config.json that only ModernBERT has.

    Version 5 of `transformers` reads `layer_types` and `rope_parameters`. Version 4 ignores both and would use local
    attention and another theta without a warning, so its own keys are there too. text-embeddings-inference and candle
    have no defaults: `local_attention`, `layer_norm_eps` and `initializer_cutoff_factor` are there for them, and change
    nothing here.
    """
    rope = {"rope_type": "default", "rope_theta": config.rope_theta}
    return {
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


MODERNBERT = StockModel(
    class_name="ModernBertForMaskedLM",
    model_type="modernbert",
    task=FILL_MASK,
    beginnings={
        "embedding.": "model.embeddings.tok_embeddings.",
        "embedding_norm.": "model.embeddings.norm.",
        "blocks.": "model.layers.",
        "final_norm.": "model.final_norm.",
    },
    parts={
        ".attention_norm.": (".attn_norm.",),
        ".attention.qkv.": (".attn.Wqkv.",),
        ".attention.out.": (".attn.Wo.",),
        ".mlp.up.": (".mlp.Wi.",),
        ".mlp.down.": (".mlp.Wo.",),
    },
    class_config=class_config,
)
