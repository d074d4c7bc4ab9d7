from pathlib import Path

import pytest

from cram.data.text.document import Document
from cram.data.text.pydocs import extract_docstrings, extract_paragraphs, extract_prose, find_documentation

CODE = '''
# A comment with """ in it opens nothing.
TEXT = "neither does '" + '""'
def f(x):
    r"""Do the first thing to the argument, and then the second one.

    More prose about what this does, in :class:`~package.Name` and ``literal`` [1]_.
    It goes on in a second line of the same paragraph.

    .. note:: directives go

    Example, to be left out together with its code, but not this sentence::

        for line in this: is_no_prose(line) or "It looks like prose and is indented below a colon."

    >>> f("This is an example and it is not prose at all, whatever it says.")
    'The output of the example is not prose either, so it is left out too.'

    Parameters
    ----------
    x : int
        The number of things that are done before the function returns.

    Returns:
        value (str): A description of what the caller gets back from the call,
            continued below.
    """
'''


def test_docstrings_are_found_past_comments_and_quotes() -> None:
    (text,) = extract_docstrings(CODE)
    assert text.startswith("Do the first thing")
    assert "\nParameters\n" in text, "dedented"


def test_only_prose_is_kept_and_markup_goes() -> None:
    (text,) = extract_docstrings(CODE)
    assert list(extract_paragraphs(text)) == [
        "Do the first thing to the argument, and then the second one.",
        "More prose about what this does, in package.Name and literal. "
        "It goes on in a second line of the same paragraph.",
        "Example, to be left out together with its code, but not this sentence:",
        "The number of things that are done before the function returns.",
        "A description of what the caller gets back from the call, continued below.",
    ]


def test_repeated_paragraphs_are_kept_once(tmp_path: Path) -> None:
    sentence = "This sentence number {} is long enough to be called a paragraph of prose."
    first = "\n\n".join(map(sentence.format, ("one", "two", "three", "one", "four")))
    (tmp_path / "a.md").write_text(first)
    (tmp_path / "b.rst").write_text(f"A new heading\n=============\n\n{first}")
    assert extract_prose([("p/a.md", tmp_path / "a.md"), ("q/b.rst", tmp_path / "b.rst")]) == {
        "p": [Document("\n".join(map(sentence.format, ("one", "two", "three", "four"))), "p/a.md")]
    }


def test_a_file_that_cannot_be_read_is_a_fault(tmp_path: Path) -> None:
    (broken,) = extract_prose([("p/a.md", tmp_path / "gone.md")])["p"]
    assert broken == Document("", "p/a.md", "p/a.md: cannot be read (No such file or directory); reinstall its package")


def test_a_broken_link_is_ignored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.md").write_text("")
    (tmp_path / "b.md").symlink_to(tmp_path / "gone.md")
    monkeypatch.setattr("sysconfig.get_path", lambda _: str(tmp_path))
    assert find_documentation() == [("a.md", tmp_path / "a.md")]


def test_the_files_of_this_installation() -> None:
    files = find_documentation()
    names = [name for name, _ in files]
    assert names == sorted(names)
    assert "argparse.py" in names and "numpy/__init__.py" in names
    assert not any("/tests/" in name for name in names)
    packages = extract_prose([file for file in files if file[0].startswith(("argparse", "json/", "logging/"))])
    assert list(packages) == ["argparse.py", "json", "logging"]
    assert len(packages["json"][0].text) > 1000
