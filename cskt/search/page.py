"""A page that searches in the reader's browser: what it loads, and its html."""

from __future__ import annotations

import base64
import gzip
import html
import html.entities
import json
import os
from collections.abc import Sequence
from pathlib import Path
from string import Template
from typing import Any

import numpy as np
from open_clip import SimpleTokenizer
from torch import Tensor

from cskt.data.datasets import PersonRetrievalDataset, Split
from cskt.errors import ConfigurationError, ResourceError
from cskt.evaluation import LoadedSplit
from cskt.files import make_folder, write_atomically
from cskt.html import image_uri
from cskt.model.cskt import CSKT
from cskt.search.query import MAX_QUERY

ASSETS = Path(__file__).parent / "web"
SCRIPTS = ("tokenizer.js", "search.js", "search.css")  # of ASSETS; the book puts them into _static
RUNTIME = (  # in the folder vendor beside the data
    "onnxruntime-web-1.30.0.min.js",
    "onnxruntime-web-1.30.0.mjs.js",
    "onnxruntime-web-1.30.0.wasm.js",
)
LIMIT = 25e6  # bytes that a page may load, the runtime included
HITS = 10  # of Python's rankings, to check the browser's against


def obstacle(model: CSKT, data: PersonRetrievalDataset) -> str | None:
    """Why :func:`write_page` is no option, in a sentence; None where it is."""
    if not data.synthetic:
        return (
            f"{data.name} shows photographs of people, which may not be redistributed, so no page "
            "that carries them is written; search them with Python in the retrieval notebook."
        )
    if not isinstance(model.tokenizer, SimpleTokenizer):
        return (
            "This backbone's tokenizer is not CLIP's, the only one that the page knows, "
            "so no page is written."
        )
    backbone: Any = model.backbone
    size = 4 * sum(weight.numel() for weight in backbone.transformer.parameters())
    if size >= LIMIT:
        return (
            f"The text encoder takes more than {size / 1e6:,.0f} MB, and the page may load "
            f"{LIMIT / 1e6:.0f} MB, so no page is written."
        )
    return None


def tokenizer_tables(model: CSKT) -> dict[str, Any]:
    """What ``assets/tokenizer.js`` needs to give the ids of ``model.tokenize``, and to name unknown
    words."""
    backbone: Any = model.backbone
    tokenizer: Any = model.tokenizer
    return {
        "merges": [" ".join(pair) for pair in tokenizer.bpe_ranks],
        "entities": html.entities.html5,
        "context": backbone.context_length,
        "end": model.end_token,
        "columns": backbone.context_length - model.num_prompts,
        "known": None if model.known_tokens is None else sorted(model.known_tokens),
    }


def packed(name: str, content: bytes) -> str:
    """``content``, compressed, as a script that a page opened from disk can load:
    ``csktFiles[name]``."""
    compressed = gzip.compress(content, 9, mtime=0)
    return _script(name, base64.b64encode(compressed).decode())


def _script(name: str, content: Any) -> str:
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
    examples: Sequence[int] | np.ndarray,
    title: str,
    static: str = "../_static",
) -> str:
    """Write what a page needs to search ``loaded`` without Python, and return that page's html.

    Args:
        folder: for the data; :data:`RUNTIME` lies beside it, in ``vendor``. The page finds both
            in ``static``, and there :data:`SCRIPTS`, which the book copies from the package.
        encoder: the file of :func:`cskt.search.onnx_export.export_text_encoder`.
        image_features, text_features: (N, D) and (M, D), L2-normalised float32, of Python: what
            the browser ranks by, and what its rankings are checked against.
        examples: captions to offer, by index, the first one as it opens.
        title: what the images are, shown above them.

    Raises:
        CSKTError: features that do not fit the split, no example, or more than :data:`LIMIT`
            bytes; nothing is written.
    """
    folder = Path(folder)
    split = loaded.split
    images = loaded.images.permute(0, 2, 3, 1).numpy()
    lengths = (len(image_features), len(text_features))
    if lengths != (len(images), len(split)) or not len(examples):
        raise ConfigurationError(
            f"the page needs an example and features of {len(images)} images and {len(split)} "
            f"captions, got {len(examples)}, {lengths[0]} and {lengths[1]}."
        )
    ranking = (text_features @ image_features.T).topk(min(HITS, len(images)))
    pixels = image_features.float().contiguous().numpy()
    # What shows the precomputed rankings needs nothing but a script tag; the rest needs
    # DecompressionStream.
    files = {
        "gallery": _script("gallery", _gallery(split, images)),
        "queries": _script("queries", _queries(split, ranking.indices, ranking.values)),
        "tokenizer": packed("tokenizer", _json(tokenizer_tables(model)).encode()),
        "features": packed("features", pixels.tobytes()),
        "encoder": packed("encoder", Path(encoder).read_bytes()),
    }
    sizes = {f"{name}.data.js": len(script.encode()) for name, script in files.items()}
    for name in RUNTIME:
        path = folder.parent / "vendor" / name
        if path.is_file():
            sizes[name] = path.stat().st_size
    total = sum(sizes.values())
    if total > LIMIT:
        raise ResourceError(
            f"the page would load {total / 1e6:.1f} MB, more than {LIMIT / 1e6:.0f}; use a "
            "smaller backbone or split."
        )
    make_folder(folder)
    for name, script in files.items():
        write_atomically(folder / f"{name}.data.js", script)
    config = {
        "data": f"{static}/{folder.name}/",
        "runtime": f"{static}/vendor/",
        "sizes": sizes,
        "scripts": RUNTIME,
        "examples": [int(index) for index in examples],
        "longest": MAX_QUERY,
        "hits": HITS,
    }
    template = Template((ASSETS / "search.html").read_text(encoding="utf-8"))
    return template.substitute(
        title=html.escape(title),
        example=html.escape(split.captions[examples[0]]),
        static=f"{static}/",
        config=_json(config).replace("<", "\\u003c"),
        longest=MAX_QUERY,
        count=HITS,
        captions=len(split),
        images=f"{len(images):,}",
    )


def _gallery(split: Split, images: np.ndarray) -> dict[str, Any]:
    return {
        "thumbnails": [image_uri(image, quality=75) for image in images],
        "identities": split.image_identities.tolist(),
        "cameras": list(split.cameras or [""] * len(images)),
    }


def _queries(split: Split, order: Tensor, scores: Tensor) -> dict[str, Any]:
    """The captions and Python's ranking of the images for each: (M, k) indices and cosines."""
    return {
        "captions": list(split.captions),
        "images": split.caption_images.tolist(),
        "order": order.tolist(),
        "scores": scores.double().numpy().round(5).tolist(),
    }
