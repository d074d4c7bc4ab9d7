"""Exports a finished run, or a checkpoint, as a folder that stock `transformers` classes load.

The folder needs no code of ours. It holds the weights under the names of the stock class, a config that versions 4 and
5 read alike, the tokenizer, a model card made from the receipt, and the held-out rows, with which anybody can repeat
the held-out loss. It is written under a temporary name and gets its own name after `cram.hub.check_export` has proved
it.
"""

import filecmp
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cram.config.config import Config
from cram.config.training import CardConfig
from cram.errors import CramError
from cram.files.atomic import sha256_file, to_json, write_json
from cram.files.sealed import write_checksums
from cram.files.whole_folder import check_folder_path, whole_folder
from cram.hub.card import check_card, make_card
from cram.hub.check_export import check_held_out, check_outputs
from cram.hub.front_matter import glue_scores
from cram.hub.kinds import exported_kinds, stock_model, why_not_exported
from cram.hub.stock import StockModel
from cram.reporting.reading.runs import RunData, read_run
from cram.reporting.sections.headline import headline_figures
from cram.reporting.sections.loss_picture import draw_loss
from cram.run.checksums import read_run_config

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from cram.model.transformer import Transformer

PICTURE = "loss.png"  # of the loss, beside the card


@dataclass(frozen=True)
class ExportSource:
    """What an export is made of, whether a finished run or a checkpoint.

    Attributes:
        name: title of the model card.
        model: the model, on the CPU.
        tokenizer: the run's tokenizer.
        held_out: the held-out rows as a safetensors file.
        receipt: the run's receipt, or the same figures of the checkpoint.
        folder_name: name of the default folder inside the run folder.
        run: the run, up to the checkpoint.
    """

    name: str
    model: "Transformer"
    tokenizer: "Tokenizer"
    held_out: bytes
    receipt: dict[str, Any]
    folder_name: str
    run: RunData


def export_run(
    run: Path, to: Path | None = None, card: CardConfig | None = None, checkpoint: str | None = None
) -> Path:
    """Write the Hugging Face folder of a finished run or of a checkpoint, check it, and return its path.

    Args:
        run: folder of a finished run: recipe.yaml, model.safetensors, tokenizer.json, receipt.json and
            held_out.safetensors.
        to: folder to write. By default `export` in the run folder, or `export-STEP` for a checkpoint. A folder that
            exists already must hold the same files.
        card: licence and language for the model card; the run's recipe gives what is not stated here.
        checkpoint: `newest`, or the number of a kept one; None for the weights of the finished run.

    Raises:
        CramError: if the run is not finished, its model has no stock class, `to` holds something else, or a file cannot
            be written.
        RuntimeError: if the stock classes do not compute our logits.
    """
    if to:
        check_folder_path(to)
    config = read_run_config(run)
    stated = card or CardConfig()
    config.card = CardConfig(stated.license or config.card.license, stated.language or config.card.language)
    check_card(config.card)
    if reason := why_not_exported(config.model.kind):
        raise CramError(
            f"run={run} cannot be exported: {reason}. Its weights are {run / 'model.safetensors'}; "
            f"a run of model.kind={' or '.join(exported_kinds())} can be exported."
        )
    source = _from_checkpoint(run, config, checkpoint) if checkpoint else _from_finished_run(run, config)
    to = to or run / source.folder_name
    source.model.eval()
    config = replace(config, model=source.model.config)  # a checkpoint may have fewer blocks than the recipe
    stock = stock_model(config.model.kind)
    if stock.companion:
        suffix, companion = stock.companion
        _export(to.with_name(f"{to.name}-{suffix}"), config, source, companion, bool(checkpoint))
    _export(to, config, source, stock, bool(checkpoint))
    return to


def _export(to: Path, config: Config, source: ExportSource, stock: StockModel, unfinished: bool) -> None:
    """Write, check and name one folder."""
    with whole_folder(to) as partial:
        _write(partial, config, source, stock)
        if unfinished:
            write_json(partial / "unfinished.json", source.receipt)
        write_checksums(partial, sorted(path.name for path in partial.iterdir() if path.name != "README.md"))
        loaded = check_outputs(partial, source.model, source.tokenizer, stock)
        if stock.scores_text:
            check_held_out(partial, loaded, source.receipt["held_out"]["nats_per_token"])
        _rename(partial, to)


def _from_finished_run(run: Path, config: Config) -> ExportSource:
    import torch

    from cram.hub.trained import load_held_out, load_trained

    model, tokenizer = load_trained(run, config, torch.device("cpu"))
    held_out = load_held_out(run, model.vocab_size).to_bytes()
    data = read_run(run)
    assert data.receipt is not None
    return ExportSource(data.name, model, tokenizer, held_out, data.receipt, "export", data)


def _from_checkpoint(run: Path, config: Config, checkpoint: str) -> ExportSource:
    import torch

    from cram.hub.snapshot import open_snapshot

    cpu = torch.device("cpu")
    snapshot = open_snapshot(run, config, checkpoint, cpu)
    rows = snapshot.held_out()
    receipt = snapshot.receipt(rows, cpu)
    data = read_run(run)
    records = [record for record in data.records if record["step"] <= snapshot.step]
    return ExportSource(
        name=f"{run.resolve().name}-{snapshot.step}",
        model=snapshot.model,
        tokenizer=snapshot.tokenizer,
        held_out=rows.to_bytes(),
        receipt=receipt,
        folder_name=f"export-{snapshot.step}",
        run=replace(data, receipt=receipt, records=records),
    )


def _write(folder: Path, config: Config, source: ExportSource, stock: StockModel) -> None:
    from safetensors.torch import save

    from cram.data.special_tokens import SpecialTokens

    model, seq_len, special = source.model, config.data.seq_len, SpecialTokens.of(source.tokenizer)
    names = special.names(source.tokenizer)
    tokenizer = stock.task.tokenizer(source.tokenizer, special)
    (folder / "tokenizer.json").write_text(tokenizer.to_str(pretty=True), "utf-8")
    weights = {name: tensor.contiguous() for name, tensor in stock.rename(model.state_dict()).items()}
    # Not `save_file`: only the owner could read its files.
    (folder / "model.safetensors").write_bytes(save(weights, metadata={"format": "pt"}))
    texts = {"config.json": stock.config(config.model, model.vocab_size, seq_len, special)}
    if generation := stock.task.generation_config(seq_len, special):
        texts["generation_config.json"] = generation
    for name, content in (texts | stock.task.tokenizer_files(seq_len, names)).items():
        (folder / name).write_text(to_json(content, indent=2) + "\n")
    (folder / "held_out.safetensors").write_bytes(source.held_out)
    picture = draw_loss(source.run, source.name)
    if picture:
        (folder / PICTURE).write_bytes(picture)
    glue = glue_scores(source.run.glue, sha256_file(folder / "model.safetensors"))
    # The mean of GLUE on a card is of these weights, and by the protocol.
    figures = headline_figures(source.run if glue else replace(source.run, glue=None))
    shown = PICTURE if picture else None
    card = make_card(source.name, config, source.receipt, names, stock, figures, glue, shown)
    (folder / "README.md").write_text(card, encoding="utf-8")


def _rename(partial: Path, to: Path) -> None:
    """Give the folder its name, unless a folder of that name holds the same files already."""
    if not to.exists() or (to.is_dir() and not any(to.iterdir())):
        partial.rename(to)
    elif not to.is_dir() or not _same_files(partial, to):
        raise CramError(f"to={to} exists already and holds something else; choose another folder, or remove it.")


def _same_files(one: Path, other: Path) -> bool:
    names = sorted(path.name for path in one.iterdir())
    if names != sorted(path.name for path in other.iterdir()):
        return False
    return not any(filecmp.cmpfiles(one, other, names, shallow=False)[1:])
