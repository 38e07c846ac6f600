"""What the committed runs amount to, for the page that answers reviewers' checklists."""

from __future__ import annotations

from pathlib import Path

from cskt.report.run_files import run_table


def run_facts(folder: str | Path) -> dict[str, float]:
    """Numbers over all run files below ``folder``; a run that stands in two grids counts once.

    Keys: ``runs``; ``ranked``, of them those whose ranks are stored; ``seeds``, the fewest of a
    trained method in the benchmark tables; ``methods``; ``hours`` of all and ``minutes`` of the
    longest run; ``commits`` that they were made from.
    """
    runs = run_table(Path(folder).rglob("*.json")).drop_duplicates("file")
    ranked = [Path(path).with_suffix(".npz").is_file() for path in runs["path"]]
    benchmark = run_table(Path(folder).glob("*.json"))
    trained = benchmark[benchmark["method"] != "zero-shot"]
    seeds = trained.groupby(["data", "method"])["seed"].nunique()
    return {
        "runs": len(runs),
        "ranked": sum(ranked),
        "seeds": int(seeds.min()) if len(seeds) else 0,
        "methods": runs["method"].nunique(),
        "hours": float(runs["seconds"].sum() / 3600),
        "minutes": float(runs["seconds"].max() / 60),
        "commits": runs["commit"].nunique(),
    }
