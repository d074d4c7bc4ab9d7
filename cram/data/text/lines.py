"""Chunks of bytes -> lines."""

from collections.abc import Iterable, Iterator

BYTE_ORDER_MARK = b"\xef\xbb\xbf"  # editors on Windows write it before UTF-8


def split_lines(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the lines without their line feeds; the last one may lack a line feed."""
    pieces: list[bytes] = []  # of a line that spans many chunks: joined once, not at each chunk
    for chunk in chunks:
        first, *lines = chunk.split(b"\n")
        pieces.append(first)
        if lines:
            yield b"".join(pieces)
            yield from lines[:-1]
            pieces = lines[-1:]
    if rest := b"".join(pieces):
        yield rest


def unify_newlines(chunks: Iterable[bytes]) -> Iterator[bytes]:
    r"""Replace the line ends of Windows (\r\n) and of old Macs (\r) by line feeds."""
    held_back = b""  # a carriage return at the end of a chunk: the next chunk may begin with its line feed
    for chunk in chunks:
        data = held_back + chunk
        held_back = b"\r" if data.endswith(b"\r") else b""
        yield data.removesuffix(held_back).replace(b"\r\n", b"\n").replace(b"\r", b"\n")


def number_lines(chunks: Iterable[bytes]) -> Iterator[tuple[int, bytes]]:
    """Yield the number of each line, from 1, and the line; without the mark of UTF-8 before the first one."""
    for number, line in enumerate(split_lines(chunks), start=1):
        yield number, line.removeprefix(BYTE_ORDER_MARK) if number == 1 else line
