"""What the prompts do in a model: who reads them, where, and what is lost without them.

Attention is read from the towers that train (:class:`cskt.model.recording.Record`), never from a
second implementation.
"""

from __future__ import annotations

import pandas as pd
from torch import Tensor

from cskt.evaluation import LoadedSplit, embed_images, embed_texts
from cskt.metrics import rank_features
from cskt.model.cskt import CSKT

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


def _removable(model: CSKT, tower: str) -> dict[str, list[int]]:
    """The parts that a tower has, each with the layers where it stands, all of them at once
    first."""
    is_own = model.prompts.own(tower)
    adapters = model.vision_adapters if tower == "vision" else model.text_adapters
    depths = {
        "own prompts": model.prompts.depth if is_own.any() else 0,
        "projected prompts": model.prompts.depth if (~is_own).any() else 0,
        "adapter": len(adapters),
    }
    removable = {}
    for part, depth in depths.items():
        if depth > 0:
            removable[part] = [EVERY_LAYER, *range(depth)]
    return removable


def _recall(features: dict[str, Tensor], split: LoadedSplit) -> float:
    """R@1 of the captions, by the features of both towers."""
    captions = split.split.caption_identities
    images = split.split.image_identities
    metrics = rank_features(features["text"], features["vision"], captions, images)
    return metrics["R@1"]
