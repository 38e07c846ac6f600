"""The CSKT model (Liu et al.): CLIP's two encoders with bidirectional prompts and parallel
adapters."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from cskt import backbones
from cskt.config import MINI, CSKTConfig
from cskt.errors import CSKTError
from cskt.files import public_name
from cskt.model.adapters import LowRankUpdate, ParallelAdapter
from cskt.model.prompts import BidirectionalPrompts
from cskt.model.reference import load_reference_checkpoint, to_reference_state
from cskt.model.towers import (
    FusedLayer,
    Grid,
    Layer,
    Record,
    prefix_keys_values,
    prompt_keys_values,
    run_layer,
    run_tower,
)

WEIGHTS_FILE, CONFIG_FILE = "adapter.safetensors", "config.json"
PHRASE = "a photo of a"  # prompt_init
PARTS = ("own prompts", "projected prompts", "adapter")  # what can be taken out, see CSKT.without


class CSKT(nn.Module):
    """CSKT on an open_clip ViT CLIP. The backbone is frozen unless ``config.train_backbone``.

    ``tokenizer``: list[str] -> (B, context) ids, CLIP's own by default. ``known_tokens``: ids the
    backbone has learned (None: all). ``source``: how :func:`cskt.backbones.create_backbone` made
    the backbone, kept for saving. :class:`CSKTError` if the backbone or the configuration does not
    fit.
    """

    def __init__(
        self,
        backbone: nn.Module,
        config: CSKTConfig | None = None,
        tokenizer: Callable[[list[str]], Tensor] | None = None,
        known_tokens: set[int] | None = None,
        source: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self._removed: frozenset[tuple[str, str, int]] = frozenset()
        self.unfuse()
        backbones.check_supported(backbone)
        self.config = config = config or CSKTConfig()
        self.backbone = backbone
        self.tokenizer = tokenizer or backbones.clip_tokenizer(
            context_length=backbone.context_length
        )
        self.known_tokens, self.source = known_tokens, dict(source or {})
        self.image_size: tuple[int, int] = tuple(backbone.visual.image_size)
        # CLIP's BPE ends its vocabulary with the end token; a tower that pools elsewhere says
        # where.
        self.end_token = (
            backbone.text_eos_id if backbone.text_pool_type == "eos" else backbone.vocab_size - 1
        )

        text, vision = backbone.transformer.resblocks, backbone.visual.transformer.resblocks
        widths = backbone.token_embedding.embedding_dim, backbone.visual.conv1.out_channels
        shallower = min(len(text), len(vision))
        depth, count = (
            shallower if config.prompt_depth is None else config.prompt_depth,
            config.prompts_per_tower,
        )
        if depth > shallower:
            raise CSKTError(
                f"prompt_depth must be at most {shallower} (blocks of the shallower tower), got {depth}."
            )
        if count > backbone.context_length - 3:
            raise CSKTError(
                f"prompt_length must leave room for a caption in {backbone.context_length} text positions, "
                f"got {config.prompt_length} ({count} prompts)."
            )

        def adapters(
            width: int, blocks: Sequence[nn.Module], wanted: bool, scale: float
        ) -> nn.ModuleList:
            settings = width, config.reduction, scale, config.adapter_init == "zero"
            return nn.ModuleList(
                ParallelAdapter(*settings, block.ln_2.eps) for block in blocks if wanted
            )

        self.num_prompts = count
        self.steps = {
            "vision": run_layer,
            "text": run_layer,
        }  # or what saves memory or time (see towers.run_tower)
        self.prompts = BidirectionalPrompts(
            depth, config.prompt_length, *widths, config.text_to_vision, config.vision_to_text
        )
        self.text_adapters = adapters(widths[0], text, config.text_adapter, config.text_scale)
        self.vision_adapters = adapters(
            widths[1], vision, config.vision_adapter, config.vision_scale
        )
        self.text_lora, self.vision_lora = (
            nn.ModuleList(
                LowRankUpdate(3 * width, width, config.lora_rank)
                for _ in range(len(blocks) * config.lora)
            )
            for width, blocks in zip(widths, (text, vision), strict=True)
        )
        for part in (
            self.prompts,
            self.text_adapters,
            self.vision_adapters,
            self.text_lora,
            self.vision_lora,
        ):
            part.to(backbone.visual.conv1.weight)
        if config.prompt_init == PHRASE and len(self.prompts.text):  # surplus prompts stay random
            phrase = backbone.token_embedding.weight[self.tokenize(PHRASE)[0, 1:5]]
            self.prompts.text[0].data[:4] = phrase[: config.prompt_length]
        for name, parameter in backbone.named_parameters():
            parameter.requires_grad_(config.train_backbone and name not in backbones.UNUSED)
        self.train(self.training)

    def train(self, mode: bool = True) -> CSKT:
        super().train(mode)
        if mode:
            self.unfuse()
        if not self.config.train_backbone:
            self.backbone.eval()  # frozen means no dropout of patches either
        return self

    def _tower(self, name: str) -> tuple[list[Layer], list[Tensor]]:
        """The layers of the ``"text"`` or ``"vision"`` tower, and the prompts (P, width) that its
        first layers read."""
        if self._fused is not None:
            return self._fused[name]
        blocks = (self.backbone.visual if name == "vision" else self.backbone).transformer.resblocks
        beside = (
            list(getattr(self, f"{name}_{kind}")) or [None] * len(blocks)
            for kind in ("adapters", "lora")
        )
        prompts = getattr(self.prompts, f"{name}_rows")()
        if prompts and name == "vision":  # as rows they pass through what the patches pass through
            prompts[0] = self.backbone.visual.ln_pre(prompts[0])
        elif prompts:
            prompts[0] = prompts[0] + self.backbone.positional_embedding[1 : 1 + self.num_prompts]
        (adapters, lora), own = beside, self.prompts.own(name)
        for layer in range(len(blocks)):
            gone = {part for tower, part, at in self._removed if (tower, at) == (name, layer)}
            if "adapter" in gone:
                adapters[layer] = None
            if gone and layer < len(prompts):
                kept = (own & ("own prompts" not in gone)) | (
                    ~own & ("projected prompts" not in gone)
                )
                prompts[layer] = prompts[layer][kept]
        return [Layer(*parts) for parts in zip(blocks, adapters, lora, strict=True)], prompts

    def encode_image(
        self, images: Tensor, normalize: bool = False, record: Record | None = None
    ) -> Tensor:
        """Images (B, 3, H, W), CLIP-normalised, in the model's dtype -> features (B, D);
        L2-normalised if asked. Columns of ``record``: the class token, patches, P prompts."""
        self._check_images(images)
        visual, (layers, prompts) = self.backbone.visual, self._tower("vision")
        x = visual.conv1(images).flatten(2).transpose(1, 2).to(visual.positional_embedding.dtype)
        x = (
            torch.cat([visual.class_embedding.expand(len(x), 1, -1), x], dim=1)
            + visual.positional_embedding
        )
        x = visual.ln_pre(visual.patch_dropout(x))
        # Prompts that no later layer replaces are read by it: from there on they are rows like any
        # other.
        rows_from, front = 0, []
        if record is None:
            rows_from = len(prompts) - (len(prompts) < len(layers))
            front = self._once("vision", lambda: prompt_keys_values(layers, prompts[:rows_from]))
        x = run_tower(
            layers,
            x.flatten(0, 1),
            Grid(*x.shape[:2]),
            causal=False,
            front=front,
            prompts=prompts,
            at=x.shape[1],
            rows_from=rows_from,
            step=self.steps["vision"],
            record=record,
        )
        features = visual.ln_post(x) @ visual.proj
        return F.normalize(features, dim=-1) if normalize else features

    def encode_text(
        self, token_ids: Tensor, normalize: bool = False, record: Record | None = None
    ) -> Tensor:
        """Token ids (B, up to 77) from :meth:`tokenize` -> features (B, D); L2-normalised if asked;
        ids stay intact.

        Captions too long for the prompts lose their last words, never the end token; what follows
        it is not read. Columns of ``record``: start, P prompts, words and end, padding."""
        start = self._check_token_ids(token_ids)
        backbone, (layers, prompts) = self.backbone, self._tower("text")
        ids, end = fit_captions(
            token_ids.long(), self.end_token, backbone.context_length - self.num_prompts
        )
        grid = Grid(*ids.shape) if record is not None else Grid.packed(end)
        device = (
            backbone.positional_embedding.device
        )  # ids on the CPU were counted there: nothing waits for a GPU
        ids, end, grid = ids.to(device), end.to(device), grid.to(device)
        positions = torch.cat(
            [
                backbone.positional_embedding[:1],
                backbone.positional_embedding[1 + self.num_prompts :],
            ]
        )
        x = backbone.token_embedding(ids) + positions[: ids.shape[1]]
        if record is None:  # words alone, up to the end token: what follows it is not read
            front = self._once(start, lambda: prefix_keys_values(layers, prompts, x[0, :1]))
            x, how = grid.pack(x[:, 1 : 1 + grid.columns]), dict(front=front, read=end - 1)
        else:
            x, how = (
                grid.pack(x),
                dict(
                    prompts=prompts,
                    at=1,
                    record=record,
                    read=end + (len(prompts[-1]) if prompts else 0),
                ),
            )
        x = run_tower(layers, x, grid, causal=True, step=self.steps["text"], **how)
        x, projection = backbone.ln_final(x), backbone.text_projection
        if projection is not None:
            x = projection(x) if isinstance(projection, nn.Module) else x @ projection
        return F.normalize(x, dim=-1) if normalize else x

    def fuse(self, dtype: torch.dtype | None = None) -> CSKT:
        """Prepare for fast inference: adapters and MLPs fused, LoRA merged, what the prompts
        contribute computed once; the blocks' matrices in ``dtype`` (as they are, or bfloat16).
        Weights changed afterwards are not seen: training mode, moving or loading the model, and
        :meth:`unfuse` undo it."""
        self.eval().unfuse()
        with torch.no_grad():
            towers = {name: self._tower(name) for name in ("vision", "text")}
        dtype = self.fused_dtype = dtype or self.backbone.visual.conv1.weight.dtype
        self._fused = {
            name: (
                [FusedLayer(layer, dtype) for layer in layers],
                [rows.detach() for rows in prompts],
            )
            for name, (layers, prompts) in towers.items()
        }
        return self

    def unfuse(self) -> CSKT:
        """The inverse of :meth:`fuse`."""
        self._fused, self._fronts = None, {}
        self.fused_dtype: torch.dtype | None = (
            None  # in which the blocks' matrices are fused; None: they are not
        )
        return self

    @contextlib.contextmanager
    def fused(self, dtype: torch.dtype | None = None) -> Iterator[CSKT]:
        """Fused within the block; a model that is fused already stays as it is."""
        fused = self._fused is not None
        try:
            yield self if fused else self.fuse(dtype)
        finally:
            if not fused:
                self.unfuse()

    @contextlib.contextmanager
    def without(
        self, tower: str, part: str, layers: Collection[int] | None = None
    ) -> Iterator[CSKT]:
        """Within the block, the model without one of :data:`PARTS` of its ``"vision"`` or
        ``"text"`` tower, at some layers (None: at all). Projected prompts are those that come from
        the other tower: in vision, T2V(t)."""
        blocks = len(
            (self.backbone.visual if tower == "vision" else self.backbone).transformer.resblocks
        )
        layers = range(blocks) if layers is None else layers
        if (
            tower not in ("vision", "text")
            or part not in PARTS
            or not set(layers) <= set(range(blocks))
        ):
            raise CSKTError(
                f"there is no {part!r} at layers {list(layers)} of the {tower!r} tower; give 'vision' or "
                f"'text', one of {', '.join(map(repr, PARTS))}, and layers from 0 to {blocks - 1}."
            )
        before = self._removed
        self._removed = before | {(tower, part, layer) for layer in layers}
        self.unfuse()
        try:
            yield self
        finally:
            self._removed = before
            self.unfuse()

    def cast_frozen(self, dtype: torch.dtype) -> CSKT:
        """Keep the frozen blocks' matrices in ``dtype`` from now on: autocast would cast them anew
        at every step."""
        for block in (
            *self.backbone.transformer.resblocks,
            *self.backbone.visual.transformer.resblocks,
        ):
            for module in (block.attn, block.attn.out_proj, block.mlp.c_fc, block.mlp.c_proj):
                for parameter in module.parameters(recurse=False):
                    if not parameter.requires_grad:
                        parameter.data = parameter.data.to(dtype)
        return self

    def _once(self, what: str | int, keys_values: Callable[[], list[Tensor]]) -> list[Tensor]:
        """``keys_values()``, remembered while the model is fused."""
        if self._fused is None:
            return keys_values()
        if what not in self._fronts:
            with torch.no_grad():
                self._fronts[what] = keys_values()
        return self._fronts[what]

    def load_state_dict(self, *arguments: Any, **settings: Any) -> Any:
        self.unfuse()
        return super().load_state_dict(*arguments, **settings)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> CSKT:
        self.unfuse()
        return super()._apply(fn, recurse)

    def forward(
        self, images: Tensor | None = None, token_ids: Tensor | None = None
    ) -> tuple[Tensor | None, ...]:
        """(image features, text features), each None where its input is."""
        if images is None and token_ids is None:
            raise CSKTError("the model needs images, token_ids or both.")
        return (
            None if images is None else self.encode_image(images),
            None if token_ids is None else self.encode_text(token_ids),
        )

    def _check_images(self, images: Tensor) -> None:
        shape, dtype = (3, *self.image_size), self.backbone.visual.conv1.weight.dtype
        if (
            not isinstance(images, Tensor)
            or images.ndim != 4
            or not len(images)
            or images.shape[1:] != shape
        ):
            raise CSKTError(
                f"images must be a (B, {', '.join(map(str, shape))}) tensor with B >= 1, got "
                f"{_describe(images)}; resize the images or the model (image_size)."
            )
        mixed = images.is_floating_point() and torch.is_autocast_enabled(images.device.type)
        if images.dtype != dtype and not mixed:
            raise CSKTError(
                f"images must be CLIP-normalised {dtype}, got {images.dtype}; use .to({dtype})."
            )

    def _check_token_ids(self, ids: Tensor) -> int:
        """The start token, which all captions share."""
        context, vocabulary, fault = self.backbone.context_length, self.backbone.vocab_size, ""
        if (
            not isinstance(ids, Tensor)
            or ids.ndim != 2
            or not len(ids)
            or not 2 <= ids.shape[1] <= context
        ):
            fault = f"a (B, {context}) tensor with B >= 1, got {_describe(ids)}"
        elif ids.is_floating_point() or ids.is_complex() or ids.dtype == torch.bool:
            fault = f"integers, got {ids.dtype}"
        else:
            ends = (ids[:, 1:] == self.end_token).any(dim=1) & (ids[:, 0] != self.end_token)
            first = ids[:, 0]
            facts = ids.min(), ids.max(), ends.all(), first[0], first.min() == first.max()
            low, high, whole, start, alike = torch.stack([fact.long() for fact in facts]).tolist()
            if low < 0 or high >= vocabulary:
                fault = f"from 0 to {vocabulary - 1}, got {low} to {high}"
            elif not whole:
                fault = (
                    f"captions, but row {ends.tolist().index(False)} lacks the end token {self.end_token} after "
                    "a start token"
                )
            elif not alike:
                fault = f"captions with one start token, got {sorted(set(first.tolist()))}"
        if fault:
            raise CSKTError(f"token_ids must be {fault}; use model.tokenize.")
        return start

    def tokenize(self, texts: str | Sequence[str]) -> Tensor:
        """Captions -> token ids (B, 77) int64 on the CPU: start, words, end, padding."""
        texts = [texts] if isinstance(texts, str) else list(texts)
        if not texts or not all(isinstance(text, str) for text in texts):
            raise CSKTError("tokenize needs at least one caption, each a str.")
        return self.tokenizer(texts)

    def unknown_words(self, text: str) -> list[str]:
        """Words of a caption with a token that the backbone never learned, in order, each once."""
        words = dict.fromkeys(
            re.findall(r"'(?:s|t|re|ve|m|ll|d)\b|[^\W\d_]+|\d|[^\s\w]+", text.lower())
        )
        known = self.known_tokens
        return [
            word
            for word in words
            if known is not None and not set(self.tokenizer.encode(word)) <= known
        ]

    @property
    def max_tokens(self) -> int:
        """Tokens of a description, start and end not counted, that are read."""
        return self.backbone.context_length - 2 - self.num_prompts

    def reads_all(self, text: str) -> bool:
        """Whether no word of a description is cut off (the tokenizer itself cuts at the context's
        end)."""
        end = int((self.tokenize(text)[0] == self.end_token).int().argmax())
        return end - 1 <= min(self.max_tokens, self.backbone.context_length - 3)

    def counted_parameters(self) -> dict[str, nn.Parameter]:
        """Every parameter but CLIP's own temperature, which no feature and no loss reads."""
        unused = {f"backbone.{name}" for name in backbones.UNUSED}
        return {name: p for name, p in self.named_parameters() if name not in unused}

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self.backbone.visual.conv1.weight.device

    @property
    def dimension(self) -> int:
        """D: the length of a feature."""
        return self.backbone.visual.proj.shape[1]

    @property
    def num_trainable(self) -> int:
        """Trained scalars."""
        return sum(p.numel() for p in self.counted_parameters().values() if p.requires_grad)

    @property
    def num_total(self) -> int:
        """All scalars, CLIP's own temperature left out."""
        return sum(p.numel() for p in self.counted_parameters().values())

    def trainable_state(self) -> dict[str, Tensor]:
        """The trained tensors by name; like ``state_dict()``, they share memory with the model."""
        return {name: p.detach() for name, p in self.named_parameters() if p.requires_grad}

    def load_trainable_state(self, state: Mapping[str, Tensor]) -> None:
        """Inverse of :meth:`trainable_state`; a :class:`CSKTError` lists what does not fit, and
        nothing is loaded."""
        backbones.copy_state(self.unfuse().trainable_state(), state, "the trained state")

    def summary(self) -> str:
        """A table: trained and all parameters of each block, adding up to the totals."""
        rows: dict[str, list[int]] = {}
        for name, parameter in self.counted_parameters().items():
            trained, every = rows.get(row := _table_row(name), (0, 0))
            rows[row] = [
                trained + parameter.numel() * parameter.requires_grad,
                every + parameter.numel(),
            ]
        rows["total"] = [self.num_trainable, self.num_total]
        title = "CSKT on {}, images {} x {}, {} prompts per tower, {:.2%} trained".format(
            self.source.get("name", type(self.backbone).__name__),
            *self.image_size,
            self.num_prompts,
            self.num_trainable / self.num_total,
        )
        lines = [f"{part:<20}{trained:>14,}{every:>14,}" for part, (trained, every) in rows.items()]
        return "\n".join([title, f"{'part':<20}{'trained':>14}{'all':>14}", *lines])

    __repr__ = summary

    load_reference_checkpoint, to_reference_state = load_reference_checkpoint, to_reference_state

    def backbone_fingerprint(self) -> str:
        """Identifies the frozen backbone by its values, a trained one by its shapes only."""
        return backbones.fingerprint(self.backbone, weights=not self.config.train_backbone)

    def fingerprint(self) -> str:
        """16 hex digits: two models with one fingerprint give the same features."""
        facts = json.dumps(
            [dataclasses.asdict(self.config), self.image_size, backbones.fingerprint(self.backbone)]
        )
        digest = hashlib.sha256(facts.encode())
        for name, tensor in sorted(self.trainable_state().items()):
            digest.update(name.encode())
            digest.update(tensor.to("cpu", torch.float32).contiguous().numpy())
        return digest.hexdigest()[:16]

    def save_pretrained(self, path: str | os.PathLike, dtype: torch.dtype | None = None) -> None:
        """Writes the trained weights (as ``dtype``, if given) and the configuration into the folder
        ``path``.

        Of a backbone whose weights came from a file its name is written, not where it lay."""
        folder = Path(path)
        folder.mkdir(parents=True, exist_ok=True)
        weights = {
            name: t.to("cpu", dtype or t.dtype).contiguous()
            for name, t in self.trainable_state().items()
        }
        made = {
            **self.source,
            "image_size": self.image_size,
            "fingerprint": self.backbone_fingerprint(),
        }
        if "pretrained" in made:
            made["pretrained"] = public_name(made["pretrained"])
        config = json.dumps({"cskt": dataclasses.asdict(self.config), "backbone": made}, indent=2)
        save_file(weights, folder / f".{WEIGHTS_FILE}.part")
        (folder / f".{CONFIG_FILE}.part").write_text(config + "\n")
        for file in (WEIGHTS_FILE, CONFIG_FILE):  # both are whole before either is seen
            os.replace(folder / f".{file}.part", folder / file)

    @classmethod
    def from_pretrained(
        cls,
        path: str | os.PathLike,
        backbone: nn.Module | None = None,
        pretrained: str | os.PathLike | None = None,
    ) -> CSKT:
        """The model saved in the folder ``path``, in eval mode.

        Its backbone is made as it was, or given as ``backbone``. Where its weights came from a
        file, ``pretrained`` says where that is now, unless it lies in ``path`` too or in the
        working directory. :class:`CSKTError` if a file is missing or unfit, or if the backbone is
        not the one that was trained on."""
        folder = Path(path)
        for file in (WEIGHTS_FILE, CONFIG_FILE):
            if not (folder / file).is_file():
                raise CSKTError(
                    f"{folder / file} does not exist; give the folder that save_pretrained wrote."
                )
        try:
            weights = load_file(folder / WEIGHTS_FILE)
            saved = json.loads((folder / CONFIG_FILE).read_text())
            config, made = CSKTConfig(**saved["cskt"]), dict(saved["backbone"])
            size, wanted = tuple(made.pop("image_size")), made.pop("fingerprint")
        except SafetensorError as error:
            raise CSKTError(
                f"{folder / WEIGHTS_FILE} is damaged ({error}); save the model again."
            ) from error
        except (KeyError, TypeError, ValueError, OSError) as error:
            raise CSKTError(
                f"the model in {folder} cannot be read ({error}); save it again."
            ) from error
        if backbone is not None:
            model = cls(backbone, config, source=made)
        elif "name" in made:
            model = load_model(made["name"], pretrained or _weights_of(folder, made), size, config)
        else:
            raise CSKTError(
                f"the model in {folder} was saved over a backbone of unknown origin; pass it as backbone."
            )
        if (found := model.backbone_fingerprint()) != wanted or model.image_size != size:
            raise CSKTError(
                f"the model in {folder} was trained over another backbone (fingerprint {wanted}, images "
                f"{size}; got {found}, {model.image_size}); load it over {made or 'the same weights'}."
            )
        model.load_trainable_state(weights)
        return model.eval()


def _weights_of(folder: Path, made: Mapping[str, Any]) -> str | None:
    """The ``pretrained`` of a saved model; a file that was named there lies in its folder, or where
    we are."""
    named = made.get("pretrained")
    if named is not None and (folder / named).is_file():
        return os.fspath(folder / named)
    try:
        backbones.weights_source(made["name"], named)
    except CSKTError as error:
        raise CSKTError(
            f"the model in {folder} needs the backbone weights {named!r}, which are not there; give their "
            f"file as pretrained. ({error})"
        ) from error
    return named


def load_model(
    name: str = MINI,
    pretrained: str | os.PathLike | None = None,
    image_size: tuple[int, int] | int | None = None,
    config: CSKTConfig | None = None,
) -> CSKT:
    """A backbone (see :func:`cskt.backbones.create_backbone`) with a fresh CSKT on it.

    ``config`` defaults to the paper's, for ``cskt-mini`` to :meth:`cskt.config.CSKTConfig.mini`.
    """
    backbone = backbones.create_backbone(name, pretrained, image_size)
    known = backbones.known_token_ids(name) if pretrained is None else None
    source = {"name": name, "pretrained": None if pretrained is None else os.fspath(pretrained)}
    config = config or (CSKTConfig.mini() if name == MINI else CSKTConfig())
    return CSKT(backbone, config, backbones.tokenizer_for(name), known, source)


def fit_captions(ids: Tensor, end_token: int, columns: int) -> tuple[Tensor, Tensor]:
    """Captions (B, L) cut to ``columns`` so that each keeps its end token -> (ids (B, min(L,
    columns)), end (B,)).

    A caption whose end token would be lost gets it in its last column, in place of a word. A copy
    is returned.
    """
    ends = (ids == end_token).int().argmax(dim=1)
    kept, last = ids[:, :columns].clone(), columns - 1
    kept[:, last:] = torch.where(ends[:, None] > last, end_token, kept[:, last:])
    return kept, ends.clamp(max=last)


def _describe(value: Any) -> str:
    return f"{tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__


def _table_row(name: str) -> str:
    """The row of :meth:`CSKT.summary` that a parameter belongs to."""
    if name.startswith("prompts."):
        return "prompts"
    tower = "vision" if name.startswith(("backbone.visual.", "vision_")) else "text"
    block = re.search(r"(?:resblocks|adapters|lora)\.(\d+)\.", name)
    return f"{tower} block {block[1]}" if block else f"{tower} ends"
