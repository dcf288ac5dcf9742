"""How many threads torch computes on, in training and beside other work."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Protocol, TypeVar

Task = TypeVar("Task")
Result = TypeVar("Result")


class Each(Protocol):
    """Like map, and as eager as one asks of it."""

    def __call__(
        self, function: Callable[[Task], Result], tasks: Iterable[Task], /
    ) -> Iterable[Result]: ...


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


def each_on_one_thread(
    function: Callable[[Task], Result], tasks: Sequence[Task]
) -> Iterator[Result]:
    """Results in the order of the tasks, as many at a time as torch has threads, each on one.

    What a task gives does not depend on the number of cores, nor on what runs beside it.
    """
    import torch

    n_threads = torch.get_num_threads()  # follows OMP_NUM_THREADS and set_num_threads
    if min(n_threads, len(tasks)) < 2:
        with one_thread():
            yield from map(function, tasks)
        return
    pool = ThreadPoolExecutor(
        min(n_threads, len(tasks)), initializer=torch.set_num_threads, initargs=(1,)
    )
    try:
        yield from pool.map(function, tasks)
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(n_threads)  # for threads yet to start; this one kept its own


@contextmanager
def parts_on_threads(n_parts: int) -> Iterator[Each]:
    """A map for so many parts at a time, over and over: threads that wait cost little to start.

    As in `each_on_one_thread`, a part has one thread of torch's, however many cores there are.
    """
    import torch

    n_threads = min(n_parts, torch.get_num_threads())
    with one_thread():
        if n_threads < 2:
            yield map
            return
        with ThreadPoolExecutor(
            n_threads, initializer=torch.set_num_threads, initargs=(1,)
        ) as pool:
            yield pool.map


@contextmanager
def without_denormals() -> Iterator[None]:
    """In the calling thread, numbers below 1e-38 count as 0, where the processor can do that.

    What is computed does not notice; a processor does: exponentials that pass through them take
    twice the time, and those of an activation function far from 0 all do.
    """
    import torch

    smallest = torch.tensor(torch.finfo(torch.float32).tiny)
    was_so = float(smallest / 2) == 0  # torch can be told, not asked
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(was_so)
