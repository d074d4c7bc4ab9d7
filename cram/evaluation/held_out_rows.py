"""Make held-out rows from documents: fixed windows and fixed masks, the same on every machine.

For a masked model, 15% of the ordinary tokens of each row are hidden, all behind the mask token; a hash of the
document's text chooses them. A second mask rule, Cramming's, is evaluated at the end of a run, because each rule
favours the model that was trained with it. A causal model predicts every ordinary token of a row but the first.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from tokenizers import Tokenizer

from cram.config.training import EvaluationConfig
from cram.data.shards.shards import HeldOutDocument
from cram.data.special_tokens import SpecialTokens, find_written_controls, select_text_tokens
from cram.data.token_bytes import count_token_bytes
from cram.errors import CramError
from cram.evaluation.halves import halves_of
from cram.evaluation.held_out import HeldOutSet
from cram.objectives.batch import IGNORED
from cram.objectives.causal import next_tokens
from cram.objectives.masked import Replacement
from cram.objectives.slots import choose_slots, mix

Ids = npt.NDArray[np.int64]


@dataclass(frozen=True)
class MaskRule:
    """How tokens are hidden.

    Attributes:
        rate: share of the ordinary tokens that is hidden.
        mask_share: share of the hidden tokens that is shown as [MASK].
        random_share: share of the hidden tokens that is shown as a random token; the rest is shown as it is.
    """

    rate: float
    mask_share: float = 1.0
    random_share: float = 0.0


# The rule that Cramming's final model is trained with. Source: arXiv:2212.14034.
CRAMMING_RULE = MaskRule(0.25, 0.8, 0.1)


def build_held_out(
    documents: Iterable[HeldOutDocument],
    tokenizer: Tokenizer,
    seq_len: int,
    config: EvaluationConfig,
    rule: MaskRule | None = None,
    objective: str = "masked",
) -> HeldOutSet:
    """Make held-out rows for an objective.

    Args:
        documents: in the order in which they are taken, until `config.tokens` positions are full.
        seq_len: positions of a row.
        rule: for masked rows; None for the rule of the config.
        objective: "masked" or "causal".

    Raises:
        CramError: where there is no document, or no token to predict.
    """
    windows = _make_windows(documents, tokenizer, seq_len, max(1, config.tokens // seq_len))
    if objective == "causal":
        return _causal_rows(windows, SpecialTokens.of(tokenizer))
    return _masked_rows(windows, tokenizer, rule or MaskRule(config.mask_rate))


@dataclass(frozen=True)
class _Windows:
    """Rows of one window each.

    tokens: int64 [rows, seq_len].
    byte_counts: int64 [rows, seq_len], the bytes of text that each token stands for.
    keys: uint64 [rows], a hash of the document's text and the window's number.
    unknown_share: share of the bytes that the unknown token stands for.
    halves: uint8 [rows], the half of the held-out text that the document belongs to.
    """

    tokens: Ids
    byte_counts: Ids
    keys: npt.NDArray[np.uint64]
    unknown_share: float
    halves: npt.NDArray[np.uint8]

    def predicted_bytes(self, predicted: npt.NDArray[np.bool_]) -> dict[str, Any]:
        """The fields of `HeldOutSet` on the text behind the predicted tokens, a bool [rows, seq_len]."""
        row_bytes = np.where(predicted, self.byte_counts, 0).sum(axis=1)
        return {
            "predicted_bytes": int(row_bytes.sum()),
            "unknown_share": self.unknown_share,
            "halves": torch.from_numpy(self.halves),
            "row_bytes": torch.from_numpy(row_bytes),
        }


def _make_windows(documents: Iterable[HeldOutDocument], tokenizer: Tokenizer, seq_len: int, max_rows: int) -> _Windows:
    token_rows: list[list[int]] = []
    byte_rows: list[list[int]] = []
    keys: list[np.uint64] = []
    hashes: list[str] = []
    special = SpecialTokens.of(tokenizer)
    controls = find_written_controls(tokenizer, special)
    tokenizer.encode_special_tokens = True  # as in training: a "[PAD]" in a document is text, not padding
    for document in documents:
        encoding = tokenizer.encode(document.text)
        places = select_text_tokens(encoding, controls)
        # Each of these attributes is a new list of the whole document whenever it is read.
        all_ids, all_offsets, all_added = encoding.ids, encoding.offsets, encoding.special_tokens_mask
        ids = [all_ids[place] for place in places]
        offsets = [all_offsets[place] for place in places]
        added = [all_added[place] for place in places]
        byte_counts = count_token_bytes(document.text, offsets, added)
        document_key = np.frombuffer(bytes.fromhex(document.hash)[:8], "<u8")
        for window, begin in enumerate(range(0, len(ids), seq_len)):
            padding = seq_len - len(ids[begin : begin + seq_len])
            token_rows.append(ids[begin : begin + seq_len] + [special.pad] * padding)
            byte_rows.append(byte_counts[begin : begin + seq_len] + [0] * padding)
            keys.append(mix(document_key ^ np.uint64(window))[0])
            hashes.append(document.hash)
        if len(token_rows) >= max_rows:
            break
    if not token_rows:
        raise CramError("there is no held-out document. Give more text, or raise data.held_out.")
    tokens, byte_counts_of_rows = np.array(token_rows[:max_rows]), np.array(byte_rows[:max_rows])
    unknown_bytes = 0 if special.unk is None else byte_counts_of_rows[tokens == special.unk].sum()
    unknown_share = float(unknown_bytes / max(1, byte_counts_of_rows.sum()))
    return _Windows(
        tokens,
        byte_counts_of_rows,
        np.array(keys[:max_rows], np.uint64),
        unknown_share,
        halves_of(hashes[:max_rows]),
    )


def _masked_rows(windows: _Windows, tokenizer: Tokenizer, rule: MaskRule) -> HeldOutSet:
    tokens, special = windows.tokens, SpecialTokens.of(tokenizer)
    assert special.mask is not None
    maskable = ~np.isin(tokens, special.ids())
    positions, used = choose_slots(maskable, windows.keys, rule.rate, math.ceil(rule.rate * tokens.shape[1]))
    hidden = np.zeros_like(maskable)
    np.put_along_axis(hidden, positions, used, axis=1)
    _check_any(hidden)
    ordinary = np.setdiff1d(list(tokenizer.get_vocab().values()), special.ids())
    replacement = Replacement(special.mask, ordinary, rule.mask_share, rule.random_share)
    inputs = tokens.copy()
    inputs[hidden] = replacement.show(tokens[hidden], np.flatnonzero(hidden), windows.keys, tokens.shape[1])
    return HeldOutSet(
        tokens=torch.from_numpy(tokens),
        inputs=torch.from_numpy(inputs),
        labels=torch.from_numpy(np.where(hidden, tokens, IGNORED)),
        documents=torch.from_numpy((tokens == special.pad).astype(np.int32)),
        objective="masked",
        **windows.predicted_bytes(hidden),
    )


def _causal_rows(windows: _Windows, special: SpecialTokens) -> HeldOutSet:
    padding = (windows.tokens == special.pad).astype(np.int32)
    labels = next_tokens(windows.tokens, padding, special.ids())
    predicted = labels[:, :-1] != IGNORED  # at a position: whether the token behind it is predicted
    _check_any(predicted)
    return HeldOutSet(
        tokens=torch.from_numpy(windows.tokens),
        inputs=torch.from_numpy(windows.tokens.copy()),
        labels=torch.from_numpy(labels),
        documents=torch.from_numpy(padding),
        objective="causal",
        **windows.predicted_bytes(np.pad(predicted, ((0, 0), (1, 0)))),
    )


def _check_any(predicted: npt.NDArray[np.bool_]) -> None:
    if not predicted.any():
        raise CramError("the held-out text holds no token to predict. Give more text, or raise data.held_out.")
