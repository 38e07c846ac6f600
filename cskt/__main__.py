"""The command line: ``python -m cskt train | evaluate | reproduce | export | ...`` (``--help``
lists all)."""

from __future__ import annotations

import ast
import contextlib
import functools
import json
import logging
import sys
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from tqdm import tqdm
from typer import Option

from cskt import (
    backbones,
    evaluation,
    files,
    numerics,
    parallel,
    pretraining,
    publishing,
    results,
    training,
    verify,
)
from cskt.config import DATASETS, METHODS, MINI, TrainConfig
from cskt.data import benchmarks, synthetic, verification
from cskt.errors import CSKTError
from cskt.experiments import BENCHMARK, GRIDS, TRANSFER, grid_rows
from cskt.model import load_model
from cskt.model.cskt import CONFIG_FILE
from cskt.model.reference import foreign_backbone, reference_config, reference_parameters

log = logging.getLogger(__name__)
app = typer.Typer(
    help="Cross-modal person retrieval with CSKT.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
REAL, SYNTHETIC = DATASETS[:3], DATASETS[3:]
DataRoot = Annotated[str | None, Option(help="Folder of the data set, or its parent.")]
Backbone = Annotated[str | None, Option(help=f"{MINI} (default) or an open_clip model name.")]
Pretrained = Annotated[str | None, Option(help="A tag such as openai, or a checkpoint file.")]
Settings = Annotated[
    list[str] | None,
    Option(
        "--set", metavar="NAME=VALUE", help="Any other setting, such as batch_size=64; repeatable."
    ),
]
GalleryAt = Annotated[
    str, Option(help="A folder such as g.db, or http://host:19530 of a Milvus server.")
]
GalleryName = Annotated[str, Option(help="Of several galleries in one place.")]
Token = Annotated[str, Option(envvar="MILVUS_TOKEN", help="Of a Milvus server.")]
# What belongs to a method: in a file it holds for the file's method, not for another one asked for.
OF_METHOD = {"learning_rate", *(switch for switches in METHODS.values() for switch in switches)}


def train_config(
    values: dict[str, Any], options: dict[str, Any], settings: list[str] | None = None
) -> TrainConfig:
    """The backbone's and method's defaults; on top a file's ``values``, ``settings`` and not-None
    ``options``."""
    given = {}
    for name, equals, value in (setting.partition("=") for setting in settings or ()):
        if not equals:
            raise CSKTError(f"--set {name} must be --set NAME=VALUE, such as batch_size=64.")
        try:
            given[name] = ast.literal_eval(value)
        except (ValueError, SyntaxError):  # a word, as in selection=test
            given[name] = value
    given.update((name, value) for name, value in options.items() if value is not None)
    backbone, method = ({**values, **given}.get(name) for name in ("backbone", "method"))
    config = TrainConfig.for_backbone(backbone or MINI, method=method).to_dict()
    foreign = OF_METHOD if method != values.get("method", "cskt") and "method" in given else set()
    for layer, dropped in ((values, foreign), (given, set())):
        switches = layer.get("cskt") or {}
        if not isinstance(switches, dict):
            raise CSKTError(
                f"cskt must be a mapping of method settings, got {switches!r}; correct the configuration."
            )
        config["cskt"].update(
            (name, value) for name, value in switches.items() if name not in dropped
        )
        config.update(
            (name, value) for name, value in layer.items() if name not in {"cskt", *dropped}
        )
    return TrainConfig.from_dict(config)


def _train(
    config: TrainConfig, overwrite: bool = False, prefix: str = "", progress: bool | None = None
) -> evaluation.Run:
    """Train and say how it goes; ``prefix`` tells runs side by side apart."""
    run = training.train(
        config,
        on_epoch=lambda row: typer.echo(
            f"{prefix}epoch {row['epoch']}: loss {row['loss']:.4f}, val R@1 {row['val R@1']:.2f}, "
            f"test R@1 {row['test R@1']:.2f}, {row['seconds']:.0f} s"
        ),
        overwrite=overwrite,
        progress=progress,
    )
    after, before = (
        run.metrics["metrics"]["text_to_image"],
        run.metrics["zero_shot"]["text_to_image"],
    )
    typer.echo(
        f"{run.folder}: test R@1 {after['R@1']:.2f} (zero-shot {before['R@1']:.2f}), mAP {after['mAP']:.2f}, "
        f"epoch {run.metrics['best_epoch']} kept (selection: {run.metrics['selection']})"
    )
    return run


@app.command()
def train(
    context: typer.Context,
    config: Annotated[
        Path | None, Option(help="Settings as yaml; the options override it.")
    ] = None,
    dataset: Annotated[str | None, Option(help=f"One of {', '.join(DATASETS)}.")] = None,
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
    options = {
        k: v for k, v in context.params.items() if k not in ("config", "overwrite", "settings")
    }
    _train(train_config(files.read_yaml(config) if config else {}, options, settings), overwrite)


@app.command()
def reproduce(
    datasets: Annotated[
        str | None,
        Option(
            help="Names with commas between; default the three real ones with --data-root, else SynthPEDES."
        ),
    ] = None,
    grid: Annotated[str, Option(help=f"What varies: {', '.join([*GRIDS, TRANSFER])}.")] = BENCHMARK,
    methods: Annotated[
        str | None, Option(help="Rows of the benchmark or transfer, commas between.")
    ] = None,
    seeds: Annotated[int, Option(min=1, help="Seeds 0 to SEEDS-1 of each.")] = 3,
    data_root: DataRoot = None,
    backbone: Annotated[
        str | None, Option(help=f"Default {MINI} for SynthPEDES, the paper's for real data.")
    ] = None,
    pretrained: Pretrained = None,
    settings: Settings = None,
    records: Annotated[Path, Option(help="Each run's record is copied here.")] = Path(
        "book/results/runs"
    ),
    jobs: Annotated[
        int, Option(min=1, help="Runs at a time; more than one: in processes of one thread each.")
    ] = 1,
) -> None:
    """Train every row of a grid on every data set; finished runs are kept, interrupted ones
    continue.

    All rows of one seed come before the next seed, so that an interrupted call leaves whole seeds.
    Each run's record is written as it finishes, and how each query ranked beside it (.npz). A run
    that fails does not stop the others. The benchmark on real data is run twice, the epoch chosen
    on val and, as the release does it, on test. ``transfer`` trains the benchmark's rows and tests
    each model on the other data sets.
    """
    names = datasets.split(",") if datasets else REAL if data_root else SYNTHETIC
    backbone = backbone or (MINI if set(names) <= set(SYNTHETIC) else TrainConfig().backbone)
    rows = grid_rows(grid, backbone)
    common = dict(data_root=data_root, backbone=backbone, pretrained=pretrained)
    if methods and grid not in (BENCHMARK, TRANSFER):
        raise CSKTError(
            f"--methods belongs to the grids {BENCHMARK} and {TRANSFER}; the rows of {grid} are its own."
        )
    if methods:
        labels = {changes.get("method", "cskt"): row for row, changes in rows.items()}
        rows = {labels.get(method, method): {"method": method} for method in methods.split(",")}
    for changes in rows.values():  # a wrong setting is said before any data set is read or rendered
        train_config(changes, dict(common, dataset=names[0]), settings)
    target = files.make_folder(records if grid == BENCHMARK else records / grid.replace(" ", "-"))
    configs, loaded = [], {name: benchmarks.load_dataset(name, data_root) for name in names}
    given = any(setting.startswith("selection=") for setting in settings or ())
    for seed in range(seeds):
        for dataset, data in loaded.items():
            both = (
                grid == BENCHMARK and not given and not data.synthetic and data.val is not data.test
            )
            for row, changes in rows.items():
                once = (
                    changes.get("method") == "zero-shot"
                )  # neither a seed nor an epoch changes it
                if once and seed:
                    continue
                for selection in (
                    ("val", "test") if both and not once else ("val",) if both else (None,)
                ):
                    options = dict(common, dataset=dataset, seed=seed, selection=selection)
                    configs.append((row, train_config(changes, options, settings)))
    # The data sets that each trained model is tested on besides its own.
    others = {
        name: [data for other, data in loaded.items() if other != name]
        if grid == TRANSFER
        else None
        for name in loaded
    }
    arguments = [(config, others[config.dataset], jobs > 1) for _, config in configs]
    failures, lost = [], 0
    with contextlib.closing(parallel.completed(_reproduce_run, arguments, jobs)) as outcomes:
        for index, made in outcomes:
            row, config = configs[index]
            if isinstance(made, BrokenProcessPool):
                lost += 1
            elif isinstance(made, Exception):
                failures.append(_sentence(training.run_name(config), made))
            else:
                place = {} if grid == BENCHMARK else {"grid": grid, "row": row}
                _write_records(target, *made, place)
    if lost:
        failures.append(
            f"{lost} were cut off when a worker process was ended from outside (too little memory for "
            f"--jobs {jobs}?), call again to continue"
        )
    if failures:
        raise CSKTError(
            f"{len(failures) + max(0, lost - 1)} of {len(configs)} runs failed: {'; '.join(failures)}."
        )


def _reproduce_run(
    config: TrainConfig, others: list[benchmarks.PersonRetrievalDataset] | None, beside: bool
) -> tuple[evaluation.Run, dict[str, dict[str, Any]] | None]:
    """Train; the run, and the records on ``others`` by name (None: no transfer is asked for).
    ``beside``: in a process beside others."""
    if beside:
        _log_to_stderr()
    prefix = f"{training.run_name(config)}: " if beside else ""
    run = _train(config, prefix=prefix, progress=False if beside else None)
    if others is None:
        return run, None
    return run, {
        f"{run.folder.name}-on-{data.name}": evaluation.transfer(run, data) for data in others
    }


def _sentence(name: str, error: Exception) -> str:
    """What went wrong with a run; of a fault in the code the log has the traceback."""
    if isinstance(error, CSKTError):
        return f"{name}: {str(error).rstrip('.')}"
    log.error("%s failed.", name, exc_info=error)
    return f"{name}: {type(error).__name__}: {' '.join(str(error).split())}".rstrip(".")


def _write_records(
    target: Path,
    run: evaluation.Run,
    transfers: dict[str, dict[str, Any]] | None,
    place: dict[str, str],
) -> None:
    """The run's record and its queries into ``target``, or the records of its transfers in their
    place."""
    if transfers is None:
        transfers = {run.folder.name: run.metrics}
        queries = (run.folder / evaluation.QUERIES).read_bytes()
        files.write_atomically(target / f"{run.folder.name}.npz", queries)
    for name, record in transfers.items():
        files.write_json(target / f"{name}.json", {**publishing.public_record(record), **place})


@app.command("verify")
def verify_runs(
    dataset: Annotated[str, Option(help=f"One of {', '.join(SYNTHETIC)}.")] = SYNTHETIC[0],
    records: Annotated[Path, Option(help="The committed run files.")] = Path("book/results/runs"),
    output: Annotated[Path, Option(help="Run folder; what it holds is replaced.")] = Path(
        "runs/verify"
    ),
) -> None:
    """Train CSKT anew, seed 0, and say whether its R@1 is within the committed runs'; exit code 1
    where it is not.

    Two minutes on two CPU cores. Exit code 2: the run files hold nothing to compare with.
    """
    if dataset not in SYNTHETIC:
        raise CSKTError(f"{dataset} cannot be verified; choose one of {', '.join(SYNTHETIC)}.")
    config = TrainConfig.mini(dataset, seed=0, precision="fp32", device="cpu", output=str(output))
    held = [results.read_run_file(path) for path in sorted(records.glob("*.json"))]
    version, weights = (
        benchmarks.load_dataset(dataset).version,
        evaluation.weights_fingerprint(config),
    )
    interval = verify.committed_interval(held, config, version, weights)
    run = _train(config, overwrite=True)  # an earlier run must not stand in for one on this machine
    value = run.metrics["metrics"]["text_to_image"][verify.MEASURE]
    typer.echo(interval.sentence(value))
    raise typer.Exit(0 if interval.holds(value) else 1)


@app.command()
def evaluate(
    run: Annotated[
        Path, typer.Argument(help="Folder of a finished run, or of a saved model (then --dataset).")
    ],
    split: Annotated[str, Option(help="train, val or test.")] = "test",
    dataset: Annotated[str | None, Option(help="Another data set than the run's.")] = None,
    data_root: DataRoot = None,
    pretrained: Pretrained = None,
) -> None:
    """Evaluate a run's best checkpoint, or a saved model, and print the metrics as json."""
    if split not in ("train", "val", "test"):
        raise CSKTError(f"--split must be train, val or test, got {split!r}.")
    saved = (run / CONFIG_FILE).is_file() and not (run / evaluation.METRICS).is_file()
    if saved and not dataset:
        raise CSKTError(
            f"{run} holds a saved model, which knows no data; name them with --dataset."
        )
    held = None if saved else evaluation.Run.load(run)
    name = dataset or held.config.dataset
    root = held.config.data_root if held and name == held.config.dataset else None
    data = benchmarks.load_dataset(name, data_root or root)
    model = held.load_model() if held else evaluation.open_model(run, pretrained)
    model.to(numerics.resolve_device(held.config.device if held else "auto"))
    metrics = evaluation.evaluate(
        model, getattr(data, split), held.metrics["precision"] if held else "auto"
    )
    typer.echo(
        json.dumps({"run": str(run), "dataset": name, "split": split, "metrics": metrics}, indent=2)
    )


@app.command()
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
        raise CSKTError("--bf16, --reference and --onnx exclude each other; give one of them.")
    held = evaluation.Run.load(run)
    model, record = held.load_model(), publishing.public_record(held.metrics)
    if onnx:
        from cskt.onnx_export import export_text_encoder  # its packages are needed only here

        export_text_encoder(model, output)
    elif reference:
        files.make_folder(output.parent)
        files.write_atomically(output, lambda path: torch.save(model.to_reference_state(), path))
    else:
        model.save_pretrained(files.make_folder(output), torch.bfloat16 if bf16 else None)
        files.write_json(output / "run.json", record)
        files.write_atomically(output / "README.md", publishing.model_card(record))
    typer.echo(output)


@app.command("import-checkpoint")
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
    state = backbones.read_checkpoint(checkpoint)
    config, own = reference_config(state), None if backbone == MINI else "openai"
    model = load_model(backbone, pretrained or own, (height, width), config)
    if foreign := foreign_backbone(model, state):
        raise CSKTError(
            f"{checkpoint} was trained over another backbone than {backbone}, {pretrained or own}: "
            f"{len(foreign)} tensors differ, such as {foreign[0]}; name its weights with --pretrained."
        )
    # What the frozen tensors lost to half precision is taken from the backbone's own weights.
    frozen = {
        name
        for name, parameter in reference_parameters(model).items()
        if not parameter.requires_grad
    }
    model.load_reference_checkpoint(
        {name: value for name, value in state.items() if name not in frozen}
    )
    model.save_pretrained(files.make_folder(output))
    typer.echo(output)


@app.command()
def index(
    folder: Annotated[Path, typer.Argument(help="Images, in it and below.")],
    gallery: GalleryAt,
    model: Annotated[
        str | None,
        Option(
            help="Folder of a run or of a saved model; default the gallery's, for a new one the default run where it has "
            "been trained, else cskt-mini as it comes."
        ),
    ] = None,
    metadata: Annotated[
        Path | None, Option(help="csv: file (below FOLDER), identity, camera, time, ...")
    ] = None,
    kind: Annotated[
        str,
        Option("--index", help="Of a new gallery: FLAT (exact), HNSW, IVF_FLAT, IVF_SQ8, DISKANN."),
    ] = "FLAT",
    shards: Annotated[int, Option(help="Of a new gallery on a Milvus cluster.")] = 1,
    name: GalleryName = "gallery",
    token: Token = "",
) -> None:
    """Add a folder of images to a gallery; calling it again goes on where it stopped and adds what
    is new."""
    from cskt.gallery import Gallery  # Milvus' client takes a second, which other commands save
    from cskt.pictures import read_metadata

    facts = read_metadata(metadata) if metadata else None
    if not folder.is_dir():
        raise CSKTError(f"{folder} is not a folder; give one with images.")
    with Gallery(gallery, model, name=name, token=token, index=kind, shards=shards) as held:
        typer.echo(
            f"model: {held.record['source']} (a new gallery may name another with --model)",
            err=True,
        )
        done = held.add(folder, facts)
        for file, why in done.skipped.items():
            typer.echo(f"skipped {_printable(file)}: {why}")
        typer.echo(
            f"{gallery}: {done.added} images added, {done.known} already there, {len(done.skipped)} skipped; "
            f"{len(held)} in all"
        )


@app.command()
def search(
    gallery: GalleryAt,
    description: Annotated[str | None, typer.Argument(help="Whom to look for, in English.")] = None,
    image: Annotated[
        Path | None, Option(help="A picture of the person, in place of a description.")
    ] = None,
    k: Annotated[int, Option("-k", min=1, help="Hits.")] = 10,
    where: Annotated[
        str, Option(help="Filter, such as \"camera == 'c3' and identity in [1, 2]\".")
    ] = "",
    html: Annotated[
        Path | None, Option(help="Write a contact sheet, one file with the pictures in it.")
    ] = None,
    model: Annotated[
        str | None, Option(help="Where the gallery's model is now, if it moved.")
    ] = None,
    name: GalleryName = "gallery",
    token: Token = "",
) -> None:
    """Rank the images of a gallery by how well they fit a description; a table, and a contact sheet
    with --html."""
    from cskt.gallery import Gallery
    from cskt.hits import contact_sheet
    from cskt.milvus import MAX_HITS

    if (description is None) == (image is None):
        raise CSKTError("give a description or --image, one of the two.")
    if html and (html.is_dir() or not html.absolute().parent.is_dir()):
        raise CSKTError(f"--html {html} cannot be written; name a file in a folder that exists.")
    with Gallery(gallery, model, name=name, create=False, token=token) as held:
        hits, size = held.search(image if description is None else description, k, where), len(held)
        remarks = held.remarks(description) if description else []
        if len(hits) < k:
            remarks.append(
                f"No more than {len(hits)} images can be listed."
                if len(hits) == MAX_HITS
                else f"Only {len(hits)} of the {size} images fit the filter."
                if where
                else f"The gallery holds only {size} images."
            )
        for remark in remarks:
            typer.echo(remark, err=True)
        typer.echo(f"{'rank':>4}  {'score':>6}  {'identity':>8}  {'camera':<8}  {'time':<19}  file")
        for rank, hit in enumerate(hits, start=1):
            facts = [
                "-" if fact is None else _printable(str(fact))
                for fact in (hit.identity, hit.camera, hit.time)
            ]
            typer.echo(
                f"{rank:>4}  {hit.score:>6.3f}  {facts[0]:>8}  {facts[1]:<8}  {facts[2]:<19}  "
                f"{_printable(hit.source)}"
            )
        if html:
            page = contact_sheet(description or f"images like {image}", hits, remarks)
            files.write_atomically(html, page)
            typer.echo(f"contact sheet: {html}")


@app.command()
def render(
    names: Annotated[
        list[str] | None, typer.Argument(help="SynthPEDES domains; default all three.")
    ] = None,
    output: Annotated[Path | None, Option(help="Parent folder; default the cache.")] = None,
) -> None:
    """Render SynthPEDES domains in their official layouts and print their folders."""
    if unknown := sorted(set(names or ()) - set(SYNTHETIC)):
        raise CSKTError(
            f"{', '.join(unknown)} cannot be rendered; choose from {', '.join(SYNTHETIC)}."
        )
    for name in names or SYNTHETIC:
        typer.echo(synthetic.synthetic_dataset(name, output))


@app.command("verify-data")
def verify_data(
    name: Annotated[str, typer.Argument(help=f"One of {', '.join(DATASETS)}.")],
    root: Annotated[Path, typer.Argument(help="Folder of the data set, or its parent.")],
    as_json: Annotated[
        bool, Option("--json", help="One json object with everything instead of the table.")
    ] = False,
    deep: Annotated[
        bool,
        Option(
            "--deep",
            help="Decode every image too, on all cores, and check the cache of decoded images.",
        ),
    ] = False,
) -> None:
    """Say what is missing, malformed, damaged or duplicated in a copy of a data set; exit code 1 on
    a fault."""
    # disable=None: a bar on a terminal only
    report = verification.verify(
        name, root, deep, functools.partial(tqdm, leave=False, disable=None)
    )
    typer.echo(json.dumps(report.to_dict(), indent=2) if as_json else report.to_text())
    if report.faults:
        raise typer.Exit(1)


@app.command("pretrain-mini")
def pretrain_mini(
    context: typer.Context,
    samples: Annotated[int | None, Option(help="Image-caption pairs seen in all.")] = None,
    images: Annotated[int | None, Option(help="Images rendered for it.")] = None,
    output: Annotated[Path | None, Option(help="Folder for the weights and the run file.")] = None,
    seed: int | None = None,
    stop_after: Annotated[
        float | None, Option(help="Seconds; a later call goes on from there.")
    ] = None,
) -> None:
    """Pre-train the embedded cskt-mini backbone on the generic corpus; calling it again resumes."""
    given = {name: value for name, value in context.params.items() if value is not None}
    typer.echo(pretraining.pretrain_mini(**given, environment=evaluation.environment("cpu")))


def _printable(text: str) -> str:
    """A name as a terminal may have it: what is no letter or mark, or no text at all, as an
    escape."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _log_to_stderr() -> None:
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)


def main() -> None:
    """Run the command line; bad input is one line on stderr and exit code 2."""
    _log_to_stderr()
    try:
        app(prog_name="cskt")
    except CSKTError as error:
        typer.echo(f"cskt: error: {error}", err=True)
        raise SystemExit(2) from None

from cskt.cli_main import main

if __name__ == "__main__":
    main()
