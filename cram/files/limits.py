"""What a process may have: open files, memory and room on a disk."""

import errno
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from cram.errors import CramError
from cram.files.atomic import raise_if_full

ENOUGH = 65536  # files; a system that promises any number refuses more than it has


def raise_open_files() -> None:
    """Raise this process's limit of open files as far as it may: every shard that is mapped counts as one."""
    with suppress(ImportError, OSError, ValueError):  # a platform may have no such limit, or a lower one than it says
        import resource

        soft, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        wanted = ENOUGH if most == resource.RLIM_INFINITY else min(most, ENOUGH)
        if soft != resource.RLIM_INFINITY and soft < wanted:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, most))


def raise_if_too_many(error: OSError) -> None:
    """Turn the limit of open files into a CramError; let any other error pass."""
    if error.errno in (errno.EMFILE, errno.ENFILE):
        where = f" ({error.filename})" if error.filename else ""
        raise CramError(
            f"too many files are open{where}. Allow more and run the same command again: ulimit -n {ENOUGH}"
        ) from None


def raise_if_out_of_memory(error: Exception) -> None:
    """Turn a refusal of memory, the system's, Python's or torch's, into a CramError; let any other error pass."""
    refused = isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM)
    if refused or _library_refuses(error) or ("torch" in sys.modules and _torch_refuses(error)):
        what = " ".join(str(error).split())[:200]
        raise CramError(
            f"out of memory{f' ({what})' if what else ''}.\n"
            "Make what is large in your words smaller, or free some memory, and run the same command again."
        ) from None


def _library_refuses(error: Exception) -> bool:
    """Whether a library could not be loaded for want of memory."""
    return isinstance(error, ImportError) and "failed to map segment" in str(error)


def _torch_refuses(error: Exception) -> bool:
    from cram.machine.device import is_out_of_memory  # imports torch, which takes seconds

    return is_out_of_memory(error)


@contextmanager
def naming_disk_errors(folder: Path, key: str) -> Iterator[None]:
    """Turn what a disk says in the `with` body, to Python or to a library in Rust, into a CramError.

    Args:
        folder: where the body writes, and `key` the word that names it: `to`, `data.dir`.
    """
    try:
        yield
    except Exception as error:
        found = error if isinstance(error, OSError) else _of_rust(error)
        if found is None or found.errno is None:  # a library's own OSError is not of a disk
            raise
        raise_if_full(found, folder)
        raise_if_too_many(found)
        raise_if_out_of_memory(found)
        raise CramError(f"{key}={folder}: cannot be written ({found.strerror}). Choose another {key}=.") from None


def _of_rust(error: Exception) -> OSError | None:
    """The error of the system that safetensors and tokenizers speak of in words: `... (os error 28)`."""
    said = re.search(r"\(os error (\d+)\)", str(error))
    return OSError(int(said[1]), os.strerror(int(said[1]))) if said else None
