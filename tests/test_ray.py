"""Batches on a Ray cluster of this machine: the same bytes as in this process."""

import numpy as np
import pytest

from harness.errors import ConfigError
from harness.models import load_model
from harness.store import PredictionStore
from tests.fakes import SumOfNumbers, cubes

ray = pytest.importorskip("ray", reason="the extra `ray` is not installed")
pytestmark = pytest.mark.filterwarnings("ignore")  # ray's own, at start and shutdown

CRYSTALS = cubes([[11, 17], [12, 8], [3, 9], [14, 14]], edge_ang=5.0)


@pytest.fixture(scope="module")
def execute():
    from harness.execute.ray import executor

    yield executor("local", device="cpu")
    ray.shutdown()


def test_a_cluster_computes_the_same_bytes(tmp_path, execute):
    model = load_model("chgnet-0.3.0", "cpu")
    here = PredictionStore(tmp_path / "here").energies(model, CRYSTALS)
    there = PredictionStore(tmp_path / "there", execute).energies(model, CRYSTALS)
    np.testing.assert_array_equal(here.energy, there.energy)
    for mine in (tmp_path / "here").rglob("*.npz"):
        theirs = tmp_path / "there" / mine.relative_to(tmp_path / "here")
        assert mine.read_bytes() == theirs.read_bytes()


def test_a_model_that_workers_cannot_load_is_refused(tmp_path, execute):
    with pytest.raises(ConfigError, match="sum-of-numbers"):
        PredictionStore(tmp_path, execute).energies(SumOfNumbers(), CRYSTALS)
