"""JSON files with their own checksum, and lists of files."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cram.errors import CramError
from cram.files.atomic import read_json, write_json
from cram.files.sealed import (
    CHECKSUMS,
    check_hashes,
    hash_files,
    hash_json,
    read_checksums,
    read_sealed,
    write_checksums,
    write_sealed,
)

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


@given(st.dictionaries(st.text().filter(lambda name: name != "sha256"), VALUES, max_size=4))
def test_what_is_written_comes_back(tmp_path_factory: pytest.TempPathFactory, value: dict[str, object]) -> None:
    path = tmp_path_factory.mktemp("sealed") / "x.json"
    write_sealed(path, value)
    assert read_sealed(path) == value


def test_the_checksum_is_of_the_content_and_not_of_its_layout(tmp_path: Path) -> None:
    write_sealed(tmp_path / "x.json", {"b": 1, "a": {2: 0.1}, "nan": float("nan")})
    stored = read_json(tmp_path / "x.json")
    (tmp_path / "x.json").write_text(json.dumps(dict(reversed(stored.items())), indent=7))
    assert read_sealed(tmp_path / "x.json") == {"b": 1, "a": {"2": 0.1}, "nan": None}


@pytest.mark.parametrize(
    "edit",
    [
        lambda value: value.update(a=2),
        lambda value: value.update(a=True),  # which Python calls equal to 1
        lambda value: value.update(a=1.0),
        lambda value: value.update(c=None),
        lambda value: value.update(n=10**400),
        lambda value: value.pop("a"),
        lambda value: value.pop("sha256"),
        lambda value: value.update(sha256=value["sha256"].upper()),
    ],
)
def test_an_edited_field_is_found(tmp_path: Path, edit: object) -> None:
    path = tmp_path / "x.json"
    write_sealed(path, {"a": 1, "b": [1, 2], "n": None})
    value = read_json(path)
    edit(value)  # type: ignore[operator]
    write_json(path, value)
    with pytest.raises(CramError, match=r"x.json: damaged or edited, its content is not what its own sha256 says\.$"):
        read_sealed(path)


@pytest.mark.parametrize("number", ["1e999", "NaN", "-Infinity"])
def test_a_number_that_is_not_finite_is_not_null(tmp_path: Path, number: str) -> None:
    path = tmp_path / "x.json"
    write_sealed(path, {"n": None})
    path.write_text(path.read_text().replace("null", number))
    with pytest.raises(CramError, match=r"x.json: (damaged or edited|not a readable JSON file)"):
        read_sealed(path)


def test_every_flipped_bit_is_found_or_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    value = {"rows": 12, "rate": 1e-05, "name": "a b", "flag": True, "none": None}
    write_sealed(path, value)
    data = path.read_bytes()
    found = 0
    for place in range(len(data)):
        for bit in range(8):
            path.write_bytes(data[:place] + bytes([data[place] ^ 1 << bit]) + data[place + 1 :])
            try:
                assert read_sealed(path) == value
            except CramError:
                found += 1
    assert found >= 8 * len(data) - 3  # 1e-05 and 1E-05 are one number


@pytest.mark.parametrize("content", ["[]", "null", "3", '"text"', "{}", '{"sha256": null}'])
def test_other_json_is_not_taken(tmp_path: Path, content: str) -> None:
    (tmp_path / "x.json").write_text(content)
    with pytest.raises(CramError, match=r"x.json: damaged or edited"):
        read_sealed(tmp_path / "x.json")


def test_a_list_finds_files_that_are_gone_or_other(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("a")
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "b").write_text("b")
    write_checksums(tmp_path, ["a", "in/b"])
    files = read_checksums(tmp_path)
    assert files == hash_files(tmp_path, ["a", "in/b"])
    check_hashes(tmp_path, files)
    (tmp_path / "in" / "b").write_text("c")
    with pytest.raises(CramError, match=r"b: damaged or edited, its content is not what its sha256 says."):
        check_hashes(tmp_path, files)
    (tmp_path / "a").unlink()
    with pytest.raises(CramError, match=r"a: missing."):
        check_hashes(tmp_path, files)


def test_a_list_of_another_form_is_refused(tmp_path: Path) -> None:
    write_sealed(tmp_path / CHECKSUMS, {"files": ["a"]})
    with pytest.raises(CramError, match=rf"{CHECKSUMS}: not a list of files."):
        read_checksums(tmp_path)
    (tmp_path / CHECKSUMS).unlink()
    with pytest.raises(CramError, match=rf"{CHECKSUMS}: there is no such file."):
        read_checksums(tmp_path)


def test_the_digest_is_that_of_sorted_json() -> None:
    assert hash_json({"b": 1, "a": 2}) == hash_json({"a": 2, "b": 1}) != hash_json({"a": 1, "b": 2})
