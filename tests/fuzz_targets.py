"""The readers that ``make fuzz`` feeds, with sound files to begin from."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import yaml
from safetensors.torch import save_file

from cskt.cli.common import train_config
from cskt.config import CSKTConfig
from cskt.data.datasets import load_dataset
from cskt.data.verify import verify
from cskt.files import read_yaml
from cskt.model import CSKT
from cskt.report.run_files import run_table
from cskt.runs import Run, read_config
from tests import annotations, own_data
from tests.run_records import run_file
from tests.tiny_runs import BACKBONE, register_backbone, tiny_config


class Target:
    """A reader: ``read(path, folder)`` is called after an input was written to ``file``."""

    def __init__(self, file: str, seeds: list[str], read: Callable[[Path], object]) -> None:
        self.file = file
        self.seeds = seeds
        self.read = read


def targets(folder: Path) -> dict[str, Target]:
    """All readers by name; what they need beside the input is written below ``folder``."""
    json_records = [json.dumps(annotations.records(name)) for name in annotations.FILE]
    tables = own_data.rows()
    csv_text = own_data.write_csv(folder / "seed", tables).read_text()
    jsonl_text = own_data.write_jsonl(folder / "seed", tables).read_text()
    settings = yaml.safe_dump(tiny_config(folder / "data").to_dict())
    record = run_file(folder, "seed").read_text()
    saved = json.dumps(_saved_config())

    def benchmark(name: str) -> Callable[[Path], object]:
        return lambda path: load_dataset(name, path.parent)

    def own(path: Path) -> object:
        return load_dataset(own_data.NAME, path.parent)

    def checked(name: str) -> Callable[[Path], object]:
        def read(path: Path) -> object:
            report = verify(name, path.parent, lambda caption: [1] * len(caption.split()))
            return json.dumps(report.to_dict()), report.to_text()

        return read

    def config(path: Path) -> object:
        read_config(path)
        return train_config(read_yaml(path), {})

    def run(path: Path) -> object:
        return Run.load(path.parent)

    def table(path: Path) -> object:
        return run_table([path])

    def model(path: Path) -> object:
        return CSKT.from_pretrained(path.parent)

    return {
        "CUHK-PEDES": Target("reid_raw.json", json_records, benchmark("CUHK-PEDES")),
        "caption_all": Target("caption_all.json", json_records, benchmark("CUHK-PEDES")),
        "RSTPReid": Target("data_captions.json", json_records, benchmark("RSTPReid")),
        "own csv": Target("captions.csv", [csv_text], own),
        "own jsonl": Target("captions.jsonl", [jsonl_text], own),
        "own json": Target("ICFG-PEDES.json", json_records, own),
        "verify json": Target("reid_raw.json", json_records, checked("CUHK-PEDES")),
        "verify csv": Target("captions.csv", [csv_text], checked(own_data.NAME)),
        "config.yaml": Target("config.yaml", [settings], config),
        "metrics.json": Target("metrics.json", [record], run),
        "run file": Target("metrics.json", [record], table),
        "config.json": Target("config.json", [saved], model),
    }


def _saved_config() -> dict:

    source = {
        "name": BACKBONE,
        "pretrained": None,
        "image_size": [32, 16],
        "fingerprint": "0" * 16,
    }
    return {"cskt": asdict(CSKTConfig(prompt_length=1)), "backbone": source}


def prepare(folder: Path, file: str) -> Path:
    """A folder in which ``file`` is read: the images and the other files of a run are there."""
    folder.mkdir(parents=True)
    register_backbone(folder)
    if file in annotations.FILE.values() or file in own_data.FILES:
        annotations.write(folder, annotations.records())
        (folder / "reid_raw.json").unlink()
        own_data.write_images(folder, own_data.rows())
    elif file == "metrics.json":
        settings = yaml.safe_dump(tiny_config(folder / "data").to_dict())
        (folder / "config.yaml").write_text(settings)
        (folder / "history.csv").write_text("epoch\n")
        for name in ("adapter.safetensors", "queries.npz"):
            (folder / name).touch()
    elif file == "config.json":
        save_file({}, folder / "adapter.safetensors")
    return folder / file
