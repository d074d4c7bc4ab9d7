"""What every door shares: help, errors and exit status."""

import signal
import sys
from collections.abc import Callable

from cram.config import Config
from cram.errors import CramError
from cram.help import help_text
from cram.recipe import read_config

INTERRUPTED = 130


def run_door(main: Callable[[list[str]], int | None], schema: type, about: str, instead: type | None = None) -> None:
    """Run a command on the words of the command line and leave with its exit status.

    `--help` lists the keys of `schema`, and those of `instead`, which a command may take in their place.

    0 done; 2 the user's words or files are at fault (one or two lines, no traceback);
    1 a failure of ours (traceback); 130 interrupted.
    """
    words = sys.argv[1:]
    if any(word in ("-h", "--help", "help") for word in words):
        print_help(schema, about, instead, [word for word in words if word.startswith("recipe=")])
        return
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        refuse_repeats(words)
        status = main(words)
    except CramError as error:
        print(f"cram: {error}", file=sys.stderr)
        status = 2
    except KeyboardInterrupt:
        print("cram: interrupted.", file=sys.stderr)
        status = INTERRUPTED
    sys.exit(status or 0)


def refuse_repeats(words: list[str]) -> None:
    """Errors: CramError for a key that is given twice, of which one is a slip."""
    names = [word.partition("=")[0] for word in words]
    for name in names:
        if names.count(name) > 1:
            raise CramError(f"{name}= is given twice. Give it once.")


def dry_run_words(words: list[str]) -> list[str]:
    """The words with `--print` as `dry_run=true`."""
    return ["dry_run=true" if word == "--print" else word for word in words]


def print_help(schema: type, about: str, instead: type | None, recipe: list[str]) -> None:
    """Print what a command does and its keys; with `recipe=NAME` the recipe's values beside the defaults."""
    try:
        config = read_config(recipe) if recipe and schema is Config else None
    except CramError as error:
        print(f"cram: {error}", file=sys.stderr)
        sys.exit(2)
    print(f"{about}\n\nWords are key=value:\n{help_text(schema, config)}")
    if instead:
        print(f"\nOr, instead of all these:\n{help_text(instead)}")


class StopSignals:
    """Turns the first SIGINT or SIGTERM into a wish, so that the state can be saved; the second interrupts."""

    def __init__(self) -> None:
        self.asked = False
        self._before: dict[signal.Signals, object] = {}

    def __enter__(self) -> "StopSignals":
        for name in (signal.SIGINT, signal.SIGTERM):
            self._before[name] = signal.signal(name, self._ask)
        return self

    def __exit__(self, *_: object) -> None:
        for name, handler in self._before.items():
            signal.signal(name, handler)  # type: ignore[arg-type]

    def _ask(self, *_: object) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True
        print("\nstopping after this update; the state will be saved (once more: stop at once)", flush=True)


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt
