"""What became of the documents: figures for the manifest, and samples of dropped documents to look at."""

from pathlib import Path
from typing import Any, get_args

import numpy as np

from cram.config.data import DataConfig
from cram.data.preparation.decision import Decision
from cram.data.preparation.fates import Fate
from cram.data.preparation.first_pass import Segments
from cram.data.preparation.mixture import describe_mixture
from cram.data.preparation.row_writer import Counts, RowWriter
from cram.data.preparation.samples import Sample, Samples, add_samples
from cram.data.preparation.scan import ScanResult
from cram.data.shards.pack import PackingKind, predict_fill
from cram.data.text.source import Source

STATISTICS = "statistics.json"


def summarize_documents(
    source: Source, segments: Segments, decision: Decision, scanned: ScanResult, rows: RowWriter, data: DataConfig
) -> dict[str, Any]:
    """Make the manifest's entries on the documents: `sources`, `mixture` of a list, `counts`, `packing` and `dropped`.

    Args:
        source: whose parts are listed.
        segments: the results of the first pass for each document.
        decision: the fates of the documents after the first pass.
        scanned: the totals of the first pass.
        rows: the totals of the second pass.
        data: how the rows were packed.
    """
    counts, sizes = rows.counts, segments.joined("bytes")
    documents, totals = (np.bincount(decision.fates, weights, len(Fate)).astype(int) for weights in (None, sizes))
    dropped = {
        fate.reason: {"documents": int(documents[fate]), "bytes": int(totals[fate])} for fate in Fate if fate.is_dropped
    }
    for name, (number, size) in counts.dropped.items():
        dropped[name] = {"documents": dropped[name]["documents"] + number, "bytes": dropped[name]["bytes"] + size}
    return {
        "sources": [
            {"name": Path(part.name).name, "bytes": part.size, "documents": taken}
            for part, taken in zip(source.parts, segments.taken, strict=True)
        ],
        "counts": {
            "documents": counts.documents,
            "bytes": counts.bytes,
            "held_out_documents": int(documents[Fate.HELD_OUT]),
            "held_out_bytes": int(totals[Fate.HELD_OUT]),
            "documents_in": len(decision.fates),
            "bytes_in": int(sizes.sum()),
            "not_needed_documents": counts.not_needed,
            "boilerplate_documents": scanned.cut_documents,
            "boilerplate_bytes": scanned.cut_bytes,
            "fixed_documents": scanned.fixed_documents,
            "fixed_characters": scanned.fixed_characters,
        },
        "packing": _compare_packings(rows, data),
        "dropped": {name: figures for name, figures in dropped.items() if figures["documents"]},
        **describe_mixture(source, counts.part_tokens),
    }


def collect_samples(decision: Decision, scanned: ScanResult, counts: Counts) -> dict[str, Any]:
    """Make the content of statistics.json: samples by the reason they were dropped for, and pairs of duplicates.

    Args:
        decision: names the pairs of duplicates.
        scanned: the totals of the first pass, with samples.
        counts: the totals of the second pass, with samples and with excerpts of the pairs.
    """
    samples: Samples = {}
    for more in (scanned.samples, counts.samples):
        add_samples(samples, more)
    return {
        "samples": {name: [_to_json(sample) for sample in named] for name, named in sorted(samples.items())},
        "duplicates": [
            {
                "reason": Fate(int(decision.fates[dropped])).reason,
                "dropped": _to_json(counts.excerpts[dropped]),
                "kept": _to_json(counts.excerpts[kept]),
                "similarity": similarity,
            }
            for dropped, kept, similarity in decision.pairs
            if dropped in counts.excerpts and kept in counts.excerpts
        ],
    }


def _compare_packings(rows: RowWriter, data: DataConfig) -> dict[str, Any]:
    """Fill and documents cut of both packings: measured of the one that was done, computed for the other one."""
    lengths = np.repeat(np.arange(len(rows.lengths), dtype=np.uint32), rows.lengths)
    # The histogram gives sorted lengths, and documents of equal length fill rows badly.
    np.random.RandomState(0).shuffle(lengths)
    (other,) = set(get_args(PackingKind)) - {data.packing}
    predicted = predict_fill(lengths, data.seq_len, other)
    return {
        data.packing: {"fill": rows.fill, "cut_documents": rows.cut, "measured": True},
        other: {"fill": predicted.share, "cut_documents": predicted.cut, "measured": False},
    }


def _to_json(sample: Sample) -> dict[str, str]:
    return {"origin": sample.origin, "text": sample.text}
