"""The processes ("ranks") that train one model together, each on a device of its own, on Lightning
Fabric. With one process every method is the identity, so that the callers know one case only."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar, cast

import torch
import torch.nn.functional as F
from lightning_fabric import Fabric
from lightning_fabric.loggers.logger import Logger
from lightning_fabric.loggers.tensorboard import TensorBoardLogger
from torch import Tensor, nn

from cskt.config import TrainConfig
from cskt.errors import ConfigurationError, CSKTError
from cskt.extras import extra

Answer = TypeVar("Answer")


class Ranks:
    """What the processes of one training do together.

    Every method must be called by all of them, in the same order.
    """

    def __init__(self, fabric: Fabric | None = None) -> None:
        self.fabric = fabric
        self.rank = 0 if fabric is None else fabric.global_rank
        self.count = 1 if fabric is None else fabric.world_size

    @property
    def first(self) -> bool:
        """Whether this is the process that writes files and shows progress."""
        return self.rank == 0

    def sizes(self, total: int) -> list[int]:
        """How many of ``total`` rows each rank takes: equal to within one, the larger ones
        first; none where there are fewer rows than ranks."""
        least, larger = divmod(total, self.count)
        return [least + 1 if rank < larger else least for rank in range(self.count)]

    def share(self, total: int) -> slice:
        """This rank's rows of ``total``."""
        sizes = self.sizes(total)
        start = sum(sizes[: self.rank])
        return slice(start, start + sizes[self.rank])

    def gather(self, rows: Tensor, total: int) -> Tensor:
        """The rows (total, ...) of all ranks in order, of which this one has its :meth:`share`;
        constants, through which no gradient flows."""
        if self.fabric is None or self.count == 1:
            return rows
        sizes = self.sizes(total)
        # Collectives want equal shapes: the shorter shares are filled up, and cut again.
        filling = [0, 0] * (rows.ndim - 1) + [0, sizes[0] - len(rows)]
        equal = F.pad(rows.detach(), filling)
        gathered = cast("Tensor", self.fabric.all_gather(equal))
        parts = [gathered[rank, :size] for rank, size in enumerate(sizes)]
        return torch.cat(parts)

    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Add up the gradients of all ranks, which then hold the same; a missing one counts as
        zero."""
        if self.fabric is None or self.count == 1:
            return
        for parameter in parameters:
            if parameter.requires_grad:
                gradient = parameter.grad
                if gradient is None:  # of a rank without a row
                    gradient = torch.zeros_like(parameter)
                parameter.grad = self._sum(gradient)

    def any(self, value: bool) -> bool:
        """Whether ``value`` is true on at least one rank."""
        if self.fabric is None or self.count == 1:
            return value
        return bool(self._sum(torch.tensor(float(value))) > 0)

    def _sum(self, values: Tensor) -> Tensor:
        """The sum over all ranks."""
        assert self.fabric is not None
        return cast("Tensor", self.fabric.all_reduce(values, reduce_op="sum"))

    def ask_first(self, question: Callable[[], Answer]) -> Answer:
        """What ``question()`` returns or raises on the first rank, on every rank."""
        if self.fabric is None or self.count == 1:
            return question()
        said: Answer | CSKTError | None = None
        if self.first:
            try:
                said = question()
            except CSKTError as error:
                said = error
        said = self.fabric.broadcast(said)
        if isinstance(said, CSKTError):
            raise said
        return cast("Answer", said)


def launched(config: TrainConfig, device: str, precision: str, folder: Path) -> Fabric:
    """Fabric with its processes running: those that ``torchrun`` or ``fabric run`` started, else
    ``config.devices`` processes on this machine, started here.

    ``device`` "cpu" or "cuda"; ``precision`` "fp32" or "bf16"; logs go to ``folder``. Under
    ``torchrun`` its own numbers count, and ``config.devices`` and ``nodes`` may stay at 1. Raises
    :class:`cskt.errors.ConfigurationError` where they contradict it.
    """
    devices = config.devices
    nodes = config.nodes
    strategy = config.strategy
    local = int(os.environ.get("LOCAL_WORLD_SIZE", 0))
    if local:  # torchrun
        world = int(os.environ["WORLD_SIZE"])
        if devices not in (1, local):
            raise ConfigurationError(
                f"devices is {devices}, but torchrun started {local} processes on this machine; "
                "leave devices out or give the same number."
            )
        devices = local
        nodes = world // local
    if strategy == "auto" and devices * nodes > 1:
        strategy = "ddp"
    fabric = Fabric(
        accelerator=device,
        devices=devices,
        num_nodes=nodes,
        strategy=strategy,
        precision="bf16-mixed" if precision == "bf16" else "32-true",
        loggers=_tensorboard(folder) if config.tensorboard else None,
    )
    if os.environ.get("LT_CLI_USED") != "1":  # "fabric run" has launched already
        fabric.launch()
    return fabric


def _tensorboard(folder: Path) -> Logger:
    """A logger that writes into the run's folder; without the package a sentence that names it."""
    with extra("log"):
        importlib.import_module("tensorboard")
    return TensorBoardLogger(folder.parent, name=folder.name, version="tensorboard")
