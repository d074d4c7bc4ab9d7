import json
import re
from collections.abc import Iterator
from dataclasses import replace
from itertools import count
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cram.config.data import DataConfig, WordPieceConfig
from cram.data.inspect.show import print_summary
from cram.data.preparation import estimate as module
from cram.data.preparation.estimate import (
    Estimate,
    check_disk,
    estimate_preparation,
    extrapolate,
    format_bytes,
    format_number,
    format_time,
)
from cram.data.preparation.speed_sample import Speeds, TextSample
from cram.data.preparation.vocabulary import TokenizerSource
from cram.data.text.document import Document
from cram.data.text.source import Source, SourcePart, StatedSize
from cram.data.text.sources import open_source
from cram.errors import CramError
from tests.cram.data.preparation.small_corpus import WORDPIECE, make, texts, write

SAMPLE = TextSample([], 4, 1e9, 0.02, 2000.0, 5e-9)
SPEEDS = Speeds(2_000_000, 4.5, 60e-9, 0.5, 20e-9, 0.4)
TRAINED = TokenizerSource()


def estimated(data: DataConfig | None = None, sample: TextSample = SAMPLE, processes: int = 1) -> Estimate:
    return extrapolate(sample, SPEEDS, data or DataConfig(), TRAINED, processes)


def test_the_figures_follow_from_the_sample() -> None:
    found = estimated()
    assert found.is_whole and found.text_bytes == 1e9 and found.documents == 5e5
    assert found.tokens == pytest.approx(1e9 / 4.5 * 0.97)
    assert found.seconds["scan"] == pytest.approx(65.0)
    assert found.disk_bytes > 3 * found.tokens and found.download_bytes == 0.0
    assert found.seconds["pack"] > 1e9 * 25e-9, "reading, and words that are known"
    assert found.seconds["tokenizer"] > 0.5


def test_a_token_limit_needs_its_share_of_the_text() -> None:
    few, all_text = estimated(DataConfig(tokens=10_000_000)), estimated()
    assert few.tokens == 10_000_000
    assert few.text_bytes == pytest.approx(10_000_000 * 4.5 / 0.97 * 1.1)
    assert few.seconds["scan"] == pytest.approx(all_text.seconds["scan"] * few.text_bytes / 1e9)
    assert estimated(DataConfig(tokens=10**12)).tokens == all_text.tokens, "the text does not last for the limit"


def test_weights_limit_the_tokens_to_what_the_scarcest_source_allows(tmp_path: Path) -> None:
    for name, documents in (("a", texts(400)), ("b", texts(100, seed=8))):
        write(tmp_path / name, documents)
    data = write(tmp_path / "all", texts(20))
    names = f"[{{path: {tmp_path}/a/*.jsonl, weight: 0.5}}, {{path: {tmp_path}/b/*.jsonl, weight: 0.5}}]"
    chosen = TokenizerSource(wordpiece=WORDPIECE)
    listed, data = open_source(names), replace(data, source=names)
    found = estimate_preparation(listed, data, chosen, 1, 0)
    assert found and found.documents == pytest.approx(500)
    size = sum(map(len, texts(400))) + sum(map(len, texts(100, seed=8)))
    assert found.text_bytes == pytest.approx(size), "all of it is scanned"
    made = make(data)
    assert found.tokens == pytest.approx(made.tokens, rel=0.15)


def test_a_cluster_has_other_cores_than_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "cores", lambda: 2)
    here, there = estimated(None, processes=8), estimated(DataConfig(engine="ray"), processes=8)
    assert there.seconds["scan"] < 0.4 * here.seconds["scan"]


def test_without_sizes_a_token_limit_still_tells_all() -> None:
    unknown = replace(SAMPLE, text_bytes=None)
    limited, unlimited = estimated(DataConfig(tokens=12 * 10**9), unknown), estimated(None, unknown)
    assert limited.is_whole and limited.tokens == 12e9
    assert not unlimited.is_whole and unlimited.text_bytes == 1e9
    assert "for each GB, as the size of the source is unknown" in unlimited.describe(10**12)[1]
    assert unlimited.describe(10**12)[0].startswith("each GB of text has about 500,000 documents")


@given(st.integers(1, 512), st.floats(1e6, 1e13), st.sampled_from([None, 10**6, 10**11]))
def test_more_processes_never_take_longer(processes: int, size: float, tokens: int | None) -> None:
    sample, data = replace(SAMPLE, text_bytes=size), DataConfig(tokens=tokens)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "START_SECONDS", 0.0)
        patch.setattr(module, "cores", lambda: 1024)
        one, several, more = (estimated(data, sample, many) for many in (1, processes, processes + 1))
    for stage in one.seconds:
        assert one.seconds[stage] >= several.seconds[stage] * 0.999 >= more.seconds[stage] * 0.998
    assert several.seconds["scan"] >= one.text_bytes * 5e-9 * 0.999, "one process reads"
    assert all(re.fullmatch(r"[\x20-\x7e]+", line) for line in several.describe(10**10))


def test_a_tokenizer_that_is_given_is_not_trained() -> None:
    found = extrapolate(SAMPLE, SPEEDS, DataConfig(), TokenizerSource("tokenizer.json"), 2)
    assert found.seconds["tokenizer"] == 0 and found.tokens == pytest.approx(1e9 / 4.5)


def test_disks_that_are_too_small_are_refused_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = replace(estimated(), disk_bytes=1e9, text_spread=0.1)
    free = SimpleNamespace(free=0)
    monkeypatch.setattr(module.shutil, "disk_usage", lambda path: free if path == tmp_path else None)
    free.free = int(2e9)
    assert check_disk(found, tmp_path / "not" / "there") == int(2e9) and not capsys.readouterr().out
    free.free = int(1.05e9)
    check_disk(found, tmp_path)
    assert "the shards may not fit: they need about 1.0 GB, 1.1 GB are free" in capsys.readouterr().out
    free.free = int(0.8e9)
    with pytest.raises(CramError) as caught:
        check_disk(found, tmp_path / "shards")
    assert str(caught.value).startswith(f"data.dir={tmp_path}/shards: the shards need about 1.0 GB, 800 MB are free\n")
    assert "data.tokens" in str(caught.value)
    check_disk(replace(found, is_whole=False), tmp_path)


class _Part(SourcePart):
    def __init__(self, documents: list[str], size: int, is_remote: bool = False) -> None:
        super().__init__("part", size)
        self.is_remote = is_remote
        self._documents = documents

    def read(self) -> Iterator[tuple[Document, int]]:
        for number, text in enumerate(self._documents, start=1):
            yield Document(text, f"part:{number}"), self.size * number // len(self._documents)


class _Source(Source):
    def __init__(self, parts: list[SourcePart]) -> None:
        super().__init__()
        self._parts = parts

    @property
    def parts(self) -> list[SourcePart]:
        return self._parts

    def fingerprint(self) -> str:
        return ""


class _StatedSource(_Source):
    @property
    def stated_size(self) -> StatedSize:
        return StatedSize(10**9, 3e11)


def test_remote_parts_are_downloaded_twice() -> None:
    documents = texts(200)
    size = sum(map(len, documents)) // 4
    chosen, data = TokenizerSource(wordpiece=WORDPIECE), DataConfig()
    found = estimate_preparation(_Source([_Part(documents, size, True)] * 2), data, chosen, 1, 0)
    assert found and found.download_bytes == pytest.approx(4 * size, rel=0.05)
    assert found.describe(10**9)[2].endswith("of download, as the text is read twice over the network")
    unknown = estimate_preparation(_Source([_Part(documents, 0, True)]), data, chosen, 1, 0)
    assert unknown and unknown.download_bytes is None and not unknown.is_whole
    assert "size of the download is unknown" in unknown.describe(10**9)[2]
    parts: list[SourcePart] = [_Part(documents, 0, True)]
    stated = estimate_preparation(_StatedSource(parts), data, chosen, 1, 0)
    assert stated and stated.is_whole and stated.documents == pytest.approx(1e9)
    assert stated.download_bytes == pytest.approx(6e11)
    few = estimate_preparation(_StatedSource(parts), replace(data, tokens=10**6), chosen, 1, 0)
    assert few and few.download_bytes == pytest.approx(6e11 * few.text_bytes / stated.text_bytes)
    local = estimate_preparation(_Source([_Part(documents, 0)]), data, chosen, 1, 0)
    assert local and local.download_bytes == 0


def test_too_little_text_is_not_measured(tmp_path: Path) -> None:
    data = write(tmp_path, texts(100))
    chosen = TokenizerSource(wordpiece=WordPieceConfig(vocab_size=128))
    assert estimate_preparation(open_source(data.source), data, chosen, 1) is None
    assert estimate_preparation(_Source([_Part(["", " "], 5)]), data, chosen, 1, 0) is None
    assert estimate_preparation(_Source([_Part([], 0)]), data, chosen, 1, 0) is None


def test_the_clock_is_the_only_thing_that_takes_time(tmp_path: Path) -> None:
    data = write(tmp_path, texts(400))
    ticks = count()
    found = estimate_preparation(
        open_source(data.source), data, TokenizerSource(wordpiece=WORDPIECE), 1, 0, lambda: float(next(ticks))
    )
    assert found and found.documents == pytest.approx(400)
    size = sum(len(text) for text in texts(400))
    assert found.text_bytes == pytest.approx(size) and found.sampled_parts == 3
    assert found.seconds["scan"] == pytest.approx(1 * found.text_bytes / found.sampled_bytes + 4, rel=0.3)


def test_a_preparation_tells_it_before_and_keeps_it_to_compare(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(module.estimate_preparation, "__defaults__", (0, *module.estimate_preparation.__defaults__[1:]))
    shards = make(write(tmp_path, texts()))
    out = capsys.readouterr().out
    assert re.search(r"^estimate: 0 MB of text has about 300 documents and [\d,]+ tokens", out, re.MULTILINE)
    assert re.search(r"^estimate: \d+ s to \d+ s with 1 process\(es\)", out, re.MULTILINE)
    timing = json.loads((shards.folder / "timing.json").read_text())
    assert set(timing["estimate"]["seconds"]) == set(timing["wall_seconds"])
    assert timing["estimate"]["tokens"] == pytest.approx(shards.tokens, rel=0.2)
    print_summary(shards, short=True)
    assert re.search(
        r"^estimated before: \d+ s and [\d,]+ tokens; the last process took \d+ s$", capsys.readouterr().out, re.M
    )


@pytest.mark.parametrize(
    ("seconds", "said"), [(0.2, "0 s"), (99, "99 s"), (100, "2 min"), (5990, "100 min"), (36000, "10.0 h")]
)
def test_times(seconds: float, said: str) -> None:
    assert format_time(seconds) == said


def test_numbers() -> None:
    assert [format_bytes(size) for size in (1.2e6, 999.6e6, 3.14e12)] == ["1 MB", "1.0 GB", "3,140.0 GB"]
    numbers = [format_number(size) for size in (0, 734, 13_456, 2.04e6, 12e9)]
    assert numbers == ["0", "730", "13,000", "2.0 million", "12.00 billion"]
