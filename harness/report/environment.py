"""What a session ran on: package versions and machine, without importing anything heavy."""

from __future__ import annotations

import functools
import importlib.metadata
import os
import platform
from pathlib import Path

PACKAGES = (
    "torch",
    "chgnet",
    "pymatgen",
    "matbench",
    "matminer",
    "numpy",
    "scipy",
    "scikit-learn",
    "ase",
    "pytest",
    "hypothesis",
)
OPTIONAL = ("sevenn", "diep", "mattersim", "e3nn", "ray")  # named where they are installed


@functools.cache
def _versions() -> tuple[tuple[str, str], ...]:
    found = [("python", platform.python_version())]
    for package in ("mlip-claims", *PACKAGES, *OPTIONAL):
        try:
            found.append((package, importlib.metadata.version(package)))
        except importlib.metadata.PackageNotFoundError:
            if package not in OPTIONAL:
                found.append((package, "absent"))
    return tuple(found)


def versions() -> dict[str, str]:
    """Package -> installed version, or `absent`."""
    return dict(_versions())


def machine() -> dict[str, str]:
    """Processor, cores, memory and system: what a time in the report was measured on."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    found = {
        "system": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "cores": str(cores),
    }
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        found["memory"] = f"{memory / 2**30:.0f} GiB"
    return found


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or "unknown"
