"""The command line: ``python -m cskt train | evaluate | reproduce | render | pretrain-mini`` (``--help``: options)."""

from __future__ import annotations

import ast
import json
import logging
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from typer import Option

from cskt import evaluation, pretraining, training
from cskt.config import DATASETS, METHODS, MINI, CSKTError, TrainConfig
from cskt.data import benchmarks, synthetic

app = typer.Typer(help="Cross-modal person retrieval with CSKT.", no_args_is_help=True, add_completion=False,
                  pretty_exceptions_enable=False)
SYNTHETIC = [name for name in DATASETS if name.startswith("SynthPEDES")]
DataRoot = Annotated[str | None, Option(help="Folder of the data set, or its parent.")]
Backbone = Annotated[str | None, Option(help=f"{MINI} (default) or an open_clip model name.")]
Pretrained = Annotated[str | None, Option(help="A tag such as openai, or a checkpoint file.")]
Settings = Annotated[list[str] | None, Option(
    "--set", metavar="NAME=VALUE", help="Any other setting, such as batch_size=64; repeatable.")]
# What belongs to a method: in a file it holds for the file's method, not for another one asked for.
OF_METHOD = {"learning_rate", *(switch for switches in METHODS.values() for switch in switches)}


def train_config(values: dict[str, Any], options: dict[str, Any], settings: list[str] | None = None) -> TrainConfig:
    """The backbone's and method's defaults; on top a file's ``values``, ``settings`` and not-None ``options``."""
    given = {}
    for name, equals, value in (setting.partition("=") for setting in settings or ()):
        if not equals:
            raise CSKTError(f"--set {name} must be --set NAME=VALUE, such as batch_size=64.")
        try:
            given[name] = ast.literal_eval(value)
        except (ValueError, SyntaxError):  # a word, as in selection_split=test
            given[name] = value
    given.update((name, value) for name, value in options.items() if value is not None)
    backbone, method = ({**values, **given}.get(name) for name in ("backbone", "method"))
    config = TrainConfig.for_backbone(backbone or MINI, method=method).to_dict()
    foreign = OF_METHOD if method != values.get("method", "cskt") and "method" in given else set()
    for layer, dropped in ((values, foreign), (given, set())):
        switches = layer.get("cskt") or {}
        if not isinstance(switches, dict):
            raise CSKTError(f"cskt must be a mapping of method settings, got {switches!r}; correct the configuration.")
        config["cskt"].update((name, value) for name, value in switches.items() if name not in dropped)
        config.update((name, value) for name, value in layer.items() if name not in {"cskt", *dropped})
    return TrainConfig.from_dict(config)


def _train(config: TrainConfig, overwrite: bool = False) -> evaluation.Run:
    """Train and say how it goes."""
    run = training.train(config, on_epoch=lambda row: typer.echo(
        f"epoch {row['epoch']}: loss {row['loss']:.4f}, {row['split']} R@1 {row['R@1']:.2f}, mAP {row['mAP']:.2f}, "
        f"{row['seconds']:.0f} s"), overwrite=overwrite)
    after, before = run.metrics["metrics"]["text_to_image"], run.metrics["zero_shot"]["text_to_image"]
    typer.echo(f"{run.folder}: test R@1 {after['R@1']:.2f} (zero-shot {before['R@1']:.2f}), mAP {after['mAP']:.2f}, "
               f"best epoch {run.metrics['best_epoch']}")
    return run


@app.command()
def train(
    context: typer.Context,
    config: Annotated[Path | None, Option(help="Settings as yaml; the options override it.")] = None,
    dataset: Annotated[str | None, Option(help=f"One of {', '.join(DATASETS)}.")] = None,
    data_root: DataRoot = None, backbone: Backbone = None, pretrained: Pretrained = None,
    method: Annotated[str | None, Option(help=f"One of {', '.join(METHODS)}.")] = None,
    seed: int | None = None, epochs: int | None = None,
    output: Annotated[str | None, Option(help="Run folder; default runs/<name>.")] = None,
    overwrite: Annotated[bool, Option("--overwrite", help="Start anew in a folder that holds a run.")] = False,
    settings: Settings = None,
) -> None:
    """Train, or continue an interrupted run; keep the best epoch; evaluate it on test."""
    options = {k: v for k, v in context.params.items() if k not in ("config", "overwrite", "settings")}
    _train(train_config(evaluation.read_yaml(config) if config else {}, options, settings), overwrite)


@app.command()
def reproduce(
    datasets: Annotated[str, Option(help="Names with commas between.")] = ",".join(SYNTHETIC),
    methods: Annotated[str, Option(help="Names with commas between.")] = "zero-shot,full,cskt",
    seeds: Annotated[int, Option(min=1, help="Seeds 0 to SEEDS-1 of each.")] = 3,
    data_root: DataRoot = None, backbone: Backbone = None, pretrained: Pretrained = None, settings: Settings = None,
    records: Annotated[Path, Option(help="Each run's metrics.json is copied here.")] = Path("book/results/runs"),
) -> None:
    """Train every method on every data set; finished runs are kept, interrupted ones continue."""
    configs = [train_config({}, dict(dataset=dataset, method=method, seed=seed, data_root=data_root,
                                     backbone=backbone, pretrained=pretrained), settings)
               for dataset in datasets.split(",") for method in methods.split(",") for seed in range(seeds)]
    evaluation.make_folder(records)
    for config in configs:
        folder = _train(config).folder
        evaluation.write_atomically(records / f"{folder.name}.json", (folder / evaluation.METRICS).read_bytes())


@app.command()
def evaluate(
    run: Annotated[Path, typer.Argument(help="Folder of a finished run.")],
    split: Annotated[str, Option(help="train, val or test.")] = "test",
    dataset: Annotated[str | None, Option(help="Another data set than the run's.")] = None,
    data_root: DataRoot = None,
) -> None:
    """Evaluate a run's best checkpoint and print the metrics as json."""
    if split not in ("train", "val", "test"):
        raise CSKTError(f"--split must be train, val or test, got {split!r}.")
    held = evaluation.Run.load(run)
    name = dataset or held.config.dataset
    data = benchmarks.load_dataset(name, data_root or (held.config.data_root if name == held.config.dataset else None))
    model = held.load_model().to(evaluation.resolve_device(held.config.device))
    metrics = evaluation.evaluate(model, getattr(data, split), data.fingerprint, held.metrics["precision"])
    typer.echo(json.dumps({"run": str(run), "dataset": name, "split": split, "metrics": metrics}, indent=2))


@app.command()
def render(
    names: Annotated[list[str] | None, typer.Argument(help="SynthPEDES domains; default all three.")] = None,
    output: Annotated[Path | None, Option(help="Parent folder; default the cache.")] = None,
) -> None:
    """Render SynthPEDES domains in their official layouts and print their folders."""
    if unknown := sorted(set(names or ()) - set(SYNTHETIC)):
        raise CSKTError(f"{', '.join(unknown)} cannot be rendered; choose from {', '.join(SYNTHETIC)}.")
    for name in names or SYNTHETIC:
        typer.echo(synthetic.synthetic_dataset(name, output))


@app.command("pretrain-mini")
def pretrain_mini(
    context: typer.Context, samples: Annotated[int | None, Option(help="Image-caption pairs seen in all.")] = None,
    images: Annotated[int | None, Option(help="Images rendered for it.")] = None,
    output: Annotated[Path | None, Option(help="Folder for the weights and the run file.")] = None,
    seed: int | None = None,
    stop_after: Annotated[float | None, Option(help="Seconds; a later call goes on from there.")] = None,
) -> None:
    """Pre-train the embedded cskt-mini backbone on the generic corpus; calling it again resumes."""
    given = {name: value for name, value in context.params.items() if value is not None}
    typer.echo(pretraining.pretrain_mini(**given, environment=evaluation.environment("cpu")))


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
