"""Proves an exported folder with stock `transformers`: it loads, computes our logits, and repeats the held-out loss."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cram.errors import CramError
from cram.hub.stock import StockModel

if TYPE_CHECKING:
    import torch
    from tokenizers import Tokenizer

    from cram.model.transformer import Transformer

CHECKED_ROWS = 16
# Largest difference of two logits in fp32, times the largest logit if that is above 1, because rounding grows with it.
# In float64 a tenth of it: the stock class still rounds its rotary tables, and a decoder's norms, to fp32.
TOLERANCE = 1e-4
# Largest difference of two held-out losses, in nats: the run may have been evaluated on another device.
NATS_TOLERANCE = 1e-3
# Tokens of one forward pass: each has logits of the whole vocabulary.
TOKENS_AT_ONCE = 4096


def check_outputs(folder: Path, model: "Transformer", tokenizer: "Tokenizer", described: StockModel) -> Any:
    """Load the folder with the stock classes and compare logits and ids with ours.

    The logits are those of held-out documents of mixed length, in fp32 and in float64. Of a class that does not score
    text, the last hidden states are compared instead.

    Args:
        folder: the exported folder.
        model: our model; it is in fp32 afterwards.
        tokenizer: the run's tokenizer.
        described: how the stock class names the model.

    Returns:
        The model as the stock class has loaded it, in fp32.

    Raises:
        RuntimeError: if logits differ by more than rounding, or the exported tokenizer gives other ids.
    """
    import torch
    import transformers
    from safetensors.torch import load_file

    from cram.data.special_tokens import SpecialTokens

    task = described.task
    with _quietly():
        loader = getattr(transformers, task.auto_class)
        stock = loader.from_pretrained(folder, dtype=torch.float32, use_safetensors=True, trust_remote_code=False)
        stock_tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    stock.eval()
    tokens = _rows_of_mixed_lengths(load_file(folder / "held_out.safetensors")["inputs"], stock.config.pad_token_id)
    real = tokens != stock.config.pad_token_id
    for dtype, tolerance in ((torch.float64, 0.1 * TOLERANCE), (torch.float32, TOLERANCE)):
        with torch.no_grad():
            read = {"input_ids": tokens, "attention_mask": real.long()}
            if described.scores_text:
                stock_logits = stock.to(dtype)(**read).logits[real]
                logits = model.to(dtype).head(model(tokens, (~real).int())).view(*tokens.shape, -1)[real]
            else:
                stock_logits = stock.to(dtype).base_model(**read).last_hidden_state[real]
                hidden = model.to(dtype).encode(tokens, (~real).int())  # type: ignore[operator]
                logits = hidden.view(*tokens.shape, -1)[real]
        difference = float((logits - stock_logits).abs().max())
        if not difference <= tolerance * max(1.0, float(logits.abs().max())):
            raise RuntimeError(f"the exported model's logits differ from ours by {difference:.2e} in {dtype}")
    text = tokenizer.decode(tokens[0].tolist())
    expected = task.tokenizer(tokenizer, SpecialTokens.of(tokenizer)).encode(text).ids
    if stock_tokenizer(text, truncation=False)["input_ids"] != expected:
        raise RuntimeError("the exported tokenizer gives other ids than the run's")
    return stock.float()


def check_held_out(folder: Path, stock: Any, expected: float) -> None:
    """Repeat the held-out loss with the stock class in fp32, on a GPU if there is one.

    Args:
        folder: the exported folder.
        stock: the model as the stock class has loaded it.
        expected: nats per predicted token in the receipt.

    Raises:
        CramError: if the loss differs by more than 1e-3 nats.
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
        predicted = (labels != IGNORED).to(device)
        losses = torch.nn.functional.cross_entropy(logits[predicted], labels.to(device)[predicted], reduction="none")
        nats += float(losses.double().sum())
    measured = nats / int((rows.labels != IGNORED).sum())
    if not abs(measured - expected) <= NATS_TOLERANCE:
        raise CramError(
            f"the exported model has {measured:.4f} nats per token on the held-out rows, and the receipt says "
            f"{expected}: weights, rows and receipt do not belong together. Nothing was exported."
        )


@contextmanager
def _quietly() -> Iterator[None]:
    """Without progress bars, and without the warning that a classifier has new weights."""
    from transformers.utils import logging

    enabled, verbosity = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if enabled:
            logging.enable_progress_bar()


def _rows_of_mixed_lengths(inputs: "torch.Tensor", pad_id: int) -> "torch.Tensor":
    """Rows spread over the held-out ones, int64 (rows, seq_len); the i-th of n is cut after i/n of its length."""
    import torch

    count = min(CHECKED_ROWS, len(inputs))
    rows = inputs[torch.linspace(0, len(inputs) - 1, count).long()].clone()
    for index, row in enumerate(rows):
        row[math.ceil(len(row) * (index + 1) / count) :] = pad_id
    return rows
