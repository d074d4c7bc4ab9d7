"""Look into a trained model cell by cell. Editors run the cells (`# %%`) one by one, as in a notebook.

Needs the run `runs/mine`: python -m cram.train recipe=bert_demo run=runs/mine
"""

# %% Load a run
import torch
from torch.nn import functional as F

import cram

model, tokenizer = cram.load("runs/mine")
print(f"{sum(parameter.numel() for parameter in model.parameters()):,} parameters")
print(f"{tokenizer.get_vocab_size():,} tokens, such as {tokenizer.encode('The garden of the river').tokens}")

# %% What does it put in the place of a hidden word?
text = tokenizer.encode("The river crosses the [MASK].")
tokens = torch.tensor([text.ids])  # int64 (1, seq_len)
with torch.no_grad():
    hidden = model(tokens)  # (seq_len, width)
    probabilities = model.head(hidden).softmax(-1)  # (seq_len, vocab_size)
place = text.ids.index(tokenizer.token_to_id("[MASK]"))
for share, number in zip(*(values.tolist() for values in probabilities[place].topk(5)), strict=True):
    print(f"{share:6.1%} {tokenizer.id_to_token(number)}")

# %% Which tokens are near each other?
vectors = F.normalize(model.embedding.weight.detach(), dim=-1)  # (vocab_size, width)
number = tokenizer.encode("river", add_special_tokens=False).ids[0]
nearest = (vectors @ vectors[number]).topk(5).indices.tolist()
print(f"near {tokenizer.id_to_token(number)}:", [tokenizer.id_to_token(other) for other in nearest])

# %% How many nats does each word cost when it is hidden?
text = tokenizer.encode("The river crosses the garden.")
words = range(1, len(text.ids) - 1)  # without the special tokens
labels = torch.tensor([text.ids[place] for place in words])
rows = torch.tensor([text.ids] * len(words))  # one row for each hidden word
rows[torch.arange(len(words)), list(words)] = tokenizer.token_to_id("[MASK]")
slots = torch.arange(len(words)) * len(text.ids) + torch.tensor(list(words))
with torch.no_grad():
    nats, _ = model.head.score(model(rows)[slots], labels)
for place, cost in zip(words, nats.tolist(), strict=True):
    print(f"{cost:6.3f} {text.tokens[place]}")
