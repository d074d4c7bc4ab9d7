"""The loader benchmark: it makes valid shard folders, a pass takes every row, and it runs."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from bench import loader_passes
from bench.loader import main
from bench.loader_passes import ORDERS, LoaderPasses, make_shards
from cram.data.shards.shards import ShardSet
from cram.errors import CramError


@pytest.fixture(autouse=True)
def _threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "set_num_threads", lambda _: None)
    monkeypatch.setattr(loader_passes, "ROWS_PER_SHARD", 500)


def test_made_shards_hold_whole_documents_of_words_of_unequal_frequency(tmp_path: Path) -> None:
    make_shards(tmp_path / "set", 64, 200_000)
    shards = ShardSet.open(tmp_path / "set")
    shards.verify()
    assert len(shards.manifest["shards"]) > 1 and shards.tokens >= 200_000
    counts = shards.token_counts()
    assert counts[2] == counts[3] == shards.documents
    words = np.sort(counts[5:])[::-1]
    assert words[:100].sum() > 0.25 * words.sum()


def test_a_pass_takes_every_row_once_and_hides_the_same_tokens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loader_passes, "MICRO_TOKENS", 1 << 10)
    make_shards(tmp_path / "set", 64, 50_000)
    for order in ORDERS:
        passes = LoaderPasses(tmp_path / "set", order)
        rows = np.concatenate([rows.index for rows in passes._read()])
        assert len(set(rows.tolist())) == len(rows) == passes.tokens // 64
        assert passes.tokens > 49_000
        for contender in passes.contenders().values():
            contender()


def test_writes_speeds_of_made_and_of_given_shards(tmp_path: Path) -> None:
    main(["data=make", "tokens=3e5", "rounds=2", f"out={tmp_path}"])
    results = json.loads((tmp_path / "loader-cpu.json").read_text())
    assert set(results["cases"]) == {f"greedy {n} {order}" for n in (128, 512) for order in ORDERS}
    for case in results["cases"].values():
        assert set(case["tokens_per_second"]) >= {"read", "mask", "read_and_mask"}
        assert case["tokens"] >= 2.6e5
    make_shards(tmp_path / "mine", 64, 50_000)
    main([f"data={tmp_path / 'mine'}", "rounds=2", f"out={tmp_path}"])
    assert set(json.loads((tmp_path / "loader-cpu.json").read_text())["cases"]) == {f"mine {order}" for order in ORDERS}


@pytest.mark.parametrize(("words", "message"), [(["size=3"], "unknown key 'size'"), ([], "data= is missing")])
def test_wrong_words_are_refused(words: list[str], message: str) -> None:
    with pytest.raises(CramError, match=message):
        main(words)
