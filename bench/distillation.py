"""`python -m bench.distillation`: can a few learned rows stand for a corpus, and at what price?

Rows of soft text, a distribution over the vocabulary at each position, are learned so that their gradients match those
of real rows. A new model is then trained on them, beside one on as many real rows, and one on new real rows for as many
seconds as the learning took, which is what distillation competes with.

Source: arXiv:2006.05929 (gradient matching), changed: text instead of images, so rows are distributions; the models are
small encoders of plain torch, because the fused kernels have no second derivative.
"""

import itertools
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.options import OUT_HELP, results_folder
from cram.command import run_door
from cram.config.recipe import read_words
from cram.config.schema import key
from cram.data.shards.shards import ShardSet
from cram.data.special_tokens import SpecialTokens
from cram.data.tokenizer import load_tokenizer
from cram.errors import CramError
from cram.files.atomic import write_json
from cram.machine.device import device_name, pick_device, set_threads

ABOUT = """Learn a few soft rows whose gradients match those of real rows; train new models on them and on real ones.

    python -m bench.distillation data=shards/SHARDFOLDER seconds=120 seeds=2

It writes bench/results/distillation.json."""

MASKED_SHARE, HELD_OUT_ROWS, BATCH_ROWS, LEARNING_RATE = 0.15, 512, 32, 3e-3


@dataclass
class DistillationConfig:
    """What `bench.distillation` takes."""

    data: str = key("", "shard folder", path=True)
    rows: int = key(32, "soft rows", "rows", least=1, most=10**6)
    length: int = key(32, "tokens of a row", "tokens", least=4, most=10**5)
    width: int = key(64, "width of the models, which have two blocks and two heads", least=2, most=4096)
    seconds: float = key(120.0, "time for learning the soft rows", "seconds", above=0)
    updates: int = key(300, "updates of the models that are trained on few rows", "updates", least=1, most=10**6)
    seeds: int = key(2, "repetitions", "seeds", least=1, most=1000)
    threads: int | None = key(1, "CPU threads (null: all cores)", "threads", least=1, most=1024)
    out: str | None = key(None, OUT_HELP, path=True)


class SoftEncoder(nn.Module):
    """A masked language model that reads distributions over the vocabulary: (rows, length, vocab_size)."""

    def __init__(self, vocab_size: int, width: int, length: int) -> None:
        super().__init__()
        self.embedding = nn.Parameter(0.05 * torch.randn(vocab_size, width))
        self.positions = nn.Parameter(0.05 * torch.randn(length, width))
        self.mask = nn.Parameter(0.05 * torch.randn(width))
        layer = nn.TransformerEncoderLayer(width, 2, 2 * width, 0.0, "gelu", batch_first=True, norm_first=True)
        self.blocks = nn.TransformerEncoder(layer, 2, nn.LayerNorm(width), enable_nested_tensor=False)

    def forward(self, text: Tensor, hidden: Tensor) -> Tensor:
        """Mean nats of the hidden positions, bool (rows, length), against the distributions that stand there."""
        read = torch.where(hidden[..., None], self.mask, text @ self.embedding)
        with nn.attention.sdpa_kernel(nn.attention.SDPBackend.MATH):  # the other one has no second derivative
            states = self.blocks(read + self.positions)[hidden]
        nats = -(text[hidden] * F.log_softmax(states @ self.embedding.T, -1)).sum(-1)
        return nats.mean()


def hide(rows: int, length: int, generator: torch.Generator) -> Tensor:
    """Choose hidden positions, bool (rows, length), at least one."""
    hidden = torch.rand(rows, length, generator=generator) < MASKED_SHARE
    hidden[0, 0] |= not bool(hidden.any())
    return hidden


def fit(model: SoftEncoder, batches: Iterator[Tensor], generator: torch.Generator) -> int:
    """Train a model by AdamW on all batches, and return their number."""
    optimizer, updates = torch.optim.AdamW(model.parameters(), LEARNING_RATE), 0
    for text in batches:
        model(text, hide(len(text), text.shape[1], generator)).backward()
        optimizer.step()
        optimizer.zero_grad()
        updates += 1
    return updates


def until(seconds: float, batch: Callable[[], Tensor]) -> Iterator[Tensor]:
    """Give batches for so many seconds."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        yield batch()


def distil(
    make: Callable[[], SoftEncoder], real: Callable[[], Tensor], config: DistillationConfig, seed: int
) -> Tensor:
    """Learn soft rows for `config.seconds`: distributions (rows, length, vocab_size).

    Each step takes a new model, trains it on the soft rows for up to ten updates, and moves the rows towards a smaller
    angle between their gradient and that of real rows.
    """
    generator = torch.Generator().manual_seed(seed)
    start = real()[: config.rows]
    logits = (8.0 * start + 0.1 * torch.randn(start.shape, generator=generator)).requires_grad_()
    optimizer = torch.optim.Adam([logits], 0.1)
    for text in until(config.seconds, real):
        model, steps = make(), int(torch.randint(0, 10, (), generator=generator))
        fit(model, itertools.repeat(logits.detach().softmax(-1), steps), generator)
        parameters = list(model.parameters())
        wanted = torch.autograd.grad(model(text, hide(*text.shape[:2], generator)), parameters)
        soft = model(logits.softmax(-1), hide(len(logits), config.length, generator))
        given = torch.autograd.grad(soft, parameters, create_graph=True)
        cosines = [F.cosine_similarity(a.flatten(), b.flatten(), 0) for a, b in zip(given, wanted, strict=True)]
        optimizer.zero_grad()
        torch.autograd.backward(-torch.stack(cosines).sum(), inputs=[logits])
        optimizer.step()
    return logits.detach().softmax(-1)


def measure(config: DistillationConfig, shards: ShardSet, seed: int) -> dict[str, float]:
    """Measure held-out nats of models that were trained on soft rows, on as many real rows, and on new real rows."""
    torch.manual_seed(seed)
    special = torch.tensor(SpecialTokens.of(load_tokenizer(shards.tokenizer_path)).ids())
    draws = np.random.default_rng(seed)

    def read(numbers: npt.NDArray[np.int64]) -> Tensor:
        tokens = shards.read(numbers)[0][:, 1 : config.length + 1].astype(np.int64)
        return F.one_hot(torch.from_numpy(tokens), shards.vocab_size).float()

    def make() -> SoftEncoder:
        return SoftEncoder(shards.vocab_size, config.width, config.length)

    def real() -> Tensor:
        return read(draws.integers(HELD_OUT_ROWS, shards.rows, BATCH_ROWS))

    held_out = read(np.arange(HELD_OUT_ROWS))
    counted = hide(HELD_OUT_ROWS, config.length, torch.Generator().manual_seed(9))
    counted &= ~torch.isin(held_out.argmax(-1), special)
    few = read(draws.integers(HELD_OUT_ROWS, shards.rows, config.rows))
    soft = distil(make, real, config, seed)
    batches = {
        "soft_rows": itertools.repeat(soft, config.updates),
        "as_many_real_rows": itertools.repeat(few, config.updates),
        "new_real_rows": until(config.seconds, real),
    }
    figures: dict[str, float] = {}
    for name, source in batches.items():
        model = make()
        figures[f"{name}_updates"] = fit(model, iter(source), torch.Generator().manual_seed(seed))
        with torch.no_grad():
            figures[f"{name}_nats"] = float(model(held_out, counted))
    return figures


def main(words: list[str]) -> None:
    """Measure each seed, print and write the figures.

    Raises:
        CramError: no shard folder is given.
    """
    config = read_words(DistillationConfig, words)
    if not config.data:
        raise CramError("data= is missing. Give a shard folder.")
    set_threads(config.threads)
    shards = ShardSet.open(config.data)
    results: list[dict[str, Any]] = []
    for seed in range(config.seeds):
        results.append(measure(config, shards, seed))
        print(f"seed {seed}: " + ", ".join(f"{name} {value:.3f}" for name, value in results[-1].items()), flush=True)
    settings = {name: value for name, value in asdict(config).items() if name not in ("data", "out")}
    device = device_name(pick_device("cpu"))
    path = results_folder(config.out) / "distillation.json"
    write_json(path, {"device": device, "data": shards.hash, "settings": settings, "seeds": results})
    print(path)


if __name__ == "__main__":
    run_door(main, DistillationConfig, ABOUT)
