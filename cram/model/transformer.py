"""The pre-norm transformer over packed documents that all kinds of models are made of."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

import cram_kernels as ck
from cram.config.model import ModelConfig
from cram.model.attention import Attention, pick
from cram.model.backends.backend import Packing
from cram.model.backends.choose import BACKENDS, choose_backend
from cram.model.heads import TiedHead
from cram.model.layers import GatedMLP, LayerNorm, NoNorm, Norm, PlainMLP, RMSNorm, make_dropout
from cram.model.packing import pack, pack_whole_rows


@dataclass(frozen=True)
class Architecture:
    """The switches between the kinds of models. Beside these, a kind has its own `embed` and its own head.

    Attributes:
        norm: makes a norm from a width and an epsilon.
        first_norm: whether the first block normalises its input; not needed after an embedding norm.
        embedding_norm: whether the embedding is normalised.
        gate: activation of the gated MLPs, `ck.geglu` or `ck.swiglu`; None for MLPs with GELU and biases, and for
            attention with biases too.
        final_norm: whether the output of the last block is normalised.
        qk_norm: whether each head normalises its queries and keys.
        causal: whether a position sees only itself and earlier positions.
        rotary: whether positions are rotary; if not, `embed` adds them.
    """

    norm: Callable[[int, float], Norm] = LayerNorm
    first_norm: bool = False
    embedding_norm: bool = True
    gate: Callable[[Tensor], Tensor] | None = ck.geglu
    final_norm: bool = True
    qk_norm: bool = False
    causal: bool = False
    rotary: bool = True


def make_mlp(config: ModelConfig, architecture: Architecture) -> GatedMLP | PlainMLP:
    """Make the MLP of a block, gated or plain."""
    if architecture.gate is None:
        return PlainMLP(config.width, config.mlp_width)
    return GatedMLP(config.width, config.mlp_width, architecture.gate)


class Block(nn.Module):
    """One pre-norm block: hidden + attention, then hidden + MLP.

    The block returns the second sum as its two terms. The next norm, of the following block or at the end, adds them,
    because one kernel computes the sum and the norm.

    Args:
        config: size of the model.
        architecture: norm and activation.
        attention_norm: whether the input of the attention is normalised.
    """

    def __init__(self, config: ModelConfig, architecture: Architecture, attention_norm: bool) -> None:
        super().__init__()
        norm = (config.width, config.norm_eps)
        self.attention_norm = architecture.norm(*norm) if attention_norm else nn.Identity()
        qk_eps = config.norm_eps if architecture.qk_norm else None
        self.attention = Attention(config.width, config.heads, qk_eps, bias=architecture.gate is None)
        self.mlp_norm = architecture.norm(*norm)
        self.mlp = make_mlp(config, architecture)
        self.dropout = make_dropout(config.dropout)

    def forward(
        self, hidden: Tensor, change: Tensor | None, packing: Packing, slots: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Apply the block to `hidden + change`.

        With slots, everything behind the attention is computed at these positions only. That changes none of the
        results, because only attention mixes positions.

        Args:
            hidden: (rows, seq_len, width).
            change: of the same shape; None for the first block, where there is nothing to add.
            packing: which positions see which.
            slots: int64 (N), indices into rows * seq_len: the only positions to compute; None for all.

        Returns:
            The new hidden and change, not yet added: (rows, seq_len, width) each, or (N, width) with slots.
        """
        if change is None:
            normal = self.attention_norm(hidden)
        else:
            assert isinstance(self.attention_norm, Norm)
            normal, hidden = self.attention_norm.add(change, hidden)
        gathered = self.attention(normal, packing, slots)
        if slots is not None:
            hidden = pick(hidden, slots)
        normal, hidden = self.mlp_norm.add(self.dropout(self.attention.out(gathered)), hidden)
        return hidden, self.dropout(self.mlp(normal))


class Transformer(nn.Module):
    """A language model: embedding, pre-norm blocks, final norm and head.

    A new kind is a subclass in a file of its own, whose `__init__(config, vocab_size)` passes an `Architecture` on and
    sets `self.head`, and one line in `MODELS` of `cram.config.choices`. It can be built on the device `meta`; its
    weights have no values before `initialise`.

    Args:
        config: the keys `model.*`.
        vocab_size: rows of the embedding.
        architecture: what kind of model it is.

    Attributes:
        head: turns hidden states into logits and losses.
        blocks: made by `new_block`; training can compile them one by one.
        active: indices of the blocks that a forward pass in training mode computes, in rising order; None for all.
        new_block_hook: called with each block that is added later; compilation sets it.
    """

    head: TiedHead
    active: list[int] | None = None
    new_block_hook: Callable[[nn.Module], None] | None = None

    def __init__(self, config: ModelConfig, vocab_size: int, architecture: Architecture) -> None:
        super().__init__()
        # `cram.config.consistency` has refused other sizes in a user's words.
        assert min(config.layers, config.width, config.heads, config.mlp_width, vocab_size) >= 1, config
        self.config = config
        self.vocab_size = vocab_size
        self._architecture = architecture
        self.embedding = nn.Embedding(vocab_size, config.width)
        norm = (config.width, config.norm_eps)
        self.embedding_norm = architecture.norm(*norm) if architecture.embedding_norm else nn.Identity()
        self.blocks = nn.ModuleList(self.new_block(index) for index in range(config.layers))
        self.final_norm = architecture.norm(*norm) if architecture.final_norm else NoNorm()
        self._causal = architecture.causal
        self._rope_theta = config.rope_theta if architecture.rotary else None

    def new_block(self, index: int) -> nn.Module:
        """One of the `blocks`, the first with index 0. A kind with blocks of its own has its own `forward` too."""
        config, architecture = self.config, self._architecture
        assert config.width % config.heads == 0, config
        assert not architecture.rotary or config.width // config.heads % 2 == 0, config
        return Block(config, architecture, architecture.first_norm or index > 0)

    @torch.no_grad()
    def initialise(self, seed: int) -> None:
        """Draw all weights anew: normal(0, init_std), norms 1 and 0, biases 0.

        With `zero_init`, the output projections of pre-norm blocks are zero. The numbers come from a CPU generator of
        their own. They are the same on every device, and the state of the global generators does not change.
        """
        generator = torch.Generator().manual_seed(seed)
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                drawn = torch.empty(module.weight.shape).normal_(0.0, self.config.init_std, generator=generator)
                module.weight.copy_(drawn)
                if isinstance(module, nn.Linear) and module.bias is not None:
                    module.bias.zero_()
            elif isinstance(module, LayerNorm | RMSNorm):
                module.weight.fill_(1.0)
                if isinstance(module, LayerNorm) and module.bias is not None:
                    module.bias.zero_()
        for module in self.modules():
            if self.config.zero_init and isinstance(module, Block):
                module.attention.out.weight.zero_()
                module.mlp.down.weight.zero_()

    def forward(
        self, tokens: Tensor, documents: Tensor | None = None, slots: Tensor | None = None, causal: bool = False
    ) -> Tensor:
        """Compute the hidden states after the final norm.

        Args:
            tokens: int64 (rows, seq_len), or bags of tokens, (rows, seq_len, size).
            documents: int (rows, seq_len), the document of each position within its row. A document lies in one piece;
                documents never see each other, and positions count from each document's start. None: each row is one
                document.
            slots: int64 (N), indices into rows * seq_len: the only positions to compute; None for all.
            causal: hide later positions from every position, which a decoder does anyway.

        Returns:
            (N, width) with slots, else (rows * seq_len, width).
        """
        packing = self._pack(tokens, documents, causal or self._causal)
        hidden = self.embedding_norm(self.embed(tokens, packing))
        change = None
        blocks = self._active_blocks()
        for block in blocks[:-1]:
            hidden, change = block(hidden, change, packing)
        if blocks:
            hidden, change = blocks[-1](hidden, change, packing, slots)
            final: Tensor = self.final_norm.add(change, hidden)[0]
        else:
            final = self.final_norm(hidden if slots is None else pick(hidden, slots))
        return final.view(-1, self.config.width)

    def bodies(self) -> "list[Transformer]":
        """The transformers that a training pass computes: this one alone, unless a kind has several."""
        return [self]

    def further_layers(self) -> list[nn.Module]:
        """The modules beside the blocks that a training pass applies to every position; the head is not one of them."""
        return []

    @property
    def depth(self) -> int:
        """Number of blocks."""
        return len(self.blocks)

    @property
    def computed_blocks(self) -> int:
        """Number of blocks that the next forward pass computes."""
        return len(self._active_blocks())

    def _active_blocks(self) -> list[nn.Module]:
        if self.active is None or not self.training:
            return list(self.blocks)
        return [self.blocks[index] for index in self.active]

    @torch.no_grad()
    def grow(self, sources: list[int]) -> dict[str, str]:
        """Give the model other blocks: block i becomes block `sources[i]`, or a copy of it if that one is used already.

        A norm that a copy has and its source lacks, which the first block of some kinds does, begins with a gain of 1.

        Returns:
            For each parameter whose values come from another one or stay, its name and that of its source.
        """
        old, blocks, names = list(self.blocks), nn.ModuleList(), {}
        for index, source in enumerate(sources):
            block = old[source]
            if source in sources[:index]:
                block = self._copy_block(old[source], index)
            blocks.append(block)
            of_source = dict(old[source].named_parameters())
            for name, _ in block.named_parameters():
                if name in of_source:
                    names[f"blocks.{index}.{name}"] = f"blocks.{source}.{name}"
        self.blocks = blocks
        others = {name: name for name, _ in self.named_parameters() if not name.startswith("blocks.")}
        return others | names

    def _copy_block(self, source: nn.Module, index: int) -> nn.Module:
        with torch.device("meta"):
            block = self.new_block(index)
        block.to_empty(device=self.embedding.weight.device)
        for module in block.modules():
            if isinstance(module, LayerNorm | RMSNorm):
                module.weight.fill_(1.0)
                if isinstance(module, LayerNorm) and module.bias is not None:
                    module.bias.zero_()
        block.load_state_dict(source.state_dict(), strict=False)
        block.train(source.training)
        if self.new_block_hook:
            self.new_block_hook(block)
        return block

    def fit_blocks(self, names: Iterable[str]) -> bool:
        """Give the model as many blocks as a state dict has that is to be loaded; the values of new ones do not matter.

        Args:
            names: of the tensors of the state dict.

        Returns:
            Whether the number of blocks was another one before.
        """
        numbers = {int(name.split(".")[1]) for name in names if name.startswith("blocks.")}
        count, old = max(numbers, default=-1) + 1, len(self.blocks)
        if numbers != set(range(count)) or count in (0, old):
            return False  # what does not fit is refused when it is loaded
        self.grow([block % old for block in range(count)])
        return True

    def embed(self, tokens: Tensor, packing: Packing) -> Tensor:
        """The input of the embedding norm: (rows, seq_len, width), of tokens int64 (rows, seq_len).

        Of bags of tokens, int64 (rows, seq_len, size), it is the mean embedding.
        """
        embedded: Tensor = self.embedding(tokens)
        return embedded.mean(2) if tokens.dim() == 3 else embedded

    def _pack(self, tokens: Tensor, documents: Tensor | None, causal: bool) -> Packing:
        device = tokens.device
        autocast = torch.is_autocast_enabled(device.type)
        dtype = torch.get_autocast_dtype(device.type) if autocast else self.embedding.weight.dtype
        name = self.config.attention
        if name != "auto" and BACKENDS[name].variable_length and not torch.is_grad_enabled():
            # Evaluation is in fp32 and may run on a CPU, where the back-end of the training cannot run.
            name = "auto"
        backend = choose_backend(name, device, dtype)
        head_dim = self.config.width // self.config.heads
        if documents is None:
            return pack_whole_rows(tokens, head_dim, self._rope_theta, backend, causal)
        return pack(documents, head_dim, self._rope_theta, backend, causal)
