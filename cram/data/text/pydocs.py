"""Extract the English prose of the Python installation from its docstrings and documentation files.

This corpus needs no download. The same installation gives the same documents in the same order.
"""

import inspect
import os
import re
import sysconfig
from collections.abc import Iterator
from pathlib import Path

from cram.data.text.document import Document, faulty_document

LARGEST_FILE = 1_000_000  # bytes; larger files are generated tables
SKIPPED_FOLDERS = frozenset(("__pycache__", "test", "tests", "testing", "_vendor", "vendored", "idle_test", "lib2to3"))
SUFFIXES = (".py", ".rst", ".md", ".txt")
SHORTEST_DOCUMENT = 200  # characters
SHORTEST_PARAGRAPH = 40  # characters
FEWEST_WORDS = 8  # of a paragraph

# Comments and one-line strings are matched too, so that a quote inside them does not open a string. Parsing with `ast`
# would take ten times as long: 25 s for the 200 MB of a usual installation.
_LITERAL = re.compile(
    r'#[^\n]*|"""(?P<double>.*?)"""|\'\'\'(?P<single>.*?)\'\'\'|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\'', re.DOTALL
)
_BULLET = re.compile(r"(?:[-*+•]|\d{1,2}[.)])\s+|\w+ ?\([^)]*\): +|:param \w+: *|:returns?: *|@param \w+:? *")
_UNDERLINE = re.compile(r"([-=~^*+#\"'`.])\1{2,}")
_MARKUP = (
    (re.compile(r":[\w:+-]+:`~?(?:[^`<]*<)?([^`<>]*)>?`"), r"\1"),  # :class:`~package.Name`
    (re.compile(r"!?\[([^\]]+)\]\([^)]*\)"), r"\1"),  # [text](address)
    (re.compile(r"`([^`<]+?)\s*<[^`>]*>`_{0,2}"), r"\1"),  # `text <address>`_
    (re.compile(r"\s?\[[#\w]+\]_"), ""),  # [1]_
    (re.compile(r"[`*|\\]+|~(?=[\w.])|(?<=\w)__?(?=[\s.,])"), ""),
    (re.compile(r"<[^>]{1,80}>"), ""),
    (re.compile(r"\s+"), " "),
    (re.compile(r"::$"), ":"),
)
_CODE = re.compile(r"[=_<>{}\[\]/\\^~#@$%&+;]|\w\(")
_WORD = re.compile(r"[A-Za-z]+(?:['-][A-Za-z]+)*")


def find_documentation() -> list[tuple[str, Path]]:
    """Return (path relative to its root, path) of each module and documentation file, sorted by the relative path."""
    standard, *packages = (Path(sysconfig.get_path(name)) for name in ("stdlib", "purelib", "platlib"))
    roots = dict.fromkeys([standard, *packages])
    return sorted((path.relative_to(root).as_posix(), path) for root in roots for path in _find_below(root))


def extract_prose(files: list[tuple[str, Path]]) -> dict[str, list[Document]]:
    """Return the documents of each top-level package or module.

    Each file gives one document, without the paragraphs that occurred in an earlier one. A file that cannot be read
    gives a document with a fault.
    """
    seen: set[str] = set()  # paragraphs, and whole docstrings, so that a repeated docstring is not cleaned again
    packages: dict[str, list[Document]] = {}
    for name, path in files:
        documents = packages.setdefault(name.partition("/")[0], [])
        try:
            text = path.read_text(encoding="utf-8", errors="ignore")
        except OSError as error:
            documents.append(faulty_document(name, f"cannot be read ({error.strerror}); reinstall its package"))
            continue
        blocks = dict.fromkeys(extract_docstrings(text) if path.suffix == ".py" else [text])
        paragraphs = (paragraph for block in blocks if block not in seen for paragraph in extract_paragraphs(block))
        new_paragraphs = [paragraph for paragraph in dict.fromkeys(paragraphs) if paragraph not in seen]
        seen.update(blocks, new_paragraphs)
        document = "\n".join(new_paragraphs)
        if len(document) >= SHORTEST_DOCUMENT:
            documents.append(Document(document, name))
    return {package: documents for package, documents in packages.items() if documents}


def extract_docstrings(code: str) -> Iterator[str]:
    """Yield the triple-quoted strings of Python code, dedented."""
    for match in _LITERAL.finditer(code):
        text = match["double"] or match["single"]
        if text:
            yield inspect.cleandoc(text)


def extract_paragraphs(text: str) -> Iterator[str]:
    """Yield the paragraphs of a docstring or documentation file that are prose, each as one line without markup."""
    for lines in _split_blocks(text):
        paragraph = " ".join(lines)
        if not _is_sentence(paragraph.strip("`*_~ ")):
            continue
        for pattern, replacement in _MARKUP:
            paragraph = pattern.sub(replacement, paragraph)
        paragraph = paragraph.strip()
        if _is_sentence(paragraph) and _is_prose(paragraph):
            yield paragraph


def _split_blocks(text: str) -> Iterator[list[str]]:
    """Yield runs of lines of the same indentation. A blank line ends a run, and a bullet begins one."""
    block: list[str] = []
    indent: int | None = None  # of the run; None below a bullet, because its text may be indented by any amount
    for depth, content in _strip_examples(text):
        bullet = _BULLET.match(content)
        if block and (not content or bullet or indent not in (None, depth)):
            yield block
            block = []
        if content:
            block.append(content[bullet.end() :] if bullet else content)
            indent = None if bullet else depth
    if block:
        yield block


def _strip_examples(text: str) -> Iterator[tuple[int, str]]:
    """Yield (indentation, content) of each line. The content is empty if the line belongs to an example.

    Examples are: lines from `>>>` to the next blank line, lines that are indented below a directive or below a line
    that ends in `::`, and fenced blocks.
    """
    skip_deeper: int | None = None
    fenced = example = False
    for line in text.expandtabs().splitlines():
        content = line.strip()
        depth = len(line) - len(line.lstrip())
        if content.startswith("```"):
            fenced = not fenced
            content = ""
        elif _UNDERLINE.fullmatch(content):
            content = ""
        example = bool(content) and (example or content.startswith(">>>"))
        if skip_deeper is not None and content and depth <= skip_deeper:
            skip_deeper = None
        if fenced or example or skip_deeper is not None:
            content = ""
        if content.startswith(".. ") or content.endswith("::"):
            skip_deeper = depth
        yield depth, "" if content.startswith((".. ", ":", "@")) and not _BULLET.match(content) else content


def _is_sentence(paragraph: str) -> bool:
    """Whether a paragraph is long enough and runs from a capital to a full stop: cheap, and true of one run in four."""
    return len(paragraph) >= SHORTEST_PARAGRAPH and paragraph[0].isupper() and paragraph[-1] in ".!?:"


def _is_prose(paragraph: str) -> bool:
    """Whether a paragraph has words of usual length, mostly letters, and almost no code."""
    words = _WORD.findall(paragraph)
    letters = sum(map(len, words))
    return (
        len(words) >= FEWEST_WORDS
        and letters >= 0.72 * len(paragraph)
        and letters <= 9 * len(words)
        and 12 * len(_CODE.findall(paragraph)) <= len(words)
    )


def _find_below(root: Path) -> Iterator[Path]:
    """Yield the modules and documentation files below `root`, without those of `site-packages`: a root of its own."""
    for folder, folders, names in os.walk(root):
        folders[:] = [name for name in folders if name not in SKIPPED_FOLDERS and name != "site-packages"]
        for name in names:
            path = Path(folder, name)
            if name.endswith(SUFFIXES) and path.is_file() and path.stat().st_size <= LARGEST_FILE:
                yield path
