"""The text encoder as an ONNX file, for where there is no Python, and its features by that file."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cskt.errors import ModelError
from cskt.extras import extra
from cskt.files import make_folder, write_atomically
from cskt.model.cskt import CSKT
from cskt.model.inputs import fit_captions
from cskt.model.towers import Grid, prefix_keys_values, run_tower

with extra("search"):
    import onnxruntime
    import onnxscript  # noqa: F401  (torch's exporter needs it)
    from onnx_ir.passes import common as passes

USE = (
    "Input: one caption's token ids, from its start to its end token, at most {} of them: longer "
    "ones lose their last words, not the end token {}. Output: its L2-normalised feature."
)


class _TextEncoder(nn.Module):
    """Token ids (1, L), start to end, L at most 77 - P -> the L2-normalised feature (1, D) of a
    fused ``model``.

    All that captions share, start token and prompts, is a constant. Tokens that the backbone never
    learned share one row of zeros: theirs are zeros anyway and would be most of the file."""

    def __init__(self, model: CSKT) -> None:
        super().__init__()
        backbone: Any = model.backbone
        table = backbone.token_embedding.weight
        positions = backbone.positional_embedding
        tower = model.tower("text")
        self.layers = tower.layers
        start = table[model.tokenize("")[0, :1]] + positions[:1]
        self.front = prefix_keys_values(tower, start)
        self.rows: Tensor | None = None
        if model.known_tokens is not None:
            known = torch.tensor(sorted(model.known_tokens))
            self.rows = torch.zeros(len(table), dtype=torch.int32)
            self.rows[known] = torch.arange(1, 1 + len(known), dtype=torch.int32)
            table = F.pad(table[known], (0, 0, 1, 0))
        self.table = table
        self.positions = positions[1 + model.num_prompts :]
        self.norm = backbone.ln_final
        self.projection = backbone.text_projection

    def forward(self, token_ids: Tensor) -> Tensor:
        words = token_ids[0, 1:]
        count = words.shape[0]  # len() would fix it
        rows = words if self.rows is None else self.rows.index_select(0, words)
        x = self.table.index_select(0, rows) + self.positions[:count]
        x = run_tower(self.layers, x, Grid(1, count), causal=True, front=self.front, read=count - 1)
        x = self.norm(x)
        if isinstance(self.projection, nn.Module):
            x = self.projection(x)
        elif self.projection is not None:
            x = x @ self.projection
        return F.normalize(x, dim=-1)


def export_text_encoder(model: CSKT, path: str | os.PathLike) -> Path:
    """Write the text encoder as ONNX, prompts, adapters and LoRA folded in; returns ``path``.

    Input ``token_ids`` int64 (1, L), one caption from :meth:`CSKT.tokenize` cut by
    :func:`fit_captions`, from its start to its end token, L from 2 to 77 - P; output ``feature``
    float32 (1, D), L2-normalised. Equal models give equal files.

    Raises:
        CSKTError: a model that is not float32 on the CPU.
    """
    path = Path(path)
    was_training = model.training
    columns = caption_columns(model)
    with torch.no_grad(), model.fused():
        encoder = _TextEncoder(model).eval()
        _check_float32_on_cpu(encoder)
        example = model.tokenize("")[:, :2].repeat(1, 4)
        length = torch.export.Dim("length", min=2, max=columns)
        with _fewer_warnings():
            program = torch.onnx.export(
                encoder,
                (example,),
                dynamo=True,
                verbose=False,
                input_names=["token_ids"],
                output_names=["feature"],
                dynamic_shapes=({1: length},),
            )
    model.train(was_training)
    assert program is not None
    passes.ClearMetadataAndDocStringPass()(program.model)  # they name paths of this machine
    passes.DeduplicateHashedInitializersPass()(program.model)
    program.model.doc_string = USE.format(columns, model.end_token)
    make_folder(path.parent)
    write_atomically(path, program.model_proto.SerializeToString(deterministic=True))
    return path


def caption_columns(model: CSKT) -> int:
    """Tokens of a caption that stand beside the prompts, start and end token included: 77 - P."""
    backbone: Any = model.backbone
    return backbone.context_length - model.num_prompts


def _check_float32_on_cpu(encoder: _TextEncoder) -> None:
    layer: Any = encoder.layers[0]  # of a fused model
    weight = layer.up.weight
    if weight.dtype != torch.float32 or weight.device.type != "cpu":
        raise ModelError(
            f"the text encoder is exported in float32 from the CPU, but this one is {weight.dtype} "
            f"on {weight.device}; use model.unfuse().cpu().float() first."
        )


@contextmanager
def _fewer_warnings() -> Iterator[None]:
    """Without those of the exporter, which warns of every constant that it leaves as it is."""
    exporter = logging.getLogger("onnxscript")
    level = exporter.level
    exporter.setLevel(logging.ERROR)
    try:
        yield
    finally:
        exporter.setLevel(level)


def encode_with_onnx(path: str | os.PathLike, model: CSKT, captions: Sequence[str]) -> Tensor:
    """Features (M, D) of captions by the file of :func:`export_text_encoder`; ``model`` only
    tokenises them."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # captions are short
    session = onnxruntime.InferenceSession(
        os.fspath(path), options, providers=["CPUExecutionProvider"]
    )
    end_token: Any = model.end_token
    ids, ends = fit_captions(model.tokenize(captions), end_token, caption_columns(model))
    features = []
    for row, end in zip(ids, ends.tolist(), strict=True):
        (feature,) = session.run(None, {"token_ids": row[None, : end + 1].numpy()})
        features.append(torch.from_numpy(feature))
    return torch.cat(features)
