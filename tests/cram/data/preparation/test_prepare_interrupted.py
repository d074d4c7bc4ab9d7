import errno
from dataclasses import replace
from pathlib import Path

import pytest

from cram.data.preparation import prepare
from cram.errors import CramError
from cram.files import atomic
from tests.cram.data.preparation.small_corpus import (
    failing,
    hashes,
    make,
    run,
    seen,
    texts,
    write,
)


@pytest.mark.parametrize("packing", ["greedy", "best_fit"])
def test_a_preparation_killed_at_any_write_ends_with_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small_pieces: None, packing: str
) -> None:
    data = replace(write(tmp_path, texts()), packing=packing)  # type: ignore[arg-type]
    straight = make(data)
    assert len(straight.manifest["shards"]) > 3
    expected, done = hashes(straight.folder), 0
    real = atomic.os.fsync

    for kill in range(100):
        writes = 0

        def die(file: int, kill: int = kill) -> None:
            nonlocal writes
            writes += 1
            if writes > kill:
                raise KeyboardInterrupt
            real(file)

        again = replace(data, dir=str(tmp_path / f"{kill}"))
        with monkeypatch.context() as patch:
            patch.setattr(atomic.os, "fsync", die)
            try:
                make(again)
                break
            except KeyboardInterrupt:
                assert seen(Path(again.dir)) == []
        monkeypatch.setattr(atomic.os, "fsync", real)
        assert hashes(make(again).folder) == expected
        done += 1
    assert done > 15


def test_finished_stages_are_not_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small_pieces: None, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write(tmp_path, texts())

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(prepare, "summarize_documents", die)
        make(data)
    for stage in ("train_tokenizer", "signatures", "find_duplicates"):
        for module in ("vocabulary", "scan", "decision"):
            monkeypatch.setattr(f"cram.data.preparation.{module}.{stage}", die, raising=False)
    made = make(data)
    assert made.documents > 200
    notice, warning = capsys.readouterr().out.splitlines()
    assert notice == f"continuing the preparation of {made.folder}"
    assert warning.startswith("warning: 16 held-out document(s)")


def test_two_processes_make_the_same_bytes_as_one(tmp_path: Path, small_pieces: None) -> None:
    data = write(tmp_path, texts(600))
    one, two = make(data), make(replace(data, dir=str(tmp_path / "two"), processes=2))
    assert hashes(one.folder) == hashes(two.folder)


TWICE = """
import sys
from cram.config.data import DataConfig, WordPieceConfig
from cram.data.preparation.prepare import prepare_shards
from cram.data.preparation.vocabulary import TokenizerSource
if __name__ == "__main__":
    data = DataConfig(source=sys.argv[1], dir=sys.argv[2], seq_len=32, processes=1)
    print(prepare_shards(data, TokenizerSource(wordpiece=WordPieceConfig(vocab_size=128))).folder)
"""


def test_of_two_processes_one_works_and_the_other_waits(tmp_path: Path) -> None:
    data = write(tmp_path, texts(3000))
    running = [run(TWICE, data.source, data.dir) for _ in range(2)]
    said = [process.communicate()[0] for process in running]
    assert [process.returncode for process in running] == [0, 0]
    (folder,) = seen(Path(data.dir))
    assert all(text.endswith(f"{folder}\n") for text in said)
    assert sum("another process is preparing" in text for text in said) == 1
    assert sum("training the tokenizer" in text for text in said) == 1


@pytest.mark.parametrize("error", [CramError("bad line"), KeyboardInterrupt(), OSError(errno.EIO, "broken")])
def test_a_failed_preparation_leaves_no_visible_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    data = write(tmp_path, texts())
    with monkeypatch.context() as patch:
        patch.setattr("cram.data.shards.shards.write_sealed", failing(error))
        with pytest.raises(CramError if isinstance(error, OSError) else type(error)):
            make(data)
    assert seen(Path(data.dir)) == []
    assert make(data).rows


def test_a_full_disk_is_reported_and_work_continues_when_there_is_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small_pieces: None
) -> None:
    data = write(tmp_path, texts())
    expected = hashes(make(replace(data, dir=str(tmp_path / "roomy"))).folder)
    with monkeypatch.context() as patch:
        patch.setattr("cram.files.atomic.os.fsync", failing(OSError(errno.ENOSPC, "No space left on device")))
        with pytest.raises(CramError, match=r"/shards.*the disk is full \(No space left on device\)"):
            make(data)
    assert seen(Path(data.dir)) == []
    assert hashes(make(data).folder) == expected


def test_a_data_dir_that_cannot_be_written_is_reported(tmp_path: Path) -> None:
    data = write(tmp_path, texts())
    (tmp_path / "file").write_text("")
    with pytest.raises(CramError, match=r"data.dir=.*file: cannot be written"):
        make(replace(data, dir=str(tmp_path / "file")))
