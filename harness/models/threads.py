"""How many threads torch computes on while something is trained."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def one_thread() -> Iterator[None]:
    """One thread for torch's own loops, the number before that afterwards.

    Sums are split by thread, so on one the same seed gives the same bytes on any core count. It
    gives up a second core, and gains where another process wants that core: with both cores of a
    machine busy, an epoch of the composition baseline took 20 s on two threads and 5 s on one.
    """
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
