"""The rows that a model is evaluated on, and their file, with which anybody can repeat the evaluation."""

from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from cram.errors import CramError
from cram.evaluation.halves import HALVES
from cram.files.tensors import check_tensors
from cram.objectives.batch import IGNORED

# Names of tensors in the file.
UNKNOWN = "unknown_share"
OF_HALVES = ("halves", "row_bytes")  # files of earlier versions do not have them
# How held-out text is scored, and the key in the file's metadata that holds the bytes of the predicted tokens.
BYTES_KEYS = {"masked": "masked_bytes", "causal": "bytes"}


@dataclass(frozen=True)
class HeldOutSet:
    """Rows ready for evaluation. A row holds one document or one window of it, so a stock class computes the same.

    Attributes:
        tokens: int64 [rows, seq_len], the text.
        inputs: int64 [rows, seq_len], what the model reads: the tokens, with [MASK] instead of hidden ones.
        labels: int64 [rows, seq_len], the token to predict at each position; IGNORED where none is predicted.
        documents: int32 [rows, seq_len], 0 for the document, 1 for padding.
        objective: "masked", where a label is the hidden token, or "causal", where it is the next token.
        predicted_bytes: UTF-8 bytes of the text that the predicted tokens stand for; each byte of a text belongs to
            exactly one token.
        unknown_share: share of the text's bytes that the unknown token stands for. It is never predicted, so neither
            its nats nor these bytes count.
        halves: uint8 [rows], the half that the document of each row belongs to, as an index of
            `cram.evaluation.halves.HALVES`; None for rows from a file of an earlier version.
        row_bytes: int64 [rows], the part of `predicted_bytes` that is in each row; None where `halves` is.
    """

    tokens: torch.Tensor
    inputs: torch.Tensor
    labels: torch.Tensor
    documents: torch.Tensor
    objective: str
    predicted_bytes: int
    unknown_share: float = 0.0
    halves: torch.Tensor | None = None
    row_bytes: torch.Tensor | None = None

    def to_bytes(self) -> bytes:
        """The rows as a safetensors file."""
        named = {name: getattr(self, name) for name in ("tokens", "inputs", "labels", "documents", *OF_HALVES)}
        tensors = {name: tensor for name, tensor in named.items() if tensor is not None}
        # A tensor, because the library writes two entries of the metadata in any order, and the same rows must give
        # the same bytes.
        tensors[UNKNOWN] = torch.tensor(self.unknown_share, dtype=torch.float64)
        return save(tensors, metadata={BYTES_KEYS[self.objective]: str(self.predicted_bytes)})

    @classmethod
    def from_file(cls, path: Path) -> "HeldOutSet":
        """Read a file that `to_bytes` made.

        Raises:
            CramError: for a file that is damaged, holds other tensors or predicts nothing.
        """
        tensors, objective, predicted_bytes = _read(path)
        shape = list(tensors["tokens"].shape) if "tokens" in tensors else []
        has_halves = any(name in tensors for name in OF_HALVES)
        check_tensors(tensors, _expected_tensors(shape if len(shape) == 2 else [0, 0], has_halves), f"{path}: ")
        unknown_share = float(tensors.pop(UNKNOWN))
        rows = cls(**tensors, objective=objective, predicted_bytes=predicted_bytes, unknown_share=unknown_share)
        if predicted_bytes < 0 or not 0 <= unknown_share <= 1 or not (rows.labels != IGNORED).any():
            raise CramError(
                f"{path}: the held-out rows count {predicted_bytes} bytes, {unknown_share:g} of them unknown, "
                "or predict nothing."
            )
        if not rows.halves_add_up():
            raise CramError(f"{path}: the halves of the held-out rows do not add up to the whole.")
        return rows

    def halves_add_up(self) -> bool:
        """Whether each row is in a half, and its bytes are part of the whole; True where the halves are not known."""
        if self.halves is None or self.row_bytes is None:
            return True
        known = bool((self.halves < len(HALVES)).all()) and bool((self.row_bytes >= 0).all())
        return known and int(self.row_bytes.sum()) == self.predicted_bytes

    def check_ids(self, vocab_size: int, path: Path) -> None:
        """Check that a model with so many tokens knows every id.

        Raises:
            CramError: naming the file, the tensor and the first wrong id.
        """
        for name, limit in (("tokens", vocab_size), ("inputs", vocab_size), ("labels", vocab_size), ("documents", 2)):
            ids = getattr(self, name)
            wrong = ids[(ids < 0) | (ids >= limit)]
            wrong = wrong[wrong != IGNORED] if name == "labels" else wrong
            if len(wrong):
                raise CramError(
                    f"{path}: the tensor {name} holds {int(wrong[0])}, and numbers from 0 to {limit - 1} are needed."
                )


def _read(path: Path) -> tuple[dict[str, torch.Tensor], str, int]:
    """Tensors, objective and predicted bytes of a file."""
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
            metadata = file.metadata()
            ((objective, predicted_bytes),) = [
                (objective, int(metadata[key])) for objective, key in BYTES_KEYS.items() if key in metadata
            ]
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise CramError(f"{path}: not a readable file of held-out rows ({error}). Run cram.train again.") from None
    return tensors, objective, predicted_bytes


def _expected_tensors(shape: list[int], has_halves: bool) -> dict[str, torch.Tensor]:
    """Tensors without data, of the names, shapes and dtypes that a file must have."""
    ids = torch.empty(shape, dtype=torch.int64, device="meta")
    documents = torch.empty(shape, dtype=torch.int32, device="meta")
    unknown_share = torch.tensor(0.0, dtype=torch.float64)
    expected = {"tokens": ids, "inputs": ids, "labels": ids, "documents": documents, UNKNOWN: unknown_share}
    if has_halves:
        of_rows = (torch.empty(shape[:1], dtype=dtype, device="meta") for dtype in (torch.uint8, torch.int64))
        expected |= dict(zip(OF_HALVES, of_rows, strict=True))
    return expected
