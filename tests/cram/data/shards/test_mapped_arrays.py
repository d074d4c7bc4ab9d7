import json
import re
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save

from cram.data.shards.mapped_arrays import DTYPES, map_arrays, map_sealed_arrays, read_if_intact, write_sealed_arrays
from cram.errors import CramError


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("arrays") / "some.safetensors"


def file(header: bytes, data: bytes = bytes(16)) -> bytes:
    return len(header).to_bytes(8, "little") + header + data


@pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)
@pytest.mark.parametrize("shape", [(7,), (3, 5), (2, 1, 3), (0,), (0, 4)])
def test_every_dtype_and_shape(path: Path, dtype: type, shape: tuple[int, ...]) -> None:
    limits = np.iinfo(dtype)
    random = np.random.default_rng(0)
    written = {name: random.integers(limits.min, limits.max, shape, dtype, endpoint=True) for name in ("a", "odd")}
    written |= {"bytes": np.arange(3, dtype=np.uint8)}  # what follows begins at an odd place
    path.write_bytes(save(written, metadata={"note": "größer"}))
    arrays, metadata = map_arrays(path)
    assert metadata == {"note": "größer"} and arrays.keys() == written.keys()
    for name, array in arrays.items():
        assert array.dtype == written[name].dtype and np.array_equal(array, written[name])
        assert not array.flags.writeable and not array.flags.owndata


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc")
def test_a_map_keeps_no_file_open_and_ends_with_its_arrays(tmp_path: Path) -> None:
    def maps() -> int:
        return Path("/proc/self/maps").read_bytes().count(b"/many-")

    before = sum(1 for _ in Path("/proc/self/fd").iterdir())
    found = []
    for number in range(20):
        path = tmp_path / f"many-{number}-\udcff"
        path.write_bytes(save({"a": np.full(3, number)}))
        found.append(map_arrays(path)[0]["a"])
        path.unlink()
    assert sum(1 for _ in Path("/proc/self/fd").iterdir()) == before and maps() == 20
    assert [array.tolist() for array in found] == [[number] * 3 for number in range(20)]
    del found
    assert maps() == 0


def test_a_file_without_arrays(path: Path) -> None:
    path.write_bytes(save({}))
    assert map_arrays(path) == ({}, {})


@pytest.mark.parametrize(
    "content",
    [b"", b"\1\0\0", bytes(8), b"\xff" * 20, file(b"{"), file(b"[" * 5000)],
)
def test_a_file_that_is_not_safetensors_is_refused(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(ValueError):
        map_arrays(path)


@pytest.mark.parametrize(
    "entry",
    [
        {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]},
        {"dtype": [], "shape": [4], "data_offsets": [0, 16]},
        {"dtype": "I32", "shape": [5], "data_offsets": [0, 16]},
        {"dtype": "I32", "shape": [5], "data_offsets": [0, 20]},
        {"dtype": "I32", "shape": [-1], "data_offsets": [0, 20]},
        {"dtype": "I32", "shape": [10**30], "data_offsets": [0, 16]},
        {"dtype": "I32", "shape": [4.5], "data_offsets": [0, 16]},
        {"dtype": "I32", "shape": None, "data_offsets": [0, 16]},
        {"dtype": "I32", "shape": [4], "data_offsets": [0, 16, 32]},
        {"dtype": "I32", "shape": [4], "data_offsets": ["0", "16"]},
        {"dtype": "I32", "shape": [4], "data_offsets": [-16, 10**30]},
        {"dtype": "I32", "shape": [4]},
        {"dtype": "I32", "shape": [4], "data_offsets": [0, 16], "more": 1},
        7,
    ],
    ids=json.dumps,
)
def test_an_entry_that_does_not_fit_the_file(path: Path, entry: Any) -> None:
    path.write_bytes(file(json.dumps({"a": entry}).encode()))
    with pytest.raises(ValueError):
        map_arrays(path)


json_values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.sampled_from(["U8", "I64", "dtype", "shape"])),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.sampled_from(["dtype", "shape", "data_offsets", "a", "__metadata__"]), inner, max_size=4),
    ),
)


@given(json_values)
def test_any_header_gives_arrays_or_a_value_error(path: Path, header: Any) -> None:
    path.write_bytes(file(json.dumps(header).encode()))
    with suppress(ValueError):
        map_arrays(path)


@given(st.data())
def test_a_damaged_byte_gives_arrays_or_a_value_error(path: Path, data: st.DataObject) -> None:
    content = bytearray(save({"a": np.arange(6, dtype=np.int32).reshape(2, 3), "b": np.zeros(3, np.uint16)}))
    place = data.draw(st.integers(0, len(content) - 1))
    content[place] = data.draw(st.integers(0, 255))
    path.write_bytes(content[: data.draw(st.integers(0, len(content)))])
    with suppress(ValueError):
        map_arrays(path)


def test_sealed_arrays_are_read_back_and_every_flipped_bit_is_found(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    written = {"a": np.arange(6, dtype=np.uint32).reshape(2, 3), "none": np.zeros((0, 2), np.int64)}
    write_sealed_arrays(path, written, {"note": "größer"})
    arrays, metadata = map_sealed_arrays(path)
    assert metadata == {"note": "größer"} and arrays.keys() == written.keys()
    assert all(np.array_equal(arrays[name], written[name]) for name in written)
    whole = path.read_bytes()
    for place in range(0, len(whole)):
        flipped = bytearray(whole)
        flipped[place] ^= 1 << place % 8
        path.write_bytes(flipped)
        with pytest.raises(CramError, match=r"x.safetensors: damaged"):
            map_sealed_arrays(path)


def test_a_kept_file_is_read_or_reported_as_damaged(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "x.safetensors"
    assert read_if_intact(path, map_sealed_arrays) is None
    write_sealed_arrays(path, {"a": np.arange(3)})
    found = read_if_intact(path, map_sealed_arrays)
    assert found and found[0]["a"].tolist() == [0, 1, 2]
    path.write_bytes(path.read_bytes()[:-1])
    assert read_if_intact(path, map_sealed_arrays) is None
    assert re.match(r"warning: .*x.safetensors: damaged .* It is made again.$", capsys.readouterr().out)
