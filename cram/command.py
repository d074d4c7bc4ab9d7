"""What all commands share: help, messages, signals and the exit status."""

import signal
import sys
import threading
import traceback
from collections.abc import Callable, Collection
from contextlib import suppress
from typing import Any

from cram.config.config import Config
from cram.config.help import help_text
from cram.config.recipe import read_config
from cram.distributed.door import close_rank, open_rank, refuse_ranks
from cram.distributed.launch import Launch, read_launch
from cram.distributed.watch import describe_failure
from cram.errors import CramError
from cram.files.limits import lift_open_files_limit, raise_if_out_of_memory, raise_if_too_many
from cram.machine.processes import INTERRUPTED, STOP_SIGNALS, URGENT, end_with_parent
from cram.terminal.output import output_failed, protect_output

HELP = ("-h", "--help", "help")


def run_door(
    main: Callable[[list[str]], int | None],
    schema: type,
    about: str,
    instead: type | None = None,
    only_prints: bool = False,
    repeated: Collection[str] = (),
    on_ranks: bool = False,
) -> None:
    """Run a command on the words of the command line and exit with its status.

    The status is 0 for success, 2 where the user's words or files are at fault (one or two lines, no traceback), 1 for
    a failure of cram itself (with a traceback), and 130 after an interruption.

    Args:
        main: takes the words and returns the status; None counts as 0.
        schema: the dataclass whose keys `--help` lists.
        about: what `--help` prints first.
        instead: another dataclass whose keys the command takes in place of those of `schema`.
        only_prints: whether the command does nothing but print. Only then does standard output that cannot be written
            make the status 2.
        repeated: names of the keys that may be given several times.
        on_ranks: whether torchrun may start the command on several ranks. Other commands are refused there.
    """
    protect_output()
    lift_open_files_limit()
    words = sys.argv[1:]
    try:
        launch = read_launch()
    except CramError as error:
        print(f"cram: {error}", file=sys.stderr)
        sys.exit(2)
    open_rank(launch)
    only_shows = any(word in (*HELP, "--print") for word in words)
    if only_shows and not launch.leads:
        sys.exit(0)
    if any(word in HELP for word in words):
        print_help(schema, about, instead, [word for word in words if word.startswith("recipe=")])
        sys.exit(2 if output_failed() else 0)
    _handle(_interrupt if launch.leads else _ignore)
    end_with_parent()
    status, message = _run(main, words, launch, repeated, on_ranks)
    if not status and (only_prints or "--print" in words) and output_failed():
        status = 2
    sys.exit(status if only_shows else close_rank(launch, status, message))


def _run(
    main: Callable[[list[str]], int | None],
    words: list[str],
    launch: Launch,
    repeated: Collection[str],
    on_ranks: bool,
) -> tuple[int, str]:
    """Run a command.

    Returns:
        The exit status, and what rank 0 has to say for this rank: only rank 0 prints.
    """
    try:
        if not on_ranks:
            refuse_ranks(launch)
        refuse_repeats(words, repeated)
        return _naming_limits(main, words) or 0, ""
    except CramError as error:
        if launch.leads:
            print(f"cram: {error}", file=sys.stderr)
        return 2, str(error)
    except KeyboardInterrupt:
        if launch.leads:
            print("cram: interrupted.", file=sys.stderr)
        return INTERRUPTED, ""
    except Exception as error:
        if launch.size == 1:
            raise
        traceback.print_exc()
        return 1, describe_failure(launch, error)


def _naming_limits(main: Callable[[list[str]], int | None], words: list[str]) -> int | None:
    """Run a command, and name a limit of the system that it meets.

    Raises:
        CramError: where it needs more open files or memory than it may have.
    """
    try:
        return main(words)
    except OSError as error:
        raise_if_too_many(error)
        raise_if_out_of_memory(error)
        raise
    except (MemoryError, ImportError, RuntimeError) as error:
        raise_if_out_of_memory(error)
        raise


def refuse_repeats(words: list[str], repeated: Collection[str] = ()) -> None:
    """Check that no key is given twice.

    Args:
        repeated: names of the keys that may be.

    Raises:
        CramError: naming the key.
    """
    names = [word.partition("=")[0] for word in words]
    for name in names:
        if names.count(name) > 1 and name not in repeated:
            raise CramError(f"{name}= is given twice. Give it once.")


def dry_run_words(words: list[str]) -> list[str]:
    """Replace the word `--print` by `dry_run=true`."""
    return ["dry_run=true" if word == "--print" else word for word in words]


def print_help(schema: type, about: str, instead: type | None, recipe: list[str]) -> None:
    """Print what a command does, and its keys: with `recipe=NAME` the values of the recipe beside the defaults."""
    try:
        config = read_config(recipe) if recipe and schema is Config else None
    except CramError as error:
        print(f"cram: {error}", file=sys.stderr)
        sys.exit(2)
    print(f"{about}\n\nWords are key=value:\n{help_text(schema, config)}")
    if instead:
        print(f"\nOr, instead of all these:\n{help_text(instead)}")


class StopSignals:
    """While it is entered, the first signal to stop is a request, so that the state can be saved.

    A second SIGINT or SIGTERM stops at once. Attribute `asked`: whether there was a request.
    """

    def __init__(self) -> None:
        self.asked = False
        self._urgent = False
        self._handlers_before: dict[signal.Signals, object] = {}

    def __enter__(self) -> "StopSignals":
        self._handlers_before = _handle(self._ask)
        return self

    def __exit__(self, *_: object) -> None:
        for name, handler in self._handlers_before.items():
            signal.signal(name, handler)  # type: ignore[arg-type]

    def _ask(self, number: int, _: object) -> None:
        if number in URGENT:
            if self._urgent:
                raise KeyboardInterrupt
            self._urgent = True
        if not self.asked:
            self.asked = True
            with suppress(RuntimeError):  # the signal may come while another line is printed
                print("\nstopping after this update; the state will be saved (once more: stop at once)", flush=True)


def _handle(handler: Callable[[int, Any], None]) -> dict[signal.Signals, object]:
    """Set the handler of all signals that ask a process to stop.

    A SIGHUP that is ignored stays ignored, because that is what nohup is for. Only the main thread may set handlers, so
    a run that was started in another thread cannot be stopped by a signal.

    Returns:
        The handlers that were set before.
    """
    if threading.current_thread() is not threading.main_thread():
        return {}
    names = [name for name in STOP_SIGNALS if name.name != "SIGHUP" or signal.getsignal(name) != signal.SIG_IGN]
    return {name: signal.signal(name, handler) for name in names}


def _ignore(*_: object) -> None:
    """Leave a signal to rank 0, which has received it too."""


def _interrupt(*_: object) -> None:
    for name in STOP_SIGNALS:
        if name not in URGENT:
            signal.signal(name, signal.SIG_IGN)
    raise KeyboardInterrupt
