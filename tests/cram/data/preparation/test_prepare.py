import json
import os
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer, normalizers

from cram.config.data import DataConfig, DedupeConfig, WordPieceConfig
from cram.data.preparation import prepare
from cram.data.preparation.prepare import prepare_shards
from cram.data.preparation.vocabulary import TokenizerSource
from cram.data.shards.shards import ShardSet
from cram.errors import CramError
from tests.cram.data.preparation.small_corpus import (
    NO_FILTERS,
    ROOT,
    WORDPIECE,
    Quiet,
    failing,
    hashes,
    make,
    packed,
    run,
    seen,
    texts,
    write,
)

CORPUS = Path(ROOT).parent / "shared/data/pretrain"


def test_every_training_document_is_packed_and_no_held_out_one(tmp_path: Path) -> None:
    documents = texts()
    made = make(write(tmp_path, [*documents, "", " \n", documents[0], documents[3].upper() + "!"]))
    tokenizer_counts = made.token_counts()
    held_out = [document.text for document in made.held_out()]
    assert sorted(packed(made) + held_out) == sorted(documents)
    assert 0 < len(held_out) < 50
    counts, dropped = made.manifest["counts"], made.manifest["dropped"]
    assert counts["documents"] == made.documents == len(packed(made)) and counts["documents_in"] == 304
    assert dropped["empty"]["documents"] == 2 and dropped["exact"]["documents"] == 2
    assert counts["documents"] + counts["held_out_documents"] + 4 == 304
    assert counts["bytes"] == sum(map(len, packed(made)))
    tokens, borders = made.read(np.arange(made.rows))
    assert made.tokens == (tokens != 0).sum() and (tokenizer_counts[1:] > 0).sum() > 64
    about = made.manifest["tokenizer"]
    assert about["trained_here"]
    assert about["unknown_tokens"] == made.token_counts()[1] / made.tokens
    sources = {source["name"]: source["documents"] for source in made.manifest["sources"]}
    assert sources == {"0.jsonl": 102, "1.jsonl": 101, "2.jsonl": 101}
    assert borders.max() > 0
    assert not (made.folder / "journal").exists()
    made.verify()


@pytest.mark.usefixtures("small_pieces")
@pytest.mark.parametrize("tokens", [None, 500, 10**9])
def test_progress_ends_at_its_total(tmp_path: Path, tokens: int | None) -> None:
    report: Any = Quiet()
    prepare_shards(replace(write(tmp_path, texts()), tokens=tokens), TokenizerSource(wordpiece=WORDPIECE), report)
    for name in ("scanning", "tokenizing and packing"):
        assert report.stages[name] == report.totals[name] > 0


def test_a_second_preparation_does_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = write(tmp_path, texts())
    made = make(data)
    monkeypatch.setattr(prepare, "_Preparation", None)
    for other in ({"epochs": 5}, {"order": "likely_first"}, {"processes": 2}, {"on_error": "skip"}, {"word_table": 9}):
        assert make(replace(data, **other)).folder == made.folder  # type: ignore[arg-type]


def test_another_setting_or_content_gives_another_folder(tmp_path: Path) -> None:
    data = write(tmp_path, texts())
    made = [
        make(data),
        make(replace(data, seq_len=16)),
        make(replace(data, held_out=0.1)),
        make(replace(data, tokens=999)),
        make(replace(data, packing="best_fit")),
        make(replace(data, filters=replace(NO_FILTERS, min_words=5))),
        make(replace(data, dedupe=DedupeConfig(near=None))),
    ]
    made.append(make(data, replace(WORDPIECE, vocab_size=192)))
    made.append(make(data, tokenizer=str(made[0].tokenizer_path)))
    assert not made[-1].manifest["tokenizer"]["trained_here"]
    (tmp_path / "0.jsonl").write_text((tmp_path / "0.jsonl").read_text().replace("ba", "bo"))
    made.append(make(data))
    assert len({shard_set.folder for shard_set in made}) == len(made)
    assert made[0].hash == made[-2].hash, "the same tokenizer, given by path"


def test_the_table_of_words_changes_no_byte(tmp_path: Path) -> None:
    made = [
        make(replace(write(tmp_path / str(size) / "corpus", texts()), word_table=size)).folder
        for size in (0, 10, 10**6)
    ]
    assert len({folder.name for folder in made}) == 1
    assert hashes(made[0]) == hashes(made[1]) == hashes(made[2])


def test_a_tokenizer_that_cannot_use_the_table_of_words(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = write(tmp_path, texts())
    tokenizer = Tokenizer.from_file(str(make(data).tokenizer_path))
    assert "data.word_table" not in capsys.readouterr().out
    tokenizer.normalizer = normalizers.Sequence([tokenizer.normalizer, normalizers.Strip()])
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    made = make(data, tokenizer=str(tmp_path / "tokenizer.json"))
    assert capsys.readouterr().out.count("data.word_table is not used") == 1
    assert made.rows and make(replace(data, word_table=0, seq_len=16), tokenizer=str(tmp_path / "tokenizer.json")).rows
    assert "data.word_table" not in capsys.readouterr().out, "nobody asked for the table"


def test_two_preparations_elsewhere_give_the_same_hash(tmp_path: Path) -> None:
    first, second = (make(write(tmp_path / name / "corpus", texts())) for name in ("here", "there"))
    assert first.hash == second.hash and first.folder.name == second.folder.name
    assert hashes(first.folder) == hashes(second.folder)


def test_a_token_limit_is_spread_over_all_files(tmp_path: Path) -> None:
    data = write(tmp_path, texts(3000))
    whole = make(data)
    limited = make(replace(data, tokens=20_000))
    assert whole.tokens > 60_000
    assert 20_000 <= limited.tokens < 20_000 + 400
    assert limited.manifest["counts"]["not_needed_documents"] > 0
    text = " ".join(packed(limited))
    for number in range(3):
        lines = (tmp_path / f"{number}.jsonl").read_text().splitlines()
        assert sum(json.loads(line)["text"] in text for line in lines) > 60


def test_a_file_that_is_dropped_whole_leaves_its_share_of_the_tokens_to_the_others(tmp_path: Path) -> None:
    data = write(tmp_path, texts(3000))
    (tmp_path / "2.jsonl").write_text("".join(json.dumps({"text": "ba re mi " * n}) + "\n" for n in range(100, 300)))
    made = make(replace(data, tokens=20_000, filters=replace(NO_FILTERS, repetition=True)))
    assert made.manifest["dropped"]["repetition"]["documents"] > 30
    assert 20_000 <= made.tokens < 20_400


def test_a_message_tells_if_the_text_gives_fewer_tokens_than_the_limit(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write(tmp_path, [*texts(100), *texts(100) * 30], files=1)
    made = make(replace(data, tokens=20_000))
    assert made.tokens < 20_000
    assert (
        f"data.tokens=20000: only {made.tokens} are left of the text that was read for them" in capsys.readouterr().out
    )


def test_filters_drop_documents_and_keep_samples(tmp_path: Path) -> None:
    digits = [" ".join(str(n * 7 + i) for n in range(30)) for i in range(5)]
    chosen = replace(NO_FILTERS, min_words=8, digits=0.2)
    made = make(replace(write(tmp_path, [*texts(), *digits]), filters=chosen))
    short = sum(len(text.split()) < 8 for text in texts())
    assert short > 10 and made.manifest["dropped"]["digits"]["documents"] == 5 - sum(
        text.text in digits for text in made.held_out()
    )
    assert all(len(text.split()) >= 8 for text in packed(made))
    statistics = json.loads((made.folder / "statistics.json").read_text())
    assert {sample["text"] for sample in statistics["samples"]["digits"]} <= set(digits)
    assert len(statistics["samples"]["min_words"]) == min(20, made.manifest["dropped"]["min_words"]["documents"])


def test_a_near_duplicate_of_a_held_out_document_is_not_trained_on(tmp_path: Path) -> None:
    data = write(tmp_path, texts(200))
    held_out = max((document.text for document in make(data).held_out()), key=len)
    twin = f"{held_out} dal"
    assert len(held_out.split()) > 40
    (tmp_path / "3.jsonl").write_text(json.dumps({"text": twin}) + "\n")
    made = make(data)
    assert made.manifest["dropped"]["near_held_out"]["documents"] == 1
    assert twin not in packed(made) and held_out in [document.text for document in made.held_out()]
    statistics = json.loads((made.folder / "statistics.json").read_text())
    assert [pair["dropped"]["origin"] for pair in statistics["duplicates"]] == ["3.jsonl:1"]


def test_decontamination(tmp_path: Path) -> None:
    documents = texts(200)
    data = write(tmp_path, documents)
    task = max(packed(make(data)), key=len)
    (tmp_path / "dev.tsv").write_text(f"index\tsentence\n0\t{task}\n")
    clean = make(replace(data, dedupe=DedupeConfig(decontaminate=f"{tmp_path}/*.tsv")))
    assert clean.manifest["dropped"]["decontaminate"]["documents"] == 1
    assert task not in packed(clean)


def test_broken_records_stop_or_are_left_out(tmp_path: Path) -> None:
    data = write(tmp_path, texts())
    (tmp_path / "1.jsonl").write_text('{"text": "good"}\n{"text": 3}\nno json\n')
    with pytest.raises(CramError, match=r"1.jsonl:2: field 'text' must be a string, found int"):
        make(data)
    made = make(replace(data, on_error="skip"))
    assert made.manifest["dropped"]["broken"]["documents"] == 2
    samples = json.loads((made.folder / "statistics.json").read_text())["samples"]["broken"]
    assert any("1.jsonl:3" in sample["text"] and "broken JSON" in sample["text"] for sample in samples)
    with pytest.raises(CramError, match=r"prepared with 2 broken record\(s\) or file\(s\) left out\n.*on_error=skip"):
        make(data)


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may read any file")
def test_an_unreadable_file_stops_or_is_left_out(tmp_path: Path) -> None:
    data = write(tmp_path, texts())
    (tmp_path / "1.jsonl").chmod(0)
    with pytest.raises(CramError, match=r"1.jsonl: cannot be read \(Permission denied\)"):
        make(data)
    assert make(replace(data, on_error="skip")).manifest["dropped"]["broken"]["documents"] == 1


def test_a_mask_in_the_text_is_text(tmp_path: Path) -> None:
    made = make(write(tmp_path, [*texts(), *(f"{text} [MASK] [SEP]" for text in texts(50, seed=8))]))
    counts = made.token_counts()
    assert counts[4] == 0 and counts[3] == made.documents


def test_two_documents_are_enough_and_one_is_not(tmp_path: Path) -> None:
    one, two = texts(2)
    small = WordPieceConfig(vocab_size=64)
    made = make(replace(write(tmp_path / "two", [one * 40, two * 40]), held_out=0.001), small)
    assert made.documents == len(made.held_out()) == 1
    with pytest.raises(CramError, match=r"nothing is left to train on, its 1 document\(s\) are held out\n.*blank_line"):
        make(write(tmp_path / "one", [one * 40]))
    strict = replace(write(tmp_path / "strict", [one, two]), filters=replace(NO_FILTERS, min_words=1000))
    with pytest.raises(CramError, match=r"nothing is left to train on, all 2 document\(s\) are dropped\n.*min_words"):
        make(strict)


@pytest.mark.parametrize("content", ["", '{"text": " "}\n'])
def test_an_empty_corpus(tmp_path: Path, content: str) -> None:
    (tmp_path / "a.jsonl").write_text(content)
    data = DataConfig(source=f"{tmp_path}/a.jsonl", dir=str(tmp_path / "shards"))
    for tokenizer in (None, str(make(write(tmp_path / "other", texts())).tokenizer_path)):
        with pytest.raises(CramError, match=r"data.source='.*a.jsonl': the files contain no text"):
            make(data, tokenizer=tokenizer)
        assert seen(tmp_path / "shards") == []


def test_missing_task_files_are_reported_before_any_work(tmp_path: Path) -> None:
    data = write(tmp_path, texts(9))
    with pytest.raises(CramError, match=r"data\.dedupe\.decontaminate"):
        make(replace(data, dedupe=DedupeConfig(decontaminate=f"{tmp_path}/*.nothing")))
    assert not Path(data.dir).exists()


# Not `ru_maxrss`, which a process inherits from the one that started it.
MEASURE = """
import re, sys
from pathlib import Path
from cram.config.data import DataConfig, WordPieceConfig
from cram.data.preparation.prepare import prepare_shards
from cram.data.preparation.vocabulary import TokenizerSource
data = DataConfig(source=sys.argv[1], dir=sys.argv[2], tokens=1_000_000, processes=1)
prepare_shards(data, TokenizerSource(wordpiece=WordPieceConfig(vocab_size=8192, sample_bytes=4_000_000)))
peak = re.search(r"VmHWM:\\s*(\\d+) kB", Path("/proc/self/status").read_text())[1]
print(peak, "torch" in sys.modules)
"""


@pytest.mark.skipif(not CORPUS.is_dir(), reason=f"no corpus in {CORPUS}")
def test_real_text_from_every_file_in_bounded_memory(tmp_path: Path) -> None:
    output = run(MEASURE, f"{CORPUS}/*.jsonl.zst", str(tmp_path)).communicate()[0]
    kilobytes, torch_imported = output.split()[-2:]
    assert int(kilobytes) < 1_000_000
    assert torch_imported == "False"
    (folder,) = seen(tmp_path)
    made = ShardSet.open(tmp_path / folder)
    assert 1_000_000 <= made.tokens < 1_020_000
    assert len(made.manifest["sources"]) == 15


def test_without_a_network_shards_prepared_earlier_are_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import datasets
    import huggingface_hub

    local = write(tmp_path, texts())
    stream = datasets.load_dataset("json", data_files=[f"{tmp_path}/0.jsonl"], streaming=True, split="train")
    builder = SimpleNamespace(as_streaming_dataset=lambda split: stream)
    monkeypatch.setattr(datasets, "load_dataset_builder", lambda *_, **__: builder)
    answer = SimpleNamespace(sha="revision 1")
    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", lambda *_, **__: answer)
    data = replace(local, source="hf:some/dataset")
    made = make(data)

    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", failing(ConnectionError("no network")))
    assert make(data).folder == made.folder
    assert f"using {made.folder}, which was prepared earlier" in capsys.readouterr().out
    for other in (replace(data, seq_len=16), replace(data, source="hf:some/dataset:config")):
        with pytest.raises(CramError, match="cannot be loaded"):
            make(other)
