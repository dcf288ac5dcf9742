"""Who is compared. Each does the same job the way its users do it.

A contestant names the modules it needs and is loaded. It prepares its input (not timed: chgnet is
given its pymatgen structures, an ASE loop its Atoms), runs (timed) to what its users get, and turns
that into arrays (not timed), by which results are compared. Energies are eV/atom, forces eV/Å,
stress GPa, rows without a number are nan.
"""

from __future__ import annotations

import importlib.util
import time
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

Arrays = dict[str, np.ndarray]


class Contestant(ABC):
    label: ClassVar[str]
    modules: ClassVar[tuple[str, ...]]  # imported before it is loaded

    def __init__(self, device: str) -> None:
        self.device = device

    def prepare(self, path: Path) -> Any:
        """What it starts from, of a file; by default the file itself."""
        return path

    @abstractmethod
    def run(self, prepared: Any) -> Any: ...

    @abstractmethod
    def arrays(self, result: Any) -> Arrays: ...


def why_not(name: str) -> str | None:
    """Why a contestant cannot take part here, or None if it can."""
    for module in CONTESTANTS[name].modules:
        package = module.split(".")[0]
        if importlib.util.find_spec(package) is None:
            return f"{package} is not installed"
    return None


# --- potentials: crystals to energies and more ----------------------------------------------------


class OursEnergies(Contestant):
    label = "ours, energies"
    modules = ("torch", "chgnet", "harness.models.chgnet.model")
    properties: ClassVar[tuple[str, ...]] = ("energy",)

    def __init__(self, device: str) -> None:
        from harness.models import load_model

        self.model = load_model("chgnet-0.3.0", device)

    def prepare(self, path: Path) -> Any:
        from harness.data import Crystals

        return Crystals.load(path)

    def run(self, prepared: Any) -> Any:
        return self.model.predict(prepared, self.properties)

    def arrays(self, result: Any) -> Arrays:
        found = {"energy": result.energy}
        if result.forces is not None:
            found |= {"forces": np.concatenate(result.forces), "stress": result.stress}
        return found


class OursGradients(OursEnergies):
    label = "ours, energies, forces, stress"
    properties = ("energy", "forces", "stress")


class ChgnetDefault(Contestant):
    label = "chgnet predict_structure, default"
    modules = ("torch", "chgnet.model.model", "pymatgen.core")
    task: ClassVar[Any] = "efsm"
    batch_size: ClassVar[int] = 16  # its default

    def __init__(self, device: str) -> None:
        from chgnet.model.model import CHGNet

        self.network = CHGNet.load(use_device=device, verbose=False)

    def prepare(self, path: Path) -> Any:
        from harness.data import Crystals

        crystals = Crystals.load(path)
        return [crystals.structure(row) for row in range(len(crystals))]

    def run(self, prepared: Any) -> Any:
        # a list, which chgnet computes in batches: the fastest way it offers
        return self.network.predict_structure(prepared, task=self.task, batch_size=self.batch_size)

    def arrays(self, result: Any) -> Arrays:
        rows = result if isinstance(result, list) else [result]
        found = {"energy": np.array([float(row["e"]) for row in rows])}
        if "f" in self.task:
            found["forces"] = np.concatenate([row["f"] for row in rows])
            found["stress"] = np.stack([row["s"] for row in rows])
        return found


class ChgnetEnergies(ChgnetDefault):
    label = 'chgnet predict_structure, task="e"'
    task = "e"


class ChgnetEnergiesLargeBatch(ChgnetEnergies):
    label = 'chgnet predict_structure, task="e", batches of 256'
    batch_size = 256


class ChgnetFloat64(ChgnetDefault):
    """Its own graphs and network in double precision: what both sides' numbers are held against."""

    label = "chgnet in float64, one by one"
    modules = ("torch", "chgnet.model.model", "harness.models.chgnet.original")

    def __init__(self, device: str) -> None:
        self.device = device  # it runs on the processor, wherever the others do

    def prepare(self, path: Path) -> Any:
        from harness.data import Crystals

        return Crystals.load(path)

    def run(self, prepared: Any) -> Any:
        from harness.models.chgnet.original import predict_original
        from harness.models.chgnet.weights import read_chgnet

        return predict_original(read_chgnet("0.3.0"), prepared, "float64")

    def arrays(self, result: Any) -> Arrays:
        forces = np.concatenate(result.forces)
        return {"energy": result.energy, "forces": forces, "stress": result.stress}


class _AseLoop(Contestant):
    calculator: Any

    def prepare(self, path: Path) -> Any:
        from harness.data import Crystals

        crystals = Crystals.load(path)
        return [crystals.atoms(row) for row in range(len(crystals))]

    def run(self, prepared: Any) -> Any:
        energies = []
        for atoms in prepared:
            atoms.calc = self.calculator
            energies.append(atoms.get_potential_energy() / len(atoms))
            atoms.calc = None
        return energies

    def arrays(self, result: Any) -> Arrays:
        return {"energy": np.array(result, dtype=np.float64).reshape(-1)}


class ChgnetAse(_AseLoop):
    label = "CHGNetCalculator, ASE one by one"
    modules = ("torch", "chgnet.model.dynamics", "ase")

    def __init__(self, device: str) -> None:
        from chgnet.model.dynamics import CHGNetCalculator

        self.calculator = CHGNetCalculator(use_device=device)


class SevenNetAse(_AseLoop):
    label = "SevenNet 7net-0, ASE one by one"
    modules = ("torch", "sevenn.calculator", "ase")

    def __init__(self, device: str) -> None:
        from sevenn.calculator import SevenNetCalculator

        self.calculator = SevenNetCalculator("7net-0", device=device)


# --- the official file: text to columns, and to a fold --------------------------------------------


class OursParse(Contestant):
    label = "ours, file to columns"
    modules = ("numpy", "msgspec", "harness.data.official_layout")

    def run(self, prepared: Any) -> Any:
        from harness.data.official_layout import parse

        return parse(prepared)

    def arrays(self, result: Any) -> Arrays:
        return {
            "target": result.target,
            "n_atoms": result.crystals.n_atoms,
            "volume": result.crystals.volumes_ang3,
        }


class MatbenchParse(Contestant):
    """What matbench.bench's ``task.load()`` does behind its check of the file's hash."""

    label = "matbench's loader (matminer)"
    modules = ("matminer.utils.io", "pymatgen.core")

    def run(self, prepared: Any) -> Any:
        from matminer.utils.io import load_dataframe_from_json

        return load_dataframe_from_json(str(prepared), pbar=False)

    def arrays(self, result: Any) -> Arrays:
        return {
            "target": result["e_form"].to_numpy(),
            "n_atoms": np.array([len(structure) for structure in result["structure"]]),
            "volume": np.array([structure.volume for structure in result["structure"]]),
        }


class OursOpen(Contestant):
    """Converts the file the first time, opens the columns after that."""

    label = "ours, fold 0 of the file"
    modules = ("numpy", "harness.data.matbench", "harness.data.folds")

    def run(self, prepared: Any) -> Any:
        from harness.data import load_dataset

        test = load_dataset(prepared).fold(0).test
        return test.crystals, test.target_ev_per_atom

    def arrays(self, result: Any) -> Arrays:
        crystals, target = result
        return {"n_test": np.array(len(crystals)), "target": target}


# --- the composition baseline: crystals to predictions of a trained network ----------------------

EPOCHS = 5  # for both; an epoch costs what an epoch costs
TESTED = 5  # every fifth row is predicted, the others are trained on


def split(n: int) -> tuple[np.ndarray, np.ndarray]:
    tested = np.arange(n) % TESTED == 0
    return np.flatnonzero(~tested), np.flatnonzero(tested)


def target_beside(path: Path) -> np.ndarray:
    """(n,) eV/atom, stored beside the crystals under the same name."""
    return np.load(path.with_suffix(".npy"), allow_pickle=False)


class _Training(Contestant):
    def arrays(self, result: Any) -> Arrays:
        return {"predicted": result[0], "featurise_s": np.array(result[1])}


class OursComposition(_Training):
    label = "ours, featurise and train"
    modules = ("torch", "harness.models.composition")

    def prepare(self, path: Path) -> Any:
        from harness.data import Crystals

        return Crystals.load(path), target_beside(path)

    def run(self, prepared: Any) -> Any:
        from harness.models.composition import CompositionMLP

        crystals, target = prepared
        train, test = split(len(crystals))
        clock = time.perf_counter()
        compositions = crystals.compositions()
        featurise_s = time.perf_counter() - clock
        predicted = CompositionMLP(epochs=EPOCHS).fit_predict(
            compositions[train], target[train], compositions[test], device=self.device
        )
        return predicted, featurise_s


class PlainComposition(_Training):
    """As one writes it first: pymatgen's fractions, a DataLoader, Adam, one batch at a time.

    The settings, the first weights and the order of the rows are the baseline's own, so that both
    end at the same predictions but for rounding.
    """

    label = "a plain torch loop (pymatgen, DataLoader, Adam)"
    modules = ("torch", "pymatgen.core", "harness.models.composition")

    def prepare(self, path: Path) -> Any:
        from harness.data import Crystals

        crystals = Crystals.load(path)
        structures = [crystals.structure(row) for row in range(len(crystals))]
        return structures, target_beside(path)

    def run(self, prepared: Any) -> Any:
        import torch
        from torch.utils.data import DataLoader, TensorDataset

        from harness.models.composition import CompositionMLP, _network

        structures, target = prepared
        train, test = split(len(structures))
        clock = time.perf_counter()
        features = np.zeros((len(structures), 118), dtype=np.float32)
        for row, structure in enumerate(structures):
            fractions = structure.composition.fractional_composition
            for element, fraction in fractions.items():
                features[row, element.Z - 1] = fraction
        featurise_s = time.perf_counter() - clock

        settings = CompositionMLP(epochs=EPOCHS)
        generator = torch.Generator().manual_seed(settings.seed)
        mean, spread = target[train].mean(), target[train].std()
        x = torch.tensor(features[train])
        y = torch.tensor((target[train] - mean) / spread, dtype=torch.float32)
        data = TensorDataset(x, y)
        network = _network(118, settings.width, generator).to(self.device)
        optimiser = torch.optim.Adam(network.parameters(), lr=settings.learning_rate)
        n_batches = -(-len(train) // settings.batch_rows)
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimiser, settings.learning_rate, total_steps=EPOCHS * n_batches
        )
        loss_of = torch.nn.L1Loss()
        for _ in range(EPOCHS):
            order = torch.randperm(len(train), generator=generator).tolist()
            for x_batch, y_batch in DataLoader(data, settings.batch_rows, sampler=order):
                optimiser.zero_grad()
                predicted = network(x_batch.to(self.device)).squeeze(1)
                loss = loss_of(predicted, y_batch.to(self.device))
                loss.backward()
                optimiser.step()
                schedule.step()
        network.eval()
        with torch.no_grad():
            predicted = network(torch.tensor(features[test]).to(self.device)).squeeze(1)
        return predicted.cpu().numpy().astype(np.float64) * spread + mean, featurise_s


CONTESTANTS: dict[str, type[Contestant]] = {
    "ours-e": OursEnergies,
    "ours-efs": OursGradients,
    "chgnet-e": ChgnetEnergies,
    "chgnet-e-256": ChgnetEnergiesLargeBatch,
    "chgnet-efsm": ChgnetDefault,
    "chgnet-float64": ChgnetFloat64,
    "chgnet-ase": ChgnetAse,
    "sevennet-ase": SevenNetAse,
    "ours-parse": OursParse,
    "matbench-parse": MatbenchParse,
    "ours-open": OursOpen,
    "ours-mlp": OursComposition,
    "plain-mlp": PlainComposition,
}
