"""What the prompts page looks at: one run, one picture and its caption."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
import torch

from cskt.analysis.attention import Layers, prompt_maps, traffic
from cskt.analysis.grounding import ground
from cskt.analysis.relevance import image_relevance, word_differences
from cskt.analysis.space import modality_gap, plane
from cskt.data.augment import normalize
from cskt.data.datasets import load_dataset
from cskt.errors import ConfigurationError
from cskt.evaluation import embed, load_split
from cskt.model.cskt import CSKT
from cskt.numerics import resolve_device
from cskt.runs import Run, build_model
from cskt.synthetic.mentions import Mention, attribute_rows, mentions_of

NO_PROMPTS = "This model has no prompts: there is nothing to show here."
NO_MASKS = "Where the garments are is known for SynthPEDES only: grounding is not measured here."
SHOWN = 12  # test images to choose from, the example first
COUNTED = 128  # test images and captions whose attention is averaged


@dataclass(frozen=True)
class Phrase:
    """Words of a caption, where in the picture what they name is (None: nobody knows), and by
    model where the model finds it (rows, columns)."""

    words: str
    mask: np.ndarray | None
    maps: dict[str, np.ndarray]


@dataclass(frozen=True)
class Space:
    """Images and captions in the plane: ``points`` (N, 2) by model and method, whether each
    ``is_image``, ``labels`` by what they tell, and each model's modality gap."""

    points: dict[str, np.ndarray]
    is_image: np.ndarray
    labels: dict[str, list]
    gaps: dict[str, float]


class View:
    """What the prompts notebook looks at: a run's model, the same before training, and its backbone
    alone (``models``: the last and the first by name); test image ``example`` with its first
    caption; ``layers`` from 1 (None: all).

    :class:`ConfigurationError` for an image or layer that does not exist.
    """

    def __init__(self, run: Run, example: int = 0, layers: Layers = None) -> None:
        config = run.config
        device = resolve_device(config.device)
        self.run = run
        self.data = load_dataset(config.dataset, config.data_root)
        self.test = self.data.test
        self.model: CSKT = run.load_model().to(device)
        self.fresh: CSKT = build_model(config).to(device).eval()
        bare_config = dataclasses.replace(config, method="zero-shot")
        bare = build_model(bare_config).to(device).eval()
        self.name = "CSKT" if config.method == "cskt" else config.method
        self.models: dict[str, CSKT] = {"zero-shot": bare, self.name: self.model}
        backbone: Any = self.model.backbone
        self.blocks = {
            "vision": len(backbone.visual.transformer.resblocks),
            "text": len(backbone.transformer.resblocks),
        }
        blocks = max(self.blocks.values())
        self._check_choice(example, layers, blocks)
        self.layers = list(range(blocks))
        if layers is not None:
            self.layers = sorted(layer - 1 for layer in layers)
        self.loaded = load_split(self.model, self.test)
        self.images = normalize(self.loaded.images[:COUNTED])
        self.tokens = self.loaded.tokens[:COUNTED]
        self.shown = self._one_image_a_person(example)
        shown_images = self.loaded.images[self.shown]
        self.shown_images = normalize(shown_images)
        self.pictures = shown_images.permute(0, 2, 3, 1).numpy()
        self.picture = self.pictures[0]
        captions = np.flatnonzero(self.test.caption_images == example)
        self.caption = self.test.captions[captions[0]]
        self.token_ids = self.model.tokenize([self.caption])

    def _check_choice(self, example: int, layers: Layers, blocks: int) -> None:
        images = len(self.test.image_paths)
        every_layer = set(range(1, blocks + 1))
        known_layers = layers is None or set(layers) <= every_layer
        if not known_layers or not 0 <= example < images:
            raise ConfigurationError(
                f"example must be a test image from 0 to {images - 1} and layers from 1 to "
                f"{blocks}, got {example} and {layers}."
            )

    def _one_image_a_person(self, example: int) -> list[int]:
        """The example, then the first test image of each person, so many as are shown."""
        _, first_images = np.unique(self.test.image_identities, return_index=True)
        shown = [example]
        for image in sorted(first_images.tolist()):
            if image != example:
                shown.append(image)
        return shown[:SHOWN]

    @property
    def prompts(self) -> bool:
        """Whether the model has any."""
        return self.model.num_prompts > 0

    def layers_of(self, tower: str) -> list[int]:
        """Those of the layers to look at that a tower has."""
        return [layer for layer in self.layers if layer < self.blocks[tower]]

    @cached_property
    def traffic(self) -> pd.DataFrame:
        """Attention to prompts in the trained model, of :func:`cskt.analysis.attention.traffic`."""
        return traffic(self.model, self.images, self.tokens, self.layers)

    @cached_property
    def traffic_before(self) -> pd.DataFrame:
        """The same before training."""
        return traffic(self.fresh, self.images, self.tokens, self.layers)

    def prompt_maps(self, pictures: int) -> np.ndarray:
        """(pictures, layers, P, rows, columns): of the first pictures, averaged over heads."""
        images = self.shown_images[:pictures]
        maps = prompt_maps(self.model, images, self.layers)
        return maps.mean(2).numpy()

    def word_effects(self) -> dict[str, np.ndarray]:
        """By model, what each word of the caption (words,) adds to the similarity to the
        picture."""
        effects = {}
        for name, model in self.models.items():
            image = self.shown_images[:1].to(model.device)
            with torch.no_grad():
                feature = model.encode_image(image, normalize=True)[0]
            differences = word_differences(model, self.caption)
            effects[name] = (differences @ feature).cpu().numpy()
        return effects

    def image_relevance(self) -> dict[str, np.ndarray]:
        """By model, the relevance of each patch (rows, columns) for the similarity to the
        caption."""
        image = self.shown_images[:1]
        relevance = {}
        for name, model in self.models.items():
            with torch.no_grad():
                direction = model.encode_text(self.token_ids, normalize=True)
            of_picture = image_relevance(model, image, direction)[0]
            relevance[name] = of_picture.cpu().numpy()
        return relevance

    def mentions(self, images: int | None = None) -> list[Mention]:
        """The mentions of so many test images drawn by the run's seed, or of the example (None);
        none outside SynthPEDES."""
        if not self.data.synthetic:
            return []
        if images is None:
            return mentions_of(self.data, self.shown[:1])
        random = np.random.default_rng(self.run.config.seed)
        order = random.permutation(len(self.test.image_paths))
        drawn = sorted(order[:images].tolist())
        return mentions_of(self.data, drawn)

    def phrases(self) -> list[Phrase]:
        """The mentions of the example. Outside SynthPEDES every longer word of the caption stands
        for itself, and there are no masks."""
        words = self.caption.split()
        mentions = self.mentions()
        spans = [mention.span for mention in mentions]
        masks: list[np.ndarray | None] = [mention.mask for mention in mentions]
        if not mentions:
            spans = _long_words(words)
            masks = [None] * len(spans)
        maps = self._ground(spans)
        phrases = []
        for number, (first, behind) in enumerate(spans):
            text = " ".join(words[first:behind])
            of_phrase = {name: of_model[number] for name, of_model in maps.items()}
            phrase = Phrase(text.strip(".,"), masks[number], of_phrase)
            phrases.append(phrase)
        return phrases

    def _ground(self, spans: list[tuple[int, int]]) -> dict[str, np.ndarray]:
        """By model, where the picture answers spans of the caption (spans, rows, columns)."""
        count = len(spans)
        example = self.loaded.images[self.shown[:1]]
        images = example.expand(count, -1, -1, -1)
        captions = [self.caption] * count
        maps = {}
        for name, model in self.models.items():
            maps[name] = ground(model, images, captions, spans).numpy()
        return maps

    def space(self, people: int = 10) -> Space:
        """Images and captions of the first people in the plane, labelled by person and, on
        SynthPEDES, by the colour of the upper garment; the modality gaps are the whole split's."""
        test = self.test
        chosen = np.unique(test.image_identities)[:people]
        images = np.flatnonzero(np.isin(test.image_identities, chosen))
        captions = np.flatnonzero(np.isin(test.caption_identities, chosen))
        points = {}
        gaps = {}
        for name, model in self.models.items():
            image_features, text_features = embed(model, self.loaded, precision="fp32")
            gaps[name] = modality_gap(image_features, text_features)
            both = torch.cat([image_features[images], text_features[captions]])
            for method in ("PCA", "t-SNE"):
                points[f"{name}, {method}"] = plane(both, method)
        # The image that each point shows or describes.
        pictured = np.concatenate([images, test.caption_images[captions]])
        is_image = np.arange(len(pictured)) < len(images)
        return Space(points, is_image, self._labels(pictured), gaps)

    def _labels(self, images: np.ndarray) -> dict[str, list]:
        """What is known of some test images, to colour them by."""
        labels: dict[str, list] = {"person": self.test.image_identities[images].tolist()}
        if self.data.synthetic:
            colours = []
            for row in attribute_rows(self.data, images.tolist()):
                colours.append(row["attributes"]["upper_colour"])
            labels["upper garment"] = colours
        return labels


def _long_words(words: list[str]) -> list[tuple[int, int]]:
    """(first, behind last) of each word of more than three letters."""
    spans = []
    for place, word in enumerate(words):
        if len(word.strip(".,")) > 3:
            spans.append((place, place + 1))
    return spans
