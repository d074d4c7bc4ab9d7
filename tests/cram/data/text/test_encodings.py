import json
from pathlib import Path

import pytest

from cram.data.text.encodings import TextEncoding, normalize_encoding
from cram.data.text.sources import open_source
from cram.errors import CramError
from tests.cram.data.text.files import read

TEXT = "Größe, “quoted”"


@pytest.mark.parametrize(
    "encoding", ["utf-8", "UTF8", "utf-8-sig", "cp1252", "utf-16", "utf-16-le", "utf-32", "gb18030"]
)
@pytest.mark.parametrize("name", ["a.txt", "a.jsonl", "a.json", "a.csv", "pretty.json"])
def test_files_in_an_encoding(tmp_path: Path, encoding: str, name: str) -> None:
    text = TEXT + ("" if encoding == "cp1252" else " 東京")
    content = {
        ".txt": text,
        ".csv": f'text,id\n"{text}",1\n"{text}",2\n',
        ".jsonl": f"{json.dumps({'text': text}, ensure_ascii=False)}\n" * 2,
        ".json": json.dumps([{"text": text}] * 2, ensure_ascii=False, indent=1 if name == "pretty.json" else None),
    }[Path(name).suffix]
    path = tmp_path / name
    path.write_bytes(content.encode(encoding))
    assert {one.text for one in read(path, encoding=encoding)} == {text}


@pytest.mark.parametrize(
    ("encoding", "content", "message"),
    [
        ("utf-8", b"abc\xe9", "a.txt: not UTF-8 .byte 0xe9 at byte offset 3.; convert the file to UTF-8 or set"),
        ("cp1252", b"abc\x81", "a.txt: not cp1252 .byte 0x81 at byte offset 3.; set data.encoding"),
        ("utf-16-le", b"a\0b\0\0\xd8c\0", "a.txt: damaged .*not utf-16-le: byte 0x00 at byte offset 4; see data.enc"),
        ("utf-16-le", b"a\0b", "a.txt: damaged .*not utf-16-le: byte 0x62 at byte offset 2"),
    ],
)
def test_a_file_that_does_not_decode(tmp_path: Path, encoding: str, content: bytes, message: str) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(content)
    with pytest.raises(CramError, match=f"^{message}"):
        read(path, encoding=encoding)


@pytest.mark.parametrize("name", ["", "latin", "base64", "rot13", "undefined", "unicode_escape", "utf-8\0", "é"])
def test_an_unknown_encoding(tmp_path: Path, name: str) -> None:
    if name == "latin":
        assert normalize_encoding(name) == "iso8859-1"
        return
    with pytest.raises(CramError, match=r"^data.encoding=.* is not a known encoding of text.\ngive a name such as"):
        open_source(str(tmp_path), encoding=name)


def test_a_line_alone_is_decoded_where_ascii_is_ascii() -> None:
    chunks = [b"a\n"]
    assert TextEncoding("shift_jis").convert(chunks) is chunks
    assert b"".join(TextEncoding("utf-16-le").convert([b"a", b"\0\n", b"\0"])) == b"a\n"
