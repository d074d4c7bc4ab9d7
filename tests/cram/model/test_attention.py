"""Facts of a packed batch."""

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from cram.model.attention import choose_backend, document_bounds, document_positions, document_starts, pack

ROW = st.lists(st.integers(3, 9), min_size=1, max_size=6)


def documents_of(lengths: list[list[int]]) -> Tensor:
    """Rows of documents of these lengths, padded to the longest row by a document of its own."""
    seq_len = max(map(sum, lengths))
    rows = [[*row, seq_len - sum(row)] for row in lengths]
    return torch.stack([torch.repeat_interleave(torch.arange(len(row)), torch.tensor(row)) for row in rows])


@given(st.lists(ROW, min_size=1, max_size=4))
def test_positions_count_from_each_documents_start(lengths: list[list[int]]) -> None:
    documents = documents_of(lengths)
    positions = document_positions(document_starts(documents))
    for row, row_lengths in enumerate(lengths):
        wanted = [place for length in row_lengths for place in range(length)]
        assert positions[row, : len(wanted)].tolist() == wanted


@given(st.lists(ROW, min_size=1, max_size=4))
def test_bounds_are_every_start_and_then_the_end(lengths: list[list[int]]) -> None:
    documents = documents_of(lengths)
    starts = document_starts(documents)
    bounds = document_bounds(starts)
    wanted = starts.flatten().nonzero().flatten().tolist()
    assert bounds.dtype == torch.int32
    assert len(bounds) == document_bounds(torch.ones_like(starts)).shape[0]
    assert bounds[: len(wanted)].tolist() == wanted
    assert set(bounds[len(wanted) :].tolist()) == {documents.numel()}


def test_mask_is_true_within_a_document_and_left_out_where_there_is_one() -> None:
    documents = torch.tensor([[0, 0, 1, 1], [0, 1, 1, 1]])
    mask = pack(documents, head_dim=4, theta=1e4, backend="sdpa").mask
    assert mask is not None
    assert mask.shape == (2, 1, 4, 4)
    assert torch.equal(mask[:, 0], documents[:, :, None] == documents[:, None, :])
    assert pack(torch.zeros_like(documents), head_dim=4, theta=1e4, backend="sdpa").mask is None


def test_rotary_angles_are_those_of_the_position() -> None:
    packing = pack(torch.tensor([[0, 0, 0, 1, 1]]), head_dim=6, theta=100.0, backend="sdpa")
    positions = torch.tensor([0.0, 1, 2, 0, 1])
    angles = positions[:, None] * torch.tensor([100.0 ** (-2 * i / 6) for i in range(3)])
    torch.testing.assert_close(packing.cos[0], angles.cos())
    torch.testing.assert_close(packing.sin[0], angles.sin())


def test_auto_on_a_cpu() -> None:
    cpu = torch.device("cpu")
    assert choose_backend("auto", cpu, torch.float32) == "sdpa"
    assert choose_backend("auto", cpu, torch.bfloat16) == "softmax"
    assert choose_backend("sdpa", cpu, torch.bfloat16) == "sdpa"
    assert choose_backend("softmax", cpu, torch.float32) == "softmax"
