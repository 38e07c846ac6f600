"""The training loop on Lightning Fabric: schedule, evaluation after every epoch, the kept epoch,
resume, the record.

A run folder is finished when it holds ``metrics.json``, which is written last. Until then
``state.pt`` holds all that is needed to continue after the last finished epoch. Every file is
replaced atomically.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import yaml
from filelock import FileLock
from lightning_fabric import Fabric, seed_everything
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR
from tqdm.auto import tqdm

from cskt import evaluation, files, numerics
from cskt.config import TrainConfig
from cskt.data.benchmarks import PersonRetrievalDataset, load_dataset, subset
from cskt.data.pipeline import Augment, batches, prefetch
from cskt.errors import CSKTError
from cskt.evaluation import (
    ADAPTER,
    CONFIG,
    HISTORY,
    MEASURES,
    METRICS,
    QUERIES,
    LoadedSplit,
    Run,
    evaluate,
    run_name,
)
from cskt.files import write_atomically
from cskt.losses import sdm_loss
from cskt.metrics import Metrics
from cskt.model.towers import checkpointed, run_layer

STATE = "state.pt"
SELECTIONS = ("val", "test", "last")  # the rules by which an epoch may be chosen
OnEpoch = Callable[[dict[str, Any]], None] | None


def parameter_groups(
    named: Iterable[tuple[str, nn.Parameter]], config: TrainConfig
) -> list[dict[str, Any]]:
    """The optimiser's groups as released: weights (prompts and ln_3 too), then biases at
    ``bias_factor``, no decay."""
    trained = [(name, parameter) for name, parameter in named if parameter.requires_grad]
    return [
        dict(
            params=[parameter for name, parameter in trained if name.endswith("bias") == bias],
            lr=config.learning_rate * (config.bias_factor if bias else 1),
            weight_decay=0.0 if bias else config.weight_decay,
        )
        for bias in (False, True)
    ]


def schedule_factor(epoch: int, epochs: int, warmup_epochs: int) -> float:
    """Factor on the learning rates during ``epoch`` (from 0): 0.1 -> 1 linearly over the warm-up,
    then cosine to 0."""
    if epoch < warmup_epochs:
        return 0.1 + 0.9 * epoch / warmup_epochs
    return 0.5 * (1 + math.cos(math.pi * (epoch - warmup_epochs) / max(1, epochs - warmup_epochs)))


def make_optimizer(model: nn.Module, config: TrainConfig) -> tuple[torch.optim.Optimizer, LambdaLR]:
    """Adam (coupled L2, as released) or AdamW over the trained tensors, and its per-epoch
    schedule."""
    kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[config.optimizer]
    optimizer = kind(
        parameter_groups(model.named_parameters(), config), betas=(0.9, 0.999), eps=config.adam_eps
    )
    return optimizer, LambdaLR(
        optimizer, lambda epoch: schedule_factor(epoch, config.epochs, config.warmup_epochs)
    )


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
    the global generators of python, numpy and torch. Raises :class:`CSKTError` for a folder with
    anything else in it, for data or weights that changed since, and for a loss that diverged.
    """
    folder = Path(config.output or f"runs/{run_name(config)}")
    trainer = _Trainer(config, folder, load_dataset(config.dataset, config.data_root))
    # Two notebooks may ask for one run at a time: the second waits here and then finds it finished.
    with FileLock(files.make_folder(folder.parent) / f".{folder.name}.lock"):
        _check_folder(folder, config, overwrite)
        if overwrite or not (folder / METRICS).is_file():
            return trainer.run(on_epoch, overwrite, progress)
        run = Run.load(folder)
        trainer.check_inputs(run.metrics)
        return run


def _check_folder(folder: Path, config: TrainConfig, overwrite: bool) -> None:
    if folder.exists() and not folder.is_dir():
        raise CSKTError(f"{folder} is a file; give another output folder.")
    if not (folder / CONFIG).is_file():
        if any(folder.glob("[!.]*")):
            raise CSKTError(
                f"{folder} holds files but no run ({CONFIG} is missing); give another output folder."
            )
    elif not overwrite:
        held, asked = evaluation.read_config(folder / CONFIG).to_dict(), config.to_dict()
        # Where the data lie may change; what they are is checked by their fingerprint.
        if fields := [
            name
            for name in asked
            if name not in ("output", "data_root") and held[name] != asked[name]
        ]:
            raise CSKTError(
                f"{folder} holds a run with other settings ({', '.join(fields)}); give another output "
                "folder or ask to overwrite it."
            )


def _out_of_memory(error: RuntimeError) -> bool:
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


class _Trainer:
    """One run in its folder.

    ``state`` is what is stored after every epoch: ``chosen`` has what each rule of
    :data:`SELECTIONS` would keep so far (epoch, score, metrics on test), ``kept_model`` the tensors
    of the epoch chosen by the configuration's rule.
    """

    def __init__(self, config: TrainConfig, folder: Path, dataset: PersonRetrievalDataset) -> None:
        self.config, self.folder, self.dataset, self.start = (
            config,
            folder,
            dataset,
            time.monotonic(),
        )
        self.device = numerics.resolve_device(config.device)
        self.precision = numerics.resolve_precision(config.precision, self.device)
        weights = evaluation.weights_fingerprint(config)
        self.inputs = dict(data_fingerprint=dataset.fingerprint, weights_fingerprint=weights)
        self.state: dict[str, Any] = dict(
            epoch=0,
            chosen={},
            kept_model={},
            history=[],
            inputs=self.inputs,
            precision=self.precision,
            started=datetime.now(UTC).isoformat(timespec="seconds"),
        )

    def check_inputs(self, held: dict[str, Any]) -> None:
        for name, value in self.inputs.items():
            if held.get(name) != value:
                raise CSKTError(
                    f"{self.folder} was made with {name} {held.get(name)} but it is now {value}; restore "
                    "those inputs, delete the folder, or ask to overwrite it."
                )

    def run(self, on_epoch: OnEpoch, overwrite: bool, progress: bool | None) -> Run:
        # Before anything is written: a bad backbone leaves no folder behind.
        self.model = evaluation.build_model(self.config).to(self.device)
        self.folder.mkdir(exist_ok=True)
        for name in (METRICS, STATE, ADAPTER, HISTORY, QUERIES) if overwrite else ():
            (self.folder / name).unlink(
                missing_ok=True
            )  # METRICS first: from here on nothing is trusted
        write_atomically(
            self.folder / CONFIG, yaml.safe_dump(self.config.to_dict(), sort_keys=False)
        )
        if self.model.num_trainable:
            self._fit(on_epoch, None if progress is None else not progress)
        return self._finish()

    def _fit(self, on_epoch: OnEpoch, hidden: bool | None) -> None:
        config, dataset, model = self.config, self.dataset, self.model
        precision = "bf16-mixed" if self.precision == "bf16" else "32-true"
        self.fabric = Fabric(accelerator=self.device, devices=1, precision=precision)
        optimizer, schedule = make_optimizer(model, config)
        if self.precision == "bf16":
            model.cast_frozen(torch.bfloat16)
        if config.checkpointing:
            model.steps = dict.fromkeys(model.steps, checkpointed)
        elif config.compile:
            model.steps["vision"] = torch.compile(run_layer, dynamic=False)
        # The wrapped module casts (and, in a distributed run, synchronises); evaluation uses the
        # plain one.
        self.wrapped, self.optimizer = self.fabric.setup(model, optimizer)
        self._resume(schedule)
        train = dataset.train
        if config.train_fraction < 1:
            train = subset(train, config.train_fraction, config.seed)
        data = evaluation.load_split(model, train)
        augment = Augment(
            config.image_size, flip=config.flip, pad=config.pad, erasing=config.erasing
        ).to(self.device)
        for epoch in range(self.state["epoch"], config.epochs):
            begin, rate = time.monotonic(), schedule.get_last_lr()[0]
            loss = self._epoch(augment, data, epoch, hidden)
            schedule.step()
            ranked = self._evaluate(model)
            row = dict(
                epoch=epoch + 1,
                lr=rate,
                loss=loss,
                **{
                    f"{split} {measure}": ranked[split]["text_to_image"][measure]
                    for split in ("val", "test")
                    for measure in MEASURES
                },
                seconds=round(time.monotonic() - begin, 3),
                **model.prompts.spectrum(),
            )
            tensors = model.trainable_state()
            if config.selection in self._choose(epoch + 1, ranked):
                self.state["kept_model"] = {
                    name: tensor.detach().cpu().clone().contiguous()
                    for name, tensor in tensors.items()
                }
            self.state.update(epoch=epoch + 1, history=[*self.state["history"], row])
            stored = dict(
                self.state,
                model=tensors,
                optimizer=self.optimizer.state_dict(),
                schedule=schedule.state_dict(),
                elapsed=time.monotonic() - self.start,
            )
            write_atomically(self.folder / STATE, functools.partial(torch.save, stored))
            if on_epoch is not None:
                on_epoch(dict(row))

    @functools.cached_property
    def _splits(self) -> dict[str, LoadedSplit]:
        """val and test, loaded once; the same one twice where test stands in for val."""
        dataset = self.dataset
        test = evaluation.load_split(self.model, dataset.test)
        if dataset.val is dataset.test:
            return {"val": test, "test": test}
        return {"val": evaluation.load_split(self.model, dataset.val), "test": test}

    def _evaluate(self, model: nn.Module) -> dict[str, dict[str, Metrics]]:
        """Both directions on val and on test, without intervals."""
        splits = self._splits
        test = evaluate(model, splits["test"], precision=self.precision, resamples=0)
        if splits["val"] is splits["test"]:
            return {"val": test, "test": test}
        return {
            "val": evaluate(model, splits["val"], precision=self.precision, resamples=0),
            "test": test,
        }

    def _choose(self, epoch: int, ranked: dict[str, dict[str, Metrics]]) -> list[str]:
        """Note ``epoch`` under every rule of :data:`SELECTIONS` that prefers it to the ones before;
        those rules."""
        chosen, preferring = self.state["chosen"], []
        for rule in SELECTIONS:
            score = (epoch,)
            if rule != "last":
                measured = ranked[rule]["text_to_image"]
                score = measured["R@1"], measured["mAP"]
            if rule not in chosen or score > chosen[rule]["score"]:
                chosen[rule] = {
                    "epoch": epoch,
                    "score": score,
                    "metrics": _measures(ranked["test"]),
                }
                preferring.append(rule)
        return preferring

    def _resume(self, schedule: LambdaLR) -> None:
        path = self.folder / STATE
        if not path.is_file():
            return
        try:
            self.state = stored = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # torch raises several kinds for a damaged file
            reason = type(error).__name__
            raise CSKTError(
                f"{path} cannot be read ({reason}); delete it to start the run anew."
            ) from error
        self.check_inputs(stored["inputs"])
        if (held := stored.get("precision")) != self.precision:
            raise CSKTError(
                f"{self.folder} was begun in {held or 'an unknown precision'} and would go on in "
                f"{self.precision}; continue it where it was begun, or ask to overwrite it."
            )
        self.model.load_trainable_state(stored.pop("model"))
        self.optimizer.load_state_dict(stored.pop("optimizer"))
        schedule.load_state_dict(stored.pop("schedule"))
        self.start -= stored["elapsed"]

    def _epoch(self, augment: Augment, data: LoadedSplit, epoch: int, hidden: bool | None) -> float:
        """One pass over the captions; the mean loss. All random numbers follow from seed and epoch,
        also resumed."""
        config = self.config
        seed_everything(
            int(np.random.SeedSequence((config.seed, epoch)).generate_state(1)[0]), verbose=False
        )
        caption_images, identities = map(
            torch.from_numpy, (data.split.caption_images, data.split.caption_identities)
        )
        order = list(batches(len(data.split), config.batch_size, config.seed, epoch))
        if not order:
            raise CSKTError(
                f"train of {config.dataset} holds fewer than two captions; add pairs to train on."
            )
        total = torch.zeros((), device=self.device)
        self.model.train()

        def load(captions: Tensor) -> Tensor:
            images = data.images[caption_images[captions]]  # from the mapped file
            return images.pin_memory() if self.device == "cuda" else images

        bar = tqdm(
            total=len(order), desc=f"epoch {epoch + 1}/{config.epochs}", leave=False, disable=hidden
        )
        for captions, images in prefetch(load, order):
            batch = images, data.tokens[captions], identities[captions]
            try:
                loss = self._step(augment, *batch)
            except RuntimeError as error:
                if not _out_of_memory(error):
                    raise
                error.__traceback__ = None  # it holds what the step had computed
                raise CSKTError(self._memory_advice(augment, *batch)) from None
            total += loss * len(captions)
            bar.update()
        bar.close()
        mean = total.item() / sum(map(len, order))
        if not math.isfinite(mean):
            raise CSKTError(
                f"the loss of epoch {epoch + 1} is {mean} in {self.folder}; lower learning_rate "
                f"({config.learning_rate}) or use precision 'fp32', and train again."
            )
        return mean

    def _step(self, augment: Augment, images: Tensor, tokens: Tensor, identities: Tensor) -> Tensor:
        """One optimiser step on uint8 images; the loss of its batch."""
        self.optimizer.zero_grad()
        image_features, text_features = self.wrapped(
            augment(images.to(self.device, non_blocking=True)), tokens
        )
        loss = sdm_loss(
            image_features.float(),
            text_features.float(),
            identities.to(self.device),
            temperature=self.config.temperature,
        )
        self.fabric.backward(loss)
        self.optimizer.step()
        return loss.detach()

    def _memory_advice(self, augment: Augment, *batch: Tensor) -> str:
        """What to do about a batch that does not fit: the largest half, quarter, ... of it that
        does, by trying."""
        size, advice = len(batch[0]) // 2, ""
        while size >= 2 and not advice:
            self.optimizer.zero_grad()
            if self.device == "cuda":
                torch.cuda.empty_cache()
            # a whole step, since the optimiser's state counts too; the run ends here, so it may
            # change weights
            try:
                self._step(augment, *(part[:size] for part in batch))
                advice = f"use batch_size {size}, which fits"
            except RuntimeError as error:
                if not _out_of_memory(error):
                    raise
            size //= 2
        return (
            f"batch_size {len(batch[0])} does not fit into the memory of {self.device}; "
            f"{advice or 'not even 2 does: use smaller images or backbone'}"
            f"{'' if self.config.checkpointing else ', or checkpointing True'} (--set)."
        )

    def _measure(
        self, model: nn.Module
    ) -> tuple[dict[str, dict[str, Metrics]], dict[str, np.ndarray]]:
        """Both directions on val and on test, with intervals; and how each caption of test
        ranked."""
        splits = self._splits
        test, queries = evaluation.evaluate_queries(model, splits["test"], self.precision)
        if splits["val"] is splits["test"]:
            return {"val": test, "test": test}, queries
        return {
            "val": evaluate(model, splits["val"], precision=self.precision),
            "test": test,
        }, queries

    def _finish(self) -> Run:
        """Keep and evaluate the chosen epoch, evaluate the bare backbone, write the record: the run
        is finished."""
        config, folder, state = self.config, self.folder, self.state
        self.model = model = evaluation.build_model(config).to(
            self.device
        )  # its frozen weights uncast
        model.load_trainable_state(state["kept_model"])
        after, queries = self._measure(model)
        before = after
        if model.num_trainable:
            bare = evaluation.build_model(dataclasses.replace(config, method="zero-shot"))
            before = self._measure(bare.to(self.device))[0]
        chosen = state["chosen"] or dict.fromkeys(
            SELECTIONS, {"epoch": 0, "metrics": _measures(after["test"])}
        )
        selected = {
            rule: {"epoch": chosen[rule]["epoch"], "metrics": chosen[rule]["metrics"]}
            for rule in SELECTIONS
        }
        write_atomically(folder / ADAPTER, lambda path: save_file(state["kept_model"], path))
        table = pd.DataFrame(state["history"], columns=list(evaluation.HISTORY_TYPES))
        write_atomically(folder / HISTORY, table.to_csv(index=False))
        write_atomically(folder / QUERIES, functools.partial(_save_arrays, queries))
        files.write_json(
            folder / METRICS,
            dict(
                kind="train",
                dataset=self.dataset.name,
                synthetic=self.dataset.synthetic,
                **self.inputs,
                data_version=getattr(self.dataset, "version", None),
                split="test",
                selection=config.selection,
                best_epoch=selected[config.selection]["epoch"],
                seed=config.seed,
                method=config.method,
                config=config.to_dict(),
                **evaluation.environment(self.device),
                precision=self.precision,
                started=state["started"],
                duration_s=round(time.monotonic() - self.start, 3),
                trainable_parameters=model.num_trainable,
                total_parameters=model.num_total,
                history=[_outcome(row) for row in state["history"]],
                metrics=after["test"],
                selected=selected,
                val_metrics=after["val"],
                zero_shot=before["test"],
                zero_shot_val=before["val"],
                notes=list(self.dataset.notes),
            ),
        )
        (folder / STATE).unlink(missing_ok=True)
        return Run.load(folder)


def _measures(ranked: dict[str, Metrics]) -> dict[str, dict[str, float]]:
    """The five measures of both directions, without counts and intervals."""
    return {
        direction: {measure: metrics[measure] for measure in MEASURES}
        for direction, metrics in ranked.items()
    }


def _outcome(row: dict[str, Any]) -> dict[str, Any]:
    """A row of the history as the record holds it: what was measured, without how long it took."""
    return {name: row[name] for name in ("epoch", "lr", "loss", *evaluation.MEASURED)}


def _save_arrays(arrays: dict[str, np.ndarray], path: Path) -> None:
    with path.open("wb") as file:  # numpy would add .npz to a path
        np.savez_compressed(file, **arrays)
