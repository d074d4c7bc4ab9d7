import json
import random
from dataclasses import dataclass, replace
from pathlib import Path
from string import ascii_lowercase
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from cram.config.data import DataConfig, FilterConfig, WordPieceConfig
from cram.data.preparation import chunks
from cram.data.preparation import statistics as statistics_module
from cram.data.preparation.decision import Decision, decide_fates
from cram.data.preparation.engine import LocalEngine
from cram.data.preparation.fates import Fate
from cram.data.preparation.first_pass import Segments
from cram.data.preparation.row_writer import RowWriter
from cram.data.preparation.samples import EXCERPT
from cram.data.preparation.scan import Scanner
from cram.data.preparation.second_pass import DocumentTokenizer, KeptDocumentReader
from cram.data.preparation.statistics import collect_samples, summarize_documents
from cram.data.shards import pack
from cram.data.shards.pack import make_packer
from cram.data.shards.shards import ShardWriter
from cram.data.text.sources import open_source
from cram.data.wordpiece import train_tokenizer
from cram.terminal.progress import Progress

SYLLABLES = ["ba", "re", "mi", "to", "lu", "ken", "sor", "dal", "fin", "gus", "pel"]
COOKIES = "We use cookies to make this site better for you.\n"
DENSE = ",".join(ascii_lowercase)  # a token a character
DATA = DataConfig(held_out=0.1, seq_len=32, filters=FilterConfig(compressibility=0.9))  # the vocabulary here is small
REPORT = Progress(terminal=False)


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunks, "CHUNK_DOCUMENTS", 20)


def prose(source: random.Random, least: int = 12) -> str:
    return " ".join("".join(source.choices(SYLLABLES, k=2)) for _ in range(source.randint(least, 60))) + "."


def mixed() -> list[list[str]]:
    """Write two files of all kinds of documents."""
    source = random.Random(0)
    texts = [prose(source) for _ in range(120)]
    texts += [text.upper() for text in texts[:9]] + texts[20:25]
    long = [prose(source, 55) for _ in range(6)]
    texts += [*long, *(f"{text} Another word" for text in long)]
    texts += [f"{COOKIES}{prose(source)}" for _ in range(8)]
    texts += ["", " \n", "", "short", "Größe", f"{prose(source)} " + "19141918 " * 20]
    texts += [DENSE] * 2
    source.shuffle(texts)
    return [texts[:90], texts[90:]]


@dataclass
class Prepared:
    """The figures and samples of a preparation, and what they were computed from."""

    manifest: dict[str, Any]
    statistics: dict[str, Any]
    texts: list[str]
    decision: Decision
    rows: RowWriter


def prepared(folder: Path, texts: list[list[str]], data: DataConfig) -> Prepared:
    """Run the stages in the order of a preparation."""
    folder.mkdir()
    for number, some in enumerate(texts):
        (folder / f"{number}.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in some))
    flat = [text for some in texts for text in some]
    tokenizer = train_tokenizer(flat, WordPieceConfig(vocab_size=64))
    source, segments = open_source(f"{folder}/*.jsonl"), Segments(folder)
    segments.scan(source, None, Scanner(data), LocalEngine(1), REPORT)
    decision = decide_fates(segments, data, folder, REPORT)
    writer, packer = ShardWriter(folder, data.seq_len, 64, 0), make_packer(data.packing, data.seq_len, 0)
    rows = RowWriter(folder, writer, packer, data.seq_len, segments.shares(decision.fates == 0), data.tokens)
    shown = {number for pair in decision.pairs for number in pair[:2]}
    documents = KeptDocumentReader(source.parts, decision.fates == Fate.KEPT, segments.taken, shown)
    encoder = DocumentTokenizer(tokenizer.to_str(), data.filters)
    for chunk, note in documents:
        rows.add(encoder(chunk), note)
    rows.counts.excerpts |= documents.excerpts
    rows.finish()
    scanned = segments.totals()
    manifest = summarize_documents(source, segments, decision, scanned, rows, data)
    statistics = collect_samples(decision, scanned, rows.counts)
    return Prepared(manifest, statistics, flat, decision, rows)


@pytest.mark.parametrize("tokens", [None, 3000])
@pytest.mark.parametrize("packing", ["greedy", "best_fit"])
def test_the_figures_add_up(tmp_path: Path, tokens: int | None, packing: Any) -> None:
    made = prepared(tmp_path / "set", mixed(), replace(DATA, tokens=tokens, packing=packing))
    counts, dropped = made.manifest["counts"], made.manifest["dropped"]
    assert set(dropped) == {"empty", "min_words", "digits", "exact", "near", "compressibility"} | (
        set(dropped) & {"near_held_out"}
    )
    sizes = np.array([len(text.encode()) for text in made.texts])
    assert counts["documents_in"] == len(made.texts) == sum(one["documents"] for one in made.manifest["sources"])
    assert counts["bytes_in"] == sizes.sum()
    gone = sum(figures["documents"] for figures in dropped.values())
    there = counts["documents"] + counts["held_out_documents"] + counts["not_needed_documents"]
    assert there + gone == counts["documents_in"]
    assert min(figures["documents"] for figures in dropped.values()) > 0
    assert (counts["not_needed_documents"] > 0) == (tokens is not None)
    assert counts["boilerplate_bytes"] == len(COOKIES) * counts["boilerplate_documents"] > 0

    held_out = sizes[made.decision.fates == Fate.HELD_OUT].sum()
    left = counts["bytes_in"] - held_out - sum(figures["bytes"] for figures in dropped.values())
    if tokens is None:
        assert left == counts["bytes"] + counts["boilerplate_bytes"]
    else:
        assert left > counts["bytes"] > 0
    assert json.loads(json.dumps(made.manifest)) == made.manifest


def test_c1_controls_are_counted_and_sampled(tmp_path: Path) -> None:
    made = prepared(tmp_path / "set", [*mixed(), [f"{prose(random.Random(7))} wait\x85 \x97"]], DATA)
    assert made.manifest["counts"]["fixed_documents"] == 1 and made.manifest["counts"]["fixed_characters"] == 2
    (sample,) = made.statistics["samples"]["fix_c1_controls"]
    assert sample["text"].endswith(" wait\u2026 \u2014")


def test_each_reason_has_its_documents_and_bytes(tmp_path: Path) -> None:
    made = prepared(tmp_path / "set", mixed(), DATA)
    for name, figures in made.manifest["dropped"].items():
        if name != "compressibility":
            is_dropped = made.decision.fates == Fate.of(name)
            sizes = [len(text.encode()) for text, dropped in zip(made.texts, is_dropped, strict=True) if dropped]
            assert figures == {"documents": len(sizes), "bytes": sum(sizes)}
    dense = made.manifest["dropped"]["compressibility"]
    assert dense == {"documents": 1, "bytes": len(DENSE)}, "its twin was `exact`"
    sources = made.manifest["sources"]
    assert [(one["name"], one["documents"]) for one in sources] == [("0.jsonl", 90), ("1.jsonl", len(made.texts) - 90)]
    assert [one["bytes"] for one in sources] == [(tmp_path / f"set/{i}.jsonl").stat().st_size for i in range(2)]


def test_dropped_documents_have_samples(tmp_path: Path) -> None:
    made = prepared(tmp_path / "set", mixed(), DATA)
    samples, duplicates = made.statistics["samples"], made.statistics["duplicates"]
    assert list(samples) == sorted(samples)
    assert set(samples) == {"empty", "min_words", "digits", "compressibility", "boilerplate"}
    by_origin = {}
    for number, text in enumerate(made.texts):
        part, record = divmod(number, 90) if number < 90 else (1, number - 90)
        by_origin[f"{part}.jsonl:{record + 1}"] = (number, text)
    for name, some in samples.items():
        assert some
        for one in some:
            number, text = by_origin[one["origin"]]
            assert one["text"] == (COOKIES.strip() if name == "boilerplate" else text.removeprefix(COOKIES)[:EXCERPT])
            assert name in ("boilerplate", "compressibility") or Fate(int(made.decision.fates[number])).reason == name
    assert len(duplicates) == len(made.decision.pairs) > 10
    for pair, (dropped, kept, similarity) in zip(duplicates, made.decision.pairs, strict=True):
        assert by_origin[pair["dropped"]["origin"]] == (dropped, made.texts[dropped])
        assert by_origin[pair["kept"]["origin"]] == (kept, made.texts[kept])
        assert pair["dropped"]["text"] == made.texts[dropped][:EXCERPT] and pair["similarity"] == similarity
    assert json.loads(json.dumps(made.statistics)) == made.statistics


def test_the_other_packing_is_predicted_from_the_lengths(tmp_path: Path) -> None:
    greedy, best_fit = (
        prepared(tmp_path / packing, mixed(), replace(DATA, packing=packing)).manifest["packing"]  # type: ignore[arg-type]
        for packing in ("greedy", "best_fit")
    )
    assert greedy.keys() == best_fit.keys() == {"greedy", "best_fit"}
    for done, other in ((greedy, "best_fit"), (best_fit, "greedy")):
        assert [done[kind]["measured"] for kind in done] == [kind != other for kind in done]
        assert all(0.5 < figures["fill"] <= 1 for figures in done.values())
    assert greedy["best_fit"]["fill"] == pytest.approx(best_fit["best_fit"]["fill"], abs=0.02)
    assert best_fit["greedy"]["fill"] == pytest.approx(greedy["greedy"]["fill"], abs=0.01)
    assert best_fit["greedy"]["cut_documents"] == pytest.approx(greedy["greedy"]["cut_documents"], rel=0.5)
    assert best_fit["best_fit"]["cut_documents"] == greedy["best_fit"]["cut_documents"] == 0


def test_the_other_packing_is_predicted_for_shuffled_lengths(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pack, "WINDOW_TOKENS", 400)
    lengths = np.bincount([12, 20] * 200)  # each fills a row with one of the other, and with its own kind none does
    told = statistics_module._compare_packings(SimpleNamespace(lengths=lengths, fill=0.9, cut=7), DATA)  # type: ignore[arg-type]
    assert told["greedy"] == {"fill": 0.9, "cut_documents": 7, "measured": True}
    assert told["best_fit"]["fill"] > 0.85


def test_broken_documents_are_counted(tmp_path: Path) -> None:
    folder = tmp_path / "corpus"
    folder.mkdir()
    lines = [json.dumps({"text": text}) for text in mixed()[0][:40]]
    (folder / "a.jsonl").write_text("\n".join([*lines, "{", json.dumps({"other": 1})]))
    source, segments = open_source(f"{folder}/*.jsonl", on_error="skip"), Segments(folder)
    segments.scan(source, None, Scanner(DATA), LocalEngine(1), REPORT)
    decision = decide_fates(segments, DATA, folder, REPORT)
    packer = make_packer("greedy", 32, 0)
    rows = RowWriter(folder, ShardWriter(folder, 32, 64, 0), packer, 32, [1.0] * len(segments.taken), None)
    scanned = segments.totals()
    manifest = summarize_documents(source, segments, decision, scanned, rows, DATA)
    statistics = collect_samples(decision, scanned, rows.counts)
    assert manifest["dropped"]["broken"] == {"documents": 2, "bytes": 0}
    assert manifest["counts"]["documents_in"] == 42
    assert {one["origin"] for one in statistics["samples"]["broken"]} == {"a.jsonl:41", "a.jsonl:42"}
    assert all("JSON" in one["text"] or "no field" in one["text"] for one in statistics["samples"]["broken"])
