"""What a check leaves behind: one record a claim, case and fold, and the session around them.

Written with sorted keys and `allow_nan=False`, so two records compare by eye and by hash and a NaN
cannot hide. Add fields with defaults; never change what one means. An absent measurement is said,
with its reason.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from harness.claims import Claim, Measurement, Verdict
from harness.errors import DataError

SCHEMA = 1

# The order in which a report tells its story: by the first word of the claim's id. Others follow.
FAMILIES = (
    "zero-shot",
    "baseline",
    "leaderboard",
    "record",
    "head-only",
    "fine-tune",
    "lever",
    "ensemble",
    "softening",
    "magnitudes",
    "relax",
    "chgnet",
    "mattersim",
    "physics",
)


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """One verdict with everything needed to disagree with it."""

    id: str  # the claim's id
    verdict: Verdict
    statement: str
    basis: str
    case: str = ""  # which variant of the check, such as the alignment; "" if there is one only
    fold: int | None = None
    control: bool = False  # a control is right when it is refuted (or a placeholder)
    fault: str = ""  # what a control planted
    quantity: str = ""
    observed: float | None = None
    ci_low: float | None = None
    ci_high: float | None = None
    ci_method: str = ""
    bound_low: float | None = None
    bound_high: float | None = None
    bound_reason: str = ""
    unit: str = ""
    n: int = 0
    n_clusters: int = 0
    resolution: float | None = None  # smallest difference this n resolves, in `unit`
    coverage: dict[str, int] = field(default_factory=dict)  # scored, of
    excluded: dict[str, int] = field(default_factory=dict)  # reason -> rows
    dataset: str = ""
    model: str = ""
    inputs: dict[str, str] = field(default_factory=dict)  # file or model -> sha256
    versions: dict[str, str] = field(default_factory=dict)  # package -> version
    details: dict[str, Any] = field(default_factory=dict)
    figures: list[str] = field(default_factory=list)  # files beside evidence.json
    seconds: float = 0.0
    reason: str = ""  # why it was not run, or a placeholder, or is known to be refuted
    test: str = ""  # pytest's node id

    def __post_init__(self) -> None:
        not_run = self.verdict == Verdict.NOT_RUN
        if not_run != (self.observed is None) or (not_run and not self.reason):
            raise ValueError(f"{self.id}: verdict, observed and reason disagree: {self}")

    @property
    def key(self) -> str:
        """What is one line of the verdict table: claim, case and fold."""
        case = f"[{self.case}]" if self.case else ""
        fold = f" fold{self.fold}" if self.fold is not None else ""
        return f"{self.id}{case}{fold}"

    @property
    def bound(self) -> float | None:
        """The one end of the bound; of a window, the end nearer to what was observed."""
        ends = [b for b in (self.bound_low, self.bound_high) if b is not None]
        return min(ends, key=lambda b: abs(b - (self.observed or 0.0))) if ends else None

    @property
    def held(self) -> bool:
        return self.verdict == Verdict.HELD

    @property
    def refuted(self) -> bool:
        return self.verdict == Verdict.REFUTED

    @property
    def placeholder(self) -> bool:
        return self.verdict == Verdict.PLACEHOLDER

    def __str__(self) -> str:
        """One line for humans: what was measured against what."""
        if self.observed is None:
            return f"{self.key}: {self.verdict} ({self.reason})"
        why = f" ({self.reason})" if self.reason else ""
        return (
            f"{self.key}: {self.verdict}{why}: {self.quantity} = {self.observed:.4g} "
            f"[{self.ci_low:.4g}, {self.ci_high:.4g}] {self.unit}, bound {self.bound_text}, "
            f"{self.coverage.get('scored', 0)} of {self.coverage.get('of', 0)} rows, "
            f"{self.model} on {self.dataset}"
        )

    @property
    def bound_text(self) -> str:
        """The bound as one reads it: `< 0.11`, `> 10`, `0.9 to 1.1`."""
        if self.bound_low is not None and self.bound_high is not None:
            return f"{self.bound_low:g} to {self.bound_high:g}"
        if self.bound_high is not None:
            return f"< {self.bound_high:g}"
        return f"> {self.bound_low:g}" if self.bound_low is not None else ""

    @classmethod
    def of(cls, claim: Claim, measurement: Measurement, **context: Any) -> Evidence:
        """Judge a measurement; ``context`` fills what only the session knows (case, versions)."""
        bound = claim.bound_on(measurement.dataset)
        interval = measurement.interval
        return cls(
            id=claim.id,
            verdict=claim.judge(measurement),
            statement=claim.statement,
            basis=claim.basis,
            quantity=measurement.quantity,
            observed=float(interval.estimate),
            ci_low=float(interval.low),
            ci_high=float(interval.high),
            ci_method=interval.method,
            bound_low=bound.low,
            bound_high=bound.high,
            bound_reason=bound.reason,
            unit=bound.unit,
            n=int(interval.n),
            n_clusters=int(interval.n_clusters),
            resolution=None if interval.resolution is None else float(interval.resolution),
            coverage={"scored": int(measurement.scored), "of": int(measurement.of)},
            excluded={reason: int(rows) for reason, rows in measurement.excluded.items()},
            dataset=measurement.dataset,
            model=measurement.model,
            inputs=dict(measurement.inputs),
            details=dict(measurement.details),
            **{"reason": measurement.placeholder, **context},
        )

    @classmethod
    def not_run(cls, claim: Claim, reason: str, **context: Any) -> Evidence:
        """The record of a claim that was not measured."""
        return cls(
            id=claim.id,
            verdict=Verdict.NOT_RUN,
            statement=claim.statement,
            basis=claim.basis,
            bound_low=claim.bound.low,
            bound_high=claim.bound.high,
            bound_reason=claim.bound.reason,
            unit=claim.bound.unit,
            reason=reason,
            **context,
        )

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON types, `bound` included."""
        return {**asdict(self), "verdict": str(self.verdict), "bound": self.bound}

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> Evidence:
        """Inverse of `as_dict`; unknown fields of a later schema are refused."""
        known = {f.name for f in fields(cls)}
        if unknown := set(record) - known - {"bound"}:
            raise DataError(
                f"evidence record {record.get('id')!r} has unknown fields {sorted(unknown)}; it "
                "was written by a later version. Read it with that one, or run the session again."
            )
        values = {name: value for name, value in record.items() if name in known}
        return cls(**{**values, "verdict": Verdict(record["verdict"])})


def in_reading_order(evidence: Iterable[Evidence]) -> list[Evidence]:
    """Family by family as in FAMILIES; within one in the order in which they were measured."""
    place = {family: i for i, family in enumerate(FAMILIES)}
    return sorted(evidence, key=lambda e: place.get(e.id.split(".")[0], len(place)))


@dataclass(frozen=True, kw_only=True)
class Session:
    """All evidence of one run, and where, when and with what it ran."""

    session: dict[str, Any]  # started, seconds, command, dataset, model, device, versions, machine
    claims: tuple[Evidence, ...]
    errors: tuple[dict[str, str], ...] = ()  # checks that broke: {"test", "message"}

    def save(self, folder: Path) -> Path:
        """Write `evidence.json`, whole or not at all."""
        record = {
            "schema": SCHEMA,
            "session": self.session,
            "claims": [evidence.as_dict() for evidence in self.claims],
            "errors": list(self.errors),
        }
        path = folder / "evidence.json"
        scratch = path.with_suffix(".json.tmp")
        text = json.dumps(record, sort_keys=True, allow_nan=False, indent=1, ensure_ascii=False)
        scratch.write_text(text + "\n", encoding="utf-8")
        scratch.replace(path)
        return path

    @classmethod
    def load(cls, folder: Path) -> Session:
        """Read what `save` wrote.

        Raises:
            DataError: no evidence there, not JSON, or of another schema.
        """
        path = folder / "evidence.json"
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise DataError(
                f"{path} does not exist: no session wrote its evidence there. Run "
                "`pytest checks/ -m fold0` first, or name another folder."
            ) from None
        except json.JSONDecodeError as error:
            raise DataError(f"{path} is not JSON ({error}). Run the session again.") from None
        schema = record.get("schema") if isinstance(record, dict) else None
        if schema != SCHEMA:
            raise DataError(f"{path} has schema {schema}, this version reads {SCHEMA}.")
        try:
            return cls(
                session=record["session"],
                claims=tuple(Evidence.from_dict(r) for r in record["claims"]),
                errors=tuple(record.get("errors", ())),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise DataError(f"{path} is not evidence ({error!r}). Run the session again.") from None
