"""When the exchange of gradients begins, in which order, and what it leaves."""

import pytest
import torch
from torch import nn

from cram.optim import buckets as all_buckets
from cram.optim.buckets import ALIGNED, Bucket, make_buckets
from cram.optim.exchange import Exchange
from cram.optim.pieces import Weight, share_out
from tests.cram.optim.recorded_ranks import RecordedRanks

Parts = tuple[nn.ModuleList, RecordedRanks, Exchange, list[Bucket]]


@pytest.fixture
def exchange(monkeypatch: pytest.MonkeyPatch) -> Parts:
    """Three layers, each of which fills a bucket."""
    monkeypatch.setattr(all_buckets, "FULL", 64 * 64 * 4)
    model, ranks = nn.ModuleList(nn.Linear(64, 64, bias=False) for _ in range(3)), RecordedRanks(0, 2)
    parameters = dict(model.named_parameters())
    weights = [Weight(name, tuple(parameter.shape)) for name, parameter in parameters.items()]
    buckets = make_buckets(share_out(weights, 2), dict(parameters), 2)
    return model, ranks, Exchange(buckets, parameters, ranks), buckets


def flats(buckets: list[Bucket]) -> list[int]:
    return [id(bucket.flat) for bucket in buckets]


def begun(ranks: RecordedRanks) -> list[int]:
    return [id(flat) for flat in ranks.reduced]


def test_a_bucket_begins_as_soon_as_its_gradients_are_there_and_frees_them(exchange: Parts) -> None:
    model, ranks, exchanged, buckets = exchange
    seen = []
    hidden = torch.ones(1, 64)
    for layer in model:
        hidden = layer(hidden)
        # Called when the layers above have made their gradients.
        hidden.register_hook(lambda _: seen.append((begun(ranks), [layer.weight.grad is None for layer in model])))
    with exchanged.overlap():
        hidden.sum().backward()
    order = flats(buckets)
    assert [before for before, _ in seen] == [[], order[:1], order[:2]]
    assert all(all(free) for _, free in seen)
    assert begun(ranks) == order
    assert exchanged.collect(False) == (False, {"0.weight", "1.weight", "2.weight"})


def test_the_order_is_the_same_whichever_gradients_there_are(exchange: Parts) -> None:
    model, ranks, exchanged, buckets = exchange
    buckets[0].flat.fill_(float("nan"))
    with exchanged.overlap():
        model[0](model[1](torch.ones(1, 64))).sum().backward()  # none of the first bucket, and the last one first
    assert begun(ranks) == []
    assert exchanged.collect(False) == (False, {"0.weight", "1.weight"})
    assert begun(ranks) == flats(buckets)
    assert not buckets[0].flat.any()
    assert all(bucket.flat.any() for bucket in buckets[1:])


def test_gradients_of_earlier_passes_are_taken_without_overlap(exchange: Parts) -> None:
    model, ranks, exchanged, buckets = exchange
    for _ in range(2):
        model[0](torch.ones(1, 64)).sum().backward()
    assert begun(ranks) == []
    assert exchanged.collect(True) == (True, {"0.weight"})
    assert model[0].weight.grad is None
    torch.testing.assert_close(buckets[-1].slots[0].values, torch.full((32, 64), 2.0))
    assert exchanged.collect(False) == (False, set())


def test_hooks_do_not_outlive_the_last_pass(exchange: Parts) -> None:
    model, ranks, exchanged, _ = exchange
    with exchanged.overlap():
        pass
    model[2](torch.ones(1, 64)).sum().backward()
    assert begun(ranks) == []
    assert model[2].weight.grad is not None


def test_only_buckets_with_an_updated_weight_come_back(exchange: Parts) -> None:
    model, ranks, exchanged, buckets = exchange
    before = model[1].weight.detach().clone()
    for slot in buckets[1].slots:
        if slot.piece.owner == 1:
            slot.values.fill_(7.0)
    exchanged.share_weights({"1.weight"})
    assert [id(flat) for flat in ranks.gathered] == [id(buckets[1].flat)]
    assert bool((model[1].weight[32:] == 7.0).all())
    assert torch.equal(model[1].weight[:32], before[:32])
    assert torch.equal(ranks.own(buckets[1].flat).view(32, 64), before[:32])


def test_pieces_lie_in_the_part_of_their_rank_at_aligned_places(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(all_buckets, "FULL", 2000)
    tensors = {"a": torch.ones(100, 50), "b": torch.ones(3), "c": torch.ones(()), "d": torch.ones(5, 7)}
    weights = [Weight(name, tuple(tensor.shape), (2, 3) if name == "d" else ()) for name, tensor in tensors.items()]
    for bucket in make_buckets(share_out(weights, 3), tensors, 3):
        part = len(bucket.flat) // 3
        assert len(bucket.flat) == 3 * part
        assert part % ALIGNED == 0
        for slot in bucket.slots:
            begin = slot.values.storage_offset()
            assert begin % ALIGNED == 0
            assert part * slot.piece.owner <= begin <= part * (slot.piece.owner + 1) - slot.values.numel()
            assert not slot.values.any()  # no other piece lies here
            slot.values.fill_(1.0)
            assert slot.values.shape == slot.weight.shape
