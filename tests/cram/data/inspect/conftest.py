import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from cram.config.recipe import read_config
from cram.data.preparation import row_writer
from cram.data.preparation.prepare import prepare_shards
from cram.data.preparation.vocabulary import TokenizerSource
from cram.data.shards.shards import ShardSet
from cram.terminal.progress import Progress
from tests.cram.data.inspect.small_folder import plain, prepared


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> ShardSet:
    return prepared(tmp_path_factory.mktemp("show") / "corpus")


@pytest.fixture
def shards(made: ShardSet, tmp_path: Path) -> ShardSet:
    """A copy of the folder that a test may change."""
    return ShardSet.open(shutil.copytree(made.folder, tmp_path / "set", ignore=shutil.ignore_patterns("plots")))


@pytest.fixture(autouse=True)
def no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    plain(monkeypatch)


@pytest.fixture(scope="module", params=["greedy", "best_fit"])
def intact(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, tiny_run: Callable[[Path], list[str]]
) -> Path:
    """An intact shard folder of three shards."""
    words = [*tiny_run(tmp_path_factory.mktemp("verify")), f"data.packing={request.param}", "data.tokens=12000"]
    config = read_config([*words, "data.filters.compressibility=null"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(row_writer, "TOKENS_PER_SHARD", 120 * 32)
        patch.setattr("cram.data.preparation.chunks.CHUNK_DOCUMENTS", 50)
        patch.setattr("cram.data.shards.pack.WINDOW_TOKENS", 1000)
        shards = prepare_shards(config.data, TokenizerSource(wordpiece=config.wordpiece), Progress(terminal=False))
    assert len(shards.manifest["shards"]) > 2
    return shards.folder


@pytest.fixture
def folder(intact: Path, tmp_path: Path) -> Path:
    """A copy of the intact folder that a test may damage."""
    return shutil.copytree(intact, tmp_path / "set")
