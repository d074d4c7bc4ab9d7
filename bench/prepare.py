"""Preparation beside bare tokenization: the same text, the same number of processes, in turns.

    python -m bench.prepare data.source='texts/*.jsonl.zst' [processes=2] [rounds=3] [vocab_size=32768] [out=DIR]

Bare: the time in `tokenizers.encode_batch_fast` alone, in N processes of one thread each that run together.
Ours: the second pass of a preparation without filters and deduplication, that is reading, tokenizing, packing and
writing. What filters and deduplication cost is in the time table of `python -m cram.prepare show=DIR`.
"""

import multiprocessing
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from cram.config.data import DataConfig, DedupeConfig, FilterConfig, WordPieceConfig
from cram.data.preparation.prepare import prepare_shards
from cram.data.preparation.scan import chunks
from cram.data.preparation.vocabulary import TokenizerSource
from cram.data.text.document import byte_size
from cram.data.text.sources import open_source
from cram.files.atomic import read_json
from cram.terminal.progress import Progress

NO_FILTERS = FilterConfig(
    min_words=0, symbols=None, digits=None, repetition=False, boilerplate=False, compressibility=None
)
NO_DEDUPE = DedupeConfig(exact=False, near=None)


def encode_bare(source: str, share: int, shares: int, tokenizer: str, ready: Any, done: Any) -> None:
    """One process of the bare run: encode its share of the chunks; reading them is not timed.

    They are read on the way: hundreds of megabytes of waiting text make encoding slower where memory is tight.
    """
    os.environ["RAYON_NUM_THREADS"] = "1"
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    from tokenizers import Tokenizer

    encoder = Tokenizer.from_file(tokenizer)
    documents = (document.text for part in open_source(source).parts for document in part.documents())
    amount, seconds = 0, 0.0
    ready.wait()
    for i, chunk in enumerate(chunks((text, text) for text in documents)):
        if i % shares == share:
            began = time.perf_counter()
            encoder.encode_batch_fast(chunk)
            seconds += time.perf_counter() - began
            amount += sum(map(byte_size, chunk))
    done.put((amount, seconds))


def bare(source: str, processes: int, tokenizer: str) -> float:
    """MB/s of N processes together: the sum of their speeds."""
    context = multiprocessing.get_context("spawn")
    ready, done = context.Barrier(processes), context.Queue()
    workers = [
        context.Process(target=encode_bare, args=(source, share, processes, tokenizer, ready, done))
        for share in range(processes)
    ]
    for worker in workers:
        worker.start()
    speeds = [amount / seconds / 1e6 for amount, seconds in (done.get() for _ in workers)]
    for worker in workers:
        worker.join()
    return sum(speeds)


def ours(source: str, processes: int, tokenizer: str, folder: str) -> dict[str, float]:
    """MB/s of both passes."""
    data = DataConfig(
        source=source, dir=folder, processes=processes, held_out=0.0, filters=NO_FILTERS, dedupe=NO_DEDUPE
    )
    shards = prepare_shards(data, TokenizerSource(tokenizer), Progress(terminal=False))
    wall = read_json(shards.folder / "timing.json")["wall_seconds"]
    return {
        "pack": shards.manifest["counts"]["bytes"] / wall["pack"] / 1e6,
        "scan": shards.manifest["counts"]["bytes_in"] / wall["scan"] / 1e6,
    }


def main(words: list[str]) -> int:
    from bench.timing import machine, spread, write_results  # brings torch, which the workers need not load

    options = {"processes": "2", "rounds": "3", "vocab_size": "32768", "out": ""}
    options |= dict(word.split("=", maxsplit=1) for word in words)
    source, processes = options["data.source"], int(options["processes"])
    bare_speeds, our_speeds = [], []
    with tempfile.TemporaryDirectory() as folder:
        wordpiece = WordPieceConfig(vocab_size=int(options["vocab_size"]), sample_bytes=20_000_000)
        vocabulary = TokenizerSource(wordpiece=wordpiece)
        first = DataConfig(source=source, dir=folder, tokens=1_000_000, filters=NO_FILTERS, dedupe=NO_DEDUPE)
        tokenizer = str(prepare_shards(first, vocabulary, Progress(terminal=False)).tokenizer_path)
        for turn in range(int(options["rounds"])):
            with tempfile.TemporaryDirectory() as once:
                pair = [
                    lambda: bare(source, processes, tokenizer),
                    lambda once=once: ours(source, processes, tokenizer, once),
                ]
                found = {i: pair[i]() for i in ((0, 1) if turn % 2 == 0 else (1, 0))}
            bare_speeds.append(found[0])
            our_speeds.append(found[1])
            print(
                f"bare {found[0]:.2f} MB/s, ours {found[1]['pack']:.2f} ({found[1]['pack'] / found[0]:.1%})", flush=True
            )
    ratios = [mine["pack"] / plain for mine, plain in zip(our_speeds, bare_speeds, strict=True)]
    print(
        f"reading, tokenizing, packing and writing at {spread(ratios)['median']:.1%} of {processes} x bare tokenization"
    )
    if options["out"]:
        import torch

        about = machine(torch.device("cpu"), ("tokenizers", "datatrove", "rensa", "numpy"))
        result = {"source": Path(source).name, "processes": processes, "vocab_size": int(options["vocab_size"])}
        result |= {"bare_mb_per_s": bare_speeds, "ours": our_speeds, "ratio": spread(ratios)}
        write_results({"machine": about, **result}, Path(options["out"]), "prepare-cpu")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
