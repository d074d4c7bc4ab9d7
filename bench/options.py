"""What the options of all benchmarks share: words of the command line, as the project's doors take them."""

from collections.abc import Iterable
from pathlib import Path

from cram.config.recipe import suggest_nearest
from cram.errors import CramError

RESULTS = Path(__file__).resolve().parent / "results"
OUT_HELP = "folder of the results (null: bench/results)"


def results_folder(out: str | None) -> Path:
    """Return the folder that `out=` names, or bench/results."""
    return RESULTS if out is None else Path(out)


def choose(key: str, words: list[str], choices: Iterable[str], default: list[str] | None = None) -> list[str]:
    """Return the words of a list key; where the list is empty, the default or all choices.

    Raises:
        CramError: for a word that is not one of the choices.
    """
    known = list(choices)
    for word in words:
        if word not in known:
            raise CramError(f"{key}={word} is not one of {', '.join(known)}.{suggest_nearest(word, known)}")
    return words or default or known
