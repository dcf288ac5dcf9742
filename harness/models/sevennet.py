"""SevenNet as a subject, published or of your own: sevenn's networks and graphs, batched.

Weights: the four checkpoints inside the sevenn 0.13 wheel, in `sevenn/pretrained_potentials/`, each
known by its sha256; one of them has two channels (fidelities), and each channel is a subject:

    sevennet-0             of 11 July 2024, sevenn's default
    sevennet-0-22may2024   the one before it, of the paper
    sevennet-l3i5          spherical harmonics up to degree 3 in place of 2
    sevennet-mf-0-pbe      trained on two functionals at once, of 16 December 2024
    sevennet-mf-0-r2scan

or `sevennet:PATH?modal=PBE&card.theory=PBE`, a checkpoint as sevenn's training saves it; `modal` is
for one with channels. Files are read with torch's weights-only unpickler, which is allowed numpy
arrays beside tensors (some settings are such) and nothing else.
Source: Park et al., J. Chem. Theory Comput. 20, 4857 (2024); for the two channels Kim et al.,
J. Am. Chem. Soc. 147, 1042 (2024); the notes of each release in SevenNet's repository, and the
settings inside the checkpoints.  Licence: MIT, as sevenn.

Energies of the published ones are total energies as VASP gives them, without MP2020 corrections:
the settings inside those of MPtrj name its uncorrected labels, and the others by PBE agree with
them to 0.1 eV/atom where a corrected energy is 0.2 to 1.6 eV/atom lower (NaCl, LiF and oxides,
CHGNet 0.3.0). An alignment with the MP2020 references of the elements, which fits CHGNet, does not
fit these where a compound would be corrected.
These networks turn with a crystal but know no parity (`is_parity` is false in their settings): a
crystal and its mirror image may differ, by 2 meV/atom and 50 meV/Å at the worst seen of the first.

Public: SevenNetModel, PUBLISHED, PREFIX, parse, load, load_checkpoint, weights. Needs the extra:
pip install 'mlip-claims[sevennet]'.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import io
import json
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.data.elements import SYMBOLS
from harness.data.units import GPA_PER_EV_ANG3
from harness.errors import ConfigError, ModelError, NotAvailable
from harness.files import sha256_of
from harness.models import own_weights
from harness.models.cards import DECLARABLE, Card
from harness.models.foreign import (
    check_properties,
    not_known,
    others_warnings,
    refuse,
    words,
)
from harness.models.own_weights import read_tensors, refuse_not_finite, state_sha256
from harness.models.packing import packed
from harness.models.protocol import Identity, Prediction
from harness.models.threads import each_on_one_thread

if TYPE_CHECKING:
    import torch

    from harness.data.crystals import Crystals

PREFIX = "sevennet:"  # of the name of a checkpoint: sevennet:PATH?modal=PBE&card.theory=PBE
ENGINE = "1"  # raise it when a number this adapter gives changes
PROPERTIES = ("energy", "forces", "stress")
INSTALL = "pip install 'mlip-claims[sevennet]'"


@dataclass(frozen=True, kw_only=True)
class _Published:
    """A checkpoint of the wheel, or one channel of it, and what its authors say."""

    file: str
    sha256: str
    modal: str | None = None
    training_set: str
    theory: str = "PBE, and PBE+U for oxides and fluorides of Co, Cr, Fe, Mn, Mo, Ni, V, W"
    energies: str = "total energies as VASP gives them, without MP2020 corrections"
    source: str


_MPTRJ = "MPtrj, all of it (1.58 million frames of Materials Project relaxations)"
_MF_0: dict[str, str] = {
    "file": "SevenNet_MF_0/checkpoint_sevennet_mf_0.pth",
    "sha256": "81791329b37d445f46b531578c182c41792d98c7814222c9e5dde276402225fd",
    "source": "settings inside the checkpoint, and SevenNet's note of 16 December 2024",
}
PUBLISHED: Mapping[str, _Published] = {
    "sevennet-0": _Published(
        file="SevenNet_0__11Jul2024/checkpoint_sevennet_0.pth",
        sha256="7052cb42b7b3be42b40b97fa0d21077a48c54b5548948fc4dcf346629f813c36",
        training_set=_MPTRJ,
        source="settings inside the checkpoint, and SevenNet's note of 11 July 2024",
    ),
    "sevennet-0-22may2024": _Published(
        file="SevenNet_0__22May2024/checkpoint_sevennet_0.pth",
        sha256="5d389fafd512e6ae2830d74d0b66ffc49a55d3832653ff8e7bf7f1343013c1d1",
        training_set="MPF.2021.2.8, M3GNet's (188,000 frames of Materials Project relaxations), "
        "but for what was kept for validation and test",
        source="SevenNet's note of 22 May 2024",
    ),
    "sevennet-l3i5": _Published(
        file="SevenNet_l3i5/checkpoint_l3i5.pth",
        sha256="a7ff190d41efe5b8317a03d20a468e4036a1a3e64e0b14fdbab64ac3f4bfc09d",
        training_set=_MPTRJ,
        source="settings inside the checkpoint, and SevenNet's list of pretrained models",
    ),
    "sevennet-mf-0-pbe": _Published(
        **_MF_0,
        modal="PBE",
        training_set="relaxations of the Materials Project by PBE and by r2SCAN, both channels at "
        "once, from the weights of a network trained on MPtrj",
    ),
    "sevennet-mf-0-r2scan": _Published(
        **_MF_0,
        modal="R2SCAN",
        training_set="relaxations of the Materials Project by r2SCAN and by PBE, both channels at "
        "once, from the weights of a network trained on MPtrj",
        theory="r2SCAN",
        energies="total energies of r2SCAN as VASP gives them; MP2020 corrections are fitted to "
        "PBE and do not belong to them",
    ),
}

# Work is counted in directed edges. With gradients an edge takes about 0.1 MB; on one core, batches
# of 1,000 edges and more are as fast as any.
_WORK_PER_BATCH = {"cpu": 40_000, "cuda": 400_000}  # what is saved at a time
_WORK_PER_TASK = {"cpu": 4_000, "cuda": 40_000}  # one core's, or the GPU's, at a time


def weights(name: str) -> str:
    """Where the checkpoint of one of PUBLISHED is, or how to get it."""
    try:
        return str(_path(name))
    except NotAvailable as error:
        return str(error)


def load(name: str, device: str = "auto") -> SevenNetModel:
    """One of PUBLISHED on "cpu", "cuda" or "auto".

    Raises:
        ConfigError: the name or the device is unknown.
        NotAvailable: sevenn is not installed, or there is no GPU.
        ModelError: the checkpoint is not the one described above.
    """
    if name not in PUBLISHED:
        raise ConfigError(f"SevenNet {name!r} is unknown; known: {', '.join(PUBLISHED)}.")
    published, path = PUBLISHED[name], _path(name)
    if (found := sha256_of(path)) != published.sha256:
        raise ModelError(
            f"{path} has sha256 {found}; {name} in the sevenn 0.13 wheel has {published.sha256}. "
            f"Install that one: {INSTALL}."
        )
    network = _read(name, path).network
    return SevenNetModel(
        network,
        device,
        name=name,
        modal=published.modal,
        card=Card(
            elements=_elements(network),
            theory=published.theory,
            training_set=published.training_set,
            energies=published.energies,
            properties=PROPERTIES,
            source=published.source,
        ),
    )


def parse(name: str) -> own_weights.Checkpoint:
    """The parts of a `sevennet:PATH?modal=...&card.key=value` name; nothing is read.

    Raises:
        ConfigError: it is not of that form.
    """
    return own_weights.parse(name, PREFIX, takes=("modal",), declarable=("elements", *DECLARABLE))


def load_checkpoint(name: str, device: str = "auto") -> SevenNetModel:
    """A SevenNet of yours as a subject, batched as the published ones are.

    Args:
        name: as `parse` takes it. A network has rows for more elements than it may have been
            trained on: `card.elements` says which it is asked about.
    Raises:
        ConfigError: the name or the device is not well formed, or the channel is not one of its.
        NotAvailable: sevenn is not installed, or there is no GPU.
        ModelError: the file is absent, or holds nothing that can be used.
    """
    checkpoint = parse(name)
    found = _read(checkpoint.name, checkpoint.path)
    modal = checkpoint.asked.get("modal")
    channels = list(found.network.modal_map or {})
    if modal is None and channels:
        raise ConfigError(
            f"{checkpoint.path.name} has channels, and each is a subject. Name one: "
            f"{' or '.join(f'modal={channel}' for channel in channels)}"
        )
    if modal is not None and modal not in channels:
        known = f"its channels are {', '.join(channels)}" if channels else "it has none"
        raise ConfigError(f"{checkpoint.path.name} has no channel {modal!r}: {known}")
    elements = checkpoint.elements(_elements(found.network))
    return SevenNetModel(
        found.network,
        device,
        name=checkpoint.name,
        modal=modal,
        card=checkpoint.card(elements=elements, properties=PROPERTIES),
        settings={
            "network": found.settings_sha256,
            "elements": checkpoint.declared.get("elements", ""),
        },
    )


def _path(name: str) -> Path:
    spec = importlib.util.find_spec("sevenn")
    if spec is None or spec.origin is None:
        raise NotAvailable(f"{name} needs the package sevenn. Install it: {INSTALL}.")
    file = f"pretrained_potentials/{PUBLISHED[name].file}"
    path = Path(spec.origin).parent / file
    if not path.is_file():
        raise NotAvailable(
            f"{name}: the installed sevenn has no {file}. Install one that ships it: {INSTALL}."
        )
    return path


@dataclass(frozen=True, kw_only=True)
class _Read:
    network: Any
    settings_sha256: str  # what of a network is no parameter, a cutoff for example, is among them


def _read(name: str, path: Path) -> _Read:
    """sevenn's own network, its checkpoint filled without unpickling arbitrary objects."""
    try:
        with others_warnings():
            from sevenn.atom_graph_data import AtomGraphData  # noqa: F401  (fails here or never)
            from sevenn.checkpoint import SevenNetCheckpoint, _config_cp_routine
            from sevenn.scripts.backward_compatibility import map_old_model
    except ImportError as error:
        raise NotAvailable(
            f"{name} needs sevenn and what it imports ({words(error)}). Install it: {INSTALL}."
        ) from error
    again = "Take a checkpoint as sevenn's training saves it."
    content = read_tensors(path, again, _numbers_only())
    if not isinstance(content.get("config"), dict) or "model_state_dict" not in content:
        holds = ", ".join(map(repr, list(content)[:5])) or "nothing"
        raise ModelError(
            f"{path} holds {holds}, and no SevenNet: it needs config and model_state_dict. {again}"
        )
    settings = json.dumps(content["config"], sort_keys=True, default=_as_json)
    try:
        with others_warnings(), contextlib.redirect_stdout(io.StringIO()):  # of converted networks
            checkpoint = SevenNetCheckpoint(path)
            checkpoint._config = _config_cp_routine(content["config"])
            checkpoint._model_state_dict = content["model_state_dict"]
            checkpoint._loaded = True  # so that it never reads the file itself
            network = checkpoint.build_model()
            held = map_old_model(content["model_state_dict"])
    except Exception as error:  # whatever sevenn, e3nn and torch make of other settings
        raise ModelError(
            f"{path.name} holds another network than sevenn {version('sevenn')} builds "
            f"({words(error)}). {again}"
        ) from None
    # sevenn is not strict with one trained on another backend, which it converts
    if absent := sorted({name for name, _ in network.named_parameters()} - set(held)):
        raise ModelError(
            f"{path.name} lacks {len(absent)} of the network's parameters, first {absent[0]}, and "
            f"they would stay random. {again}"
        )
    refuse_not_finite(network.state_dict(), path)
    return _Read(network=network, settings_sha256=hashlib.sha256(settings.encode()).hexdigest())


def _numbers_only() -> list[Any]:
    """What numpy's arrays and numbers are made of, for torch's weights-only unpickler."""
    made_by: list[Any] = [value.__reduce__()[0] for value in (np.empty(0), np.float64(0))]
    of_old = [(function, f"numpy.core.multiarray.{function.__name__}") for function in made_by]
    kinds = [type(np.dtype(kind)) for kind in ("float32", "float64", "int64")]
    return [*made_by, *of_old, np.ndarray, np.dtype, *kinds]


def _as_json(value: Any) -> Any:
    return value.tolist() if hasattr(value, "tolist") else str(value)


def _elements(network: Any) -> frozenset[int]:
    """Atomic numbers with a row in the network; sevenn's universal list begins with a 0."""
    return frozenset(int(z) for z in network.type_map) & frozenset(range(1, len(SYMBOLS) + 1))


def _device(name: str, asked: str) -> str:
    import torch

    device = ("cuda" if torch.cuda.is_available() else "cpu") if asked == "auto" else asked
    if device not in _WORK_PER_BATCH:
        raise ConfigError(f"device={asked!r} is unknown; use 'cpu', 'cuda' or 'auto'.")
    if device == "cuda" and not torch.cuda.is_available():
        raise NotAvailable(f"{name} on cuda: torch finds no GPU. Use --device cpu.")
    return device


class SevenNetModel:
    """A SevenNet. Energies, forces and stress agree with ``SevenNetCalculator`` to rounding.

    A row with an element it does not know, or without finite numbers, is not scored; the others
    are unaffected by it. An atom without neighbours is scored: SevenNet gives it an energy.
    """

    def __init__(
        self,
        network: Any,
        device: str,
        *,
        name: str,
        modal: str | None,
        card: Card,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        """Take sevenn's network to a device.

        Args:
            device: "cpu", "cuda" or "auto".
            modal: the channel, of a network that has some.
            settings: whatever else moves a number.
        Raises:
            ConfigError: the device is unknown.
            NotAvailable: there is no GPU.
        """
        from sevenn.nn.sequential import AtomGraphSequential

        self.device = _device(name, device)
        self.card = card
        self.elements = card.elements or frozenset()
        network.to(self.device).eval().requires_grad_(False)
        network.set_is_batch_data(True)
        # The last module takes the gradient; without it an energy costs a sixth.
        modules = OrderedDict(network.named_children())
        modules.pop("force_output")
        self._network = network
        self._without_gradient = AtomGraphSequential(
            modules,
            cutoff=network.cutoff,
            type_map=network.type_map,
            modal_map=network.modal_map,
            eval_modal_map=network.eval_modal_map,
        ).eval()
        self._modal = modal
        self._cutoff_ang = float(network.cutoff)
        self.identity = Identity(
            name=name,
            weights_sha256=state_sha256(network.state_dict()),
            settings={
                "engine": ENGINE,
                "dtype": "float32",
                "device": self.device,
                "sevenn": version("sevenn"),
                **({} if modal is None else {"modal": modal}),
                **(settings or {}),
            },
        )

    def __repr__(self) -> str:
        return f"SevenNetModel({self.identity.name!r} on {self.device})"

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
        check_properties(self.identity.name, self.card, properties)
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
        refuse(self.identity.name, prediction.problems)
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
        if self._modal is not None:
            batch[key.DATA_MODALITY] = [self._modal] * len(rows)
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
