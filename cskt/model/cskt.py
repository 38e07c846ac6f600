"""The CSKT model (Liu et al., ICASSP 2024): CLIP's two encoders with bidirectional prompts (BPT, in
:mod:`cskt.model.prompts`) and parallel adapters (DAT, in :mod:`cskt.model.adapters`)."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self

import open_clip
import torch
import torch.nn.functional as F
from open_clip.transformer import ResidualAttentionBlock
from torch import Tensor, nn

from cskt.config import MINI, CSKTConfig
from cskt.errors import ConfigurationError
from cskt.model import backbone as backbones
from cskt.model import checkpoints, reference
from cskt.model.fused import Fusable
from cskt.model.inputs import check_images, check_token_ids, fit_captions, words_of
from cskt.model.parts import new_adapters, new_lora, new_prompts
from cskt.model.recording import Record, run_recorded
from cskt.model.state_dicts import copy_state
from cskt.model.summary import parameter_table
from cskt.model.towers import (
    Grid,
    Layer,
    Step,
    Tower,
    prefix_keys_values,
    prompt_keys_values,
    put_rows,
    run_layer,
    run_layers,
    run_tower,
)
from cskt.numerics import upload

PHRASE = "a photo of a"  # prompt_init


class CSKT(Fusable):
    """CSKT on an open_clip ViT CLIP. The backbone is frozen unless ``config.train_backbone``.

    ``tokenizer``: list[str] -> (B, context) ids, CLIP's own by default. ``known_tokens``: ids the
    backbone has learned (None: all). ``source``: how :func:`cskt.model.backbone.create_backbone`
    made the backbone, kept for saving. :class:`CSKTError` if the backbone or the configuration does
    not fit.

    ``steps``: what runs a layer of each tower, :func:`cskt.model.towers.run_layer` or what saves
    memory or time.
    """

    def __init__(
        self,
        backbone: open_clip.CLIP,
        config: CSKTConfig | None = None,
        tokenizer: Callable[[list[str]], Tensor] | None = None,
        known_tokens: set[int] | None = None,
        source: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        backbones.check_supported(backbone)
        self.backbone: open_clip.CLIP = backbone
        self.config = config or CSKTConfig()
        self.tokenizer: Any = tokenizer or backbones.clip_tokenizer(
            context_length=backbone.context_length
        )
        self.known_tokens = known_tokens
        self.source: dict[str, Any] = dict(source or {})
        self.image_size: tuple[int, int] = tuple(backbone.visual.image_size)
        # CLIP's BPE ends its vocabulary with the end token; a tower that pools elsewhere says where
        self.end_token: int = backbone.vocab_size - 1
        if backbone.text_pool_type == "eos":
            self.end_token = backbone.text_eos_id
        self.num_prompts = self.config.prompts_per_tower
        self.steps: dict[str, Step] = {"vision": run_layer, "text": run_layer}
        self.prompts = new_prompts(backbone, self.config)
        self.text_adapters = new_adapters(backbone, self.config, "text")
        self.vision_adapters = new_adapters(backbone, self.config, "vision")
        self.text_lora = new_lora(backbone, self.config, "text")
        self.vision_lora = new_lora(backbone, self.config, "vision")
        if self.config.prompt_init == PHRASE:
            self._start_from_phrase()
        self._freeze_backbone()
        self.train(self.training)

    def _start_from_phrase(self) -> None:
        """The first layer's text prompts start from the words; surplus ones stay random."""
        if len(self.prompts.text):
            words = self.tokenize(PHRASE)[0, 1:5]
            phrase = self.backbone.token_embedding.weight[words]
            self.prompts.text[0].data[:4] = phrase[: self.config.prompt_length]

    def _freeze_backbone(self) -> None:
        for name, parameter in self.backbone.named_parameters():
            trained = self.config.train_backbone and name not in backbones.UNUSED
            parameter.requires_grad_(trained)

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        if not self.config.train_backbone:
            self.backbone.eval()  # frozen means no dropout of patches either
        return self

    # Features

    def forward(
        self, images: Tensor | None = None, token_ids: Tensor | None = None
    ) -> tuple[Tensor | None, Tensor | None]:
        """(image features, text features), each None where its input is."""
        if images is None and token_ids is None:
            raise ConfigurationError("the model needs images, token_ids or both.")
        image_features = None if images is None else self.encode_image(images)
        text_features = None if token_ids is None else self.encode_text(token_ids)
        return image_features, text_features

    def encode_image(
        self, images: Tensor, normalize: bool = False, record: Record | None = None
    ) -> Tensor:
        """Images (B, 3, H, W), CLIP-normalised, in the model's dtype -> features (B, D);
        L2-normalised if asked. Columns of ``record``: the class token, patches, P prompts."""
        visual = self.backbone.visual
        check_images(images, self.image_size, visual.conv1.weight.dtype)
        tower = self.tower("vision")
        x = visual.conv1(images).flatten(2).transpose(1, 2).to(visual.positional_embedding.dtype)
        x = torch.cat([visual.class_embedding.expand(len(x), 1, -1), x], dim=1)
        x = visual.ln_pre(visual.patch_dropout(x + visual.positional_embedding))
        grid = Grid(x.shape[0], x.shape[1])
        rows = x.flatten(0, 1)
        if record is None:
            rows = self._run_vision(tower, rows, grid)
        else:
            rows, grid = run_recorded(
                tower, rows, grid, causal=False, at=grid.columns, record=record
            )
            rows = rows[grid.rows(0)]
        features = visual.ln_post(rows) @ visual.proj
        return F.normalize(features, dim=-1) if normalize else features

    def _run_vision(self, tower: Tower, rows: Tensor, grid: Grid) -> Tensor:
        """Class token and patches (R, W) -> the class token behind the last layer (B, W)."""
        layers, prompts = tower.layers, tower.prompts
        step = self.steps["vision"]
        # Prompts that no later layer replaces are read by it: from there on they are rows like any
        # other.
        lasting = 0 < len(prompts) < len(layers)
        replaced = prompts[:-1] if lasting else prompts
        front = self.once("vision", lambda: prompt_keys_values(layers, replaced))
        if lasting:
            depth = len(replaced)
            rows = run_layers(layers[:depth], rows, grid, False, front, step)
            rows, grid = put_rows(rows, grid, prompts[-1], at=grid.columns)
            layers = layers[depth:]
            front = []
        return run_tower(layers, rows, grid, causal=False, front=front, step=step)

    def encode_text(
        self, token_ids: Tensor, normalize: bool = False, record: Record | None = None
    ) -> Tensor:
        """Token ids (B, up to 77) from :meth:`tokenize` -> features (B, D); L2-normalised if asked;
        ids stay intact.

        Captions too long for the prompts lose their last words, never the end token; what follows
        it is not read. Columns of ``record``: start, P prompts, words and end, padding."""
        backbone = self.backbone
        context = backbone.context_length
        start = check_token_ids(token_ids, context, backbone.vocab_size, self.end_token)
        tower = self.tower("text")
        ids, end = fit_captions(token_ids.long(), self.end_token, context - self.num_prompts)
        grid = Grid.packed(end) if record is None else Grid(ids.shape[0], ids.shape[1])
        # Ids on the CPU were counted there: nothing waits for a GPU.
        device = backbone.positional_embedding.device
        end = upload(end, device)
        grid = grid.to(device)
        x = backbone.token_embedding(upload(ids, device)) + self._word_positions(ids.shape[1])
        if record is None:
            rows = self._run_text(tower, x, grid, end, start)
        else:
            rows, grid = run_recorded(tower, grid.pack(x), grid, causal=True, at=1, record=record)
            shift = len(tower.prompts[-1]) if tower.prompts else 0
            rows = rows[grid.rows(end + shift)]
        features = self._project_text(backbone.ln_final(rows))
        return F.normalize(features, dim=-1) if normalize else features

    def _word_positions(self, columns: int) -> Tensor:
        """(columns, W): positional embeddings of the start token and, behind the prompts, words."""
        positions = self.backbone.positional_embedding
        behind_prompts = positions[1 + self.num_prompts :]
        return torch.cat([positions[:1], behind_prompts])[:columns]

    def _run_text(self, tower: Tower, x: Tensor, grid: Grid, end: Tensor, start: int) -> Tensor:
        """Start token ``start`` and words x (B, L, W) -> the end token behind the last layer
        (B, W). Words are run alone, up to the end token: what follows it is not read."""
        first = x[0, :1]
        front = self.once(start, lambda: prefix_keys_values(tower, first))
        words = grid.pack(x[:, 1 : 1 + grid.columns])
        return run_tower(
            tower.layers,
            words,
            grid,
            causal=True,
            front=front,
            read=end - 1,
            step=self.steps["text"],
        )

    def _project_text(self, rows: Tensor) -> Tensor:
        projection = self.backbone.text_projection
        if projection is None:
            return rows
        return projection(rows) if isinstance(projection, nn.Module) else rows @ projection

    # Towers

    def blocks(self, tower: str) -> list[ResidualAttentionBlock]:
        """The backbone's blocks in the ``"text"`` or ``"vision"`` tower."""
        return backbones.blocks(self.backbone, tower)

    def plain_tower(self, name: str) -> Tower:
        """The layers of the ``"text"`` or ``"vision"`` tower, and the prompts (P, width) that its
        first layers read."""
        if name == "vision":
            layers = _layers(self.blocks(name), self.vision_adapters, self.vision_lora)
            prompts = self.prompts(name)
            if prompts:  # as rows they pass through what the patches pass through
                prompts[0] = self.backbone.visual.ln_pre(prompts[0])
        else:
            layers = _layers(self.blocks(name), self.text_adapters, self.text_lora)
            positions = self.backbone.positional_embedding[1 : 1 + self.num_prompts]
            prompts = self.prompts(name, positions)
        return Tower(layers, prompts)

    def cast_frozen(self, dtype: torch.dtype) -> Self:
        """Keep the frozen blocks' matrices in ``dtype`` from now on: autocast would cast them anew
        at every step."""
        for block in (*self.blocks("text"), *self.blocks("vision")):
            for module in (block.attn, block.attn.out_proj, block.mlp.c_fc, block.mlp.c_proj):
                for parameter in module.parameters(recurse=False):
                    if not parameter.requires_grad:
                        parameter.data = parameter.data.to(dtype)
        return self

    # Captions

    def tokenize(self, texts: str | Sequence[str]) -> Tensor:
        """Captions -> token ids (B, 77) int64 on the CPU: start, words, end, padding."""
        captions = [texts] if isinstance(texts, str) else list(texts)
        if not captions or not all(isinstance(caption, str) for caption in captions):
            raise ConfigurationError("tokenize needs at least one caption, each a str.")
        return self.tokenizer(captions)

    def unknown_words(self, text: str) -> list[str]:
        """Words of a caption with a token that the backbone never learned, in order, each once."""
        known = self.known_tokens
        if known is None:
            return []
        unknown = []
        for word in words_of(text):
            if not known.issuperset(self.tokenizer.encode(word)):
                unknown.append(word)
        return unknown

    @property
    def max_tokens(self) -> int:
        """Tokens of a description, start and end not counted, that are read."""
        return self.backbone.context_length - 2 - self.num_prompts

    def reads_all(self, text: str) -> bool:
        """Whether no word of a description is cut off (the tokenizer itself cuts at the context's
        end)."""
        end = int((self.tokenize(text)[0] == self.end_token).int().argmax())
        return end - 1 <= min(self.max_tokens, self.backbone.context_length - 3)

    # Size

    def counted_parameters(self) -> dict[str, nn.Parameter]:
        """Every parameter but CLIP's own temperature, which no feature and no loss reads."""
        parameters = dict(self.named_parameters())
        for name in backbones.UNUSED:
            parameters.pop(f"backbone.{name}", None)
        return parameters

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

    def summary(self) -> str:
        """A table: trained and all parameters of each block, adding up to the totals."""
        return parameter_table(self)

    # Weights (see cskt.model.checkpoints and cskt.model.reference)

    def trainable_state(self) -> dict[str, Tensor]:
        """The trained tensors by name; like ``state_dict()``, they share memory with the model."""
        return {name: p.detach() for name, p in self.named_parameters() if p.requires_grad}

    def load_trainable_state(self, state: Mapping[str, Tensor]) -> None:
        """Inverse of :meth:`trainable_state`; a :class:`CSKTError` lists what does not fit, and
        nothing is loaded."""
        self.unfuse()
        copy_state(self.trainable_state(), state, "the trained state")

    def backbone_fingerprint(self) -> str:
        """Identifies the frozen backbone by its values, a trained one by its shapes only."""
        return backbones.fingerprint(self.backbone, weights=not self.config.train_backbone)

    def fingerprint(self) -> str:
        """16 hex digits: two models with one fingerprint give the same features."""
        return checkpoints.fingerprint(self)

    def save_pretrained(self, path: str | os.PathLike, dtype: torch.dtype | None = None) -> None:
        """Writes the trained weights (as ``dtype``, if given) and the configuration into the folder
        ``path``.

        Of a backbone whose weights came from a file its name is written, not where it lay."""
        checkpoints.save_pretrained(self, path, dtype)

    @classmethod
    def from_pretrained(
        cls,
        path: str | os.PathLike,
        backbone: open_clip.CLIP | None = None,
        pretrained: str | os.PathLike | None = None,
    ) -> CSKT:
        """The model saved in the folder ``path``, in eval mode.

        Its backbone is made as it was, or given as ``backbone``. Where its weights came from a
        file, ``pretrained`` says where that is now, unless it lies in ``path`` too or in the
        working directory. :class:`CSKTError` if a file is missing or unfit, or if the backbone is
        not the one that was trained on."""
        saved = checkpoints.read_pretrained(path)
        if backbone is not None:
            model = cls(backbone, saved.config, source=saved.source)
        else:
            name, weights = checkpoints.backbone_of(saved, pretrained)
            model = load_model(name, weights, saved.image_size, saved.config)
        checkpoints.check_backbone(model, saved)
        model.load_trainable_state(saved.weights)
        return model.eval()

    def load_reference_checkpoint(self, checkpoint: Mapping[str, Any] | str | os.PathLike) -> None:
        """Loads a state dict, or the path of one, in the authors' names; see
        :func:`cskt.model.reference.load_reference_checkpoint`."""
        reference.load_reference_checkpoint(self, checkpoint)

    def to_reference_state(self) -> dict[str, Tensor]:
        """A state dict that the authors' code loads; like ``state_dict()``, it shares memory with
        the model."""
        return reference.to_reference_state(self)


def load_model(
    name: str = MINI,
    pretrained: str | os.PathLike | None = None,
    image_size: tuple[int, int] | int | None = None,
    config: CSKTConfig | None = None,
) -> CSKT:
    """A backbone (see :func:`cskt.model.backbone.create_backbone`) with a fresh CSKT on it.

    ``config`` defaults to the paper's, for ``cskt-mini`` to :meth:`cskt.config.CSKTConfig.mini`.
    """
    backbone = backbones.create_backbone(name, pretrained, image_size)
    tokenizer = backbones.tokenizer_for(name)
    known = backbones.known_token_ids(name) if pretrained is None else None
    source = {"name": name, "pretrained": None if pretrained is None else os.fspath(pretrained)}
    if config is None:
        config = CSKTConfig.mini() if name == MINI else CSKTConfig()
    return CSKT(backbone, config, tokenizer, known, source)


def _layers(
    blocks: Sequence[ResidualAttentionBlock],
    adapters: nn.ModuleList,
    lora: nn.ModuleList,
) -> list[Layer]:
    """Each block with what is trained beside it; ``adapters`` and ``lora`` may be empty."""
    layers = [Layer(block) for block in blocks]
    for layer, adapter in zip(layers, adapters, strict=False):
        layer.adapter = adapter
    for layer, update in zip(layers, lora, strict=False):
        layer.lora = update
    return layers
