"""Data: crystals in columns, and the sets that come with formation energies.

    load_dataset("auto")     the official file where it was fetched, else the part of it in
                             HARNESS_DATA, else the embedded set
    auto_choice("auto")      which of them that is, and why, without reading it
    available()              everything that can be asked for, and where it is or how to get it

A file named by its path is read as matbench's official layout; what of it is official is known by
comparison, see harness.data.matbench.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from harness.data.crystals import Crystals
from harness.data.dataset import Dataset, Fold, Rows, Split
from harness.data.paths import cache_dir, fetched_dir, shared_data_dir, shared_data_file
from harness.errors import ConfigError, DataAbsent

if TYPE_CHECKING:
    from harness.data.peers import PeerPredictions

__all__ = [
    "DATASETS",
    "Crystals",
    "Dataset",
    "Fold",
    "Rows",
    "Split",
    "auto_choice",
    "available",
    "cache_dir",
    "load_dataset",
    "load_peer_predictions",
]

OFFICIAL = "matbench_mp_e_form"
SUBSET = "matbench_mp_e_form (subset)"
SUBSET_FILE = "matbench_mp_e_form_subset.json.gz"
FETCH_OFFICIAL = f"python -m harness fetch {OFFICIAL}"

# What evidence calls them: the names that bounds and documented verdicts can be about.
DATASETS = ("embedded", "thermochemistry", OFFICIAL, SUBSET, "wbm")

_NAMES = ("auto", "embedded", "thermochemistry", OFFICIAL, "subset", "targets", "wbm")


def load_dataset(name_or_path: str | Path = "auto") -> Dataset:
    """A data set by name (see `available`) or path.

    Raises:
        ConfigError: neither a known name nor an existing file.
        DataAbsent: the files of a known name are not here; the message says how to get them.
        DataError: a file is not as described.
    """
    chosen, _, path = _choose(name_or_path)
    if path is not None:
        from harness.data import matbench

        return matbench.load(path)
    if chosen == "embedded":
        from harness.data import embedded

        return embedded.load()
    if chosen == "thermochemistry":
        from harness.data import thermochemistry

        return thermochemistry.load()
    if chosen == "targets":
        from harness.data import targets

        return targets.load()
    from harness.data import wbm

    return wbm.load()


def auto_choice(name_or_path: str | Path = "auto") -> tuple[str, str]:
    """Name of the data set that load_dataset would return, and one sentence that says why.

    Raises as load_dataset does, but for what only reading the whole file shows.
    """
    chosen, reason, path = _choose(name_or_path)
    if path is not None:
        from harness.data import matbench

        name, source = matbench.name_of(path)
        return name, reason if not name.startswith(matbench.OWN) else f"{reason}; {source}"
    return chosen if chosen != "targets" else f"{OFFICIAL} (targets)", reason


def _choose(name_or_path: str | Path) -> tuple[str, str, Path | None]:
    """Data set, reason, and the file in the official layout if it is one."""
    name = str(name_or_path)
    official = official_file()
    subset = shared_data_file(SUBSET_FILE)
    if name == "auto":
        if official is not None:
            return OFFICIAL, f"the official file is at hand ({official})", official
        if subset is not None:
            return (
                SUBSET,
                "the official file has not been fetched, HARNESS_DATA has a part of it "
                f"(all of it: {FETCH_OFFICIAL})",
                subset,
            )
        return (
            "embedded",
            f"the official file has not been fetched (to use it: {FETCH_OFFICIAL})",
            None,
        )
    if name == OFFICIAL:
        if official is None:
            raise DataAbsent(f"{OFFICIAL} has not been fetched. Run: {FETCH_OFFICIAL}")
        return OFFICIAL, "asked for by name", official
    if name in ("subset", SUBSET):
        if subset is None:
            raise DataAbsent(
                f"{SUBSET_FILE} is not at hand: it is looked for in the folder that HARNESS_DATA "
                f"names ({shared_data_dir() or 'unset'}). For all rows run: {FETCH_OFFICIAL}"
            )
        return SUBSET, "asked for by name", subset
    if name in _NAMES:
        return name, "asked for by name", None
    if (path := Path(name_or_path)).is_file():
        return "file", f"asked for by path ({path})", path
    raise ConfigError(
        f"{name!r} is neither a data set nor a file. Known: {', '.join(_NAMES)}, or the path of a "
        f"file in the layout of {OFFICIAL}.json.gz."
    )


def official_file() -> Path | None:
    """The official file of mp_e_form, where it was fetched or lies in HARNESS_DATA."""
    from harness.data.matbench import FILE_NAME

    fetched = fetched_dir() / FILE_NAME
    return fetched if fetched.is_file() else shared_data_file(FILE_NAME)


def load_peer_predictions() -> PeerPredictions:
    """What published models predict for every official row; see harness.data.peers."""
    from harness.data import peers

    return peers.load_peer_predictions()


def available() -> dict[str, str]:
    """Everything that can be asked for: where it is, or how to get it."""
    from harness.data import folds, peers, references, targets, wbm

    in_folder = "absent: set HARNESS_DATA to a folder that has "

    def where(path: Path | None, otherwise: str) -> str:
        return otherwise if path is None or not path.is_file() else str(path)

    fetched_references = fetched_dir() / references.FILE_NAME
    return {
        OFFICIAL: where(official_file(), f"absent: {FETCH_OFFICIAL}"),
        SUBSET: where(shared_data_file(SUBSET_FILE), in_folder + SUBSET_FILE),
        "embedded": "comes with the project: formation energies from its own PBE calculations",
        "thermochemistry": "comes with the project: enthalpies of formation from experiment",
        "targets": where(shared_data_file(targets.FILE_NAME), in_folder + targets.FILE_NAME),
        "wbm": where(shared_data_file(wbm.FILE_NAME), in_folder + wbm.FILE_NAME),
        "peer predictions": where(shared_data_file(peers.FILE_NAME), in_folder + peers.FILE_NAME),
        "elemental references": where(
            shared_data_file(references.FILE_NAME) or fetched_references,
            f"absent: python -m harness fetch {references.FETCH_NAME}",
        ),
        "official folds": where(folds.definition_file(), f"absent: {folds.matbench_hint()}"),
        "cache": str(cache_dir()),
    }
