"""Every key a user can set, as dataclasses: one for each component, nested in `Config`.

Each field is made by `key(default, help, unit)`, so that `--help` needs no second list.
A component receives its own dataclass, never the whole. No torch here: `--help` must be quick.
"""

from dataclasses import dataclass
from typing import Literal

from cram.schema import group, key, key_list


@dataclass
class FilterConfig:
    min_words: int = key(10, "shortest document kept (0: any)", "words")
    max_words: int | None = key(None, "longest document kept (null: any)", "words")
    symbols: float | None = key(
        0.15, "most characters that are no letters, digits, spaces or ordinary punctuation (null: off)", "share"
    )
    digits: float | None = key(0.2, "most characters that are digits (null: off)", "share")
    repetition: bool = key(True, "drop documents that repeat lines, paragraphs or n-grams as Gopher's rules say")
    boilerplate: bool = key(True, "cut lines of cookie, terms-of-use and script notices out of documents")
    compressibility: float | None = key(
        0.3, "most tokens, Cramming's filter; 0.3 suits 32768 pieces, 0.4 suits 4096 (null: off)", "tokens a character"
    )


@dataclass
class DedupeConfig:
    exact: bool = key(True, "drop documents whose words have occurred in the same order before")
    near: float | None = key(
        0.8, "drop documents whose 5-word shingles overlap an earlier document's by as much (null: off)", "Jaccard"
    )
    decontaminate: str | None = key(
        None, "glob of GLUE .tsv files; documents that share 13 words in a row with one are dropped"
    )


@dataclass
class DataConfig:
    source: str = key(
        "pydocs",
        "glob of .txt, .jsonl[.zst|.gz|.xz] or .parquet files; hf:NAME[:CONFIG[:SPLIT]]; or pydocs",
    )
    dir: str = key("shards", "folder that holds the prepared shard folders")
    text_field: str = key("text", "field that holds the text in .jsonl, .parquet and hf: records")
    document: Literal["file", "blank_line", "line"] = key("file", "what one document is in a .txt file")
    tokens: int | None = key(None, "stop preparing after so many training tokens (all when null)", "tokens")
    seq_len: int = key(128, "length of a packed row", "tokens")
    held_out: float = key(0.005, "share of the documents held out, chosen by a hash of their text", "share")
    epochs: int = key(1, "passes over the data that are allowed before the run ends", "epochs")
    order: Literal["shuffled", "likely_first", "unlikely_first"] = key(
        "shuffled", "rows at random, or sorted by the mean unigram likelihood of their tokens"
    )
    packing: Literal["greedy", "best_fit"] = key(
        "greedy", "greedy: documents one after the other, cut at the ends of rows; best_fit: none cut that fits a row"
    )
    on_error: Literal["stop", "skip"] = key("stop", "what to do with broken records and files; skip counts them")
    processes: int | None = key(None, "processes that prepare (null: one a core)", "processes")
    filters: FilterConfig = group(FilterConfig)
    dedupe: DedupeConfig = group(DedupeConfig)


@dataclass
class WordPieceConfig:
    vocab_size: int = key(32768, "vocabulary, a multiple of 64", "tokens")
    lowercase: bool = key(True, "lower-case the text")
    strip_accents: bool = key(True, "drop accents")
    normalizer: Literal["bert", "cramming"] = key(
        "bert", "bert: clean and split CJK; cramming: also quotes to ASCII and all else non-ASCII removed"
    )
    sample_bytes: int = key(50_000_000, "text that the tokenizer is trained on, spread over the files", "bytes")


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
    layers: int = key(12, "transformer blocks")
    width: int = key(768, "hidden size, a multiple of heads")
    heads: int = key(12, "attention heads")
    mlp_width: int = key(1536, "inner width of the gated MLP, GeGLU or a decoder's SwiGLU")
    rope_theta: float = key(10_000.0, "base of the position angles, rotary or sinusoidal")
    norm_eps: float = key(1e-5, "epsilon of every norm")
    init_std: float = key(0.02, "standard deviation of the initial weights")
    zero_init: bool = key(True, "start both output projections of each block at zero")
    attention: Literal["auto", "flash", "varlen", "sdpa", "softmax"] = key(
        "auto", "attention kernel; auto takes flash-attn, torch's varlen_attn or SDPA, in this order"
    )


@dataclass
class ObjectiveConfig:
    kind: Literal["masked", "causal"] = key(
        "masked", "what is learned: hidden tokens, or by a decoder each token from those before it"
    )
    mask_rate: float = key(0.30, "share of the tokens predicted when masking begins", "share")
    final_mask_rate: float | None = key(
        0.15, "share at the end of the budget, linear between (null: constant)", "share"
    )
    causal_share: float = key(
        0.0, "share of the budget, at its start, in which each token is predicted from those before it", "share"
    )
    replace_mask: float = key(1.0, "share of the predicted tokens shown as [MASK]", "share")
    replace_random: float = key(0.0, "share shown as a random token; what is left is shown as it is", "share")


@dataclass
class MuonConfig:
    lr: float = key(0.02, "peak learning rate, times the root of rows/columns for a matrix with more rows")
    momentum: float = key(0.95, "decay of the momentum")
    momentum_start: float | None = key(None, "decay of the momentum at the start (null: momentum)")
    momentum_warmup: float = key(0.1, "where the rise from momentum_start to momentum ends", "share of the budget")
    nesterov: bool = key(True, "look one step ahead along the momentum")
    newton_schulz_steps: int = key(5, "steps that orthogonalise an update", "steps")
    weight_decay: float = key(0.025, "decoupled weight decay")
    cautious: bool = key(False, "decay only the elements that the update is shrinking anyway")


@dataclass
class OptimizerConfig:
    kind: Literal["adamw", "muon"] = key(
        "adamw", "adamw, or muon for the hidden matrices with adamw for embedding and gains"
    )
    lr: float = key(1e-3, "peak learning rate of AdamW")
    embedding_lr: float | None = key(None, "peak learning rate of the embedding (null: lr)")
    beta1: float = key(0.9, "decay of the first moment")
    beta2: float = key(0.98, "decay of the second moment")
    eps: float = key(1e-8, "added to the root of the second moment")
    weight_decay: float = key(0.01, "decoupled weight decay of the matrices under AdamW")
    final_decay: float = key(1.0, "weight decay at the end of the budget, linear from 1", "share of weight_decay")
    clip: float | None = key(1.0, "largest global gradient norm (null: no clipping)")
    muon: MuonConfig = group(MuonConfig)


@dataclass
class ScheduleConfig:
    kind: Literal["linear", "cosine", "triangle", "trapezoid", "budget-triangle2"] = key(
        "linear", "learning rate over progress; each lands at zero when the budget is spent"
    )
    warmup: float = key(0.02, "rise from zero (linear, cosine, trapezoid)", "share of the budget")
    peak: float = key(0.5, "where triangle turns", "share of the budget")
    decay_start: float = key(0.35, "where trapezoid starts to fall", "share of the budget")


@dataclass
class BatchConfig:
    tokens: int = key(131_072, "batch of one update, reached by accumulation", "tokens")
    start_tokens: int | None = key(None, "batch at the start of a ramp (null: no ramp)", "tokens")
    ramp: float = key(0.5, "where a ramp ends", "share of the budget")
    micro_rows: int | None = key(None, "rows of one forward pass (null: found by a probe)", "rows")


@dataclass
class CheckpointConfig:
    interval: str = key("10m", "time between checkpoints, as 90s, 10m or 1h")


@dataclass
class CompileConfig:
    kind: Literal["auto", "eager", "blocks", "model"] = key(
        "auto",
        "what torch compiles; auto: nothing on a CPU or below 10m, else each block, from 2h on the whole model",
    )
    cuda_graphs: bool = key(False, "replay compiled code as CUDA graphs, for models so small that launching is slower")
    check_updates: int = key(
        3, "updates computed eagerly too, and compared, before compiled code is trusted", "updates"
    )


@dataclass
class AveragingConfig:
    start: float | None = key(None, "where averaging of the weights begins (null: none)", "share of the budget")
    decay: float | None = key(None, "weight of the old average at each update (null: all updates count alike)")


@dataclass
class FaultsConfig:
    patience: int = key(10, "updates in a row that are not finite before a rollback to the last checkpoint", "updates")
    lr_factor: float = key(0.5, "what the learning rate is multiplied by at each rollback", "share")
    rollbacks: int = key(3, "rollbacks before the run gives up", "rollbacks")
    spike: float = key(1.0, "rise of the training loss above its recent mean that is recorded", "nats")


@dataclass
class EvaluationConfig:
    interval: float | None = key(
        None, "held-out evaluation each such share (null: at the end only)", "share of the budget"
    )
    tokens: int = key(262_144, "held-out text that is evaluated, at most", "tokens")
    mask_rate: float = key(0.15, "share of the held-out tokens predicted, all shown as [MASK]", "share")


@dataclass
class CardConfig:
    license: str | None = key(None, "licence on the model card, as the Hub names it, such as mit (null: not stated)")
    language: str | None = key(
        None, "language of the text on the card, ISO 639, such as en or en,de (null: not stated)"
    )


@dataclass
class Config:
    """What a recipe holds and `cram.train` and `cram.prepare` take."""

    recipe: str = key("", "a name in recipes/ or a path to a yaml file")
    budget: str = key("24h", "90s, 10m, 24h (wall clock), 2.5e9tokens or 5000steps")
    run: str | None = key(None, "run folder (null: runs/RECIPE)")
    init: str | None = key(None, "run or exported folder whose weights to begin with (null: those of the seed)")
    seed: int = key(0, "seed of weights, masks and order")
    device: str = key("auto", "where to train: auto (a GPU if there is one), cpu, cuda, or cuda:N for the GPU N")
    precision: Literal["auto", "bf16", "fp16", "fp32"] = key(
        "auto", "auto: bf16 autocast where the device has it, fp16 with a loss scale on older GPUs, else fp32"
    )
    threads: int | None = key(None, "CPU threads (null: all cores)", "threads")
    log_interval: int = key(10, "updates between two lines of metrics.jsonl", "updates")
    tokenizer: str | None = key(None, "a tokenizer.json to use (null: WordPiece trained on the data)")
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


@dataclass
class ShardsConfig:
    """What `cram.prepare` takes instead of a recipe, to look at shards that are there."""

    verify: str | None = key(None, "shard folder: compare every checksum, and every row with what must hold of it")
    show: str | None = key(None, "shard folder: print its figures, what was dropped, rows as text; draw its plots")
    row: int | None = key(None, "with show=: the row to print (null: some from all over)", "row")


@dataclass
class EvaluateConfig:
    """What `cram.evaluate` takes."""

    run: str = key("", "run folder")
    checkpoint: str | None = key(None, "newest, or the number of a kept checkpoint (null: the finished run)")
    text: str | None = key(None, "glob of text files to evaluate (null: the run's held-out documents)")
    text_field: str = key("text", "field that holds the text in .jsonl and .parquet records")
    document: Literal["file", "blank_line", "line"] = key("file", "what one document is in a .txt file")
    tokens: int = key(262_144, "text that is evaluated, at most", "tokens")
    device: str = key("auto", "where to evaluate, as in a recipe")


@dataclass
class ExportConfig:
    """What `cram.export` takes."""

    run: str = key("", "run folder")
    checkpoint: str | None = key(None, "newest, or the number of a kept checkpoint (null: the finished run)")
    to: str | None = key(None, "folder to write (null: RUN/export, or RUN/export-STEP of a checkpoint)")
    card: CardConfig = group(CardConfig)


@dataclass
class AblateConfig:
    """What `cram.ablate` takes; all other words are the arms'."""

    table: str = key("", "a name in recipes/ablations/ or a path to a yaml file")
    budget: str | None = key(None, "of an arm, as in a recipe (null: the table's)")
    seeds: int | None = key(None, "seeds of each arm (null: the table's)", "seeds")
    arms: list[str] = key_list("arms to run (empty: all)")
    dir: str = key("runs/ablations", "folder that holds the arms' runs")


@dataclass
class GlueConfig:
    """What `cram.glue` takes; one setting for all tasks."""

    run: str = key("", "run folder, exported folder or one of another stock encoder, or hf:NAME")
    checkpoint: str | None = key(None, "newest, or the number of a kept checkpoint (null: the finished run)")
    data: str = key("hf:nyu-mll/glue", "folder in GLUE's layout, or hf:NAME of a data set on the Hub")
    tasks: list[str] = key_list("cola, sst2, mrpc, stsb, qqp, mnli, qnli, rte, wnli (empty: all but wnli)")
    seeds: int = key(5, "fine-tunings of each task", "seeds")
    to: str | None = key(None, "folder for the results (null: the run folder; runs/glue-NAME for what is none)")
    protocol: Literal["cramming", "bert"] = key(
        "cramming", "cramming: learning rate 4e-5, batch 16; bert: 2e-5 and 32, of the published BERT-base row"
    )
    learning_rate: list[float] = key_list(
        "peak learning rate of all tasks; of several the one with the best mean is taken (empty: the protocol's)"
    )
    batch: int | None = key(None, "rows of an update (null: the protocol's)", "rows")
    epochs: int = key(5, "passes over a task's training rows; the rules allow 5", "passes")
    length: int = key(128, "longest row", "tokens")
    dropout: float = key(0.1, "dropout wherever the class has it", "share")
    pooling: Literal["first", "mean"] = key("first", "what the head reads: the first token, or the mean of all")
    limit: int | None = key(None, "first N training rows of a fixed shuffle; not the protocol then (null: all)", "rows")
    check_counts: bool = key(True, "stop at a file whose row count is not the published one")
    untrained: bool = key(False, "also fine-tune the same architecture with random weights, as a control")
    device: str = key("auto", "where to fine-tune, as in a recipe")
    precision: Literal["auto", "bf16", "fp16", "fp32"] = key("auto", "of training, as in a recipe; scoring is in fp32")
    threads: int | None = key(None, "CPU threads (null: all cores)", "threads")
