"""Fine-tune a classifier on the rows of one task, and what it says of others.

Source: Cramming, arXiv:2212.14034, its settings `GLUE_sane`; changed: rows of like length share a batch.
"""

import contextlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from cram.glue.fused import fused
from cram.glue.tokens import Encoded, batches, updates_per_epoch

BETAS, EPS, WEIGHT_DECAY = (0.9, 0.98), 1e-6, 0.0
WARMUP = 0.1  # share of the updates
EVALUATION_ROWS = 64  # of one forward pass


@dataclass(frozen=True)
class Setting:
    """The one setting of all tasks: peak learning rate, rows of an update, passes over the training rows."""

    learning_rate: float
    batch: int
    epochs: int

    def updates(self, rows: int) -> int:
        """Updates of a fine-tuning on so many rows."""
        return self.epochs * updates_per_epoch(rows, self.batch)


# The published settings of the rows that results are compared with: crammed models, and BERT-base beside them.
PROTOCOLS = {"cramming": Setting(4e-5, 16, 5), "bert": Setting(2e-5, 32, 5)}


def finetune(
    model: nn.Module,
    train: Encoded,
    setting: Setting,
    seed: int,
    pad_id: int,
    precision: torch.dtype,
    advance: Callable[[int], None],
) -> float:
    """Train a classifier in place, to the last epoch's end: AdamW, cosine to zero after 10% warm-up, no clipping.

    On a GPU our kernels compute what they can of it; a CPU has none.

    Args:
        model: a sequence classifier of `transformers`, on its device.
        seed: of the order of the rows and of dropout.
        precision: dtype of autocast; float32 for none. float16 gets a loss scale.
        advance: told of each update.

    Returns:
        Mean loss of the last epoch: cross-entropy in nats, or the squared error of a regression.
    """
    from transformers import get_cosine_schedule_with_warmup

    device = next(model.parameters()).device
    updates = setting.updates(len(train))
    optimizer = torch.optim.AdamW(model.parameters(), setting.learning_rate, BETAS, EPS, WEIGHT_DECAY, fused=True)
    schedule = get_cosine_schedule_with_warmup(optimizer, int(WARMUP * updates), updates)
    scaler = torch.amp.GradScaler(device.type, enabled=precision == torch.float16)
    torch.manual_seed(seed)
    model.train()
    total = torch.zeros((), device=device)
    with fused(model) if device.type == "cuda" else contextlib.nullcontext():
        for epoch in range(setting.epochs):
            total.zero_()
            for rows in batches(train.lengths, setting.batch, seed, epoch):
                loss = _loss(model, train, rows, pad_id, device, precision)
                scaler.scale(loss).backward()
                scaler.step(optimizer)
                scaler.update()
                schedule.step()
                optimizer.zero_grad(set_to_none=True)
                total += loss.detach()
                advance(1)
    return float(total) / updates_per_epoch(len(train), setting.batch)


def _loss(
    model: nn.Module, train: Encoded, rows: Tensor, pad_id: int, device: torch.device, precision: torch.dtype
) -> Tensor:
    assert train.labels is not None
    labels = train.labels[rows].to(device, non_blocking=True)
    with torch.autocast(device.type, precision, enabled=precision != torch.float32):
        logits = model(**train.batch(rows, pad_id, device)).logits
    logits = logits.float()
    if labels.is_floating_point():
        return nn.functional.mse_loss(logits.squeeze(-1), labels)
    return nn.functional.cross_entropy(logits, labels)


@torch.no_grad()
def predict(
    model: nn.Module, encoded: Encoded, pad_id: int, advance: Callable[[int], None] = lambda rows: None
) -> np.ndarray:
    """What a classifier says of rows, float32 (rows, outputs), in their order.

    In fp32 without autocast, so that whoever loads the saved model repeats it.

    Args:
        advance: told of each batch's rows.
    """
    device = next(model.parameters()).device
    model.eval()
    order = encoded.lengths.argsort(descending=True, stable=True)
    said = []
    for rows in order.split(EVALUATION_ROWS):
        said.append(model(**encoded.batch(rows, pad_id, device)).logits.float().cpu())
        advance(len(rows))
    outputs = torch.empty(len(order), said[0].shape[-1])
    outputs[order] = torch.cat(said)
    return outputs.numpy()
