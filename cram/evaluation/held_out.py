"""Held-out evaluation: fixed documents, fixed masks, the same figures from anybody who repeats it.

15% of the ordinary tokens of each row are hidden, all behind the mask token, chosen by a hash of the document's
text. A row holds one document or one window of it, so stock classes that know no packing agree. A second
rule, Cramming's, is evaluated at the end of a run: each rule favours the model that was trained on it. A causal
model predicts every ordinary token of a row but the first.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from tokenizers import Tokenizer

from cram.config.training import EvaluationConfig
from cram.data.pieces import piece_bytes
from cram.data.special import SpecialTokens, text_places, written_controls
from cram.errors import CramError
from cram.files.tensors import check_tensors
from cram.objectives.batch import IGNORED
from cram.objectives.causal import next_tokens
from cram.objectives.masked import Replacement
from cram.objectives.slots import choose_slots, mix

BATCH_ROWS = 64
# Beside the nats of a token: those of a byte, in bits. The bytes of an objective's rows are named likewise in a file.
BITS = {"masked": "bits_per_masked_byte", "causal": "bits_per_byte"}
BYTES = {"masked": "masked_bytes", "causal": "bytes"}
UNKNOWN = "unknown_share"


@dataclass(frozen=True)
class MaskRule:
    """Share of the ordinary tokens that is hidden, and the shares of these shown as [MASK] and as a random token."""

    rate: float
    mask_share: float = 1.0
    random_share: float = 0.0


# Source: arXiv:2212.14034, what its final model is trained on.
CRAMMING_RULE = MaskRule(0.25, 0.8, 0.1)


class HeldOutDocument(Protocol):
    """A document with the sha256 of its text, in hex."""

    @property
    def text(self) -> str: ...
    @property
    def hash(self) -> str: ...


@dataclass(frozen=True)
class HeldOutSet:
    """Rows ready for evaluation.

    tokens, inputs, labels: int64 [rows, seq_len]; `inputs` what the model reads, with [MASK] put in, `labels` what it
    is to answer at each position, IGNORED where nothing is predicted. documents: int32 [rows, seq_len], 0, padding 1.
    objective: "masked", or "causal", where a label is the next token.
    predicted_bytes: UTF-8 bytes of the text that the predicted tokens stand for, as `piece_bytes` counts them.
    unknown_share: share of the text's bytes that the unknown token stands for; it is never predicted, so neither its
        nats nor these bytes count.
    """

    tokens: torch.Tensor
    inputs: torch.Tensor
    labels: torch.Tensor
    documents: torch.Tensor
    objective: str
    predicted_bytes: int
    unknown_share: float = 0.0

    def to_bytes(self) -> bytes:
        """The rows as a safetensors file, for anybody who wants to repeat the evaluation."""
        tensors = {name: getattr(self, name) for name in ("tokens", "inputs", "labels", "documents")}
        # No second entry of the metadata: the library writes them in any order, and the same rows give the same bytes.
        tensors[UNKNOWN] = torch.tensor(self.unknown_share, dtype=torch.float64)
        return save(tensors, metadata={BYTES[self.objective]: str(self.predicted_bytes)})

    @classmethod
    def from_file(cls, path: Path) -> "HeldOutSet":
        """Read back what `to_bytes` gave. Errors: CramError for a file that is damaged or holds other tensors."""
        try:
            with safe_open(path, framework="pt") as file:
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
                ((objective, count),) = [
                    (objective, int(file.metadata()[name]))
                    for objective, name in BYTES.items()
                    if name in file.metadata()
                ]
        except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
            raise CramError(f"{path}: not a readable file of held-out rows ({error}). Run cram.train again.") from None
        form = next((list(one.shape) for name, one in tensors.items() if name == "tokens"), [0, 0])
        check_tensors(tensors, _wanted(form if len(form) == 2 else [0, 0]), f"{path}: ")
        unknown = float(tensors.pop(UNKNOWN))
        rows = cls(**tensors, objective=objective, predicted_bytes=count, unknown_share=unknown)
        if count < 0 or not 0 <= unknown <= 1 or not (rows.labels != IGNORED).any():
            raise CramError(
                f"{path}: the held-out rows count {count} bytes, {unknown:g} of them unknown, or predict nothing."
            )
        return rows

    def check_ids(self, vocab_size: int, path: Path) -> None:
        """Errors: CramError, naming the file and the tensor, for ids that a model of so many tokens has not."""
        for name, most in (("tokens", vocab_size), ("inputs", vocab_size), ("labels", vocab_size), ("documents", 2)):
            ids = getattr(self, name)
            wrong = ids[(ids < 0) | (ids >= most)]
            wrong = wrong[wrong != IGNORED] if name == "labels" else wrong
            if len(wrong):
                raise CramError(
                    f"{path}: the tensor {name} holds {int(wrong[0])}, and numbers from 0 to {most - 1} are needed."
                )


def build_held_out(
    documents: Iterable[HeldOutDocument],
    tokenizer: Tokenizer,
    seq_len: int,
    config: EvaluationConfig,
    rule: MaskRule | None = None,
    objective: str = "masked",
) -> HeldOutSet:
    """Held-out rows of some documents for an objective; masked by another rule than the config's where one is given."""
    special = SpecialTokens.of(tokenizer)
    if objective == "causal":
        return make_causal_held_out(documents, tokenizer, special.ids(), special.pad, seq_len, config.tokens)
    assert special.mask is not None
    return make_held_out(
        documents,
        tokenizer,
        special=special.ids(),
        pad_id=special.pad,
        mask_id=special.mask,
        seq_len=seq_len,
        max_tokens=config.tokens,
        rule=rule or MaskRule(config.mask_rate),
    )


def make_held_out(
    documents: Iterable[HeldOutDocument], tokenizer: Any, special: list[int], pad_id: int, mask_id: int,
    seq_len: int, max_tokens: int, rule: MaskRule,
) -> HeldOutSet:  # fmt: skip
    """Tokenize, window and mask held-out documents, in the order given, up to `max_tokens` positions.

    Errors: CramError where no token is left to predict.
    """
    rows = _windows(documents, tokenizer, pad_id, seq_len, max(1, max_tokens // seq_len))
    tokens = rows.tokens
    maskable = ~np.isin(tokens, special)
    positions, used = choose_slots(maskable, rows.keys, rule.rate, math.ceil(rule.rate * seq_len))
    hidden = np.zeros_like(maskable)
    np.put_along_axis(hidden, positions, used, axis=1)
    _check_any(hidden)
    ordinary = np.setdiff1d(list(tokenizer.get_vocab().values()), special)
    replacement = Replacement(mask_id, ordinary, rule.mask_share, rule.random_share)
    inputs = tokens.copy()
    inputs[hidden] = replacement.show(tokens[hidden], np.flatnonzero(hidden), rows.keys, seq_len)
    return HeldOutSet(
        tokens=torch.from_numpy(tokens),
        inputs=torch.from_numpy(inputs),
        labels=torch.from_numpy(np.where(hidden, tokens, IGNORED)),
        documents=torch.from_numpy((tokens == pad_id).astype(np.int32)),
        objective="masked",
        predicted_bytes=int(rows.sizes[hidden].sum()),
        unknown_share=rows.unknown_share,
    )


def make_causal_held_out(
    documents: Iterable[HeldOutDocument], tokenizer: Any, special: list[int], pad_id: int, seq_len: int, max_tokens: int
) -> HeldOutSet:
    """The same windows of the same documents for a causal model: nothing is hidden, a label is the next token.

    Errors: CramError where no token is left to predict.
    """
    rows = _windows(documents, tokenizer, pad_id, seq_len, max(1, max_tokens // seq_len))
    padding = (rows.tokens == pad_id).astype(np.int32)
    labels = next_tokens(rows.tokens, padding, special)
    predicted = labels[:, :-1] != IGNORED
    _check_any(predicted)
    return HeldOutSet(
        tokens=torch.from_numpy(rows.tokens),
        inputs=torch.from_numpy(rows.tokens.copy()),
        labels=torch.from_numpy(labels),
        documents=torch.from_numpy(padding),
        objective="causal",
        predicted_bytes=int(rows.sizes[:, 1:][predicted].sum()),
        unknown_share=rows.unknown_share,
    )


def _check_any(predicted: np.ndarray) -> None:
    if not predicted.any():
        raise CramError("the held-out text holds no token to predict. Give more text, or raise data.held_out.")


def _wanted(form: list[int]) -> dict[str, torch.Tensor]:
    rows = torch.empty(form, dtype=torch.int64, device="meta")
    documents, share = torch.empty(form, dtype=torch.int32, device="meta"), torch.tensor(0.0, dtype=torch.float64)
    return {"tokens": rows, "inputs": rows, "labels": rows, "documents": documents, UNKNOWN: share}


@dataclass(frozen=True)
class _Windows:
    """Rows of one window each: token ids and the bytes they stand for, int64 [rows, seq_len]; keys, uint64 [rows]."""

    tokens: np.ndarray
    sizes: np.ndarray
    keys: np.ndarray
    unknown_share: float


def _windows(
    documents: Iterable[HeldOutDocument], tokenizer: Any, pad_id: int, seq_len: int, max_rows: int
) -> _Windows:
    tokens, sizes, keys = [], [], []
    special = SpecialTokens.of(tokenizer)
    controls = written_controls(tokenizer, special)
    tokenizer.encode_special_tokens = True  # as in training, a "[PAD]" that a document writes is text, no padding
    for document in documents:
        encoding = tokenizer.encode(document.text)
        places = text_places(encoding, controls)
        ids, offsets, added = (
            [one[place] for place in places] for one in (encoding.ids, encoding.offsets, encoding.special_tokens_mask)
        )
        lengths = piece_bytes(document.text, offsets, added)
        start = np.frombuffer(bytes.fromhex(document.hash)[:8], "<u8")
        for window, begin in enumerate(range(0, len(ids), seq_len)):
            pad = seq_len - len(ids[begin : begin + seq_len])
            tokens.append(ids[begin : begin + seq_len] + [pad_id] * pad)
            sizes.append(lengths[begin : begin + seq_len] + [0] * pad)
            keys.append(mix(start ^ np.uint64(window))[0])
        if len(tokens) >= max_rows:
            break
    if not tokens:
        raise CramError("there is no held-out document. Give more text, or raise data.held_out.")
    rows, covered = np.array(tokens[:max_rows]), np.array(sizes[:max_rows])
    unknown = 0.0 if special.unk is None else covered[rows == special.unk].sum() / max(1, covered.sum())
    return _Windows(rows, covered, np.array(keys[:max_rows], np.uint64), float(unknown))


@torch.no_grad()
def evaluate(model: Any, rows: HeldOutSet, device: torch.device) -> dict[str, float]:
    """The `held_out_figures` of a model, in fp32."""
    nats = correct = 0.0
    for begin in range(0, len(rows.tokens), BATCH_ROWS):
        part = slice(begin, begin + BATCH_ROWS)
        labels = rows.labels[part].flatten()
        slots = (labels != IGNORED).nonzero().squeeze(1)
        hidden = model(rows.inputs[part].to(device), rows.documents[part].to(device), slots.to(device))
        loss, right = model.head.score(hidden, labels[slots].to(device))
        nats += float(loss.double().sum())
        correct += float(right.sum())
    predicted = int((rows.labels != IGNORED).sum())
    bits = nats / math.log(2) / max(rows.predicted_bytes, 1)
    names = held_out_figures(rows.objective)
    return dict(zip(names, (nats / predicted, bits, correct / predicted, predicted), strict=True))


def held_out_figures(objective: str) -> tuple[str, str, str, str]:
    """Names of what is measured for a model of this objective."""
    return ("nats_per_token", BITS[objective], "accuracy", "predicted_tokens")


def unknown_text(share: float) -> str:
    """What is said behind a figure about the bytes that it leaves out; nothing below 0.1% of them."""
    return f"; {share:.1%} of the text's bytes are behind the unknown token and not counted" if share >= 0.001 else ""


def unigram_nats(counts: np.ndarray, labels: torch.Tensor) -> float:
    """Nats per predicted token of the training set's token frequencies, one added to each count."""
    wanted = labels[labels != IGNORED].numpy()
    smoothed = counts.astype(np.float64) + 1.0
    return float(-np.log(smoothed[wanted] / smoothed.sum()).mean())
