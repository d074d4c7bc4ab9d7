"""BERT as a `BertForMaskedLM`."""

from typing import TYPE_CHECKING, Any

from cram.config.model import ModelConfig
from cram.hub.fill_mask import FILL_MASK
from cram.hub.stock import StockModel

if TYPE_CHECKING:
    import torch

    from cram.data.special_tokens import SpecialTokens


def class_config(config: ModelConfig, seq_len: int, special: "SpecialTokens") -> dict[str, Any]:
    """The keys of config.json that only BERT has."""
    return {
        "hidden_act": "gelu",
        "layer_norm_eps": config.norm_eps,
        "max_position_embeddings": config.positions,
        "position_embedding_type": "absolute",
        "type_vocab_size": 2,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        "classifier_dropout": None,
        "is_decoder": False,
    }


class StockBert(StockModel):
    """A BERT whose token types, which ours does not have, add nothing."""

    def rename(self, state: "dict[str, torch.Tensor]") -> "dict[str, torch.Tensor]":
        """Give our tensors their stock names, and add zeros for the token types."""
        import torch

        types = {"bert.embeddings.token_type_embeddings.weight": torch.zeros(2, state["embedding.weight"].shape[1])}
        return super().rename(state) | types


BERT = StockBert(
    class_name="BertForMaskedLM",
    model_type="bert",
    task=FILL_MASK,
    beginnings={
        "embedding.": "bert.embeddings.word_embeddings.",
        "positions.": "bert.embeddings.position_embeddings.",
        "embedding_norm.": "bert.embeddings.LayerNorm.",
        "blocks.": "bert.encoder.layer.",
        "head.dense.": "cls.predictions.transform.dense.",
        "head.norm.": "cls.predictions.transform.LayerNorm.",
        "head.bias": "cls.predictions.bias",
    },
    parts={
        ".attention_norm.": (".attention.output.LayerNorm.",),
        ".attention.qkv.": (".attention.self.query.", ".attention.self.key.", ".attention.self.value."),
        ".attention.out.": (".attention.output.dense.",),
        ".mlp.up.": (".intermediate.dense.",),
        ".mlp.down.": (".output.dense.",),
        ".mlp_norm.": (".output.LayerNorm.",),
    },
    class_config=class_config,
)
