"""`python -m bench.prepare`: preparation beside bare tokenization and beside another checkout."""

import statistics
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bench.bare_tokenization import tokenize_alone, tokenize_bare
from bench.checkouts import ROOT, Preparation, check_checkout, prepare_in_turns
from cram.command import run_door
from cram.config.data import DataConfig, DedupeConfig, FilterConfig, WordPieceConfig
from cram.config.recipe import read_words
from cram.config.schema import key
from cram.data.preparation.prepare import prepare_shards
from cram.data.preparation.vocabulary import TokenizerSource
from cram.errors import CramError
from cram.files.atomic import read_json
from cram.terminal.progress import Progress

ABOUT = """Compare a preparation with bare tokenization and with another checkout: the same text, in turns.

    python -m bench.prepare source='texts/*.jsonl.zst' processes=2
    python -m bench.prepare source='texts/*.jsonl.zst' against=../before parts=[checkouts]

second_pass  Ours is the second pass of a preparation without filters and deduplication: reading, tokenizing, packing
             and writing. Bare is the time in `tokenizers.encode_batch_fast` alone, in N processes of one thread each
             that run together.
alone        Tokenization in one process, in text for each CPU second: the library, ours with an empty table of words,
             and ours once more over the same text.
checkouts    `python -m cram.prepare recipe=bert_24h` with all filters, here and in the checkout `against`: seconds of
             the whole and of each stage, CPU seconds, the largest process, and whether the shards are the same.
engines      The same command with data.engine=ray, on a cluster of this machine, and with data.engine=local. `work` is
             the sum of the stages, without the start of the cluster."""

PARTS = ("second_pass", "alone", "checkouts", "engines")
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
    parts: list[str] = key([], f"what is compared, of {', '.join(PARTS)} (empty: all but engines)")
    alone_bytes: int | None = key(
        None, "text of the part `alone`, from the beginning of the source (null: all)", "bytes", least=1, most=10**12
    )
    against: str | None = key(None, "folder of another checkout (null: no part `checkouts`)", path=True)
    words: list[str] = key([], "further words for the preparations of both checkouts, such as [data.dedupe.near=null]")
    our_words: list[str] = key([], "further words for the preparation of this checkout")
    out: str | None = key(None, "folder of the results (null: only printed)", path=True)


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


def compare_second_pass(config: PrepareBenchConfig, tokenizer: str) -> dict[str, Any]:
    """Run the second pass and N bare tokenizers in turns, and return the speeds of both and their ratio."""
    from bench.timing import percentiles  # imports torch, which workers do not need

    bare_speeds: list[float] = []
    our_speeds: list[dict[str, float]] = []
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
    ratio = percentiles([ours["pack"] / bare for ours, bare in zip(our_speeds, bare_speeds, strict=True)])
    parts = "reading, tokenizing, packing and writing"
    print(f"{parts} at {ratio['median']:.1%} of {config.processes} x bare tokenization")
    return {"bare_mb_per_s": bare_speeds, "ours": our_speeds, "ratio": ratio}


def compare_alone(config: PrepareBenchConfig, tokenizer: str) -> dict[str, Any]:
    """Tokenize with the library and with the table of words, and return the speeds of all rounds and their ratios."""
    rounds = [tokenize_alone(config.source, tokenizer, config.alone_bytes) for _ in range(config.rounds)]
    ratios = {name: statistics.median(one[name] / one["library"] for one in rounds) for name in ("cold", "warm")}
    library = statistics.median(one["library"] for one in rounds)
    print(
        f"tokenization alone: the library {library:.2f} MB per CPU second, "
        f"ours {ratios['cold']:.2f} times as many cold and {ratios['warm']:.2f} times warm"
    )
    return {"mb_per_cpu_second": rounds, "ratios": ratios}


def compare_checkouts(config: PrepareBenchConfig) -> dict[str, Any]:
    """Prepare here and in the other checkout in turns; return both sides and the ratios ours / theirs.

    Raises:
        CramError: `against` holds no checkout, or a preparation has failed.
    """
    assert config.against is not None
    sides = {"ours": (ROOT, config.our_words), "against": (check_checkout(config.against), [])}
    return _compare_preparations(config, sides)


def compare_engines(config: PrepareBenchConfig) -> dict[str, Any]:
    """Prepare with Ray on this machine and with local processes in turns; return both sides and the ratios.

    Raises:
        CramError: a preparation has failed.
    """
    ray = ["data.engine=ray", "data.address=local"]
    sides = {"ray": (ROOT, [*config.our_words, *ray]), "local": (ROOT, config.our_words)}
    return _compare_preparations(config, sides)


def _compare_preparations(config: PrepareBenchConfig, sides: dict[str, tuple[Path, list[str]]]) -> dict[str, Any]:
    """Compare two sides, each given by its checkout and the words that only it gets; ratios are first / second."""
    words = [
        "recipe=bert_24h",
        f"data.source={_absolute(config.source)}",
        "data.tokens=null",
        f"data.processes={config.processes}",
        f"wordpiece.vocab_size={config.vocab_size}",
        *config.words,
    ]
    checkouts = {name: checkout for name, (checkout, _) in sides.items()}
    runs = prepare_in_turns(checkouts, {name: [*words, *more] for name, (_, more) in sides.items()}, config.rounds)
    first, second = sides
    medians = {name: _medians(side) for name, side in runs.items()}
    ratios = {name: value / medians[second][name] for name, value in medians[first].items()}
    for name, ratio in ratios.items():
        values = f"{first} {medians[first][name]:10.1f}  {second} {medians[second][name]:10.1f}"
        print(f"{name:<12} {values}  ratio {ratio:.3f}")
    files = [run.checksums for side in runs.values() for run in side]
    equal = all(one == files[0] for one in files)
    print("tokenizer and shards of all runs are " + ("the same, byte for byte" if equal else "NOT the same"))
    results = {name: [asdict(run) for run in side] for name, side in runs.items()}
    own_words = {name: more for name, (_, more) in sides.items()}
    return {"words": words, "own_words": own_words, **results, "ratios": ratios, "same_shards": equal}


def _medians(runs: list[Preparation]) -> dict[str, float]:
    """Medians of a side: seconds of the whole and of the stages, CPU seconds, MB of the largest process."""
    stages = {name: statistics.median(run.stages[name] for run in runs) for name in runs[0].stages}
    peaks = [run.peak_bytes / 1e6 for run in runs if run.peak_bytes is not None]
    peak = {"peak MB": statistics.median(peaks)} if peaks else {}
    seconds = statistics.median(run.seconds for run in runs)
    work = statistics.median(sum(run.stages.values()) for run in runs)
    return {"whole": seconds, "work": work, "CPU": statistics.median(run.cpu_seconds for run in runs), **peak, **stages}


def _absolute(source: str) -> str:
    """Return a source as it is named in any working folder; only files have another name there."""
    return source if source.startswith("hf:") or "://" in source or source == "pydocs" else str(Path.cwd() / source)


def main(words: list[str]) -> None:
    """Run the parts that `parts=` names, and write the results where `out=` asks for it.

    Raises:
        CramError: no text is given, or a key names a part or a checkout that does not exist.
    """
    config = read_words(PrepareBenchConfig, words)
    if not config.source:
        raise CramError("source= is missing. Give text, such as source='texts/*.jsonl.zst'.")
    for part in config.parts:
        if part not in PARTS:
            raise CramError(f"parts=[{part}]: not one of {', '.join(PARTS)}.")
    if "checkouts" in config.parts and config.against is None:
        raise CramError("parts=[checkouts] compares with another checkout: give its folder with against=DIR.")
    if config.against is not None:
        check_checkout(config.against)
    results: dict[str, Any] = {
        "source": Path(config.source).name,
        "processes": config.processes,
        "vocab_size": config.vocab_size,
    }
    parts = config.parts or PARTS
    with tempfile.TemporaryDirectory() as folder:
        if {"second_pass", "alone"} & set(parts):
            tokenizer = _train_tokenizer(config, folder)
        if "second_pass" in parts:
            results |= compare_second_pass(config, tokenizer)
        if "alone" in parts:
            results["alone"] = compare_alone(config, tokenizer)
        if "checkouts" in parts and config.against is not None:
            results["checkouts"] = compare_checkouts(config)
        if "engines" in config.parts:
            results["engines"] = compare_engines(config)
    if config.out is not None:
        import torch

        from bench.timing import describe_machine, write_results

        machine = describe_machine(torch.device("cpu"), ("tokenizers", "datatrove", "rensa", "numpy", "pyarrow"))
        print(write_results({"machine": machine, **results}, Path(config.out), "prepare-cpu"))


def _train_tokenizer(config: PrepareBenchConfig, folder: str) -> str:
    """Train a tokenizer on the text, and return the path of its tokenizer.json in the folder."""
    vocabulary = WordPieceConfig(vocab_size=config.vocab_size, sample_bytes=20_000_000)
    data = DataConfig(source=config.source, dir=folder, tokens=1_000_000, filters=NO_FILTERS, dedupe=NO_DEDUPE)
    shards = prepare_shards(data, TokenizerSource(wordpiece=vocabulary), Progress(terminal=False))
    return str(shards.tokenizer_path)


if __name__ == "__main__":
    run_door(main, PrepareBenchConfig, ABOUT)
