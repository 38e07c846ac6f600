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
import random
import re
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any

import yaml

INSTRUMENTED = [
    *("cskt.checks", "cskt.config", "cskt.data", "cskt.files", "cskt.runs", "cskt.cli.common"),
    *("cskt.model.checkpoints", "cskt.model.backbone", "cskt.report.run_files"),
]
LONGEST = 4096  # bytes of an input
WORDS = (  # for the mutations: fields and values that the readers know
    *("split", "train", "val", "test", "captions", "file_path", "img_path", "id", "camera"),
    *("image", "caption", "identity", "cam0/0.png", "../", "/etc/passwd", "true", "null", "NaN"),
    *("cskt", "method", "backbone", "pretrained", "image_size", "prompt_length", "seed", "1e400"),
    *("metrics", "text_to_image", "R@1", "config", "hardware", "fingerprint", "name", "lora"),
    *("[[[[[[[[", '{"a":', "99999999999999999999", "\ufeff", "\ud7ff", "&a", "*a", "!!python/"),
)
VALUES = [
    *(None, True, False, 0, -1, 1, 0.5, 1e308, float("inf"), float("nan"), 2**63, 10**40),
    *("", "a", "train", "zero-shot", "../x", "/etc/passwd", "\x00", "\ud800", "1", [], {}, [[]]),
    *([1, 2, 3], [32, 16], [10**6, 10**6], {"a": 1}, {"": None}, "cam0/0.png", "x" * 500),
]


def fuzz(name: str, inputs: int, seed: int, output: Path) -> None:
    """Give one target its inputs, in this process, which ends with them."""
    import atheris

    # Only what is imported here first tells which of its code an input reached.
    with atheris.instrument_imports(include=INSTRUMENTED):
        from cskt.errors import CSKTError
        from tests.fuzz_targets import prepare, targets

    scratch = Path(tempfile.mkdtemp(prefix="place-", dir=output))
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

    def mutated(data: bytes, longest: int, seed: int) -> bytes:
        changed = mutate(data, target.file, random.Random(seed))
        if changed is None or len(changed) > longest:
            return atheris.Mutate(data, longest)
        return changed

    options = [str(corpus), *limits, *counts]
    atheris.Setup([sys.argv[0], *options], one_input, custom_mutator=mutated)
    atheris.Fuzz()


def mutate(data: bytes, file: str, chance: random.Random) -> bytes | None:
    """The values in a json or yaml text with one of them changed; None, half of the time and where
    that cannot be done, for a change of bytes instead."""
    is_yaml = file.endswith(".yaml")
    if chance.random() < 0.5 or not file.endswith((".json", ".jsonl", ".yaml")):
        return None
    try:
        text = data.decode()
        values = yaml.safe_load(text) if is_yaml else json.loads(text.splitlines()[0])
        holders: list[Any] = []
        _collect_holders(values, holders)
        holder = chance.choice(holders)
        place = chance.choice(list(holder) if isinstance(holder, dict) else range(len(holder)))
        if chance.random() < 0.2:
            del holder[place]
        else:
            holder[place] = chance.choice([*VALUES, chance.choice(holders)])
        return (yaml.safe_dump(values) if is_yaml else json.dumps(values)).encode()
    except (ValueError, LookupError, RecursionError, TypeError, AttributeError, yaml.YAMLError):
        return None


def _collect_holders(values: Any, holders: list[Any]) -> None:
    """Every object and list in ``values`` that is not empty."""
    if isinstance(values, dict | list) and values and len(holders) < 1000:
        holders.append(values)
        for value in values.values() if isinstance(values, dict) else values:
            _collect_holders(value, holders)


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
    from tests.fuzz_targets import targets

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
            "make fuzz needs atheris, which exists for Linux: "
            ".venv/bin/pip install -c constraints.txt -e '.[fuzz]'."
        )
    if given.target:
        fuzz(given.target, given.inputs, given.seed, given.output)
    elif run_all(given.inputs, given.seed, given.output.absolute(), given.only):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
