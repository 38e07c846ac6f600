"""``make fuzz``: coverage-guided inputs for all that reads files which others wrote or edited::

    python -m tests.fuzz --inputs 100000 --seed 0

Each target gets its share of the inputs in a process of its own, where atheris (libFuzzer) mutates
sound files and keeps those that reach new code. Only a kind of :class:`cskt.errors.CSKTError` may
come out; whatever else does is kept in ``--output``, once for each place, and the exit code is 1.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import re
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import yaml

from tests import annotations, own_data
from tests.run_records import run_file
from tests.tiny_runs import BACKBONE, register_backbone, tiny_config

LONGEST = 4096  # bytes of an input
WORDS = (  # for the mutations: fields and values that the readers know
    *("split", "train", "val", "test", "captions", "file_path", "img_path", "id", "camera"),
    *("image", "caption", "identity", "cam0/0.png", "../", "/etc/passwd", "true", "null", "NaN"),
    *("cskt", "method", "backbone", "pretrained", "image_size", "prompt_length", "seed", "1e400"),
    *("metrics", "text_to_image", "R@1", "config", "hardware", "fingerprint", "name", "lora"),
    *("[[[[[[[[", '{"a":', "99999999999999999999", "\ufeff", "\ud7ff", "&a", "*a", "!!python/"),
)


class Target:
    """A reader: ``read(path, folder)`` is called after an input was written to ``file``."""

    def __init__(self, file: str, seeds: list[str], read: Callable[[Path], object]) -> None:
        self.file = file
        self.seeds = seeds
        self.read = read


def targets(folder: Path) -> dict[str, Target]:
    """All readers by name; what they need beside the input is written below ``folder``."""
    from cskt.cli.common import train_config
    from cskt.data.datasets import load_dataset
    from cskt.data.verify import verify
    from cskt.files import read_yaml
    from cskt.model import CSKT
    from cskt.report.run_files import run_table
    from cskt.runs import Run, read_config

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
    from dataclasses import asdict

    from cskt.config import CSKTConfig

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
        from safetensors.torch import save_file

        save_file({}, folder / "adapter.safetensors")
    return folder / file


def fuzz(name: str, inputs: int, seed: int, output: Path) -> None:
    """Give one target its inputs, in this process, which ends with them."""
    import atheris

    with atheris.instrument_imports(include=["cskt", "yaml"]):
        import cskt.cli.common
        import cskt.data.datasets
        import cskt.data.verify
        import cskt.report.run_files
        import cskt.runs  # noqa: F401
    from cskt.errors import CSKTError

    scratch = Path(tempfile.mkdtemp(prefix="cskt-fuzz-"))
    target = targets(scratch)[name]
    path = prepare(scratch / "place", target.file)
    corpus = scratch / "corpus"
    corpus.mkdir()
    for index, text in enumerate(target.seeds):
        (corpus / f"seed-{index}").write_text(text)
    words = scratch / "words"
    words.write_text("".join(f"{json.dumps(word)}\n" for word in WORDS if word.isascii()))

    def one_input(data: bytes) -> None:
        path.write_bytes(data)
        try:
            target.read(path)
        except CSKTError as error:
            if "\n" in str(error):
                _keep(output, name, data, AssertionError(f"several lines: {error}"))
        except Exception as error:
            _keep(output, name, data, error)

    limits = [f"-max_len={LONGEST}", f"-dict={words}", "-rss_limit_mb=4096", "-timeout=60"]
    counts = [f"-runs={inputs}", f"-seed={seed + 1}", f"-artifact_prefix={output}/"]
    atheris.Setup([sys.argv[0], str(corpus), *limits, *counts], one_input)
    atheris.Fuzz()


def _keep(output: Path, name: str, data: bytes, error: Exception) -> None:
    """Keep an input that raised what it must not, once for each place."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if "/cskt/" in frame.filename]
    place = own[-1] if own else frames[-1] if frames else None
    where = f"{Path(place.filename).stem}-{place.lineno}" if place else "message"
    stem = re.sub(r"\W+", "-", f"{name}-{type(error).__name__}-{where}")
    if not (output / f"{stem}.txt").exists():
        (output / f"{stem}.input").write_bytes(data)
        told = "".join(traceback.format_exception(error))
        (output / f"{stem}.txt").write_text(told[-4000:])


def run_all(inputs: int, seed: int, output: Path, chosen: list[str]) -> int:
    """Every target in a process of its own; prints a line for each and returns how many inputs
    came to another end than they may."""
    output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        names = chosen or list(targets(Path(scratch)))
    share = -(-inputs // len(names))
    total = 0
    failed = 0
    begin = time.monotonic()
    print(f"{'target':<14}{'inputs':>9}{'seconds':>9}{'coverage':>10}{'failures':>10}")
    for name in names:
        start = time.monotonic()
        asked = [f"--target={name}", f"--inputs={share}", f"--seed={seed}", f"--output={output}"]
        done = subprocess.run(
            [sys.executable, "-m", "tests.fuzz", *asked],
            capture_output=True,
            text=True,
            errors="replace",
            env={**os.environ, "TMPDIR": scratch if os.path.isdir(scratch) else "/tmp"},
        )
        ran = re.findall(r"Done (\d+) runs", done.stderr)
        coverage = re.findall(r"cov: (\d+)", done.stderr)
        stem = re.sub(r"\W+", "-", name)
        failures = len(list(output.glob(f"{stem}-*.txt")))
        if not ran or done.returncode:  # a crash, too much memory, or an endless loop
            failures += 1
            (output / f"{stem}-ended.txt").write_text(done.stderr[-20_000:])
        count = int(ran[0]) if ran else 0
        total += count
        failed += failures
        seconds = time.monotonic() - start
        reached = coverage[-1] if coverage else "-"
        print(f"{name:<14}{count:>9,}{seconds:>9.0f}{reached:>10}{failures:>10}", flush=True)
    print(f"{total:,} inputs in {time.monotonic() - begin:.0f} s, {failed} failures ({output})")
    return failed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--inputs", type=int, default=100_000, help="of all targets together")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=Path(".fuzz"))
    parser.add_argument("--only", action="append", default=[], help="a target; repeatable")
    parser.add_argument("--target", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if importlib.util.find_spec("atheris") is None:
        raise SystemExit(
            "make fuzz needs atheris (Linux, Python 3.11 to 3.13): pip install 'atheris>=3'."
        )
    if given.target:
        fuzz(given.target, given.inputs, given.seed, given.output)
    elif run_all(given.inputs, given.seed, given.output.absolute(), given.only):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
