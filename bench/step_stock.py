"""cram's forward and backward pass and fused AdamW, beside stock `transformers` models in a plain loop.

All contenders have the same tokens, masks, shapes and dtype (bf16 by autocast, fp32 weights), no dropout, SDPA, and one
document a row. Those of a case live in one process and take turns. `modernbert` computes the same function as ours with
logits at every position, `modernbert_sparse` does so with its `sparse_prediction`, and `bert` has an MLP of equal size.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch

from bench.timing import percentiles, time_alternating
from cram.config.model import ModelConfig
from cram.machine.device import peak_flops
from cram.model.count import flops_per_position
from cram.model.encoder import Encoder

IGNORED = -100
SPECIAL = {"pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3, "cls_token_id": 2, "sep_token_id": 3}


@dataclass(frozen=True)
class StepSize:
    """One shape of model and micro-batch."""

    layers: int
    width: int
    heads: int
    mlp_width: int
    vocab_size: int
    rows: int
    seq_len: int = 128


# With these rows, a step of the largest size takes a few seconds on two CPU cores. A GPU gets GPU_ROWS.
SIZES = {
    "4x256": StepSize(4, 256, 4, 512, 8192, 32),
    "4x256v32k": StepSize(4, 256, 4, 512, 32768, 32),
    "12x768": StepSize(12, 768, 12, 1536, 32768, 16),
}


GPU_ROWS = 256


def size_for(label: str, device: torch.device) -> StepSize:
    """Return a size of SIZES with as many rows as suit the device."""
    return replace(SIZES[label], rows=GPU_ROWS) if device.type == "cuda" else SIZES[label]


@dataclass(frozen=True)
class StepBatch:
    """Tokens int64 (rows, seq_len); labels the same, -100 where nothing is predicted; slots, their flat places."""

    tokens: torch.Tensor
    labels: torch.Tensor
    slots: torch.Tensor


def make_batch(size: StepSize, rate: float, device: torch.device) -> StepBatch:
    """Make random tokens with the same number of predicted positions in each row."""
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(5, size.vocab_size, (size.rows, size.seq_len), generator=generator)
    count = round(rate * size.seq_len)
    chosen = torch.rand(size.rows, size.seq_len, generator=generator).argsort(1)[:, :count].sort(1).values
    slots = (chosen + torch.arange(size.rows)[:, None] * size.seq_len).flatten()
    labels = torch.full_like(tokens, IGNORED)
    labels.view(-1)[slots] = tokens.view(-1)[slots]
    tokens.view(-1)[slots] = 4
    return StepBatch(tokens.to(device), labels.to(device), slots.to(device))


def build_ours(
    size: StepSize, batch: StepBatch, device: torch.device
) -> tuple[torch.nn.Module, Callable[[], torch.Tensor]]:
    """Build our encoder, and a function of its loss of the batch."""
    config = ModelConfig(layers=size.layers, width=size.width, heads=size.heads, mlp_width=size.mlp_width)
    model = Encoder(config, size.vocab_size)
    model.initialise(seed=0)
    model.to(device)
    documents = torch.zeros_like(batch.tokens)
    wanted = batch.labels.flatten()[batch.slots]

    def loss() -> torch.Tensor:
        return model.head.loss(model(batch.tokens, documents, batch.slots), wanted) / len(wanted)

    return model, loss


def build_modernbert(size: StepSize, batch: StepBatch, sparse: bool) -> tuple[Any, Callable[[], torch.Tensor]]:
    """Build the stock class of the same function, and a function of its loss of the batch."""
    from transformers import ModernBertConfig, ModernBertForMaskedLM

    rope = {"rope_type": "default", "rope_theta": ModelConfig().rope_theta}
    config = ModernBertConfig(
        vocab_size=size.vocab_size,
        hidden_size=size.width,
        intermediate_size=size.mlp_width,
        num_hidden_layers=size.layers,
        num_attention_heads=size.heads,
        max_position_embeddings=size.seq_len,
        layer_types=["full_attention"] * size.layers,
        decoder_bias=False,
        sparse_prediction=sparse,
        rope_parameters={"full_attention": rope, "sliding_attention": rope},
        attn_implementation="sdpa",
        **SPECIAL,
    )
    model = ModernBertForMaskedLM(config).to(batch.tokens.device)
    return model, lambda: model(input_ids=batch.tokens, labels=batch.labels).loss


def build_bert(size: StepSize, batch: StepBatch) -> tuple[Any, Callable[[], torch.Tensor]]:
    """Build stock BERT without dropout, its MLP as large as the gated one, and a function of its loss of the batch."""
    from transformers import BertConfig, BertForMaskedLM

    config = BertConfig(
        vocab_size=size.vocab_size,
        hidden_size=size.width,
        intermediate_size=size.mlp_width * 3 // 2,
        num_hidden_layers=size.layers,
        num_attention_heads=size.heads,
        max_position_embeddings=size.seq_len,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        pad_token_id=0,
        attn_implementation="sdpa",
    )
    model = BertForMaskedLM(config).to(batch.tokens.device)
    return model, lambda: model(input_ids=batch.tokens, labels=batch.labels).loss


def training_step(
    model: torch.nn.Module, loss: Callable[[], torch.Tensor], dtype: str, device: torch.device
) -> Callable[[], None]:
    """Return a function that does forward, backward and update, the same plain loop for every contender."""
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, betas=(0.9, 0.98), weight_decay=0.01, fused=True)

    def step() -> None:
        with torch.autocast(device.type, torch.bfloat16, enabled=dtype == "bf16"):
            value = loss()
        value.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def run_case(size: StepSize, dtype: str, rate: float, rounds: int, device: torch.device) -> dict[str, Any]:
    """Time all contenders of one case, and return tokens a second and ratios of their medians."""
    batch = make_batch(size, rate, device)
    pairs = {
        "cram": build_ours(size, batch, device),
        "modernbert": build_modernbert(size, batch, sparse=False),
        "modernbert_sparse": build_modernbert(size, batch, sparse=True),
        "bert": build_bert(size, batch),
    }
    steps = {name: training_step(*pair, dtype, device) for name, pair in pairs.items()}
    seconds = time_alternating(steps, rounds, device)
    positions = batch.tokens.numel()
    speeds = {name: percentiles([positions / value for value in values]) for name, values in seconds.items()}
    medians = {name: figures["median"] for name, figures in speeds.items()}
    return {
        "parameters": {name: sum(p.numel() for p in pair[0].parameters()) for name, pair in pairs.items()},
        "tokens_per_second": speeds,
        "over_dense": medians["cram"] / max(medians["modernbert"], medians["bert"]),
        "over_sparse": medians["cram"] / medians["modernbert_sparse"],
        "mfu": compute_mfu(size, rate, medians["cram"], device),
    }


def compute_mfu(size: StepSize, rate: float, tokens_per_second: float, device: torch.device) -> float | None:
    """Return the share of the device's half-precision peak that our step uses, or None where the peak is unknown."""
    peak = peak_flops(device)
    if peak is None:
        return None
    config = ModelConfig(layers=size.layers, width=size.width, heads=size.heads, mlp_width=size.mlp_width)
    return flops_per_position(config, size.vocab_size, size.seq_len, rate) * tokens_per_second / peak


def format_line(name: str, case: dict[str, Any]) -> str:
    """Return one case as a line: median (20th-80th percentile) thousand tokens a second, and the two ratios."""
    if "error" in case:
        return f"{name}: {case['error'][:120]}"
    speeds = "  ".join(
        f"{contender} {s['median'] / 1e3:.2f}k ({s['p20'] / 1e3:.2f}-{s['p80'] / 1e3:.2f})"
        for contender, s in case["tokens_per_second"].items()
    )
    return f"{name}: {speeds}  | {case['over_dense']:.2f}x dense, {case['over_sparse']:.2f}x sparse"
