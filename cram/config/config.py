"""Every key a user can set, as dataclasses: one for each component, nested in `Config`.

A component receives its own dataclass, never the whole. No torch here: `--help` must be quick.
"""

from dataclasses import dataclass
from typing import Literal

from cram.config.schema import group, key


@dataclass
class FilterConfig:
    min_words: int = key(10, "shortest document kept (0: any)", "words", least=0, most=10**9)
    max_words: int | None = key(None, "longest document kept (null: any)", "words", least=1, most=10**9)
    symbols: float | None = key(
        0.15,
        "drop documents with a larger share of unusual signs: no letter, digit, space or punctuation (null: off)",
        "share",
        least=0,
        most=1,
    )
    digits: float | None = key(
        0.2, "drop documents with a larger share of digits (null: off)", "share", least=0, most=1
    )
    repetition: bool = key(True, "drop documents that repeat lines, paragraphs or n-grams as Gopher's rules say")
    boilerplate: bool = key(True, "cut lines of cookie, terms-of-use and script notices out of documents")
    compressibility: float | None = key(
        0.3,
        "most tokens, Cramming's filter; 0.3 suits 32768 pieces, 0.4 suits 4096 (null: off)",
        "tokens a character",
        above=0,
    )


@dataclass
class DedupeConfig:
    exact: bool = key(True, "drop documents whose words have occurred in the same order before")
    near: float | None = key(
        0.8,
        "drop documents whose 5-word shingles overlap an earlier document's by as much (null: off)",
        "Jaccard",
        above=0,
        most=1,
    )
    decontaminate: str | None = key(
        None, "glob of GLUE .tsv files; documents that share 13 words in a row with one are dropped", path=True
    )


@dataclass
class DataConfig:
    source: str = key(
        "pydocs",
        "file, folder or glob of text, JSON lines (packed or not) or .parquet; hf:NAME[:CONFIG[:SPLIT]]; or pydocs",
        path=True,
    )
    dir: str = key("shards", "folder that holds the prepared shard folders", path=True, identifies=False)
    text_field: str = key("text", "field that holds the text in .jsonl, .parquet and hf: records")
    document: Literal["file", "blank_line", "line"] = key("file", "what one document is in a .txt file")
    tokens: int | None = key(
        None, "stop preparing after so many training tokens (all when null)", "tokens", least=1, most=10**15
    )
    seq_len: int = key(128, "length of a packed row", "tokens", least=2, most=2**16)
    held_out: float = key(
        0.005, "share of the documents held out, chosen by a hash of their text", "share", above=0, below=1
    )
    epochs: int = key(1, "passes over the data that are allowed before the run ends", "epochs", least=1, most=10**6)
    order: Literal["shuffled", "likely_first", "unlikely_first"] = key(
        "shuffled", "rows at random, or sorted by the mean unigram likelihood of their tokens"
    )
    packing: Literal["greedy", "best_fit"] = key(
        "greedy", "greedy: documents one after the other, cut at the ends of rows; best_fit: none cut that fits a row"
    )
    on_error: Literal["stop", "skip"] = key("stop", "what to do with broken records and files; skip counts them")
    processes: int | None = key(
        None, "processes that prepare (null: one a core)", "processes", least=1, most=1024, identifies=False
    )
    filters: FilterConfig = group(FilterConfig)
    dedupe: DedupeConfig = group(DedupeConfig)


@dataclass
class WordPieceConfig:
    vocab_size: int = key(32768, "vocabulary, a multiple of 64", "tokens", least=64, most=2**22)
    lowercase: bool = key(True, "lower-case the text")
    strip_accents: bool = key(True, "drop accents")
    normalizer: Literal["bert", "cramming"] = key(
        "bert", "bert: clean and split CJK; cramming: also quotes to ASCII and all else non-ASCII removed"
    )
    sample_bytes: int = key(
        50_000_000, "text that the tokenizer is trained on, spread over the files", "bytes", least=1, most=10**12
    )


@dataclass
class SpecialConfig:
    """Names of special tokens in a given tokenizer; one that its vocabulary lacks is added behind it."""

    cls: str | None = key(None, "with tokenizer=, the token that begins a document (null: found by its name, or none)")
    sep: str | None = key(None, "the token that ends a document (null: found by its name)")
    pad: str | None = key(None, "the token that fills rows (null: found by its name, or added)")
    mask: str | None = key(None, "the token shown instead of a hidden one (null: found by its name, or none)")


# The class of `transformers` that computes each kind of model; a kind without one is not exported.
STOCK_CLASSES = {"encoder": "ModernBertForMaskedLM", "decoder": "Qwen3ForCausalLM"}


@dataclass
class ModelConfig:
    kind: Literal["encoder", "decoder", "crammed"] = key(
        "encoder",
        "architecture; encoder exports as ModernBERT, decoder as Qwen3, crammed is Cramming's and exports as nothing",
    )
    layers: int = key(12, "transformer blocks", least=1, most=1000)
    width: int = key(768, "hidden size, a multiple of heads", least=1, most=2**16)
    heads: int = key(12, "attention heads", least=1, most=2**12)
    mlp_width: int = key(1536, "inner width of the gated MLP, GeGLU or a decoder's SwiGLU", least=1, most=2**18)
    rope_theta: float = key(10_000.0, "base of the position angles, rotary or sinusoidal", above=1, most=1e12)
    norm_eps: float = key(1e-5, "epsilon of every norm", least=1e-15, below=1)
    init_std: float = key(0.02, "standard deviation of the initial weights", above=0, most=10)
    zero_init: bool = key(True, "start both output projections of each block at zero")
    attention: Literal["auto", "flash", "varlen", "sdpa", "softmax"] = key(
        "auto",
        "attention kernel; auto takes flash-attn, torch's varlen_attn or SDPA, in this order",
        identifies=False,
    )


@dataclass
class ObjectiveConfig:
    kind: Literal["masked", "causal"] = key(
        "masked", "what is learned: hidden tokens, or by a decoder each token from those before it"
    )
    mask_rate: float = key(0.30, "share of the tokens predicted when masking begins", "share", above=0, most=1)
    final_mask_rate: float | None = key(
        0.15, "share at the end of the budget, linear between (null: constant)", "share", above=0, most=1
    )
    causal_share: float = key(
        0.0,
        "share of the budget, at its start, in which each token is predicted from those before it",
        "share",
        least=0,
        below=1,
    )
    replace_mask: float = key(1.0, "share of the predicted tokens shown as [MASK]", "share", least=0, most=1)
    replace_random: float = key(
        0.0, "share shown as a random token; what is left is shown as it is", "share", least=0, most=1
    )


@dataclass
class MuonConfig:
    lr: float = key(
        0.02, "peak learning rate, times the root of rows/columns for a matrix with more rows", least=0, most=1e9
    )
    momentum: float = key(0.95, "decay of the momentum", least=0, below=1)
    momentum_start: float | None = key(None, "decay of the momentum at the start (null: momentum)", least=0, below=1)
    momentum_warmup: float = key(
        0.1, "where the rise from momentum_start to momentum ends", "share of the budget", least=0, most=1
    )
    nesterov: bool = key(True, "look one step ahead along the momentum")
    newton_schulz_steps: int = key(5, "steps that orthogonalise an update", "steps", least=1, most=100)
    weight_decay: float = key(0.025, "decoupled weight decay", least=0)
    cautious: bool = key(False, "decay only the elements that the update is shrinking anyway")


@dataclass
class OptimizerConfig:
    kind: Literal["adamw", "muon"] = key(
        "adamw", "adamw, or muon for the hidden matrices with adamw for embedding and gains"
    )
    lr: float = key(1e-3, "peak learning rate of AdamW", least=0)
    embedding_lr: float | None = key(None, "peak learning rate of the embedding (null: lr)", least=0)
    beta1: float = key(0.9, "decay of the first moment", least=0, below=1)
    beta2: float = key(0.98, "decay of the second moment", least=0, below=1)
    eps: float = key(1e-8, "added to the root of the second moment", least=1e-30, below=1)
    weight_decay: float = key(0.01, "decoupled weight decay of the matrices under AdamW", least=0)
    final_decay: float = key(
        1.0, "weight decay at the end of the budget, linear from 1", "share of weight_decay", least=0
    )
    clip: float | None = key(1.0, "largest global gradient norm (null: no clipping)", above=0)
    muon: MuonConfig = group(MuonConfig)


@dataclass
class ScheduleConfig:
    kind: Literal["linear", "cosine", "triangle", "trapezoid", "budget-triangle2"] = key(
        "linear", "learning rate over progress; each lands at zero when the budget is spent"
    )
    warmup: float = key(0.02, "rise from zero (linear, cosine, trapezoid)", "share of the budget", least=0, below=1)
    peak: float = key(0.5, "where triangle turns", "share of the budget", least=0, below=1)
    decay_start: float = key(0.35, "where trapezoid starts to fall", "share of the budget", least=0, below=1)


@dataclass
class BatchConfig:
    tokens: int = key(131_072, "batch of one update, reached by accumulation", "tokens", least=1, most=10**12)
    start_tokens: int | None = key(None, "batch at the start of a ramp (null: no ramp)", "tokens", least=1, most=10**12)
    ramp: float = key(0.5, "where a ramp ends", "share of the budget", least=0, most=1)
    micro_rows: int | None = key(None, "rows of one forward pass (null: found by a probe)", "rows", least=1, most=2**24)


@dataclass
class CheckpointConfig:
    interval: str = key("10m", "time between checkpoints, as 90s, 10m or 1h", identifies=False)


@dataclass
class CompileConfig:
    kind: Literal["auto", "eager", "blocks", "model"] = key(
        "auto",
        "what torch compiles; auto: nothing on a CPU or below 10m, else each block, from 2h on the whole model",
        identifies=False,
    )
    cuda_graphs: bool = key(
        False, "replay compiled code as CUDA graphs, for models so small that launching is slower", identifies=False
    )
    check_updates: int = key(
        3,
        "updates computed eagerly too, and compared, before compiled code is trusted",
        "updates",
        least=0,
        most=1000,
        identifies=False,
    )


@dataclass
class AveragingConfig:
    start: float | None = key(
        None, "where averaging of the weights begins (null: none)", "share of the budget", least=0, below=1
    )
    decay: float | None = key(
        None, "weight of the old average at each update (null: all updates count alike)", above=0, below=1
    )


@dataclass
class FaultsConfig:
    patience: int = key(
        10,
        "updates in a row that are not finite before a rollback to the last checkpoint",
        "updates",
        least=1,
        most=10**9,
    )
    lr_factor: float = key(0.5, "what the learning rate is multiplied by at each rollback", "share", above=0, most=1)
    rollbacks: int = key(3, "rollbacks before the run gives up", "rollbacks", least=0, most=10**6)
    spike: float = key(1.0, "rise of the training loss above its recent mean that is recorded", "nats", above=0)


@dataclass
class EvaluationConfig:
    interval: float | None = key(
        None,
        "held-out evaluation each such share (null: at the end only)",
        "share of the budget",
        least=1e-6,
        most=1,
        identifies=False,
    )
    tokens: int = key(262_144, "held-out text that is evaluated, at most", "tokens", least=1, most=10**12)
    mask_rate: float = key(
        0.15, "share of the held-out tokens predicted, all shown as [MASK]", "share", above=0, most=1
    )


@dataclass
class CardConfig:
    license: str | None = key(
        None, "licence on the model card, as the Hub names it, such as mit (null: not stated)", identifies=False
    )
    language: str | None = key(
        None, "language of the text on the card, ISO 639, such as en or en,de (null: not stated)", identifies=False
    )


@dataclass
class Config:
    """What a recipe holds and `cram.train` and `cram.prepare` take."""

    recipe: str = key("", "a name in recipes/ or a path to a yaml file", path=True, identifies=False)
    budget: str = key("24h", "90s, 10m, 24h (wall clock), 2.5e9tokens or 5000steps", identifies=False)
    run: str | None = key(None, "run folder (null: runs/RECIPE)", path=True, identifies=False)
    init: str | None = key(
        None, "run or exported folder whose weights to begin with (null: those of the seed)", path=True
    )
    seed: int = key(0, "seed of weights, masks and order", least=0, most=2**63 - 1)
    device: str = key(
        "auto", "where to train: auto (a GPU if there is one), cpu, cuda, or cuda:N for the GPU N", identifies=False
    )
    precision: Literal["auto", "bf16", "fp16", "fp32"] = key(
        "auto", "auto: bf16 autocast where the device has it, fp16 with a loss scale on older GPUs, else fp32"
    )
    threads: int | None = key(None, "CPU threads (null: all cores)", "threads", least=1, most=1024, identifies=False)
    log_interval: int = key(
        10, "updates between two lines of metrics.jsonl", "updates", least=1, most=10**9, identifies=False
    )
    tokenizer: str | None = key(None, "a tokenizer.json to use (null: WordPiece trained on the data)", path=True)
    special: SpecialConfig = group(SpecialConfig)
    wordpiece: WordPieceConfig = group(WordPieceConfig)
    data: DataConfig = group(DataConfig)
    model: ModelConfig = group(ModelConfig)
    objective: ObjectiveConfig = group(ObjectiveConfig)
    optimizer: OptimizerConfig = group(OptimizerConfig)
    schedule: ScheduleConfig = group(ScheduleConfig)
    batch: BatchConfig = group(BatchConfig)
    compile: CompileConfig = group(CompileConfig)
    averaging: AveragingConfig = group(AveragingConfig)
    checkpoint: CheckpointConfig = group(CheckpointConfig)
    faults: FaultsConfig = group(FaultsConfig)
    evaluation: EvaluationConfig = group(EvaluationConfig)
    card: CardConfig = group(CardConfig)
    dry_run: bool = key(False, "say what would run, and end; the word --print does the same", identifies=False)
