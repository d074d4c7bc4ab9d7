import pytest

from cram.distributed.launch import Launch
from cram.distributed.rank_device import rank_device
from cram.errors import CramError
from cram.machine import device

SECOND = Launch(rank=3, size=4, local_rank=1, local_size=2)


@pytest.fixture
def gpus(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "count_gpus", lambda: request.param)


@pytest.mark.parametrize("gpus", [0, 2, 8], indirect=True)
@pytest.mark.parametrize("word", ["auto", "cpu", "cuda", "cuda:3", "nonsense"])
def test_a_process_that_is_alone_keeps_its_word(gpus: None, word: str) -> None:
    assert rank_device(word, Launch()) == word


@pytest.mark.parametrize(
    ("gpus", "word", "expected"),
    [
        (2, "auto", "cuda:1"),
        (8, "cuda", "cuda:1"),
        (0, "auto", "cpu"),
        (0, "cuda", "cuda"),  # which pick_device refuses
        (2, "cpu", "cpu"),
        (2, "mps", "mps"),
    ],
    indirect=["gpus"],
)
def test_a_rank_takes_the_gpu_of_its_number_on_its_node(gpus: None, word: str, expected: str) -> None:
    assert rank_device(word, SECOND) == expected


@pytest.mark.parametrize("gpus", [1], indirect=True)
def test_more_ranks_than_gpus_are_refused(gpus: None) -> None:
    with pytest.raises(CramError, match=r"2 ranks here, but torch finds 1 GPU.*\n.*--nproc-per-node=1, or device=cpu"):
        rank_device("auto", SECOND)
    assert rank_device("cpu", SECOND) == "cpu"


def test_one_gpu_for_several_ranks_is_refused() -> None:
    with pytest.raises(CramError, match=r"device=cuda:1 is one GPU.*\n.*CUDA_VISIBLE_DEVICES"):
        rank_device("cuda:1", SECOND)
