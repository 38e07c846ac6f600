"""The training loop on Lightning Fabric: schedule, validation, best checkpoint, resume and the record of the run.

A run folder is finished when, and only when, it holds ``metrics.json``, which is written last. Until then ``state.pt``
holds everything needed to continue after the last finished epoch. Every file is replaced atomically.
"""

from __future__ import annotations

import dataclasses
import datetime
import hashlib
import json
import logging
import math
import time
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
import yaml
from filelock import FileLock
from lightning_fabric import Fabric, seed_everything
from torch import nn
from torch.optim.lr_scheduler import LambdaLR
from tqdm.auto import tqdm

from cskt.config import CSKTError, TrainConfig
from cskt.data.benchmarks import PersonRetrievalDataset, load_dataset
from cskt.data.pipeline import Augment, batches
from cskt.evaluation import (
    ADAPTER,
    CONFIG,
    HISTORY,
    METRICS,
    STATE,
    LoadedSplit,
    Run,
    build_model,
    comparable,
    environment,
    evaluate,
    load_split,
    read_adapter,
    read_config,
    resolve_device,
    resolve_precision,
    weights_fingerprint,
    write_atomically,
    write_history,
    write_json,
)
from cskt.losses import sdm_loss

logger = logging.getLogger("cskt")


def parameter_groups(named: Iterable[tuple[str, nn.Parameter]], config: TrainConfig) -> list[dict[str, Any]]:
    """The optimiser's groups as released: weights (prompts and ln_3 too), then biases at ``bias_factor``, no decay."""
    weights, biases = [], []
    for name, parameter in named:
        if parameter.requires_grad:
            (biases if name.endswith("bias") else weights).append(parameter)
    return [
        dict(params=weights, lr=config.learning_rate, weight_decay=config.weight_decay),
        dict(params=biases, lr=config.learning_rate * config.bias_factor, weight_decay=0.0),
    ]


def schedule_factor(epoch: int, epochs: int, warmup_epochs: int) -> float:
    """Factor on the learning rates during ``epoch`` (from 0): 0.1 -> 1 linearly over the warm-up, then cosine to 0."""
    if epoch < warmup_epochs:
        return 0.1 + 0.9 * epoch / warmup_epochs
    return 0.5 * (1 + math.cos(math.pi * (epoch - warmup_epochs) / max(1, epochs - warmup_epochs)))


def make_optimizer(model: nn.Module, config: TrainConfig) -> tuple[torch.optim.Optimizer, LambdaLR]:
    """Adam (coupled L2, as released) or AdamW over the trained tensors, and its per-epoch schedule."""
    kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[config.optimizer]
    optimizer = kind(parameter_groups(model.named_parameters(), config), betas=(0.9, 0.999), eps=config.adam_eps)
    schedule = LambdaLR(optimizer, lambda epoch: schedule_factor(epoch, config.epochs, config.warmup_epochs))
    return optimizer, schedule


def run_name(config: TrainConfig) -> str:
    """``dataset-method-seedN-xxxxxxxx``, the last part being a digest of everything that decides the result."""
    digest = hashlib.sha256(json.dumps(comparable(config), sort_keys=True).encode()).hexdigest()
    return f"{config.dataset}-{config.method}-seed{config.seed}-{digest[:8]}"


def run_folder(config: TrainConfig) -> Path:
    """``config.output``, else ``runs/<run_name>`` in the working directory."""
    return Path(config.output) if config.output else Path("runs") / run_name(config)


def train(config: TrainConfig, on_epoch: Callable[[dict[str, Any]], None] | None = None, overwrite: bool = False,
          progress: bool | None = None) -> Run:
    """Train as ``config`` says, keep the best epoch on ``selection_split``, evaluate it on test; return the run.

    A finished run of the same configuration is returned as it is and an interrupted one continues after its last
    finished epoch, to the same result; ``overwrite`` starts anew. ``on_epoch`` gets each epoch's row of the history
    after it is safely stored. ``progress`` shows a bar per epoch (None: on a terminal only). Seeds the global
    generators of python, numpy and torch. Raises :class:`CSKTError` for a folder with anything else in it, for data or
    backbone weights that changed since, and for a loss that diverged.
    """
    folder = run_folder(config)
    _check_folder(folder, config, overwrite)
    device = resolve_device(config.device)
    dataset = load_dataset(config.dataset, config.data_root)
    inputs = {"data_fingerprint": dataset.fingerprint, "weights_fingerprint": weights_fingerprint(config)}
    # Two notebooks may ask for one run at a time: the second waits here and then finds it finished.
    with _locked(folder):
        _check_folder(folder, config, overwrite)
        if (folder / METRICS).is_file() and not overwrite:
            run = Run.load(folder)
            _check_inputs(folder, run.metrics, inputs)
            return run
        return _Trainer(config, folder, dataset, inputs, device, overwrite).run(on_epoch, progress)


def _locked(folder: Path) -> AbstractContextManager:
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        return FileLock(folder.parent / f".{folder.name}.lock").acquire()
    except OSError as error:
        raise CSKTError(f"{folder} cannot be written ({error}); give another output folder.") from error


def _check_folder(folder: Path, config: TrainConfig, overwrite: bool) -> None:
    if not folder.exists():
        return
    if not folder.is_dir():
        raise CSKTError(f"{folder} is a file; give another output folder.")
    if (folder / CONFIG).is_file():
        held = comparable(read_config(folder / CONFIG))
        fields = [name for name, value in comparable(config).items() if held[name] != value]
        if fields and not overwrite:
            raise CSKTError(f"{folder} holds a run with other settings ({', '.join(fields)}); give another output "
                            "folder or ask to overwrite it.")
    elif any(not entry.name.startswith(".") for entry in folder.iterdir()):
        raise CSKTError(f"{folder} holds files but no run ({CONFIG} is missing); give another output folder.")


def _check_inputs(folder: Path, held: dict[str, Any], inputs: dict[str, str]) -> None:
    for name, value in inputs.items():
        if held.get(name) != value:
            raise CSKTError(f"{folder} was made with {name} {held.get(name)} but it is now {value}; restore those "
                            "inputs, delete the folder, or ask to overwrite it.")


class _Trainer:
    """One run in its folder. ``state`` is what is stored after every epoch, as plain data and tensors."""

    def __init__(self, config: TrainConfig, folder: Path, dataset: PersonRetrievalDataset, inputs: dict[str, str],
                 device: str, overwrite: bool) -> None:
        self.config, self.folder, self.dataset, self.inputs, self.device = config, folder, dataset, inputs, device
        self.precision = resolve_precision(config.precision, device)
        self.session_start = time.monotonic()
        self.state: dict[str, Any] = dict(
            epoch=0, best_epoch=0, best=None, history=[], elapsed=0.0, inputs=inputs,
            started=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"))
        self.model = build_model(config)  # before anything is written: a bad backbone leaves no folder behind
        folder.mkdir(exist_ok=True)
        if overwrite:
            for name in (METRICS, STATE, ADAPTER, HISTORY):  # METRICS first: from here on nothing is trusted
                (folder / name).unlink(missing_ok=True)
        write_atomically(folder / CONFIG, yaml.safe_dump(config.to_dict(), sort_keys=False))

    def run(self, on_epoch: Callable[[dict[str, Any]], None] | None, progress: bool | None) -> Run:
        config, model = self.config, self.model
        logger.info("%s: %s on %s, %s, %s, seed %d", self.folder, config.method, config.dataset, self.device,
                    self.precision, config.seed)
        if model.num_trainable == 0:
            model.to(self.device)
            return self._finish(None)
        fabric = Fabric(accelerator=self.device, devices=1,
                        precision="bf16-mixed" if self.precision == "bf16" else "32-true")
        optimizer, schedule = make_optimizer(model, config)
        # The wrapped module casts (and, in a distributed run, synchronises); evaluation uses the plain one.
        wrapped, optimizer = fabric.setup(model, optimizer)
        self._resume(optimizer, schedule)
        data = load_split(model, self.dataset.train, self.dataset.fingerprint)
        selection = load_split(model, getattr(self.dataset, config.selection_split), self.dataset.fingerprint)
        augment = Augment(config.image_size, flip=config.flip, pad=config.pad, erasing=config.erasing).to(self.device)
        for epoch in range(self.state["epoch"], config.epochs):
            begin = time.monotonic()
            rate = schedule.get_last_lr()[0]
            loss = self._epoch(fabric, wrapped, optimizer, augment, data, epoch, progress)
            schedule.step()
            metrics = evaluate(model, selection, precision=self.precision)
            ranked = metrics["text_to_image"]
            row = dict(epoch=epoch + 1, lr=rate, loss=loss, split=config.selection_split,
                       **{name: ranked[name] for name in ("R@1", "R@5", "R@10", "mAP")},
                       seconds=round(time.monotonic() - begin, 3))
            self._store(row, metrics, optimizer, schedule)
            if on_epoch is not None:
                on_epoch(dict(row))
        model.load_trainable_state(read_adapter(self.folder / ADAPTER))
        return self._finish(selection)

    def _epoch(self, fabric: Fabric, wrapped: nn.Module, optimizer: torch.optim.Optimizer, augment: Augment,
               data: LoadedSplit, epoch: int, progress: bool | None) -> float:
        """One pass over the captions; the mean loss. Its random numbers depend on the seed and the epoch alone, so
        that a resumed run sees the same ones."""
        config = self.config
        seed_everything(int(np.random.SeedSequence((config.seed, epoch)).generate_state(1)[0]), verbose=False)
        caption_images = torch.from_numpy(data.split.caption_images)
        identities = torch.from_numpy(data.split.caption_identities)
        order = list(batches(len(data.split), config.batch_size, config.seed, epoch))
        if not order:
            raise CSKTError(f"train of {config.dataset} holds fewer than two captions; add pairs to train on.")
        total, count = torch.zeros((), device=self.device), 0
        self.model.train()
        hidden = None if progress is None else not progress
        for captions in tqdm(order, f"epoch {epoch + 1}/{config.epochs}", leave=False, disable=hidden):
            images = augment(data.images[caption_images[captions]].to(self.device))
            image_features, text_features = wrapped(images, data.tokens[captions].to(self.device))
            loss = sdm_loss(image_features.float(), text_features.float(), identities[captions].to(self.device),
                            temperature=config.temperature)
            optimizer.zero_grad()
            fabric.backward(loss)
            optimizer.step()
            total += loss.detach() * len(captions)
            count += len(captions)
        mean = total.item() / count
        if not math.isfinite(mean):
            raise CSKTError(f"the loss of epoch {epoch + 1} is {mean} in {self.folder}; lower learning_rate "
                            f"({config.learning_rate}) or use precision 'fp32', and train again.")
        return mean

    def _store(self, row: dict[str, Any], metrics: dict[str, Any], optimizer, schedule) -> None:
        state = self.state
        key = (row["R@1"], row["mAP"])
        best = state["best"]
        better = best is None or key > (best["text_to_image"]["R@1"], best["text_to_image"]["mAP"])
        if better:
            state.update(best_epoch=row["epoch"], best=metrics)
        state.update(epoch=row["epoch"], history=[*state["history"], row], elapsed=self._elapsed())
        self.session_start = time.monotonic()
        tensors = dict(model=self.model.trainable_state(), optimizer=optimizer.state_dict(),
                       schedule=schedule.state_dict())
        # The state goes first: if the process ends between the two, resuming makes the checkpoint again from it.
        write_atomically(self.folder / STATE, lambda path: torch.save({**state, **tensors}, path))
        if better:
            self._write_adapter()
        write_history(self.folder / HISTORY, state["history"])

    def _resume(self, optimizer, schedule) -> None:
        path = self.folder / STATE
        if not path.is_file():
            return
        try:
            stored = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # torch raises several kinds for a damaged file
            reason = type(error).__name__
            raise CSKTError(f"{path} cannot be read ({reason}); delete it to start the run anew.") from error
        _check_inputs(self.folder, stored["inputs"], self.inputs)
        self.model.load_trainable_state(stored.pop("model"))
        optimizer.load_state_dict(stored.pop("optimizer"))
        schedule.load_state_dict(stored.pop("schedule"))
        self.state = stored
        if self.state["best_epoch"] == self.state["epoch"]:
            self._write_adapter()
        logger.info("%s: continuing after epoch %d", self.folder, self.state["epoch"])

    def _write_adapter(self) -> None:
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in self.model.trainable_state().items()}
        write_atomically(self.folder / ADAPTER, lambda path: safetensors.torch.save_file(tensors, path))

    def _elapsed(self) -> float:
        return self.state["elapsed"] + time.monotonic() - self.session_start

    def _finish(self, selection: LoadedSplit | None) -> Run:
        """Evaluate the best checkpoint and the bare backbone on test, and write the record: the run is finished."""
        config, dataset, state = self.config, self.dataset, self.state
        val = state["best"]
        if val is None or config.selection_split != "val":
            val = evaluate(self.model, dataset.val, dataset.fingerprint, self.precision)
        test = evaluate(self.model, dataset.test, dataset.fingerprint, self.precision)
        zero_shot = test
        if selection is None:
            self._write_adapter()
            write_history(self.folder / HISTORY, [])
        else:
            bare = build_model(dataclasses.replace(config, method="zero-shot")).to(self.device)
            zero_shot = evaluate(bare, dataset.test, dataset.fingerprint, self.precision)
        record = dict(
            kind="train", dataset=dataset.name, synthetic=dataset.synthetic, **self.inputs, split="test",
            selection_split=config.selection_split, best_epoch=state["best_epoch"], seed=config.seed,
            method=config.method, config=config.to_dict(), **environment(self.device), precision=self.precision,
            started=state["started"], duration_s=round(self._elapsed(), 3),
            trainable_parameters=self.model.num_trainable, total_parameters=self.model.num_total,
            metrics=test, val_metrics=val, zero_shot=zero_shot, notes=list(dataset.notes))
        write_json(self.folder / METRICS, record)
        (self.folder / STATE).unlink(missing_ok=True)
        return Run.load(self.folder)
