"""What the prompts do in a model: who reads them, where, and what is lost without them.

Attention is read from the towers that train (:class:`cskt.model.recording.Record`), never from a
second implementation.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from scipy.stats import hypergeom
from torch import Tensor

from cskt.errors import CSKTError

from .data.pipeline import normalize
from .data.synthetic.mentions import Mention
from .evaluation import LoadedSplit, embed_images, embed_texts
from .metrics import bootstrap, rank_features
from .knockout import PARTS, without
from .model.cskt import CSKT
from .model.recording import Record

Layers = Collection[int] | None
FEATURE_READERS = ("class token", "end token")  # what becomes the feature
KINDS = {
    "own": True,
    "projected": False,
}  # of prompts: of this tower, or made from the other tower's


def traffic(
    model: CSKT, images: Tensor, token_ids: Tensor, layers: Layers = None, batch_size: int = 16
) -> pd.DataFrame:
    """How much attention is paid to the prompts: a row per tower, layer, head, reader and kind of
    prompt.

    ``share`` is the mean over all images, or captions, of the part of a reader's attention that
    goes to prompts of that kind, and ``uniform`` what it would be if each reader looked at all that
    it can see alike.
    """
    index, totals = (
        ["tower", "layer", "head", "reader", "prompts"],
        defaultdict(lambda: np.zeros(3)),
    )
    for tower, inputs in (("vision", images), ("text", token_ids)):
        own = model.prompts.own(tower).cpu()
        for part in inputs.split(batch_size):
            (record,) = (
                _record(model, part, None, layers)
                if tower == "vision"
                else _record(model, None, part, layers)
            )
            for layer, weights in record.attention.items():
                columns = _columns(model, tower, part, weights.shape[2])
                prompts, place = (
                    columns.pop("prompts")[0].nonzero()[:, 0],
                    torch.arange(weights.shape[2]),
                )
                seen = place + 1 if tower == "text" else torch.full_like(place, len(place))
                for (reader, mask), (kind, is_own) in itertools.product(
                    columns.items(), KINDS.items()
                ):
                    wanted, mask = prompts[own == is_own], mask.expand(len(weights), -1)
                    if len(wanted):
                        shares = (
                            weights[..., wanted]
                            .sum(-1)
                            .mul(mask[:, None].to(weights))
                            .sum((0, 2))
                            .tolist()
                        )
                        even, count = (mask * len(wanted) / seen).sum().item(), mask.sum().item()
                        for head, share in enumerate(shares):
                            totals[tower, layer, head, reader, kind] += (share, even, count)
    rows = [(*key, share / count, even / count) for key, (share, even, count) in totals.items()]
    return pd.DataFrame(rows, columns=[*index, "share", "uniform"])


def prompt_names(model: CSKT, tower: str) -> list[str]:
    """Names of the P prompts in the ``"vision"`` or ``"text"`` tower, row by row, such as "own 1"
    or "projected 4"."""
    counts = {True: itertools.count(1), False: itertools.count(1)}
    return [
        f"{'own' if own else 'projected'} {next(counts[own])}"
        for own in model.prompts.own(tower).tolist()
    ]


def prompt_maps(model: CSKT, images: Tensor, layers: Layers = None) -> Tensor:
    """(B, layers, heads, P, rows, columns): the attention that each patch of each image pays to
    each prompt."""
    (record,) = _record(model, images, None, layers)
    grid = model.backbone.visual.grid_size
    behind = 1 + grid[0] * grid[1]
    maps = torch.stack(
        [weights[:, :, 1:behind, behind:] for weights in record.attention.values()], 1
    )
    return maps.transpose(-1, -2).unflatten(-1, tuple(grid)).cpu()


def word_maps(model: CSKT, token_ids: Tensor, layers: Layers = None) -> Tensor:
    """(B, layers, heads, P, 77 - P): the attention that each token behind the prompts pays to each
    prompt: words, then the end token, then padding, which means nothing."""
    (record,) = _record(model, None, token_ids, layers)
    first = 1 + model.num_prompts
    maps = torch.stack([weights[:, :, first:, 1:first] for weights in record.attention.values()], 1)
    return maps.transpose(-1, -2).cpu()


def image_relevance(model: CSKT, images: Tensor, directions: Tensor) -> Tensor:
    """(B, rows, columns) >= 0: what each patch contributes to the cosine of each image with its
    direction (B, D).

    Gradient-weighted attention through all layers (Chefer, Gur and Wolf, ICCV 2021): a token's
    relevance grows by what passes to it through heads whose weight would raise the cosine.
    """
    rolled = _rollout(
        lambda record: model.encode_image(images.to(model.device), record=record), directions
    )
    grid = model.backbone.visual.grid_size
    return rolled[:, 0, 1 : 1 + grid[0] * grid[1]].unflatten(1, tuple(grid))


def text_relevance(model: CSKT, token_ids: Tensor, directions: Tensor) -> Tensor:
    """(B, 77 - P) >= 0: the same of each token behind the prompts for the cosine of a caption with
    its direction."""
    rolled = _rollout(lambda record: model.encode_text(token_ids, record=record), directions)
    end = (
        _columns(model, "text", token_ids, rolled.shape[1])["end token"]
        .int()
        .argmax(1)
        .to(rolled.device)
    )
    return rolled[torch.arange(len(rolled)), end][:, 1 + model.num_prompts :]


@torch.no_grad()
def word_differences(model: CSKT, caption: str) -> Tensor:
    """(words, D): the L2-normalised feature of a caption less that of the caption without each of
    its words. Its product with an image's feature is what the word adds to their cosine."""
    words = caption.split()
    without = [" ".join(words[:i] + words[i + 1 :]) for i in range(len(words))]
    features = model.encode_text(model.tokenize([caption, *without]), normalize=True).float()
    return features[:1] - features[1:]


def ground(
    model: CSKT,
    images: Tensor,
    captions: Sequence[str],
    spans: Sequence[tuple[int, int]],
    batch_size: int = 32,
) -> Tensor:
    """(M, rows, columns): where image m of (M, 3, H, W) uint8 answers the words ``spans[m]`` of
    ``captions[m]``.

    A span is ``(first, behind last)`` in ``caption.split()``. What its words say is the caption's
    feature less that of the caption without them; the map is the :func:`image_relevance` for that
    direction.
    """
    maps, was_training = [], model.training
    model.eval()
    for first in range(0, len(captions), batch_size):
        part = slice(first, first + batch_size)
        words = [caption.split() for caption in captions[part]]
        without = [
            " ".join(each[:a] + each[b:]) for each, (a, b) in zip(words, spans[part], strict=True)
        ]
        with torch.no_grad():
            whole, rest = (
                model.encode_text(model.tokenize(list(texts)), normalize=True)
                for texts in (captions[part], without)
            )
        maps.append(
            image_relevance(model, normalize(images[part].to(model.device)), whole - rest).cpu()
        )
    model.train(was_training)
    return torch.cat(maps) if maps else torch.zeros(0, *model.backbone.visual.grid_size)


def grounding_scores(
    models: Mapping[str, CSKT], images: Tensor, mentions: Sequence[Mention]
) -> pd.DataFrame:
    """How well each model grounds mentions in ``images`` (N, 3, H, W) uint8, a split's pictures:
    :func:`pointing`, a row per model and mention, with ``model``, ``part`` and ``identity``."""
    shown, masks = (
        images[[each.image for each in mentions]],
        np.stack([each.mask for each in mentions]),
    )
    captions, spans = [each.caption for each in mentions], [each.span for each in mentions]
    facts = {
        "part": [each.part for each in mentions],
        "identity": [each.identity for each in mentions],
    }
    return pd.concat(
        [
            pointing(ground(model, shown, captions, spans).numpy(), masks).assign(
                model=name, **facts
            )
            for name, model in models.items()
        ],
        ignore_index=True,
    )


def pointing(maps: np.ndarray, masks: np.ndarray) -> pd.DataFrame:
    """How well maps (N, rows, columns) find masks (N, H, W) bool: a row for each, ``pointing``,
    ``IoU``, their chance.

    Map and mask cover the same picture, whatever their sizes. A cell of the map is right if the
    mask touches it. ``pointing``: whether the highest cell is right (Zhang et al., IJCV 2018).
    ``IoU``: of the right cells and as many highest ones. ``... by chance``: expected of a random
    map. Empty masks are a :class:`CSKTError`.
    """
    if len(maps) != len(masks):
        raise CSKTError(f"there must be one mask for each map, got {len(masks)} for {len(maps)}.")
    count, rows, columns = maps.shape
    right = (
        F.adaptive_max_pool2d(torch.from_numpy(masks).float()[:, None], (rows, columns))
        .bool()
        .flatten(1)
        .numpy()
    )
    cells, flat, total = right.sum(1), maps.reshape(count, -1), rows * columns
    if not cells.all():
        raise CSKTError("each mask must touch a cell; leave out parts that are not visible.")
    order = (-flat).argsort(1, kind="stable")
    hit = np.take_along_axis(right, order, 1)
    common = np.array([found[:size].sum() for found, size in zip(hit, cells, strict=True)])
    expected = {}
    for size in np.unique(cells):
        shared = np.arange(size + 1)
        expected[size] = (
            hypergeom.pmf(shared, total, size, size) * shared / (2 * size - shared)
        ).sum()
    return pd.DataFrame(
        {
            "pointing": hit[:, 0].astype(float),
            "IoU": common / (2 * cells - common),
            "pointing by chance": cells / total,
            "IoU by chance": [expected[size] for size in cells],
        }
    )


def interval(values: Sequence[float], groups: Sequence[int]) -> tuple[float, float, float]:
    """Mean of values and its 95 % interval: bootstrap over groups, whose values are drawn
    together."""
    low, high = bootstrap(np.asarray(values, float)[:, None], np.asarray(groups))[0]
    return float(np.mean(values)), float(low), float(high)


def knock_out(
    model: CSKT, split: LoadedSplit, precision: str = "auto", whole: bool = True
) -> pd.DataFrame:
    """R@1 (text to image, percent) without each part at each layer, and with ``whole`` at all
    layers at once: a row per tower, part and layer (-1: all), ``lost`` points against the whole
    model."""
    encode = {"vision": embed_images, "text": embed_texts}
    features = {tower: encode[tower](model, split, precision) for tower in encode}

    def recall(features: dict[str, Tensor]) -> float:
        return rank_features(
            features["text"],
            features["vision"],
            split.split.caption_identities,
            split.split.image_identities,
        )["R@1"]

    rows, intact = [], recall(features)
    for tower in encode:
        own, adapters = model.prompts.own(tower), getattr(model, f"{tower}_adapters")
        blocks = len(
            (model.backbone.visual if tower == "vision" else model.backbone).transformer.resblocks
        )
        held = {
            "own prompts": model.prompts.depth * bool(own.any()),
            "adapter": len(adapters),
            "projected prompts": model.prompts.depth * bool((~own).any()),
        }
        for part in PARTS:
            for layer in [-1] * (whole and held[part] > 0) + list(range(min(held[part], blocks))):
                with without(model, tower, part, layers=None if layer < 0 else [layer]):
                    found = recall({**features, tower: encode[tower](model, split, precision)})
                rows.append(
                    {
                        "tower": tower,
                        "part": part,
                        "layer": layer,
                        "R@1": found,
                        "lost": intact - found,
                    }
                )
    return pd.DataFrame(rows, columns=["tower", "part", "layer", "R@1", "lost"])


@torch.no_grad()
def coupling(model: CSKT) -> pd.DataFrame:
    """How alike own and projected prompts are where they meet: a row per tower and layer, mean
    ``cosine`` and linear ``CKA`` (Kornblith et al., ICML 2019); with n prompts CKA compares two n x
    n matrices, so with few it is coarse."""
    rows = []
    for tower in ("vision", "text"):
        own = model.prompts.own(tower)
        for layer, both in enumerate(getattr(model.prompts, f"{tower}_rows")()):
            mine, projected = both[own].double(), both[~own].double()
            if not len(mine) or not len(projected):
                continue
            cosine = (F.normalize(mine, dim=1) @ F.normalize(projected, dim=1).t()).mean().item()
            a, b = (x - x.mean(0) for x in (mine, projected))
            cka = (
                (a.t() @ b).norm() ** 2 / ((a.t() @ a).norm() * (b.t() @ b).norm())
            ).item()  # nan of one prompt
            rows.append({"tower": tower, "layer": layer, "cosine": cosine, "CKA": cka})
    return pd.DataFrame(rows, columns=["tower", "layer", "cosine", "CKA"])


@torch.no_grad()
def nearest_words(model: CSKT, count: int = 3) -> pd.DataFrame:
    """The tokens nearest to the prompts that the text tower reads at its first layer, by cosine: a
    row per prompt.

    ``usual`` is how near, in the middle, a token that the backbone knows lies to its own nearest
    other one: a prompt farther away than that lies between words rather than at one, and its words
    mean nothing. Prompts of later layers stand among hidden states, where no table of words exists.
    """
    table = model.backbone.token_embedding.weight
    known = torch.tensor(
        sorted(model.known_tokens) if model.known_tokens else range(len(table)), device=table.device
    )
    known = known[known < model.end_token - 1]  # not the start and end tokens
    table, names = F.normalize(table[known], dim=1), prompt_names(model, "text")
    sample = table[:: max(1, len(table) // 2000)]
    usual = (sample @ table.t()).topk(2, 1).values[:, 1].median().item()
    rows = []
    for number, prompt in enumerate(model.prompts.text_rows()[0] if names else ()):
        near = (table @ F.normalize(prompt, dim=0)).topk(count)
        words = [model.tokenizer.decode([token]).strip() for token in known[near.indices].tolist()]
        rows.append(
            {
                "prompt": names[number],
                "nearest words": ", ".join(words),
                "cosine": near.values[0].item(),
                "usual": usual,
                "at a word": "yes" if near.values[0] >= usual else "no",
            }
        )
    return pd.DataFrame(rows, columns=["prompt", "nearest words", "cosine", "usual", "at a word"])


def traffic_findings(
    before: pd.DataFrame, after: pd.DataFrame, readers: Sequence[str] = FEATURE_READERS
) -> list[str]:
    """A sentence per tower and kind of prompt: what its reader gives to them on average, and where
    most."""
    lines = []
    for (tower, kind), part in after[after["reader"].isin(readers)].groupby(
        ["tower", "prompts"], sort=False
    ):
        start = before.query("tower == @tower and prompts == @kind and reader in @readers")[
            "share"
        ].mean()
        most = part.loc[part["share"].idxmax()]
        share, uniform = (100 * part[column].mean() for column in ("share", "uniform"))
        lines.append(
            f"{tower}, {kind} prompts: {part['reader'].iloc[0]}: {share:.1f} % of the attention "
            f"({100 * start:.1f} % before training, {uniform:.1f} % if spread evenly), most at layer "
            f"{most['layer'] + 1}, head {most['head'] + 1}: {100 * most['share']:.0f} %."
        )
    return lines


def grounding_table(scores: pd.DataFrame) -> pd.DataFrame:
    """Pointing game and IoU by part and model with 95 % intervals over people, percent, beside
    chance; ``scores`` of :func:`grounding_scores`."""
    groups = [*scores.groupby("part"), ("all", scores)]
    rows = []
    for part, group in groups:
        row = {"part": part, "mentions": int((group["model"] == group["model"].iloc[0]).sum())}
        for measure in ("pointing", "IoU"):
            row[f"{measure} by chance"] = f"{100 * group[f'{measure} by chance'].mean():.0f}"
            for model, each in group.groupby("model", sort=False):
                mean, low, high = (
                    100 * value for value in interval(each[measure], each["identity"])
                )
                row[f"{measure}, {model}"] = f"{mean:.0f} ({low:.0f} to {high:.0f})"
        rows.append(row)
    return pd.DataFrame(rows)


def grounding_findings(scores: pd.DataFrame, first: str, second: str) -> list[str]:
    """Which of two models points better, mention by mention, with the 95 % interval of the
    difference over people."""
    lines = []
    for measure in ("pointing", "IoU"):
        one, other = (scores[scores["model"] == model].reset_index() for model in (first, second))
        gap, low, high = (
            100 * value for value in interval(one[measure] - other[measure], one["identity"])
        )
        verdict = "told apart" if low * high > 0 else "not told apart"
        lines.append(
            f"{measure}: {first} less {second}: {gap:+.1f} points ({low:+.1f} to {high:+.1f}), {verdict}."
        )
    return lines


def knock_out_findings(lost: pd.DataFrame) -> list[str]:
    """Per tower and part, what is lost without it everywhere, and at its most needed layer."""
    lines = []
    for (tower, part), group in lost.groupby(["tower", "part"], sort=False):
        single, every = group[group["layer"] >= 0], group[group["layer"] < 0]["lost"]
        most = single.loc[single["lost"].idxmax()]
        without_any = f", and {every.iloc[0]:.1f} without any" if len(every) else ""
        lines.append(
            f"{tower}, {part}: R@1 loses {most['lost']:.1f} points without them at layer "
            f"{most['layer'] + 1:.0f}, the most of any layer{without_any}."
        )
    return lines or ["The model has no prompts and no adapters to take out."]


def modality_gap(image_features: Tensor, text_features: Tensor) -> float:
    """Distance of the mean image feature (N, D) from the mean text feature (Liang et al., NeurIPS
    2022)."""
    return (image_features.mean(0) - text_features.mean(0)).norm().item()


def coupling_findings(coupling: pd.DataFrame, history: Sequence[dict[str, Any]]) -> str:
    """How much alike own and projected prompts are, and whether the maps between the towers
    collapsed."""
    parts = [
        f"{tower}: mean cosine {group['cosine'].mean():.2f}, CKA {group['CKA'].mean():.2f}"
        for tower, group in coupling.groupby("tower", sort=False)
    ]
    for direction in ("T2V", "V2T"):
        first, last = (history[end][f"{direction} rank"] for end in (0, -1))
        if not np.isnan(first + last):
            parts.append(
                f"{direction}: effective rank {first:.0f} after the first epoch, {last:.0f} after the last"
            )
    return "; ".join(parts) + "."


def plane(features: Tensor, method: str = "PCA", seed: int = 0) -> np.ndarray:
    """(N, 2): features (N, D) in the plane of their two principal components, or by ``"t-SNE"``
    with a fixed seed.

    A principal component points to where its largest number is positive: its sign is any chip's
    choice otherwise."""
    from sklearn.manifold import TSNE

    centred = (features - features.mean(0)).double().cpu()
    if method == "PCA":
        _, _, axes = torch.linalg.svd(centred, full_matrices=False)
        axes = axes[:2]
        largest = axes.gather(1, axes.abs().argmax(1, keepdim=True))
        return (centred @ (axes * largest.sign()).t()).numpy()
    if method != "t-SNE":
        raise CSKTError(f"method must be 'PCA' or 't-SNE', got {method!r}.")
    perplexity = min(30, (len(centred) - 1) / 3)
    return TSNE(init="pca", random_state=seed, perplexity=perplexity).fit_transform(centred.numpy())


def _record(
    model: CSKT, images: Tensor | None, token_ids: Tensor | None, layers: Layers
) -> list[Record]:
    """What the towers record of what is given, in eval mode and without gradients."""
    records, was_training = [], model.training
    model.eval()
    with torch.no_grad():
        for encode, inputs in ((model.encode_image, images), (model.encode_text, token_ids)):
            if inputs is not None:
                records.append(Record(layers))
                encode(inputs.to(model.device), record=records[-1])
    model.train(was_training)
    return records


def _columns(model: CSKT, tower: str, token_ids: Tensor, width: int) -> dict[str, Tensor]:
    """(B or 1, width) bool: which columns of a recorded tower are prompts, and which are each kind
    of reader."""
    count = model.num_prompts
    if tower == "vision":
        grid = model.backbone.visual.grid_size
        patches, place = grid[0] * grid[1], torch.arange(width)[None]
        return {
            "class token": place == 0,
            "patches": (place > 0) & (place <= patches),
            "prompts": place > patches,
        }
    place = torch.arange(width)[None]
    end = (token_ids.cpu() == model.end_token).int().argmax(1, keepdim=True) + count
    end = end.clamp(max=width - 1)
    return {
        "words": (place > count) & (place < end),
        "end token": place == end,
        "prompts": (place > 0) & (place <= count),
    }


def _rollout(encode: Callable[[Record], Tensor], directions: Tensor) -> Tensor:
    """(B, columns, columns): relevance of every column for every other through all layers."""
    record = Record()
    with torch.enable_grad():
        cosine = (F.normalize(encode(record), dim=1) * directions.detach()).sum()
        weights = list(record.attention.values())
        gradients = torch.autograd.grad(cosine, weights)
    first = weights[0]
    rolled = torch.eye(first.shape[-1], dtype=first.dtype, device=first.device).expand(
        len(first), -1, -1
    )
    for weight, gradient in zip(weights, gradients, strict=True):
        rolled = rolled + (weight.detach() * gradient).clamp(min=0).mean(1) @ rolled
    return rolled
