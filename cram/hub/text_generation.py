"""The task of exported models that continue a text: the pipeline `text-generation`."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from cram.hub.pipelines import quoted, stock_pipeline
from cram.hub.stock import StockTask

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from cram.data.special_tokens import SpecialTokens

PROMPTS = ("The capital of France is", "This function returns")
NEW_TOKENS = 24
SAMPLING = {"do_sample": True, "temperature": 0.7, "top_k": 40, "return_full_text": False}

# How WordPieces become text: patterns with their replacements, first for each piece, then for the spaces in the joined
# text. Each rule looks at a piece and the one before it only, so that written text never changes when more follows, as
# streaming needs. An apostrophe joins the word before it. A piece that may end a contraction gets MARK instead of a
# space; the mark disappears behind an apostrophe and becomes a space elsewhere.
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


class TextGeneration(StockTask):
    """The task of a model that continues a text."""

    pipeline = "text-generation"
    auto_class = "AutoModelForCausalLM"
    noun = "decoder"
    usage = """write = pipeline("text-generation", "path/to/this/folder")
print(write("The capital of France is", max_new_tokens=40, do_sample=True, temperature=0.7))"""
    advice = "A text{begins} ends with\n{sep}."
    held_out_text = (
        "Every ordinary token of the rows in held_out.safetensors but a row's first is predicted from those before it,"
        "\none document or window a row; `labels` are the tokens that follow."
    )
    examples_label = "written"

    def tokenizer(self, tokenizer: "Tokenizer", special: "SpecialTokens") -> "Tokenizer":
        """Copy the tokenizer so that its output continues a text.

        No separator is put behind a text. WordPieces are decoded as what follows a text: with a space before each piece
        that begins a word, the first one too, which the usual decoder leaves out.
        """
        from tokenizers import Regex, Tokenizer, decoders

        from cram.data.special_tokens import frame_encodings

        copy = Tokenizer.from_str(tokenizer.to_str())
        names = special.names(tokenizer)
        if isinstance(copy.decoder, decoders.WordPiece):
            pieces = [decoders.Replace(Regex(pattern), text) for pattern, text in DECODED_PIECES]
            spaces = [decoders.Replace(Regex(pattern), text) for pattern, text in DECODED_SPACES]
            copy.decoder = decoders.Sequence([*pieces, decoders.Fuse(), *spaces])
        frame_encodings(copy, names.get("cls"), None)
        return copy

    def examples(self, folder: Path) -> list[str]:
        """Some prompts and, behind an arrow, how the model continues them.

        The text is sampled, because the likeliest text of a small model soon repeats itself. The state of the global
        generators does not change.
        """
        import torch

        write = stock_pipeline(self.pipeline, folder)
        lines = []
        for prompt in PROMPTS:
            with torch.random.fork_rng(devices=[]):
                torch.default_generator.manual_seed(0)
                answer = write(prompt, max_new_tokens=NEW_TOKENS, **SAMPLING)
            lines.append(f"{quoted(prompt)} -> {quoted(answer[0]['generated_text'])}")
        return lines

    def token_names(self, names: dict[str, str]) -> dict[str, str]:
        """Special tokens as `AutoTokenizer` reads them; a generator also asks for the first and the last token."""
        beginning = {"bos_token": names["cls"]} if "cls" in names else {}
        return super().token_names(names) | {"eos_token": names["sep"]} | beginning

    def tokenizer_settings(self) -> dict[str, Any]:
        """Padding goes before a text, because the generated tokens must follow the text directly."""
        return {"padding_side": "left"}

    def generation_config(self, seq_len: int, special: "SpecialTokens") -> dict[str, Any]:
        """A text ends at a separator, or after half a row; the other half of the row is for the prompt."""
        return {
            "bos_token_id": special.cls,
            "eos_token_id": special.sep,
            "pad_token_id": special.pad,
            "max_new_tokens": seq_len // 2,
        }


TEXT_GENERATION = TextGeneration()
