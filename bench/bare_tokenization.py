"""Tokenization and nothing else: the library in several processes, and the library beside `DocumentEncoder`."""

import multiprocessing
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from typing import Any

from cram.config.data import WORD_TABLE
from cram.data.preparation.chunks import split_into_chunks
from cram.data.text.document import byte_size
from cram.data.text.sources import open_source


def tokenize_bare(source: str, processes: int, tokenizer: str) -> float:
    """Tokenize the text in N processes at once, and return the sum of their speeds in MB/s.

    Args:
        source: the text, as `data.source` of a recipe.
        processes: how many; each takes every N-th chunk.
        tokenizer: path of a tokenizer.json.
    """
    context = multiprocessing.get_context("spawn")
    barrier, queue = context.Barrier(processes), context.Queue()
    workers = [
        context.Process(target=_encode_share, args=(source, share, processes, tokenizer, barrier, queue))
        for share in range(processes)
    ]
    for worker in workers:
        worker.start()
    speeds = [amount / seconds / 1e6 for amount, seconds in (queue.get() for _ in workers)]
    for worker in workers:
        worker.join()
    return sum(speeds)


def tokenize_alone(source: str, tokenizer: str, most_bytes: int | None) -> dict[str, float]:
    """Tokenize the text in one process of one thread: the library and `DocumentEncoder`, chunk by chunk in turns.

    Args:
        source: the text, as `data.source` of a recipe.
        tokenizer: path of a tokenizer.json.
        most_bytes: of the text; None takes all of it.

    Returns:
        MB of text in a CPU second: `library`; `cold`, where the table of words is empty at first; `warm`, where the
        same text is encoded once more.
    """
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_encode_in_turns, source, tokenizer, most_bytes).result()


def _read_chunks(source: str) -> Iterator[list[str]]:
    documents = (document.text for part in open_source(source).parts for document in part.documents())
    return split_into_chunks((text, text) for text in documents)


def _load_bare(tokenizer: str) -> Callable[[list[str]], Any]:
    """Return what encodes a chunk with the library on one thread."""
    os.environ["RAYON_NUM_THREADS"] = "1"
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    from tokenizers import Tokenizer

    return Tokenizer.from_file(tokenizer).encode_batch_fast


def _encode_share(source: str, share: int, shares: int, tokenizer: str, barrier: Any, queue: Any) -> None:
    """Encode a share of the chunks, as one process of the bare run, and put (bytes, seconds) into the queue.

    Reading is not timed. The chunks are read between the encodings and not before, because hundreds of megabytes of
    waiting text make encoding slower where memory is tight.
    """
    encode = _load_bare(tokenizer)
    amount, seconds = 0, 0.0
    barrier.wait()
    for i, chunk in enumerate(_read_chunks(source)):
        if i % shares == share:
            began = time.perf_counter()
            encode(chunk)
            seconds += time.perf_counter() - began
            amount += sum(map(byte_size, chunk))
    queue.put((amount, seconds))


def _encode_in_turns(source: str, tokenizer: str, most_bytes: int | None) -> dict[str, float]:
    encode = _load_bare(tokenizer)
    from cram.data.encoding.document_encoder import DocumentEncoder  # the library reads its environment when it loads

    with open(tokenizer, encoding="utf-8") as file:  # noqa: PTH123 (as short as the path of the other sides)
        encoder = DocumentEncoder(file.read(), WORD_TABLE)
    seconds = dict.fromkeys(("library", "cold", "warm"), 0.0)
    amount = 0

    def run(name: str, function: Callable[[list[str]], Any], chunk: list[str]) -> None:
        began = time.process_time()
        function(chunk)
        seconds[name] += time.process_time() - began

    def chunks() -> Iterator[list[str]]:
        nonlocal amount
        amount = 0
        for chunk in _read_chunks(source):
            amount += sum(map(byte_size, chunk))
            yield chunk
            if most_bytes is not None and amount >= most_bytes:
                return

    encoder.encode_documents(["loads the tokenizer"])
    for chunk in chunks():
        run("library", encode, chunk)
        run("cold", encoder.encode_documents, chunk)
    for chunk in chunks():
        run("warm", encoder.encode_documents, chunk)
    return {name: amount / spent / 1e6 for name, spent in seconds.items()}
