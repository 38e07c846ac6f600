"""The training loop on Lightning Fabric: an epoch, its evaluation, the kept epoch, the record.

A run folder is finished when it holds ``metrics.json``, which is written last. Until then
``state.pt`` holds all that is needed to continue after the last finished epoch. Every file is
replaced atomically.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from filelock import FileLock
from lightning_fabric import Fabric, seed_everything
from torch import Tensor
from tqdm.auto import tqdm

from cskt.config import TrainConfig
from cskt.data.augment import Augment
from cskt.data.datasets import PersonRetrievalDataset, load_dataset
from cskt.data.loading import batches
from cskt.data.noise import index_fingerprint, training_captions
from cskt.errors import DataError, ResourceError, RunError
from cskt.evaluation import MEASURES, Evaluator, LoadedSplit, SplitMetrics, load_split
from cskt.files import make_folder, write_atomically, write_json
from cskt.losses import sdm_loss
from cskt.model.towers import checkpointed, run_layer
from cskt.numerics import resolve_device, resolve_precision
from cskt.optimizer import make_optimizer
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
    environment,
    run_name,
    weights_fingerprint,
    write_history,
    write_model,
    write_queries,
)
from cskt.selection import note_choices, selected_epochs

STATE = "state.pt"
OnEpoch = Callable[[dict[str, Any]], None] | None


def train(
    config: TrainConfig,
    on_epoch: OnEpoch = None,
    overwrite: bool = False,
    progress: bool | None = None,
) -> Run:
    """Train as ``config`` says, keep the epoch that ``selection`` chooses, evaluate it on test;
    return the run.

    The folder is ``config.output``, else ``runs/<run_name>``. A finished run of the same
    configuration is returned as it is and an interrupted one continues after its last finished
    epoch, to the same result; ``overwrite`` starts anew. ``on_epoch`` gets each epoch's row of the
    history once it is stored. ``progress`` shows a bar per epoch (None: on a terminal only). Seeds
    the global generators of python, numpy and torch. Raises :class:`RunError` for a folder with
    anything else in it, for data or weights that changed since, and for a loss that diverged, and
    :class:`ResourceError` where a batch does not fit into memory.
    """
    folder = Path(config.output or f"runs/{run_name(config)}")
    dataset = load_dataset(config.dataset, config.data_root)
    trainer = Trainer(config, folder, dataset, on_epoch, progress)
    # Two notebooks may ask for one run at a time: the second waits here and then finds it finished.
    with FileLock(make_folder(folder.parent) / f".{folder.name}.lock"):
        check_folder(folder, config, overwrite)
        if overwrite or not (folder / METRICS).is_file():
            return trainer.run(overwrite)
        run = Run.load(folder)
        trainer.check_inputs(run.record)
        return run


@dataclass
class TrainingState:
    """What is stored after every epoch, besides the model and the solver, to go on from there.

    ``chosen`` has what each rule of :data:`SELECTIONS` would keep so far (epoch, score, metrics on
    test), ``kept_model`` the tensors of the epoch chosen by the configuration's rule.
    """

    inputs: dict[str, str | None]
    precision: str
    started: str
    epoch: int = 0
    chosen: dict[str, dict[str, Any]] = field(default_factory=dict)
    kept_model: dict[str, Tensor] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)


class Trainer:
    """One run in its folder: build the model, train and evaluate it epoch by epoch, store."""

    def __init__(
        self,
        config: TrainConfig,
        folder: Path,
        dataset: PersonRetrievalDataset,
        on_epoch: OnEpoch = None,
        progress: bool | None = None,
    ) -> None:
        self.config = config
        self.folder = folder
        self.dataset = dataset
        self.on_epoch = on_epoch
        self.hide_bar = None if progress is None else not progress
        self.start = time.monotonic()
        self.device = resolve_device(config.device)
        self.precision = resolve_precision(config.precision, self.device)
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
        self._begin_folder(overwrite)
        self.evaluator = Evaluator(self.model, self.dataset, self.precision)
        if self.model.num_trainable:
            self._fit()
        return self._finish()

    def _begin_folder(self, overwrite: bool) -> None:
        self.folder.mkdir(exist_ok=True)
        if overwrite:
            # METRICS first: from here on nothing is trusted.
            for name in (METRICS, STATE, ADAPTER, HISTORY, QUERIES):
                (self.folder / name).unlink(missing_ok=True)
        settings = yaml.safe_dump(self.config.to_dict(), sort_keys=False)
        write_atomically(self.folder / CONFIG, settings)

    def _fit(self) -> None:
        config = self.config
        self._set_up()
        self._resume()
        captions = load_split(self.model, self.train_split)
        augment = Augment(
            config.image_size, flip=config.flip, pad=config.pad, erasing=config.erasing
        ).to(self.device)
        for epoch in range(self.state.epoch, config.epochs):
            begin = time.monotonic()
            learning_rate = self.schedule.get_last_lr()[0]
            loss = self._train_epoch(augment, captions, epoch)
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
            if config.selection in preferring:
                self.state.kept_model = _copy_to_cpu(self.model.trainable_state())
            self.state.epoch = epoch + 1
            self.state.history.append(row)
            self._store()
            if self.on_epoch is not None:
                self.on_epoch(dict(row))

    def _set_up(self) -> None:
        """Solver, precision and device, in the hands of Fabric."""
        model = self.model
        bf16 = self.precision == "bf16"
        self.fabric = Fabric(
            accelerator=self.device, devices=1, precision="bf16-mixed" if bf16 else "32-true"
        )
        optimizer, self.schedule = make_optimizer(model, self.config)
        if bf16:
            model.cast_frozen(torch.bfloat16)
        if self.config.checkpointing:
            model.steps = dict.fromkeys(model.steps, checkpointed)
        elif self.config.compile:
            model.steps["vision"] = torch.compile(run_layer, dynamic=False)
        # The wrapped module casts (and, in a distributed run, synchronises); evaluation uses the
        # plain one.
        self.wrapped, self.optimizer = self.fabric.setup(model, optimizer)

    def _train_epoch(self, augment: Augment, loaded: LoadedSplit, epoch: int) -> float:
        """One pass over the captions; the mean loss. All random numbers follow from seed and epoch,
        also resumed."""
        config = self.config
        seeds = np.random.SeedSequence((config.seed, epoch)).generate_state(1)
        seed_everything(int(seeds[0]), verbose=False)
        caption_images = torch.from_numpy(loaded.split.caption_images)
        identities = torch.from_numpy(loaded.split.caption_identities)

        order = list(batches(len(loaded.split), config.batch_size, config.seed, epoch))
        if not order:
            raise DataError(
                f"train of {config.dataset} holds fewer than two captions; add pairs to train on."
            )
        total = torch.zeros((), device=self.device)
        self.model.train()
        bar = tqdm(
            total=len(order),
            desc=f"epoch {epoch + 1}/{config.epochs}",
            leave=False,
            disable=self.hide_bar,
        )
        with bar, _out_of_memory_named(config, self.device):
            for captions in order:
                images = loaded.images[caption_images[captions]]  # from the mapped file
                if self.device == "cuda":
                    images = images.pin_memory()
                tokens = loaded.tokens[captions]
                loss = self._step(augment, images, tokens, identities[captions])
                total += loss * len(captions)
                bar.update()
        mean = total.item() / sum(len(captions) for captions in order)
        if not math.isfinite(mean):
            raise RunError(
                f"the loss of epoch {epoch + 1} is {mean} in {self.folder}; lower learning_rate "
                f"({config.learning_rate}) or use precision 'fp32', and train again."
            )
        return mean

    def _step(self, augment: Augment, images: Tensor, tokens: Tensor, identities: Tensor) -> Tensor:
        """One optimiser step on uint8 images (B, 3, H, W); the loss of its batch."""
        self.optimizer.zero_grad()
        augmented = augment(images.to(self.device, non_blocking=True))
        image_features, text_features = self.wrapped(augmented, tokens)
        loss = sdm_loss(
            image_features.float(),
            text_features.float(),
            identities.to(self.device),
            temperature=self.config.temperature,
        )
        self.fabric.backward(loss)
        self.optimizer.step()
        return loss.detach()

    def _store(self) -> None:
        stored = {
            **vars(self.state),
            "model": self.model.trainable_state(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "elapsed": time.monotonic() - self.start,
        }

        def save(path: Path) -> None:
            torch.save(stored, path)

        write_atomically(self.folder / STATE, save)

    def _resume(self) -> None:
        path = self.folder / STATE
        if not path.is_file():
            return
        try:
            stored = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # torch raises several kinds for a damaged file
            raise RunError(
                f"{path} cannot be read ({type(error).__name__}); delete it to start the run anew."
            ) from error
        self.check_inputs(stored["inputs"])
        if stored["precision"] != self.precision:
            raise RunError(
                f"{self.folder} was begun in {stored['precision']} and would go on in "
                f"{self.precision}; continue it where it was begun, or ask to overwrite it."
            )
        self.model.load_trainable_state(stored.pop("model"))
        self.optimizer.load_state_dict(stored.pop("optimizer"))
        self.schedule.load_state_dict(stored.pop("schedule"))
        self.start -= stored.pop("elapsed")
        self.state = TrainingState(**stored)

    def _finish(self) -> Run:
        """Evaluate the chosen epoch and the bare backbone, write the record: the run is
        finished."""
        model = build_model(self.config).to(self.device)  # its frozen weights uncast
        model.load_trainable_state(self.state.kept_model)
        self.model = model
        kept, queries = self.evaluator.at_the_end(model)
        bare = kept
        if model.num_trainable:
            zero_shot = dataclasses.replace(self.config, method="zero-shot")
            bare, _ = self.evaluator.at_the_end(build_model(zero_shot).to(self.device))
        write_model(self.folder, self.state.kept_model)
        write_history(self.folder, self.state.history)
        write_queries(self.folder, queries)
        write_json(self.folder / METRICS, self._record(kept, bare))
        (self.folder / STATE).unlink(missing_ok=True)
        return Run.load(self.folder)

    def _record(self, kept: SplitMetrics, bare: SplitMetrics) -> dict[str, Any]:
        """The contents of metrics.json: ``kept`` are the figures of the chosen epoch, ``bare`` of
        the backbone."""
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
            **environment(self.device),
            "precision": self.precision,
            "started": self.state.started,
            "duration_s": round(time.monotonic() - self.start, 3),
            "trainable_parameters": self.model.num_trainable,
            "total_parameters": self.model.num_total,
            "noise": self.noise,
            "history": [_without_times(row) for row in self.state.history],
            "metrics": kept["test"],
            "selected": selected,
            "val_metrics": kept["val"],
            "zero_shot": bare["test"],
            "zero_shot_val": bare["val"],
            "notes": list(self.dataset.notes),
        }


@contextlib.contextmanager
def _out_of_memory_named(config: TrainConfig, device: str) -> Iterator[None]:
    """Within the block, too little memory is a :class:`ResourceError` that says what to lower."""
    try:
        yield
    except RuntimeError as error:
        on_processor = "can't allocate memory" in str(error)
        if not isinstance(error, torch.OutOfMemoryError) and not on_processor:
            raise
        advice = "lower batch_size or image_size"
        if not config.checkpointing:
            advice = "lower batch_size or image_size, or set checkpointing True"
        raise ResourceError(
            f"batch_size {config.batch_size} does not fit into the memory of {device}; {advice}."
        ) from None


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
