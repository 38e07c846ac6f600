"""The efficiency page shows what the benchmarks' run files say, each machine by itself."""

from __future__ import annotations

import json
from pathlib import Path

import matplotlib
import pytest
from matplotlib import pyplot as plt

from cskt.errors import RunError
from cskt.report import efficiency, figures, tables

matplotlib.use("Agg")
BOOK_DATA = Path(__file__).parents[2] / "book" / "data"
AIMS = BOOK_DATA / "aims.csv"
ENVIRONMENT = {
    "started": "2026-01-01T00:00:00+00:00",
    "duration_s": 9.0,
    "commit": "c" * 40,
    "dirty": False,
    "versions": {"torch": "2.15.0"},
    "hardware": {"device": "abacus", "threads": 2},
}
RANKING = {
    "name": "ranking",
    "settings": {},
    **ENVIRONMENT,
    "rows": [
        {"what": "full argsort, Python loops", "seconds": 4.0, "extra_memory_mb": 600.0},
        {"what": "retrieval_metrics", "seconds": 0.5, "extra_memory_mb": 30.0},
    ],
}


def step(method, precision, seconds, memory):
    return {
        "what": "training step",
        "method": method,
        "precision": precision,
        "batch": 16,
        "seconds": seconds,
        "repeats": [seconds],
        "extra_memory_mb": memory,
        "flops": 1e12,
        "bytes": 1e10,
        "utilisation": 0.5,
        "trained": 1000,
    }


LOADER = {
    "what": "loader",
    "method": "cskt",
    "precision": "fp32",
    "batch": 16,
    "seconds": 0.1,
    "repeats": [0.1],
    "extra_memory_mb": None,
}


def throughput():
    """A throughput file with figures that can be checked by eye."""
    points = []
    for what in ("encode_image", "encode_text", "ranking"):
        for size in (1, 2):
            seconds = size / 10
            point = {"what": what, "method": "cskt", "size": size, "seconds": seconds}
            points.append(point)
    return {
        "name": "throughput",
        "settings": {"backbone": "ViT-B-16", "batch": 16},
        **ENVIRONMENT,
        "rows": [
            step("plain", "fp32", 8.0, 2000.0),
            step("cskt", "fp32", 4.0, 1500.0),
            step("cskt", "bf16", 2.0, None),
            step("full", "fp32", 12.0, 4000.0),
            LOADER,
        ],
        "scaling": points,
        "ratios": {
            "training step: plain fp32 / cskt fp32": 2.0,
            "training step: plain fp32 / cskt bf16": 4.0,
            "extra memory: cskt fp32 / plain fp32": 0.75,
            "training step: full fp32 / cskt fp32": 3.0,
            "loader / step with loader: fp32": 0.025,
        },
        "rates": {"copy": 1e10, "matmul_fp32": 4e11, "matmul_bf16": 1e12},
    }


def of_a_slower_machine():
    """A throughput file of another machine, that has no bf16."""
    measurement = throughput()
    measurement["hardware"] = {"device": "slide rule", "threads": 1}
    measurement["rows"] = [row for row in measurement["rows"] if row["precision"] == "fp32"]
    measurement["ratios"] = {"training step: plain fp32 / cskt fp32": 6.0}
    measurement["rates"] = {"copy": 1e10, "matmul_fp32": 4e11}
    return measurement


@pytest.fixture
def read(tmp_path):
    """Writes measurements by the names of their files, and reads them."""

    def write_and_read(**measurements):
        for name, measurement in measurements.items():
            path = tmp_path / f"{name.replace('_', '-')}.json"
            path.write_text(json.dumps(measurement))
        return efficiency.read_measurements(tmp_path)

    return write_and_read


# Reading


@pytest.mark.parametrize(
    "content",
    ["not json", "[]", "{}", '{"rows": []}', '{"name": "ranking", "rows": [{"what": "x"}, {}]}'],
)
def test_a_damaged_run_file_is_named(content, tmp_path):
    (tmp_path / "ranking.json").write_text(content)
    with pytest.raises(RunError, match="ranking.json"):
        efficiency.read_measurements(tmp_path)


def test_a_variation_is_no_measurement_of_speed(read):
    assert read(variation_cpu={"kind": "variation", "rows": [{"method": "cskt"}]}) == {}


def test_without_run_files_everything_says_so(tmp_path):
    measurements = efficiency.read_measurements(tmp_path / "none")
    assert measurements == {}
    assert set(efficiency.aims_table(measurements, AIMS)["measured"]) == {tables.NOT_RUN}
    evidence = efficiency.measurement_evidence(measurements)
    assert list(evidence["run file"]) == list(efficiency.RUN_FILES)
    assert set(evidence["measured"]) == {tables.NOT_RUN}


# Tables


def test_aims_stand_beside_what_was_measured(read):
    measurements = read(throughput_cpu_bf16=throughput(), ranking=RANKING)
    table = efficiency.aims_table(measurements, AIMS)
    answers = {}
    for line in table.to_dict("records"):
        if line["run file"] != "throughput-cpu":
            answers[line["comparison"]] = (line["measured"], line["aim reached"])
    assert answers["training step: plain fp32 / cskt fp32"] == ("2", "yes")
    assert answers["training step: plain fp32 / cskt bf16"] == ("4", "yes")
    assert answers["extra memory: cskt fp32 / plain fp32"] == ("0.75", "no")
    assert answers["seconds: full argsort, Python loops / retrieval_metrics"] == ("8", "no")
    assert answers["extra memory: full argsort, Python loops / retrieval_metrics"] == ("20", "yes")
    assert answers["utilisation: training step cskt bf16"] == (tables.NOT_RUN, "")
    another_machine = table[table["run file"] == "throughput-cpu"]
    assert set(another_machine["measured"]) == {tables.NOT_RUN}


def test_evidence_says_what_was_measured_where(read):
    evidence = efficiency.measurement_evidence(read(throughput_cpu_bf16=throughput()))
    line = evidence.set_index("run file").loc["throughput-cpu-bf16"]
    assert line["measured"] == "backbone ViT-B-16, batch 16"
    assert line["machine"] == "abacus with bf16, 2 threads"
    assert line["seconds"] == "9"
    assert line["commit"] == "c" * 12


def test_local_changes_are_said(read):
    evidence = efficiency.measurement_evidence(read(ranking={**RANKING, "dirty": True}))
    line = evidence.set_index("run file").loc["ranking"]
    assert line["commit"].endswith(" with local changes")


def test_two_machines_are_shown_side_by_side_and_never_averaged(read):
    measurements = read(throughput_cpu=of_a_slower_machine(), throughput_cpu_bf16=throughput())
    assert list(measurements) == ["throughput-cpu", "throughput-cpu-bf16"]
    slow, fast = [efficiency.step_table(measurement) for measurement in measurements.values()]
    assert set(slow["machine"]) == {"slide rule, 1 thread"}
    assert set(fast["machine"]) == {"abacus with bf16, 2 threads"}
    assert set(slow["precision"]) == {"fp32"}
    assert set(fast["precision"]) == {"fp32", "bf16"}
    aims = efficiency.aims_table(measurements, AIMS)
    same = aims[aims["comparison"] == "training step: plain fp32 / cskt fp32"]
    assert list(same["measured"]) == ["6", "2"]


def test_a_step_table_shows_every_step():
    table = efficiency.step_table(throughput())
    assert list(table["method"]) == ["CSKT", "CSKT", "plain CSKT", "full fine-tuning"]
    assert list(table["milliseconds"]) == ["2,000", "4,000", "8,000", "12,000"]
    assert list(table["extra memory, MB"]) == ["not known", "1,500", "2,000", "4,000"]
    assert list(table["trained parameters"]) == ["1,000"] * 4
    minutes = 68_126 / 16 * 8 / 60
    assert table["minutes per epoch of CUHK-PEDES"].iloc[2] == f"{minutes:,.0f}"


def test_what_feeding_a_step_takes_is_a_share_of_the_step():
    (line,) = efficiency.encoding_table(throughput()).to_dict("records")
    assert line["what"].startswith("loading")
    assert line["precision"] == "fp32"
    assert line["machine"] == "abacus with bf16, 2 threads"
    assert line["milliseconds"] == "6.25"
    assert line["share of a training step"] == "2.5%"


# Figures


@pytest.fixture
def closed():
    yield
    plt.close("all")


def test_scaling_has_a_panel_for_each_size(closed):
    points = efficiency.measurement_frame(throughput(), "scaling")
    panels = figures.scaling(points).axes
    assert [list(axes.get_lines()[0].get_ydata()) for axes in panels] == [[100, 200]] * 3
