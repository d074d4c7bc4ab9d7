"""`python -m bench.prepare`: preparation beside bare tokenization."""

import multiprocessing
import os
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cram.command import run_door
from cram.config.data import DataConfig, DedupeConfig, FilterConfig, WordPieceConfig
from cram.config.recipe import read_words
from cram.config.schema import key
from cram.data.preparation.chunks import split_into_chunks
from cram.data.preparation.prepare import prepare_shards
from cram.data.preparation.vocabulary import TokenizerSource
from cram.data.text.document import byte_size
from cram.data.text.sources import open_source
from cram.errors import CramError
from cram.files.atomic import read_json
from cram.terminal.progress import Progress

ABOUT = """Compare a preparation with bare tokenization: the same text, the same number of processes, in turns.

    python -m bench.prepare source='texts/*.jsonl.zst' processes=2

Bare is the time in `tokenizers.encode_batch_fast` alone, in N processes of one thread each that run together. Ours is
the second pass of a preparation without filters and deduplication: reading, tokenizing, packing and writing. The cost
of filters and deduplication is in the time table of `python -m cram.prepare show=DIR`."""

NO_FILTERS = FilterConfig(
    min_words=0, symbols=None, digits=None, repetition=False, boilerplate=False, compressibility=None
)
NO_DEDUPE = DedupeConfig(exact=False, near=None)


@dataclass
class PrepareBenchConfig:
    """What `bench.prepare` takes."""

    source: str = key("", "text, as data.source= of a recipe", path=True)
    processes: int = key(2, "processes of each side", "processes", least=1, most=1024)
    rounds: int = key(3, "times that each side runs", "runs", least=2, most=1000)
    vocab_size: int = key(
        32_768, "entries of the tokenizer, which is trained on the text", "entries", least=64, most=2**20
    )
    out: str | None = key(None, "folder of the results (null: only printed)", path=True)


def encode_share(source: str, share: int, shares: int, tokenizer: str, barrier: Any, queue: Any) -> None:
    """Encode a share of the chunks, as one process of the bare run, and put (bytes, seconds) into the queue.

    Reading is not timed. The chunks are read between the encodings and not before, because hundreds of megabytes of
    waiting text make encoding slower where memory is tight.
    """
    os.environ["RAYON_NUM_THREADS"] = "1"
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    from tokenizers import Tokenizer

    encoder = Tokenizer.from_file(tokenizer)
    documents = (document.text for part in open_source(source).parts for document in part.documents())
    amount, seconds = 0, 0.0
    barrier.wait()
    for i, chunk in enumerate(split_into_chunks((text, text) for text in documents)):
        if i % shares == share:
            began = time.perf_counter()
            encoder.encode_batch_fast(chunk)
            seconds += time.perf_counter() - began
            amount += sum(map(byte_size, chunk))
    queue.put((amount, seconds))


def tokenize_bare(source: str, processes: int, tokenizer: str) -> float:
    """Tokenize the text in N processes at once, and return the sum of their speeds in MB/s."""
    context = multiprocessing.get_context("spawn")
    barrier, queue = context.Barrier(processes), context.Queue()
    workers = [
        context.Process(target=encode_share, args=(source, share, processes, tokenizer, barrier, queue))
        for share in range(processes)
    ]
    for worker in workers:
        worker.start()
    speeds = [amount / seconds / 1e6 for amount, seconds in (queue.get() for _ in workers)]
    for worker in workers:
        worker.join()
    return sum(speeds)


def prepare_ours(source: str, processes: int, tokenizer: str, folder: str) -> dict[str, float]:
    """Prepare the text in a folder, and return the MB/s of both passes."""
    data = DataConfig(
        source=source, dir=folder, processes=processes, held_out=0.0, filters=NO_FILTERS, dedupe=NO_DEDUPE
    )
    shards = prepare_shards(data, TokenizerSource(tokenizer), Progress(terminal=False))
    wall = read_json(shards.folder / "timing.json")["wall_seconds"]
    return {
        "pack": shards.manifest["counts"]["bytes"] / wall["pack"] / 1e6,
        "scan": shards.manifest["counts"]["bytes_in"] / wall["scan"] / 1e6,
    }


def compare(config: PrepareBenchConfig, tokenizer: str) -> tuple[list[float], list[dict[str, float]]]:
    """Run both, in turns and in alternating order. Returns the speeds of the bare runs and of ours."""
    bare_speeds, our_speeds = [], []
    for turn in range(config.rounds):
        with tempfile.TemporaryDirectory() as folder:

            def run_bare() -> None:
                bare_speeds.append(tokenize_bare(config.source, config.processes, tokenizer))

            def run_ours(folder: str = folder) -> None:
                our_speeds.append(prepare_ours(config.source, config.processes, tokenizer, folder))

            for run in (run_bare, run_ours) if turn % 2 == 0 else (run_ours, run_bare):
                run()
        bare, ours = bare_speeds[-1], our_speeds[-1]["pack"]
        print(f"bare {bare:.2f} MB/s, ours {ours:.2f} ({ours / bare:.1%})", flush=True)
    return bare_speeds, our_speeds


def main(words: list[str]) -> None:
    """Compare the two, and write the results where `out=` asks for it.

    Raises:
        CramError: no text is given.
    """
    from bench.timing import describe_machine, percentiles, write_results  # imports torch, which workers do not need

    config = read_words(PrepareBenchConfig, words)
    if not config.source:
        raise CramError("source= is missing. Give text, such as source='texts/*.jsonl.zst'.")
    with tempfile.TemporaryDirectory() as folder:
        vocabulary = WordPieceConfig(vocab_size=config.vocab_size, sample_bytes=20_000_000)
        data = DataConfig(source=config.source, dir=folder, tokens=1_000_000, filters=NO_FILTERS, dedupe=NO_DEDUPE)
        shards = prepare_shards(data, TokenizerSource(wordpiece=vocabulary), Progress(terminal=False))
        bare_speeds, our_speeds = compare(config, str(shards.tokenizer_path))
    ratio = percentiles([ours["pack"] / bare for ours, bare in zip(our_speeds, bare_speeds, strict=True)])
    parts = "reading, tokenizing, packing and writing"
    print(f"{parts} at {ratio['median']:.1%} of {config.processes} x bare tokenization")
    if config.out is not None:
        import torch

        results = {
            "machine": describe_machine(torch.device("cpu"), ("tokenizers", "datatrove", "rensa", "numpy")),
            "source": Path(config.source).name,
            "processes": config.processes,
            "vocab_size": config.vocab_size,
            "bare_mb_per_s": bare_speeds,
            "ours": our_speeds,
            "ratio": ratio,
        }
        print(write_results(results, Path(config.out), "prepare-cpu"))


if __name__ == "__main__":
    run_door(main, PrepareBenchConfig, ABOUT)
