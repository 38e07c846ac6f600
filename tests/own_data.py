"""Data of one's own, written in every layout: eight people in train, two in test."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

from PIL import Image

NAME = "my people"
HEADER = ("image", "caption", "identity", "split", "camera", "weather")
JSON_FILES = (
    "reid_raw.json",
    "caption_all.json",
    "ICFG-PEDES.json",
    "ICFG_PEDES.json",
    "data_captions.json",
)
FILES = ("captions.csv", "captions.jsonl", *JSON_FILES)
TRAIN = 8


def rows(val: bool = True) -> list[dict[str, Any]]:
    """Two captions of one image and one of a second, for each of eight people in train, and, in
    test and (if ``val``) in val, two."""
    people = [(f"{number}", "train") for number in range(TRAIN)]
    people += [("100", "test"), ("101", "test")]
    if val:
        people += [("50", "val"), ("51", "val")]
    table = []
    for identity, split in people:
        for number in range(3):
            row = {
                "image": f"{split}/{identity}-{number // 2}.png",
                "caption": f"person {identity}, caption {number}",
                "identity": identity,
                "split": split,
                "camera": f"c{number // 2}",
                "weather": "rain" if number < 2 else "",
            }
            table.append(row)
    return table


def write_images(folder: Path, table: list[dict[str, Any]]) -> None:
    """A small picture at every place that the rows name, in imgs/; no two are equal."""
    for number, image in enumerate(dict.fromkeys(row["image"] for row in table)):
        path = folder / "imgs" / image
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 8), (number, 2 * number, 99)).save(path)


def write_csv(folder: Path, table: list[dict[str, Any]], header: tuple = HEADER) -> Path:
    """``folder/captions.csv``."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "captions.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, header, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(table)
    return folder / "captions.csv"


def write_jsonl(folder: Path, table: list[dict[str, Any]]) -> Path:
    """``folder/captions.jsonl``."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps(row) + "\n" for row in table]
    (folder / "captions.jsonl").write_text("".join(lines))
    return folder / "captions.jsonl"


def write_json(folder: Path, table: list[dict[str, Any]], file: str) -> Path:
    """``folder/file`` in the json layouts, where a record is an image."""
    field = "img_path" if file == "data_captions.json" else "file_path"
    records: dict[str, dict[str, Any]] = {}
    for row in table:
        record = {
            field: row["image"],
            "id": int(row["identity"]),
            "split": row["split"],
            "camera": row["camera"],
            "captions": [],
        }
        records.setdefault(row["image"], record)["captions"].append(row["caption"])
    folder.mkdir(parents=True, exist_ok=True)
    (folder / file).write_text(json.dumps(list(records.values())))
    return folder / file


def write(folder: Path, table: list[dict[str, Any]], file: str = "captions.csv") -> Path:
    """A data set of one's own with its images and annotation ``file``; its folder."""
    write_images(folder, table)
    if file == "captions.csv":
        write_csv(folder, table)
    elif file == "captions.jsonl":
        write_jsonl(folder, table)
    else:
        write_json(folder, table, file)
    return folder
