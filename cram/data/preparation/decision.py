"""Between the passes: which of the scanned documents are held out, kept, or dropped as duplicates."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cram.config.data import DataConfig
from cram.data.cleaning.dedupe import find_duplicates
from cram.data.cleaning.held_out_split import choose_held_out
from cram.data.preparation.fates import Fate, FateArray, find_dropped
from cram.data.preparation.first_pass import Segments
from cram.data.shards.mapped_arrays import map_sealed_arrays, read_if_intact, write_sealed_arrays
from cram.files.atomic import to_json
from cram.terminal.progress import Progress

NAME = "fates.safetensors"


@dataclass(frozen=True)
class Decision:
    """The fates of all scanned documents after the first pass.

    Attributes:
        fates: uint8 [documents], a `Fate` by document number.
        pairs: examples of duplicates: the numbers of the dropped and of the kept document, and their similarity.
    """

    fates: FateArray
    pairs: list[tuple[int, int, float]]


def decide_fates(segments: Segments, data: DataConfig, folder: Path, progress: Progress) -> Decision:
    """Decide the fate of every scanned document. The decision is stored in `folder`, or read from there."""
    path = folder / NAME
    stored = read_if_intact(path, map_sealed_arrays)
    if stored is None:
        with progress.stage("finding duplicates", None, "documents") as stage:
            decision = _decide(segments, data)
            stage.advance(len(decision.fates))
        write_sealed_arrays(path, {"fates": decision.fates}, {"pairs": to_json(decision.pairs)})
        stored = map_sealed_arrays(path)
    arrays, metadata = stored
    return Decision(arrays["fates"], [tuple(pair) for pair in json.loads(metadata["pairs"])])


def _decide(segments: Segments, data: DataConfig) -> Decision:
    fates = segments.joined("fate")
    candidates = np.flatnonzero(~find_dropped(fates))
    fates[candidates[choose_held_out(segments.joined("hash")[candidates], data.held_out)]] = Fate.HELD_OUT
    duplicates = find_duplicates(
        segments.maps("exact") if data.dedupe.exact else None,
        segments.maps("minhash"),
        held_out=fates == Fate.HELD_OUT,
        candidates=~find_dropped(fates),
        threshold=data.dedupe.near,
        order=segments.order,
    )
    fates[duplicates.exact] = Fate.EXACT
    fates[duplicates.near] = Fate.NEAR
    fates[duplicates.near_held_out] = Fate.NEAR_HELD_OUT
    return Decision(fates, duplicates.pairs)
