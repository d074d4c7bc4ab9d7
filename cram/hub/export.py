"""A finished run, or a checkpoint, as a folder that stock `transformers` classes load.

The folder needs no code of ours: weights under the names of the stock class, a config that versions 4 and 5 read
alike, the tokenizer, a model card made from the receipt, and the held-out rows, from which anybody can repeat the
held-out loss. It is written under a temporary name, loaded back by the stock classes, compared
with our own model on real documents, and only then given its name.
"""

import filecmp
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cram.config.config import Config
from cram.config.training import CardConfig
from cram.errors import CramError
from cram.files.atomic import to_json, write_json
from cram.files.sealed import write_checksums
from cram.files.whole_folder import check_folder_path, whole_folder
from cram.hub.card import check_card, model_card
from cram.hub.stock import (
    AUTO_CLASSES,
    generation_config,
    no_stock_class,
    stock_config,
    stock_tokenizer,
    to_stock_names,
    tokenizer_files,
)
from cram.run.checksums import read_receipt, read_run_config

if TYPE_CHECKING:
    import torch
    from tokenizers import Tokenizer

    from cram.model.transformer import Transformer

CHECKED_ROWS = 16
TOLERANCE = 1e-4  # of the largest logit in fp32
NATS_TOLERANCE = 1e-3  # of the held-out loss: the run may have evaluated on another device
TOKENS_AT_ONCE = 4096  # of one forward pass: each has logits of the whole vocabulary


def export_run(
    run: Path, to: Path | None = None, card: CardConfig | None = None, checkpoint: str | None = None
) -> Path:
    """Write the Hugging Face folder of a finished run, or of a checkpoint, check it, and return its path.

    Args:
        run: folder of a finished run: recipe.yaml, model.safetensors, tokenizer.json, receipt.json and
            held_out.safetensors.
        to: folder to write, by default `export` in the run folder, of a checkpoint `export-STEP`. If it is there
            already it must hold the same files.
        card: licence and language for the model card; what it leaves open is taken from the run's recipe.
        checkpoint: `newest`, or the number of a kept one; None for the weights of the finished run.

    Raises:
        CramError: for an unfinished run, a model that has no stock class, a different folder at `to`, or one that
            cannot be written.
        RuntimeError: if the stock classes do not give our logits.
    """
    import torch

    from cram.data.special import SpecialTokens
    from cram.hub.snapshot import open_snapshot
    from cram.hub.trained import load_held_out, load_trained

    if to:
        check_folder_path(to)
    config = read_run_config(run)
    said = card or CardConfig()
    config.card = CardConfig(said.license or config.card.license, said.language or config.card.language)
    check_card(config.card)
    if reason := no_stock_class(config.model.kind):
        raise CramError(
            f"run={run} cannot be exported: {reason}. Its weights are {run / 'model.safetensors'}; "
            "a run of model.kind=encoder or decoder can be exported."
        )
    cpu, name = torch.device("cpu"), run.resolve().name
    if checkpoint:
        snapshot = open_snapshot(run, config, checkpoint, cpu)
        model, tokenizer, name = snapshot.model, snapshot.tokenizer, f"{name}-{snapshot.step}"
        rows = snapshot.held_out()
        held_out, receipt, default = rows.to_bytes(), snapshot.account(rows, cpu), f"export-{snapshot.step}"
    else:
        model, tokenizer = load_trained(run, config, cpu)
        held_out, receipt = load_held_out(run, model.vocab_size).to_bytes(), read_receipt(run)
        default = "export"
    to = to or run / default
    model.eval()
    with whole_folder(to) as partial:
        _write(partial, config, model, tokenizer)
        (partial / "held_out.safetensors").write_bytes(held_out)
        tokens = SpecialTokens.of(tokenizer).names(tokenizer)
        (partial / "README.md").write_text(model_card(name, config, receipt, tokens), encoding="utf-8")
        if checkpoint:
            write_json(partial / "unfinished.json", receipt)
        write_checksums(partial, sorted(path.name for path in partial.iterdir() if path.name != "README.md"))
        stock = check_export(partial, model, tokenizer)
        check_held_out(partial, stock, receipt["held_out"]["nats_per_token"])
        _give_name(partial, to)
    return to


def _write(folder: Path, config: Config, model: "Transformer", tokenizer: "Tokenizer") -> None:
    from safetensors.torch import save

    from cram.data.special import SpecialTokens

    kind, seq_len, special = config.model.kind, config.data.seq_len, SpecialTokens.of(tokenizer)
    names = special.names(tokenizer)
    (folder / "tokenizer.json").write_text(stock_tokenizer(tokenizer, kind, special).to_str(pretty=True), "utf-8")
    weights = {name: tensor.contiguous() for name, tensor in to_stock_names(model.state_dict(), kind).items()}
    # Not `save_file`, whose files nobody but their owner may read.
    (folder / "model.safetensors").write_bytes(save(weights, metadata={"format": "pt"}))
    texts = {"config.json": stock_config(config.model, model.vocab_size, seq_len, special)}
    if kind == "decoder":
        texts["generation_config.json"] = generation_config(seq_len, special)
    for name, content in (texts | tokenizer_files(seq_len, kind, names)).items():
        (folder / name).write_text(to_json(content, indent=2) + "\n")


def check_export(folder: Path, model: "Transformer", tokenizer: "Tokenizer") -> Any:
    """Load the folder with the stock classes and compare with ours on held-out documents of mixed length.

    The logits must agree within 1e-4 in fp32, where the two round differently, and within 1e-5 in float64, where the
    stock class rounds its rotary tables, and a decoder's norms, to fp32: times the largest logit if that is above 1, as
    rounding goes with it.

    Returns: the model as the stock class has loaded it, in fp32.

    Raises:
        RuntimeError: where logits differ by more than that, or the tokenizer gives other ids.
    """
    import torch
    import transformers
    from safetensors.torch import load_file

    from cram.data.special import SpecialTokens

    kind = model.config.kind
    with _quiet():
        loader = getattr(transformers, AUTO_CLASSES[kind])
        stock = loader.from_pretrained(
            folder, dtype=torch.float32, use_safetensors=True, trust_remote_code=False
        ).eval()
        theirs_tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
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
    wanted = stock_tokenizer(tokenizer, kind, SpecialTokens.of(tokenizer)).encode(text).ids
    if theirs_tokenizer(text, truncation=False)["input_ids"] != wanted:
        raise RuntimeError("the exported tokenizer gives other ids than the run's")
    return stock.float()


def check_held_out(folder: Path, stock: Any, expected: float) -> None:
    """Repeat the held-out loss with the stock class in fp32, on a GPU if there is one.

    Args:
        expected: nats per predicted token that the receipt has.

    Errors: CramError where it differs by more than 1e-3 nats.
    """
    import torch

    from cram.evaluation.held_out import HeldOutSet
    from cram.machine.device import pick_device
    from cram.objectives.batch import IGNORED

    rows, device = HeldOutSet.from_file(folder / "held_out.safetensors"), pick_device("auto")
    stock = stock.to(device)
    nats, count = 0.0, max(1, TOKENS_AT_ONCE // rows.inputs.shape[1])
    parts = (tensor.split(count) for tensor in (rows.inputs, rows.documents, rows.labels))
    for inputs, padding, labels in zip(*parts, strict=True):
        with torch.no_grad():
            logits = stock(input_ids=inputs.to(device), attention_mask=(padding == 0).long().to(device)).logits
        wanted = (labels != IGNORED).to(device)
        losses = torch.nn.functional.cross_entropy(logits[wanted], labels.to(device)[wanted], reduction="none")
        nats += float(losses.double().sum())
    found = nats / int((rows.labels != IGNORED).sum())
    if not abs(found - expected) <= NATS_TOLERANCE:
        raise CramError(
            f"the exported model has {found:.4f} nats per token on the held-out rows, and the receipt says "
            f"{expected}: weights, rows and receipt do not belong together. Nothing was exported."
        )


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the bars of `transformers`."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def _mixed_lengths(inputs: "torch.Tensor", pad_id: int) -> "torch.Tensor":
    """Rows spread over the held-out ones, int64 (rows, seq_len), the i-th of n cut after i/n of the length."""
    import torch

    count = min(CHECKED_ROWS, len(inputs))
    rows = inputs[torch.linspace(0, len(inputs) - 1, count).long()].clone()
    for index, row in enumerate(rows):
        row[math.ceil(len(row) * (index + 1) / count) :] = pad_id
    return rows


def _give_name(partial: Path, to: Path) -> None:
    if not to.exists() or (to.is_dir() and not any(to.iterdir())):
        partial.rename(to)
    elif not to.is_dir() or not _same_files(partial, to):
        raise CramError(f"to={to} is there already and holds something else; choose another folder, or remove it")


def _same_files(one: Path, other: Path) -> bool:
    names = sorted(path.name for path in one.iterdir())
    if names != sorted(path.name for path in other.iterdir()):
        return False
    return not any(filecmp.cmpfiles(one, other, names, shallow=False)[1:])
