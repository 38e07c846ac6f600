"""Packages that only some of cskt needs: search (Milvus, ONNX) and book (notebooks, figures)."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from cskt.errors import ResourceError


@contextlib.contextmanager
def extra(name: str) -> Iterator[None]:
    """Imports within the block come with ``pip install 'cskt[name]'``.

    A package that is missing is a :class:`cskt.errors.ResourceError` that says so in a sentence.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package == "cskt":  # a fault of ours
            raise
        raise ResourceError(
            f"{package} is not installed; pip install 'cskt[{name}]' brings it."
        ) from error
