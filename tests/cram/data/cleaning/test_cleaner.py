import pickle
import subprocess
import sys
from dataclasses import make_dataclass
from pathlib import Path

import pytest

from cram.config.data import FilterConfig
from cram.data.cleaning import cleaner as module
from cram.data.cleaning.cleaner import EMPTY, Cleaner
from cram.data.cleaning.filters import FILTERS, CleanedText, TextFilter
from cram.data.cleaning.word_hashes import WordSplitter, split_words

ROOT = Path(__file__).resolve().parents[4]
PROSE = "The river runs through the old town, and the castle above it was built by a bishop in the year 1204."
COOKIES = "We use cookies to improve your experience."
REPEATED = "buy it now or never " * 40


def test_making_pickling_and_unpickling_need_no_heavy_library() -> None:
    program = (
        "import pickle, sys; from cram.config.data import FilterConfig; from cram.data.cleaning.cleaner import Cleaner;"
        "cleaner = pickle.loads(pickle.dumps(Cleaner(FilterConfig()))); cleaner.clean('a');"
        "assert not {'datatrove', 'torch', 'rensa', 'tokenizers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True, cwd=ROOT)


def test_a_pickled_copy_judges_the_same() -> None:
    cleaner = Cleaner(FilterConfig())
    for one in (cleaner, pickle.loads(pickle.dumps(cleaner))):
        assert [judgement.reason for judgement in one.judge([REPEATED, PROSE])] == ["repetition", None]


def test_clean_follows_its_key() -> None:
    text = f"{PROSE}\nPrivacy Policy"
    assert Cleaner(FilterConfig()).clean(text) == PROSE
    assert Cleaner(FilterConfig(boilerplate=False)).clean(text) is text


def test_a_text_is_judged_as_it_is_after_cleaning() -> None:
    texts = [f"{COOKIES}\n{PROSE}", f"One two three.\n{COOKIES}", COOKIES, "...", " \n", ""]
    judgements = Cleaner(FilterConfig()).judge(texts)
    assert [one.reason for one in judgements] == [None, "min_words", EMPTY, EMPTY, EMPTY, EMPTY]
    assert [one.text for one in judgements] == [PROSE, "One two three.", "", "...", " \n", ""]
    assert [one.words.words for one in judgements] == [split_words(one.text) for one in judgements]
    assert Cleaner(FilterConfig()).judge([]) == []


def test_an_exempt_text_is_dropped_only_if_it_is_blank() -> None:
    texts = [REPEATED, f"{COOKIES}\n{PROSE}", "...", " \n", ""]
    judgements = Cleaner(FilterConfig()).judge(texts, exempt=range(len(texts)))
    assert [one.text for one in judgements] == texts
    assert [one.reason for one in judgements] == [None, None, None, EMPTY, EMPTY]
    assert judgements[1].words.words == split_words(texts[1])


def test_words_are_those_of_the_splitter() -> None:
    class Halves(WordSplitter):
        def __call__(self, text: str) -> list[str]:
            return [half for word in super().__call__(text) for half in (word[:1], word[1:])]

    text = "one two three four five six"
    assert Cleaner(FilterConfig(min_words=12)).judge([text])[0].reason == "min_words"
    assert Cleaner(FilterConfig(min_words=12), Halves()).judge([text])[0].reason is None


def test_compressibility_is_judged_by_tokens() -> None:
    cleaner = Cleaner(FilterConfig(compressibility=0.25))
    assert cleaner.judge_tokens(24, 100) is None
    assert cleaner.judge_tokens(25, 100) == "compressibility"
    assert cleaner.judge_tokens(0, 0) == "compressibility"
    assert Cleaner(FilterConfig(compressibility=None)).judge_tokens(100, 100) is None


def shouts(most: float, cleaned: CleanedText) -> bool:
    return sum(map(str.isupper, cleaned.text)) > most * len(cleaned.text)


def test_a_filter_is_added_by_a_key_and_a_line_in_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FILTERS", (*FILTERS, TextFilter("shouting", shouts, "made up here")))
    config = make_dataclass("Config", [("shouting", float | None, 0.3)], bases=(FilterConfig,))
    texts = [PROSE, PROSE.upper()]
    assert [one.reason for one in Cleaner(config()).judge(texts)] == [None, "shouting"]
    assert [one.reason for one in Cleaner(config(shouting=None)).judge(texts)] == [None, None]
