from pathlib import Path

import pytest
import zstandard

from cram.errors import CramError
from tests.cram.data.text.files import COMPRESS, TEXTS, json_lines, read


@pytest.mark.parametrize("suffix", [".xz", ".bz2"])
@pytest.mark.parametrize("padding", [0, 4, 100_000])
def test_all_streams_of_a_file_are_read_whatever_pads_them(tmp_path: Path, suffix: str, padding: int) -> None:
    path = tmp_path / f"a.jsonl{suffix}"
    zeros = bytes(padding)
    path.write_bytes(zeros.join([*(COMPRESS[suffix](json_lines([text])) for text in TEXTS), b""]))
    assert [document.text for document in read(path)] == TEXTS


@pytest.mark.parametrize("suffix", [".xz", ".bz2"])
def test_bytes_after_a_stream_that_begin_no_other_one_are_damage(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.jsonl{suffix}"
    path.write_bytes(COMPRESS[suffix](json_lines(TEXTS)) + b"something else")
    with pytest.raises(CramError, match=rf"^a.jsonl{suffix}: damaged or not readable"):
        read(path)


@pytest.mark.parametrize("suffix", [".gz", ".xz", ".bz2", ".zst"])
@pytest.mark.parametrize("damage", ["truncated", "garbage", "one zero", "zeros alone", "zeros before it"])
def test_damaged_compression_names_the_file(tmp_path: Path, suffix: str, damage: str) -> None:
    path = tmp_path / f"a.jsonl{suffix}"
    whole, zeros = COMPRESS[suffix](json_lines([str(number) for number in range(5000)])), bytes(100_000)
    contents = {"truncated": whole[:-9], "garbage": b"not compressed at all"}
    contents |= {"one zero": zeros[:1], "zeros alone": zeros, "zeros before it": zeros + whole}
    path.write_bytes(contents[damage])
    with pytest.raises(CramError, match=rf"^a.jsonl{suffix}: damaged or not readable .*\nor set data.on_error=skip"):
        read(path)


def test_zstd_with_a_long_window(tmp_path: Path) -> None:
    parameters = zstandard.ZstdCompressionParameters.from_level(1, window_log=28)
    path = tmp_path / "a.jsonl.zst"
    compressor = zstandard.ZstdCompressor(compression_params=parameters).compressobj()  # of unknown size: as in streams
    path.write_bytes(compressor.compress(json_lines(TEXTS)) + compressor.flush())
    assert [document.text for document in read(path)] == TEXTS
