"""All fine-tunings of one command: load the examples, fine-tune what is missing, predict, and summarize."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from cram.config.commands import GlueConfig
from cram.errors import CramError
from cram.files.atomic import write_atomic
from cram.files.sealed import add_to_checksums, is_intact
from cram.glue.data import load_task
from cram.glue.device_workers import DeviceWorkers
from cram.glue.finetune import PROTOCOLS, predict
from cram.glue.job_runner import FineTuning, JobRunner
from cram.glue.metrics import compute_metrics, majority_outputs, nan_to_zero
from cram.glue.model_store import ModelStore, check_model, load_model
from cram.glue.pretrained import PretrainedModel
from cram.glue.protocol import compare_with_protocol, learning_rates
from cram.glue.results import best_learning_rate, collect_scores, summarize
from cram.glue.results_file import Job, ResultsFile, first_score, median_seed, plan_jobs
from cram.glue.splits import Split, TaskData
from cram.glue.submission import (
    describe_wrong_counts,
    format_predictions,
    parse_predictions,
    prediction_texts,
    write_submission,
)
from cram.glue.tasks import TASKS, Task
from cram.machine.device import device_name, device_notes, find_device, pick_device, set_threads
from cram.machine.device_list import common_precision
from cram.terminal.progress import Progress


class GlueExperiment:
    """The fine-tunings of a checkpoint on some tasks, and their results.

    It writes below `folder`: glue.json, and in glue/ the model of each task's median seed as a stock folder, its
    predictions, the tokens of the examples, and submission.zip.

    Args:
        config: the keys of the command.
        folder: where the results are written.
        tasks: the tasks to fine-tune. Tasks with outcomes in `folder` are part of the results as well.
        pretrained: the checkpoint.

    Raises:
        CramError: for examples that cannot be read, and for earlier results that do not fit.
    """

    def __init__(self, config: GlueConfig, folder: Path, tasks: list[Task], pretrained: PretrainedModel) -> None:
        self._config = config
        self._folder = folder
        self._tasks = tasks
        self._pretrained = pretrained
        set_threads(config.threads)
        self._devices = config.devices or [config.device]
        self._device = find_device(self._devices[0])  # it is used, and its memory taken, where no worker uses it
        if config.devices is None:
            for note in device_notes(config.device, self._device):
                print(note)
        published = PROTOCOLS[config.protocol]
        hyperparameters = replace(
            published,
            epochs=config.epochs,
            batch=config.batch or published.batch,
            optimizer=config.optimizer,
            layer_decay=config.layer_decay,
        )
        precision = common_precision(config.precision, self._devices)
        self._shared = FineTuning(config, folder, pretrained, hyperparameters, precision)
        self._rates = learning_rates(config)
        self._progress = Progress()
        self._file = ResultsFile(folder / "glue.json", self._settings())
        self._models = ModelStore(self._shared.models, self._file)
        finished = {job.task for job in self._file.outcomes if job.learning_rate in self._rates}
        self._all_tasks = [task for task in TASKS.values() if task in tasks or task.name in finished]
        self._data = self._load()

    def _settings(self) -> dict[str, Any]:
        """The settings that all jobs of a results file share."""
        return {
            "checkpoint": self._pretrained.identity,
            "protocol": self._config.protocol,
            "batch": self._shared.hyperparameters.batch,
            "epochs": self._shared.hyperparameters.epochs,
            "optimizer": self._shared.hyperparameters.optimizer,
            "layer_decay": self._shared.hyperparameters.layer_decay,
            "length": self._pretrained.longest,
            "dropout": self._config.dropout,
            "pooling": self._config.pooling,
            "limit": self._config.limit,
            "precision": str(self._shared.precision).removeprefix("torch."),
        }

    def _load(self) -> dict[str, TaskData]:
        loaded = {}
        with self._progress.stage("reading GLUE", len(self._all_tasks), "tasks") as stage:
            for task in self._all_tasks:
                data = self._load_task(task)
                if self._config.limit is not None:
                    data = replace(data, train=data.train.first(self._config.limit))
                self._file.check_data(task.name, data.hash)
                loaded[task.name] = data
                stage.advance(1)
        return loaded

    def _load_task(self, task: Task) -> TaskData:
        try:
            return load_task(self._config.data, task, self._config.check_counts)
        except CramError as error:
            if task in self._tasks:
                raise
            raise CramError(
                f"{error} ({task.name}: its results are in {self._file.path} already; "
                "give the folder that holds it too, or another to=)."
            ) from None

    def run(self) -> dict[str, Any]:
        """Run the missing jobs, write every file, and return the results as glue.json holds them."""
        names, seeds = [task.name for task in self._tasks], self._config.seeds
        self._fine_tune(plan_jobs(names, self._rates, seeds))
        rate = best_learning_rate(self._file, self._all_tasks, self._rates)
        if self._config.untrained:
            self._fine_tune(plan_jobs(names, [rate], seeds, untrained=True))
        remarks = [remark for data in self._data.values() for remark in data.remarks]
        figures = collect_scores(self._file, self._all_tasks, rate)
        protocol = compare_with_protocol(self._config, self._shared.hyperparameters, self._pretrained, figures, remarks)
        results = summarize(self._file, self._all_tasks, self._rates, protocol, self._majority_scores())
        results["checkpoint"] = {"run": self._config.run, "identity": self._pretrained.identity}
        results["device"] = ", ".join(dict.fromkeys(device_name(find_device(name)) for name in self._devices))
        results["models"], predictions = self._predict_all(rate)
        filled = write_submission(self._folder / "glue" / "submission.zip", predictions)
        results["submission"] = {
            "path": "glue/submission.zip",
            "majority_class": filled,
            "wrong_counts": describe_wrong_counts(predictions),
        }
        self._file.write(results)
        return results

    def _fine_tune(self, jobs: list[Job]) -> None:
        """Run the jobs that have no outcome; of each task and rate, keep the model of the median seed."""
        missing = self._file.missing(jobs)
        if len(self._devices) > 1 and len(missing) > 1:
            self._run_side_by_side(missing)
            self._file.arrange(jobs)
        else:
            self._run_one_by_one(missing)
        for task in self._tasks:
            self._keep_median(task.name)

    def _run_one_by_one(self, jobs: list[Job]) -> None:
        """Run jobs on one device, in this process."""
        runner = JobRunner(self._shared, pick_device(self._devices[0]))
        for number, job in enumerate(jobs, 1):
            if number == 1 or job.task != jobs[number - 2].task:
                runner.load(self._data[job.task])
            title = f"{number} of {len(jobs)}: {job.name}"
            with self._progress.stage(title, self._count_updates(job), "updates") as stage:
                outcome = runner.run(job, stage.advance)
            self._add(title, job, outcome)

    def _run_side_by_side(self, jobs: list[Job]) -> None:
        """Run jobs on several devices, each in a process of its own."""
        devices = self._devices[: len(jobs)]
        updates = sum(map(self._count_updates, jobs))
        with (
            self._progress.stage(f"fine-tuning on {len(devices)} devices", updates, "updates") as stage,
            DeviceWorkers(self._shared, devices) as workers,
        ):
            for number, (job, device, outcome) in enumerate(workers.run(jobs, self._tokenized, stage.advance), 1):
                self._add(f"{number} of {len(jobs)}: {job.name}, {device}", job, outcome)

    def _count_updates(self, job: Job) -> int:
        return self._shared.hyperparameters.updates(len(self._data[job.task].train))

    def _tokenized(self, task: str) -> TaskData:
        """The examples of a task, once their tokens are on the disk, so that no two processes write them."""
        data = self._data[task]
        for split in (data.train, *data.dev.values()):
            self._shared.tokenize(split)
        return data

    def _add(self, title: str, job: Job, outcome: dict[str, Any]) -> None:
        """Write the outcome of a job to glue.json, and print its scores."""
        self._file.add(job, outcome)
        metric = TASKS[job.task].metrics[0]
        scores = ", ".join(f"{subset[metric]:.1f}" for subset in outcome["scores"].values())
        print(f"{title}: {metric} {scores}", flush=True)
        self._keep_median(job.task)

    def _keep_median(self, task: str) -> None:
        for rate in self._rates:  # the published score is a median, so its model is the one to keep
            self._models.keep_median(task, rate, self._config.seeds)

    def _majority_scores(self) -> dict[str, float]:
        """The published metric of the most frequent training label, by name of the subset."""
        scores = {}
        for task in self._all_tasks:
            data = self._data[task.name]
            for name, split in data.dev.items():
                outputs = majority_outputs(task, data.train.known_labels, len(split))
                metrics = compute_metrics(task, outputs, split.known_labels)
                scores[name] = nan_to_zero(next(iter(metrics.values())))
        return scores

    def _predict_all(self, rate: float) -> tuple[dict[str, Any], dict[str, list[str]]]:
        """Write the predictions of each task's model on the dev and test sets.

        Returns:
            Path, seed and score of each model, by task; the predictions on the test sets, by name of the subset.
        """
        models: dict[str, Any] = {}
        test_predictions: dict[str, list[str]] = {}
        pick_device(self._devices[0])
        for task in self._all_tasks:
            folders = self._models.find(task.name, rate)
            if not folders:
                continue
            outcomes = self._file.outcomes_by_seed(task.name, rate)
            seed = median_seed(outcomes, folders)
            folder = folders[seed]
            check_model(folder)
            models[task.name] = {
                "path": str(folder.relative_to(self._folder)),
                "seed": seed,
                "score": first_score(outcomes[seed]),
            }
            self._predict(task, folder, self._data[task.name].dev, "dev")
            test_predictions |= self._predict(task, folder, self._data[task.name].test, "test")
        return models, test_predictions

    def _predict(self, task: Task, folder: Path, splits: Mapping[str, Split], kind: str) -> dict[str, list[str]]:
        """Predictions by name of the subset, as the files write labels; read from the disk if they were made before."""
        predictions, model = {}, None
        for name, split in splits.items():
            path = self._folder / "glue" / "predictions" / f"{folder.name}-{name}-{kind}-{split.hash[:8]}.tsv"
            if not is_intact(path.parent, path.name):
                model = model or load_model(folder, self._device)
                with self._progress.stage(f"predicting {name}, {kind}", len(split), "rows") as stage:
                    outputs = predict(model, self._shared.tokenize(split), self._pretrained.pad_id, stage.advance)
                write_atomic(path, format_predictions(prediction_texts(task, outputs)).encode())
                add_to_checksums(path.parent, path.name)
            predictions[name] = parse_predictions(path.read_text(encoding="utf-8"))
        return predictions
