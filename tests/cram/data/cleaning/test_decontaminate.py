import io
import json
import pickle
from hashlib import sha256
from itertools import islice
from pathlib import Path

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from cram.data.cleaning.decontaminate import WORDS, BenchmarkNgrams
from cram.data.cleaning.word_hashes import split_words
from cram.errors import CramError
from proofs.columns import make_words
from tests.cram.data.cleaning.plain_words import words_of

SHARED = Path(__file__).parents[4].parent / "shared/data"
KEY = "data.dedupe.decontaminate"
GLUE, CORPUS = SHARED / "glue", SHARED / "pretrain"
SENTENCE = "A man with a hard hat is dancing on the roof of an old brick house."  # 15 words
OTHER = "Two small dogs run through the wet grass beside a long white fence near town."


def of(path: Path, content: str | bytes) -> BenchmarkNgrams:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return BenchmarkNgrams(str(path))


@pytest.fixture
def made_up(tmp_path: Path) -> BenchmarkNgrams:
    return of(tmp_path / "dev.tsv", f"index\tsentence1\tsentence2\tscore\n0\t{SENTENCE}\t{OTHER}\t5.000\n")


@pytest.mark.parametrize(
    "text",
    [
        SENTENCE,
        f"Before it. {SENTENCE} After it.",
        SENTENCE.upper().replace(" ", ", "),
        "man with a hard hat is dancing on the roof of an old",
        f"It was so: {OTHER}",
    ],
)
def test_thirteen_words_in_a_row_touch(made_up: BenchmarkNgrams, text: str) -> None:
    assert made_up.occur_in(words_of(text))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "roof",
        "with a hard hat is dancing on the roof of an old",
        SENTENCE.replace("dancing", "singing"),
        "roof of an old brick house. Two small dogs run through the wet grass",
        " ".join(reversed(split_words(SENTENCE))),
    ],
)
def test_anything_less_does_not(made_up: BenchmarkNgrams, text: str) -> None:
    assert not made_up.occur_in(words_of(text))


def test_they_touch_wherever_they_stand(made_up: BenchmarkNgrams) -> None:
    for before in range(20):
        for first in (0, 1, 2):
            thirteen = split_words(SENTENCE)[first : first + WORDS]
            text = ["and"] * before + thirteen + ["then"] * (before % 9)
            assert made_up.occur_in(make_words([text])[0])


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.lists(st.sampled_from("abc"), max_size=30), min_size=1, max_size=4),
    st.lists(st.sampled_from("abcd"), max_size=60),
    st.integers(0, 30),
)
def test_against_a_search_in_the_text(
    tmp_path_factory: pytest.TempPathFactory, fields: list[list[str]], around: list[str], start: int
) -> None:
    """The document holds 14 words of a field or fewer, at any place."""
    rows = "\n".join("\t".join(["0", " ".join(field)]) for field in fields) + "\t" + SENTENCE
    found = of(tmp_path_factory.getbasetemp() / "search.tsv", rows)
    document = around[:start] + fields[0][start : start + 14] + around[start:]
    text = " ".join(["", *document, ""])
    ngrams = [field[i : i + WORDS] for field in fields for i in range(len(field) - WORDS + 1)]
    assert found.occur_in(make_words([document])[0]) == any(f" {' '.join(ngram)} " in text for ngram in ngrams)


def test_quotes_and_strange_breaks_end_no_field(tmp_path: Path) -> None:
    lines = [f'1\t"{SENTENCE}\t0', f'2\t"He said\u2028{OTHER}\x85"\t1', "3\tshort"]
    found = of(tmp_path / "test.tsv", "\r\n".join(lines))
    assert found.occur_in(words_of(SENTENCE))
    assert found.occur_in(words_of("he said " + " ".join(split_words(OTHER)[:11])))


def test_every_file_that_matches_is_read(tmp_path: Path) -> None:
    for task, text in (("RTE", SENTENCE), ("deep/STS-B", OTHER)):
        (tmp_path / task).mkdir(parents=True)
        (tmp_path / task / "dev.tsv").write_text(text)
    (tmp_path / "folder.tsv").mkdir()
    found = BenchmarkNgrams(str(tmp_path / "**" / "*.tsv"))
    assert found.occur_in(words_of(SENTENCE))
    assert found.occur_in(words_of(OTHER))


def test_the_fingerprint_is_of_the_contents_alone(tmp_path: Path) -> None:
    contents = [SENTENCE.encode(), OTHER.encode()]
    for folder, names in (("one", ["a.tsv", "b.tsv"]), ("two", ["d.tsv", "c.tsv"])):
        (tmp_path / folder).mkdir()
        for name, content in zip(names, contents, strict=True):
            (tmp_path / folder / name).write_bytes(content)
    expected = sha256(b"".join(sorted(sha256(content).digest() for content in contents))).hexdigest()
    assert BenchmarkNgrams(str(tmp_path / "one/*")).fingerprint == expected
    assert BenchmarkNgrams(str(tmp_path / "two/*")).fingerprint == expected
    assert of(tmp_path / "one/a.tsv", SENTENCE + " ").fingerprint != of(tmp_path / "one/a.tsv", SENTENCE).fingerprint


def test_it_can_be_sent_to_another_process(made_up: BenchmarkNgrams) -> None:
    copy = pickle.loads(pickle.dumps(made_up))
    assert copy.fingerprint == made_up.fingerprint
    assert copy.occur_in(words_of(SENTENCE))
    assert not copy.occur_in(words_of(SENTENCE.replace("dancing", "singing")))


def test_no_file_matches(tmp_path: Path) -> None:
    (tmp_path / "folder.tsv").mkdir()
    with pytest.raises(CramError, match=rf"^{KEY}='.*/\*.tsv' matches no file \(in /.*\); give a glob of GLUE"):
        BenchmarkNgrams(str(tmp_path / "*.tsv"))


def test_a_file_that_is_not_utf8(tmp_path: Path) -> None:
    with pytest.raises(
        CramError,
        match=rf"^{KEY}: .*/dev.tsv is not UTF-8 \(byte 0xf6 at byte offset 3\); convert it",
    ):
        of(tmp_path / "dev.tsv", "schön".encode("latin-1"))


def test_a_file_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    (tmp_path / "dev.tsv").touch()
    monkeypatch.setattr(Path, "open", fail)
    with pytest.raises(
        CramError,
        match=rf"^{KEY}: .*/dev.tsv cannot be read \(Permission denied\); make it readable",
    ):
        BenchmarkNgrams(str(tmp_path / "dev.tsv"))


def test_files_without_a_long_field_would_find_nothing(tmp_path: Path) -> None:
    with pytest.raises(
        CramError,
        match=rf"^{KEY}='.*': no field of 13 words in 1 file\(s\); give tab-separated files",
    ):
        of(tmp_path / "dev.tsv", "one\ttwo\nthree\tfour\n")


@pytest.mark.skipif(not GLUE.is_dir(), reason=f"no GLUE files in {GLUE}")
def test_every_long_field_of_glue_touches_and_no_short_one() -> None:
    found = BenchmarkNgrams(str(GLUE / "*" / "dev.tsv"))
    fields = {
        field for path in GLUE.glob("*/dev.tsv") for line in path.read_text().split("\n") for field in line.split("\t")
    }
    split = make_words([split_words(field) for field in sorted(fields)[::5]])
    assert sum(len(one.words) >= WORDS for one in split) > 1000
    assert all(found.occur_in(one) == (len(one.words) >= WORDS) for one in split)


@pytest.mark.skipif(not (GLUE.is_dir() and CORPUS.is_dir()), reason=f"no GLUE files and corpus in {SHARED}")
def test_the_cleaned_corpus_touches_neither_dev_nor_test() -> None:
    found = BenchmarkNgrams(str(GLUE / "*" / "[dt]e[vs]*.tsv"))
    for path in sorted(CORPUS.glob("*.jsonl.zst")):
        with path.open("rb") as file:
            raw = zstandard.ZstdDecompressor(max_window_size=2**31).stream_reader(file)
            texts = [json.loads(line)["text"] for line in islice(io.TextIOWrapper(raw, "utf-8", newline="\n"), 40)]
        assert not any(found.occur_in(one) for one in make_words([split_words(text) for text in texts]))
