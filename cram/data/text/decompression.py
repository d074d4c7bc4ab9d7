"""Compressed or plain files -> chunks of their bytes, in bounded memory.

The readers of the standard library and of zstandard accept some truncated or padded files as complete. The functions
here report such files as damaged, and read every stream of a file that holds several.
"""

import bz2
import gzip
import lzma
import zlib
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import BinaryIO

COMPRESSIONS = ("", ".zst", ".gz", ".xz", ".bz2")
CHUNK_BYTES = 1 << 16  # one read from the disk; text decompresses about 4-fold, so the chunks stay small
LONGEST_WINDOW = 2**31  # of zstandard, in bytes: files made with `zstd --ultra --long=31` are read


class DamagedFileError(Exception):
    """The file cannot be read any further."""


# What reading a damaged file raises: gzip raises EOFError, OSError and zlib.error.
READ_ERRORS = (DamagedFileError, EOFError, OSError, lzma.LZMAError, zlib.error)


def read_chunks(raw: BinaryIO, compression: str) -> Iterator[bytes]:
    """Yield the decompressed bytes of an open file; `compression` is one of `COMPRESSIONS`.

    Raises:
        Exception: one of `READ_ERRORS` for a file that is damaged or truncated.
    """
    if compression == ".zst":
        yield from _read_zstandard(raw)
    elif compression == ".xz":
        yield from _read_streams(raw, lzma.LZMADecompressor)
    elif compression == ".bz2":
        yield from _read_streams(raw, bz2.BZ2Decompressor)
    else:
        with gzip.open(raw) if compression else nullcontext(raw) as stream:
            while chunk := stream.read(CHUNK_BYTES):
                yield chunk


def _read_streams(
    raw: BinaryIO, new_decompressor: Callable[[], lzma.LZMADecompressor | bz2.BZ2Decompressor]
) -> Iterator[bytes]:
    """Decompress an .xz or .bz2 file stream by stream.

    The library's own reader stops without an error at bytes after a stream that do not begin another stream. Those
    bytes may be the zeros that pad an .xz file, with more streams after them. Zeros before the first stream are
    damage: a disk leaves them in place of data that was never written.
    """
    decompressor = None
    rest, begun = b"", False
    while data := rest or raw.read(CHUNK_BYTES):
        rest = b""
        if not begun and data.startswith(b"\0"):
            raise DamagedFileError("it begins with zero bytes")
        begun = True
        if decompressor is None:
            data = data.lstrip(b"\0")
            if not data:
                continue
            decompressor = new_decompressor()
        yield decompressor.decompress(data, CHUNK_BYTES)
        while not (decompressor.eof or decompressor.needs_input):
            yield decompressor.decompress(b"", CHUNK_BYTES)
        if decompressor.eof:
            rest, decompressor = decompressor.unused_data, None
    if decompressor is not None:
        raise DamagedFileError("truncated: it ends in the middle of a stream")


def _read_zstandard(raw: BinaryIO) -> Iterator[bytes]:
    """Decompress frame by frame: the library's own stream reader accepts a truncated file as complete."""
    import zstandard

    decompressor = zstandard.ZstdDecompressor(max_window_size=LONGEST_WINDOW)
    frame = decompressor.decompressobj()
    rest, complete = b"", True
    try:
        while data := rest or raw.read(CHUNK_BYTES):
            yield frame.decompress(data)
            rest, complete = frame.unused_data, frame.eof
            if complete:
                frame = decompressor.decompressobj()
    except zstandard.ZstdError as error:
        raise DamagedFileError(error) from error
    if not complete:
        raise DamagedFileError("truncated: it ends in the middle of a frame")
