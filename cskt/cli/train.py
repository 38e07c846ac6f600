"""Commands about one run or one model: train, evaluate, export, import-checkpoint."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from lightning_fabric.utilities.rank_zero import rank_zero_only
from typer import Option

from cskt import evaluation
from cskt.checks import check_choice
from cskt.cli.common import DATASET_HELP, Backbone, DataRoot, Pretrained, Settings, train_config
from cskt.config import METHODS, MINI, ON_ERROR, TrainConfig
from cskt.data.datasets import load_dataset
from cskt.data.unreadable import sentence
from cskt.errors import ConfigurationError, ModelError
from cskt.files import make_folder, read_yaml, write_atomically, write_json
from cskt.model import CSKT, load_model
from cskt.model.reference import foreign_backbone, reference_config, reference_parameters
from cskt.model.state_dicts import read_checkpoint
from cskt.numerics import resolve_device
from cskt.runs import Run, is_saved_model, open_model
from cskt.training import train as train_run


def train(
    context: typer.Context,
    config: Annotated[
        Path | None, Option(help="Settings as yaml; the options override it.")
    ] = None,
    dataset: Annotated[str | None, Option(help=DATASET_HELP)] = None,
    data_root: DataRoot = None,
    backbone: Backbone = None,
    pretrained: Pretrained = None,
    method: Annotated[str | None, Option(help=f"One of {', '.join(METHODS)}.")] = None,
    seed: int | None = None,
    epochs: int | None = None,
    output: Annotated[str | None, Option(help="Run folder; default runs/<name>.")] = None,
    overwrite: Annotated[
        bool, Option("--overwrite", help="Start anew in a folder that holds a run.")
    ] = False,
    settings: Settings = None,
) -> None:
    """Train, or continue an interrupted run; keep the epoch that selection chooses; evaluate it on
    test."""
    file_settings = read_yaml(config) if config else {}
    options = dict(context.params)
    for name in ("config", "overwrite", "settings"):  # no settings of a run
        del options[name]
    train_and_report(train_config(file_settings, options, settings), overwrite)


def train_and_report(
    config: TrainConfig, overwrite: bool = False, prefix: str = "", progress: bool | None = None
) -> Run:
    """Train and say how it goes; ``prefix`` tells runs side by side apart."""

    def report_epoch(row: dict[str, Any]) -> None:
        typer.echo(
            f"{prefix}epoch {row['epoch']}: loss {row['loss']:.4f}, val R@1 {row['val R@1']:.2f}, "
            f"test R@1 {row['test R@1']:.2f}, {row['seconds']:.0f} s"
        )

    run = train_run(config, report_epoch, overwrite, progress)
    if getattr(rank_zero_only, "rank", 0):  # one of several processes speaks
        return run
    record = run.record
    trained = record["metrics"]["text_to_image"]
    zero_shot = record["zero_shot"]["text_to_image"]
    typer.echo(
        f"{run.folder}: test R@1 {trained['R@1']:.2f} (zero-shot {zero_shot['R@1']:.2f}), "
        f"mAP {trained['mAP']:.2f}, "
        f"epoch {record['best_epoch']} kept (selection: {record['selection']})"
    )
    return run


def evaluate(
    run: Annotated[
        Path, typer.Argument(help="Folder of a finished run, or of a saved model (then --dataset).")
    ],
    split: Annotated[str, Option(help="train, val or test.")] = "test",
    dataset: Annotated[str | None, Option(help="Another data set than the run's.")] = None,
    data_root: DataRoot = None,
    pretrained: Pretrained = None,
    on_error: Annotated[
        str | None,
        Option(
            help="Of images that cannot be read: raise, or skip; default the run's, else raise."
        ),
    ] = None,
    without_ambiguous: Annotated[
        bool,
        Option(
            "--without-ambiguous",
            help="Also without the captions that stand under several identities of the split.",
        ),
    ] = False,
) -> None:
    """Evaluate a run's best checkpoint, or a saved model: metrics and cost as json."""
    if split not in ("train", "val", "test"):
        raise ConfigurationError(f"--split must be train, val or test, got {split!r}.")
    if on_error is not None:
        check_choice("--on-error", on_error, ON_ERROR)
    if is_saved_model(run):
        if not dataset:
            raise ConfigurationError(
                f"{run} holds a saved model, which knows no data; name them with --dataset."
            )
        data = load_dataset(dataset, data_root)
        model = open_model(run, pretrained)
        precision = "auto"
    else:
        finished = Run.load(run)
        config = finished.config
        if not dataset or dataset == config.dataset:
            dataset = config.dataset
            data_root = data_root or config.data_root
        data = load_dataset(dataset, data_root)
        model = finished.load_model().to(resolve_device(config.device))
        precision = finished.record["precision"]
        on_error = on_error or config.on_error
    loaded = evaluation.load_split(model, getattr(data, split), on_error or "raise", data.root)
    metrics, _, cost = evaluation.evaluate_queries(model, loaded, precision)
    result: dict[str, Any] = {
        "run": str(run),
        "dataset": dataset,
        "split": split,
        "metrics": metrics,
        "cost": cost,
    }
    if loaded.skipped is not None:
        result["skipped"] = loaded.skipped
        result["notes"] = [sentence(split, loaded.skipped)]
    if without_ambiguous:
        result |= evaluation.evaluate_unambiguous(model, loaded.split, precision)
    typer.echo(json.dumps(result, indent=2))


def export(
    run: Annotated[Path, typer.Argument(help="Folder of a finished run.")],
    output: Annotated[
        Path, typer.Argument(help="Folder to write; with --reference or --onnx, a file.")
    ],
    bf16: Annotated[bool, Option("--bf16", help="Half the size.")] = False,
    reference: Annotated[
        bool, Option("--reference", help="A checkpoint for the authors' code instead.")
    ] = False,
    onnx: Annotated[bool, Option("--onnx", help="The text encoder alone, as ONNX.")] = False,
) -> None:
    """Write a run's model as a folder for the Hugging Face hub: weights, configuration, run file,
    model card."""
    if bf16 + reference + onnx > 1:
        raise ConfigurationError(
            "--bf16, --reference and --onnx exclude each other; give one of them."
        )
    finished = Run.load(run)
    model = finished.load_model()
    if onnx:
        from cskt.search.onnx_export import export_text_encoder

        export_text_encoder(model, output)
    elif reference:
        _export_reference(model, output)
    else:
        _export_for_hub(finished, model, output, torch.bfloat16 if bf16 else None)
    typer.echo(output)


def _export_reference(model: CSKT, path: Path) -> None:
    def save(path: Path) -> None:
        torch.save(model.to_reference_state(), path)

    make_folder(path.parent)
    write_atomically(path, save)


def _export_for_hub(run: Run, model: CSKT, folder: Path, dtype: torch.dtype | None) -> None:
    from cskt.report.card import model_card, public_record

    record = public_record(run.record)
    model.save_pretrained(make_folder(folder), dtype)
    write_json(folder / "run.json", record)
    write_atomically(folder / "README.md", model_card(record))


def import_checkpoint(
    checkpoint: Annotated[Path, typer.Argument(help="A file that the authors' code saved.")],
    output: Annotated[Path, typer.Argument(help="Folder for the model.")],
    backbone: Annotated[str, Option(help="An open_clip model name.")] = "ViT-B-16-quickgelu",
    pretrained: Annotated[
        str | None, Option(help="The backbone's weights: a tag (openai) or a file.")
    ] = None,
    height: int = 384,
    width: int = 128,
) -> None:
    """Turn a checkpoint of the authors' code into a saved model: for evaluate, or
    CSKT.from_pretrained."""
    state = read_checkpoint(checkpoint)
    if not pretrained:
        pretrained = None if backbone == MINI else "openai"
    model = load_model(backbone, pretrained, (height, width), reference_config(state))
    foreign = foreign_backbone(model, state)
    if foreign:
        raise ModelError(
            f"{checkpoint} was trained over another backbone than {backbone}, {pretrained}: "
            f"{len(foreign)} tensors differ, such as {foreign[0]}; name its weights with "
            "--pretrained."
        )
    # What the frozen tensors lost to half precision is taken from the backbone's own weights.
    for name, parameter in reference_parameters(model).items():
        if not parameter.requires_grad:
            state.pop(name, None)
    model.load_reference_checkpoint(state)
    model.save_pretrained(make_folder(output))
    typer.echo(output)
