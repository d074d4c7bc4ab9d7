"""Muon against torch's own and an SVD, layer-wise learning rates, and which parameter goes where."""

import math
from pathlib import Path

import pytest
import torch
from torch import nn

from cram.errors import CramError
from cram.glue.optimizers import MuonMatrices, layer_depths, make_optimizers
from cram.glue.pretrained import open_pretrained
from cram.glue.tasks import TASKS


@pytest.fixture(scope="module")
def classifier(checkpoint: Path) -> nn.Module:
    return open_pretrained(str(checkpoint), 32, "first").new_classifier(TASKS["mnli"], 0, 0.0, "first", False)


def test_muon_moves_along_torchs_own_direction() -> None:
    torch.manual_seed(0)
    ours, theirs = (nn.Parameter(torch.zeros(24, 16)) for _ in range(2))
    muon = MuonMatrices([{"params": [ours], "parts": [1], "lr": 0.01}])
    stock = torch.optim.Muon([theirs], lr=0.01, weight_decay=0.0, momentum=0.95, adjust_lr_fn="match_rms_adamw")
    for _ in range(3):
        ours.grad = torch.randn(24, 16)
        theirs.grad = ours.grad.clone()
        muon.step()
        stock.step()
    # Torch computes in bf16. Its momentum is the same up to a factor, which an orthogonal matrix does not show.
    assert nn.functional.cosine_similarity(ours.flatten(), theirs.flatten(), dim=0) > 0.999
    assert float(ours.detach().norm() / theirs.detach().norm()) == pytest.approx(1.0, abs=0.02)


def test_matrices_of_a_fused_weight_are_orthogonalised_one_by_one() -> None:
    torch.manual_seed(0)
    weight = nn.Parameter(torch.zeros(48, 16))
    weight.grad = torch.cat([torch.randn(16, 16) * size for size in (1.0, 1e3, 1e-3)])
    MuonMatrices([{"params": [weight], "parts": [3], "lr": 0.5}]).step()
    scale = 0.5 * 0.2 * math.sqrt(16)
    for part, gradient in zip(weight.detach().chunk(3), weight.grad.chunk(3), strict=True):
        left, _, right = torch.linalg.svd(gradient.double())
        values = (left.mT @ (-part.double() / scale) @ right.mT).diagonal()
        assert 0.6 < float(values.median()) < 1.25


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_every_parameter_is_in_one_group_with_the_rate_of_its_layer(classifier: nn.Module, name: str) -> None:
    optimizers = make_optimizers(classifier, name, 1e-3, 0.5)
    rates = {
        id(parameter): (type(optimizer).__name__, group["lr"])
        for optimizer in optimizers
        for group in optimizer.param_groups
        for parameter in group["params"]
    }
    count = sum(len(group["params"]) for optimizer in optimizers for group in optimizer.param_groups)
    named = {parameter_name: rates[id(parameter)] for parameter_name, parameter in classifier.named_parameters()}
    assert count == len(rates) == len(named)
    matrices = "MuonMatrices" if name == "muon" else "AdamW"
    assert named["classifier.weight"] == ("AdamW", 1e-3)
    assert named["head.dense.weight"] == (matrices, 1e-3)
    assert named["model.final_norm.weight"] == ("AdamW", 1e-3)
    assert named["model.layers.1.attn.Wqkv.weight"] == (matrices, 5e-4)
    assert named["model.layers.1.mlp_norm.weight"] == ("AdamW", 5e-4)
    assert named["model.layers.0.mlp.Wo.weight"] == (matrices, 2.5e-4)
    assert named["model.embeddings.tok_embeddings.weight"] == ("AdamW", 1.25e-4)


def test_layers_of_bert_are_numbered_and_those_of_albert_are_refused() -> None:
    from transformers import AlbertConfig, AlbertForSequenceClassification, BertConfig, BertForSequenceClassification

    size = {"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 8, "vocab_size": 9}
    depths = layer_depths(BertForSequenceClassification(BertConfig(**size)))
    assert depths["bert.embeddings.LayerNorm.weight"] == 0
    assert depths["bert.encoder.layer.1.output.dense.weight"] == 2
    assert depths["bert.pooler.dense.weight"] == depths["classifier.bias"] == 3
    albert = AlbertForSequenceClassification(AlbertConfig(**size, embedding_size=4))
    with pytest.raises(CramError, match=r"layer_decay: the 2 layers of AlbertFor.* are not numbered\. Leave it out\."):
        make_optimizers(albert, "adamw", 1e-3, 0.9)
