"""Documents of any length -> rows of one length, with their borders kept."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.int32]


class Packer:
    """Cuts a stream of documents into rows of `seq_len` tokens.

    A document that is longer than what is left of a row goes on in the next one, where its index starts at 0
    again. Documents are only collected by `add`; `take` cuts what has come together at once.
    """

    def __init__(self, seq_len: int, pad_id: int):
        self._seq_len = seq_len
        self._pad_id = pad_id
        self._documents: list[npt.NDArray[np.int32]] = []
        self.pending = 0  # tokens added and not yet taken

    def add(self, ids: Sequence[int]) -> None:
        """Append one whole document, `[CLS] text [SEP]`."""
        if len(ids):
            self._documents.append(np.asarray(ids, dtype=np.int32))
            self.pending += len(ids)

    def take(self) -> tuple[Array, Array]:
        """The full rows, and away with them: tokens and documents, int32 [rows, seq_len].

        `documents` is the 0-based index of each token's document within its row.
        """
        stream, numbers = self._stream()
        cut = self.pending - self.pending % self._seq_len
        self._keep(stream[cut:], numbers[cut:])
        return self._rows(stream[:cut], numbers[:cut])

    def finish(self) -> tuple[Array, Array]:
        """What is left, the last row padded; its padding counts as one more document."""
        stream, numbers = self._stream()
        missing = -len(stream) % self._seq_len
        padding = np.full(missing, self._pad_id, np.int32)
        after = np.full(missing, numbers[-1] + 1 if len(numbers) else 0, np.int32)
        self._keep(stream[:0], numbers[:0])
        return self._rows(np.concatenate([stream, padding]), np.concatenate([numbers, after]))

    def _stream(self) -> tuple[Array, Array]:
        """All pending tokens, and the number of the pending document that each is from."""
        lengths = [len(document) for document in self._documents]
        tokens = np.concatenate([np.empty(0, np.int32), *self._documents])
        return tokens, np.repeat(np.arange(len(lengths), dtype=np.int32), lengths)

    def _keep(self, stream: Array, numbers: Array) -> None:
        """Keep the last, incomplete row, document by document."""
        self.pending = len(stream)
        self._documents = [part for part in np.split(stream, np.flatnonzero(np.diff(numbers)) + 1) if len(part)]

    def _rows(self, stream: Array, numbers: Array) -> tuple[Array, Array]:
        tokens = stream.reshape(-1, self._seq_len)
        documents = numbers.reshape(-1, self._seq_len)
        return tokens, documents - documents[:, :1]
