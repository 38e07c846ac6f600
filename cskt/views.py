"""What the prompts page looks at: one run, one picture and its caption, through the probes."""

from __future__ import annotations

import dataclasses

import numpy as np
import torch
from torch import Tensor

from cskt.errors import CSKTError

from .data.benchmarks import load_dataset
from .data.pipeline import normalize
from .data.synthetic.mentions import Mention, attribute_rows, mentions_of
from .evaluation import embed, load_split
from .model.cskt import fit_captions
from .numerics import resolve_device
from .probes import (
    KINDS,
    Layers,
    ground,
    image_relevance,
    modality_gap,
    plane,
    pointing,
    prompt_maps,
    prompt_names,
    text_relevance,
    word_maps,
)
from .runs import Run, build_model

NO_PROMPTS = "This model has no prompts: there is nothing to show here."
NO_MASKS = "Where the garments are is known for SynthPEDES only: grounding is not measured here."


class View:
    """What the prompts notebook looks at: a run's model, the same before training, and its backbone
    alone (``models``: the last and the first by name); test image ``example`` with its first
    caption; ``layers`` from 1 (None: all).

    :class:`CSKTError` for an image or layer that does not exist.
    """

    def __init__(self, run: Run, example: int = 0, layers: Layers = None) -> None:
        self.run, self.data = run, load_dataset(run.config.dataset, run.config.data_root)
        device = resolve_device(run.config.device)
        self.model, self.fresh = (
            run.load_model().to(device),
            build_model(run.config).to(device).eval(),
        )
        bare = build_model(dataclasses.replace(run.config, method="zero-shot")).to(device).eval()
        if not hasattr(self.model.tokenizer, "decode"):
            raise CSKTError(
                f"the tokenizer of {run.config.backbone} cannot give back words; use another backbone."
            )
        self.name = "CSKT" if run.config.method == "cskt" else run.config.method
        self.models = {"zero-shot": bare, self.name: self.model}
        test, backbone = self.data.test, self.model.backbone
        self.loaded = load_split(self.model, test)
        self.blocks = {
            tower: len(part.transformer.resblocks)
            for tower, part in (("vision", backbone.visual), ("text", backbone))
        }
        blocks = max(self.blocks.values())
        self.layers = (
            list(range(blocks)) if layers is None else sorted(layer - 1 for layer in layers)
        )
        if not set(self.layers) <= set(range(blocks)) or not 0 <= example < len(test.image_paths):
            raise CSKTError(
                f"example must be a test image from 0 to {len(test.image_paths) - 1} and layers from 1 to "
                f"{blocks}, got {example} and {layers}."
            )
        first_of_person = np.unique(test.image_identities, return_index=True)[1]
        self.shown = [
            example,
            *(index for index in sorted(first_of_person.tolist()) if index != example),
        ][:12]
        self.first_caption = {
            image: int(np.flatnonzero(test.caption_images == image)[0]) for image in self.shown
        }
        self.pictures = self.loaded.images[self.shown].permute(0, 2, 3, 1).numpy()
        self.captions = [test.captions[self.first_caption[image]] for image in self.shown]
        self.picture, self.caption = self.pictures[0], self.captions[0]
        self.images, self.tokens = normalize(self.loaded.images[:128]), self.loaded.tokens[:128]

    @property
    def prompts(self) -> bool:
        """Whether the model has any."""
        return self.model.num_prompts > 0

    def layers_of(self, tower: str) -> list[int]:
        """Those of the layers to look at that a tower has."""
        return [layer for layer in self.layers if layer < self.blocks[tower]]

    def prompt_maps(self, pictures: int) -> np.ndarray:
        """(pictures, layers, P, rows, columns): of the first pictures, averaged over heads."""
        images = normalize(self.loaded.images[self.shown[:pictures]])
        return prompt_maps(self.model, images, self.layers).mean(2).numpy()

    def words(self) -> list[str]:
        """The caption's tokens as the model reads them, the end token last."""
        room = self.model.backbone.context_length - self.model.num_prompts
        ids, end = fit_captions(self._ids(), self.model.end_token, room)
        return [
            *(
                self.model.tokenizer.decode([token]).strip()
                for token in ids[0, 1 : int(end)].tolist()
            ),
            "(end)",
        ]

    def _ids(self) -> Tensor:
        return self.model.tokenize([self.caption])

    def word_heat(self) -> tuple[list[str], dict[str, np.ndarray]]:
        """The words and, by kind of prompt, their attention to all prompts of it (layers, words),
        mean over heads."""
        words, own = self.words(), self.model.prompts.own("text").cpu()
        maps = word_maps(self.model, self._ids(), self.layers)[0].mean(1)[..., : len(words)]
        return words, {
            kind: maps[:, own == flag].sum(1).numpy()
            for kind, flag in KINDS.items()
            if (own == flag).any()
        }

    def where_findings(self) -> str:
        """Which prompt the patches read most, and where the words read each kind most."""
        maps, names = (
            self.prompt_maps(len(self.shown)).mean((0, 3, 4)),
            prompt_names(self.model, "vision"),
        )
        layer, prompt = np.unravel_index(maps.argmax(), maps.shape)
        shares = {kind: heat.mean(1) for kind, heat in self.word_heat()[1].items()}
        layers = self.layers_of("text")
        words = [
            f"{kind} prompts most at layer {layers[share.argmax()] + 1} ({100 * share.max():.0f} %)"
            for kind, share in shares.items()
        ]
        return (
            f"Of all layers and prompts, patches read {names[prompt]} at layer "
            f"{self.layers_of('vision')[layer] + 1} most: "
            f"{100 * maps.max():.1f} % of their attention, where the median is {100 * np.median(maps):.1f} %. The "
            f"words of this caption read {' and '.join(words)}."
        )

    def word_relevance(self) -> tuple[list[str], dict[str, np.ndarray]]:
        """The words without the end token, which is where their relevance ends up, and by model the
        relevance (words,) for the similarity to the picture."""
        words, image, values = self.words()[:-1], normalize(self.loaded.images[self.shown[:1]]), {}
        for name, model in self.models.items():
            with torch.no_grad():
                direction = model.encode_image(image.to(model.device), normalize=True)
            values[name] = (
                text_relevance(model, self._ids(), direction)[0, : len(words)].cpu().numpy()
            )
        return words, values

    def relevance_findings(self, count: int = 3) -> str:
        """Which words of the caption count most, by model."""
        words, values = self.word_relevance()
        lines = []
        for name, each in values.items():
            most, share = each.argsort()[::-1][:count], each / max(each.sum(), 1e-12)
            lines.append(
                f"{name}: " + ", ".join(f"{words[i]!r} ({100 * share[i]:.0f} %)" for i in most)
            )
        return (
            "The words that count most, with their share of the relevance of all words: "
            + "; ".join(lines)
            + "."
        )

    def image_relevance(self) -> dict[str, np.ndarray]:
        """By model, the relevance of each patch (rows, columns) for the similarity to the
        caption."""
        image, maps = normalize(self.loaded.images[self.shown[:1]]), {}
        for name, model in self.models.items():
            with torch.no_grad():
                direction = model.encode_text(self._ids(), normalize=True)
            maps[name] = image_relevance(model, image, direction)[0].cpu().numpy()
        return maps

    def mentions(self, images: int | None = None) -> list[Mention]:
        """The mentions of so many test images drawn by the run's seed, or of the example (None);
        none outside SynthPEDES."""
        if not self.data.synthetic:
            return []
        every = np.random.default_rng(self.run.config.seed).permutation(
            len(self.data.test.image_paths)
        )
        return mentions_of(
            self.data, self.shown[:1] if images is None else sorted(every[:images].tolist())
        )

    def phrases(self) -> list[tuple[str, np.ndarray | None, dict[str, np.ndarray]]]:
        """Of each mention of the example: its words, its mask and, by model, where the picture
        answers them. Outside SynthPEDES every longer word of the caption stands for itself, and
        there are no masks."""
        found: list[tuple[tuple[int, int], np.ndarray | None]] = [
            (each.span, each.mask) for each in self.mentions()
        ]
        words = self.caption.split()
        if not found:
            found = [
                ((i, i + 1), None) for i, word in enumerate(words) if len(word.strip(".,")) > 3
            ]
        images, spans = (
            self.loaded.images[self.shown[:1]].expand(len(found), -1, -1, -1),
            [span for span, _ in found],
        )
        maps = {
            name: ground(model, images, [self.caption] * len(found), spans).numpy()
            for name, model in self.models.items()
        }
        return [
            (
                " ".join(words[slice(*span)]).strip(".,"),
                mask,
                {name: each[i] for name, each in maps.items()},
            )
            for i, (span, mask) in enumerate(found)
        ]

    def phrase_findings(self) -> str:
        """At how many of the example's phrases each model points."""
        phrases = [each for each in self.phrases() if each[1] is not None]
        if not phrases:
            return NO_MASKS
        masks = np.stack([mask for _, mask, _ in phrases])
        right = {
            name: pointing(np.stack([maps[name] for _, _, maps in phrases]), masks)[
                "pointing"
            ].sum()
            for name in self.models
        }
        return (
            f"Darkest patch on the garment, of {len(phrases)} phrases: "
            + ", ".join(f"{name} {count:.0f}" for name, count in right.items())
            + "."
        )

    def space(
        self, people: int = 10
    ) -> tuple[dict[str, np.ndarray], np.ndarray, dict[str, list], dict[str, float]]:
        """Images and captions of the first people in the plane, by model and method; which are
        images; their person and, on SynthPEDES, the colour of the upper garment; and each model's
        modality gap over the whole split."""
        test, points, gaps = self.data.test, {}, {}
        chosen = np.unique(test.image_identities)[:people]
        images, texts = (
            np.flatnonzero(np.isin(each, chosen))
            for each in (test.image_identities, test.caption_identities)
        )
        of = [
            *images.tolist(),
            *test.caption_images[texts].tolist(),
        ]  # the image that each point shows or describes
        for name, model in self.models.items():
            image_features, text_features = embed(model, self.loaded, precision="fp32")
            gaps[name] = modality_gap(image_features, text_features)
            both = torch.cat([image_features[images], text_features[texts]])
            points |= {f"{name}, {method}": plane(both, method) for method in ("PCA", "t-SNE")}
        labels: dict[str, list] = {"person": test.image_identities[of].tolist()}
        if self.data.synthetic:
            labels["upper garment"] = [
                row["attributes"]["upper_colour"] for row in attribute_rows(self.data, of)
            ]
        return points, np.arange(len(of)) < len(images), labels, gaps
