"""The text encoder where there is no Python: as an ONNX file, and on a page that searches in the
reader's browser."""

from __future__ import annotations

import base64
import gzip
import html.entities
import json
import logging
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from string import Template
from typing import Any

import onnx
import onnxruntime
import torch
import torch.nn.functional as F
from open_clip import SimpleTokenizer
from torch import Tensor, nn

from cskt.errors import CSKTError
from cskt.files import make_folder, write_atomically

from .data.datasets import PersonRetrievalDataset
from .demo import hit_strip, image_uri
from .evaluation import LoadedSplit
from .gallery import MAX_QUERY
from .model.cskt import CSKT
from .model.inputs import fit_captions
from .model.towers import Grid, prefix_keys_values, run_tower

ASSETS = Path(__file__).parent / "assets"
SCRIPTS = ("tokenizer.js", "search.js", "search.css")  # of ours, copied beside the data
RUNTIME = tuple(
    f"onnxruntime-web-1.30.0{kind}.js" for kind in (".min", ".mjs", ".wasm")
)  # in ../vendor of the data
LIMIT = 25e6  # bytes that a page may load, the runtime included
HITS = 10  # of Python's rankings, to check the browser's against
USE = (
    "Input: one caption's token ids, from its start to its end token, at most {} of them: longer ones lose their "
    "last words, not the end token {}. Output: its L2-normalised feature."
)


class _TextEncoder(nn.Module):
    """Token ids (1, L), start to end, L at most 77 - P -> the L2-normalised feature (1, D) of a
    fused ``model``.

    All that captions share, start token and prompts, is a constant. Tokens that the backbone never
    learned share one row of zeros: theirs are zeros anyway and would be most of the file."""

    def __init__(self, model: CSKT) -> None:
        super().__init__()
        backbone, self.rows = model.backbone, None
        tower = model.tower("text")
        self.layers = tower.layers
        positions, table = backbone.positional_embedding, backbone.token_embedding.weight
        start = table[model.tokenize("")[0, :1]] + positions[:1]
        self.front = prefix_keys_values(tower, start)
        if model.known_tokens is not None:
            known = torch.tensor(sorted(model.known_tokens))
            self.rows = torch.zeros(len(table), dtype=torch.int32)
            self.rows[known] = torch.arange(1, 1 + len(known), dtype=torch.int32)
            table = F.pad(table[known], (0, 0, 1, 0))
        self.table, self.positions = table, positions[1 + model.num_prompts :]
        self.norm, self.projection = backbone.ln_final, backbone.text_projection

    def forward(self, token_ids: Tensor) -> Tensor:
        words = token_ids[0, 1:]
        count = words.shape[0]  # len() would fix it
        rows = words if self.rows is None else self.rows.index_select(0, words)
        x = self.table.index_select(0, rows) + self.positions[:count]
        x = run_tower(self.layers, x, Grid(1, count), causal=True, front=self.front, read=count - 1)
        x = self.norm(x)
        if self.projection is not None:
            x = (
                self.projection(x)
                if isinstance(self.projection, nn.Module)
                else x @ self.projection
            )
        return F.normalize(x, dim=-1)


def export_text_encoder(model: CSKT, path: str | os.PathLike) -> Path:
    """Write the text encoder as ONNX, prompts, adapters and LoRA folded in; returns ``path``.

    Input ``token_ids`` int64 (1, L), one caption from :meth:`CSKT.tokenize` cut by
    :func:`fit_captions`, from its start to its end token, L from 2 to 77 - P; output ``feature``
    float32 (1, D), L2-normalised. Equal models give equal files.

    Raises:
        CSKTError: a model that is not float32 on the CPU.
    """
    path, training = Path(path), model.training
    noisy = logging.getLogger("onnxscript")
    level = noisy.level
    with torch.no_grad(), model.fused():
        encoder = _TextEncoder(model).eval()
        held = encoder.layers[0].up.weight
        if (held.dtype, held.device.type) != (torch.float32, "cpu"):
            raise CSKTError(
                f"the text encoder is exported in float32 from the CPU, but this one is {held.dtype} on "
                f"{held.device}; use model.unfuse().cpu().float() first."
            )
        columns, ids = (
            model.backbone.context_length - model.num_prompts,
            model.tokenize("")[:, :2].repeat(1, 4),
        )
        length = torch.export.Dim("length", min=2, max=columns)
        noisy.setLevel(logging.ERROR)  # it warns of every constant that it leaves as it is
        try:
            program = torch.onnx.export(
                encoder,
                (ids,),
                dynamo=True,
                verbose=False,
                input_names=["token_ids"],
                output_names=["feature"],
                dynamic_shapes=({1: length},),
            )
        finally:
            noisy.setLevel(level)
    model.train(training)
    content = program.model_proto
    _strip(content)
    content.doc_string = USE.format(columns, model.end_token)
    make_folder(path.parent)
    write_atomically(path, content.SerializeToString(deterministic=True))
    return path


def _strip(content: onnx.ModelProto) -> None:
    """Drop the paths of this machine that the exporter noted, and constants that it wrote twice."""
    graph = content.graph
    for part in (
        content,
        graph,
        *graph.node,
        *graph.input,
        *graph.output,
        *graph.value_info,
        *graph.initializer,
    ):
        del part.metadata_props[:]
        part.doc_string = ""
    kept: dict[tuple, str] = {}
    names = {
        held.name: kept.setdefault((held.data_type, *held.dims, held.raw_data), held.name)
        for held in graph.initializer
        if held.raw_data
    }
    for held in [
        held for held in graph.initializer if names.get(held.name, held.name) != held.name
    ]:
        graph.initializer.remove(held)
    for node in graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]


def encode_with_onnx(path: str | os.PathLike, model: CSKT, captions: Sequence[str]) -> Tensor:
    """Features (M, D) of captions by the file of :func:`export_text_encoder`; ``model`` only
    tokenises them."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # captions are short
    session = onnxruntime.InferenceSession(
        os.fspath(path), options, providers=["CPUExecutionProvider"]
    )
    ids, ends = fit_captions(
        model.tokenize(captions), model.end_token, model.backbone.context_length - model.num_prompts
    )
    features = [
        session.run(None, {"token_ids": row[None, : end + 1].numpy()})[0]
        for row, end in zip(ids, ends.tolist(), strict=True)
    ]
    return torch.cat([torch.from_numpy(feature) for feature in features])


def obstacle(model: CSKT, data: PersonRetrievalDataset) -> str | None:
    """Why :func:`write_page` is no option, in a sentence; None where it is."""
    if not data.synthetic:
        return (
            f"{data.name} shows photographs of people, which may not be redistributed, so no page that carries "
            "them is written; search them with Python in the retrieval notebook."
        )
    if not isinstance(model.tokenizer, SimpleTokenizer):
        return "This backbone's tokenizer is not CLIP's, the only one that the page knows, so no page is written."
    parts = [model.backbone.transformer, model.text_adapters]
    parts += [model.backbone.token_embedding] * (model.known_tokens is None)
    size = sum(p.numel() * p.element_size() for part in parts for p in part.parameters())
    return (
        None
        if size < LIMIT
        else (
            f"The text encoder alone takes {size / 1e6:,.0f} MB, more than the "
            f"{LIMIT / 1e6:.0f} MB that a page may load, so no page is written."
        )
    )


def tokenizer_tables(model: CSKT) -> dict[str, Any]:
    """What ``assets/tokenizer.js`` needs to give the ids of ``model.tokenize``, and to name unknown
    words."""
    tokenizer = model.tokenizer
    return {
        "merges": [" ".join(pair) for pair in tokenizer.bpe_ranks],
        "entities": html.entities.html5,
        "context": model.backbone.context_length,
        "end": model.end_token,
        "columns": model.backbone.context_length - model.num_prompts,
        "known": None if model.known_tokens is None else sorted(model.known_tokens),
    }


def packed(name: str, content: bytes) -> str:
    """``content``, compressed, as a script that a page opened from disk can load:
    ``csktFiles[name]``."""
    text = base64.b64encode(gzip.compress(content, 9, mtime=0)).decode()
    return f'(globalThis.csktFiles ??= {{}})["{name}"] = "{text}";\n'


def _plain(name: str, content: Any) -> str:
    return f'(globalThis.csktFiles ??= {{}})["{name}"] = {_json(content)};\n'


def _json(content: Any) -> str:
    return json.dumps(content, separators=(",", ":"))


def write_page(
    folder: str | os.PathLike,
    encoder: str | os.PathLike,
    model: CSKT,
    loaded: LoadedSplit,
    image_features: Tensor,
    text_features: Tensor,
    examples: Sequence[int],
    title: str,
    static: str = "../_static",
) -> str:
    """Write what a page needs to search ``loaded`` without Python, and return that page's html.

    Args: folder: for the data and scripts; :data:`RUNTIME` lies beside it, in ``vendor``. The page
        finds both in
            ``static``. encoder: the file of :func:`export_text_encoder`. image_features,
        text_features: (N, D) and (M, D), L2-normalised float32, of Python: what the browser ranks
        by,
            and what its rankings are checked against.
        examples: captions to offer, by index; the first one's hits are in the html itself.
        title: what the images are, shown above them.

    Raises: CSKTError: features that do not fit the split, no example, or more than :data:`LIMIT`
        bytes; nothing is written.
    """
    split, images = loaded.split, loaded.images.permute(0, 2, 3, 1).numpy()
    if (len(image_features), len(text_features)) != (len(images), len(split)) or not len(examples):
        raise CSKTError(
            f"the page needs an example and features of {len(images)} images and {len(split)} captions, "
            f"got {len(examples)}, {len(image_features)} and {len(text_features)}."
        )
    folder = Path(folder)
    scores, order = (text_features @ image_features.T).topk(min(HITS, len(images)))
    cameras = split.cameras or ("",) * len(images)
    gallery = {
        "thumbnails": [image_uri(image, quality=75) for image in images],
        "identities": split.image_identities.tolist(),
        "cameras": list(cameras),
    }
    queries = {
        "captions": list(split.captions),
        "images": split.caption_images.tolist(),
        "order": order.tolist(),
        "scores": [[round(score, 5) for score in row] for row in scores.tolist()],
    }
    # What shows the precomputed rankings needs nothing but a script tag; the rest needs
    # DecompressionStream.
    files = {
        "gallery": _plain("gallery", gallery),
        "queries": _plain("queries", queries),
        "tokenizer": packed("tokenizer", _json(tokenizer_tables(model)).encode()),
        "features": packed("features", image_features.float().contiguous().numpy().tobytes()),
        "encoder": packed("encoder", Path(encoder).read_bytes()),
    }
    files = {f"{name}.data.js": text.encode() for name, text in files.items()}
    runtime = [folder.parent / "vendor" / name for name in RUNTIME]
    sizes = {
        **{name: len(content) for name, content in files.items()},
        **{path.name: path.stat().st_size for path in runtime if path.is_file()},
    }
    if sum(sizes.values()) > LIMIT:
        raise CSKTError(
            f"the page would load {sum(sizes.values()) / 1e6:.1f} MB, more than {LIMIT / 1e6:.0f}; use a "
            "smaller backbone or split."
        )
    make_folder(folder)
    for name, content in files.items():
        write_atomically(folder / name, content)
    for name in SCRIPTS:
        shutil.copyfile(ASSETS / name, folder / name)
    first, found = examples[0], order[examples[0]]
    identities = split.image_identities[found]
    labels = [
        f"identity {identity}" + f", camera {cameras[image]}" * bool(cameras[image])
        for identity, image in zip(identities, found.tolist(), strict=True)
    ]
    hits = hit_strip(
        images[found],
        scores[first].tolist(),
        labels,
        (identities == split.caption_identities[first]).tolist(),
    )
    config = {
        "data": f"{static}/{folder.name}/",
        "runtime": f"{static}/vendor/",
        "sizes": sizes,
        "scripts": RUNTIME,
        "examples": [int(index) for index in examples],
        "longest": MAX_QUERY,
        "hits": HITS,
    }
    fields = {"title": title, "example": split.captions[first]}
    return Template((ASSETS / "search.html").read_text(encoding="utf-8")).substitute(
        {name: html.escape(text) for name, text in fields.items()},
        hits=hits,
        data=config["data"],
        config=_json(config).replace("<", "\\u003c"),
        longest=MAX_QUERY,
        count=HITS,
        captions=len(split),
        images=f"{len(images):,}",
    )
