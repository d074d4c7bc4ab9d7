"""Token ids of a task's rows, made once and kept by content hash, and the batches that are cut from them."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cram.data.shards.mapped_arrays import map_sealed_arrays, read_kept, write_sealed_arrays
from cram.glue.data import Rows

MULTIPLE = 8  # a batch is padded to a multiple of so many tokens
POOL = 64  # batches whose rows are sorted by length together
PIECE = 2_000  # rows tokenized at once


@dataclass(frozen=True)
class Encoded:
    """Rows as tokens.

    ids: int32 (all tokens,). types: uint8 of the same shape, which sentence a token is of, for models that ask for it.
    offsets: int64 (rows + 1,). labels: int64 or float32 (rows,), None of a test set. longest: tokens a row may have.
    """

    ids: Tensor
    types: Tensor | None
    offsets: Tensor
    labels: Tensor | None
    longest: int

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> Tensor:
        """int64 (rows,) tokens of each row."""
        return self.offsets.diff()

    def batch(self, rows: Tensor, pad_id: int, device: torch.device) -> dict[str, Tensor]:
        """What a model takes for some rows, padded on the right to the longest of them and a multiple of 8.

        Args:
            rows: int64 (B,).

        Returns:
            input_ids, attention_mask and, where the model asks for it, token_type_ids, all int64 (B, tokens).
        """
        lengths = self.lengths[rows]
        width = min(-(-int(lengths.max()) // MULTIPLE) * MULTIPLE, max(self.longest, int(lengths.max())))
        columns = torch.arange(width)
        real = columns < lengths[:, None]
        where = (self.offsets[rows][:, None] + columns).clamp(max=len(self.ids) - 1)
        made = {"input_ids": self.ids[where].long().masked_fill(~real, pad_id), "attention_mask": real.long()}
        if self.types is not None:
            made["token_type_ids"] = self.types[where].long() * real
        return {name: tensor.to(device, non_blocking=True) for name, tensor in made.items()}


def encode(rows: Rows, tokenizer: Any, longest: int, cache: Path) -> Encoded:
    """Tokens of rows, at most `longest` a row (the longer sentence of a pair is cut first).

    Args:
        tokenizer: of `transformers`, with a fast backend.
        cache: folder that keeps what was tokenized, under a hash of rows, tokenizer, length and whether it gives types.
    """
    typed = "token_type_ids" in tokenizer.model_input_names
    heading = f"{rows.hash} {tokenizer_hash(tokenizer)} {longest} types={typed}"
    path = cache / f"{hashlib.sha256(heading.encode()).hexdigest()[:24]}.safetensors"
    kept = read_kept(path, map_sealed_arrays)
    if kept is None:
        write_sealed_arrays(path, _tokenize(rows, tokenizer, longest, typed))
        kept = map_sealed_arrays(path)
    found = {name: torch.from_numpy(np.array(array)) for name, array in kept[0].items()}
    labels = None if rows.labels is None else torch.from_numpy(rows.labels)
    if labels is not None and labels.is_floating_point():
        labels = labels.float()
    return Encoded(found["ids"], found.get("types"), found["offsets"], labels, longest)


def tokenizer_hash(tokenizer: Any) -> str:
    """sha256 of a tokenizer, whatever it was last asked to cut or pad."""
    from tokenizers import Tokenizer

    plain = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    plain.no_padding()
    plain.no_truncation()
    return hashlib.sha256(plain.to_str().encode()).hexdigest()


def _tokenize(rows: Rows, tokenizer: Any, longest: int, typed: bool) -> dict[str, np.ndarray]:
    ids: list[np.ndarray] = []
    types: list[np.ndarray] = []
    for begin in range(0, len(rows), PIECE):
        sentences = zip(*rows.texts[begin : begin + PIECE], strict=True)
        made = tokenizer(*map(list, sentences), truncation=True, max_length=longest, return_token_type_ids=typed)
        ids += [np.array(row, np.int32) for row in made["input_ids"]]
        if typed:
            types += [np.array(row, np.uint8) for row in made["token_type_ids"]]
    arrays = {"ids": np.concatenate(ids), "offsets": np.cumsum([0, *map(len, ids)], dtype=np.int64)}
    return arrays | ({"types": np.concatenate(types)} if typed else {})


def batches(lengths: Tensor, size: int, seed: int, epoch: int) -> Iterator[Tensor]:
    """The rows of each update of an epoch, int64 (size,): shuffled, rows of like length together.

    Rows are shuffled, sorted by length within pools of 64 batches, cut, and the batches shuffled. What is left of the
    epoch's last batch is dropped, other rows each epoch, unless it is all there is.
    """
    generator = torch.Generator().manual_seed(seed * 1_000 + epoch)
    order = torch.randperm(len(lengths), generator=generator)
    count = updates_per_epoch(len(lengths), size)
    pools = order[: count * size].split(POOL * size)
    cut = [batch for pool in pools for batch in pool[lengths[pool].argsort(stable=True)].split(size)]
    for index in torch.randperm(len(cut), generator=generator).tolist():
        yield cut[index]


def updates_per_epoch(rows: int, size: int) -> int:
    """Batches of an epoch."""
    return max(rows // size, 1)
