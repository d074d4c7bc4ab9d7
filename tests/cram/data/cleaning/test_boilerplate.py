import pytest
from hypothesis import given
from hypothesis import strategies as st

from cram.data.cleaning.boilerplate import cut_boilerplate

PROSE = "The river runs through the old town, and the castle above it was built by a bishop in the year 1204."
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


@pytest.mark.parametrize("line", NOTICES)
def test_notices_are_cut(line: str) -> None:
    assert cut_boilerplate(f"  {PROSE}\r\n\n{line}\n\t{PROSE}\n") == f"  {PROSE}\r\n\n\t{PROSE}\n"


@pytest.mark.parametrize("line", NOT_NOTICES)
def test_prose_is_not_cut(line: str) -> None:
    text = f"{PROSE}\n{line}\n"
    assert cut_boilerplate(text) is text


@given(st.lists(st.sampled_from([*NOTICES, *NOT_NOTICES]) | st.text(), max_size=8))
def test_only_whole_lines_are_cut(lines: list[str]) -> None:
    lines = [line for text in lines for line in text.split("\n") if not any("\ud800" <= c <= "\udfff" for c in text)]
    text = "\n".join(lines)
    cleaned = cut_boilerplate(text)
    kept = [line for line in lines if line not in NOTICES]
    assert cleaned == "\n".join(kept)
    assert cut_boilerplate(cleaned) is cleaned
    assert (cleaned is text) == (len(cleaned) == len(text))
