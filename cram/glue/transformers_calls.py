"""Calls into `transformers`: without its own output, and with its errors as ours."""

import contextlib
from collections.abc import Iterator

import torch

from cram.errors import CramError


@contextlib.contextmanager
def quiet_transformers() -> Iterator[None]:
    """In the `with` body, switch off the library's progress bars and its warnings.

    It would warn of the new weights of a classifier, which are new on purpose.
    """
    from transformers.utils import logging

    had_progress_bar, verbosity = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if had_progress_bar:
            logging.enable_progress_bar()


@contextlib.contextmanager
def naming_load_errors(run: str) -> Iterator[None]:
    """Turn whatever the library raises in the `with` body into a CramError of one line.

    A folder with odd values in its files makes the library raise exceptions of any type.

    Args:
        run: what the user gave as `run=`.

    Raises:
        CramError: naming `run`. Exceptions of missing memory pass unchanged.
    """
    try:
        yield
    except (CramError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        reason = error_line(error) or type(error).__name__
        raise CramError(f"run={run} cannot be loaded by transformers ({reason}).") from None


def error_line(error: Exception) -> str:
    """The message of an exception on one line, at most 200 characters."""
    return " ".join(str(error).split())[:200]
