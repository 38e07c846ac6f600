"""The released solver: Adam with biases at another rate, linear warm-up and then a cosine."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from cskt.config import TrainConfig

OPTIMIZERS: dict[str, Any] = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}


def make_optimizer(model: nn.Module, config: TrainConfig) -> tuple[torch.optim.Optimizer, LambdaLR]:
    """Adam (coupled L2, as released) or AdamW over the trained tensors, and its per-epoch
    schedule."""

    def factor(epoch: int) -> float:
        return schedule_factor(epoch, config.epochs, config.warmup_epochs)

    optimizer = OPTIMIZERS[config.optimizer](
        parameter_groups(model.named_parameters(), config),
        betas=(0.9, 0.999),
        eps=config.adam_eps,
    )
    return optimizer, LambdaLR(optimizer, factor)


def parameter_groups(
    named_parameters: Iterable[tuple[str, nn.Parameter]], config: TrainConfig
) -> list[dict[str, Any]]:
    """The optimiser's groups as released: weights (prompts and ln_3 too), then biases at
    ``bias_factor``, no decay."""
    weights = []
    biases = []
    for name, parameter in named_parameters:
        if not parameter.requires_grad:
            continue
        if name.endswith("bias"):
            biases.append(parameter)
        else:
            weights.append(parameter)
    return [
        {"params": weights, "lr": config.learning_rate, "weight_decay": config.weight_decay},
        {
            "params": biases,
            "lr": config.learning_rate * config.bias_factor,
            "weight_decay": 0.0,
        },
    ]


def schedule_factor(epoch: int, epochs: int, warmup_epochs: int) -> float:
    """Factor on the learning rates during ``epoch`` (from 0): 0.1 -> 1 linearly over the warm-up,
    then cosine to 0."""
    if epoch < warmup_epochs:
        return 0.1 + 0.9 * epoch / warmup_epochs
    angle = math.pi * (epoch - warmup_epochs) / max(1, epochs - warmup_epochs)
    return 0.5 * (1 + math.cos(angle))
