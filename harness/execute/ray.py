"""Batches on a Ray cluster: actors that each hold the model, a GPU each where it runs on GPUs.

Ray (Apache-2.0) starts actors again when their process or node dies and repeats the call it lost.
Public: executor. `ray` is an optional extra: pip install 'mlip-claims[ray]'.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.errors import ConfigError, ModelError, NotAvailable
from harness.execute import Execute
from harness.models.protocol import Identity, Prediction
from harness.models.subjects import Subject

if TYPE_CHECKING:
    from harness.data.crystals import Crystals
    from harness.models.protocol import Model

AHEAD = 2  # batches in flight an actor: one computed, one on its way


class _Worker:
    """Runs in an actor: the model, loaded once."""

    def __init__(self, subject: Subject, device: str) -> None:
        self._model = subject.load(device)

    def identity(self) -> Identity:
        return self._model.identity

    def predict(self, crystals: Crystals, properties: Sequence[str]) -> Prediction:
        return self._model.predict(crystals, properties)


def executor(
    address: str, *, device: str, workers: int | None = None, subject: Subject | None = None
) -> Execute:
    """Connect to a cluster and compute batches there.

    Args:
        address: of a running cluster ("auto", "HOST:PORT", "ray://HOST:PORT"), or "local" to start
            one on this machine.
        device: what each worker computes on, "cpu" or "cuda".
        subject: whose name says more than `load_model` takes: an alias, a path, an interpreter.
        workers: actors; by default one a GPU, or one for every four cores of the cluster.
    Raises:
        NotAvailable: ray is not installed.
        ConfigError: no cluster answers at the address, or it has no room for a worker.
    """
    try:
        import ray
    except ImportError:
        raise NotAvailable("--ray needs the package ray. Run: pip install 'ray>=2.40'") from None
    if not ray.is_initialized():
        try:
            ray.init(address=address, log_to_driver=False, include_dashboard=False)
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise ConfigError(
                f"no Ray cluster at {address!r}: {error}. Start one with `ray start --head`, or "
                "give --ray local."
            ) from None
    cluster = ray.cluster_resources()
    if device == "cuda":
        each: dict[str, float] = {"num_gpus": 1}
        room = int(cluster.get("GPU", 0))
    else:
        cores = int(cluster.get("CPU", 0))
        each = {"num_cpus": min(4, cores)}
        room = cores // max(1, min(4, cores))
    count = min(workers or room, room)
    if count < 1:
        raise ConfigError(
            f"the cluster at {address!r} has {cluster} and no room for a {device} worker"
        )
    actors: dict[str, list[Any]] = {}

    def execute(
        model: Model,
        crystals: Crystals,
        batches: Sequence[np.ndarray],
        properties: Sequence[str] = ("energy",),
    ) -> Iterator[Prediction]:
        name = model.identity.name
        asked = subject if subject and subject.name == name else Subject(name=name, model=name)
        asked.check()  # workers load it by what it stands for
        if name not in actors:
            remote = ray.remote(_Worker).options(max_restarts=3, max_task_retries=3, **each)
            actors[name] = [remote.remote(asked, device) for _ in range(count)]
            for identity in ray.get([actor.identity.remote() for actor in actors[name]]):
                if identity != model.identity:
                    raise ModelError(
                        f"a worker's {name} is {identity}, here it is {model.identity}: what it "
                        "predicts would be stored under the wrong address. Install the same there."
                    )
        in_flight: deque[Any] = deque()
        for i, rows in enumerate(batches):
            in_flight.append(actors[name][i % count].predict.remote(crystals[rows], properties))
            if len(in_flight) >= AHEAD * count:
                yield ray.get(in_flight.popleft())
        while in_flight:
            yield ray.get(in_flight.popleft())

    return execute
