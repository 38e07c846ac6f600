"""One pass over the training captions, step by step, from wherever it stands."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric, seed_everything
from torch import Tensor, nn
from tqdm.auto import tqdm

from cskt.config import TrainConfig
from cskt.data.augment import Augment
from cskt.data.loading import batches
from cskt.errors import DataError, ResourceError, RunError
from cskt.evaluation import LoadedSplit
from cskt.files import write_json
from cskt.global_step import RandomState, Share, backward
from cskt.losses import sdm_loss
from cskt.numerics import upload
from cskt.ranks import Ranks

LOSS_SHOWN_EVERY = 10  # steps: reading a loss from a GPU waits for it
FILES_NAMED = 3  # of a batch, in a message
DIVERGED = "diverged.json"  # in a run folder


class EpochLoop:
    """The steps of an epoch. Order and augmentation follow from seed, epoch and step alone,
    whatever the number of processes; ``step`` are the steps that the running epoch has behind it.

    ``wrapped`` and ``optimizer`` are those that ``fabric.setup`` returned, ``loaded`` is the whole
    training split.
    """

    def __init__(
        self,
        config: TrainConfig,
        fabric: Fabric,
        wrapped: nn.Module,
        optimizer: Any,
        loaded: LoadedSplit,
        hide_bar: bool | None = None,
    ) -> None:
        self.config = config
        self.fabric = fabric
        self.ranks = Ranks(fabric)
        self.wrapped = wrapped
        self.optimizer = optimizer
        self.loaded = loaded
        self.hide_bar = hide_bar if self.ranks.first else True
        self.augment = Augment(
            config.image_size, flip=config.flip, pad=config.pad, erasing=config.erasing
        ).to(fabric.device)
        self.loss = functools.partial(sdm_loss, temperature=config.temperature)
        self.caption_images = torch.from_numpy(loaded.split.caption_images)
        self.identities = torch.from_numpy(loaded.split.caption_identities)
        self.generator = torch.Generator()  # of the augmentation
        self.step = 0
        self.total = torch.zeros((), device=fabric.device)
        self.losses: list[Tensor] = []  # of this process's steps in the running epoch

    def run(self, epoch: int, after_step: Callable[[], None], note: str = "") -> float:
        """What is left of ``epoch`` (from 0); its mean loss. ``after_step`` is called after each
        step and may raise, ``note`` stands in the progress bar."""
        order = self.order(epoch)
        if self.step == 0:
            self._begin(epoch)
        count = sum(len(captions) for captions in order)
        done = sum(len(captions) for captions in order[: self.step])
        bar = tqdm(
            total=count,
            initial=done,
            desc=f"epoch {epoch + 1}/{self.config.epochs}{note}",
            unit=" images",
            unit_scale=True,
            leave=False,
            disable=self.hide_bar,
        )
        self.wrapped.train()
        with bar, _out_of_memory_named(self.config, self.fabric.device.type):
            for captions in order[self.step :]:
                loss = self._step(captions)
                self.total += loss * len(captions)
                self.losses.append(loss)
                self.step += 1
                bar.update(len(captions))
                if not bar.disable and self.step % LOSS_SHOWN_EVERY == 0:
                    bar.set_postfix(loss=f"{loss.item():.3f}")
                after_step()
        mean = self.total.item() / count
        self.step = 0
        return mean

    def order(self, epoch: int) -> list[Tensor]:
        """The batches of ``epoch``: int64 caption indices."""
        config = self.config
        order = list(batches(len(self.loaded.split), config.batch_size, config.seed, epoch))
        if not order:
            raise DataError(
                f"train of {config.dataset} holds fewer than two captions; add pairs to train on."
            )
        return order

    def diverged(self, epoch: int) -> dict[str, Any] | None:
        """The first step since the last call whose loss is no finite number, with the files and
        captions of its batch; None where all are finite."""
        losses = torch.stack(self.losses).cpu() if self.losses else torch.zeros(0)
        behind = self.step or len(self.order(epoch))  # a finished epoch counts from 0 again
        first = behind - len(losses)
        self.losses = []
        unusable = torch.nonzero(~losses.isfinite())
        if not len(unusable):
            return None
        step = first + int(unusable[0])
        split = self.loaded.split
        captions = self.order(epoch)[step].tolist()
        images = split.caption_images[captions]
        return {
            "epoch": epoch + 1,
            "step": step + 1,
            "loss": str(losses[step - first].item()),
            "images": [str(split.image_paths[image]) for image in images],
            "captions": [split.captions[caption] for caption in captions],
        }

    def state(self) -> dict[str, Any]:
        """What :meth:`restore` needs to go on in the middle of an epoch."""
        random = RandomState()
        return {
            "step": self.step,
            "total": self.total,
            "augmentation": self.generator.get_state(),
            "cpu": random.cpu,
            "cuda": random.cuda,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on where :meth:`state` was taken."""
        self.step = state["step"]
        self.total = state["total"].to(self.fabric.device)
        self.generator.set_state(state["augmentation"])
        random = RandomState()
        random.cpu = state["cpu"]
        if len(state["cuda"]) == len(random.cuda):  # else another machine goes on
            random.cuda = state["cuda"]
        random.restore()

    def _begin(self, epoch: int) -> None:
        """All random numbers of an epoch follow from seed and epoch."""
        sequence = np.random.SeedSequence((self.config.seed, epoch))
        seed = int(sequence.generate_state(1)[0])
        seed_everything(seed, verbose=False)
        self.generator.manual_seed(seed)
        self.total = torch.zeros((), device=self.fabric.device)
        self.losses = []

    def _step(self, captions: Tensor) -> Tensor:
        """One optimiser step on the pairs of ``captions`` (B,), of which this process encodes its
        share; the loss of the whole batch."""
        device = self.fabric.device
        draws = self.augment.draw(len(captions), self.generator)
        rows = self.ranks.share(len(captions))
        own = captions[rows]
        images = self.loaded.images[self.caption_images[own]]  # from the mapped file
        if device.type == "cuda":
            images = images.pin_memory()
        augmented = self.augment(upload(images, device), draws.rows(rows))
        identities = upload(self.identities[captions], device)
        share = Share(augmented, self.loaded.tokens[own], identities)
        self.optimizer.zero_grad()
        loss = backward(self.fabric, self.wrapped, share, self.loss, self.config.micro_batch_size)
        self.optimizer.step()
        return loss


def refuse_diverged(folder: Path, report: dict[str, Any], config: TrainConfig) -> None:
    """Raise what :meth:`EpochLoop.diverged` found; all of its files go into :data:`DIVERGED`."""
    path = folder / DIVERGED
    write_json(path, report)
    names = ", ".join(report["images"][:FILES_NAMED])
    raise RunError(
        f"the loss of epoch {report['epoch']} is {report['loss']} in {folder}, at step "
        f"{report['step']} (images {names} ...; all in {path.name}); lower learning_rate "
        f"({config.learning_rate}) or use precision 'fp32', and train again."
    )


@contextlib.contextmanager
def _out_of_memory_named(config: TrainConfig, device: str) -> Iterator[None]:
    """Within the block, too little memory is a :class:`ResourceError` that says what to lower."""
    try:
        yield
    except RuntimeError as error:
        on_processor = "can't allocate memory" in str(error)
        if not isinstance(error, torch.OutOfMemoryError) and not on_processor:
            raise
        advice = "set micro_batch_size, or lower image_size"
        if config.micro_batch_size is not None:
            advice = "lower micro_batch_size or image_size"
        if not config.checkpointing:
            advice += ", or set checkpointing True"
        raise ResourceError(
            f"batch_size {config.batch_size} does not fit into the memory of {device}; {advice}."
        ) from None
