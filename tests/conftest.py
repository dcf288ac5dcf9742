"""Before any test imports Triton: where there is no GPU, its kernels run in its interpreter."""

from __future__ import annotations

import os
import signal
import threading

import pytest
import torch

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"


@pytest.fixture(scope="session", autouse=True)
def signals_as_on_a_terminal() -> None:
    """Whatever started the tests: what runs in the background, or under nohup, ignores signals."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.default_int_handler)
        if hasattr(signal, "SIGHUP"):
            signal.signal(signal.SIGHUP, signal.SIG_DFL)
