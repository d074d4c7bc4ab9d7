import pickle
import subprocess
import sys
from collections import Counter
from dataclasses import make_dataclass
from itertools import islice
from pathlib import Path

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from cram.config.data import FilterConfig
from cram.data.cleaning import cleaner as module
from cram.data.cleaning.cleaner import EMPTY, Cleaner
from cram.data.cleaning.filters import FILTERS, CleanedText, TextFilter
from cram.data.cleaning.word_hashes import WordSplitter, split_words
from cram.data.text.sources import open_source
from cram.files.atomic import to_json
from proofs.columns import PlainSplitter, judge_plainly

ROOT = Path(__file__).resolve().parents[4]
CORPUS = ROOT.parent / "shared" / "data" / "pretrain"
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
    split = WordSplitter(to_json({"type": "Replace", "pattern": {"String": "1"}, "content": "one"}))
    (judgement,) = Cleaner(FilterConfig(min_words=2), split).judge(["12 Years"])
    assert judgement.words.words == ["one2", "years"]
    assert Cleaner(FilterConfig(min_words=2)).judge(["12 Years"])[0].words.words == ["12", "years"]


def judge_alone(text: str, config: FilterConfig) -> tuple[str, str | None]:
    """Ask every filter about a text alone: what is left of it, and why it is dropped."""
    judgement = judge_plainly(text, config, PlainSplitter(split_words))
    return judgement.text, judgement.reason


SYMBOLS = "".join(chr(code) for code in range(0x21, 0x40)) + "€©™½²٣中é\u0301\u00ad\u200b"
pieces = st.sampled_from(
    [
        "Privacy Policy\n",
        "\x85",
        "\x81",
        "\r\x85",
        f"{COOKIES}\n",
        "JAVASCRIPT is required\n",
        "\n",
        " ",
        PROSE,
        REPEATED,
    ]
)
documents = st.lists(st.text(st.sampled_from(SYMBOLS), max_size=9) | st.text(max_size=9) | pieces).map("".join)


@settings(max_examples=300, deadline=None)
@given(st.lists(documents, max_size=8), st.sampled_from([1, 100, 500_000]))
def test_many_texts_are_judged_as_each_alone(texts: list[str], block: int) -> None:
    config = FilterConfig(min_words=3, max_words=40)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "BLOCK", block)
        judged = [(one.text, one.reason) for one in Cleaner(config).judge(texts)]
    event(f"reasons {sorted({str(reason) for _, reason in judged})}")
    assert judged == [judge_alone(text, config) for text in texts]


@pytest.mark.skipif(not CORPUS.is_dir(), reason=f"no corpus at {CORPUS}")
def test_real_documents_are_judged_as_each_alone() -> None:
    config = FilterConfig(min_words=100, max_words=2000, symbols=0.003, digits=0.03)
    reasons: Counter[str | None] = Counter()
    for part in open_source(str(CORPUS / "*.jsonl.zst")).parts:
        few = 1 if Path(part.name).name.startswith("gutenberg") else 50
        texts = [document.text for document in islice(part.documents(), few)]
        judged = [(one.text, one.reason) for one in Cleaner(config).judge(texts)]
        assert judged == [judge_alone(text, config) for text in texts], part.name
        reasons.update(reason for _, reason in judged)
    assert min(reasons[reason] for reason in (None, "min_words", "max_words", "symbols", "digits")) > 3


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
