"""The model of Cramming against the published forward pass, rewritten from its description, and against itself."""

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from cram.config.model import ModelConfig
from cram.config.optimizer import OptimizerConfig
from cram.files.atomic import read_json
from cram.model.count import count_parameters
from cram.model.crammed import Crammed
from cram.model.layers import LayerNorm
from cram.optim.groups import parameter_groups
from cram.train import main

VOCAB, ROWS, SEQ_LEN = 96, 3, 20
WIDTH, HEADS, MLP_WIDTH = 32, 4, 48
CONFIG = {"kind": "crammed", "layers": 3, "width": WIDTH, "heads": HEADS, "mlp_width": MLP_WIDTH, "norm_eps": 1e-12}
FULL_SIZE = ModelConfig(kind="crammed", layers=16, width=768, heads=12, mlp_width=1536, norm_eps=1e-12)


def build(**changes: object) -> Crammed:
    """A small float64 model whose every weight matters: nothing starts at zero or one."""
    model = Crammed(ModelConfig(**{**CONFIG, **changes}), VOCAB).double()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.2 + (parameter.ndim == 1))
    return model


def random_tokens() -> Tensor:
    return torch.randint(0, VOCAB, (ROWS, SEQ_LEN), generator=torch.Generator().manual_seed(2))


def published_weights(model: Crammed) -> dict[str, Tensor]:
    """The model's weights in the published layout: q, k, v of each head together, and of `up` the gate second."""
    by_head = torch.arange(3 * WIDTH).view(3, HEADS, -1).transpose(0, 1).flatten()
    weights = dict(model.named_parameters())
    for index in range(len(model.blocks)):
        qkv, up = f"blocks.{index}.attention.qkv.weight", f"blocks.{index}.mlp.up.weight"
        weights[qkv] = weights[qkv][by_head]
        weights[up] = weights[up].roll(MLP_WIDTH, 0)
    return weights


def published_logits(weights: dict[str, Tensor], tokens: Tensor) -> Tensor:
    """Logits (rows, seq_len, VOCAB) of `crammed-bert` as its description has it, in plain torch."""

    def norm(x: Tensor, name: str) -> Tensor:
        centred = x - x.mean(-1, keepdim=True)
        deviation = (centred.square().mean(-1, keepdim=True) + 1e-12).sqrt()
        return centred / deviation * weights[f"{name}.weight"] + weights[f"{name}.bias"]

    sinusoid = torch.zeros(128, WIDTH, dtype=torch.float64)
    for position in range(128):
        for pair in range(WIDTH // 2):
            angle = position * math.exp(-math.log(10_000.0) * 2 * pair / WIDTH)
            sinusoid[position, 2 * pair], sinusoid[position, 2 * pair + 1] = math.sin(angle), math.cos(angle)
    rows, seq_len = tokens.shape
    embedding = weights["embedding.weight"]
    x = norm(embedding[tokens] + weights["position_scale"] * sinusoid[:seq_len], "embedding_norm")
    for index in range(3):
        block = f"blocks.{index}"
        mixed = norm(x, f"{block}.attention_norm") @ weights[f"{block}.attention.qkv.weight"].T
        q, k, v = mixed.view(rows, seq_len, HEADS, 3 * WIDTH // HEADS).transpose(1, 2).chunk(3, dim=-1)
        shares = torch.softmax(q @ k.transpose(-1, -2) / math.sqrt(WIDTH / HEADS), dim=-1)
        gathered = (shares @ v).transpose(1, 2).reshape(rows, seq_len, WIDTH)
        x = x + gathered @ weights[f"{block}.attention.out.weight"].T
        value, gate = (norm(x, f"{block}.mlp_norm") @ weights[f"{block}.mlp.up.weight"].T).chunk(2, dim=-1)
        gelu = 0.5 * gate * (1.0 + torch.erf(gate / math.sqrt(2.0)))
        x = x + (value * gelu) @ weights[f"{block}.mlp.down.weight"].T
    return norm(x, "final_norm") @ embedding.T


@pytest.mark.parametrize("attention", ["sdpa", "softmax"])
def test_logits_loss_and_gradients_equal_the_published_model(attention: str) -> None:
    model, tokens = build(attention=attention), random_tokens()
    documents = torch.zeros_like(tokens)
    reference = published_logits(published_weights(model), tokens)
    ours = model.head(model(tokens, documents)).view_as(reference)
    torch.testing.assert_close(ours, reference, atol=1e-10, rtol=1e-10)

    slots = torch.arange(0, tokens.numel(), 4)
    labels = tokens.flatten().flip(0)[slots]
    loss = model.head.loss(model(tokens, documents, slots), labels) / len(slots)
    published = F.cross_entropy(reference.flatten(0, 1)[slots], labels)
    # The head's loss is fp32 by contract.
    torch.testing.assert_close(loss.double(), published, atol=1e-5, rtol=1e-6)
    parameters = dict(model.named_parameters())
    gradients = torch.autograd.grad(loss, list(parameters.values()))
    expected = torch.autograd.grad(published, list(parameters.values()))
    for name, one, other in zip(parameters, gradients, expected, strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-5, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize("attention", ["sdpa", "softmax"])
def test_packed_documents_equal_each_document_alone(attention: str) -> None:
    model, tokens = build(attention=attention), random_tokens()
    lengths = [[5, 12, 3], [1, 16, 3], [20]]
    documents = torch.stack([torch.repeat_interleave(torch.tensor(row)) for row in lengths])
    packed = model(tokens, documents).view(ROWS, SEQ_LEN, -1)
    for row, row_lengths in enumerate(lengths):
        for piece, whole in zip(tokens[row].split(row_lengths), packed[row].split(row_lengths), strict=True):
            alone = model(piece[None], torch.zeros_like(piece[None]))
            torch.testing.assert_close(whole, alone, atol=1e-10, rtol=1e-10)


def test_slots_equal_gathering_afterwards() -> None:
    model, tokens = build(), random_tokens()
    documents = (torch.arange(SEQ_LEN) // 6).expand(ROWS, SEQ_LEN)
    slots = torch.tensor([40, 3, 17, 17, 0, 0, 59])  # unordered, with repeats
    torch.testing.assert_close(model(tokens, documents, slots), model(tokens, documents)[slots], atol=1e-10, rtol=1e-10)


def test_the_full_size_is_the_published_one() -> None:
    with torch.device("meta"):
        model = Crammed(FULL_SIZE, 32_768)
    counted = count_parameters(FULL_SIZE, 32_768)
    assert sum(parameter.numel() for parameter in model.parameters()) == counted.total
    assert round(counted.total / 1e6, 2) == 119.59
    # The paper's figure without embeddings is that of the matrices.
    assert round(counted.body / 1e6, 2) == 94.37
    assert sum(p.numel() for p in model.blocks.parameters() if p.ndim == 2) == counted.body


def test_weights_are_drawn_as_published_and_the_same_for_a_seed() -> None:
    config = ModelConfig(**{**CONFIG, "width": 64}, zero_init=False)
    with torch.device("meta"):
        model = Crammed(config, 512)
    model.to_empty(device="cpu").initialise(seed=7)
    other = Crammed(config, 512)
    before = torch.random.get_rng_state()
    other.initialise(seed=7)
    assert torch.equal(torch.random.get_rng_state(), before)
    for (name, ours), reference in zip(model.state_dict().items(), other.state_dict().values(), strict=True):
        assert torch.equal(ours, reference), name
        if name == "position_scale":
            assert ours.tolist() == [0.125]
        elif ours.ndim == 1:
            assert ours.unique().tolist() == [0.0 if name.endswith("bias") else 1.0], name
        else:
            assert 0.0185 < ours.std() < 0.0215, name


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_a_step_is_finite_and_repeats_bit_by_bit(precision: torch.dtype) -> None:
    tokens = random_tokens()
    documents = (torch.arange(SEQ_LEN) // 7).expand(ROWS, SEQ_LEN)
    slots = torch.arange(0, tokens.numel(), 3)

    def gradients() -> list[Tensor]:
        model = build().float()
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == torch.bfloat16):
            loss = model.head.loss(model(tokens, documents, slots), tokens.flatten()[slots])
        assert loss.dtype == torch.float32
        loss.backward()
        return [loss.detach(), *(parameter.grad for parameter in model.parameters())]

    first, second = gradients(), gradients()
    assert all(bool(part.isfinite().all()) for part in first)
    assert all(torch.equal(one, two) for one, two in zip(first, second, strict=True))


def test_gains_biases_and_the_scale_of_the_positions_are_not_decayed() -> None:
    model = build()
    groups = {group.name: set(group.names) for group in parameter_groups(model, OptimizerConfig())}
    norms = {name for name, module in model.named_modules() if isinstance(module, LayerNorm)}
    assert len(norms) == 2 * 3 + 2
    assert groups["gains"] == {f"{name}.{part}" for name in norms for part in ("weight", "bias")} | {"position_scale"}
    assert groups["embeddings"] == {"embedding.weight"}


def test_a_run_resumes_to_the_same_bytes_and_ends_without_an_export(
    tiny_words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Interrupted by taking away all that was written after the checkpoint of update 11."""
    words = [*tiny_words, "model.kind=crammed", "budget=12steps", "checkpoint.interval=0.001s", "optimizer.lr=1e-2"]
    run = tmp_path / "run"
    assert main(words) == 0
    output = capsys.readouterr().out
    assert "export        none: transformers has no class that computes model.kind=crammed" in output
    receipt = read_json(run / "receipt.json")
    assert receipt["export"] == "none: transformers has no class that computes model.kind=crammed"
    assert receipt["model"]["kind"] == "crammed"
    assert not (run / "export").exists()
    assert main(words) == 0
    assert "is finished; nothing to do" in capsys.readouterr().out

    straight = (run / "model.safetensors").read_bytes()
    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == ["11", "12", "4"]  # 4: before the decay
    (run / "checkpoints" / "12").rename(tmp_path / "gone")
    (run / "receipt.json").unlink()
    (run / "model.safetensors").unlink()
    assert main(words) == 0
    assert "at update 11," in capsys.readouterr().out
    assert (run / "model.safetensors").read_bytes() == straight
    assert read_json(run / "receipt.json")["held_out"] == receipt["held_out"]
