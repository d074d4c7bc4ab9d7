"""Fine-tune a classifier on the training set of one task, and compute its outputs on other splits.

Source: Cramming, arXiv:2212.14034, its settings `GLUE_sane`; changed: examples of like length share a batch; Muon and
layer-wise learning rates can be chosen.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from cram.glue.fused import fused
from cram.glue.optimizers import make_optimizers
from cram.glue.shortcuts import shortcuts
from cram.glue.tokens import TokenizedSplit, epoch_batches, updates_per_epoch

WARMUP = 0.1  # share of the updates
EVALUATION_EXAMPLES = 64  # in one forward pass


@dataclass(frozen=True)
class Hyperparameters:
    """The one setting of all tasks.

    Attributes:
        learning_rate: the highest of the schedule.
        batch: examples of an update.
        epochs: passes over the training set.
        optimizer: `adamw` or `muon`.
        layer_decay: factor of the learning rate from each layer to the one below.
    """

    learning_rate: float
    batch: int
    epochs: int
    optimizer: str = "adamw"
    layer_decay: float = 1.0

    def updates(self, examples: int) -> int:
        """Number of updates on a training set of so many examples."""
        return self.epochs * updates_per_epoch(examples, self.batch)


# The published settings of the rows that results are compared with: crammed models, and BERT-base beside them.
PROTOCOLS = {"cramming": Hyperparameters(4e-5, 16, 5), "bert": Hyperparameters(2e-5, 32, 5)}


def finetune(
    model: nn.Module,
    train: TokenizedSplit,
    hyperparameters: Hyperparameters,
    seed: int,
    pad_id: int,
    precision: torch.dtype,
    advance: Callable[[int], None],
) -> float:
    """Train a classifier in place: cosine to zero after 10% warm-up, no clipping.

    On a GPU, our kernels compute the layer norms and gated MLPs. On a CPU, `shortcuts` leaves out work.

    Args:
        model: a sequence classifier of `transformers`, on its device.
        seed: of the order of the examples and of dropout.
        precision: dtype of autocast; float32 for none. float16 gets a loss scale.
        advance: called with 1 after each update.

    Returns:
        Mean loss of the last epoch: cross-entropy in nats, or the squared error of a regression.
    """
    from transformers import get_cosine_schedule_with_warmup

    device = next(model.parameters()).device
    updates = hyperparameters.updates(len(train))
    optimizers = make_optimizers(
        model, hyperparameters.optimizer, hyperparameters.learning_rate, hyperparameters.layer_decay
    )
    schedules = [get_cosine_schedule_with_warmup(each, int(WARMUP * updates), updates) for each in optimizers]
    scaler = torch.amp.GradScaler(device.type, enabled=precision == torch.float16)
    torch.manual_seed(seed)
    model.train()
    total = torch.zeros((), device=device)
    # On a CPU our kernels are reference implementations, which would only be slower than torch's own. On a GPU the
    # shortcuts save little beside the launches.
    with fused(model) if device.type == "cuda" else shortcuts(model):
        for epoch in range(hyperparameters.epochs):
            total.zero_()
            for indices in epoch_batches(train.lengths, hyperparameters.batch, seed, epoch):
                loss = _loss(model, train, indices, pad_id, device, precision)
                scaler.scale(loss).backward()
                for optimizer in optimizers:
                    scaler.step(optimizer)
                scaler.update()
                for schedule in schedules:
                    schedule.step()
                model.zero_grad(set_to_none=True)
                total += loss.detach()  # stays on the device: reading it here would wait for the GPU
                advance(1)
    return float(total) / updates_per_epoch(len(train), hyperparameters.batch)


def _loss(
    model: nn.Module, train: TokenizedSplit, indices: Tensor, pad_id: int, device: torch.device, precision: torch.dtype
) -> Tensor:
    assert train.labels is not None
    labels = train.labels[indices].to(device, non_blocking=True)
    with torch.autocast(device.type, precision, enabled=precision != torch.float32):
        logits = model(**train.batch(indices, pad_id, device)).logits
    logits = logits.float()
    if labels.is_floating_point():
        return nn.functional.mse_loss(logits.squeeze(-1), labels)
    return nn.functional.cross_entropy(logits, labels)


def predict(
    model: nn.Module, split: TokenizedSplit, pad_id: int, advance: Callable[[int], None] = lambda examples: None
) -> npt.NDArray[np.float32]:
    """Compute the outputs of a classifier on a split.

    In fp32 without autocast, so that anybody who loads the saved model gets the same outputs.

    Args:
        advance: called with the number of examples after each batch.

    Returns:
        (examples, outputs), in the order of the split.
    """
    device = next(model.parameters()).device
    model.eval()
    return compute_outputs(lambda inputs: model(**inputs).logits, split, pad_id, device, advance)


@torch.no_grad()
def compute_outputs(
    compute: Callable[[dict[str, Tensor]], Tensor],
    split: TokenizedSplit,
    pad_id: int,
    device: torch.device,
    advance: Callable[[int], None],
) -> npt.NDArray[np.float32]:
    """Compute one vector for each example of a split, in batches of like length and without gradients.

    Args:
        compute: from the inputs of a model on `device`, as of `TokenizedSplit.batch`, to (B, outputs).
        advance: called with the number of examples after each batch.

    Returns:
        (examples, outputs), in the order of the split.
    """
    order = split.lengths.argsort(descending=True, stable=True)
    batches = []
    for indices in order.split(EVALUATION_EXAMPLES):
        batches.append(compute(split.batch(indices, pad_id, device)).float().cpu())
        advance(len(indices))
    outputs = torch.empty(len(order), batches[0].shape[-1])
    outputs[order] = torch.cat(batches)
    return outputs.numpy()
