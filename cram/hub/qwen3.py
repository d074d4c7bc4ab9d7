"""The decoder as a `Qwen3ForCausalLM`."""

from typing import TYPE_CHECKING, Any

from cram.config.model import ModelConfig
from cram.hub.stock import StockModel
from cram.hub.text_generation import TEXT_GENERATION

if TYPE_CHECKING:
    from cram.data.special_tokens import SpecialTokens


def class_config(config: ModelConfig, seq_len: int, special: "SpecialTokens") -> dict[str, Any]:
    """The keys of config.json that only Qwen3 has: version 5 reads `rope_parameters`, version 4 `rope_theta`."""
    return {
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


QWEN3 = StockModel(
    class_name="Qwen3ForCausalLM",
    model_type="qwen3",
    task=TEXT_GENERATION,
    beginnings={"embedding.": "model.embed_tokens.", "blocks.": "model.layers.", "final_norm.": "model.norm."},
    parts={
        ".attention_norm.": (".input_layernorm.",),
        ".attention.qkv.": (".self_attn.q_proj.", ".self_attn.k_proj.", ".self_attn.v_proj."),
        ".attention.q_norm.": (".self_attn.q_norm.",),
        ".attention.k_norm.": (".self_attn.k_norm.",),
        ".attention.out.": (".self_attn.o_proj.",),
        ".mlp_norm.": (".post_attention_layernorm.",),
        ".mlp.up.": (".mlp.gate_proj.", ".mlp.up_proj."),
        ".mlp.down.": (".mlp.down_proj.",),
    },
    class_config=class_config,
)
