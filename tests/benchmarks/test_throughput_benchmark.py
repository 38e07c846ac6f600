"""The plain CSKT is CSKT, the benchmark's file is whole, and its page shows what the file says."""

import json
import sys
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import open_clip
import papermill
import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import plain, throughput, throughput_cases
from benchmarks.costs import cost
from benchmarks.throughput_cases import Setup
from cskt import CSKT, CSKTError
from cskt.config import CSKTConfig
from cskt.synthetic import synthetic_dataset
from tests.report.test_efficiency import RANKING

ROOT = Path(__file__).parents[2]


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


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_the_notebook_shows_the_run_files(folder, tmp_path):
    synthetic_dataset("SynthPEDES-A", tmp_path / "data", identities=(12, 4, 8))
    parameters = {
        "benchmarks": str(folder),
        "aims": str(ROOT / "book" / "data" / "aims.csv"),
        "sizes": str(ROOT / "book" / "data" / "gallery-sizes.csv"),
        "efficiency": str(ROOT / "book" / "data" / "efficiency.csv"),
        "test_sets": str(ROOT / "book" / "data" / "test-set-times.csv"),
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
    outputs = []
    for cell in executed.cells:
        outputs += cell.get("outputs", [])
    text = "\n".join(str(out.get("text", "")) + str(out.get("data", "")) for out in outputs)
    assert "cskt-mini, batch 4" in text
    assert "throughput-cpu: not run here" in text
    assert "throughput-cuda: not run here" in text
    assert "13570" in text, "published figures"
    assert "RaSa" in text, "published times of whole test sets"
    assert "MFLOPs per query" in text
    assert "full argsort" in text
    assert "synthetic data SynthPEDES-A" in text
    assert "fp32" in text
    drawn = [out for out in outputs if "image/svg+xml" in out.get("data", {})]
    assert len(drawn) == 1, "how the one measured file grows"
