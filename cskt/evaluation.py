"""Embed the images and captions of a split and rank them against each other."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from cskt.data.benchmarks import PersonRetrievalDataset, Split
from cskt.data.images import load_images
from cskt.data.pipeline import normalize
from cskt.metrics import Metrics, both_directions, per_query
from cskt.model.cskt import CSKT
from cskt.numerics import resolve_precision

MEASURES = ("R@1", "R@5", "R@10", "mAP", "mINP")
SplitMetrics = dict[str, dict[str, Metrics]]  # "val" or "test" -> direction -> measures
RESAMPLES = 1000  # of the bootstrap intervals in a run's record


@dataclass(frozen=True)
class LoadedSplit:
    """A split in memory: ``images`` uint8 (N, 3, H, W), possibly memory-mapped, and ``tokens``
    int64 (M, 77)."""

    split: Split
    images: Tensor
    tokens: Tensor


def load_split(model: CSKT, split: Split) -> LoadedSplit:
    """Decode (cached) and tokenise ``split``, at the image size of ``model``."""
    images = load_images(split, model.image_size)
    tokens = model.tokenize(list(split.captions))
    return LoadedSplit(split, images, tokens)


def evaluate(
    model: CSKT,
    split: Split | LoadedSplit,
    precision: str = "auto",
    batch_size: int = 256,
    resamples: int = RESAMPLES,
) -> dict[str, Metrics]:
    """Rank ``split`` with ``model``: R@1/5/10, mAP and mINP in percent, ``text_to_image`` and
    ``image_to_text``, with 95 % intervals from ``resamples`` bootstrap samples (0: without)."""
    loaded = _as_loaded(model, split)
    image_features, text_features = embed(model, loaded, precision, batch_size)
    return _rank(image_features, text_features, loaded.split, resamples)


def evaluate_queries(
    model: CSKT, loaded: LoadedSplit, precision: str
) -> tuple[dict[str, Metrics], dict[str, np.ndarray]]:
    """What :func:`evaluate` gives, and the arrays of a run's ``queries.npz``: how each caption
    ranked the images."""
    image_features, text_features = embed(model, loaded, precision)
    metrics = _rank(image_features, text_features, loaded.split, RESAMPLES)
    queries = _rank_queries(image_features, text_features, loaded.split)
    return metrics, queries


class Evaluator:
    """val and test of a data set, loaded once; where test stands in for val, evaluated once."""

    def __init__(self, model: CSKT, dataset: PersonRetrievalDataset, precision: str) -> None:
        self.precision = precision
        self.test = load_split(model, dataset.test)
        self.val = self.test
        if dataset.val is not dataset.test:
            self.val = load_split(model, dataset.val)

    def after_epoch(self, model: CSKT) -> SplitMetrics:
        """Both directions on val and on test, without intervals."""
        test = evaluate(model, self.test, self.precision, resamples=0)
        val = test
        if self.val is not self.test:
            val = evaluate(model, self.val, self.precision, resamples=0)
        return {"val": val, "test": test}

    def at_the_end(self, model: CSKT) -> tuple[SplitMetrics, dict[str, np.ndarray]]:
        """Both directions on val and on test, with intervals; and how each caption of test
        ranked (see :func:`evaluate_queries`)."""
        test, queries = evaluate_queries(model, self.test, self.precision)
        val = test
        if self.val is not self.test:
            val = evaluate(model, self.val, self.precision)
        return {"val": val, "test": test}, queries


def precision_effect(model: CSKT, split: Split | LoadedSplit) -> pd.DataFrame:
    """Text-to-image measures of ``model``, on its device, in fp32 and in bf16, and the difference,
    in points.

    Where the device has no bf16 of its own, torch computes it in software: the same rounding, only
    slower.
    """
    loaded = _as_loaded(model, split)
    rows = {}
    for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        with model.fused(dtype):
            metrics = evaluate(model, loaded, precision="fp32")["text_to_image"]
        rows[name] = {measure: metrics[measure] for measure in MEASURES}
    table = pd.DataFrame(rows).T
    table.loc["bf16 - fp32"] = table.loc["bf16"] - table.loc["fp32"]
    return table


def embed(
    model: CSKT, split: Split | LoadedSplit, precision: str = "auto", batch_size: int = 256
) -> tuple[Tensor, Tensor]:
    """:func:`embed_images` and :func:`embed_texts` of a split."""
    loaded = _as_loaded(model, split)
    image_features = embed_images(model, loaded, precision, batch_size)
    text_features = embed_texts(model, loaded, precision, batch_size)
    return image_features, text_features


def embed_images(
    model: CSKT, loaded: LoadedSplit, precision: str = "auto", batch_size: int = 256
) -> Tensor:
    """L2-normalised fp32 features (N, D) of every image, on the model's device."""
    return encode_images(model, loaded.images, precision, batch_size)


@torch.inference_mode()
def encode_images(
    model: CSKT, images: Tensor, precision: str = "auto", batch_size: int = 256
) -> Tensor:
    """The same of images (N, 3, H, W) uint8."""

    def encode(batch: Tensor) -> Tensor:
        return model.encode_image(normalize(batch.to(model.device)), normalize=True)

    return _encode_in_batches(model, encode, images, precision, batch_size)


@torch.inference_mode()
def embed_texts(
    model: CSKT, loaded: LoadedSplit, precision: str = "auto", batch_size: int = 256
) -> Tensor:
    """L2-normalised fp32 features (M, D) of every caption, on the model's device."""

    def encode(batch: Tensor) -> Tensor:
        return model.encode_text(batch, normalize=True)

    lengths = loaded.tokens.ne(0).sum(1)
    order = lengths.argsort(stable=True)  # captions of one length pad little
    features = _encode_in_batches(model, encode, loaded.tokens[order], precision, batch_size)
    return torch.empty_like(features).index_copy(0, order.to(features.device), features)


@contextlib.contextmanager
def ready(model: CSKT, precision: str = "auto") -> Iterator[CSKT]:
    """Within the block, the model fused for inference in ``precision`` (see
    :func:`cskt.numerics.resolve_precision`)."""
    was_training = model.training
    dtype = None
    if resolve_precision(precision, model.device.type) == "bf16":
        dtype = torch.bfloat16
    try:
        with model.fused(dtype):
            yield model
    finally:
        model.train(was_training)


def _encode_in_batches(
    model: CSKT, encode: Callable[[Tensor], Tensor], inputs: Tensor, precision: str, batch_size: int
) -> Tensor:
    with ready(model, precision):
        features = [encode(batch) for batch in inputs.split(batch_size)]
    # Normalised in fp32 whatever the blocks computed in: rankings turn on small differences of
    # cosines.
    return torch.cat(features).float()


def _as_loaded(model: CSKT, split: Split | LoadedSplit) -> LoadedSplit:
    if isinstance(split, LoadedSplit):
        return split
    return load_split(model, split)


def _rank(
    image_features: Tensor, text_features: Tensor, split: Split, resamples: int
) -> dict[str, Metrics]:
    return both_directions(
        text_features,
        image_features,
        split.caption_identities,
        split.image_identities,
        resamples=resamples,
    )


def _rank_queries(
    image_features: Tensor, text_features: Tensor, split: Split
) -> dict[str, np.ndarray]:
    ranked = per_query(
        text_features, image_features, split.caption_identities, split.image_identities
    )
    return {
        "query_identities": ranked.query_identities.astype(np.int64),
        "first_rank": ranked.first_rank.astype(np.int32),
        "average_precision": ranked.average_precision.astype(np.float32),
        "inverse_negative_penalty": ranked.inverse_negative_penalty.astype(np.float32),
    }


def precision_effect(run: Run, split: Split | LoadedSplit) -> pd.DataFrame:
    """Text-to-image measures of a run's model in fp32 and in bf16, and the difference, in points.

    Where the device has no bf16 of its own, torch computes it in software: the same rounding, only
    slower.
    """
    model, measured = run.load_model().to(resolve_device(run.config.device)), {}
    for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        with model.fused(dtype):
            ranked = evaluate(model, split, precision="fp32")["text_to_image"]
        measured[name] = {
            measure: ranked[measure] for measure in ("R@1", "R@5", "R@10", "mAP", "mINP")
        }
    table = pd.DataFrame(measured).T
    table.loc["bf16 - fp32"] = table.loc["bf16"] - table.loc["fp32"]
    return table


def transfer(run: Run, dataset: PersonRetrievalDataset) -> dict[str, Any]:
    """The record of a run's model on the test split of another data set, of which it has seen
    nothing."""
    start, held = time.monotonic(), run.metrics
    model = run.load_model().to(resolve_device(run.config.device))
    measured = evaluate(model, dataset.test, held["precision"])
    return {
        **held,
        "kind": "transfer",
        "source": held["dataset"],
        "source_fingerprint": held["data_fingerprint"],
        "run": run.folder.name,
        "dataset": dataset.name,
        "synthetic": dataset.synthetic,
        "data_fingerprint": dataset.fingerprint,
        "data_version": getattr(dataset, "version", None),
        "metrics": measured,
        "selected": None,
        "val_metrics": None,
        "zero_shot": None,
        "zero_shot_val": None,
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "duration_s": round(time.monotonic() - start, 3),
        **environment(next(model.parameters()).device.type),
    }


def build_model(config: TrainConfig) -> CSKT:
    """The model of a run before training, on the CPU: new (and random backbone) weights follow from
    the run's seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        return load_model(config.backbone, config.pretrained, config.image_size, config.cskt)


def weights_fingerprint(config: TrainConfig) -> str:
    """What the frozen weights are: the sha256 of their file (16 hex digits), else the tag, else
    ``"random"``."""
    source = weights_source(config.backbone, config.pretrained)
    if source is None:
        return RANDOM
    return (
        hashlib.sha256(source.read_bytes()).hexdigest()[:16] if isinstance(source, Path) else source
    )


def environment(device: str) -> dict[str, Any]:
    """Where and with what a run was made: ``commit``, ``dirty``, ``versions``, ``hardware`` (None:
    not known).

    ``dirty``: whether a file in git was changed, other than results, which runs and notebooks
    write. ``hardware["capability"]``: the vector instructions that torch's own kernels use.
    """

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", *arguments],
            text=True,
            cwd=Path(__file__).parent,
            capture_output=True,
            check=True,
            timeout=60,
        ).stdout.strip()

    commit, dirty, versions = None, None, dict.fromkeys(PACKAGES)
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        written = ":(top,exclude)book/results", ":(top,exclude)book/_assets/search"
        changed = git("status", "--porcelain", "--untracked-files=no", "--", ":/", *written)
        commit, dirty = git("rev-parse", "HEAD"), bool(changed)
    for package in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[package] = importlib.metadata.version(package)
    processor = (
        torch.cuda.get_device_name()
        if device == "cuda"
        else platform.processor() or platform.machine()
    )
    return {
        "commit": commit,
        "dirty": dirty,
        "versions": {"python": platform.python_version(), **versions},
        "hardware": {
            "platform": platform.platform(),
            "cpu_count": os.cpu_count(),
            "threads": torch.get_num_threads(),
            "device": processor,
            "processor": _processor(),
            "capability": torch.backends.cpu.get_cpu_capability(),
        },
    }


def _processor() -> str | None:
    """The name that the processor gives itself, where the system tells it."""
    with contextlib.suppress(OSError):
        for line in (
            Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
        ):
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                return value.strip()
    return platform.processor() or None


def read_config(path: Path) -> TrainConfig:
    """The :class:`TrainConfig` in a yaml file; an unreadable or malformed one is a
    :class:`CSKTError`."""
    values = read_yaml(path)
    try:
        return TrainConfig.from_dict(values)
    except CSKTError as error:
        raise CSKTError(f"{path}: {error}") from error


def run_name(config: TrainConfig) -> str:
    """``dataset-method-seedN-xxxxxxxx``, the last part a digest of the settings that are not the
    paper's. Where the data lie and the run goes does not count."""
    paper = TrainConfig().to_dict()
    settings = {**config.to_dict(), "output": None, "data_root": None}
    decisive = {name: value for name, value in settings.items() if value != paper[name]}
    method = {}
    for name, value in settings["cskt"].items():
        if value != paper["cskt"][name]:
            method[name] = value
    decisive["cskt"] = method
    digest = hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()[:8]
    return f"{config.dataset}-{config.method}-seed{config.seed}-{digest}"


@dataclass(frozen=True)
class Run:
    """A finished run: what was asked (``config``), what happened (``history``), what came out
    (``metrics``).

    The model that is kept is that of one epoch, as ``config.selection`` says: of the epoch with the
    best text-to-image R@1 on val (``"val"``) or on test (``"test"``; mAP decides between equal R@1,
    then the earlier epoch), or of the last one (``"last"``). ``metrics["metrics"]`` are its figures
    on test. ``metrics["selected"]`` holds for each of the three rules the ``epoch`` it chooses and
    that epoch's ``metrics`` on test, so that the gap between them is known: a figure that was
    chosen on test is too good by it. An untrained run has epoch 0 in all three. ``queries.npz`` in
    the folder says how each caption of test ranked the images (see :meth:`queries`).
    """

    folder: Path
    config: TrainConfig
    history: list[dict[str, Any]]
    metrics: dict[str, Any]

    @classmethod
    def load(cls, folder: str | Path) -> Run:
        """Read a finished run; a :class:`CSKTError` where ``folder`` holds none."""
        folder = Path(folder)
        for name in (CONFIG, METRICS, HISTORY, ADAPTER, QUERIES):
            if not (folder / name).is_file():
                held = "an unfinished run" if (folder / CONFIG).is_file() else "no run"
                raise CSKTError(
                    f"{folder} holds {held} ({name} is missing); train it first with python -m cskt train."
                )
        try:
            metrics = json.loads((folder / METRICS).read_text())
            if not {"metrics", "weights_fingerprint"} <= set(metrics):
                raise ValueError("fields are missing")
            table = pd.read_csv(folder / HISTORY, dtype=str)
            table = table.assign(
                **dict.fromkeys(set(SPECTRUM) - set(table), "nan")
            )  # of a run that did not measure it
            history = table.astype(HISTORY_TYPES).to_dict("records")
        except (ValueError, TypeError, KeyError) as error:
            raise CSKTError(
                f"{folder} holds a damaged {METRICS} or {HISTORY} ({error}); overwrite it."
            ) from error
        return cls(folder, read_config(folder / CONFIG), history, metrics)

    def queries(self) -> dict[str, np.ndarray]:
        """The kept model's ranking of the test images for each of Q captions, arrays (Q,):
        ``query_identities``, ``first_rank`` (from 1; 0: no match in the gallery),
        ``average_precision``, ``inverse_negative_penalty``."""
        path = self.folder / QUERIES
        try:
            with np.load(path) as arrays:
                return dict(arrays)
        except (OSError, ValueError, zipfile.BadZipFile) as error:
            raise CSKTError(
                f"{path} is not a readable npz file ({error}); train the run again."
            ) from error

    def load_model(self) -> CSKT:
        """The model at its kept epoch, on the CPU, in eval mode; :class:`CSKTError` if the
        backbone's weights are no longer the run's."""
        held, found = self.metrics["weights_fingerprint"], weights_fingerprint(self.config)
        if held != found:
            raise CSKTError(
                f"{self.folder} was trained on backbone weights {held} but {self.config.backbone} now has "
                f"{found}; restore those weights or train again."
            )
        model, path = build_model(self.config), self.folder / ADAPTER
        try:
            model.load_trainable_state(load_file(path))
        except (OSError, SafetensorError) as error:
            raise CSKTError(
                f"{path} is not a readable safetensors file ({error}); train the run again."
            ) from error
        return model.eval()


def open_model(source: str | Path, pretrained: str | None = None) -> CSKT:
    """The model of a run's folder or of a saved model's, or ``"cskt-mini"`` as it comes, without
    training; in eval mode on the best device. ``pretrained``: where a saved model's backbone has
    its weights now."""
    folder = Path(source)
    if (folder / CONFIG_FILE).is_file() and not (folder / METRICS).is_file():
        model = CSKT.from_pretrained(folder, pretrained=pretrained)
    elif str(source) == MINI:
        model = load_model(MINI, config=CSKTConfig.mini().for_method("zero-shot")).eval()
    else:
        model = Run.load(folder).load_model()
    return model.to(resolve_device("auto"))
