"""Between the passes: which of the scanned documents are held out, kept or dropped as duplicates."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from cram.config.data import DataConfig
from cram.data.cleaning.dedupe import find_duplicates
from cram.data.cleaning.held_out_split import choose_held_out
from cram.data.preparation.first_pass import Segments
from cram.data.preparation.scan import FATE, HELD_OUT, KEPT
from cram.data.shards.mapped_arrays import map_sealed_arrays, read_kept, write_sealed_arrays
from cram.files.atomic import to_json
from cram.terminal.progress import Progress

NAME = "fates.safetensors"


@dataclass(frozen=True)
class Decision:
    """fates: uint8 [documents] in the order of (part, record), see `scan.FATES`. pairs: examples of duplicates."""

    fates: npt.NDArray[np.uint8]
    pairs: list[tuple[int, int, float]]


def decide(segments: Segments, data: DataConfig, folder: Path, report: Progress) -> Decision:
    """Decide on every document, and keep the decision in `folder`."""
    path = folder / NAME
    found = read_kept(path, map_sealed_arrays)
    if found is None:
        with report.stage("finding duplicates", None, "documents") as stage:
            decision = _decide(segments, data)
            stage.advance(len(decision.fates))
        write_sealed_arrays(path, {"fates": decision.fates}, {"pairs": to_json(decision.pairs)})
        found = map_sealed_arrays(path)
    arrays, metadata = found
    return Decision(arrays["fates"], [tuple(pair) for pair in json.loads(metadata["pairs"])])


def _decide(segments: Segments, data: DataConfig) -> Decision:
    fates = segments.joined("fate")
    candidates = np.flatnonzero((fates == KEPT) | (fates == HELD_OUT))
    fates[candidates[choose_held_out(segments.joined("hash")[candidates], data.held_out)]] = HELD_OUT
    found = find_duplicates(
        segments.maps("exact") if data.dedupe.exact else None,
        segments.maps("minhash"),
        held_out=fates == HELD_OUT,
        candidates=fates <= HELD_OUT,
        threshold=data.dedupe.near,
        order=segments.order,
    )
    for name in ("exact", "near", "near_held_out"):
        fates[getattr(found, name)] = FATE[name]
    return Decision(fates, found.pairs)
