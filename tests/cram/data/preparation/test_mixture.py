import json
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest

from cram.config.data import DataConfig
from cram.data.inspect.show import print_summary
from cram.data.preparation import chunks, first_pass, mixture, row_writer
from cram.data.text import reading_plan
from cram.errors import CramError
from tests.cram.data.preparation.small_corpus import NO_FILTERS, hashes, make, texts

some_texts = cache(texts)


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> DataConfig:
    """Three sources of 600, 200 and 120 documents."""
    monkeypatch.setattr(reading_plan, "FIRST_LIMIT", 20_000)
    monkeypatch.setattr(row_writer, "TOKENS_PER_SHARD", 64 * 32)
    monkeypatch.setattr(chunks, "CHUNK_DOCUMENTS", 16)
    monkeypatch.setattr(first_pass, "SEGMENT_DOCUMENTS", 64)
    monkeypatch.chdir(tmp_path)
    for seed, (name, count) in enumerate({"wiki": 600, "books": 200, "web": 120}.items()):
        (tmp_path / name).mkdir()
        lines = [json.dumps({"text": text, "body": text}) + "\n" for text in some_texts(count, seed)]
        for number in range(2):
            (tmp_path / name / f"{number}.jsonl").write_text("".join(lines[number::2]))
    return DataConfig(source="wiki", dir="shards", seq_len=32, held_out=0.01, filters=NO_FILTERS, processes=1)


def mixed(data: DataConfig, source: str, tokens: int | None = None) -> dict[str, tuple[int, float]]:
    """For each source of the list its tokens and its share."""
    shards = make(replace(data, source=source, tokens=tokens))
    shards.verify()
    lines = shards.manifest["mixture"]
    assert sum(line["tokens"] for line in lines) == shards.tokens
    return {line["name"]: (line["tokens"], line["share"]) for line in lines}


def test_each_source_gives_its_share_of_a_number_of_tokens(data: DataConfig) -> None:
    found = mixed(data, "[{path: books, weight: 0.7, text_field: body}, {path: web, weight: 0.2}, wiki]", 5_000)
    assert [share for _, share in found.values()] == pytest.approx([0.7, 0.2, 0.1], abs=0.02)
    assert sum(tokens for tokens, _ in found.values()) == pytest.approx(5_000, abs=200)


def test_without_a_number_the_scarcest_source_decides(data: DataConfig) -> None:
    found = mixed(data, "[wiki, {path: books, weight: 0.3}, {path: web, weight: 0.5}]")
    all_of_web = make(replace(data, source="web")).tokens
    assert [share for _, share in found.values()] == pytest.approx([0.2, 0.3, 0.5], abs=0.02)
    assert found["web"][0] == pytest.approx(all_of_web, rel=0.03)


def test_a_source_too_small_for_its_weight_is_named(data: DataConfig, capsys: pytest.CaptureFixture[str]) -> None:
    found = mixed(data, "[{path: web, weight: 0.5}, wiki]", 10**6)
    assert [share for _, share in found.values()] == pytest.approx([0.5, 0.5], abs=0.02)
    assert "data.tokens=1000000: web allows about" in (out := capsys.readouterr().out)
    assert "at its share of 0.5; give it more text or a lower weight for more" in out


def test_without_weights_all_text_is_taken_in_order(data: DataConfig, capsys: pytest.CaptureFixture[str]) -> None:
    found = mixed(data, "[wiki, books]")
    single = make(replace(data, source="*[is]/*.jsonl"))  # books sort before wiki, so the order differs
    assert sum(tokens for tokens, _ in found.values()) == pytest.approx(single.tokens, rel=0.01)
    print_summary(make(replace(data, source="[{path: wiki, weight: 0.5}, books]")))
    assert "wiki: 50.0" in (out := capsys.readouterr().out) and "of the tokens (asked for: 50.00%)" in out


def test_the_same_list_gives_the_same_bytes_also_when_it_is_continued(
    data: DataConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = "[{path: books, weight: 0.4}, {path: web, weight: 0.4}, wiki]"
    whole = make(replace(data, source=source, dir="whole"))

    class StopError(Exception):
        pass

    for module, name, calls in ((first_pass.Segments, "_write", 3), (row_writer.RowWriter, "_save", 2)):
        original, left = getattr(module, name), [calls]

        def stop(self: object, *args: object, **words: object) -> None:
            original(self, *args, **words)  # noqa: B023
            left[0] -= 1  # noqa: B023
            if not left[0]:  # noqa: B023
                raise StopError

        monkeypatch.setattr(module, name, stop)
        with pytest.raises(StopError):
            make(replace(data, source=source))
        monkeypatch.setattr(module, name, original)
    assert hashes(make(replace(data, source=source)).folder) == hashes(whole.folder)


def test_weights_are_part_of_the_folder(data: DataConfig) -> None:
    lists = [f"[{{path: books, weight: {weight}}}, web]" for weight in (0.5, 0.6)]
    first, second = (make(replace(data, source=one)).folder for one in lists)
    assert first != second


def test_a_source_of_which_nothing_is_left(data: DataConfig, tmp_path: Path) -> None:
    (tmp_path / "empty.txt").write_text(" \n")
    with pytest.raises(CramError, match=r"nothing is left to train on of empty.txt, whose share .* 0.5\nsee data.filt"):
        make(replace(data, source="[{path: empty.txt, weight: 0.5}, web]"))
    copied = tmp_path / "copied"
    copied.mkdir()
    for path in (tmp_path / "web").iterdir():
        (copied / path.name).write_bytes(path.read_bytes())
    with pytest.raises(CramError, match=r"nothing is left to train on of copied, whose share"):
        make(replace(data, source="[web, {path: copied, weight: 0.5}]"))
    assert not any(tmp_path.glob("shards/.*.partial"))


def test_the_rates_of_a_single_group_are_not_measured(data: DataConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mixture, "_measure", None)
    make(replace(data, source="[web, books]"))
