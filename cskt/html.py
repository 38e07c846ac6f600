"""Fragments of html that pages of the analysis and of the search share."""

from __future__ import annotations

import base64
import io

import numpy as np
from PIL import Image

# Okabe and Ito's vermilion: one hue, safe for the colour-blind, on white and black.
HEAT = "213,94,0"
STRONGEST = 0.75  # opacity of the highest share
SCALE = (
    '<span style="display:inline-block;width:6em;height:0.8em;border:1px solid currentColor;'
    f'background:linear-gradient(to right,transparent,rgba({HEAT},{STRONGEST}))"></span>'
)


def image_uri(image: np.ndarray, quality: int = 88) -> str:
    """An (H, W, 3) uint8 image as a data address that a page can show without a server."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=quality)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
