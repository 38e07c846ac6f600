"""Commands about galleries: index, search."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from typer import Option

from cskt.errors import ConfigurationError, DataError
from cskt.files import write_atomically

if TYPE_CHECKING:
    from cskt.search.hits import Hit

GalleryAt = Annotated[
    str, Option(help="A folder such as g.db, or http://host:19530 of a Milvus server.")
]
GalleryName = Annotated[str, Option(help="Of several galleries in one place.")]
Token = Annotated[str, Option(envvar="MILVUS_TOKEN", help="Of a Milvus server.")]

ROW = "{:>4}  {:>6}  {:>8}  {:<8}  {:<19}  {}"  # of the table of hits


def index(
    folder: Annotated[Path, typer.Argument(help="Images, in it and below.")],
    gallery: GalleryAt,
    model: Annotated[
        str | None,
        Option(
            help="Folder of a run or of a saved model; default the gallery's, for a new one the "
            "default run where it has been trained, else cskt-mini as it comes."
        ),
    ] = None,
    metadata: Annotated[
        Path | None, Option(help="csv: file (below FOLDER), identity, camera, time, ...")
    ] = None,
    kind: Annotated[
        str,
        Option("--index", help="Of a new gallery: FLAT (exact), HNSW, IVF_FLAT, IVF_SQ8, DISKANN."),
    ] = "FLAT",
    shards: Annotated[int, Option(help="Of a new gallery on a Milvus cluster.")] = 1,
    name: GalleryName = "gallery",
    token: Token = "",
) -> None:
    """Add a folder of images to a gallery; calling it again goes on where it stopped and adds what
    is new."""
    from cskt.search.gallery import (
        Gallery,  # Milvus' client takes a second, which other commands save
    )
    from cskt.search.pictures import read_metadata

    facts = read_metadata(metadata) if metadata else None
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder; give one with images.")
    from cskt.search.sharing import started_ranks

    ranks = started_ranks()

    def open_gallery() -> Gallery:
        return Gallery(gallery, model, name=name, token=token, index=kind, shards=shards)

    if ranks.count > 1:  # one of them makes it
        ranks.ask_first(lambda: open_gallery().close())
    with open_gallery() as opened:
        if ranks.first:
            source = opened.record["source"]
            typer.echo(f"model: {source} (a new gallery may name another with --model)", err=True)
        done = opened.add(folder, facts, ranks=ranks)
        if not ranks.first:
            return
        for file, reason in done.skipped.items():
            typer.echo(f"skipped {_printable(file)}: {reason}")
        typer.echo(
            f"{gallery}: {done.added} images added, {done.known} already there, "
            f"{len(done.skipped)} skipped; {len(opened)} in all"
        )


def search(
    gallery: GalleryAt,
    description: Annotated[str | None, typer.Argument(help="Whom to look for, in English.")] = None,
    image: Annotated[
        Path | None, Option(help="A picture of the person, in place of a description.")
    ] = None,
    k: Annotated[int, Option("-k", min=1, help="Hits.")] = 10,
    where: Annotated[
        str, Option(help="Filter, such as \"camera == 'c3' and identity in [1, 2]\".")
    ] = "",
    html: Annotated[
        Path | None, Option(help="Write a contact sheet, one file with the pictures in it.")
    ] = None,
    model: Annotated[
        str | None, Option(help="Where the gallery's model is now, if it moved.")
    ] = None,
    name: GalleryName = "gallery",
    token: Token = "",
) -> None:
    """Rank the images of a gallery by how well they fit a description; a table, and a contact sheet
    with --html."""
    from cskt.search.gallery import Gallery
    from cskt.search.hits import contact_sheet

    query: str | Path
    if description is not None and image is None:
        query = description
    elif image is not None and description is None:
        query = image
    else:
        raise ConfigurationError("give a description or --image, one of the two.")
    if html and (html.is_dir() or not html.absolute().parent.is_dir()):
        raise ConfigurationError(
            f"--html {html} cannot be written; name a file in a folder that exists."
        )
    with Gallery(gallery, model, name=name, create=False, token=token) as opened:
        hits = opened.search(query, k, where)
        remarks = opened.remarks(description) if description else []
        if len(hits) < k:
            remarks.append(_why_so_few(len(hits), len(opened), where))
        for remark in remarks:
            typer.echo(remark, err=True)
        _print_hits(hits)
        if html:
            page = contact_sheet(description or f"images like {image}", hits, remarks)
            write_atomically(html, page)
            typer.echo(f"contact sheet: {html}")


def _why_so_few(hits: int, size: int, where: str) -> str:
    from cskt.search.milvus import MAX_HITS

    if hits == MAX_HITS:
        return f"No more than {hits} images can be listed."
    if where:
        return f"Only {hits} of the {size} images fit the filter."
    return f"The gallery holds only {size} images."


def _print_hits(hits: list[Hit]) -> None:
    typer.echo(ROW.format("rank", "score", "identity", "camera", "time", "file"))
    for rank, hit in enumerate(hits, start=1):
        typer.echo(
            ROW.format(
                rank,
                f"{hit.score:.3f}",
                _printable_or_dash(hit.identity),
                _printable_or_dash(hit.camera),
                _printable_or_dash(hit.time),
                _printable(hit.source),
            )
        )


def _printable_or_dash(fact: object) -> str:
    return "-" if fact is None else _printable(str(fact))


def _printable(text: str) -> str:
    """A name as a terminal may have it: what is no letter or mark, or no text at all, as an
    escape."""
    shown = []
    for character in text:
        if character.isprintable():
            shown.append(character)
        else:
            shown.append(character.encode("unicode_escape").decode())
    return "".join(shown)
