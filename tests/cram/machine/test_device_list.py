"""The entries of `devices=`: which ones are valid, and the word of `device=` for each."""

from collections.abc import Callable

import pytest
import torch

from cram.errors import CramError
from cram.machine.device_list import common_precision, find_devices


def test_gpus_are_named_by_number_or_word_and_no_memory_is_taken_on_them(gpus: Callable[[int], list[int]]) -> None:
    current = gpus(3)
    assert find_devices(["2", "cuda:0"]) == ["cuda:2", "cuda:0"]
    assert find_devices(["01"]) == ["cuda:1"]
    assert current == []  # the current GPU gets a context, which takes some hundred megabytes


@pytest.mark.parametrize(
    ("entries", "count", "message"),
    [
        ([], 2, r"^devices=\[\] names no device\. Use numbers of GPUs, such as devices=\[0,1\], or the CPU "),
        (["0", ""], 2, r"^devices=\[0,\]: an empty entry is not a valid device\. Use numbers"),
        (["-1"], 2, r"^devices=\[-1\]: -1 is not a valid device\. Use numbers"),
        (["0", "auto"], 2, r"^devices=\[0,auto\]: auto is not a valid device\. Use numbers"),
        (["cuda"], 2, r"^devices=\[cuda\]: cuda is not a valid device"),
        (["1.5"], 2, r"^devices=\[1\.5\]: 1\.5 is not a valid device"),
        (["\N{SUPERSCRIPT TWO}"], 3, "is not a valid device"),
        (["0", "cpu"], 2, r"^devices=\[0,cpu\] mixes GPUs with the CPU\. .* name only one kind\.$"),
        (["0", "1", "cuda:0"], 2, r"^devices=\[0,1,cuda:0\] names GPU 0 twice\. Name each GPU once\.$"),
        (["0", "7"], 2, r"^devices=\[0,7\]: device=cuda:7, but torch finds 2 CUDA device\(s\) here: use cuda:0 to "),
        (["0", "1"], 0, r"^devices=\[0,1\]: device=cuda:0, but torch finds no CUDA device here\. Use device=cpu, or "),
    ],
)
def test_a_list_that_cannot_be_used_is_refused(
    gpus: Callable[[int], list[int]], entries: list[str], count: int, message: str
) -> None:
    gpus(count)
    with pytest.raises(CramError, match=message) as caught:
        find_devices(entries)
    assert len(str(caught.value).splitlines()) == 1


def test_the_cpu_may_be_named_several_times() -> None:
    assert find_devices(["cpu", "cpu", "cpu"]) == ["cpu", "cpu", "cpu"]


def test_devices_share_one_precision_or_are_refused(
    gpus: Callable[[int], list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    gpus(3)
    capability = {0: (9, 0), 1: (9, 0), 2: (7, 0)}
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability[device.index])
    assert common_precision("auto", ["cuda:0", "cuda:1"]) == torch.bfloat16
    assert common_precision("fp32", ["cuda:0", "cuda:2"]) == torch.float32
    message = (
        r"^precision=auto is bf16 on cuda:1, fp16 on cuda:2\. Give the one that all are to use, such as precision="
    )
    with pytest.raises(CramError, match=message):
        common_precision("auto", ["cuda:1", "cuda:2"])
