"""Limits of the system on a process (open files, memory, room on a disk), and messages for a limit that is reached."""

import errno
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from cram.errors import CramError
from cram.files.atomic import raise_if_full

OPEN_FILES = 65536  # requested even where the limit is "unlimited": such systems refuse more than they have


def lift_open_files_limit() -> None:
    """Raise this process's limit of open files as far as allowed. Every mapped shard counts as an open file."""
    with suppress(ImportError, OSError, ValueError):  # some platforms have no such limit, or a lower one than they say
        import resource

        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        target = OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, OPEN_FILES)
        if soft != resource.RLIM_INFINITY and soft < target:
            resource.setrlimit(resource.RLIMIT_NOFILE, (target, hard))


def raise_if_too_many(error: OSError) -> None:
    """Raise a CramError if `error` says that too many files are open. Otherwise do nothing.

    Raises:
        CramError: too many files are open.
    """
    if error.errno in (errno.EMFILE, errno.ENFILE):
        where = f" ({error.filename})" if error.filename else ""
        raise CramError(
            f"too many files are open{where}. Allow more and run the same command again: ulimit -n {OPEN_FILES}"
        ) from None


def raise_if_out_of_memory(error: Exception) -> None:
    """Raise a CramError if the system, Python or torch ran out of memory. Otherwise do nothing.

    Raises:
        CramError: out of memory.
    """
    refused = isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM)
    if refused or _is_library_not_mapped(error) or ("torch" in sys.modules and _is_torch_out_of_memory(error)):
        reason = " ".join(str(error).split())[:200]
        raise CramError(
            f"out of memory{f' ({reason})' if reason else ''}.\n"
            "Choose smaller values for the large sizes among your words, or free some memory, and run it again."
        ) from None


def _is_library_not_mapped(error: Exception) -> bool:
    """Whether a shared library could not be loaded because there was no memory for it."""
    return isinstance(error, ImportError) and "failed to map segment" in str(error)


def _is_torch_out_of_memory(error: Exception) -> bool:
    from cram.machine.device import is_out_of_memory  # imports torch, which takes seconds

    return is_out_of_memory(error)


@contextmanager
def report_disk_errors(folder: Path, key: str) -> Iterator[None]:
    """Within the `with` block, turn errors of the disk into a CramError, also those raised by a library in Rust.

    Args:
        folder: the folder in which the block writes.
        key: the key that names this folder in the user's words, such as `to` or `data.dir`.

    Raises:
        CramError: the disk is full, too many files are open, memory is short, or the folder cannot be written.
    """
    try:
        yield
    except Exception as error:
        cause = error if isinstance(error, OSError) else _error_from_rust(error)
        if cause is None or cause.errno is None:  # some libraries raise an OSError of their own without a number
            raise
        raise_if_full(cause, folder)
        raise_if_too_many(cause)
        raise_if_out_of_memory(cause)
        raise CramError(f"{key}={folder}: cannot be written ({cause.strerror}). Choose another {key}=.") from None


def _error_from_rust(error: Exception) -> OSError | None:
    """The system error that safetensors and tokenizers mention only in their text: `... (os error 28)`."""
    match = re.search(r"\(os error (\d+)\)", str(error))
    return OSError(int(match[1]), os.strerror(int(match[1]))) if match else None
