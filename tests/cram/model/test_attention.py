"""Positions, masks and borders of packed batches, and the back-ends that read them."""

import sys
from itertools import pairwise
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from cram.config.choices import ATTENTION
from cram.model.attention import attend
from cram.model.backends.backend import AttentionBackend
from cram.model.backends.choose import BACKENDS, choose_backend
from cram.model.packing import document_bounds, document_positions, document_starts, pack, pack_whole_rows

GPU_ONLY = ("flash", "varlen")
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
        expected = [place for length in row_lengths for place in range(length)]
        assert positions[row, : len(expected)].tolist() == expected


@given(st.lists(ROW, min_size=1, max_size=4))
def test_bounds_are_every_start_and_then_the_end(lengths: list[list[int]]) -> None:
    documents = documents_of(lengths)
    starts = document_starts(documents)
    bounds = document_bounds(starts)
    expected = starts.flatten().nonzero().flatten().tolist()
    assert bounds.dtype == torch.int32
    assert len(bounds) == document_bounds(torch.ones_like(starts)).shape[0]
    assert bounds[: len(expected)].tolist() == expected
    assert set(bounds[len(expected) :].tolist()) == {documents.numel()}


def test_mask_is_true_within_a_document_and_absent_for_whole_rows() -> None:
    documents = torch.tensor([[0, 0, 1, 1], [0, 1, 1, 1]])
    mask = pack(documents, head_dim=4, theta=1e4, backend="sdpa").mask
    assert mask is not None
    assert mask.shape == (2, 1, 4, 4)
    assert torch.equal(mask[:, 0], documents[:, :, None] == documents[:, None, :])
    assert pack(torch.zeros_like(documents), head_dim=4, theta=1e4, backend="sdpa").mask is None


@pytest.mark.parametrize("backend", ["sdpa", "softmax"])
@given(st.lists(ROW, min_size=1, max_size=4))
def test_a_causal_mask_is_true_for_what_came_before_in_the_document(backend: str, lengths: list[list[int]]) -> None:
    documents = documents_of(lengths)
    packing = pack(documents, head_dim=4, theta=1e4, backend=backend, causal=True)
    assert packing.causal
    if packing.mask is None:
        assert backend == "sdpa" and not documents.any()  # SDPA has a triangle of its own
        return
    rows, seq_len = documents.shape
    for row in range(rows):
        for place in range(seq_len):
            expected = [other <= place and documents[row, other] == documents[row, place] for other in range(seq_len)]
            assert packing.mask[row, 0, place].tolist() == expected


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("backend", ["flash", "varlen"])
def test_variable_length_kernels_are_given_borders_and_direction(
    backend: str, causal: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torch.nn.attention import varlen

    def kernel(q: Tensor, k: Tensor, v: Tensor, borders: Tensor, same: Tensor, *_: int, **options: object) -> Tensor:
        """What the real kernels compute on a GPU, document by document."""
        assert same is borders
        triangle = {"flash": options.get("causal"), "varlen": options.get("window_size") == (-1, 0)}[backend]
        parts = [
            F.scaled_dot_product_attention(
                *(x[begin:end].transpose(0, 1) for x in (q, k, v)), is_causal=bool(triangle)
            ).transpose(0, 1)
            for begin, end in pairwise(borders.tolist())
            if end > begin
        ]
        return torch.cat(parts)

    monkeypatch.setattr(varlen, "varlen_attn", kernel)
    monkeypatch.setitem(sys.modules, "flash_attn", SimpleNamespace(flash_attn_varlen_func=kernel))
    documents = documents_of([[4, 9, 3], [16]])
    q, k, v = torch.randn(3, *documents.shape, 2, 4, generator=torch.Generator().manual_seed(0))
    result, expected = (attend(q, k, v, pack(documents, 4, None, name, causal)) for name in (backend, "sdpa"))
    torch.testing.assert_close(result, expected)


def test_rotary_angles_are_those_of_the_position() -> None:
    packing = pack(torch.tensor([[0, 0, 0, 1, 1]]), head_dim=6, theta=100.0, backend="sdpa")
    positions = torch.tensor([0.0, 1, 2, 0, 1])
    angles = positions[:, None] * torch.tensor([100.0 ** (-2 * i / 6) for i in range(3)])
    torch.testing.assert_close(packing.cos[0], angles.cos())
    torch.testing.assert_close(packing.sin[0], angles.sin())


def test_every_line_of_the_table_is_a_back_end_and_keeps_its_promise() -> None:
    assert list(BACKENDS) == [name for name in ATTENTION if name != "auto"]
    cpu = torch.device("cpu")
    for name, backend in BACKENDS.items():
        assert isinstance(backend, AttentionBackend)
        assert (backend.refusal(cpu, torch.float32) is not None) == backend.variable_length == (name in GPU_ONLY)


def test_auto_on_a_cpu() -> None:
    cpu = torch.device("cpu")
    assert choose_backend("auto", cpu, torch.float32) == "sdpa"
    assert choose_backend("auto", cpu, torch.bfloat16) == "softmax"
    assert choose_backend("sdpa", cpu, torch.bfloat16) == "sdpa"
    assert choose_backend("softmax", cpu, torch.float32) == "softmax"


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("backend", ["sdpa", "softmax", "varlen"])
def test_whole_rows_are_packed_as_rows_of_one_document(backend: str, causal: bool) -> None:
    tokens = torch.zeros(3, 7, dtype=torch.int64)
    whole = pack_whole_rows(tokens, head_dim=4, theta=1e4, backend=backend, causal=causal)
    packed = pack(tokens, head_dim=4, theta=1e4, backend=backend, causal=causal)
    assert torch.equal(whole.positions, packed.positions)
    assert torch.equal(whole.cos, packed.cos) and torch.equal(whole.sin, packed.sin)
    assert (whole.mask is None) == (packed.mask is None)
    if whole.mask is not None:
        assert torch.equal(whole.mask.expand(3, 1, 7, 7), packed.mask)
    if whole.bounds is not None:
        assert whole.bounds.dtype == torch.int32
        assert whole.bounds.tolist() == sorted(set(packed.bounds.tolist()))
