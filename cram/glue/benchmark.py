"""From what the user asked for to finished files: load, fine-tune what is missing, predict, sum up."""

import shutil
import time
from collections.abc import Iterable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from cram.config.commands import GlueConfig
from cram.errors import CramError
from cram.files.atomic import write_atomic
from cram.files.sealed import add_to_checksums, check_folder, is_intact, write_checksums
from cram.glue.data import TaskData, load_task, spell
from cram.glue.encoder import Encoder, quiet
from cram.glue.finetune import PROTOCOLS, finetune, predict
from cram.glue.jobs import Job, Record, first_score, median_seed, plan
from cram.glue.metrics import counted, majority_outputs, score
from cram.glue.results import best_learning_rate, protocol, scores, summary
from cram.glue.submission import as_table, from_table, write_submission, wrong_counts
from cram.glue.tasks import PUBLISHED, TASKS, Task
from cram.glue.tokens import Encoded, encode
from cram.machine.device import device_name, device_notes, pick_device, pick_precision, set_threads
from cram.terminal.progress import Progress


class Benchmark:
    """One command at work: the checkpoint, the tasks' rows, and the record of what is done.

    Files below `out`: glue.json, and in glue/ a stock folder for each task's median seed, its predictions,
    the tokens, the plot and submission.zip.

    Args:
        said: the user's words, checked.
        out: folder of the results.
        tasks: those to fine-tune; the results are also of those that the folder has already.
        encoder: the checkpoint.

    Errors: CramError for data, or results of before, that do not fit.
    """

    def __init__(self, said: GlueConfig, out: Path, tasks: list[Task], encoder: Encoder) -> None:
        self.said, self.out, self.asked = said, out, tasks
        self.folder = out / "glue"
        set_threads(said.threads)
        self.device = pick_device(said.device)
        for note in device_notes(said.device, self.device):
            print(note)
        self.precision = pick_precision(said.precision, self.device)
        meant = PROTOCOLS[said.protocol]
        self.setting = replace(meant, epochs=said.epochs, batch=said.batch or meant.batch)
        self.rates = list(dict.fromkeys(said.learning_rate)) or [meant.learning_rate]
        self.encoder = encoder
        self.progress = Progress()
        self.record = Record(out / "glue.json", self._settings())
        done = {job.task for job in self.record.outcomes if job.learning_rate in self.rates}
        self.tasks = [task for task in TASKS.values() if task in tasks or task.name in done]
        self.data = self._load()

    def _settings(self) -> dict[str, Any]:
        """What every job of a record shares."""
        return {
            "checkpoint": self.encoder.identity,
            "protocol": self.said.protocol,
            "batch": self.setting.batch,
            "epochs": self.setting.epochs,
            "length": self.encoder.longest,
            "dropout": self.said.dropout,
            "pooling": self.said.pooling,
            "limit": self.said.limit,
            "precision": str(self.precision).removeprefix("torch."),
        }

    def _load(self) -> dict[str, TaskData]:
        loaded = {}
        with self.progress.stage("reading GLUE", len(self.tasks), "tasks") as stage:
            for task in self.tasks:
                data = self._rows(task)
                if self.said.limit is not None:
                    data = replace(data, train=data.train.first(self.said.limit))
                self.record.check_data(task.name, data.hash)
                loaded[task.name] = data
                stage.advance(1)
        return loaded

    def _rows(self, task: Task) -> TaskData:
        try:
            return load_task(self.said.data, task, self.said.check_counts)
        except CramError as error:
            if task in self.asked:
                raise
            raise CramError(
                f"{error} ({task.name}: its results are in {self.record.path} already; "
                "give the folder that holds it too, or another to=)"
            ) from None

    def run(self) -> dict[str, Any]:
        """Do what is missing, write every file, and return the results."""
        names = [task.name for task in self.asked]
        self._fine_tune(plan(names, self.rates, self.said.seeds))
        rate = best_learning_rate(self.record, self.tasks, self.rates)
        if self.said.untrained:
            self._fine_tune(plan(names, [rate], self.said.seeds, untrained=True))
        remarks = [remark for data in self.data.values() for remark in data.remarks]
        found = scores(self.record, self.tasks, rate)
        meant = protocol(self.said, self.setting, self.encoder, found, remarks)
        results = summary(self.record, self.tasks, self.rates, meant, self._majority())
        results["checkpoint"] = {"run": self.said.run, "identity": self.encoder.identity}
        results["device"] = device_name(self.device)
        results["models"], predictions = self._predict(rate)
        filled = write_submission(self.folder / "submission.zip", predictions)
        results["submission"] = {"path": "glue/submission.zip", "majority_class": filled}
        results["submission"]["wrong_counts"] = wrong_counts(predictions)
        self.record.write(results)
        return results

    def _fine_tune(self, jobs: list[Job]) -> None:
        """Run those jobs that are not done; of each task and rate, keep the weights of the median seed."""
        missing = self.record.missing(jobs)
        for task in self.asked:
            own = [job for job in missing if job.task == task.name]
            if own:
                train, dev = self._encoded(task)
            for job in own:
                place = f"{missing.index(job) + 1} of {len(missing)}: {job.name}"
                self._job(job, task, train, dev, place)
            for rate in self.rates:
                self._keep_median(task, rate)

    def _encoded(self, task: Task) -> tuple[Encoded, dict[str, Encoded]]:
        data = self.data[task.name]
        return self._tokens(data.train), {name: self._tokens(rows) for name, rows in data.dev.items()}

    def _tokens(self, rows: Any) -> Encoded:
        return encode(rows, self.encoder.tokenizer, self.encoder.longest, self.folder / "tokens")

    def _job(self, job: Job, task: Task, train: Encoded, dev: dict[str, Encoded], place: str) -> None:
        began, setting = time.monotonic(), replace(self.setting, learning_rate=job.learning_rate)
        said, pad_id = self.said, self.encoder.pad_id
        model = self.encoder.model(task, job.seed, said.dropout, said.pooling, job.untrained).to(self.device)
        with self.progress.stage(place, setting.updates(len(train)), "updates") as stage:
            loss = finetune(model, train, setting, job.seed, pad_id, self.precision, stage.advance)
        labels = {name: rows.known for name, rows in self.data[task.name].dev.items()}
        figures = {name: score(task, predict(model, rows, pad_id), labels[name]) for name, rows in dev.items()}
        if not job.untrained:
            self._save(model, job)
        outcome = {
            "scores": figures,
            "loss": loss,
            "rows": len(train),
            "updates": setting.updates(len(train)),
            **asdict(setting),
            "train": self.data[task.name].train.hash,
            "began_with": f"seed {job.seed}" if job.untrained else self.encoder.identity,
            "data": self.data[task.name].hash,
            "seconds": round(time.monotonic() - began, 3),
        }
        self.record.add(job, outcome)
        headline = task.metrics[0]
        print(f"{place}: {headline} " + ", ".join(f"{part[headline]:.1f}" for part in figures.values()), flush=True)

    def _save(self, model: nn.Module, job: Job) -> None:
        """A stock folder of the model, whole or not at all; one of before is replaced, and its predictions go."""
        folder, partial = self.folder / job.name, self.folder / f".{job.name}.partial"
        shutil.rmtree(partial, ignore_errors=True)
        shutil.rmtree(folder, ignore_errors=True)
        try:
            self.encoder.save(model, partial)
            write_checksums(partial, sorted(path.name for path in partial.iterdir()))
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
        for path in (self.folder / "predictions").glob(f"{job.name}-*.tsv"):
            path.unlink()
        partial.rename(folder)

    def _kept(self, task: Task, rate: float) -> dict[int, Path]:
        """Folders of the models that are there, by seed."""
        seeds = self.record.seeds(task.name, rate)
        folders = {seed: self.folder / Job(task.name, rate, seed).name for seed in seeds}
        return {seed: folder for seed, folder in folders.items() if (folder / "config.json").is_file()}

    def _keep_median(self, task: Task, rate: float) -> None:
        kept = self._kept(task, rate)
        if kept and not self.record.missing(plan([task.name], [rate], self.said.seeds)):
            middle = median_seed(self.record.seeds(task.name, rate), kept)
            for seed in kept.keys() - {middle}:
                shutil.rmtree(kept[seed])

    def _majority(self) -> dict[str, float]:
        found = {}
        for task in self.tasks:
            data = self.data[task.name]
            for name, rows in data.dev.items():
                outputs = majority_outputs(task, data.train.known, len(rows))
                found[name] = counted(next(iter(score(task, outputs, rows.known).values())))
        return found

    def _predict(self, rate: float) -> tuple[dict[str, Any], dict[str, list[str]]]:
        """Each task's model, and what it predicts of the test sets; of the dev sets, files are written too."""
        models: dict[str, Any] = {}
        test: dict[str, list[str]] = {}
        for task in self.tasks:
            kept = self._kept(task, rate)
            if not kept:
                continue
            outcomes = self.record.seeds(task.name, rate)
            seed = median_seed(outcomes, kept)
            check_model(kept[seed])
            path = str(kept[seed].relative_to(self.out))
            models[task.name] = {"path": path, "seed": seed, "score": first_score(outcomes[seed])}
            data = self.data[task.name]
            self._predictions(task, kept[seed], data.dev, "dev")
            test |= self._predictions(task, kept[seed], data.test, "test")
        return models, test

    def _predictions(self, task: Task, folder: Path, sets: dict[str, Any], split: str) -> dict[str, list[str]]:
        """Predictions by part, as the files spell labels; read where they were made before."""
        made, model = {}, None
        for name, rows in sets.items():
            path = self.folder / "predictions" / f"{folder.name}-{name}-{split}-{rows.hash[:8]}.tsv"
            if not is_intact(path.parent, path.name):
                model = model or load_model(folder, self.device)
                with self.progress.stage(f"predicting {name}, {split}", len(rows), "rows") as stage:
                    said = spell(task, predict(model, self._tokens(rows), self.encoder.pad_id, stage.advance))
                write_atomic(path, as_table(said).encode())
                add_to_checksums(path.parent, path.name)
            made[name] = from_table(path.read_text(encoding="utf-8"))
        return made


def check_model(folder: Path) -> None:
    """Errors: CramError where the files of a kept model are not as they were written."""
    check_folder(folder, "Remove it, and its task has no predictions; or choose another to=.")


def load_model(folder: Path, device: torch.device) -> nn.Module:
    """A fine-tuned model, by the stock class."""
    from transformers import AutoModelForSequenceClassification

    with quiet():
        model: nn.Module = AutoModelForSequenceClassification.from_pretrained(
            folder, dtype=torch.float32, use_safetensors=True
        )
    return model.to(device)


def results_folder(said: GlueConfig) -> Path:
    """Where results go: `to=`, the run folder, or runs/glue-NAME for a checkpoint that is no run."""
    if said.to:
        return Path(said.to)
    run = said.run.removeprefix("hf:")
    if (Path(run) / "recipe.yaml").is_file() and run == said.run:
        return Path(run)
    return Path("runs") / f"glue-{Path(run).resolve().name}"


def _model_line(model: dict[str, Any], figures: dict[str, Any]) -> str:
    """A kept model, with its own score where that is not the median."""
    own, median = model["score"], figures["median"]
    beside = "" if own == median else f", {figures['metric']} {own:.1f}, the median is {median:.1f}"
    return f"model       {model['path']} (seed {model['seed']}{beside})"


def describe(results: dict[str, Any], left_out: Iterable[str]) -> list[str]:
    """What is to be said under the table, in lines."""
    protocol_said = results["protocol"]
    departures = "; ".join(protocol_said["departures"])
    broken = [f"{line['rule']} ({line['found']})" for line in results["rules"] if not line["passed"]]
    filled, wrong = results["submission"]["majority_class"], results["submission"]["wrong_counts"]
    lines = [
        f"protocol    {protocol_said['name']}"
        + (f", NOT as published: {departures}" if departures else ", as published"),
        f"rules       {'all kept' if not broken else 'not kept: ' + ', '.join(broken)}",
        f"differs     {'; '.join(protocol_said['differences'])}",
        f"published   crammed v2, A6000: mean {PUBLISHED['crammed v2']['mean']}",
        f"submission  {results['submission']['path']}"
        + (f"; the majority class, not predictions, for {', '.join(filled)}" if filled else "")
        + (f"; not for handing in: {', '.join(wrong)}" if wrong else ""),
        *(
            _model_line(model, results["scores"][TASKS[task].parts[0].name])
            for task, model in results["models"].items()
        ),
    ]
    if results["missing"]:
        lines.insert(0, f"mean        none: {', '.join(results['missing'])} of the nine scores were not run")
    return lines + [f"left out    {text}" for text in left_out]
