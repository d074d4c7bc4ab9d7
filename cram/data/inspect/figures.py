"""Figures of a shard folder, computed once for all who show them: fates, lengths, token ranks, seconds."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from cram.data.preparation.fates import Fate

BAR = 1.1  # ratio of a bar's end to its start in the histogram of lengths
NAMED_RANKS = [4**power for power in range(10)]  # the ranks whose tokens are written into a plot
SHORTEST_STAGE = 0.01  # seconds; a shorter time gives no meaningful speed

Counts = npt.NDArray[np.int64]


@dataclass(frozen=True)
class FateLine:
    """How many documents met a fate.

    Attributes:
        name: of the fate: `read`, `held out`, `dropped`, `after the token limit`, `kept` or `boilerplate lines cut`.
        reason: why documents were dropped; empty for other fates.
        documents: how many.
        bytes: of their text as UTF-8, or of the lines that were cut; None if they were not counted.
    """

    name: str
    reason: str
    documents: int
    bytes: int | None


@dataclass(frozen=True)
class StageLine:
    """The time of a stage of the preparation, or of an activity within it.

    Attributes:
        name: of the stage or the activity.
        seconds: wall seconds of a stage; of an activity the sum over all processes.
        speed: bytes of text per second; None where it has no meaning.
        is_activity: whether it is an activity of the stage before it.
    """

    name: str
    seconds: float
    speed: float | None
    is_activity: bool


@dataclass(frozen=True)
class LengthHistogram:
    """How long documents are, over a log axis.

    Attributes:
        edges: int64 [bars + 1], tokens, ascending.
        heights: float64 [bars], documents per bar, scaled to bars of the ratio `BAR`.
        mean: tokens of a document.
        median: tokens of a document.
        fitting: share of the documents that fit into a row.
        most: the length that the last count stands for together with all longer ones; None if no document is that long.
    """

    edges: npt.NDArray[np.int64]
    heights: npt.NDArray[np.float64]
    mean: float
    median: int
    fitting: float
    most: int | None


@dataclass(frozen=True)
class TokenRanks:
    """How often tokens occur, the most frequent first.

    Attributes:
        tokens: int64 [n], the ids of the tokens that occur.
        counts: int64 [n], how often.
        vocab_size: how many ids there are.
    """

    tokens: Counts
    counts: Counts
    vocab_size: int

    def named(self) -> list[int]:
        """The ranks to name in a plot, from 1: some that are evenly spaced on a log axis, and the last one."""
        return [*(rank for rank in NAMED_RANKS if rank < len(self.tokens)), len(self.tokens)]


def list_fates(manifest: Mapping[str, Any]) -> list[FateLine]:
    """List what became of the documents: what was read, held out, dropped for each reason, left over, kept, cut."""
    counts, dropped = manifest["counts"], manifest["dropped"]
    return [
        FateLine("read", "", counts["documents_in"], counts["bytes_in"]),
        FateLine("held out", "", counts["held_out_documents"], counts["held_out_bytes"]),
        *(
            FateLine("dropped", reason, dropped[reason]["documents"], dropped[reason]["bytes"])
            for reason in sort_reasons(dropped)
        ),
        FateLine("after the token limit", "", counts["not_needed_documents"], None),
        FateLine("kept", "", counts["documents"], counts["bytes"]),
        FateLine("boilerplate lines cut", "", counts["boilerplate_documents"], counts["boilerplate_bytes"]),
    ]


def sort_reasons(reasons: Iterable[str]) -> list[str]:
    """Sort reasons in the order of the fates, followed by the names that are not fates."""
    names, known = set(reasons), [fate.reason for fate in Fate]
    return [*(name for name in known if name in names), *sorted(names - set(known))]


def list_stages(timing: Mapping[str, Any], counts: Mapping[str, int]) -> list[StageLine]:
    """List the seconds of each stage with its activities, and the sum of the stages as `all`.

    Args:
        timing: content of timing.json.
        counts: of the manifest.
    """
    text_bytes, resumed = {"scan": counts["bytes_in"], "pack": counts["bytes"]}, False
    lines = []
    for stage, seconds in timing["wall_seconds"].items():
        activities = timing.get(f"{stage}_seconds", {})
        # If the activities need more time than the processes had, some of them and of the text are from before a
        # restart, and the stage has no meaningful speed.
        stage_resumed = sum(activities.values()) > seconds * (timing["processes"] + 1)
        resumed |= stage_resumed
        size = None if stage_resumed else text_bytes.get(stage)
        lines.append(StageLine(stage, seconds, _speed(size, seconds), is_activity=False))
        lines += [
            StageLine(activity, spent, _speed(text_bytes[stage], spent), is_activity=True)
            for activity, spent in activities.items()
        ]
    total = sum(timing["wall_seconds"].values())
    return [*lines, StageLine("all", total, _speed(None if resumed else counts["bytes_in"], total), is_activity=False)]


def _speed(text_bytes: int | None, seconds: float) -> float | None:
    return text_bytes / seconds if text_bytes and seconds >= SHORTEST_STAGE else None


def histogram_lengths(lengths: Counts, tokens: int, seq_len: int) -> LengthHistogram:
    """Make the histogram of document lengths.

    Args:
        lengths: int64, how many documents have each number of tokens; the last element counts all longer ones too.
        tokens: of all documents.
        seq_len: length of a row.
    """
    (found,) = lengths.nonzero()
    low, high = int(found[0]), int(found[-1]) + 1
    bars = int(np.ceil(np.log(high / low) / np.log(BAR)))
    edges = np.unique(np.geomspace(low, high, bars + 1).round().astype(np.int64))
    heights = np.add.reduceat(lengths[:high], edges[:-1]) * np.log(BAR) / np.diff(np.log(edges))
    documents = int(lengths.sum())
    return LengthHistogram(
        edges,
        heights,
        mean=tokens / documents,
        median=int(np.searchsorted(np.cumsum(lengths), documents / 2)),
        fitting=float(lengths[: seq_len + 1].sum() / documents),
        most=len(lengths) - 1 if lengths[-1] else None,
    )


def rank_tokens(counts: Counts) -> TokenRanks:
    """Rank the tokens that occur by their counts, int64 [vocab_size]; equally frequent ones by their ids."""
    order = np.argsort(-counts, kind="stable")[: np.count_nonzero(counts)]
    return TokenRanks(order, counts[order], len(counts))


def printable(text: str) -> str:
    """Escape the characters of a text that a terminal or a font might not show."""
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode() for character in text
    )
