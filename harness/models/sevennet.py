"""SevenNet-0 (11 July 2024) as a subject: sevenn's network and graphs, batched.

Weights: the checkpoint inside the sevenn 0.13 wheel,
`sevenn/pretrained_potentials/SevenNet_0__11Jul2024/checkpoint_sevennet_0.pth`, read with torch's
weights-only unpickler, which is allowed numpy arrays beside tensors (two of its settings are such)
and nothing else; a file with another sha256 is refused.
Source: Park et al., J. Chem. Theory Comput. 20, 4857 (2024), and the note beside the checkpoint.
Licence: MIT, as sevenn.

Energies are total energies as VASP gives them, without MP2020 corrections: the settings inside the
checkpoint name the uncorrected labels of MPtrj. An alignment with the MP2020 references of the
elements, which fits CHGNet, does not fit this one where a compound would be corrected.
The network turns with a crystal but knows no parity (`is_parity` is false in its settings): a
crystal and its mirror image may differ, by 2 meV/atom and 50 meV/Å at the worst seen here.

Public: SevenNetModel, SHA256, load, weights. Needs the extra: pip install 'mlip-claims[sevennet]'.
"""

from __future__ import annotations

import importlib.util
from collections import OrderedDict
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.data.paths import sha256_of
from harness.data.units import GPA_PER_EV_ANG3
from harness.errors import ConfigError, ModelError, NotAvailable
from harness.models.cards import Card
from harness.models.foreign import (
    check_properties,
    not_known,
    others_warnings,
    refuse,
    words,
)
from harness.models.own_weights import state_sha256
from harness.models.packing import packed
from harness.models.protocol import Identity, Prediction
from harness.models.threads import each_on_one_thread

if TYPE_CHECKING:
    import torch

    from harness.data.crystals import Crystals

NAME = "sevennet-0"
ENGINE = "1"  # raise it when a number this adapter gives changes
FILE = "pretrained_potentials/SevenNet_0__11Jul2024/checkpoint_sevennet_0.pth"
SHA256 = "7052cb42b7b3be42b40b97fa0d21077a48c54b5548948fc4dcf346629f813c36"
PROPERTIES = ("energy", "forces", "stress")
INSTALL = "pip install 'mlip-claims[sevennet]'"

# Work is counted in directed edges. With gradients an edge takes about 0.1 MB; on one core, batches
# of 1,000 edges and more are as fast as any.
_WORK_PER_BATCH = {"cpu": 40_000, "cuda": 400_000}  # what is saved at a time
_WORK_PER_TASK = {"cpu": 4_000, "cuda": 40_000}  # one core's, or the GPU's, at a time


def weights() -> str:
    """Where the checkpoint is, or how to get it."""
    try:
        return str(_path())
    except NotAvailable as error:
        return str(error)


def load(device: str = "auto") -> SevenNetModel:
    """SevenNet-0 on "cpu", "cuda" or "auto".

    Raises:
        NotAvailable: sevenn is not installed, or there is no GPU.
        ModelError: the checkpoint is not the one described above.
    """
    path = _path()
    if (found := sha256_of(path)) != SHA256:
        raise ModelError(
            f"{path} has sha256 {found}; SevenNet-0 of 11 July 2024 in the sevenn 0.13 wheel has "
            f"{SHA256}. Install that one: {INSTALL}."
        )
    try:
        with others_warnings():
            import torch
            from sevenn.atom_graph_data import AtomGraphData  # noqa: F401  (fails here or never)
            from sevenn.nn.sequential import AtomGraphSequential
    except ImportError as error:
        raise NotAvailable(
            f"{NAME} needs what sevenn imports ({words(error)}). Install it: {INSTALL}."
        ) from error
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device not in _WORK_PER_BATCH:
        raise ConfigError(f"device={device!r} is unknown; use 'cpu', 'cuda' or 'auto'.")
    if device == "cuda" and not torch.cuda.is_available():
        raise NotAvailable(f"{NAME} on cuda: torch finds no GPU. Use --device cpu.")
    with others_warnings():
        network = _read(path).build_model()
        network.to(device).eval().requires_grad_(False)
        network.set_is_batch_data(True)
        # The last module takes the gradient; without it an energy costs a sixth.
        modules = OrderedDict(network.named_children())
        modules.pop("force_output")
        without_gradient = AtomGraphSequential(
            modules, cutoff=network.cutoff, type_map=network.type_map
        ).eval()
    return SevenNetModel(network, without_gradient, device)


def _path() -> Path:
    found = importlib.util.find_spec("sevenn")
    if found is None or found.origin is None:
        raise NotAvailable(f"{NAME} needs the package sevenn. Install it: {INSTALL}.")
    path = Path(found.origin).parent / FILE
    if not path.is_file():
        raise NotAvailable(
            f"{NAME}: the installed sevenn has no {FILE}. Install one that ships it: {INSTALL}."
        )
    return path


def _read(path: Path) -> Any:
    """sevenn's own checkpoint object, filled without its unpickling of arbitrary objects."""
    import torch
    from sevenn.checkpoint import SevenNetCheckpoint, _config_cp_routine

    dtypes = [type(np.dtype(kind)) for kind in ("float32", "float64", "int64")]
    rebuild: tuple[Any, str] = (
        np.empty(0).__reduce__()[0],
        "numpy.core.multiarray._reconstruct",
    )  # its old name
    with torch.serialization.safe_globals([rebuild, np.ndarray, np.dtype, *dtypes]):
        content = torch.load(path, map_location="cpu", weights_only=True)

    checkpoint = SevenNetCheckpoint(path)
    checkpoint._config = _config_cp_routine(content["config"])
    checkpoint._model_state_dict = content["model_state_dict"]
    checkpoint._loaded = True  # so that it never reads the file itself
    return checkpoint


class SevenNetModel:
    """SevenNet-0. Energies, forces and stress agree with ``SevenNetCalculator`` to rounding.

    A row with an element it does not know, or without finite numbers, is not scored; the others
    are unaffected by it. An atom without neighbours is scored: SevenNet gives it an energy.
    """

    def __init__(self, network: Any, without_gradient: Any, device: str) -> None:
        self.device = device
        self._network = network
        self._without_gradient = without_gradient
        self._cutoff_ang = float(network.cutoff)
        self.elements = frozenset(int(z) for z in network.type_map)
        self.identity = Identity(
            name=NAME,
            weights_sha256=state_sha256(network.state_dict()),
            settings={
                "engine": ENGINE,
                "dtype": "float32",
                "device": device,
                "sevenn": version("sevenn"),
            },
        )
        self.card = Card(
            elements=self.elements,
            theory="PBE, and PBE+U for oxides and fluorides of Co, Cr, Fe, Mn, Mo, Ni, V, W",
            training_set="MPtrj, all of it (1.58 million frames of Materials Project relaxations)",
            energies="total energies as VASP gives them, without MP2020 corrections",
            properties=PROPERTIES,
            source="settings inside the checkpoint, and SevenNet's note of 11 July 2024",
        )

    def __repr__(self) -> str:
        return f"SevenNetModel({NAME!r} on {self.device})"

    def plan(self, crystals: Crystals) -> list[np.ndarray]:
        """Batches of row positions, largest crystals first, each about as much work.

        Planning a batch again gives one batch in the same order, so predicting batch by batch and
        all at once give the same bytes.
        """
        work = self._work(crystals)
        order = np.argsort(-work, kind="stable")
        return packed(order, work[order], _WORK_PER_BATCH[self.device])

    def predict(self, crystals: Crystals, properties: Sequence[str] = ("energy",)) -> Prediction:
        """Energies of every row, and what else is asked for.

        Args:
            properties: of "energy" (always given), "forces", "stress".
        Raises:
            ConfigError: a property is unknown.
            NotAvailable: magnetic moments, which SevenNet does not have.
            ModelError: the GPU's memory does not hold one crystal.
        """
        check_properties(NAME, self.card, properties)
        gradient = "forces" in properties or "stress" in properties
        energy = np.full(len(crystals), np.nan)
        forces = np.full((len(crystals.numbers), 3), np.nan)
        stress = np.full((len(crystals), 3, 3), np.nan)
        problems = not_known(crystals, self.elements)
        known = np.ones(len(crystals), dtype=bool)
        known[list(problems)] = False
        work = self._work(crystals)
        tasks = [
            piece[known[piece]]
            for batch in self.plan(crystals)
            for piece in packed(batch, work[batch], _WORK_PER_TASK[self.device])
            if known[piece].any()
        ]

        def run(rows: np.ndarray) -> list[tuple[np.ndarray, dict[str, np.ndarray]]]:
            return self._halving(crystals, rows, gradient=gradient)

        with others_warnings():
            done = map(run, tasks) if self.device == "cuda" else each_on_one_thread(run, tasks)
            for rows, found in (part for parts in done for part in parts):
                energy[rows] = found["energy"]
                if gradient:
                    stress[rows] = found["stress"]
                    forces[crystals.atoms_of(rows)] = found["forces"]
        finite = np.isfinite(energy)
        if gradient:
            finite &= np.isfinite(stress).all(axis=(1, 2))
            finite[crystals.row_of_atom[~np.isfinite(forces).all(axis=1)]] = False
        for row in np.flatnonzero(~finite).tolist():
            problems.setdefault(row, "the network gives no finite number: do two atoms coincide?")
        unscored = np.array(sorted(problems), dtype=np.int64)
        energy[unscored], stress[unscored], forces[crystals.atoms_of(unscored)] = [np.nan] * 3
        split = np.cumsum(crystals.n_atoms)[:-1]
        return Prediction(
            energy=energy,
            problems=dict(sorted(problems.items())),
            forces=np.split(forces, split)[: len(crystals)] if "forces" in properties else None,
            stress=stress if "stress" in properties else None,
        )

    def energies(self, crystals: Crystals) -> np.ndarray:
        """(n,) float64 eV/atom, total energies.

        Raises:
            ModelError: a row could not be scored; the message names the rows.
        """
        prediction = self.predict(crystals)
        refuse(NAME, prediction.problems)
        return prediction.energy

    # --- how it is done -----------------------------------------------------------------------

    def _work(self, crystals: Crystals) -> np.ndarray:
        """(n,) int64 directed edges, estimated from the number density alone."""
        sphere = 4 / 3 * np.pi * self._cutoff_ang**3
        return np.ceil(crystals.n_atoms**2 / crystals.volumes_ang3 * sphere).astype(np.int64)

    def _halving(
        self, crystals: Crystals, rows: np.ndarray, *, gradient: bool
    ) -> list[tuple[np.ndarray, dict[str, np.ndarray]]]:
        """The rows' result, or those of their halves where the GPU's memory does not hold it."""
        import torch

        try:
            return [(rows, self._compute(crystals, rows, gradient=gradient))]
        except torch.cuda.OutOfMemoryError:
            pass
        torch.cuda.empty_cache()
        if len(rows) == 1:
            raise ModelError(
                f"row {int(rows[0])} ({int(crystals.n_atoms[rows[0]])} atoms) does not fit into "
                "the memory of the GPU. Free memory on it, leave the row out, or use the CPU."
            )
        halves = np.array_split(rows, 2)
        return [
            part for half in halves for part in self._halving(crystals, half, gradient=gradient)
        ]

    def _compute(
        self, crystals: Crystals, rows: np.ndarray, *, gradient: bool
    ) -> dict[str, np.ndarray]:
        import sevenn._keys as key
        import torch
        from sevenn.atom_graph_data import AtomGraphData
        from sevenn.train.dataload import unlabeled_atoms_to_graph
        from torch_geometric.data import Batch

        graphs = [
            AtomGraphData.from_numpy_dict(
                unlabeled_atoms_to_graph(crystals.atoms(row), self._cutoff_ang)
            )
            for row in rows.tolist()
        ]
        batch = Batch.from_data_list(graphs).to(self.device)
        with torch.enable_grad() if gradient else torch.inference_mode():
            output = (self._network if gradient else self._without_gradient)(batch)

        def host(tensor: torch.Tensor) -> np.ndarray:
            return np.asarray(tensor.detach().cpu().numpy(), dtype=np.float64)

        found = {"energy": host(output[key.PRED_TOTAL_ENERGY]) / crystals.n_atoms[rows]}
        if gradient:
            # sevenn's order is xx yy zz xy yz zx, its sign compression positive
            xx, yy, zz, xy, yz, xz = -GPA_PER_EV_ANG3 * host(output[key.PRED_STRESS]).T
            symmetric = np.array([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]])
            found["stress"] = symmetric.transpose(2, 0, 1)
            found["forces"] = host(output[key.PRED_FORCE])
        return found
