"""ELECTRA as two folders: the discriminator, to be fine-tuned, and the generator as a `ModernBertForMaskedLM`."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from cram.config.model import ModelConfig
from cram.hub.fill_mask import FILL_MASK, FillMask
from cram.hub.modernbert import MODERNBERT, class_config
from cram.hub.stock import StockModel

if TYPE_CHECKING:
    import torch

    from cram.data.special_tokens import SpecialTokens


class Encoding(FillMask):
    """The task of a model that encodes text and is fine-tuned: it has no logits to score text by."""

    pipeline = "feature-extraction"
    auto_class = "AutoModelForSequenceClassification"
    noun = "ELECTRA discriminator"
    usage = """encode = pipeline("feature-extraction", "path/to/this/folder")
print(encode({prompt})[0][0][:4])"""

    def examples(self, folder: Path) -> list[str]:
        """Nothing: an encoder has nothing to say before it is fine-tuned."""
        return []


class StockDiscriminator(StockModel):
    """The discriminator with the norm and dense layer of its head, which `AutoModelForSequenceClassification` keeps."""

    def rename(self, state: "dict[str, torch.Tensor]") -> "dict[str, torch.Tensor]":
        """Give the discriminator's tensors their stock names; its last layer, which judges tokens, has none."""
        others = ("generator.", "head.", "discriminator_head.out.")
        return super().rename({name: tensor for name, tensor in state.items() if not name.startswith(others)})


class StockGenerator(StockModel):
    """The generator; the layers between its width and that of the embedding are multiplied into two tables."""

    def rename(self, state: "dict[str, torch.Tensor]") -> "dict[str, torch.Tensor]":
        """Give the generator's tensors their stock names, with an embedding and an output weight of its own width."""
        embedding = state["embedding.weight"].double()
        own = {
            name.removeprefix("generator."): tensor
            for name, tensor in state.items()
            if name.startswith(("generator.", "head.dense.", "head.norm.")) and name != "generator.down.weight"
        }
        down = embedding @ state["generator.down.weight"].double().T
        up = embedding @ state["head.up.weight"].double()
        tables = {"model.embeddings.tok_embeddings.weight": down.float(), "decoder.weight": up.float()}
        return super().rename(own) | tables

    def config(self, config: ModelConfig, vocab_size: int, seq_len: int, special: "SpecialTokens") -> dict[str, Any]:
        """config.json in the size of the generator; its two tables are not tied."""
        from cram.model.electra import generator_config

        return super().config(generator_config(config), vocab_size, seq_len, special) | {"tie_word_embeddings": False}


GENERATOR = StockGenerator(
    class_name=MODERNBERT.class_name,
    model_type=MODERNBERT.model_type,
    task=FILL_MASK,
    beginnings=MODERNBERT.beginnings,
    parts=MODERNBERT.parts,
    class_config=class_config,
)
DISCRIMINATOR = StockDiscriminator(
    class_name="ModernBertForSequenceClassification",
    model_type=MODERNBERT.model_type,
    task=Encoding(),
    beginnings={**MODERNBERT.beginnings, "discriminator_head.": "head."},
    parts=MODERNBERT.parts,
    class_config=class_config,
    scores_text=False,
    companion=("generator", GENERATOR),
)
