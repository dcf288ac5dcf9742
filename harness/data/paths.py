"""Where files are looked for: the user's cache, the folder HARNESS_DATA names, installed packages.

Nothing is created by asking for a path; whoever writes makes the folder.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

from harness.errors import DataAbsent

CACHE_VARIABLE = "HARNESS_CACHE"
DATA_VARIABLE = "HARNESS_DATA"


def cache_dir() -> Path:
    """Folder for fetched files and conversions: HARNESS_CACHE, or mlip-claims in the user's cache.

    The user's cache is XDG_CACHE_HOME or ~/.cache, ~/Library/Caches on macOS, LOCALAPPDATA on
    Windows. Read at every call, so that a test or a job can point it elsewhere.
    """
    if chosen := os.environ.get(CACHE_VARIABLE):
        return Path(chosen).expanduser()
    if sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    elif sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "mlip-claims"


def fetched_dir() -> Path:
    """Folder that ``python -m harness fetch`` fills."""
    return cache_dir() / "fetched"


def columns_dir() -> Path:
    """Folder of conversions; each can be deleted at any time and is made again."""
    return cache_dir() / "columns"


def shared_data_dir() -> Path | None:
    """The folder HARNESS_DATA names, or None where the variable is unset or empty."""
    chosen = os.environ.get(DATA_VARIABLE)
    return Path(chosen).expanduser() if chosen else None


def shared_data_file(name: str) -> Path | None:
    """A file in HARNESS_DATA, or None where the variable is unset or the file is not there."""
    folder = shared_data_dir()
    return folder / name if folder is not None and (folder / name).is_file() else None


def require_shared_data_file(name: str) -> Path:
    """A file in HARNESS_DATA.

    Raises:
        DataAbsent: the variable is unset, or the file is not there.
    """
    if (path := shared_data_file(name)) is None:
        folder = shared_data_dir()
        raise DataAbsent(
            f"{name} is not at hand: it is looked for in the folder that {DATA_VARIABLE} names "
            f"({'which is unset' if folder is None else folder}). Set it: export "
            f"{DATA_VARIABLE}=FOLDER"
        )
    return path


def fixtures_dir() -> Path:
    """The project's own data: fixtures/ of the checkout, or what the installed package brought.

    Raises:
        DataAbsent: neither is there.
    """
    package = Path(__file__).parents[1]
    for folder in (package / "_fixtures", package.parent / "fixtures"):
        if folder.is_dir():
            return folder
    raise DataAbsent(
        f"no fixtures/ beside {package} and no _fixtures in it. Install the package whole: "
        "pip install --force-reinstall mlip-claims"
    )


def package_file(package: str, *parts: str) -> Path | None:
    """A file inside an installed package, found without importing it (matbench takes seconds)."""
    spec = importlib.util.find_spec(package)
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        if (path := Path(folder, *parts)).is_file():
            return path
    return None
