"""`python -m cram.export run=DIR [to=DIR]`: a finished run as a folder that stock `transformers` classes load.

The folder needs no code of ours: weights under the names of `ModernBertForMaskedLM`, a config that versions 4.48
and later read alike, the tokenizer, a model card made from the receipt, and the held-out rows, from which anybody
can repeat the held-out loss. It is written under a temporary name, loaded back by the stock classes, compared
with our own model on real documents, and only then given its name.
"""

import filecmp
import json
import math
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cram.command import run_door
from cram.config import STOCK_CLASSES, Config, ExportConfig, ModelConfig
from cram.errors import CramError
from cram.model_card import model_card
from cram.recipe import load_config, read_words

if TYPE_CHECKING:
    import torch
    from tokenizers import Tokenizer

    from cram.data.tokenizer import SpecialTokens
    from cram.model.transformer import Transformer

ABOUT = """Export a finished run as a Hugging Face folder.

    python -m cram.export run=runs/bert_demo to=my_bert"""

# Ours first; a name's beginning and its inner parts are renamed apart, so that each rule stands once.
STOCK_BEGINNINGS = {
    "embedding.": "model.embeddings.tok_embeddings.",
    "embedding_norm.": "model.embeddings.norm.",
    "blocks.": "model.layers.",
    "final_norm.": "model.final_norm.",
}
STOCK_PARTS = {
    ".attention_norm.": ".attn_norm.",
    ".attention.qkv.": ".attn.Wqkv.",
    ".attention.out.": ".attn.Wo.",
    ".mlp.up.": ".mlp.Wi.",
    ".mlp.down.": ".mlp.Wo.",
}

CHECKED_ROWS = 16
TOLERANCE = 1e-4  # of the largest logit in fp32


def no_stock_class(kind: str) -> str | None:
    """Why a model of this `model.kind` is not exported, or None."""
    return None if kind in STOCK_CLASSES else f"transformers has no class that computes model.kind={kind}"


def to_stock_names(state: "dict[str, torch.Tensor]") -> "dict[str, torch.Tensor]":
    """The tensors of an `Encoder`'s state under the names of `ModernBertForMaskedLM`; the tied decoder has none."""
    return {_stock_name(name): tensor for name, tensor in state.items()}


def _stock_name(name: str) -> str:
    for ours, stock in STOCK_BEGINNINGS.items():
        if name.startswith(ours):
            name = stock + name.removeprefix(ours)
    for ours, stock in STOCK_PARTS.items():
        name = name.replace(ours, stock)
    return name


def stock_config(config: ModelConfig, vocab_size: int, seq_len: int, special: "SpecialTokens") -> dict[str, Any]:
    """config.json of the exported folder.

    Version 5 reads `layer_types` and `rope_parameters`; version 4 ignores these, would take local attention and
    another theta without a word, and so gets its own keys too.
    """
    rope = {"rope_type": "default", "rope_theta": config.rope_theta}
    return {
        "architectures": ["ModernBertForMaskedLM"],
        "model_type": "modernbert",
        "dtype": "float32",
        "vocab_size": vocab_size,
        "hidden_size": config.width,
        "intermediate_size": config.mlp_width,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "hidden_activation": "gelu",
        "max_position_embeddings": seq_len,
        "norm_eps": config.norm_eps,
        "norm_bias": False,
        "attention_bias": False,
        "mlp_bias": False,
        "decoder_bias": False,
        "tie_word_embeddings": True,
        "layer_types": ["full_attention"] * config.layers,
        "rope_parameters": {"full_attention": rope, "sliding_attention": rope},
        "global_attn_every_n_layers": 1,
        "global_rope_theta": config.rope_theta,
        "local_rope_theta": config.rope_theta,
        "reference_compile": False,
        "initializer_range": config.init_std,
        "attention_dropout": 0.0,
        "embedding_dropout": 0.0,
        "mlp_dropout": 0.0,
        "classifier_dropout": 0.0,
        "classifier_activation": "gelu",
        "classifier_bias": False,
        "classifier_pooling": "cls",
        "pad_token_id": special.pad,
        "bos_token_id": special.cls,
        "cls_token_id": special.cls,
        "eos_token_id": special.sep,
        "sep_token_id": special.sep,
    }


def tokenizer_files(seq_len: int) -> dict[str, dict[str, Any]]:
    """What `AutoTokenizer` reads beside tokenizer.json, by file name; the class is one that every version has."""
    tokens = {f"{name}_token": f"[{name.upper()}]" for name in ("pad", "unk", "cls", "sep", "mask")}
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": seq_len,
        "model_input_names": ["input_ids", "attention_mask"],
        "clean_up_tokenization_spaces": False,
    }
    return {"tokenizer_config.json": settings | tokens, "special_tokens_map.json": tokens}


def export_run(run: Path, to: Path) -> Path:
    """Write the Hugging Face folder of a finished run, check it, and return its path.

    Args:
        run: folder of a finished run: recipe.yaml, model.safetensors, tokenizer.json, receipt.json and
            held_out.safetensors.
        to: folder to write. If it is there already it must hold the same files.

    Raises:
        CramError: for an unfinished run, a model that has no stock class, or a different folder at `to`.
        RuntimeError: if the stock classes do not give our logits.
    """
    import torch

    from cram.build import load_trained

    config = load_config(run / "recipe.yaml")
    if reason := no_stock_class(config.model.kind):
        raise CramError(
            f"run={run} cannot be exported: {reason}. Its weights are {run / 'model.safetensors'}; "
            "a run of model.kind=encoder can be exported."
        )
    model, tokenizer = load_trained(run, config, torch.device("cpu"))
    model.eval()
    to.parent.mkdir(parents=True, exist_ok=True)
    partial = to.with_name(f".{to.name}.{os.getpid()}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        _write(partial, run, config, model, tokenizer)
        check_export(partial, model, tokenizer)
        _give_name(partial, to)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return to


def _write(folder: Path, run: Path, config: Config, model: "Transformer", tokenizer: "Tokenizer") -> None:
    from safetensors.torch import save_file

    from cram.build import result
    from cram.data.tokenizer import SpecialTokens

    seq_len = config.data.seq_len
    folder.mkdir()
    shutil.copyfile(result(run, "held_out.safetensors"), folder / "held_out.safetensors")
    tokenizer.save(str(folder / "tokenizer.json"))
    weights = {name: tensor.contiguous() for name, tensor in to_stock_names(model.state_dict()).items()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    texts = {"config.json": stock_config(config.model, model.vocab_size, seq_len, SpecialTokens.of(tokenizer))}
    for name, content in (texts | tokenizer_files(seq_len)).items():
        (folder / name).write_text(json.dumps(content, indent=2) + "\n")
    receipt = json.loads((run / "receipt.json").read_text())
    (folder / "README.md").write_text(model_card(run.resolve().name, config, receipt), encoding="utf-8")


def check_export(folder: Path, model: "Transformer", tokenizer: "Tokenizer") -> None:
    """Load the folder with the stock classes and compare with ours on held-out documents of mixed length.

    The logits must agree within 1e-4 in fp32, where the two round differently, and within 1e-5 in float64, where the
    tables of rotary angles alone are rounded: times the largest logit if that is above 1, as rounding goes with it.

    Raises:
        RuntimeError: where logits differ by more than that, or the tokenizer gives other ids.
    """
    import torch
    from safetensors.torch import load_file
    from transformers import AutoModelForMaskedLM, AutoTokenizer
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        stock = AutoModelForMaskedLM.from_pretrained(folder, dtype=torch.float32).eval()
        stock_tokenizer = AutoTokenizer.from_pretrained(folder)
    finally:
        if shown:
            logging.enable_progress_bar()
    tokens = _mixed_lengths(load_file(folder / "held_out.safetensors")["inputs"], stock.config.pad_token_id)
    real = tokens != stock.config.pad_token_id
    for dtype, tolerance in ((torch.float64, 0.1 * TOLERANCE), (torch.float32, TOLERANCE)):
        with torch.no_grad():
            theirs = stock.to(dtype)(input_ids=tokens, attention_mask=real.long()).logits[real]
            ours = model.to(dtype).head(model(tokens, (~real).int())).view(*tokens.shape, -1)[real]
        difference = float((ours - theirs).abs().max())
        if not difference <= tolerance * max(1.0, float(ours.abs().max())):
            raise RuntimeError(f"the exported model's logits differ from ours by {difference:.2e} in {dtype}")
    text = tokenizer.decode(tokens[0].tolist())
    if stock_tokenizer(text, truncation=False)["input_ids"] != tokenizer.encode(text).ids:
        raise RuntimeError("the exported tokenizer gives other ids than the run's")


def _mixed_lengths(inputs: "torch.Tensor", pad_id: int) -> "torch.Tensor":
    """Rows spread over the held-out ones, int64 (rows, seq_len), the i-th of n cut after i/n of the length."""
    import torch

    count = min(CHECKED_ROWS, len(inputs))
    rows = inputs[torch.linspace(0, len(inputs) - 1, count).long()].clone()
    for index, row in enumerate(rows):
        row[math.ceil(len(row) * (index + 1) / count) :] = pad_id
    return rows


def _give_name(partial: Path, to: Path) -> None:
    if not to.exists():
        partial.rename(to)
    elif not to.is_dir() or not _same_files(partial, to):
        raise CramError(f"to={to} is there already and holds something else; choose another folder, or remove it")


def _same_files(one: Path, other: Path) -> bool:
    names = sorted(path.name for path in one.iterdir())
    if names != sorted(path.name for path in other.iterdir()):
        return False
    return not any(filecmp.cmpfiles(one, other, names, shallow=False)[1:])


def main(words: list[str]) -> int:
    """Export the run that the words name."""
    said = read_words(ExportConfig, words)
    if not said.run:
        raise CramError("run= is missing. Say run=DIR with the folder of a finished run.")
    run = Path(said.run)
    if not (run / "recipe.yaml").is_file():
        raise CramError(f"run={run} is no run folder: there is no recipe.yaml in it.")
    to = export_run(run, Path(said.to) if said.to else run / "export")
    print(f"{to}: loaded by transformers, logits equal to ours")
    return 0


if __name__ == "__main__":
    run_door(main, ExportConfig, ABOUT)
