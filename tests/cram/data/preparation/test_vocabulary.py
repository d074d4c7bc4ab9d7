import json
import random
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tokenizers import Tokenizer

from cram.config.data import DataConfig, FilterConfig, WordPieceConfig
from cram.data.cleaning.held_out_split import hash_text
from cram.data.preparation import chunks
from cram.data.preparation import vocabulary as module
from cram.data.preparation.engine import LocalEngine
from cram.data.preparation.vocabulary import TokenizerSource, Vocabulary, make_vocabulary, nothing_left
from cram.data.text.reading_plan import ReadingPlan
from cram.data.text.source import Source
from cram.data.text.sources import open_source
from cram.data.wordpiece import train_tokenizer
from cram.errors import CramError

SYLLABLES = ["ba", "re", "mi", "to", "lu", "ken", "sor", "dal", "fin", "gus", "pel", "wyc", "hoj", "xiq", "vez"]
COOKIES = "We use cookies to make this site better for you.\n"
WORDPIECE = WordPieceConfig(vocab_size=128)
SHARE = 0.2
DATA = DataConfig(source="some/*.jsonl", held_out=SHARE, filters=FilterConfig(compressibility=None))


class Report:
    """Adds up what each stage has done."""

    def __init__(self) -> None:
        self.stages: dict[str, int] = {}

    @contextmanager
    def stage(self, name: str, total: int | None, unit: str) -> Iterator[Any]:
        self.stages[name] = 0

        def advance(amount: int) -> None:
            self.stages[name] += amount

        yield SimpleNamespace(advance=advance)


def prose(source: random.Random) -> str:
    return " ".join("".join(source.choices(SYLLABLES, k=2)) for _ in range(source.randint(12, 60))) + "."


def mixed(count: int = 600) -> list[str]:
    """Texts of which a third is dropped: short, empty, or full of digits."""
    source = random.Random(0)
    kinds = [prose, prose, prose, prose, lambda its: COOKIES + prose(its)]
    kinds += [lambda its: f"short {its.random()}", lambda its: " ", lambda its: f"{its.getrandbits(900)} " * 3]
    return [source.choice(kinds)(source) for _ in range(count)]


def trained_on(texts: list[str], share: float = SHARE) -> list[str]:
    """The texts of `mixed` that are neither dropped nor held out, without boilerplate."""
    starts = {one[:2] for one in SYLLABLES}
    cleaned = {text: text.replace(COOKIES, "") for text in texts if len(text) > 40}
    good = [text for text in texts if text in cleaned and cleaned[text][:2] in starts]
    return [cleaned[text] for text in good if hash_text(text) >= share * 2**64]


def corpus(folder: Path, texts: list[str], files: int = 3) -> Source:
    folder.mkdir(exist_ok=True)
    for number in range(files):
        lines = (json.dumps({"text": text}) + "\n" for text in texts[number::files])
        (folder / f"{number}.jsonl").write_text("".join(lines))
    return open_source(f"{folder}/*.jsonl")


def make(folder: Path, source: Source, path: Path | None = None, **settings: Any) -> Vocabulary:
    data = replace(DATA, **settings)
    return make_vocabulary(source, data, TokenizerSource(path and str(path), WORDPIECE), folder, Report())  # type: ignore[arg-type]


def test_the_tokenizer_is_trained_on_training_documents_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []

    def training(texts: list[str], config: WordPieceConfig) -> Tokenizer:
        seen.extend(texts)
        return train_tokenizer(texts, config)

    monkeypatch.setattr(module, "train_tokenizer", training)
    texts = mixed()
    source = corpus(tmp_path, texts)
    report = Report()
    found = make_vocabulary(source, DATA, TokenizerSource(wordpiece=WORDPIECE), tmp_path, report)  # type: ignore[arg-type]
    expected = trained_on(texts)
    assert 0.3 * len(texts) < len(expected) < 0.7 * len(texts)
    assert sorted(seen) == sorted(expected)
    assert found.definition == train_tokenizer(seen, WORDPIECE).to_str(pretty=True)
    assert report.stages == {
        "reading a sample for the tokenizer": sum(len(text) for text in texts if text.strip()),
        "training the tokenizer": sum(map(len, texts)),
    }


def test_a_sample_that_is_judged_in_processes_is_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    judged: list[int] = []

    class WatchedEngine(LocalEngine):
        def start(self, function: Any) -> Any:
            judged.append(self.processes)
            return super().start(function)

    monkeypatch.setattr(chunks, "CHUNK_DOCUMENTS", 100)
    source, report = corpus(tmp_path, mixed()), Report()
    alone = make(tmp_path / "alone", source)
    for smallest, processes in ((10**9, []), (0, [2])):
        monkeypatch.setattr(module, "SMALL_SAMPLE", smallest)
        folder = tmp_path / f"{smallest}"
        folder.mkdir()
        tokenizer = TokenizerSource(wordpiece=WORDPIECE)
        assert make_vocabulary(source, DATA, tokenizer, folder, report, WatchedEngine(2)) == alone  # type: ignore[arg-type]
        assert judged == processes, "a small sample is judged in this process"


def test_broken_records_are_skipped(tmp_path: Path) -> None:
    whole = make(tmp_path / "whole", corpus(tmp_path / "corpus", mixed(300)))
    for number in range(3):
        path = tmp_path / f"corpus/{number}.jsonl"
        path.write_text('{"text": 7}\n' + path.read_text() + '{"text"')
    broken = make(tmp_path / "broken", open_source(f"{tmp_path}/corpus/*.jsonl", on_error="skip"))
    assert broken == whole


def truth(definition: str, texts: list[str]) -> float:
    tokenizer = Tokenizer.from_str(definition)
    tokens = sum(len(tokenizer.encode(text).ids) for text in trained_on(texts))
    return sum(len(text.encode()) for text in texts) / tokens


def test_bytes_per_token_of_the_whole_source(tmp_path: Path) -> None:
    texts = mixed()
    found = make(tmp_path, corpus(tmp_path, texts))
    assert found.bytes_per_token == pytest.approx(truth(found.definition, texts), rel=1e-6)


@pytest.mark.parametrize("given", [False, True])
def test_bytes_per_token_measured_on_a_part_of_the_source(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: bool
) -> None:
    texts = mixed(2000)
    size = sum(map(len, texts))
    monkeypatch.setattr(module, "MEASURED_BYTES", size // 4)
    source = corpus(tmp_path, texts)
    path = tmp_path / "tokenizer.json"
    train_tokenizer(trained_on(texts[:300]), WORDPIECE).save(str(path))
    wordpiece = replace(WORDPIECE, sample_bytes=size * 2 // 3)
    report: Any = Report()
    plans: list[ReadingPlan] = []

    class WatchedPlan(ReadingPlan):
        def __init__(self, *args: Any) -> None:
            super().__init__(*args)
            plans.append(self)

    monkeypatch.setattr(module, "ReadingPlan", WatchedPlan)
    found = make_vocabulary(source, DATA, TokenizerSource(str(path) if given else None, wordpiece), tmp_path, report)
    assert found.bytes_per_token == pytest.approx(truth(found.definition, texts), rel=0.1)
    (plan,) = plans
    share_read = sum(plan.positions) / sum(part.size for part in source.parts)
    assert share_read < (0.4 if given else 0.8), "no more is read than asked for"


def test_documents_dropped_by_their_tokens_count_as_dropped(tmp_path: Path) -> None:
    texts = mixed()
    source = corpus(tmp_path, texts)
    whole = make(tmp_path / "all", source)
    tokenizer = Tokenizer.from_str(whole.definition)
    lengths = {text: len(tokenizer.encode(text).ids) for text in trained_on(texts)}
    shares = {text: (length - 2) / len(text) for text, length in lengths.items()}
    most = sorted(shares.values())[len(shares) // 2]
    found = make(tmp_path / "some", source, filters=FilterConfig(compressibility=most))
    assert found.definition == whole.definition
    tokens = sum(lengths[text] for text in trained_on(texts) if shares[text] < most)
    assert found.bytes_per_token == pytest.approx(sum(len(text.encode()) for text in texts) / tokens, rel=0.01)
    none = make(tmp_path / "none", source, filters=FilterConfig(compressibility=0.001))
    assert 0 < none.bytes_per_token < float("inf"), "it is for the second pass to say that nothing is left"


def test_a_given_tokenizer_is_used_unchanged(tmp_path: Path) -> None:
    texts = mixed()
    tokenizer = train_tokenizer(trained_on(texts), WORDPIECE)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    found = make(tmp_path, corpus(tmp_path, texts), tmp_path / "tokenizer.json")
    assert Tokenizer.from_str(found.definition).get_vocab() == tokenizer.get_vocab()
    assert found.bytes_per_token == pytest.approx(truth(found.definition, texts), rel=1e-6)


def test_a_vocabulary_is_kept_and_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = corpus(tmp_path, mixed())
    found = make(tmp_path, source)
    monkeypatch.setattr(module, "_sample_texts", None)
    assert make(tmp_path, source) == found
    assert make(tmp_path, source, tmp_path / "tokenizer.json") == found


def test_if_no_hash_is_low_enough_the_lowest_is_not_trained_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    texts = mixed(100)

    def training(some: list[str], _: WordPieceConfig) -> Tokenizer:
        seen.extend(some)
        return train_tokenizer(mixed(), WORDPIECE)

    monkeypatch.setattr(module, "train_tokenizer", training)
    make(tmp_path, corpus(tmp_path, texts), held_out=0.0)
    good = [text for text in texts if text.replace(COOKIES, "") in trained_on(texts, 0.0)]
    assert sorted(seen) == sorted(text.replace(COOKIES, "") for text in good if text != min(good, key=hash_text))


NOTHING = "nothing is left to train on, "


@pytest.mark.parametrize(
    ("texts", "settings", "message"),
    [
        (["", " \n"], {}, "the files contain no text; give others\\."),
        (["one two", "three"], {}, NOTHING + r"all 2 document\(s\) are dropped\n.*data.filters.min_words=0 .*"),
        ([prose(random.Random(0))], {}, NOTHING + r"its 1 document\(s\) are held out\n.*"),
        ([prose(random.Random(0)), "short"], {}, NOTHING + r"of 2 documents 1 are held out and the others dropped\n.*"),
        (mixed(40), {"held_out": 1 - 2**-53}, NOTHING + r".* held out .*\n.* or lower data.held_out\."),
        (mixed(40), {"filters": FilterConfig(min_words=99)}, NOTHING + r"all 3\d document\(s\) are dropped\n.*"),
    ],
)
@pytest.mark.parametrize("given", [False, True])
def test_a_source_without_training_documents_is_refused(
    tmp_path: Path, texts: list[str], settings: dict[str, Any], message: str, given: bool
) -> None:
    train_tokenizer(mixed(), WORDPIECE).save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(CramError, match=rf"\Adata.source='some/\*.jsonl': {message}\Z"):
        make(tmp_path, corpus(tmp_path, texts), tmp_path / "tokenizer.json" if given else None, **settings)
    assert not (tmp_path / "vocabulary.json").exists()


def test_the_messages_for_a_source_without_training_documents() -> None:
    data = DataConfig(source="a.txt")
    assert str(nothing_left(data, 0, 0)) == "data.source='a.txt': the files contain no text; give others."
    assert str(nothing_left(data, 3, 3)) == (
        "data.source='a.txt': nothing is left to train on, its 3 document(s) are held out\n"
        "give more documents, cut .txt files into more (data.document=blank_line or line), or lower data.held_out."
    )
    assert str(nothing_left(data, 9, 3)) == (
        "data.source='a.txt': nothing is left to train on, of 9 documents 3 are held out and the others dropped\n"
        "give more documents, see data.filters and data.dedupe, or lower data.held_out."
    )
    assert str(nothing_left(data, 9, 0)) == (
        "data.source='a.txt': nothing is left to train on, all 9 document(s) are dropped\n"
        "see data.filters and data.dedupe; for example data.filters.min_words=0 keeps short ones."
    )


def test_the_message_names_the_sample_if_the_source_was_not_read_to_its_end(tmp_path: Path) -> None:
    assert str(nothing_left(DataConfig(source="a.txt"), 9, 0, sampled=True)).splitlines()[0] == (
        "data.source='a.txt': nothing is left to train on, all 9 document(s) of a sample of the source are dropped"
    )
    source = corpus(tmp_path, [f"short {number}" for number in range(90_000)])
    path = tmp_path / "tokenizer.json"
    train_tokenizer(mixed(), WORDPIECE).save(str(path))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "MEASURED_BYTES", 1000)
        with pytest.raises(CramError, match=r"all \d+ document\(s\) of a sample of the source are dropped"):
            make(tmp_path, source, path)


def test_twins_of_held_out_documents_are_left_out(tmp_path: Path) -> None:
    texts = [prose(random.Random(number)) for number in range(300)]
    twins = ["\u00ad".join(text.upper()) for text in texts]
    found: list[str] = []

    def training(some: list[str], _: WordPieceConfig) -> Tokenizer:
        found.extend(some)
        return train_tokenizer(mixed(), WORDPIECE)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "train_tokenizer", training)
        make(tmp_path, corpus(tmp_path, [*texts, *twins]))
    limit = SHARE * 2**64
    assert 0 < len(found) < 500
    assert set(found) == {
        one for pair in zip(texts, twins, strict=True) if all(hash_text(text) >= limit for text in pair) for one in pair
    }


def test_a_threshold_of_compressibility_that_does_not_suit_the_vocabulary_gives_a_warning(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = corpus(tmp_path, mixed())
    make(tmp_path / "fits", source, filters=FilterConfig(compressibility=1.0))
    assert "compressibility" not in capsys.readouterr().out
    most = 0.31
    make(tmp_path / "small", source, filters=FilterConfig(compressibility=most))
    said = re.search(
        rf"warning: data.filters.compressibility={most} drops (\d+)% of the documents of a sample with "
        r"a vocabulary of 128 .*; data.filters.compressibility=(0.\d+) would drop 1%",
        capsys.readouterr().out,
    )
    assert said and int(said[1]) > 5
    make(tmp_path / "said", source, filters=FilterConfig(compressibility=float(said[2])))
    assert "compressibility" not in capsys.readouterr().out
