"""How much of each source of a list is packed, so that each has its share of the training tokens."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cram.config.data import DataConfig
from cram.data.cleaning.cleaner import Cleaner
from cram.data.cleaning.word_hashes import WordSplitter
from cram.data.preparation.chunks import split_into_chunks
from cram.data.preparation.first_pass import Segments
from cram.data.preparation.second_pass import DocumentTokenizer
from cram.data.shards.mapped_arrays import read_if_intact
from cram.data.text.document import byte_size
from cram.data.text.reading_plan import ReadingPlan
from cram.data.text.source import PartGroup, Source, SourcePart
from cram.errors import CramError
from cram.files.sealed import read_sealed, write_sealed

MEASURED_BYTES = 4_000_000  # of each group's text
RATES = "group_rates.json"


@dataclass(frozen=True)
class GroupRate:
    """How much text of a group makes a training token, measured on a sample.

    Attributes:
        read: bytes of all text that is read for a token.
        kept: bytes of the text that the filters on text keep for a token.
    """

    read: float
    kept: float


def measure_groups(
    source: Source, data: DataConfig, tokenizer: str, split: WordSplitter, folder: Path
) -> list[GroupRate]:
    """Measure the groups of a source; none if it has a single one, whose share does not depend on it.

    Args:
        source: the text.
        data: how it is cleaned.
        tokenizer: the content of a tokenizer.json.
        split: makes the words by which texts are judged.
        folder: where the result is kept, and read from if it is there.

    Raises:
        CramError: nothing is left of a sample.
    """
    if len(source.groups) == 1:
        return []
    if stored := read_if_intact(folder / RATES, read_sealed):
        return [GroupRate(**rate) for rate in stored["rates"]]
    tokenize, cleaner = DocumentTokenizer(tokenizer, data.filters), Cleaner(data.filters, split)
    rates = [_measure(_PartsOf(source, group), group, tokenize, cleaner) for group in source.groups]
    write_sealed(folder / RATES, {"rates": [asdict(rate) for rate in rates]})
    return rates


def bytes_to_scan(source: Source, tokens: int | None, rates: list[GroupRate], bytes_per_token: float) -> float | None:
    """Return how much text holds a number of training tokens, before duplicates are dropped; None means all of it.

    Args:
        source: the text.
        tokens: training tokens; None means all that there are.
        rates: those of the source's groups, if there are several.
        bytes_per_token: of the whole source, which counts if there is a single group.
    """
    if tokens is None:
        return None
    if rates:
        bytes_per_token = sum(group.share * rate.read for group, rate in zip(source.groups, rates, strict=True))
    return tokens * bytes_per_token


def share_tokens(
    source: Source, segments: Segments, kept: npt.NDArray[np.bool_], tokens: int | None, rates: list[GroupRate]
) -> tuple[list[float], int | None]:
    """Share the training tokens among the parts of a source.

    Args:
        source: the text.
        segments: the results of the first pass.
        kept: bool [documents], by document number.
        tokens: how many are asked for; None means as many as there are.
        rates: those of the source's groups, if there are several.

    Returns:
        For each part, the share of the tokens that it and the parts before it have, and how many tokens that is a share
        of. With several groups these are at most as many as the scarcest group allows.

    Raises:
        CramError: nothing is left of a group.
    """
    if not rates:
        return segments.shares(kept), tokens
    groups = source.groups
    part_bytes = np.bincount(segments.joined("part"), segments.joined("bytes") * kept, len(segments.taken))
    shares = np.zeros(len(part_bytes))
    allowed: dict[int, PartGroup] = {}
    for group, rate in zip(groups, rates, strict=True):
        parts = np.array(group.parts, np.int64)
        size = part_bytes[parts].sum()
        if not size:
            raise _nothing_left(group)
        shares[parts] = group.share * part_bytes[parts] / size
        allowed[int(size / rate.kept / group.share)] = group
    limit = min(allowed)
    if tokens is not None and limit < tokens:
        print(
            f"data.tokens={tokens}: {allowed[limit].name} allows about {limit}, at its share of "
            f"{allowed[limit].share:.3g}; give it more text or a lower weight for more",
            flush=True,
        )
    cumulated: list[float] = (shares.cumsum() / shares.sum()).tolist()
    return cumulated, limit if tokens is None else min(limit, tokens)


def describe_mixture(source: Source, part_tokens: dict[int, int]) -> dict[str, Any]:
    """Make the manifest's entry on the sources of a list: the share that each asked for and got; empty for no list.

    Args:
        source: the text.
        part_tokens: the training tokens by part.
    """
    total = max(1, sum(part_tokens.values()))
    lines = []
    for member in source.members:
        tokens = sum(part_tokens.get(part, 0) for part in member.parts)
        # The folders of this machine are left out: the same files elsewhere give the same bytes.
        name = member.name if member.name.startswith("hf:") else Path(member.name).name
        lines.append({"name": name, "weight": member.weight, "tokens": tokens, "share": round(tokens / total, 6)})
    return {"mixture": lines} if lines else {}


class _PartsOf(Source):
    """A group of a source as a source."""

    def __init__(self, source: Source, group: PartGroup) -> None:
        self._source = source
        self._own_parts = [source.parts[index] for index in group.parts]

    @property
    def parts(self) -> list[SourcePart]:
        return self._own_parts

    def fingerprint(self) -> str:
        return self._source.fingerprint()  # which changes with the content of each group


def _measure(source: Source, group: PartGroup, tokenize: DocumentTokenizer, cleaner: Cleaner) -> GroupRate:
    plan = ReadingPlan(source, MEASURED_BYTES)
    kept = tokens = 0
    for chunk in split_into_chunks((document.text, document) for _, document in plan):
        judgements = cleaner.judge([document.text for document in chunk])
        documents = [
            document for document, judgement in zip(chunk, judgements, strict=True) if judgement.reason is None
        ]
        kept += sum(byte_size(document.text) for document in documents)
        tokens += int(tokenize(documents).lengths.sum()) if documents else 0
    if not tokens:
        raise _nothing_left(group)
    return GroupRate(plan.state.bytes / tokens, kept / tokens)


def _nothing_left(group: PartGroup) -> CramError:
    return CramError(
        f"data.source: nothing is left to train on of {group.name}, whose share of the tokens is {group.share:.3g}\n"
        "see data.filters and data.dedupe, or take it out of the list."
    )
