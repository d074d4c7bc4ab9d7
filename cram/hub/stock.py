"""The contract of a model that stock classes of `transformers` load: names of weights, config, tokenizer, card.

A `StockModel` describes how `transformers` names one `model.kind`. It belongs to a `StockTask`, which holds what all
models of one pipeline share. Tensors keep their values: they are renamed, and a fused weight is cut into its matrices.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cram.config.model import ModelConfig

if TYPE_CHECKING:
    import torch
    from tokenizers import Tokenizer

    from cram.data.special_tokens import SpecialTokens

JsonFiles = dict[str, dict[str, Any]]


class StockTask:
    """Everything that the exported models of one pipeline share, whatever their architecture.

    The texts for the card are templates of `str.format`. Their fields are `prompt`, a sentence with a mask as a Python
    string, `mask`, `sep` and `begins`, special tokens in Markdown, and `share`, the share of held-out tokens predicted.

    Attributes:
        pipeline: name of the pipeline of `transformers`.
        auto_class: the class that loads every architecture for this task.
        noun: what the card calls the model.
        usage: Python lines of the card that use the model.
        advice: what the card says behind its sentence on long texts.
        held_out_text: what the card says about the rows in held_out.safetensors.
        examples_label: what the summary of a run calls the examples.
    """

    pipeline: str
    auto_class: str
    noun: str
    usage: str
    advice: str
    held_out_text: str
    examples_label: str

    def tokenizer(self, tokenizer: "Tokenizer", special: "SpecialTokens") -> "Tokenizer":
        """Copy the tokenizer in the form that the model needs. A text has the same ids, up to special tokens."""
        raise NotImplementedError

    def examples(self, folder: Path) -> list[str]:
        """Lines that show what the exported model in a folder says; the same each time."""
        raise NotImplementedError

    def token_names(self, names: dict[str, str]) -> dict[str, str]:
        """Special tokens as `AutoTokenizer` reads them; `names` has those of the tokenizer by role."""
        return {f"{role}_token": name for role, name in names.items()}

    def tokenizer_settings(self) -> dict[str, Any]:
        """Settings of tokenizer_config.json beyond the common ones."""
        return {}

    def generation_config(self, seq_len: int, special: "SpecialTokens") -> dict[str, Any] | None:
        """generation_config.json; None for a model that does not write text."""
        return None

    def tokenizer_files(self, seq_len: int, names: dict[str, str]) -> JsonFiles:
        """What `AutoTokenizer` reads beside tokenizer.json, by file name; the class is one that every version has.

        Args:
            seq_len: longest text that the model has seen.
            names: the special tokens by role, as `SpecialTokens.names` gives them.
        """
        tokens = self.token_names(names)
        settings = {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "model_max_length": seq_len,
            "model_input_names": ["input_ids", "attention_mask"],
            "clean_up_tokenization_spaces": False,
        }
        return {
            "tokenizer_config.json": settings | self.tokenizer_settings() | tokens,
            "special_tokens_map.json": tokens,
        }


@dataclass(frozen=True)
class StockModel:
    """How `transformers` loads one of our model kinds.

    A new one is a file of its own, named in the kind's line in `MODELS` of `cram.config.choices`.

    Attributes:
        class_name: name of the stock class, which computes exactly what our model computes.
        model_type: `model_type` of the class, which is also a tag on the card.
        task: everything that models of the same pipeline share.
        beginnings: maps the beginning of a weight's name here to that of its stock name.
        parts: maps an inner part of a weight's name here to that of its stock name. A fused weight has several stock
            names, in the order of its rows.
        class_config: makes the keys of config.json that only this class has, from the keys `model.*`, the row length
            and the special tokens.
        scores_text: whether the class gives the logits that held-out text is scored by.
        companion: the other part of a model that is exported as two folders: what its folder's name ends with, and how
            `transformers` names it.
    """

    class_name: str
    model_type: str
    task: StockTask
    beginnings: dict[str, str]
    parts: dict[str, tuple[str, ...]]
    class_config: "Callable[[ModelConfig, int, SpecialTokens], dict[str, Any]]"
    scores_text: bool = True
    companion: "tuple[str, StockModel] | None" = None

    def rename(self, state: "dict[str, torch.Tensor]") -> "dict[str, torch.Tensor]":
        """Give our tensors their stock names; the tied output weight has none."""
        renamed: dict[str, torch.Tensor] = {}
        for name, tensor in state.items():
            names = self._stock_names(name)
            renamed.update(zip(names, tensor.chunk(len(names)), strict=True))
        return renamed

    def restore(self, stock: "dict[str, torch.Tensor]", names: list[str]) -> "dict[str, torch.Tensor]":
        """Give tensors of the stock class our `names`, fused weights joined again.

        Raises:
            KeyError: for a tensor that is missing.
        """
        import torch

        return {name: torch.cat([stock[part] for part in self._stock_names(name)]) for name in names}

    def config(self, config: ModelConfig, vocab_size: int, seq_len: int, special: "SpecialTokens") -> dict[str, Any]:
        """config.json of the exported folder, which versions 4 and 5 of `transformers` read alike."""
        shared = {
            "architectures": [self.class_name],
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
            "model_type": self.model_type,
        }
        return shared | self.class_config(config, seq_len, special)

    def _stock_names(self, name: str) -> list[str]:
        for ours, stock in self.beginnings.items():
            if name.startswith(ours):
                name = stock + name.removeprefix(ours)
        for ours, parts in self.parts.items():
            if ours in name:
                return [name.replace(ours, part) for part in parts]
        return [name]
