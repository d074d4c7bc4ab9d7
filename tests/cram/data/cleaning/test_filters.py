import pickle
import subprocess
import sys
import unicodedata
from dataclasses import fields
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cram.config.data import FilterConfig
from cram.data.cleaning.filters import (
    REASONS,
    Filters,
    count_symbols_and_digits,
    cut_boilerplate,
)
from cram.data.cleaning.word_hashes import Words, hash_words, split_words

ROOT = Path(__file__).resolve().parents[4]
CORPUS = ROOT.parent / "shared" / "data" / "pretrain"

PROSE = "The river runs through the old town, and the castle above it was built by a bishop in the year 1204."
LATEX = (
    r"Let $D \subset {\mathbb C}^n$ be a bounded domain with smooth boundary. We prove that $\|T_f\|_{2} \leq C_n$ "
    r"for every holomorphic map $f: D \to D$, where the constant $C_n$ depends on the dimension alone."
)
NOTICES = [
    "This website uses cookies to improve your experience.",
    "We use cookies and similar technologies to provide the services and features offered on our website.",
    "By continuing to browse the site you are agreeing to our use of cookies.",
    "  By using this site, you agree to the Terms of Use and Privacy Policy.",
    "Privacy Policy",
    "Home | About | Terms of Use | Contact",
    "PLEASE READ OUR PRIVACY POLICY",
    "Please enable JavaScript to view the comments powered by Disqus.",
    "JavaScript is disabled",
    "You must have JavaScript enabled in your browser to utilize the functionality of this website.",
]
NOT_NOTICES = [
    PROSE,
    "JavaScript, Lua and Python had first-class functions from their inception.",
    "The following functions can be written in JavaScript:",
    "The applet tag currently requires JavaScript that recognizes the browser and adjusts the tag, and more code.",
    "In its privacy policy, TikTok lists that it collects usage information and IP addresses.",
    "A website can use cookies to find out if someone has visited it before.",
    "His account was suspended twice for violating Blizzard's Terms of Use.",
    "It is found in terms of user comfort and in terms of system safety, as you see.",
    "The company published its privacy policy.",
    "Privacy policy of the European Union, data retention, encryption, surveillance and the law of the sea",
    "Which JavaScript library do you like best?",
    "A cookie is a baked snack. You eat it with your coffee.",
    "You agree to everything on this page, please.",
    "We use cookies. " + "The rest of the page is on the same line as its notice. " * 20,
    "",
]


def words_of(text: str) -> Words:
    return hash_words([split_words(text)])[0]


def refused(text: str, **values: object) -> str | None:
    return Filters(FilterConfig(**values)).refuse(text, words_of(text))  # type: ignore[arg-type]


def test_reasons_are_named_as_their_keys() -> None:
    assert set(REASONS) == {field.name for field in fields(FilterConfig)} - {"boilerplate"}


def test_making_pickling_and_unpickling_need_no_heavy_library() -> None:
    program = (
        "import pickle, sys; from cram.config.data import FilterConfig; "
        "from cram.data.cleaning.filters import Filters;"
        "filters = pickle.loads(pickle.dumps(Filters(FilterConfig()))); filters.clean('a');"
        "assert not {'datatrove', 'torch', 'rensa', 'tokenizers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True, cwd=ROOT)


def test_a_pickled_copy_decides_the_same() -> None:
    filters = Filters(FilterConfig())
    text = "buy it now or never " * 40
    assert filters.refuse(text, words_of(text)) == "repetition"
    assert pickle.loads(pickle.dumps(filters)).refuse(text, words_of(text)) == "repetition"


@pytest.mark.parametrize("count", [0, 9, 10, 20, 21])
def test_lengths_in_words(count: int) -> None:
    text = ", ".join(f"word{chr(97 + number)}" for number in range(count))
    expected = {0: "min_words", 9: "min_words", 21: "max_words"}.get(count)
    assert refused(text, min_words=10, max_words=20) == expected
    assert refused(text, min_words=0) is None


def test_good_texts_are_kept() -> None:
    for text in (
        PROSE,
        LATEX,
        "Übergröße, naïve façade — „Straße“ … ¿Qué tal? £5, €7 and 30 per cent, said the minister (again).",
        "Река течёт через старый город, а замок над ней построил епископ в тысяча двести четвёртом году.",
        "नदी पुराने शहर से होकर बहती है और उसके ऊपर का महल एक बिशप ने बनवाया था और वह आज भी है",
    ):
        assert refused(text) is None, text


@pytest.mark.parametrize(
    ("reason", "text"),
    [
        ("symbols", "<td class=x>|one|two|</td>|=|=|{{a}}|{{b}}|<br>*#*~~>> one two three four five six seven eight"),
        (
            "symbols",
            "one two three four five six seven eight nine ten \ufffd\ufffd\ufffd\ufffd\ue000\ue000\x00\x00★★►►",
        ),
        ("digits", "1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 one two three four"),
        ("digits", "٢٠٢٥ ١٢ ٣٤٥٦ ٧٨٩٠ are a few digits of a script, not all of them"),
    ],
)
def test_symbols_and_digits(reason: str, text: str) -> None:
    assert refused(text) == reason
    assert refused(text, **{reason: None}) is None


def test_shares_are_of_all_characters_and_may_be_reached() -> None:
    text = "one two three four five six seven eight nine ten##########" + "12" * 10
    symbols, digits = count_symbols_and_digits(text)
    assert (symbols, digits) == (10, 20)
    assert refused(text, symbols=10 / len(text), digits=20 / len(text)) is None
    assert refused(text, symbols=9.9 / len(text), digits=1.0) == "symbols"
    assert refused(text, symbols=None, digits=19.9 / len(text)) == "digits"
    assert count_symbols_and_digits("") == (0, 0)
    assert refused("", min_words=0, symbols=0.0, digits=0.0) is None


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_symbols_and_digits_counted_one_by_one(text: str) -> None:
    symbols = sum(
        character in "#*+<=>@\\^_`{|}~"
        if 32 <= ord(character) < 127
        else unicodedata.category(character) in ("Sm", "Sk", "So", "Cc", "Co", "Cn") and not character.isspace()
        for character in text
    )
    digits = sum(unicodedata.category(character) == "Nd" for character in text)
    assert count_symbols_and_digits(text) == (symbols, digits)


@pytest.mark.parametrize("line", NOTICES)
def test_notices_are_cut(line: str) -> None:
    assert cut_boilerplate(f"  {PROSE}\r\n\n{line}\n\t{PROSE}\n") == f"  {PROSE}\r\n\n\t{PROSE}\n"


@pytest.mark.parametrize("line", NOT_NOTICES)
def test_prose_is_not_cut(line: str) -> None:
    text = f"{PROSE}\n{line}\n"
    assert cut_boilerplate(text) is text


@given(st.lists(st.sampled_from([*NOTICES, *NOT_NOTICES]) | st.text(), max_size=8))
def test_cutting_takes_whole_lines_and_nothing_else(lines: list[str]) -> None:
    lines = [line for text in lines for line in text.split("\n") if not any("\ud800" <= c <= "\udfff" for c in text)]
    text = "\n".join(lines)
    cleaned = cut_boilerplate(text)
    kept = [line for line in lines if line not in NOTICES]
    assert cleaned == "\n".join(kept)
    assert cut_boilerplate(cleaned) is cleaned
    assert (cleaned is text) == (len(cleaned) == len(text))


def test_clean_follows_its_key() -> None:
    text = f"{PROSE}\nPrivacy Policy"
    assert Filters(FilterConfig()).clean(text) == PROSE
    assert Filters(FilterConfig(boilerplate=False)).clean(text) is text


def test_compressibility() -> None:
    filters = Filters(FilterConfig(compressibility=0.25))
    assert filters.refuse_tokens(24, 100) is None
    assert filters.refuse_tokens(25, 100) == "compressibility"
    assert filters.refuse_tokens(0, 0) == "compressibility"
    assert Filters(FilterConfig(compressibility=None)).refuse_tokens(100, 100) is None


def test_the_first_filter_that_refuses_gives_the_reason() -> None:
    text = "###### 1234567890 " * 100
    order = [("min_words", 200), ("max_words", 99), ("symbols", 0.1), ("digits", 0.2), ("repetition", True)]
    values: dict[str, object] = {
        "min_words": 0,
        "max_words": None,
        "symbols": None,
        "digits": None,
        "repetition": False,
    }
    assert refused(text, **values) is None
    for reason, value in reversed(order):
        values[reason] = value
        if reason == "min_words":
            values["max_words"] = None
        assert refused(text, **values) == reason
