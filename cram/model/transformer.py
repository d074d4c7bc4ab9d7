"""The pre-norm transformer over packed documents, and the encoder that is made of it."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

import cram_kernels as ck
from cram.config.model import ModelConfig
from cram.model.attention import VARIABLE_LENGTH, Attention, Packing, choose_backend, pack, pick
from cram.model.heads import MaskedHead, TiedHead
from cram.model.layers import GatedMLP, LayerNorm, Norm, RMSNorm


def check_config(config: ModelConfig, vocab_size: int, rotary: bool) -> None:
    """Assert that the shape can be built; `cram.config.consistency` refuses others in a user's words."""
    assert min(config.layers, config.width, config.heads, config.mlp_width, vocab_size) >= 1, config
    assert config.width % config.heads == 0, config
    assert not rotary or config.width // config.heads % 2 == 0, config


@dataclass(frozen=True)
class Architecture:
    """What the kinds of models differ in, beside their `embed` and their head.

    Args:
        norm: makes a norm of a width and an epsilon.
        first_norm: whether the first block normalises its input, which the embedding's norm may have done already.
        embedding_norm: whether the embedding is normalised.
        gate: activation of the gated MLPs, `ck.geglu` or `ck.swiglu`.
        qk_norm: whether each head normalises its queries and keys.
        causal: whether a position sees none of those after it.
        rotary: whether positions are rotary; else `embed` adds them.
    """

    norm: Callable[[int, float], Norm] = LayerNorm
    first_norm: bool = False
    embedding_norm: bool = True
    gate: Callable[[Tensor], Tensor] = ck.geglu
    qk_norm: bool = False
    causal: bool = False
    rotary: bool = True


class Block(nn.Module):
    """One pre-norm block: hidden + attention, then hidden + MLP.

    The second sum is left to whoever normalises it next, the following block or the final norm, because there it
    is one kernel with the norm.
    """

    def __init__(self, config: ModelConfig, architecture: Architecture, attention_norm: bool) -> None:
        super().__init__()
        norm = (config.width, config.norm_eps)
        self.attention_norm = architecture.norm(*norm) if attention_norm else nn.Identity()
        self.attention = Attention(config.width, config.heads, config.norm_eps if architecture.qk_norm else None)
        self.mlp_norm = architecture.norm(*norm)
        self.mlp = GatedMLP(config.width, config.mlp_width, architecture.gate)

    def forward(
        self, hidden: Tensor, change: Tensor | None, packing: Packing, slots: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """One block's work on `hidden + change`, both (rows, seq_len, width); None for the first, without a change.

        Attention reads every position, but what follows it works on each position apart, so that leaving
        out the others changes nothing.

        Returns:
            hidden and change of the same shape, still to be added; with slots (N), flat indices, (N, width) of those
            positions alone.
        """
        if change is None:
            normal = self.attention_norm(hidden)
        else:
            assert isinstance(self.attention_norm, Norm)
            normal, hidden = self.attention_norm.add(change, hidden)
        gathered = self.attention(normal, packing, slots)
        if slots is not None:
            hidden = pick(hidden, slots)
        normal, hidden = self.mlp_norm.add(self.attention.out(gathered), hidden)
        return hidden, self.mlp(normal)


class Transformer(nn.Module):
    """What the models share: embedding, pre-norm blocks and final norm; a subclass adds the `head`.

    Can be built on the meta device; call `initialise` once the parameters have memory.
    """

    head: TiedHead

    def __init__(self, config: ModelConfig, vocab_size: int, architecture: Architecture) -> None:
        super().__init__()
        check_config(config, vocab_size, architecture.rotary)
        self.config = config
        self.vocab_size = vocab_size
        self.embedding = nn.Embedding(vocab_size, config.width)
        norm = (config.width, config.norm_eps)
        self.embedding_norm = architecture.norm(*norm) if architecture.embedding_norm else nn.Identity()
        self.blocks = nn.ModuleList(
            Block(config, architecture, architecture.first_norm or index > 0) for index in range(config.layers)
        )
        self.final_norm = architecture.norm(*norm)
        self._causal = architecture.causal
        self._rope_theta = config.rope_theta if architecture.rotary else None

    @torch.no_grad()
    def initialise(self, seed: int) -> None:
        """Draw all weights anew: normal(0, init_std), norms 1 and 0, and with `zero_init` zero output projections.

        The numbers are drawn on the CPU from a generator of their own: the same on every device, and the global
        generators are left alone.
        """
        generator = torch.Generator().manual_seed(seed)
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                drawn = torch.empty(module.weight.shape).normal_(0.0, self.config.init_std, generator=generator)
                module.weight.copy_(drawn)
            elif isinstance(module, LayerNorm | RMSNorm):
                module.weight.fill_(1.0)
                if isinstance(module, LayerNorm) and module.bias is not None:
                    module.bias.zero_()
        for module in self.modules():
            if self.config.zero_init and isinstance(module, Block):
                module.attention.out.weight.zero_()
                module.mlp.down.weight.zero_()

    def forward(self, tokens: Tensor, documents: Tensor, slots: Tensor | None = None, causal: bool = False) -> Tensor:
        """Hidden states after the final norm.

        Args:
            tokens: int64 (rows, seq_len).
            documents: int (rows, seq_len), the document of each position within its row; documents lie in one
                piece each, never see each other, and count their positions from their own start.
            slots: int64 (N), flat indices into rows * seq_len of the positions that are wanted.
            causal: hide from every position those after it, which a decoder does anyway.

        Returns:
            (N, width) with slots, else (rows * seq_len, width).
        """
        packing = self._pack(documents, causal or self._causal)
        hidden = self.embedding_norm(self.embed(tokens, packing))
        change = None
        for block in self.blocks[:-1]:
            hidden, change = block(hidden, change, packing)
        hidden, change = self.blocks[-1](hidden, change, packing, slots)
        return self.final_norm.add(change, hidden)[0].view(-1, self.config.width)

    def embed(self, tokens: Tensor, packing: Packing) -> Tensor:
        """What enters the embedding's norm, or the blocks: (rows, seq_len, width), of tokens int64 (rows, seq_len)."""
        return self.embedding(tokens)

    def _pack(self, documents: Tensor, causal: bool) -> Packing:
        device = documents.device
        autocast = torch.is_autocast_enabled(device.type)
        dtype = torch.get_autocast_dtype(device.type) if autocast else self.embedding.weight.dtype
        name = self.config.attention
        if name in VARIABLE_LENGTH and not torch.is_grad_enabled():
            # How a model was trained does not bind its evaluation, which is in fp32 and may be on a CPU.
            name = "auto"
        backend = choose_backend(name, device, dtype)
        return pack(documents, self.config.width // self.config.heads, self._rope_theta, backend, causal)


class Encoder(Transformer):
    """The language model of `model.kind: encoder`, computing exactly what `ModernBertForMaskedLM` computes.

    Rotary positions, GeGLU and no biases anywhere; the first block has no attention norm, because the embedding is
    normalised already; a masked head with a dense layer.

    Source: arXiv:2412.13663, changed: all layers attend globally, and to their own document only.
    """

    def __init__(self, config: ModelConfig, vocab_size: int) -> None:
        super().__init__(config, vocab_size, Architecture())
        self.head = MaskedHead(self.embedding, config.norm_eps)
