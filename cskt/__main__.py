"""The command line: ``python -m cskt train | evaluate | render | pretrain-mini`` (``--help`` shows the options)."""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from cskt.config import DATASETS, METHODS, MINI, CSKTError, TrainConfig

app = typer.Typer(help="Cross-modal person retrieval with CSKT.", no_args_is_help=True, add_completion=False,
                  pretty_exceptions_enable=False)
# The six switches that a method sets: they follow the method, not a file written for another one.
_SWITCHES = {switch for switches in METHODS.values() for switch in switches}

DataRoot = Annotated[Path | None, typer.Option(help="Folder of the data set, or its parent.")]
Dataset = Annotated[str | None, typer.Option(help=f"One of {', '.join(DATASETS)}.")]


def train_config(values: dict[str, Any], overrides: dict[str, Any]) -> TrainConfig:
    """The backbone's default setting with a file's ``values`` on top and the given (not None) ``overrides`` on top."""
    overrides = {name: value for name, value in overrides.items() if value is not None}
    backbone = overrides.get("backbone", values.get("backbone", MINI))
    base = TrainConfig.for_backbone(backbone).to_dict()
    method = values.get("cskt") or {}
    if not isinstance(method, dict):
        raise CSKTError(f"cskt must be a mapping of method settings, got {method!r}; correct the configuration file.")
    if overrides.get("method", values.get("method", "cskt")) != values.get("method", "cskt"):
        method = {name: value for name, value in method.items() if name not in _SWITCHES}
    return TrainConfig.from_dict({**base, **values, **overrides, "cskt": {**base["cskt"], **method}})


@app.command()
def train(
    config: Annotated[Path | None, typer.Option(help="Settings as yaml; the options below override it.")] = None,
    dataset: Dataset = None,
    data_root: DataRoot = None,
    backbone: Annotated[str | None, typer.Option(help=f"{MINI} (default) or an open_clip model name.")] = None,
    pretrained: Annotated[str | None, typer.Option(help="A tag such as openai, or a checkpoint file.")] = None,
    image_size: Annotated[tuple[int, int] | None, typer.Option(help="Height and width in pixels.")] = None,
    method: Annotated[str | None, typer.Option(help=f"One of {', '.join(METHODS)}.")] = None,
    seed: Annotated[int | None, typer.Option()] = None,
    epochs: Annotated[int | None, typer.Option()] = None,
    batch_size: Annotated[int | None, typer.Option()] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Of the weights; biases train faster.")] = None,
    selection_split: Annotated[str | None, typer.Option(help="val or test: where the best epoch is chosen.")] = None,
    precision: Annotated[str | None, typer.Option(help="auto, fp32 or bf16.")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu or cuda.")] = None,
    output: Annotated[Path | None, typer.Option(help="Run folder; default runs/<name>.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Start anew in a folder that holds a run.")] = False,
) -> None:
    """Train, or continue an interrupted run; keep the best epoch; evaluate it on test."""
    from cskt.evaluation import read_yaml
    from cskt.training import train as run_training

    overrides = dict(
        dataset=dataset, data_root=data_root and str(data_root), backbone=backbone, pretrained=pretrained,
        image_size=image_size, method=method, seed=seed, epochs=epochs, batch_size=batch_size,
        learning_rate=learning_rate, selection_split=selection_split, precision=precision, device=device,
        output=output and str(output))
    settings = train_config(read_yaml(config) if config else {}, overrides)
    run = run_training(settings, on_epoch=_echo_epoch, overwrite=overwrite)
    after, before = run.metrics["metrics"]["text_to_image"], run.metrics["zero_shot"]["text_to_image"]
    typer.echo(f"{run.folder}: test R@1 {after['R@1']:.2f} (zero-shot {before['R@1']:.2f}), mAP {after['mAP']:.2f}, "
               f"best epoch {run.metrics['best_epoch']}")


def _echo_epoch(row: dict[str, Any]) -> None:
    typer.echo(f"epoch {row['epoch']}: loss {row['loss']:.4f}, {row['split']} R@1 {row['R@1']:.2f}, "
               f"mAP {row['mAP']:.2f}, {row['seconds']:.0f} s")


@app.command()
def evaluate(
    run: Annotated[Path, typer.Argument(help="Folder of a finished run.")],
    split: Annotated[str, typer.Option(help="train, val or test.")] = "test",
    dataset: Annotated[str | None, typer.Option(help="Another data set than the run's.")] = None,
    data_root: DataRoot = None,
) -> None:
    """Evaluate a run's best checkpoint and print the metrics as json."""
    from cskt.data.benchmarks import load_dataset
    from cskt.evaluation import Run, resolve_device
    from cskt.evaluation import evaluate as run_evaluation

    if split not in ("train", "val", "test"):
        raise CSKTError(f"--split must be train, val or test, got {split!r}.")
    held = Run.load(run)
    name = dataset or held.config.dataset
    root = data_root or (held.config.data_root if name == held.config.dataset else None)
    data = load_dataset(name, root)
    model = held.load_model().to(resolve_device(held.config.device))
    metrics = run_evaluation(model, getattr(data, split), data.fingerprint, held.metrics["precision"])
    typer.echo(json.dumps({"run": str(run), "dataset": name, "split": split, "metrics": metrics}, indent=2))


@app.command()
def render(
    names: Annotated[list[str] | None, typer.Argument(help="SynthPEDES domains; default all three.")] = None,
    output: Annotated[Path | None, typer.Option(help="Parent folder; default the cache.")] = None,
) -> None:
    """Render SynthPEDES domains in their official layouts and print their folders."""
    from cskt.data.synthetic import synthetic_dataset

    known = [name for name in DATASETS if name.startswith("SynthPEDES")]
    unknown = sorted(set(names or ()) - set(known))
    if unknown:
        raise CSKTError(f"{', '.join(unknown)} cannot be rendered; choose from {', '.join(known)}.")
    for name in names or known:
        typer.echo(synthetic_dataset(name, output))


@app.command("pretrain-mini")
def pretrain_mini(
    samples: Annotated[int | None, typer.Option(help="Image-caption pairs seen in all.")] = None,
    images: Annotated[int | None, typer.Option(help="Images rendered for it.")] = None,
    output: Annotated[Path | None, typer.Option(help="Folder for the weights and the run file.")] = None,
    seed: Annotated[int | None, typer.Option()] = None,
    stop_after: Annotated[float | None, typer.Option(help="Seconds; a later call goes on from there.")] = None,
) -> None:
    """Pre-train the embedded cskt-mini backbone on the generic corpus; calling it again resumes."""
    from cskt.evaluation import environment
    from cskt.pretraining import pretrain_mini as run_pretraining

    options = dict(samples=samples, images=images, output=output, seed=seed, stop_after=stop_after)
    given = {name: value for name, value in options.items() if value is not None}
    typer.echo(run_pretraining(**given, environment=environment("cpu")))


def main() -> None:
    """Run the command line; bad input is one line on stderr and exit code 2."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    try:
        app(prog_name="cskt")
    except CSKTError as error:
        typer.echo(f"cskt: error: {error}", err=True)
        raise SystemExit(2) from None


if __name__ == "__main__":
    main()
