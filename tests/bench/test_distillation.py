"""The distillation experiment, at a size of seconds."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models

from bench.distillation import SoftEncoder, main
from cram.data.shards.shards import ShardWriter
from cram.data.wordpiece import SPECIAL_TOKENS
from cram.errors import CramError


def test_figures_of_each_seed_are_written(tmp_path: Path) -> None:
    words = {word: number for number, word in enumerate([*SPECIAL_TOKENS, *"abcdefgh"])}
    tokens = np.random.default_rng(0).integers(5, len(words), (600, 12), dtype=np.int32)
    writer = ShardWriter(tmp_path / "shards", 12, 600 * 12, 0)
    writer.write(tokens, np.zeros_like(tokens))
    writer.flush()
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    writer.finish(tokenizer.to_str().encode(), [], {"counts": {"documents": 1}})
    small = ["rows=4", "length=8", "width=8", "seconds=0.2", "updates=5", "seeds=1"]
    main([f"data={tmp_path / 'shards'}", f"out={tmp_path}", *small])
    (figures,) = json.loads((tmp_path / "distillation.json").read_text())["seeds"]
    assert figures["soft_rows_updates"] == figures["as_many_real_rows_updates"] == 5
    assert all(0 < figures[f"{name}_nats"] < 10 for name in ("soft_rows", "as_many_real_rows", "new_real_rows"))


def test_one_hot_rows_give_the_loss_of_tokens() -> None:
    torch.manual_seed(0)
    model, tokens = SoftEncoder(20, 8, 6).double(), torch.randint(0, 20, (3, 6))
    hidden = torch.zeros(3, 6, dtype=torch.bool)
    hidden[0, 2] = hidden[2, 5] = True
    text = torch.nn.functional.one_hot(tokens, 20).double()
    read = torch.where(hidden[..., None], model.mask, model.embedding[tokens]) + model.positions
    logits = model.blocks(read)[hidden] @ model.embedding.T
    expected = torch.nn.functional.cross_entropy(logits, tokens[hidden])
    torch.testing.assert_close(model(text, hidden), expected)


def test_data_is_asked_for() -> None:
    with pytest.raises(CramError, match=r"^data= is missing"):
        main([])
