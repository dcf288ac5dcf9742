"""What is asked of torch's threads is taken back afterwards."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from harness.models.threads import without_denormals  # noqa: E402


def halved() -> float:
    return float(torch.tensor(torch.finfo(torch.float32).tiny) / 2)


def test_denormal_numbers_are_zero_inside_and_come_back() -> None:
    if not torch.set_flush_denormal(False):
        pytest.skip("this processor cannot be told")
    before = halved()
    assert before > 0
    with without_denormals():
        assert halved() == 0
        with without_denormals():
            assert halved() == 0
        assert halved() == 0
    assert halved() == before
