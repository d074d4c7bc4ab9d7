"""The task of exported models that predict hidden tokens: the pipeline `fill-mask`."""

from pathlib import Path
from typing import TYPE_CHECKING

from cram.hub.pipelines import quoted, stock_pipeline
from cram.hub.stock import StockTask

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from cram.data.special_tokens import SpecialTokens

SENTENCES = (
    "The capital of France is the city of {mask}.",
    "This function returns the {mask} of its argument.",
    "He was born in the {mask} of 1950.",
)
WORDS_SHOWN = 4


class FillMask(StockTask):
    """The task of a model that predicts hidden tokens."""

    pipeline = "fill-mask"
    auto_class = "AutoModelForMaskedLM"
    noun = "BERT"
    usage = """fill = pipeline("fill-mask", "path/to/this/folder")
print(fill({prompt}))"""
    advice = """For classification, load the folder
with `AutoModelForSequenceClassification.from_pretrained(folder, num_labels=...)` and fine-tune."""
    held_out_text = (
        "{share:.0%} of the tokens of the rows in held_out.safetensors are shown as {mask}, "
        "one document or window a row."
    )
    examples_label = "fill-mask"

    def tokenizer(self, tokenizer: "Tokenizer", special: "SpecialTokens") -> "Tokenizer":
        """Copy the tokenizer; a text begins and ends with its special tokens."""
        from tokenizers import Tokenizer

        from cram.data.special_tokens import frame_encodings

        copy = Tokenizer.from_str(tokenizer.to_str())
        names = special.names(tokenizer)
        frame_encodings(copy, names.get("cls"), names["sep"])
        return copy

    def examples(self, folder: Path) -> list[str]:
        """The likeliest words for the hidden word of some sentences."""
        fill = stock_pipeline(self.pipeline, folder)
        lines = []
        for sentence in (sentence.format(mask=fill.tokenizer.mask_token) for sentence in SENTENCES):
            answers = fill(sentence, top_k=WORDS_SHOWN)
            words = ", ".join(f"{quoted(answer['token_str'])} {answer['score']:.0%}" for answer in answers)
            lines.append(f"{sentence} {words}")
        return lines


FILL_MASK = FillMask()
