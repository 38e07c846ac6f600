"""Devices and precisions: explicit choices are kept, "auto" is resolved by one rule."""

import pytest
import torch

from cskt.errors import CSKTError
from cskt.numerics import resolve_device, resolve_precision

pytestmark = pytest.mark.numerics


def test_explicit_choices_are_kept_and_auto_is_resolved(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert resolve_device("auto") == resolve_device("cpu") == "cpu"
    with pytest.raises(CSKTError, match="no CUDA GPU"):
        resolve_device("cuda")
    assert resolve_precision("fp32", "cpu") == "fp32"


@pytest.mark.parametrize(
    "capabilities",
    [
        {},
        {"avx512_f": True, "avx512_bf16": False},
        {"avx512_bf16": True},
        {"amx_bf16": True},
    ],
)
def test_auto_is_fp32_on_every_processor_and_bf16_must_be_asked_for(monkeypatch, capabilities):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    assert resolve_precision("auto", "cpu") == resolve_precision("fp32", "cpu") == "fp32"
    native = capabilities.get("avx512_bf16") or capabilities.get("amx_bf16")
    assert resolve_precision("bf16", "cpu") == ("bf16" if native else "fp32")
    with pytest.raises(CSKTError, match="precision must be 'auto', 'fp32' or 'bf16', got 'fp16'"):
        resolve_precision("fp16", "cpu")


@pytest.mark.parametrize("native", [True, False])
def test_auto_is_bf16_on_a_gpu_that_computes_it(monkeypatch, native):
    monkeypatch.setattr(
        torch.cuda,
        "is_bf16_supported",
        lambda including_emulation: native and not including_emulation,
    )
    assert (
        resolve_precision("auto", "cuda")
        == resolve_precision("bf16", "cuda")
        == ("bf16" if native else "fp32")
    )
    assert resolve_precision("fp32", "cuda") == "fp32"


def test_bf16_falls_back_with_a_line_in_the_log(monkeypatch, caplog):
    monkeypatch.setattr(torch.cpu, "get_capabilities", dict, raising=False)
    assert resolve_precision("auto", "cpu") == "fp32" and not caplog.records
    assert resolve_precision("bf16", "cpu") == "fp32"
    assert [record.message for record in caplog.records] == [
        "This cpu does not compute bf16 natively: fp32 is used instead."
    ]
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"amx_bf16": True}, raising=False)
    assert resolve_precision("bf16", "cpu") == "bf16" and len(caplog.records) == 1
