"""A run folder and its record, the unit of evidence: what was asked, what happened, what came out,
and where and with what it was made."""

from __future__ import annotations

import hashlib
import json
import time
import zipfile
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from cskt.config import DOMAIN_PRETRAINED, EXECUTION, MINI, CSKTConfig, TrainConfig
from cskt.data.datasets import PersonRetrievalDataset
from cskt.data.unreadable import sentence
from cskt.environment import environment
from cskt.errors import ConfigurationError, RunError
from cskt.evaluation import MEASURES, evaluate_queries, load_split
from cskt.files import file_name, public_name, read_yaml, write_atomically
from cskt.model.backbone import RANDOM, weights_source
from cskt.model.checkpoints import CONFIG_FILE
from cskt.model.cskt import CSKT, load_model
from cskt.model.irra import heads_of, is_irra
from cskt.model.state_dicts import read_checkpoint
from cskt.numerics import resolve_device

# The files of a run folder.
CONFIG = "config.yaml"
HISTORY = "history.csv"
METRICS = "metrics.json"
ADAPTER = "adapter.safetensors"
QUERIES = "queries.npz"

# The columns of the history: what is measured after each epoch.
MEASURED = (
    *[f"val {measure}" for measure in MEASURES],
    *[f"test {measure}" for measure in MEASURES],
)
SPECTRUM = ("T2V norm", "T2V rank", "V2T norm", "V2T rank")  # of BidirectionalPrompts.spectrum
FIGURES = ("lr", "loss", *MEASURED, "seconds", *SPECTRUM)
HISTORY_TYPES: dict[str, type] = {"epoch": int} | dict.fromkeys(FIGURES, float)

# Fields of a record that are relied on, and their types in json.
RECORD_TYPES = {
    "dataset": str,
    "method": str,
    "seed": int,
    "selection": str,
    "precision": str,
    "data_fingerprint": str,
    "weights_fingerprint": str,
    "config": dict,
    "hardware": dict,
    "metrics": dict,
}


@dataclass(frozen=True)
class Run:
    """A finished run: what was asked (``config``), what happened (``history``), what came out
    (``record``, the contents of metrics.json).

    The model that is kept is that of one epoch, as ``config.selection`` says: of the epoch with the
    best text-to-image R@1 on val (``"val"``) or on test (``"test"``; mAP decides between equal R@1,
    then the earlier epoch), or of the last one (``"last"``). ``record["metrics"]`` are its figures
    on test. ``record["selected"]`` holds for each of the three rules the ``epoch`` it chooses and
    that epoch's ``metrics`` on test, so that the gap between them is known: a figure that was
    chosen on test is too good by it. An untrained run has epoch 0 in all three. ``queries.npz`` in
    the folder says how each caption of test ranked the images (see :meth:`queries`).
    """

    folder: Path
    config: TrainConfig
    history: list[dict[str, Any]]
    record: dict[str, Any]

    @property
    def metrics(self) -> dict[str, Any]:
        """:attr:`record` under its name of before."""
        return self.record

    @classmethod
    def load(cls, folder: str | Path) -> Run:
        """Read a finished run; a :class:`RunError` where ``folder`` holds none."""
        folder = Path(folder)
        for name in (CONFIG, METRICS, HISTORY, ADAPTER, QUERIES):
            if not (folder / name).is_file():
                state = "an unfinished run" if (folder / CONFIG).is_file() else "no run"
                raise RunError(
                    f"{folder} holds {state} ({name} is missing); train it first with "
                    "python -m cskt train."
                )
        try:
            record = _read_record(folder / METRICS)
            history = _read_history(folder / HISTORY)
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise RunError(
                f"{folder} holds a damaged {METRICS} or {HISTORY} ({error}); overwrite it."
            ) from error
        return cls(folder, read_config(folder / CONFIG), history, record)

    def queries(self) -> dict[str, np.ndarray]:
        """The kept model's ranking of the test images for each of Q captions, arrays (Q,):
        ``query_identities``, ``first_rank`` (from 1; 0: no match in the gallery),
        ``average_precision``, ``inverse_negative_penalty``."""
        path = self.folder / QUERIES
        try:
            with np.load(path) as arrays:
                return dict(arrays)
        except (OSError, EOFError, ValueError, zipfile.BadZipFile) as error:
            raise RunError(
                f"{path} is not a readable npz file ({error}); train the run again."
            ) from error

    def load_model(self) -> CSKT:
        """The model at its kept epoch, on the CPU, in eval mode; :class:`RunError` if the
        backbone's weights are no longer the run's."""
        expected = self.record["weights_fingerprint"]
        present = weights_fingerprint(self.config)
        if present != expected:
            raise RunError(
                f"{self.folder} was trained on backbone weights {expected} but "
                f"{self.config.backbone} now has {present}; restore those weights or train again."
            )
        model = build_model(self.config)
        path = self.folder / ADAPTER
        try:
            model.load_trainable_state(load_file(path))
        except (OSError, SafetensorError) as error:
            raise RunError(
                f"{path} is not a readable safetensors file ({error}); train the run again."
            ) from error
        return model.eval()


def run_name(config: TrainConfig) -> str:
    """``dataset-method-seedN-xxxxxxxx``, the last part a digest of the settings that are not the
    paper's; where data, noise index and run lie does not count."""
    default = TrainConfig().to_dict()
    settings = config.to_dict()
    for name in EXECUTION:
        settings[name] = default[name]
    settings["noise_index"] = public_name(config.noise_index)
    settings["cskt"] = _differing(settings["cskt"], default["cskt"])
    decisive = json.dumps(_differing(settings, default), sort_keys=True)
    digest = hashlib.sha256(decisive.encode()).hexdigest()[:8]
    return f"{file_name(config.dataset)}-{config.method}-seed{config.seed}-{digest}"


def _differing(values: dict[str, Any], default: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value != default[name]}


def check_folder(folder: Path, config: TrainConfig, overwrite: bool) -> None:
    """Refuse a folder that holds anything but this run, begun or finished."""
    if folder.exists() and not folder.is_dir():
        raise RunError(f"{folder} is a file; give another output folder.")
    if not (folder / CONFIG).is_file():
        if any(folder.glob("[!.]*")):
            raise RunError(
                f"{folder} holds files but no run ({CONFIG} is missing); give another output "
                "folder."
            )
        return
    if overwrite:
        return
    stored = read_config(folder / CONFIG).to_dict()
    asked = config.to_dict()
    # Where the data lie may change; what they are is checked by their fingerprint.
    for name in EXECUTION:
        del stored[name], asked[name]
    changed = [name for name in asked if stored[name] != asked[name]]
    if changed:
        raise RunError(
            f"{folder} holds a run with other settings ({', '.join(changed)}); give another output "
            "folder or ask to overwrite it."
        )


def write_model(folder: Path, tensors: dict[str, Tensor]) -> None:
    """What :meth:`Run.load_model` reads: the trained weights."""

    def save(path: Path) -> None:
        save_file(tensors, path)

    write_atomically(folder / ADAPTER, save)


def write_history(folder: Path, history: list[dict[str, Any]]) -> None:
    """One row per epoch, as csv."""
    table = pd.DataFrame(history, columns=list(HISTORY_TYPES))
    write_atomically(folder / HISTORY, table.to_csv(index=False))


def write_queries(folder: Path, queries: dict[str, np.ndarray]) -> None:
    """What :meth:`Run.queries` reads."""

    def save(path: Path) -> None:
        with path.open("wb") as file:  # numpy would add .npz to a path
            np.savez_compressed(file, **queries)  # type: ignore[arg-type]

    write_atomically(folder / QUERIES, save)


def _read_record(path: Path) -> dict[str, Any]:
    record = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(record, dict):
        raise TypeError("it holds no fields")
    for name, kind in RECORD_TYPES.items():
        if not isinstance(record.get(name), kind):
            raise TypeError(f"its field {name} is missing or of another kind")
    for measure in MEASURES:
        value = record["metrics"]["text_to_image"][measure]
        if not isinstance(value, (int, float)):
            raise TypeError(f"its measure {measure} is no number")
    return record


def _read_history(path: Path) -> list[dict[str, Any]]:
    table = pd.read_csv(path, dtype=str)
    for column in SPECTRUM:
        if column not in table:  # of a run that did not measure it
            table[column] = "nan"
    rows = table.astype(HISTORY_TYPES).to_dict("records")
    return cast("list[dict[str, Any]]", rows)


def read_config(path: Path) -> TrainConfig:
    """The :class:`TrainConfig` in a yaml file; an unreadable or malformed one is a
    :class:`ConfigurationError`."""
    values = read_yaml(path)
    try:
        return TrainConfig.from_dict(values)
    except ConfigurationError as error:
        raise ConfigurationError(f"{path}: {error}") from error


def build_model(config: TrainConfig) -> CSKT:
    """The model of a run before training, on the CPU: new (and random backbone) weights follow from
    the run's seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        return load_model(config.backbone, config.pretrained, config.image_size, config.cskt)


def open_model(source: str | Path, pretrained: str | None = None) -> CSKT:
    """The model of a run's folder or of a saved model's, or ``"cskt-mini"`` as it comes, without
    training; in eval mode on the best device. ``pretrained``: where a saved model's backbone has
    its weights now."""
    folder = Path(source)
    if is_saved_model(folder):
        model = CSKT.from_pretrained(folder, pretrained=pretrained)
    elif str(source) == MINI:
        model = load_model(MINI, config=CSKTConfig.mini().for_method("zero-shot")).eval()
    else:
        model = Run.load(folder).load_model()
    return model.to(resolve_device("auto"))


def is_saved_model(folder: Path) -> bool:
    """Whether ``folder`` holds what :meth:`CSKT.save_pretrained` writes, and no run."""
    return (folder / CONFIG_FILE).is_file() and not (folder / METRICS).is_file()


def weights_fingerprint(config: TrainConfig) -> str:
    """What the frozen weights are: the sha256 of their file (16 hex digits), else the tag, else
    ``"random"``."""
    source = weights_source(config.backbone, config.pretrained)
    if source is None:
        return RANDOM
    if isinstance(source, Path):
        return hashlib.sha256(source.read_bytes()).hexdigest()[:16]
    return source


def backbone_origin(config: TrainConfig) -> str:
    """Where the backbone's weights come from, in words: ``"cskt-mini"``, ``"random"``, ``"tag
    openai"``, or a checkpoint file, whether it is of the IRRA family (:mod:`cskt.model.irra`), and
    which of its heads were left out."""
    source = weights_source(config.backbone, config.pretrained)
    if source is None:
        return RANDOM
    if not isinstance(source, Path):
        return f"tag {source}"
    if config.pretrained is None:
        return config.backbone
    facts = [f"checkpoint {source.name}", f"sha256 {weights_fingerprint(config)}"]
    state = read_checkpoint(source)
    if is_irra(state):
        facts.append(DOMAIN_PRETRAINED)
        heads = heads_of(state, str(source))
        if heads:
            facts.append(f"without {' and '.join(heads)}")
    return ", ".join(facts)


def transfer_record(run: Run, dataset: PersonRetrievalDataset) -> dict[str, Any]:
    """The record of a run's model on the test split of another data set, of which it has seen
    nothing."""
    start = time.monotonic()
    model = run.load_model().to(resolve_device(run.config.device))
    loaded = load_split(model, dataset.test, run.config.on_error, dataset.root)
    notes = list(run.record.get("notes", []))
    skipped = {}
    if loaded.skipped is not None:
        skipped["test"] = loaded.skipped
        notes.append(sentence("test", loaded.skipped))
    metrics, _, cost = evaluate_queries(model, loaded, run.record["precision"])
    return {
        **run.record,
        "kind": "transfer",
        "source": run.record["dataset"],
        "source_fingerprint": run.record["data_fingerprint"],
        "run": run.folder.name,
        "dataset": dataset.name,
        "synthetic": dataset.synthetic,
        "data_fingerprint": dataset.fingerprint,
        "data_version": getattr(dataset, "version", None),
        "metrics": metrics,
        "selected": None,
        "val_metrics": None,
        "zero_shot": None,
        "zero_shot_val": None,
        "cost": cost,
        "skipped": skipped,
        "notes": notes,
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "duration_s": round(time.monotonic() - start, 3),
        **environment(next(model.parameters()).device.type),
    }
