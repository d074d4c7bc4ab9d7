"""From bytes to text in the encoding that `data.encoding` names."""

import codecs
from collections.abc import Iterable, Iterator
from functools import lru_cache

from cram.data.text.decompression import DamagedFileError
from cram.errors import CramError

UTF8 = "utf-8"
# Encodings of Python that are made for other uses than the text of a file.
NOT_FOR_FILES = ("idna", "punycode", "raw-unicode-escape", "undefined", "unicode-escape")


class TextEncoding:
    """An encoding of text.

    In most encodings a byte below 128 is always the ASCII character, so a line of bytes can be decoded alone and a
    fault concerns that line only. A file in another encoding, such as UTF-16, is converted to UTF-8 as a whole.

    Args:
        name: one of the names of an encoding that Python knows.

    Attributes:
        name: the encoding in which `decode` reads bytes.

    Raises:
        CramError: the name is unknown.
    """

    def __init__(self, name: str) -> None:
        self._source_name = normalize_encoding(name)
        self._keeps_ascii = _keeps_ascii(self._source_name)
        self.name = self._source_name if self._keeps_ascii else UTF8

    def convert(self, chunks: Iterable[bytes]) -> Iterable[bytes]:
        """Return the bytes of a file as `decode` reads them.

        Raises:
            DamagedFileError: while it is iterated, if an encoding that is read as a whole does not fit.
        """
        return chunks if self._keeps_ascii else self._to_utf8(chunks)

    def decode(self, data: bytes) -> str:
        """Decode bytes that `convert` returned, such as a line.

        Raises:
            UnicodeDecodeError: the bytes are not text in this encoding.
        """
        return data.decode(self.name)

    def decode_escaping(self, chunks: Iterable[bytes]) -> Iterator[str]:
        """Yield the text of chunks that `convert` returned; bytes that are not text are escaped as lone surrogates."""
        decoder = codecs.getincrementaldecoder(self.name)("surrogateescape")
        for chunk in _with_end(chunks):
            yield decoder.decode(chunk or b"", final=chunk is None)

    def check_escapes(self, text: str) -> None:
        """Find bytes that were escaped in a text.

        Raises:
            UnicodeDecodeError: there is one.
        """
        try:
            text.encode()  # an eighth of the time of a search for surrogates
        except UnicodeEncodeError:
            self.decode(text.encode(self.name, "surrogateescape"))

    def describe_error(self, error: UnicodeDecodeError) -> str:
        """Say in one line which byte could not be decoded, and what to do."""
        byte = f"byte 0x{error.object[error.start]:02x} at byte offset {error.start}"
        if self._source_name == UTF8:
            return f"not UTF-8 ({byte}); convert the file to UTF-8 or set data.encoding"
        return f"not {self._source_name} ({byte}); set data.encoding to the encoding of the file"

    def _to_utf8(self, chunks: Iterable[bytes]) -> Iterator[bytes]:
        decoder = codecs.getincrementaldecoder(self._source_name)()
        offset = 0  # of the file's bytes before the chunk
        for chunk in _with_end(chunks):
            try:
                text = decoder.decode(chunk or b"", final=chunk is None)
                yield text.encode()
            except UnicodeDecodeError as error:
                # The decoder holds back the first bytes of a character that began in the chunk before.
                place = offset + len(chunk or b"") - len(error.object) + error.start
                byte = f"byte 0x{error.object[error.start]:02x} at byte offset {place}"
                raise DamagedFileError(f"not {self._source_name}: {byte}; see data.encoding") from error
            except UnicodeEncodeError as error:
                raise DamagedFileError(f"not {self._source_name}: half of a surrogate pair") from error
            offset += len(chunk or b"")


def normalize_encoding(name: str) -> str:
    """Return the usual name of an encoding: `UTF8` and `utf-8-sig` give `utf-8`, whose mark is always removed.

    Raises:
        CramError: Python does not know the encoding, or it is not one for files of text.
    """
    try:
        usual = codecs.lookup(name).name
        "".encode(usual)  # refused with a LookupError by codecs that are not for text, such as base64
    except (LookupError, ValueError, UnicodeError):
        usual = "undefined"
    if usual in NOT_FOR_FILES:
        raise CramError(
            f"data.encoding={name!r} is not a known encoding of text.\n"
            "give a name such as utf-8, cp1252, latin-1, utf-16, gb18030 or shift_jis."
        )
    return UTF8 if usual == "utf-8-sig" else usual


@lru_cache
def _keeps_ascii(name: str) -> bool:
    """Whether each byte below 128, decoded alone, is the ASCII character of this number."""
    try:
        return all(bytes([byte]).decode(name) == chr(byte) for byte in range(128))
    except UnicodeError:
        return False


def _with_end(chunks: Iterable[bytes]) -> Iterator[bytes | None]:
    yield from chunks
    yield None
