"""The kernels alone: one transformer block with a loss, in plain torch and `cram_kernels`.

Runs on a CPU, where the reference computes, and on an NVIDIA GPU, where the Triton kernels do. From a clone:
`PYTHONPATH=kernels python examples/kernels.py`.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import cram_kernels as ck

ROWS, SEQ_LEN, WIDTH, HEADS, VOCAB_SIZE = 8, 32, 64, 4, 128


class Block(nn.Module):
    """Attention with rotary positions and a gated MLP, both after a norm."""

    def __init__(self) -> None:
        super().__init__()
        self.norms = nn.ParameterList(torch.ones(WIDTH) for _ in range(2))
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH, bias=False)
        self.out = nn.Linear(WIDTH, WIDTH, bias=False)
        self.up = nn.Linear(WIDTH, 4 * WIDTH, bias=False)
        self.down = nn.Linear(2 * WIDTH, WIDTH, bias=False)

    def forward(self, hidden: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """(rows, seq_len, WIDTH) -> the same; cos and sin (seq_len, head_dim / 2)."""
        normal = ck.layer_norm(hidden, self.norms[0])
        q, k, v = self.qkv(normal).view(*hidden.shape[:2], 3, HEADS, -1).unbind(2)
        q, k = ck.rope(q, k, cos, sin)
        mixed = F.scaled_dot_product_attention(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2))
        attended = self.out(mixed.transpose(1, 2).flatten(2))
        normal, hidden = ck.layer_norm(attended, self.norms[1], residual=hidden)  # the sum and its norm: one kernel
        return hidden + self.down(ck.geglu(self.up(normal)))


def main() -> None:
    """Train the block to count, and print the loss."""
    torch.manual_seed(0)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    embedding, block = nn.Embedding(VOCAB_SIZE, WIDTH).to(device), Block().to(device)
    nn.init.normal_(embedding.weight, std=0.1)
    frequencies = 10_000 ** -(torch.arange(0, WIDTH // HEADS, 2, device=device) * HEADS / WIDTH)
    angles = torch.arange(SEQ_LEN, device=device)[:, None] * frequencies
    optimizer = torch.optim.AdamW([*embedding.parameters(), *block.parameters()], lr=1e-3)
    for step in range(40):
        starts = torch.randint(VOCAB_SIZE, (ROWS, 1), device=device)
        tokens = (starts + torch.arange(SEQ_LEN, device=device)) % VOCAB_SIZE
        following = (tokens + 1) % VOCAB_SIZE
        hidden = block(embedding(tokens), angles.cos(), angles.sin())
        loss = ck.linear_cross_entropy(hidden.flatten(0, 1), embedding.weight, following.flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 10 == 9:
            print(f"step {step + 1}: {loss.item():.3f} nats per token")


if __name__ == "__main__":
    main()
