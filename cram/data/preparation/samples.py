"""Samples of dropped documents, for people to look at."""

from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from cram.data.cleaning.held_out_split import hash_text
from cram.data.text.document import Document

SAMPLES = 20  # kept for each reason
EXCERPT = 600  # characters of a sample
FIXED = "fix_c1_controls"  # the name of the samples of texts in which C1 controls were replaced


@dataclass(order=True, frozen=True)
class Sample:
    """An excerpt of a document.

    Samples are ordered by their hashes, and those with the lowest hashes are kept: a fair sample of all documents that
    does not depend on their order.

    Attributes:
        hash: of the document's text.
        origin: the name of the file, and the line or row.
        text: the start of the text, or what is wrong with a broken document.
    """

    hash: int
    origin: str
    text: str


Samples: TypeAlias = dict[str, list[Sample]]  # by the reason why the documents were dropped


def make_sample(document: Document, text: str) -> Sample:
    """Make the sample of a document: the start of `text`, or the fault of a broken one."""
    origin = Path(document.origin).name
    return Sample(hash_text(document.text or origin), origin, document.fault or text[:EXCERPT])


def add_samples(samples: Samples, others: Samples) -> None:
    """Add other samples to `samples`, and keep the `SAMPLES` lowest ones of each reason."""
    for reason, more in others.items():
        samples[reason] = sorted({*samples.get(reason, []), *more})[:SAMPLES]
