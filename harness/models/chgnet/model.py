"""CHGNet as a subject: batches, threads, devices, and what to say of rows it cannot score.

Public: CHGNetModel, Features.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator, Mapping, Sequence, Sized
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from queue import SimpleQueue
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np
import torch

from harness.engines import engine
from harness.errors import ConfigError, ModelError, NotAvailable
from harness.models.cards import Card
from harness.models.chgnet.build import build
from harness.models.chgnet.card import card_of
from harness.models.chgnet.forward import (
    TensorGraph,
    Weights,
    forward,
    geometry,
    site_energies,
)
from harness.models.chgnet.graph import Graph
from harness.models.chgnet.incidence import Incidence
from harness.models.chgnet.messages import MessageGraph
from harness.models.chgnet.weights import read_checkpoint, read_chgnet
from harness.models.memory import keep_freed_memory
from harness.models.own_weights import state_sha256
from harness.models.packing import packed
from harness.models.protocol import Identity, Prediction
from harness.models.threads import each_on_one_thread, without_denormals

if TYPE_CHECKING:
    from chgnet.model import CHGNet

    from harness.data.crystals import Crystals

# Raise it when a number that this package gives changes.
ENGINE = engine("chgnet", "4")
PROPERTIES = ("energy", "forces", "stress", "magmoms")
N_ELEMENTS = 94  # rows of the embedding; the last is Pu
GPA_PER_EV_PER_ANG3 = 160.21766208  # chgnet's own figure

# Work is counted in directed edges, an angle as 1.3 of them (measured on one core).
_WORK_PER_ANGLE = 1.3
# What one call of predict is best given: enough tasks that the cores, or a GPU's streams, finish
# together. A caller who saves batch by batch then loses little.
_WORK_PER_BATCH = {"cpu": 2_000_000, "cuda": 8_000_000}
# One core's or one stream's share at a time. On cores, enough that threads seldom wait for each
# other's Python: with 10,000 two cores took half again as long for energies. On a GPU, enough to
# fill it, and less where memory is short.
_WORK_PER_TASK = {"cpu": 50_000, "cuda": 1_000_000}
_GRADIENT_WORK_PER_TASK = {"cpu": 20_000, "cuda": 300_000}
# Of little work there are still so many tasks, for the cores or streams, while each has so much.
_N_TASKS = {"cpu": 16, "cuda": 4}
_LEAST_WORK_PER_TASK = {"cpu": 5_000, "cuda": 50_000}
_BYTES_PER_WORK, _GRADIENT_BYTES_PER_WORK = 1_300, 12_000  # measured on a CPU
_MEMORY_SHARE = 0.5  # of a GPU's free memory; the allocator keeps what earlier tasks left
# Threads that feed a GPU, each through a stream of its own: what one computes there overlaps with
# what another sends, prepares or fetches.
_N_STREAMS = 2


@dataclass(frozen=True, kw_only=True)
class Features:
    """What the readout sees, for training a new one on a frozen network."""

    atoms: np.ndarray  # (N, 64) float32 in the crystals' order; nan for rows not scored
    problems: dict[int, str] = field(default_factory=dict)  # row -> why it was not scored


@dataclass(frozen=True, kw_only=True)
class _Wanted:
    energy: bool = True
    gradient: bool = False
    moments: bool = False
    features: bool = False


@dataclass(frozen=True, kw_only=True)
class _Task:
    rows: np.ndarray  # positions into the crystals, none with a known problem
    graph: Graph[Sized]
    messages: MessageGraph[Sized]


@dataclass(frozen=True, kw_only=True)
class _Result:
    """Per-row and per-atom arrays of the rows of one task, in the task's order."""

    rows: np.ndarray
    site_energy: np.ndarray | None
    forces: np.ndarray | None
    stress: np.ndarray | None
    moments: np.ndarray | None
    features: np.ndarray | None


_Outcome = tuple[list[_Result], dict[int, str]]  # results, and row -> problem


class CHGNetModel:
    """CHGNet 0.3.0, 0.2.0 or r2scan from the installed chgnet package.

    Energies are chgnet's: total energies in eV/atom, not formation energies. They agree with those
    of chgnet in float64 to 2e-6 eV/atom, and with ``CHGNet.predict_structure``, which computes in
    float32, to 1e-5 eV/atom but for rare rows where its rounding is larger (docs/results.md says
    how rare); forces to 1e-4 eV/Å, stress to 1e-3 GPa. Stress is tension positive; for a
    left-handed cell chgnet's own has the wrong sign, this one has not.

    A row with an isolated atom, an element beyond Pu or no finite energy is not scored; the
    others are unaffected by it.
    """

    elements: frozenset[int] = frozenset(range(1, N_ELEMENTS + 1))

    def __init__(self, version: str, device: str = "auto") -> None:
        """Load one version onto "cpu", "cuda" (or "cuda:1" and so on) or "auto".

        Raises:
            ConfigError: the version or the device is unknown.
            NotAvailable: chgnet is not installed, or no GPU is found.
            ModelError: chgnet's files are not as expected.
        """
        self._adopt(read_chgnet(version), f"chgnet-{version}", _device(device))

    @classmethod
    def around(
        cls,
        network: CHGNet,
        name: str,
        device: torch.device,
        declared: Mapping[str, str] | None = None,
    ) -> CHGNetModel:
        """The same engine with this network's weights, and what is declared of it for its card."""
        model = cls.__new__(cls)
        model._adopt(network.eval().requires_grad_(False), name, device)
        model._declared = dict(declared or {})
        return model

    @classmethod
    def from_checkpoint(
        cls, path: Path, name: str, device: str = "auto", declared: Mapping[str, str] | None = None
    ) -> CHGNetModel:
        """The same engine with the weights of a file of yours (`weights.read_checkpoint`).

        Raises:
            ConfigError, NotAvailable, ModelError: as the constructor; the file cannot be used.
        """
        return cls.around(read_checkpoint(path), name, _device(device), declared)

    _declared: Mapping[str, str] = MappingProxyType({})

    def _adopt(self, network: CHGNet, name: str, device: torch.device) -> None:
        if device.type == "cpu":
            keep_freed_memory()
        self.device = device
        self._network = network
        arguments = network.model_args
        self._cutoffs = {
            "atom_cutoff_ang": float(arguments["atom_graph_cutoff"]),
            "bond_cutoff_ang": float(arguments["bond_graph_cutoff"]),
        }
        self.why_not_fused = _why_not_fused(self.device, arguments.get("gMLP_norm") is not None)
        is_fused = self.why_not_fused is None
        self._weights = Weights.of(self._network, self.device, is_fused=is_fused)
        self._budget, self._gradient_budget = _budgets(self.device)
        state = self._network.state_dict()
        self._references_ev = state["composition_model.fc.weight"].double().numpy().reshape(-1)
        self.identity = Identity(
            name=name,
            weights_sha256=state_sha256(state),
            settings={
                "engine": ENGINE,
                "dtype": "float32",
                "device": self.device.type,
                **({"fused": str(is_fused)} if self.device.type == "cuda" else {}),
                "mlp_out_bias": str(arguments["mlp_out_bias"]),
                **{name: f"{cutoff:g}" for name, cutoff in self._cutoffs.items()},
            },
        )

    @property
    def card(self) -> Card:
        """What its authors say of this version, or what was declared of other weights."""
        return card_of(self.identity.stored_as or self.identity.name, self._declared)

    def original(self) -> CHGNet:
        """A copy of chgnet's own module with these weights, on the CPU."""
        return copy.deepcopy(self._network).cpu()

    def __repr__(self) -> str:
        return f"CHGNetModel({self.identity.name!r} on {self.device})"

    # --- what is asked ------------------------------------------------------------------------

    def plan(self, crystals: Crystals) -> list[np.ndarray]:
        """Batches of row positions, largest crystals first, each about as much work.

        A crystal larger than a batch has one of its own. Planning a batch again gives one batch in
        the same order, so predicting batch by batch and all at once give the same bytes.
        """
        work = self._work(crystals)
        order = np.argsort(-work, kind="stable")
        return packed(order, work[order], _WORK_PER_BATCH[self.device.type])

    def predict(self, crystals: Crystals, properties: Sequence[str] = ("energy",)) -> Prediction:
        """Energies of every row, and what else is asked for.

        Args:
            properties: of "energy" (always given), "forces", "stress", "magmoms".
        Raises:
            ConfigError: a property is unknown.
            ModelError: the GPU's memory does not hold one crystal; the message names the row.
        """
        if isinstance(properties, str) or not set(properties) <= set(PROPERTIES):
            raise ConfigError(
                f"properties={properties!r}; CHGNet gives {', '.join(PROPERTIES)}, as a tuple."
            )
        want_forces, want_stress = "forces" in properties, "stress" in properties
        want_moments = "magmoms" in properties
        wanted = _Wanted(gradient=want_forces or want_stress, moments=want_moments)

        n, n_atoms = len(crystals), len(crystals.numbers)
        site_energy = np.full(n_atoms, np.nan)
        forces = np.full((n_atoms, 3), np.nan)
        stress = np.full((n, 3, 3), np.nan)
        moments = np.full(n_atoms, np.nan)
        problems: dict[int, str] = {}
        for result in self._results(crystals, wanted, problems):
            atoms = crystals.atoms_of(result.rows)
            if result.site_energy is not None:
                site_energy[atoms] = result.site_energy
            if result.forces is not None and result.stress is not None:
                forces[atoms], stress[result.rows] = result.forces, result.stress
            if result.moments is not None:
                moments[atoms] = result.moments

        energy = self.composition_energies(crystals) + _row_means(crystals, site_energy)
        _explain_infinite(energy, problems)
        split = np.cumsum(crystals.n_atoms)[:-1]
        return Prediction(
            energy=energy,
            problems=dict(sorted(problems.items())),
            forces=np.split(forces, split)[:n] if want_forces else None,
            stress=stress if want_stress else None,
            magmoms=np.split(moments, split)[:n] if want_moments else None,
        )

    def energies(self, crystals: Crystals) -> np.ndarray:
        """(n,) float64 eV/atom, total energies.

        Raises:
            ModelError: a row could not be scored; the message names the rows.
        """
        prediction = self.predict(crystals)
        _refuse(prediction.problems, "predict() gives nan and the reason for such rows")
        return prediction.energy

    def featurise(self, crystals: Crystals) -> Features:
        """Features of every atom, and why rows were not scored."""
        atoms = np.full((len(crystals.numbers), 64), np.nan, dtype=np.float32)
        problems: dict[int, str] = {}
        for result in self._results(crystals, _Wanted(features=True, energy=False), problems):
            if result.features is not None:
                atoms[crystals.atoms_of(result.rows)] = result.features
        _explain_infinite(_row_means(crystals, atoms.sum(axis=1)), problems)
        return Features(atoms=atoms, problems=dict(sorted(problems.items())))

    def atom_features(self, crystals: Crystals) -> np.ndarray:
        """(N, 64) float32 of all atoms of all rows: after the readout's norm, before its MLP.

        A row's energy is the mean over its atoms of ``head()`` on these, plus
        ``composition_energies``.

        Raises:
            ModelError: a row could not be scored; the message names the rows.
        """
        features = self.featurise(crystals)
        _refuse(features.problems, "featurise() gives nan and the reason for such rows")
        return features.atoms

    def composition_energies(self, crystals: Crystals) -> np.ndarray:
        """(n,) float64 eV/atom that chgnet takes from the composition alone (its AtomRef).

        nan for a row with an element beyond Pu.
        """
        known = np.full(256, np.nan)  # a position for every uint8
        known[1 : N_ELEMENTS + 1] = self._references_ev
        return _row_means(crystals, known[crystals.numbers])

    def head(self) -> torch.nn.Module:
        """A copy of chgnet's readout MLP, (N, 64) to (N, 1) eV, on the CPU and trainable."""
        return copy.deepcopy(self._network.mlp).requires_grad_(True)

    # --- how it is done -----------------------------------------------------------------------

    def _work(self, crystals: Crystals) -> np.ndarray:
        """(n,) int64 estimated work from number density alone, in directed edges."""
        density = crystals.n_atoms / crystals.volumes_ang3
        spheres = {name: 4 / 3 * np.pi * r**3 for name, r in self._cutoffs.items()}
        n_edges = density * spheres["atom_cutoff_ang"]
        n_angles = (density * spheres["bond_cutoff_ang"]) ** 2
        work = crystals.n_atoms * (n_edges + _WORK_PER_ANGLE * n_angles)
        return np.ceil(work).astype(np.int64)  # sums of integers do not depend on their order

    def _results(
        self, crystals: Crystals, wanted: _Wanted, problems: dict[int, str]
    ) -> Iterator[_Result]:
        """Results of all rows that can be scored; the others go to problems."""
        problems |= _unknown_elements(crystals)
        known = np.ones(len(crystals), dtype=bool)
        known[list(problems)] = False
        budget = self._gradient_budget if wanted.gradient else self._budget
        work = self._work(crystals)
        tasks = [
            piece[known[piece]]
            for batch in self.plan(crystals)
            for piece in packed(batch, work[batch], self._share(work[batch], budget))
            if known[piece].any()
        ]
        if self.device.type == "cuda":
            outcomes = self._outcomes_cuda(crystals, tasks, wanted)
        else:
            outcomes = self._outcomes_cpu(crystals, tasks, wanted)
        for results, found in outcomes:
            problems |= found
            yield from results

    def _share(self, work: np.ndarray, budget: int) -> int:
        """The work of a task of a batch; it depends on nothing else, so that bytes repeat."""
        kind = self.device.type
        return min(budget, max(int(work.sum()) // _N_TASKS[kind], _LEAST_WORK_PER_TASK[kind]))

    def _outcomes_cpu(
        self, crystals: Crystals, tasks: list[np.ndarray], wanted: _Wanted
    ) -> Iterator[_Outcome]:
        """One task a core, each on one thread: what a task gives depends on nothing beside it."""

        def run(rows: np.ndarray) -> _Outcome:
            task, found = self._task(crystals, rows, wanted)
            with without_denormals():
                return ([] if task is None else [self._compute(task, wanted)]), found

        yield from each_on_one_thread(run, tasks)

    def _outcomes_cuda(
        self, crystals: Crystals, tasks: list[np.ndarray], wanted: _Wanted
    ) -> Iterator[_Outcome]:
        """Threads with a stream each take tasks in turn: graph, network and results on the GPU."""
        free: SimpleQueue[torch.cuda.Stream | None] = SimpleQueue()
        for stream in self._streams:
            free.put(stream)

        def run(rows: np.ndarray) -> _Outcome:
            stream = free.get()
            try:
                with torch.cuda.stream(stream):  # does nothing for None
                    return self._outcome_halving(crystals, rows, wanted)
            finally:
                free.put(stream)

        pool = ThreadPoolExecutor(_N_STREAMS, thread_name_prefix="chgnet-stream")
        try:
            yield from pool.map(run, tasks)
        finally:
            pool.shutdown(cancel_futures=True)

    @cached_property
    def _streams(self) -> list[torch.cuda.Stream | None]:
        """Always the same, since memory is kept by stream."""
        if self.device.type != "cuda":
            return [None] * _N_STREAMS
        streams = [torch.cuda.Stream(self.device) for _ in range(_N_STREAMS)]
        for stream in streams:  # the weights are there before anything reads them
            stream.wait_stream(torch.cuda.default_stream(self.device))
        return [*streams]

    def _task(
        self, crystals: Crystals, rows: np.ndarray, wanted: _Wanted
    ) -> tuple[_Task | None, dict[int, str]]:
        """The graph of those rows without an isolated atom, and what is wrong with the others."""
        task = self._built(crystals, rows, wanted)
        n_isolated = _host(task.graph.n_isolated)
        isolated = np.flatnonzero(n_isolated)
        cutoff_ang = self._cutoffs["atom_cutoff_ang"]
        problems = {
            int(rows[i]): _isolated_message(int(n_isolated[i]), cutoff_ang) for i in isolated
        }
        if len(isolated) == len(rows):
            return None, problems
        if len(isolated):
            task = self._built(crystals, np.delete(rows, isolated), wanted)
        return task, problems

    def _built(self, crystals: Crystals, rows: np.ndarray, wanted: _Wanted) -> _Task:
        """Every atom counts where its own slope is wanted, else one of each kind."""
        n_layers = None if wanted.gradient else len(self._weights.atom_convs)
        graph, messages = build(crystals[rows], self.device, n_layers=n_layers, **self._cutoffs)
        return _Task(rows=rows, graph=graph, messages=messages)

    def _outcome_halving(self, crystals: Crystals, rows: np.ndarray, wanted: _Wanted) -> _Outcome:
        """The rows' results, or those of their halves where the GPU's memory does not hold them."""
        with contextlib.suppress(torch.cuda.OutOfMemoryError):
            task, problems = self._task(crystals, rows, wanted)
            return ([] if task is None else [self._compute(task, wanted)]), problems
        # Only here, with the exception gone, are the tensors of the failed attempt gone too.
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        if len(rows) == 1:
            row = int(rows[0])
            raise ModelError(
                f"row {row} ({int(crystals.n_atoms[row])} atoms, about "
                f"{int(self._work(crystals[rows])[0]):,} edges and angles) does not fit into the "
                f"memory of {self.device}. Free memory on it, leave the row out, or use "
                "device='cpu'."
            )
        results: list[_Result] = []
        problems = {}
        for half in np.array_split(rows, 2):
            done, found = self._outcome_halving(crystals, half, wanted)
            results += done
            problems |= found
        return results, problems

    def _compute(self, task: _Task, wanted: _Wanted) -> _Result:
        gradient = None
        with torch.enable_grad() if wanted.gradient else torch.inference_mode():
            g = TensorGraph(task.messages, self.device)
            lengths, phases = g.lengths, g.phases
            if wanted.gradient:
                vectors = torch.as_tensor(task.graph.vectors, device=self.device)
                vectors = vectors.detach().requires_grad_()  # the graph's own stays as it is
                lengths, phases = geometry(task.graph, vectors)
            features, moments = forward(g, self._weights, lengths, phases)
            energies = site_energies(self._weights, features) if wanted.energy else None
            if wanted.gradient and energies is not None:
                (gradient,) = torch.autograd.grad(energies.sum(), vectors)

        kinds = torch.as_tensor(task.messages.kind_of_atom, device=self.device)

        def per_atom(tensor: torch.Tensor) -> np.ndarray:
            return _host(tensor.detach().index_select(0, kinds))

        forces, stress = (None, None) if gradient is None else _forces(task.graph, gradient)
        return _Result(
            rows=task.rows,
            site_energy=None if energies is None else per_atom(energies).astype(np.float64),
            forces=forces,
            stress=stress,
            moments=per_atom(moments).astype(np.float64) if wanted.moments else None,
            features=per_atom(features) if wanted.features else None,
        )


def _host(array: Sized) -> np.ndarray:
    return np.asarray(array.cpu() if isinstance(array, torch.Tensor) else array)


def _forces(graph: Graph[Sized], gradient: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """(N, 3) forces in eV/Å and (n, 3, 3) stress in GPa from the slope along every bond vector.

    A bond vector v runs from its second atom to its first and turns into v (1 + strain), so
    dE/dstrain[a, b] is the sum of v[a] dE/dv[b].
    """

    def put(array: Sized) -> torch.Tensor:
        return torch.as_tensor(array, device=gradient.device)

    first, n, n_rows = put(graph.first), len(graph.numbers), len(graph.n_atoms)
    forces = Incidence(put(graph.second), n).scatter(gradient)
    forces -= Incidence(first, n).scatter(gradient)
    products = put(graph.vectors)[:, :, None] * gradient[:, None, :]
    rows = Incidence(put(graph.row_of_atom)[first], n_rows)
    virial = rows.scatter(products.view(-1, 9)).view(-1, 3, 3)
    stress = virial * (GPA_PER_EV_PER_ANG3 / put(graph.volumes_ang3))[:, None, None]
    return _host(forces), _host(stress)


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in _WORK_PER_BATCH:
        raise ConfigError(f"device={name!r} is unknown; use 'cpu', 'cuda', 'cuda:1' or 'auto'.")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise NotAvailable(
            f"device={name!r}, and torch {torch.__version__} finds no GPU. Use 'cpu' or 'auto', or "
            "install a torch built for your driver."
        )
    return device


def _why_not_fused(device: torch.device, has_norms: bool) -> str | None:
    """Why the fused kernels are not used: they exist for GPUs, and are tried there first."""
    if device.type != "cuda":
        return "there are fused kernels for GPUs only"
    try:
        from harness.models.chgnet import kernels
    except ImportError as error:
        return f"Triton is not installed ({error})"
    with torch.cuda.device(device):
        return kernels.why_not(device, has_norms=has_norms)


def _budgets(device: torch.device) -> tuple[int, int]:
    """Work a task without and with gradients, fitted to the memory that is free now.

    What is stored does not depend on it: batches are planned without it.
    """
    work = _WORK_PER_TASK[device.type], _GRADIENT_WORK_PER_TASK[device.type]
    if device.type == "cpu":
        return work
    free, _ = torch.cuda.mem_get_info(device)
    usable = _MEMORY_SHARE * free / _N_STREAMS
    fitting = int(usable / _BYTES_PER_WORK), int(usable / _GRADIENT_BYTES_PER_WORK)
    return max(1, min(work[0], fitting[0])), max(1, min(work[1], fitting[1]))


def _row_means(crystals: Crystals, values: np.ndarray) -> np.ndarray:
    """(n,) float64 mean over each row's atoms."""
    starts = crystals.offsets[:-1] - crystals.offsets[0]
    sums = np.add.reduceat(values, starts) if len(starts) else np.empty(0)
    return np.asarray(sums / crystals.n_atoms, dtype=np.float64)


def _unknown_elements(crystals: Crystals) -> dict[int, str]:
    beyond = np.flatnonzero(crystals.numbers > N_ELEMENTS)
    problems: dict[int, set[int]] = {}
    for row, number in zip(
        crystals.row_of_atom[beyond].tolist(), crystals.numbers[beyond].tolist(), strict=True
    ):
        problems.setdefault(row, set()).add(number)
    return {
        row: f"atomic numbers {sorted(numbers)} are beyond {N_ELEMENTS} (Pu), CHGNet's last"
        for row, numbers in problems.items()
    }


def _isolated_message(n_isolated: int, cutoff_ang: float) -> str:
    atoms = "1 isolated atom" if n_isolated == 1 else f"{n_isolated} isolated atoms"
    return f"{atoms} (no neighbour within {cutoff_ang:g} Å)"


def _explain_infinite(energy: np.ndarray, problems: dict[int, str]) -> None:
    for row in np.flatnonzero(~np.isfinite(energy)).tolist():
        problems.setdefault(row, "the network gives no finite energy: do two atoms coincide?")


def _refuse(problems: dict[int, str], instead: str) -> None:
    if problems:
        listed = "; ".join(f"row {row}: {problems[row]}" for row in list(problems)[:5])
        more = f"; and {len(problems) - 5} more" if len(problems) > 5 else ""
        raise ModelError(
            f"CHGNet could not score {len(problems)} rows: {listed}{more}. Leave them out; "
            f"{instead}."
        )
