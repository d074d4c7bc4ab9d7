"""Which device a rank computes on."""

from cram.distributed.launch import Launch
from cram.errors import CramError


def rank_device(word: str, launch: Launch) -> str:
    """Give each rank a GPU of its own: the one with the number of the rank on its node.

    Args:
        word: the value of `device=`. A word that is not valid is returned as it is, for `pick_device` to refuse.

    Returns:
        The value of `device=` for this rank. A process that is alone keeps its word.

    Raises:
        CramError: the word names one GPU for several ranks, or the node has fewer GPUs than ranks.
    """
    if launch.size == 1 or word == "cpu":
        return word
    if word.startswith("cuda:"):
        raise CramError(
            f"device={word} is one GPU, but torchrun has started {launch.size} ranks, and each of them needs its own.\n"
            "Use device=cuda, and choose the GPUs before torchrun, such as CUDA_VISIBLE_DEVICES=0,2."
        )
    if word not in ("auto", "cuda"):
        return word
    from cram.machine.device import count_gpus  # after the words that need no torch

    gpus = count_gpus()
    if not gpus:
        return "cpu" if word == "auto" else word
    if launch.local_size > gpus:
        raise CramError(
            f"device={word}: torchrun has started {launch.local_size} ranks here, but torch finds {gpus} GPU(s), and "
            f"each rank needs its own.\nUse --nproc-per-node={gpus}, or device=cpu."
        )
    return f"cuda:{launch.local_rank}"
