"""Files behind an address that `fsspec` knows, such as `s3://BUCKET/FOLDER`: listed and opened, never downloaded whole.

Every request that may find nobody at the other end has a limit of time.
"""

import io
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from glob import has_magic
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Any, BinaryIO, TypeVar, cast

from cram.data.text.saved_datasets import select_record_files
from cram.errors import CramError

Answer = TypeVar("Answer")

ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
ANSWER_SECONDS = 20.0  # the longest wait for the first answer of a store
BLOCK_BYTES = 1 << 22  # of one request for content
EXTRAS = {"s3": "s3", "s3a": "s3", "gs": "gs", "gcs": "gs"}
# The library below S3 would otherwise wait a minute for a connection, and try five times.
S3_OPTIONS = {"config_kwargs": {"connect_timeout": 5, "read_timeout": 60, "retries": {"max_attempts": 1}}}
OPTIONS: dict[str, dict[str, Any]] = {"s3": S3_OPTIONS, "s3a": S3_OPTIONS}
# What stores tell of a file that changes with its content, the best first: checksums, then times.
CHECKSUMS = (
    "ETag",
    "etag",
    "md5Hash",
    "md5",
    "Content-MD5",
    "Digest",
    "sha256",
    "blob_id",
    "checksum",
    "crc32c",
    "mtime",
    "LastModified",
    "Last-Modified",
    "last_modified",
    "modified",
    "created",
)


@dataclass(frozen=True)
class RemoteFile:
    """A file of a store.

    Attributes:
        address: with which `open_remote` opens it.
        size: bytes; 0 if the store does not say.
        checksum: what the store says of the content: a checksum, else the time of the last change; "" if neither.
    """

    address: str
    size: int
    checksum: str

    @property
    def file_name(self) -> str:
        """The last step of the address, without the parameters of a web address."""
        address = self.address.split("?")[0] if self.address.startswith("http") else self.address
        return address.rstrip("/").rpartition("/")[2]


class BrokenOffError(Exception):
    """The store stopped to answer while a file was read."""


def is_address(text: str) -> bool:
    """Whether a text begins as an address, such as `s3://`."""
    return bool(ADDRESS.match(text))


def list_remote(address: str, extensions: tuple[str, ...]) -> list[RemoteFile]:
    """Return the files that an address names, in the order of their names; none if nothing matches.

    A folder stands for all files below it whose name ends in one of the `extensions`. An address may be a glob.

    Raises:
        CramError: the address cannot be reached or not be read, or needs a package that is not installed.
    """
    with _naming_errors(address):
        system, path = _open_system(address)
        system.invalidate_cache()
        found = _list(system, path, address, extensions)
        files = [_describe(system, name, details) for name, details in sorted(found.items())]
    return [file for file in files if file.file_name]


def open_remote(address: str) -> BinaryIO:
    """Open a file of a store for reading bytes.

    Reading raises `BrokenOffError` for whatever goes wrong between here and the store.

    Raises:
        CramError: it cannot be opened.
    """
    with _naming_errors(address):
        system, path = _open_system(address)
        raw = _ask(address, lambda: system.open(path, "rb", block_size=BLOCK_BYTES))
    return cast(BinaryIO, _Watched(raw))


def _open_system(address: str) -> tuple[Any, str]:
    import fsspec

    scheme = address.partition("://")[0]
    try:
        system, path = fsspec.core.url_to_fs(address, **OPTIONS.get(scheme, {}))
    except ImportError as error:
        extra = EXTRAS.get(scheme)
        remedy = f"pip install -e '.[{extra}]'" if extra else "install the package that reads such addresses"
        raise CramError(f"data.source={address!r} needs a package that is not installed ({error})\n{remedy}") from None
    return system, path


def _list(system: Any, path: str, address: str, extensions: tuple[str, ...]) -> dict[str, Any]:
    """Return what the store says of each file that a path names, by the path of the file."""
    details = _ask(address, lambda: _info(system, path))
    if details and details["type"] == "file":
        return {path: details}
    if details:
        found = {name: one for name, one in system.find(path, detail=True).items() if one["type"] == "file"}
        named = [name for name in found if name.lower().endswith(extensions)]
        return {name: found[name] for name in select_record_files(address, named)}
    if not has_magic(path):
        raise FileNotFoundError
    root = path[: next(place for place, sign in enumerate(path) if sign in "*?[")].rpartition("/")[0]
    if root and not _ask(address, lambda: _info(system, root)):
        raise FileNotFoundError
    return {name: one for name, one in system.glob(path, detail=True).items() if one["type"] == "file"}


def _info(system: Any, path: str) -> dict[str, Any] | None:
    try:
        details: dict[str, Any] = system.info(path)
    except FileNotFoundError as error:
        # A web address is reported as missing whatever went wrong with it.
        reason = error.__cause__
        if reason and (isinstance(reason, OSError) or getattr(reason, "status", 404) != 404):
            raise reason from None
        return None
    return details


def _describe(system: Any, path: str, details: dict[str, Any]) -> RemoteFile:
    if not any(details.get(key) for key in CHECKSUMS):
        details = details | system.info(path)
    checksum = next((f"{key} {details[key]}" for key in CHECKSUMS if details.get(key)), "")
    return RemoteFile(system.unstrip_protocol(path), details.get("size") or 0, checksum)


def _ask(address: str, question: Callable[[], Answer]) -> Answer:
    """Return the answer to a question, or raise what it raises.

    Raises:
        CramError: there is no answer in time. The libraries below would try for minutes.
    """
    answers: SimpleQueue[tuple[bool, Any]] = SimpleQueue()

    def answer() -> None:
        try:
            answers.put((True, question()))
        except BaseException as error:  # raised below, in the thread that asks
            answers.put((False, error))

    Thread(target=answer, daemon=True).start()
    try:
        is_answer, result = answers.get(timeout=ANSWER_SECONDS)
    except Empty:
        raise CramError(
            f"data.source={address!r} does not answer within {ANSWER_SECONDS:.0f} seconds\n"
            "check the address and the network."
        ) from None
    if not is_answer:
        raise result
    return cast(Answer, result)


@contextmanager
def _naming_errors(address: str) -> Iterator[None]:
    """Raise what goes wrong as a CramError that names the address and says what to do."""
    try:
        yield
    except CramError:
        raise
    except FileNotFoundError:
        raise CramError(
            f"data.source={address!r}: there is no such file, folder or bucket\ncheck the address."
        ) from None
    except PermissionError as error:
        raise CramError(
            f"data.source={address!r}: access is denied ({first_line(error)})\n"
            "check the credentials, and whether they allow to list and to read it."
        ) from None
    except Exception as error:  # every store raises what the library below it raises
        remedy = "check the address and the network."
        if "redential" in f"{type(error).__name__} {error}":
            remedy = "give credentials as the store's own tools take them, such as AWS_ACCESS_KEY_ID for S3 "
            remedy += "(for a public bucket FSSPEC_S3_ANON=true)."
        raise CramError(f"data.source={address!r} cannot be reached ({first_line(error)})\n{remedy}") from None


def first_line(error: BaseException) -> str:
    """Return the type of an error and the first line of its text."""
    return f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0]}"


class _Watched(io.RawIOBase):
    """A file that raises `BrokenOffError` where the file below it raises anything."""

    def __init__(self, raw: Any) -> None:
        self._raw = raw

    def read(self, size: int | None = -1) -> bytes:
        try:
            data: bytes = self._raw.read(-1 if size is None else size)
        except Exception as error:  # every store raises what the library below it raises
            raise BrokenOffError(first_line(error)) from error
        return data

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return bool(self._raw.seekable())

    def seek(self, offset: int, whence: int = 0) -> int:
        return int(self._raw.seek(offset, whence))

    def tell(self) -> int:
        return int(self._raw.tell())

    def close(self) -> None:
        if not self.closed:
            self._raw.close()
        super().close()
