"""The encoder against the stock class that it must equal, and against itself with packing and slots."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from cram.config.choices import MODELS
from cram.config.model import ModelConfig
from cram.errors import CramError
from cram.hub.modernbert import MODERNBERT
from cram.model.encoder import Encoder
from cram.model.kinds import new_model

VOCAB = 96
CONFIG = {"layers": 3, "width": 32, "heads": 4, "mlp_width": 48}


def build(**changes: object) -> Encoder:
    """A small encoder whose every weight matters: nothing starts at zero or one."""
    model = Encoder(ModelConfig(**{**CONFIG, **changes}), VOCAB)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            shift = 1.0 if parameter.ndim == 1 else 0.0
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.2 + shift)
    return model


def random_tokens(rows: int, seq_len: int) -> Tensor:
    return torch.randint(0, VOCAB, (rows, seq_len), generator=torch.Generator().manual_seed(2))


def one_document(tokens: Tensor) -> Tensor:
    return torch.zeros_like(tokens)


def stock(model: Encoder) -> torch.nn.Module:
    from transformers import ModernBertConfig, ModernBertForMaskedLM

    c = model.config
    rope = {"rope_type": "default", "rope_theta": c.rope_theta}
    config = ModernBertConfig(
        vocab_size=VOCAB,
        hidden_size=c.width,
        intermediate_size=c.mlp_width,
        num_hidden_layers=c.layers,
        num_attention_heads=c.heads,
        layer_types=["full_attention"] * c.layers,
        norm_eps=c.norm_eps,
        rope_parameters={"full_attention": rope, "sliding_attention": rope},
        decoder_bias=False,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        cls_token_id=1,
        sep_token_id=2,
        attn_implementation="sdpa",
    )
    twin = ModernBertForMaskedLM(config)
    missing, unexpected = twin.load_state_dict(MODERNBERT.rename(model.state_dict()), strict=False)
    assert set(missing) == {"decoder.weight"}
    assert not unexpected
    return twin


def test_logits_and_gradients_equal_the_stock_class() -> None:
    model = build()
    twin = stock(model)
    tokens = random_tokens(4, 17)
    labels = torch.where(torch.rand(tokens.shape) < 0.4, tokens, -100)
    logits = model.head(model(tokens, one_document(tokens))).view(4, 17, VOCAB)
    answer = twin(input_ids=tokens, labels=labels)
    torch.testing.assert_close(logits, answer.logits, atol=1e-5, rtol=1e-5)

    slots = (labels.flatten() != -100).nonzero().flatten()
    loss = model.head.loss(model(tokens, one_document(tokens), slots), labels.flatten()[slots]) / len(slots)
    torch.testing.assert_close(loss, answer.loss, atol=1e-5, rtol=1e-5)
    loss.backward()
    answer.loss.backward()
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    for name, parameter in twin.named_parameters():
        ours = MODERNBERT.rename(gradients)[name]
        torch.testing.assert_close(ours, parameter.grad, atol=1e-5, rtol=1e-4, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize("attention", ["sdpa", "softmax"])
def test_packed_documents_equal_each_document_alone(attention: str) -> None:
    model = build(attention=attention)
    tokens = random_tokens(2, 24)
    lengths = [[5, 12, 7], [1, 20, 3]]
    documents = torch.stack([torch.repeat_interleave(torch.arange(3), torch.tensor(row)) for row in lengths])
    packed = model(tokens, documents).view(2, 24, -1)
    for row, row_lengths in enumerate(lengths):
        for piece, whole in zip(tokens[row].split(row_lengths), packed[row].split(row_lengths), strict=True):
            alone = model(piece[None], one_document(piece[None]))
            torch.testing.assert_close(whole, alone, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("attention", ["sdpa", "softmax"])
@pytest.mark.parametrize("causal", [False, True])
def test_tokens_alone_are_one_document_a_row(attention: str, causal: bool) -> None:
    model, tokens = build(attention=attention), random_tokens(3, 16)
    expected = model(tokens, one_document(tokens), causal=causal)
    assert torch.equal(model(tokens, causal=causal), expected)
    slots = torch.tensor([40, 3, 17])
    torch.testing.assert_close(model(tokens, slots=slots, causal=causal), expected[slots], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("attention", ["sdpa", "softmax"])
@pytest.mark.parametrize("packed", [False, True])
def test_slots_equal_gathering_afterwards(attention: str, packed: bool) -> None:
    tokens = random_tokens(3, 16)
    documents = (torch.arange(16) // 6).expand(3, 16) if packed else one_document(tokens)
    # Unordered and with repeats, as unused slots can be.
    slots = torch.tensor([40, 3, 17, 17, 0, 0, 0, 30])
    weights = torch.randn(len(slots), CONFIG["width"])
    results = []
    for sparse in (False, True):
        model = build(attention=attention)
        hidden = model(tokens, documents, slots) if sparse else model(tokens, documents)[slots]
        (hidden * weights).sum().backward()
        results.append((hidden, [parameter.grad for parameter in model.parameters()]))
    torch.testing.assert_close(results[0][0], results[1][0], atol=1e-5, rtol=1e-5)
    for dense, sparse in zip(results[0][1], results[1][1], strict=True):
        if dense is None:
            assert sparse is None
        else:
            torch.testing.assert_close(dense, sparse, atol=1e-4, rtol=1e-4)


def test_builds_on_the_meta_device_then_initialises_the_same() -> None:
    with torch.device("meta"):
        model = Encoder(ModelConfig(**CONFIG), VOCAB)
    assert all(parameter.is_meta for parameter in model.parameters())
    model.to_empty(device="cpu")
    model.initialise(seed=7)
    other = Encoder(ModelConfig(**CONFIG), VOCAB)
    other.initialise(seed=7)
    for (name, ours), reference in zip(model.state_dict().items(), other.state_dict().values(), strict=True):
        assert torch.equal(ours, reference), name


def test_initialise_leaves_the_global_generator_alone_and_zeroes_the_output_projections() -> None:
    before = torch.random.get_rng_state()
    model = Encoder(ModelConfig(**CONFIG), VOCAB)
    state = torch.random.get_rng_state()
    model.initialise(seed=0)
    assert torch.equal(torch.random.get_rng_state(), state)
    torch.random.set_rng_state(before)
    block = model.blocks[0]
    assert not block.attention.out.weight.any()
    assert not block.mlp.down.weight.any()
    assert 0.015 < block.mlp.up.weight.std() < 0.025
    model.config.zero_init = False
    model.initialise(seed=0)
    assert block.attention.out.weight.any()


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_a_step_is_finite_and_repeats_bit_by_bit(precision: torch.dtype) -> None:
    tokens = random_tokens(4, 32)
    documents = (torch.arange(32) // 10).expand(4, 32)
    slots = torch.arange(0, 128, 3)
    labels = torch.where(slots % 4 == 0, -100, tokens.flatten()[slots])

    def gradients() -> list[Tensor]:
        model = build()
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == torch.bfloat16):
            loss = model.head.loss(model(tokens, documents, slots), labels)
        assert loss.dtype == torch.float32
        loss.backward()
        return [loss.detach(), *(parameter.grad for parameter in model.parameters())]

    first, second = gradients(), gradients()
    assert all(bool(part.isfinite().all()) for part in first)
    assert all(torch.equal(one, two) for one, two in zip(first, second, strict=True))


def test_bf16_autocast_stays_near_fp32() -> None:
    model = build()
    tokens = random_tokens(4, 32)
    labels = tokens.flatten()
    losses = []
    for enabled in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            losses.append(model.head.loss(model(tokens, one_document(tokens)), labels).item() / 128)
    assert losses[0] == pytest.approx(losses[1], rel=0.02)


def test_state_dict_holds_the_tied_weight_once() -> None:
    model = build()
    pointers = [tensor.data_ptr() for tensor in model.state_dict().values()]
    assert len(pointers) == len(set(pointers))
    assert model.head.output_weight is model.embedding.weight


@pytest.mark.parametrize("attention", ["flash", "varlen"])
def test_gpu_kernels_are_refused_on_a_cpu(attention: str) -> None:
    tokens = random_tokens(1, 8)
    with pytest.raises(CramError, match=f"model.attention={attention}"):
        build(attention=attention)(tokens, one_document(tokens))


def test_a_model_trained_with_a_gpu_kernel_is_evaluated_anywhere() -> None:
    tokens = random_tokens(2, 8)
    with torch.no_grad():
        reference = build(attention="varlen")(tokens, one_document(tokens))
        assert torch.equal(reference, build(attention="auto")(tokens, one_document(tokens)))


@pytest.mark.parametrize("kind", list(MODELS))
def test_dropout_changes_what_training_computes_and_nothing_else(kind: str) -> None:
    config = ModelConfig(kind=kind, **CONFIG, init_std=0.3, zero_init=False)
    plain, model = (new_model(replace(config, dropout=share), VOCAB) for share in (0.0, 0.5))
    plain.initialise(0)
    model.initialise(0)
    tokens = random_tokens(2, 16)
    assert model.state_dict().keys() == plain.state_dict().keys()
    torch.manual_seed(0)
    first, second = model(tokens), model(tokens)
    torch.manual_seed(0)
    assert torch.equal(model(tokens), first)
    assert not torch.allclose(first, second)
    assert torch.equal(model.eval()(tokens), plain(tokens))
