"""The training loop on Lightning Fabric: an epoch, its evaluation, the kept epoch, the record.

A run folder is finished when it holds ``metrics.json``, which is written last. Until then
``state.pt`` holds all that is needed to go on (:mod:`cskt.resuming`). Every file is replaced
atomically. Of several processes that train together (:mod:`cskt.ranks`) the first one writes.
"""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from lightning_fabric import Fabric
from torch import Tensor, nn

from cskt import files
from cskt.config import TrainConfig
from cskt.data.datasets import PersonRetrievalDataset, load_dataset
from cskt.data.noise import index_fingerprint, training_captions
from cskt.data.unreadable import sentence
from cskt.environment import environment
from cskt.epoch import DIVERGED, EpochLoop, refuse_diverged
from cskt.errors import RunError, RunStopped
from cskt.evaluation import MEASURES, Evaluator, LoadedSplit, SplitMetrics, load_split
from cskt.files import make_folder, write_atomically, write_json
from cskt.model.towers import checkpointed, run_layer
from cskt.numerics import resolve_device, resolve_precision
from cskt.optimizer import make_optimizer
from cskt.ranks import Ranks, launched
from cskt.resuming import StopRequest, full_disk_named, read_state, remove_state, write_state
from cskt.runs import (
    ADAPTER,
    CONFIG,
    HISTORY,
    MEASURED,
    METRICS,
    QUERIES,
    Run,
    backbone_origin,
    build_model,
    check_folder,
    run_name,
    weights_fingerprint,
    write_history,
    write_model,
    write_queries,
)
from cskt.selection import note_choices, selected_epochs

OnEpoch = Callable[[dict[str, Any]], None] | None
STOP_AGREED_EVERY = 10  # steps, where several processes must agree


def train(
    config: TrainConfig,
    on_epoch: OnEpoch = None,
    overwrite: bool = False,
    progress: bool | None = None,
) -> Run:
    """Train as ``config`` says, keep the epoch that ``selection`` chooses, evaluate it on test;
    return the run.

    The folder is ``config.output``, else ``runs/<run_name>``. A finished run of the same
    configuration is returned as it is and an interrupted one goes on after its last stored step, to
    the same result; ``overwrite`` starts anew. ``on_epoch`` gets each epoch's row of the history
    once it is stored. ``progress`` shows a bar per epoch (None: on a terminal only). Seeds the
    global generators of python, numpy and torch. Under ``torchrun``, or with ``config.devices``,
    several processes train the one model.

    Raises :class:`RunError` for a folder with anything else in it, for data or weights that changed
    since, and for a loss that diverged, :class:`RunStopped` after Ctrl-C or SIGTERM, and
    :class:`ResourceError` where a batch does not fit into memory or a file onto the disk.
    """
    device = resolve_device(config.device)
    precision = resolve_precision(config.precision, device)
    folder = Path(config.output or f"runs/{run_name(config)}")
    fabric = launched(config, device, precision, folder)
    ranks = Ranks(fabric)
    dataset = ranks.ask_first(lambda: load_dataset(config.dataset, config.data_root))
    trainer = Trainer(config, folder, dataset, fabric, on_epoch, progress)
    # Two notebooks may ask for one run at a time: the second waits here and then finds it finished.
    lock: contextlib.AbstractContextManager = contextlib.nullcontext()
    if ranks.first:
        lock = files.lock(make_folder(folder.parent) / f".{folder.name}.lock")
    with lock:
        ranks.ask_first(lambda: check_folder(folder, config, overwrite))
        finished = ranks.ask_first(lambda: (folder / METRICS).is_file())
        if overwrite or not finished:
            return trainer.run(overwrite)
        run = Run.load(folder)
        trainer.check_inputs(run.record)
        return run


@dataclass
class TrainingState:
    """What is stored besides the model, the solver and the place in the epoch.

    ``chosen`` has what each rule of :data:`SELECTIONS` would keep so far (epoch, score, metrics on
    test), ``kept_model`` the tensors of the epoch chosen by the configuration's rule, ``skipped``
    by split which images could not be read (:func:`cskt.data.unreadable.listed`).
    """

    inputs: dict[str, str | None]
    precision: str
    started: str
    epoch: int = 0
    chosen: dict[str, dict[str, Any]] = field(default_factory=dict)
    kept_model: dict[str, Tensor] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    skipped: dict[str, dict[str, Any]] = field(default_factory=dict)


class Trainer:
    """One run in its folder: build the model, train and evaluate it epoch by epoch, store."""

    def __init__(
        self,
        config: TrainConfig,
        folder: Path,
        dataset: PersonRetrievalDataset,
        fabric: Fabric,
        on_epoch: OnEpoch = None,
        progress: bool | None = None,
    ) -> None:
        self.config = config
        self.folder = folder
        self.dataset = dataset
        self.fabric = fabric
        self.ranks = Ranks(fabric)
        self.on_epoch = on_epoch if self.ranks.first else None
        self.hide_bar = None if progress is None else not progress
        self.start = time.monotonic()
        self.device = fabric.device
        self.precision = resolve_precision(config.precision, self.device.type)
        self.train_split, self.noise = training_captions(dataset.train, config)
        self.state = TrainingState(
            inputs={
                "data_fingerprint": dataset.fingerprint,
                "weights_fingerprint": weights_fingerprint(config),
                "noise_index_fingerprint": index_fingerprint(config.noise_index),
            },
            precision=self.precision,
            started=datetime.now(UTC).isoformat(timespec="seconds"),
        )

    def check_inputs(self, stored: dict[str, Any]) -> None:
        """Refuse to go on with other data or weights than the ``stored`` ones."""
        for name, value in self.state.inputs.items():
            if stored.get(name) != value:
                raise RunError(
                    f"{self.folder} was made with {name} {stored.get(name)} but it is now {value}; "
                    "restore those inputs, delete the folder, or ask to overwrite it."
                )

    def run(self, overwrite: bool) -> Run:
        """Train what is left to train, and finish the folder."""
        # Before anything is written: a bad backbone leaves no folder behind.
        self.model = build_model(self.config).to(self.device)
        self.ranks.ask_first(lambda: self._begin_folder(overwrite))
        self.evaluator = Evaluator(
            self.model, self.dataset, self.precision, self.ranks, self.config.on_error
        )
        self._note_skipped(self.evaluator.val)
        self._note_skipped(self.evaluator.test)
        if self.model.num_trainable:
            with StopRequest() as self.stop:
                self._fit()
        return self._finish()

    def _begin_folder(self, overwrite: bool) -> None:
        self.folder.mkdir(exist_ok=True)
        if overwrite:
            # METRICS first: from here on nothing is trusted.
            for name in (METRICS, ADAPTER, HISTORY, QUERIES, DIVERGED):
                (self.folder / name).unlink(missing_ok=True)
            remove_state(self.folder)
        settings = yaml.safe_dump(self.config.to_dict(), sort_keys=False)
        with full_disk_named(self.folder):
            write_atomically(self.folder / CONFIG, settings)

    def _fit(self) -> None:
        wrapped = self._set_up()
        loaded = load_split(
            self.model, self.train_split, self.config.on_error, self.dataset.root, self.ranks
        )
        self._note_skipped(loaded)
        self.loop = EpochLoop(
            self.config, self.fabric, wrapped, self.optimizer, loaded, self.hide_bar
        )
        self._resume()
        for epoch in range(self.state.epoch, self.config.epochs):
            begin = time.monotonic()
            learning_rate = self.schedule.get_last_lr()[0]
            loss = self.loop.run(epoch, self._after_step, self._last_figures())
            self._refuse_diverged()
            self.schedule.step()
            metrics = self.evaluator.after_epoch(self.model)
            row = {
                "epoch": epoch + 1,
                "lr": learning_rate,
                "loss": loss,
                **_history_columns(metrics),
                "seconds": round(time.monotonic() - begin, 3),
                **self.model.prompts.spectrum(),
            }
            preferring = note_choices(self.state.chosen, epoch + 1, metrics)
            if self.config.selection in preferring:
                self.state.kept_model = _copy_to_cpu(self.model.trainable_state())
            self.state.epoch = epoch + 1
            self.state.history.append(row)
            self._store()
            self.fabric.log_dict(_without_times(row), step=epoch + 1)
            if self.on_epoch is not None:
                self.on_epoch(dict(row))

    def _note_skipped(self, loaded: LoadedSplit) -> None:
        if loaded.skipped is not None:
            self.state.skipped[loaded.split.name] = loaded.skipped

    def _set_up(self) -> nn.Module:
        """Solver, precision and device, in the hands of Fabric; the model to be called."""
        model = self.model
        optimizer, self.schedule = make_optimizer(model, self.config)
        if self.precision == "bf16":
            model.cast_frozen(torch.bfloat16)
        if self.config.checkpointing:
            model.steps = dict.fromkeys(model.steps, checkpointed)
        elif self.config.compile:
            model.steps["vision"] = torch.compile(run_layer, dynamic=False)
        # The wrapped module casts and moves; evaluation uses the plain one.
        wrapped, self.optimizer = self.fabric.setup(model, optimizer)
        return wrapped

    def _last_figures(self) -> str:
        """What the progress bar says of the epoch before."""
        if not self.state.history:
            return ""
        return f", val R@1 {self.state.history[-1]['val R@1']:.1f}"

    def _after_step(self) -> None:
        """Store the run where that is due, and end where it was asked for."""
        steps = self.loop.step
        every = self.config.checkpoint_every
        # Agreeing takes a message among the processes, and a GPU's answer is waited for.
        agree = steps % STOP_AGREED_EVERY == 0 or self.ranks.count == 1
        stopped = agree and self.ranks.any(bool(self.stop.asked))
        due = every is not None and steps % every == 0
        if stopped or due:
            self._refuse_diverged()
            self._store()
        if stopped:
            epoch = self.state.epoch + 1
            raise RunStopped(
                f"stopped by {self.stop.asked or 'another process'} after step {steps} of epoch "
                f"{epoch}; all up to there is stored in {self.folder}: the same command goes on."
            )

    def _refuse_diverged(self) -> None:
        report = self.loop.diverged(self.state.epoch)
        if report is not None:
            self.ranks.ask_first(lambda: refuse_diverged(self.folder, report, self.config))

    def _store(self) -> None:
        stored = {
            **vars(self.state),
            "loop": self.loop.state(),
            "model": self.model.trainable_state(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "elapsed": time.monotonic() - self.start,
        }
        self.ranks.ask_first(lambda: write_state(self.folder, stored))

    def _resume(self) -> None:
        stored = self.ranks.ask_first(lambda: read_state(self.folder))
        if stored is None:
            return
        if "loop" not in stored:
            raise RunError(
                f"{self.folder} was begun by an older version, whose state this one cannot go on "
                "from; ask to overwrite it."
            )
        self.check_inputs(stored["inputs"])
        if stored["precision"] != self.precision:
            raise RunError(
                f"{self.folder} was begun in {stored['precision']} and would go on in "
                f"{self.precision}; continue it where it was begun, or ask to overwrite it."
            )
        if stored.get("skipped", {}) != self.state.skipped:
            raise RunError(
                f"since {self.folder} was begun, other images than before can be read; restore "
                "them as they were, or ask to overwrite it."
            )
        self.model.load_trainable_state(stored.pop("model"))
        self.optimizer.load_state_dict(stored.pop("optimizer"))
        self.schedule.load_state_dict(stored.pop("schedule"))
        self.loop.restore(stored.pop("loop"))
        self.start -= stored.pop("elapsed")
        self.state = TrainingState(**stored)

    def _finish(self) -> Run:
        """Evaluate the chosen epoch and the bare backbone, write the record: the run is
        finished."""
        model = build_model(self.config).to(self.device)  # its frozen weights uncast
        model.load_trainable_state(self.state.kept_model)
        kept, queries, cost = self.evaluator.at_the_end(model)
        bare = kept
        if model.num_trainable:
            zero_shot = dataclasses.replace(self.config, method="zero-shot")
            bare, _, _ = self.evaluator.at_the_end(build_model(zero_shot).to(self.device))
        self.model = model
        self.ranks.ask_first(lambda: self._write(queries, self._record(kept, bare, cost)))
        return Run.load(self.folder)

    def _write(self, queries: dict[str, np.ndarray], record: dict[str, Any]) -> None:
        """The files of a finished run; the record last."""
        with full_disk_named(self.folder):
            write_model(self.folder, self.state.kept_model)
            write_history(self.folder, self.state.history)
            write_queries(self.folder, queries)
            write_json(self.folder / METRICS, record)
        remove_state(self.folder)

    def _record(
        self, kept: SplitMetrics, bare: SplitMetrics, cost: dict[str, Any]
    ) -> dict[str, Any]:
        """The contents of metrics.json: ``kept`` are the figures of the chosen epoch, ``bare`` of
        the backbone, ``cost`` is what evaluating the chosen epoch on test cost."""
        config = self.config
        selected = selected_epochs(self.state.chosen, kept)
        return {
            "kind": "train",
            "dataset": self.dataset.name,
            "synthetic": self.dataset.synthetic,
            **self.state.inputs,
            "data_version": getattr(self.dataset, "version", None),
            "split": "test",
            "selection": config.selection,
            "best_epoch": selected[config.selection]["epoch"],
            "seed": config.seed,
            "method": config.method,
            "config": config.to_dict(),
            "backbone_origin": backbone_origin(config),
            **environment(self.device.type),
            "devices": self.ranks.count,
            "precision": self.precision,
            "started": self.state.started,
            "duration_s": round(time.monotonic() - self.start, 3),
            "trainable_parameters": self.model.num_trainable,
            "total_parameters": self.model.num_total,
            "noise": self.noise,
            "skipped": self.state.skipped,
            "history": [_without_times(row) for row in self.state.history],
            "metrics": kept["test"],
            "selected": selected,
            "val_metrics": kept["val"],
            "zero_shot": bare["test"],
            "zero_shot_val": bare["val"],
            "cost": cost,
            "notes": [*self.dataset.notes, *self._skipped_notes()],
        }

    def _skipped_notes(self) -> list[str]:
        return [sentence(split, skipped) for split, skipped in self.state.skipped.items()]


def _history_columns(metrics: SplitMetrics) -> dict[str, float]:
    """Text-to-image measures of val and of test, as the history names them."""
    columns = {}
    for split in ("val", "test"):
        for measure in MEASURES:
            columns[f"{split} {measure}"] = metrics[split]["text_to_image"][measure]
    return columns


def _without_times(row: dict[str, Any]) -> dict[str, Any]:
    """A row of the history as the record holds it: what was measured, without how long it took."""
    return {name: row[name] for name in ("epoch", "lr", "loss", *MEASURED)}


def _copy_to_cpu(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().clone().contiguous() for name, tensor in tensors.items()}
