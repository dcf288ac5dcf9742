"""Documented verdicts: what is known to come out, for one model on one data set.

`checks/verdicts.toml` lists them. A known refutation is a finding and does not fail a session; any
verdict that differs from its documented one is loud, and `compare` makes CI fail on it.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.claims import Verdict
from harness.errors import ConfigError
from harness.evidence import Evidence


@dataclass(frozen=True, kw_only=True)
class Known:
    """One documented verdict."""

    verdict: Verdict
    reason: str = ""


Documented = Mapping[str, Known]  # Evidence.key -> what is known


def load_documented(path: Path, *, model: str, dataset: str) -> Documented:
    """The documented verdicts of one model on one data set; empty if there are none.

    Raises:
        ConfigError: not TOML, a word that is no verdict, or a refutation without its reason.
    """
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path} is not TOML: {error}") from None
    found: dict[str, Known] = {}
    for key, entry in table.get(model, {}).get(dataset, {}).items():
        entry = {"verdict": entry} if isinstance(entry, str) else entry
        try:
            known = Known(verdict=Verdict(entry["verdict"]), reason=entry.get("reason", ""))
        except (KeyError, ValueError) as error:
            raise ConfigError(f"{path}: {key!r}: {error} is no verdict") from None
        if known.verdict != Verdict.HELD and not known.reason:
            raise ConfigError(f"{path}: {key!r} is documented as {known.verdict} without a reason")
        found[key] = known
    return found


def differences(
    evidence: Sequence[Evidence],
    documented: Documented,
    errors: Sequence[Mapping[str, str]] = (),
) -> Iterator[str]:
    """Every claim whose verdict is not the documented one, missing or extra ones, uncaught faults.

    A control that did not run is no difference where its claim is documented as not run.
    """
    measured = {e.key: e for e in evidence if not e.control}
    for error in errors:
        yield f"{error['test']} broke: {error['message']}"
    for key in sorted(measured.keys() | documented.keys()):
        if key not in documented:
            yield f"{key}: {measured[key].verdict}, but no verdict is documented"
        elif key not in measured:
            yield f"{key}: documented as {documented[key].verdict}, but it was not in the session"
        elif measured[key].verdict != documented[key].verdict:
            yield f"{measured[key]}; documented: {documented[key].verdict}"
    for found in evidence:
        if not found.control or found.refuted or found.placeholder:
            continue
        known = [k.verdict for key, k in documented.items() if key.split("[")[0] == found.id]
        if found.verdict != Verdict.NOT_RUN or any(v != Verdict.NOT_RUN for v in known):
            yield f"control {found.fault!r} was not caught: {found}"
