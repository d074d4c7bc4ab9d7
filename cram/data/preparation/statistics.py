"""What became of the documents: entries of the manifest, and samples of what was dropped to look at."""

from pathlib import Path
from typing import Any, get_args

import numpy as np

from cram.config.data import DataConfig
from cram.data.preparation.decision import Decision
from cram.data.preparation.first_pass import Segments
from cram.data.preparation.row_writer import RowWriter
from cram.data.preparation.scan import FATES, HELD_OUT, Sample, Samples, Scanned, add_samples
from cram.data.shards.pack import PackingKind, predict_fill
from cram.data.text.source import Source

STATISTICS = "statistics.json"


def account(
    source: Source, segments: Segments, decision: Decision, found: Scanned, rows: RowWriter, data: DataConfig
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The manifest's account of the documents, and the content of statistics.json."""
    counts, sizes = rows.counts, segments.joined("bytes")
    documents, totals = (np.bincount(decision.fates, weights, len(FATES)).astype(int) for weights in (None, sizes))
    dropped = {
        name: {"documents": int(documents[fate]), "bytes": int(totals[fate])}
        for fate, name in enumerate(FATES)
        if fate > HELD_OUT
    }
    for name, (number, size) in counts.dropped.items():
        dropped[name] = {"documents": dropped[name]["documents"] + number, "bytes": dropped[name]["bytes"] + size}
    manifest = {
        "sources": [
            {"name": Path(part.name).name, "bytes": part.size, "documents": taken}
            for part, taken in zip(source.parts, segments.taken, strict=True)
        ],
        "counts": {
            "documents": counts.documents,
            "bytes": counts.bytes,
            "held_out_documents": int(documents[HELD_OUT]),
            "held_out_bytes": int(totals[HELD_OUT]),
            "documents_in": len(decision.fates),
            "bytes_in": int(sizes.sum()),
            "not_needed_documents": counts.not_needed,
            "boilerplate_documents": found.cut_documents,
            "boilerplate_bytes": found.cut_bytes,
        },
        "packing": _packing(rows, data),
        "dropped": {name: figures for name, figures in dropped.items() if figures["documents"]},
    }
    samples: Samples = {}
    for some in (found.samples, counts.samples):
        add_samples(samples, some)
    statistics = {
        "samples": {name: [_shown(one) for one in some] for name, some in sorted(samples.items())},
        "duplicates": [
            {
                "reason": FATES[decision.fates[one]],
                "dropped": _shown(counts.excerpts[one]),
                "kept": _shown(counts.excerpts[other]),
                "similarity": similarity,
            }
            for one, other, similarity in decision.pairs
            if one in counts.excerpts and other in counts.excerpts
        ],
    }
    return manifest, statistics


def _packing(rows: RowWriter, data: DataConfig) -> dict[str, Any]:
    """Fill rate and documents cut of both packings: the one that was done, and the other told from the lengths."""
    lengths = np.repeat(np.arange(len(rows.lengths), dtype=np.uint32), rows.lengths)
    # A histogram is sorted, and documents of one length do not fit together.
    np.random.RandomState(0).shuffle(lengths)
    (other,) = set(get_args(PackingKind)) - {data.packing}
    told = predict_fill(lengths, data.seq_len, other)
    return {
        data.packing: {"fill": rows.fill, "cut_documents": rows.cut, "measured": True},
        other: {"fill": told.share, "cut_documents": told.cut, "measured": False},
    }


def _shown(sample: Sample) -> dict[str, str]:
    return {"origin": sample.origin, "text": sample.text}
