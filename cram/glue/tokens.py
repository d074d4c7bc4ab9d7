"""Token ids of a split, computed once and cached by content hash, and the batches of an epoch."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from cram.data.shards.mapped_arrays import map_sealed_arrays, read_if_intact, write_sealed_arrays
from cram.glue.splits import Split

MULTIPLE = 8  # a batch is padded to a multiple of this many tokens
POOL_BATCHES = 64  # batches whose examples are sorted by length together
CHUNK_EXAMPLES = 2_000  # examples tokenized at once


@dataclass(frozen=True)
class TokenizedSplit:
    """The examples of a split as tokens.

    Attributes:
        ids: (all tokens,) int32.
        types: (all tokens,) uint8, the sentence of each token; None for models that do not read it.
        offsets: (examples + 1,) int64, where each example begins in `ids`.
        labels: (examples,) int64 or float32; None for a test set.
        longest: the most tokens that an example may have.
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
        """(examples,) int64 number of tokens."""
        return self.offsets.diff()

    def batch(self, indices: Tensor, pad_id: int, device: torch.device) -> dict[str, Tensor]:
        """The inputs of a model for some examples, padded on the right to the longest and to a multiple of 8.

        Args:
            indices: (B,) int64 numbers of the examples.

        Returns:
            input_ids, attention_mask and, where the model reads it, token_type_ids; each (B, tokens) int64.
        """
        lengths = self.lengths[indices]
        width = min(-(-int(lengths.max()) // MULTIPLE) * MULTIPLE, max(self.longest, int(lengths.max())))
        columns = torch.arange(width)
        is_token = columns < lengths[:, None]
        places = (self.offsets[indices][:, None] + columns).clamp(max=len(self.ids) - 1)
        inputs = {
            "input_ids": self.ids[places].long().masked_fill(~is_token, pad_id),
            "attention_mask": is_token.long(),
        }
        if self.types is not None:
            inputs["token_type_ids"] = self.types[places].long() * is_token
        return {name: tensor.to(device, non_blocking=True) for name, tensor in inputs.items()}


def tokenize_split(split: Split, tokenizer: Any, longest: int, cache: Path) -> TokenizedSplit:
    """Tokenize the examples of a split, or read their tokens from the cache.

    Args:
        tokenizer: of `transformers`, with a fast backend.
        longest: the most tokens of an example; the longer sentence of a pair is cut first.
        cache: folder of cached tokens. A file's name is a hash of examples, tokenizer, length, and whether it holds
            token types.
    """
    typed = "token_type_ids" in tokenizer.model_input_names
    cache_key = f"{split.hash} {tokenizer_hash(tokenizer)} {longest} types={typed}"
    path = cache / f"{hashlib.sha256(cache_key.encode()).hexdigest()[:24]}.safetensors"
    cached = read_if_intact(path, map_sealed_arrays)
    if cached is None:
        write_sealed_arrays(path, _tokenize(split, tokenizer, longest, typed))
        cached = map_sealed_arrays(path)
    tensors = {name: torch.from_numpy(np.array(array)) for name, array in cached[0].items()}
    labels = None if split.labels is None else torch.from_numpy(split.labels)
    if labels is not None and labels.is_floating_point():
        labels = labels.float()
    return TokenizedSplit(tensors["ids"], tensors.get("types"), tensors["offsets"], labels, longest)


def tokenizer_hash(tokenizer: Any) -> str:
    """Sha256 of a tokenizer without its current padding and truncation, which every call sets anew."""
    from tokenizers import Tokenizer

    plain = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    plain.no_padding()
    plain.no_truncation()
    return hashlib.sha256(plain.to_str().encode()).hexdigest()


def _tokenize(split: Split, tokenizer: Any, longest: int, typed: bool) -> dict[str, npt.NDArray[np.generic]]:
    ids: list[npt.NDArray[np.int32]] = []
    types: list[npt.NDArray[np.uint8]] = []
    for begin in range(0, len(split), CHUNK_EXAMPLES):
        sentences = zip(*split.texts[begin : begin + CHUNK_EXAMPLES], strict=True)
        encoding = tokenizer(*map(list, sentences), truncation=True, max_length=longest, return_token_type_ids=typed)
        ids += [np.array(example, np.int32) for example in encoding["input_ids"]]
        if typed:
            types += [np.array(example, np.uint8) for example in encoding["token_type_ids"]]
    arrays: dict[str, npt.NDArray[np.generic]] = {
        "ids": np.concatenate(ids),
        "offsets": np.cumsum([0, *map(len, ids)], dtype=np.int64),
    }
    return arrays | ({"types": np.concatenate(types)} if typed else {})


def epoch_batches(lengths: Tensor, size: int, seed: int, epoch: int) -> Iterator[Tensor]:
    """Yield the examples of each update of an epoch: shuffled, examples of like length together.

    The examples are shuffled, sorted by length within pools of 64 batches, and cut into batches, which are shuffled.
    A last batch that is not full is dropped, unless it is the only one; other examples are dropped in each epoch.

    Args:
        lengths: (examples,) int64 number of tokens.
        size: examples of a batch.

    Yields:
        (size,) int64 numbers of the examples.
    """
    generator = torch.Generator().manual_seed(seed * 1_000 + epoch)
    order = torch.randperm(len(lengths), generator=generator)
    count = updates_per_epoch(len(lengths), size)
    pools = order[: count * size].split(POOL_BATCHES * size)
    batches = [batch for pool in pools for batch in pool[lengths[pool].argsort(stable=True)].split(size)]
    for index in torch.randperm(len(batches), generator=generator).tolist():
        yield batches[index]


def updates_per_epoch(examples: int, size: int) -> int:
    """Number of batches of an epoch."""
    return max(examples // size, 1)
