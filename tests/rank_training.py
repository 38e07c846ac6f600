"""Two epochs of the tiny run in fp64, by as many processes as torchrun starts::

    torchrun --nproc-per-node N -m tests.rank_training TINY_DATA OUTPUT

writes OUTPUT/rank-R-MICRO.pt, the trained weights and losses of rank R. Imported, ``trained`` does
the same in this process.
"""

import os
import sys
from pathlib import Path

import open_clip
import torch
from lightning_fabric import Fabric

from cskt.data.datasets import load_dataset, subset
from cskt.epoch import EpochLoop
from cskt.evaluation import load_split
from cskt.optimizer import make_optimizer
from cskt.runs import build_model
from tests.tiny_runs import BACKBONE, tiny_config

MICRO_BATCH_SIZES = (None, 1, 2)


def trained(fabric: Fabric, data: Path, batch_size: int, micro_batch_size: int | None) -> dict:
    """Weights and mean losses after two epochs over 7 of the tiny set's 12 captions or so."""
    config = tiny_config(
        data, batch_size=batch_size, micro_batch_size=micro_batch_size, erasing=0.9, adam_eps=1e-3
    )
    split = subset(load_dataset(config.dataset, config.data_root).train, 0.6, seed=0)
    model = build_model(config)
    loaded = load_split(model, split)
    wrapped, optimizer = fabric.setup(model, make_optimizer(model, config)[0])
    loop = EpochLoop(config, fabric, wrapped, optimizer, loaded, hide_bar=True)
    losses = [loop.run(epoch, lambda: None) for epoch in range(2)]
    weights = {name: tensor.clone() for name, tensor in model.trainable_state().items()}
    return {"weights": weights, "losses": losses, "captions": len(split)}


def main() -> None:
    data = Path(sys.argv[1])
    output = Path(sys.argv[2])
    # Written by the test: processes that wrote it at once would read each other's halves.
    open_clip.add_model_config(data.parent / f"{BACKBONE}.json")
    world = int(os.environ["WORLD_SIZE"])
    fabric = Fabric(accelerator="cpu", devices=world, strategy="ddp", precision="64-true")
    fabric.launch()
    for micro_batch_size in MICRO_BATCH_SIZES:
        result = trained(fabric, data, 5, micro_batch_size)
        torch.save(result, output / f"rank-{fabric.global_rank}-{micro_batch_size}.pt")


if __name__ == "__main__":
    main()
