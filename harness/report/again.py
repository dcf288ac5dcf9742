"""Measures again what a report says: the session's own command, or single predictions.

Public: rerun, recompute.
"""

from __future__ import annotations

import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.errors import ConfigError, DataError, HarnessError
from harness.evidence import Evidence
from harness.report import products

if TYPE_CHECKING:
    from harness.data.crystals import Crystals
    from harness.models.protocol import Model, Prediction
    from harness.report.verify import Verified

_CLOSE = 1e-6  # relative: what is read from the store is the same to the last bit on one machine
_CLOSE_EV_PER_ATOM = 1e-4  # float32 sums depend on what shares a batch; docs/models.md
_MAY_DIFFER = {"seconds", "versions", "test", "documented", "documented_from", "reason"}


def rerun(found: Verified) -> None:
    """Run the session's command again, on what is stored, and compare every record.

    Raises:
        DataError: the session names no command, or it leaves no evidence.
    """
    command = shlex.split(str(found.session.session.get("command", "")))
    if not command:
        raise DataError("the session names no command to run again")
    with tempfile.TemporaryDirectory() as scratch:
        report = Path(scratch) / "report"
        argv = [sys.executable, "-m", "pytest", *command[1:], "--report", str(report)]
        done = subprocess.run(argv, capture_output=True, text=True, check=False)  # noqa: S603
        try:
            again = products.load(report)
        except DataError:
            last = " ".join((done.stdout + done.stderr).strip().splitlines()[-3:])
            raise DataError(f"{shlex.join(command)} left no evidence: {last}") from None
    by_test = {record.test: record for record in again.claims}
    for record in found.session.claims:
        other = by_test.pop(record.test, None)
        if other is None:
            found.false(record.test, "run again it leaves no record")
            continue
        for name, was, is_now in _unlike(record, other):
            found.false(record.test, f"run again, {name} is {is_now!r} and not {was!r}")
        found.compared(record.test, "the same when run again")
    found.files += [f"run again, there is a record of {test} too" for test in by_test]


def _unlike(record: Evidence, other: Evidence) -> Iterator[tuple[str, Any, Any]]:
    was, now = record.as_dict(), other.as_dict()
    for name in sorted(was.keys() - _MAY_DIFFER):
        if not _alike(was[name], now[name]):
            yield name, was[name], now[name]


def _alike(was: Any, now: Any) -> bool:
    """Equal, but for what rounding changes in a number."""
    if isinstance(was, Mapping) and isinstance(now, Mapping):
        return was.keys() == now.keys() and all(_alike(was[key], now[key]) for key in was)
    if isinstance(was, list) and isinstance(now, list):
        return len(was) == len(now) and all(map(_alike, was, now))
    if isinstance(was, float) and isinstance(now, float):
        return abs(was - now) <= _CLOSE * max(abs(was), abs(now))
    return bool(type(was) is type(now) and was == now)


def recompute(found: Verified, n: int) -> None:
    """Compute so many of the stored energies again, with the model and without the store.

    Raises:
        ConfigError: ``n`` is below 1.
        DataError: the session's energies are not in the store.
    """
    from harness.data import cache_dir, load_dataset
    from harness.models import load_model
    from harness.runners import zero_shot
    from harness.store import PredictionStore

    if n < 1:
        raise ConfigError(f"--recompute {n}: give a number from 1 up")
    info = found.session.session
    try:
        model = load_model(str(info["model"]), "cpu")
        dataset = load_dataset(str(info["dataset"]))
    except HarnessError as error:
        found.notes.append(f"no prediction was computed again: {error}")
        return
    folds = sorted({record.fold for record in found.session.claims if record.fold is not None})
    fold = dataset.fold(folds[0] if folds else 0)
    store = PredictionStore(cache_dir() / "predictions", _refuse)
    config = replace(zero_shot.ZeroShot(), sample=info.get("sample"), refit_groups=0)
    result = zero_shot.run(model, fold, store, {}, config)
    draw = np.random.default_rng(0)
    chosen = draw.permutation(np.flatnonzero(result.total.scored))[:n]
    crystals = dataset.require_crystals()[result.rows[chosen]]
    energies = np.concatenate(
        [model.predict(crystals[rows]).energy for rows in model.plan(crystals)]
    )
    order = np.concatenate(model.plan(crystals))
    now = np.empty(len(chosen))
    now[order] = energies
    stored = result.total.energy[chosen]
    far = np.flatnonzero(~(np.abs(now - stored) <= _CLOSE_EV_PER_ATOM))
    for i in far:
        found.files.append(
            f"the stored energy of {dataset.ids[result.rows[chosen[i]]]} is {stored[i]:.6f} "
            f"eV/atom, and {model.identity.name} gives {now[i]:.6f}"
        )
    apart = float(np.abs(now - stored).max())
    found.notes.append(
        f"{len(chosen)} stored energies of {len(result.rows)} were computed again with "
        f"{model.identity.name}; the largest difference is {apart:.2g} eV/atom"
    )


def _refuse(
    model: Model, crystals: Crystals, batches: Sequence[np.ndarray], properties: Sequence[str]
) -> Iterator[Prediction]:
    """Computes nothing: what is to be compared is what was stored."""
    if batches:
        raise DataError(
            f"{sum(map(len, batches))} energies of the session are not in the store; name its "
            "folder in HARNESS_CACHE, or use --rerun"
        )
    return iter(())
