"""The plain CSKT is CSKT, the benchmark's file is whole, and its page shows what the file says."""

import json
import sys
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import matplotlib
import open_clip
import papermill
import pytest
import torch
from matplotlib import pyplot as plt
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import plain, throughput, throughput_cases
from benchmarks.costs import cost
from benchmarks.throughput_cases import Setup
from cskt import CSKT, CSKTError, figures, results, speed
from cskt.config import CSKTConfig
from cskt.data.synthetic import synthetic_dataset

ROOT = Path(__file__).parents[1]
matplotlib.use("Agg")


def small_model(vision_layers=2, text_layers=2, **settings):
    torch.manual_seed(0)
    vision = dict(layers=vision_layers, width=32, head_width=16, patch_size=16, image_size=(64, 32))
    text = dict(layers=text_layers, width=16, heads=2, context_length=77, vocab_size=49408)
    clip = open_clip.CLIP(embed_dim=16, vision_cfg=vision, text_cfg=text, quick_gelu=True).double()
    return CSKT(clip, CSKTConfig(**{"reduction": 4, **settings}))


def test_plain_takes_short_rows_and_leaves_the_ids_alone():
    model = small_model()
    ids = model.tokenize(["a man", "a woman in red"])[:, :8]
    before = ids.clone()
    torch.testing.assert_close(
        plain.plain_encode_text(model, ids), model.encode_text(ids), rtol=1e-9, atol=1e-12
    )
    assert torch.equal(ids, before)


@pytest.fixture(scope="module")
def setup():
    return Setup("cskt-mini", (128, 64), 4, "cpu", 0)


@pytest.mark.parametrize(("method", "training"), [("plain", True), ("full", True), ("full", False)])
def test_the_analytic_cost_is_what_torch_counts(method, training, setup):
    """CSKT's own count leaves out what its identities leave out; torch's would hold shared and
    padded rows besides."""
    model, optimizer = throughput_cases.trainee(setup, method, "fp32")
    step = throughput_cases.training_step(setup, model, optimizer, method, "fp32")
    encode = throughput_cases.encoders(model, method)
    ids = setup.token_ids(model, setup.lengths(), method)
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        if training:
            step()
        else:
            encode.image(setup.images(4))
            encode.text(ids)
    counted = cost(model, setup.lengths() - 1, method, "fp32", training)
    assert counted.flops == pytest.approx(counter.get_total_flops(), rel=0.01)
    assert 1 < counted.flops / counted.bytes < 100


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(("tower", "low", "high"), [("image", 0.5, 1), ("text", 0.1, 0.5)])
def test_cskt_costs_less_than_plain_in_every_part(setup, tower, low, high, training):
    model, ends = setup.model("cskt"), setup.lengths() - 1
    ours = cost(model, ends, "cskt", "fp32", training, [tower])
    plainly = cost(model, ends, "plain", "fp32", training, [tower])
    assert low < ours.flops / plainly.flops < high


@pytest.mark.parametrize("batch", [1, 16, 128, 20])
def test_captions_are_as_the_settings_say(batch):
    setup = Setup("cskt-mini", (128, 64), batch, "cpu", 0)
    model, lengths = setup.model("cskt"), setup.lengths()
    assert lengths.min() >= 12
    assert lengths.max() <= 60
    assert batch % 16 or lengths.mean() == 26
    ids = setup.token_ids(model, lengths, "cskt")
    ends = ids.argmax(1) + 1
    assert ends.tolist() == lengths.tolist()
    assert (ids != 0).sum(1).tolist() == lengths.tolist()
    assert torch.equal(ids, setup.token_ids(model, lengths, "plain"))
    assert ids[0, 0] == model.tokenize("a")[0, 0]


def test_interleaved_takes_turns_and_keeps_to_its_rounds():
    order = []
    cases = {("a",): lambda: order.append("a"), ("b",): lambda: order.append("b")}
    repeats = throughput.interleaved(cases, "cpu", 3, until=0.0)
    assert order == ["a", "b"] * 4
    assert [len(times) for times in repeats.values()] == [3, 3]


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="memory is read from /proc")
def test_memory_is_measured_in_a_process_of_its_own(setup):
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        needed = pool.submit(throughput_cases.extra_memory, setup, "full", "fp32").result()
    gradients = 4e-6 * setup.model("full").num_trainable
    assert gradients < needed < gradients + 500


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The run file of a tiny benchmark, and one of ranking written by hand."""
    folder = tmp_path_factory.mktemp("benchmarks")
    # A process for each memory figure would take most of the time.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            throughput, "ProcessPoolExecutor", lambda count, context: ThreadPoolExecutor(count)
        )
        patch.setitem(throughput.SIDE, "cpu", 256)
        patch.setattr(throughput, "RESULTS", folder / "new")
        # Where it is not native torch emulates it: slower, but every line is run on every machine.
        patch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True}, raising=False)
        throughput.main(
            "cskt-mini",
            128,
            64,
            batch=4,
            device="cpu",
            precision="bf16",
            minutes=0,
            rounds=1,
            compile=False,
        )
    (folder / "new" / "ranking.json").write_text(json.dumps(RANKING))
    return folder / "new"


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


METHODS_OF = {
    "training step": ("plain", "cskt", "full"),
    "encode_image": ("cskt", "open_clip"),
    "encode_text": ("cskt", "open_clip"),
    "one query": ("cskt", "open_clip"),
    "step with loader": ("cskt",),
}
COUNTED = ("training step", "encode_image", "encode_text")


def expected_rows(precisions):
    """(what, method, precision)"""
    rows = {("loader", "cskt", "fp32"), ("decode", "cskt", "uint8")}
    for precision in precisions:
        for what, methods in METHODS_OF.items():
            rows |= {(what, method, precision) for method in methods}
    for variant in ("bpt", "dat", "lora"):
        rows.add(("training step", variant, precisions[-1]))
    return rows


def check_row(row):
    assert row["seconds"] > 0
    assert row["batch"] > 0
    assert len(row["repeats"]) == 1
    if row["what"] == "training step" and sys.platform.startswith("linux"):
        assert row["extra_memory_mb"] > 0
    counted = row["what"] in COUNTED
    for name in ("flops", "bytes", "utilisation"):
        assert (name in row) == counted
        assert row.get(name, 1) > 0


@pytest.mark.slow
def test_the_run_file_is_whole(folder):
    record = json.loads((folder / "throughput-cpu-bf16.json").read_text())
    assert (record["kind"], record["name"]) == ("benchmark", "throughput")
    assert {
        "started",
        "duration_s",
        "settings",
        "commit",
        "dirty",
        "versions",
        "hardware",
    } <= record.keys()
    precisions = ["fp32", "bf16"]
    assert record["settings"]["precisions"] == precisions
    rows = {(row["what"], row["method"], row["precision"]): row for row in record["rows"]}
    assert rows.keys() == expected_rows(precisions)
    for row in rows.values():
        check_row(row)
    ratio = record["ratios"]["training step: plain fp32 / cskt fp32"]
    plain_step = rows["training step", "plain", "fp32"]
    cskt_step = rows["training step", "cskt", "fp32"]
    assert ratio == plain_step["seconds"] / cskt_step["seconds"]
    wanted = {name for name in throughput.RATIOS if "compiled" not in name}
    assert wanted <= record["ratios"].keys() and all(
        value > 0 for value in record["ratios"].values()
    )
    assert record["rates"].keys() == {
        "copy",
        "decode",
        *(f"matmul_{precision}" for precision in precisions),
    }
    sizes = {(point["what"], point["method"]): 0 for point in record["scaling"]}
    for point in record["scaling"]:
        assert point["seconds"] > 0 and point["size"] > sizes[point["what"], point["method"]]
        sizes[point["what"], point["method"]] = point["size"]
    assert sizes == {
        ("encode_image", "cskt"): 32,
        ("encode_image", "open_clip"): 32,
        ("encode_text", "cskt"): 77,
        ("encode_text", "open_clip"): 77,
        ("ranking", "cskt"): 8192,
    }


@pytest.mark.parametrize("native", [True, False])
def test_bf16_is_measured_on_a_cpu_only_when_asked_for_and_only_where_it_is_native(
    monkeypatch, native
):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"amx_bf16": native}, raising=False)
    assert (
        throughput.precisions_of("auto", "cpu")
        == throughput.precisions_of("fp32", "cpu")
        == ["fp32"]
    )
    if native:
        assert throughput.precisions_of("bf16", "cpu") == ["fp32", "bf16"]
    else:
        with pytest.raises(
            CSKTError, match="does not compute bf16 natively, so its speed here means nothing"
        ):
            throughput.precisions_of("bf16", "cpu")


def hand_made():
    """A throughput file with figures that can be checked by eye."""
    rows = [
        dict(
            what="training step",
            method=method,
            precision=precision,
            batch=16,
            seconds=seconds,
            repeats=[seconds],
            extra_memory_mb=memory,
            flops=1e12,
            bytes=1e10,
            utilisation=0.5,
            trained=1000,
        )
        for method, precision, seconds, memory in (
            ("plain", "fp32", 8.0, 2000.0),
            ("cskt", "fp32", 4.0, 1500.0),
            ("cskt", "bf16", 2.0, None),
            ("full", "fp32", 12.0, 4000.0),
        )
    ]
    rows.append(
        dict(
            what="loader",
            method="cskt",
            precision="fp32",
            batch=16,
            seconds=0.1,
            repeats=[0.1],
            extra_memory_mb=None,
        )
    )
    values = {(row["what"], row["method"], row["precision"]): row["seconds"] for row in rows}
    values |= {
        ("extra memory", row["method"], row["precision"]): row["extra_memory_mb"]
        for row in rows[:-1]
    }
    scaling = [
        dict(what=what, method="cskt", precision="bf16", size=size, seconds=size / 10, repeats=[])
        for what in ("encode_image", "encode_text", "ranking")
        for size in (1, 2)
    ]
    return {
        "name": "throughput",
        "settings": {"backbone": "ViT-B-16", "batch": 16},
        "rows": rows,
        "scaling": scaling,
        "ratios": throughput.ratios_of(values, 16),
        **ENVIRONMENT,
        "rates": {"copy": 1e10, "matmul_fp32": 4e11, "matmul_bf16": 1e12},
    }


def test_aims_and_findings_say_what_was_measured(tmp_path):
    for name, record in (("throughput-cpu-bf16", hand_made()), ("ranking", RANKING)):
        (tmp_path / f"{name}.json").write_text(json.dumps(record))
    records = speed.read_benchmarks(tmp_path)
    table = speed.aims_table(records)
    assert set(table[table["run file"] == "throughput-cpu"]["measured"]) == {
        results.NOT_RUN
    }  # another machine's
    table = table[table["run file"] != "throughput-cpu"].set_index("comparison")
    shown = table[["measured", "aim reached"]].apply(tuple, axis=1)
    assert shown["training step: plain fp32 / cskt fp32"] == ("2", "yes")
    assert shown["training step: plain fp32 / cskt bf16"] == ("4", "yes")
    assert shown["extra memory: cskt fp32 / plain fp32"] == ("0.75", "no")
    assert shown["seconds: full argsort, Python loops / retrieval_metrics"] == ("8", "no")
    assert shown["extra memory: full argsort, Python loops / retrieval_metrics"] == ("20", "yes")
    assert shown["utilisation: training step cskt bf16"] == (results.NOT_RUN, "")
    first, last = speed.benchmark_findings(records)
    assert (
        "2.00 times as fast as the plain one's, in bf16 4.00 times" in first
        and "0.75 times its extra" in first
    )
    assert "3.00 times as fast as full" in first
    assert (
        "16 aims 6 were measured here and 4 reached; not reached: extra memory: cskt fp32 / plain fp32 (thr"
        in last
    )
    lines = speed.describe_benchmarks(records)
    assert (
        lines[0] == "throughput-cpu: not run here" and lines[3] == "throughput-cuda: not run here"
    )
    assert lines[1].startswith(
        "throughput-cpu-bf16: ViT-B-16, batch 16, on abacus (2 threads), 9 s"
    )


def test_two_machines_are_shown_side_by_side_and_never_averaged(tmp_path):
    """The fp32 file of one machine, the file of another one with bf16: each figure is one
    file's."""
    other = hand_made()
    other["hardware"] = {"device": "slide rule", "threads": 1}
    other["rows"] = [row for row in other["rows"] if row["precision"] == "fp32"]
    for row in other["rows"]:
        row["seconds"] *= 10
    other["ratios"] = {
        name: 3 * value for name, value in other["ratios"].items() if "bf16" not in name
    }
    del other["rates"]["matmul_bf16"]
    for name, record in (("throughput-cpu", other), ("throughput-cpu-bf16", hand_made())):
        (tmp_path / f"{name}.json").write_text(json.dumps(record))
    records = speed.read_benchmarks(tmp_path)
    assert list(records) == ["throughput-cpu", "throughput-cpu-bf16"]
    tables = [speed.step_table(record) for record in records.values()]
    assert [set(table["machine"]) for table in tables] == [
        {"slide rule, 1 thread"},
        {"abacus with bf16, 2 threads"},
    ]
    assert [set(table["precision"]) for table in tables] == [{"fp32"}, {"fp32", "bf16"}]
    first, second, last = speed.benchmark_findings(records)
    assert (
        first.startswith("throughput-cpu: ")
        and "is 6.00 times as fast as the plain one's (bf16 was not me" in first
    )
    assert second.startswith("throughput-cpu-bf16: ")
    assert "is 2.00 times as fast as the plain one's, in bf16 4.00 times" in second
    measured = speed.aims_table(records).query(
        "comparison == 'training step: plain fp32 / cskt fp32'"
    )["measured"]
    assert measured.tolist() == ["6", "2"]


def test_without_run_files_everything_says_so(tmp_path):
    assert speed.read_benchmarks(tmp_path / "none") == {}
    (tmp_path / "variation-cpu.json").write_text(
        json.dumps({"kind": "variation", "rows": [{"method": "cskt"}]})
    )
    assert "variation-cpu" not in speed.read_benchmarks(tmp_path)
    assert set(speed.aims_table({})["measured"]) == {results.NOT_RUN}
    assert speed.describe_benchmarks({}) == [
        f"{file}: {results.NOT_RUN}" for file in (*speed.AIMS, *speed.GALLERIES)
    ]
    assert speed.benchmark_findings({}) == ["Of 16 aims 0 were measured here and 0 reached."]


@pytest.mark.parametrize(
    "content", ["not json", "[]", "{}", '{"rows": []}', '{"rows": [{"what": "x"}, {}]}']
)
def test_a_damaged_run_file_is_named(content, tmp_path):
    (tmp_path / "ranking.json").write_text(content)
    with pytest.raises(CSKTError, match="ranking.json"):
        speed.read_benchmarks(tmp_path)


def test_step_table_and_figures_show_the_rows():
    record = hand_made()
    table = speed.step_table(record)
    assert list(table["method"]) == ["CSKT", "CSKT", "plain CSKT", "full fine-tuning"]
    assert list(table["milliseconds"]) == ["2,000", "4,000", "8,000", "12,000"]
    assert list(table["extra memory, MB"]) == ["not known", "1,500", "2,000", "4,000"]
    assert list(table["trained parameters"]) == ["1,000"] * 4
    assert list(table["minutes per epoch of CUHK-PEDES"]) == [
        f"{68_126 / 16 * s / 60:,.0f}" for s in (2, 4, 8, 12)
    ]
    record["ratios"]["loader / step with loader: fp32"] = 0.025
    (loader,) = speed.encoding_table(record).itertuples(index=False)
    assert loader[0].startswith("loading")
    assert loader[2:] == ("fp32", "abacus with bf16, 2 threads", "6.25", "2.5%")
    frame = speed.benchmark_frame(record)
    bars = figures.step_times(frame.query("what == 'training step'")).axes
    assert sorted(bar.get_width() for group in bars[0].containers for bar in group) == [
        2.0,
        4.0,
        8.0,
        12.0,
    ]
    (axes,) = figures.roofline(frame, record["rates"]).axes
    limits = {
        line.get_label(): max(line.get_ydata())
        for line in axes.get_lines()
        if len(line.get_ydata())
    }
    assert limits["limit in fp32"] == pytest.approx(400) and limits[
        "limit in bf16"
    ] == pytest.approx(1000)
    assert len(axes.collections[0].get_offsets()) == 4, "the loader computes no matrix product"
    panels = figures.scaling(speed.benchmark_frame(record, "scaling")).axes
    assert [list(axes.get_lines()[0].get_ydata()) for axes in panels] == [[100, 200]] * 3
    plt.close("all")


def test_published_figures_stay_as_they_were():
    table = speed.published_efficiency(ROOT / "book" / "data" / "efficiency.csv")
    assert len(table) == 5 and table["source"].str.len().min() > 10
    assert sum("(published)" in name for name in table) == 2


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_the_notebook_shows_the_run_files(folder, tmp_path):
    synthetic_dataset("SynthPEDES-A", tmp_path / "data", identities=(12, 4, 8))
    parameters = {
        "benchmarks": str(folder),
        "efficiency": str(ROOT / "book" / "data" / "efficiency.csv"),
        "epochs": 1,
        "data_root": str(tmp_path / "data"),
        "output": str(tmp_path / "run"),
    }
    executed = papermill.execute_notebook(
        ROOT / "notebooks" / "efficiency.ipynb",
        tmp_path / "out.ipynb",
        parameters,
        cwd=tmp_path,
        progress_bar=False,
    )
    outputs = [out for cell in executed.cells for out in cell.get("outputs", [])]
    text = "\n".join(str(out.get("text", "")) + str(out.get("data", "")) for out in outputs)
    assert (
        "throughput-cpu-bf16: cskt-mini, batch 4" in text and "throughput-cpu: not run here" in text
    )
    assert "throughput-cuda: not run here" in text
    assert (
        "a training step of CSKT in fp32 is" in text and "13570" in text and "full argsort" in text
    )
    assert "synthetic data SynthPEDES-A" in text and "fp32" in text
    assert sum("image/svg+xml" in out.get("data", {}) for out in outputs) == 3
