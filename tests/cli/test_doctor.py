from __future__ import annotations

import json

import torch

from .conftest import Textune


def test_doctor(textune: Textune) -> None:
    done = textune("doctor", "--device", "cpu")
    assert (done.code, done.err) == (0, "")
    assert f"torch         {torch.__version__}" in done.out
    assert "fp32-blas" in done.out and "GFLOP/s" in done.out and "--precision auto takes" in done.out


def test_json(textune: Textune) -> None:
    done = textune("doctor", "--device", "cpu", "--json")
    assert (done.code, done.err) == (0, "")
    found = json.loads(done.out)
    assert {item["name"] for item in found["arithmetic"]["measurements"]} == {"fp32-blas", "fp32-onednn", "bf16"}


def test_unknown_device(textune: Textune) -> None:
    done = textune("doctor", "--device", "gpu")
    assert done.code == 2
    assert done.err.startswith("error: --device: 'gpu' cannot be used here")
