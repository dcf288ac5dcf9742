"""The GPU's fused kernels: on a GPU as they are, without one in Triton's interpreter."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("chgnet")
pytest.importorskip("triton", reason="needs Triton, as torch for CUDA brings it")


from harness.data.crystals import Crystals
from harness.models import chgnet
from harness.models.chgnet import build, gated, kernels
from harness.models.chgnet import model as engine
from harness.models.chgnet.forward import Weights
from tests.graphs import crystal

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
SMALL = Crystals.concatenate(
    [
        crystal(np.eye(3) * 2.9, [[0, 0, 0], [0.52, 0.48, 0.5]], [26, 8]),  # with angles
        crystal(np.diag([3.4, 3.6, 3.9]), [[0.1, 0.2, 0.3]], [11]),  # without
    ]
)


@pytest.mark.parametrize("has_norms", [True, False])
def test_values_and_gradients_are_torchs(has_norms: bool) -> None:
    assert gated.fused_disagreement(DEVICE, has_norms=has_norms) < 2e-6
    assert kernels.why_not(DEVICE, has_norms=has_norms) is None


# numpy stands in for the GPU's exponential, which becomes infinite without a word
@pytest.mark.filterwarnings("ignore:overflow encountered in exp")
@pytest.mark.parametrize("version", ["0.3.0", "0.2.0"])
def test_the_network_computes_the_same(version: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the graphs of a GPU and its kernels: energies, forces, stress and moments."""
    wanted = ("energy", "forces", "stress", "magmoms")
    model = chgnet.load(version, "cpu")
    expected, features = model.predict(SMALL, wanted), model.atom_features(SMALL)
    on_gpu = chgnet.load(version, DEVICE.type)
    on_gpu._weights = Weights.of(on_gpu._network, DEVICE, is_fused=True)
    monkeypatch.setattr(build, "builds_on", lambda device: True)
    monkeypatch.setattr(on_gpu, "_outcomes_cpu", on_gpu._outcomes_cuda)
    found = on_gpu.predict(SMALL, wanted)
    np.testing.assert_allclose(found.energy, expected.energy, rtol=0, atol=1e-6)
    np.testing.assert_allclose(found.stress, expected.stress, rtol=0, atol=1e-3)
    for name, tolerance in (("forces", 1e-5), ("magmoms", 1e-5)):
        for ours, theirs in zip(getattr(found, name), getattr(expected, name), strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=0, atol=tolerance)
    np.testing.assert_allclose(on_gpu.atom_features(SMALL), features, rtol=0, atol=1e-4)


def test_kernels_that_disagree_or_fail_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    right = kernels.values
    kernels.why_not.cache_clear()
    monkeypatch.setattr(kernels, "values", lambda *given: 1.01 * right(*given))
    assert "gives other numbers here, by 1.0e-02" in str(kernels.why_not(DEVICE, has_norms=True))

    def fails(*given: object) -> None:
        raise RuntimeError("no compiler")

    kernels.why_not.cache_clear()
    monkeypatch.setattr(kernels, "values", fails)
    assert "fails here: RuntimeError: no compiler" in str(kernels.why_not(DEVICE, has_norms=True))
    kernels.why_not.cache_clear()
    if DEVICE.type == "cpu":
        assert engine._why_not_fused(DEVICE, True) == "there are fused kernels for GPUs only"


def test_they_compile_for_gpus_from_ampere_on() -> None:
    """To machine code; one block's shared memory is within what a GeForce has (99 KiB)."""
    done = subprocess.run(  # noqa: S603
        [sys.executable, str(Path(__file__).with_name("compiled_kernels.py")), "80", "90"],
        env=os.environ | {"TRITON_INTERPRET": "0"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    needs = json.loads(done.stdout)
    assert len(needs) == 12
    for one in needs:
        assert one["shared_bytes"] <= 99 * 1024, one
        assert one["tensor_cores"], one
        assert one["machine_code_bytes"] > 0, one
