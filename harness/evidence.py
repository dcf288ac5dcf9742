"""What a check leaves behind: one record a claim, case and fold, and the session around them.

Written with sorted keys and `allow_nan=False`, so two records compare by eye and by hash and a NaN
cannot hide. Add fields with defaults; never change what one means. An absent measurement is said,
with its reason. A record holds all that its verdict was made of, and is judged again when it is
read: one that contradicts its own numbers is refused.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, TypedDict

from harness.claims import (
    Bound,
    Claim,
    Interval,
    Kind,
    Meaning,
    Measurement,
    Size,
    Verdict,
    sentence,
)
from harness.errors import ConfigError, DataError
from harness.files import all_printable, read_json, write_whole

# 1 had no kinds, sizes, sentences, and did not say whether a session was whole. 2 did not hold all
# that a verdict was made of; it is read, and taken at its word.
SCHEMA = 3
_READ = (2, SCHEMA)

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
    kind: Kind
    meaning: Meaning | None = None  # of a finding: what it says of the subject that it is held
    cases: str | int = "all"  # of one sentence: how many must hold
    cannot_fail: str = ""  # why it holds for any input, where it does
    headline: dict[str, str] = field(default_factory=dict)  # case -> what a page says of it first
    size: Size = Size.QUICK  # how much was measured
    case: str = ""  # which variant of the check, such as the alignment; "" if there is one only
    fold: int | None = None
    control: bool = False  # a control is right when it is refuted (or a placeholder)
    fault: str = ""  # what a control planted
    far: str = ""  # why a control's fault is far beyond the bound, where it is
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
    effective: float | None = None  # units as many as would weigh alike; None: all alike
    resolution: float | None = None  # smallest difference this n resolves at 80 % power, in `unit`
    severity: float | None = None  # of a share of cases: the largest deviation over what is allowed
    chance: float | None = None  # of so clear a verdict if the truth were on the bound (one-sided)
    survives_holm: bool | None = None  # of findings decided here: also among all of them at once
    coverage: dict[str, int] = field(default_factory=dict)  # scored, of
    excluded: dict[str, int] = field(default_factory=dict)  # asked for, not scored: reason -> rows
    absent: dict[str, int] = field(default_factory=dict)  # never asked: reason -> rows
    dataset: str = ""
    model: str = ""
    subject: str = ""  # what documented verdicts stand under: the model's name, or what else it was
    documented: str = ""  # the verdict on record for this subject, data and size; empty: none
    documented_from: str = ""  # where that was measured, if not on these data
    inputs: dict[str, str] = field(default_factory=dict)  # file or model -> sha256
    versions: dict[str, str] = field(default_factory=dict)  # package -> version
    details: dict[str, Any] = field(default_factory=dict)
    figures: list[str] = field(default_factory=list)  # files beside evidence.json
    units: str = ""  # file beside it with what the interval was drawn from; "" if it was not so
    seconds: float = 0.0
    reason: str = ""  # why it was not run, inconclusive, a placeholder; or what is known of it
    least_coverage: float = 0.5  # share of the rows asked for below which no verdict is given
    # What made the verdict where the interval did not: why the lever counts as never applied, the
    # case that breaks a law, why no interval reaches its level
    never_applied: str = ""
    counterexample: str = ""
    unsettled: str = ""
    lacks_data: bool = False  # not run because a file of data is not on this machine
    test: str = ""  # pytest's node id

    def __post_init__(self) -> None:
        not_run = self.verdict == Verdict.NOT_RUN
        if not_run != (self.observed is None) or (not_run and not self.reason):
            raise ValueError(f"{self.id}: verdict, observed and reason disagree: {self!r}")

    @property
    def contradiction(self) -> str:
        """How the verdict and the numbers of this record disagree; empty where they do not.

        `Claim.judge`, which decided, is asked once more with what the record holds.
        """
        if self.observed is None:
            return "" if self.ci_low is self.ci_high is None else "it was not run and has numbers"
        try:
            again = self._claim().judge(self._measurement())
        except (ConfigError, ValueError, TypeError, KeyError) as error:
            return f"it cannot be judged ({type(error).__name__}: {error})"
        if again.verdict == self.verdict:
            return ""
        why = f" ({again.reason})" if again.reason else ""
        return f"it says {self.verdict}, and its numbers are {again.verdict}{why}"

    def _claim(self) -> Claim:
        return Claim(
            id=self.id,
            statement=self.statement,
            basis=self.basis,
            bound=Bound(
                unit=self.unit, reason=self.bound_reason, low=self.bound_low, high=self.bound_high
            ),
            kind=self.kind,
            meaning=self.meaning,
            cases=self.cases,
            least_coverage=self.least_coverage,
            cannot_fail=self.cannot_fail,
        )

    def _measurement(self) -> Measurement:
        interval = Interval(
            estimate=self.observed,  # type: ignore[arg-type]  # without one it was not run
            low=self.ci_low,  # type: ignore[arg-type]  # None raises, as it should
            high=self.ci_high,  # type: ignore[arg-type]
            n=self.n,
            n_clusters=self.n_clusters,
            unsettled=self.unsettled,
        )
        return Measurement(
            quantity=self.quantity,
            interval=interval,
            scored=self.coverage["scored"],
            of=self.coverage["of"],
            dataset=self.dataset,
            model=self.model,
            excluded=self.excluded,
            absent=self.absent,
            placeholder=self.never_applied,
            counterexample=self.counterexample,
        )

    @property
    def key(self) -> str:
        """What is one line of the verdict table: claim, case and fold."""
        case = f"[{self.case}]" if self.case else ""
        fold = f" fold{self.fold}" if self.fold is not None else ""
        return f"{self.id}{case}{fold}"

    @property
    def ends(self) -> tuple[float, ...]:
        """The bound's ends, ascending: one or two."""
        return tuple(b for b in (self.bound_low, self.bound_high) if b is not None)

    @property
    def bound(self) -> float | None:
        """The one end of the bound; of a window, the end nearer to what was observed."""
        observed = self.observed or 0.0
        return min(self.ends, key=lambda b: abs(b - observed)) if self.ends else None

    @property
    def margins_away(self) -> float | None:
        """How far the observed lies from the bound, in units of the bound's own scale.

        Its scale is half of a window, or its distance from zero; a bound at zero has none. Of a
        share of cases it is the largest deviation that counts, over what is allowed.
        """
        if self.severity is not None:
            return abs(self.severity - 1)
        if self.observed is None or self.bound is None:
            return None
        return abs(self.observed - self.bound) / self.margin if self.margin else None

    @property
    def margin(self) -> float:
        """Half of the bound's window, or its distance from zero; 0 where it has no scale."""
        if len(self.ends) == 2:
            return (self.ends[1] - self.ends[0]) / 2
        return abs(self.ends[0]) if self.ends else 0.0

    @property
    def resolutions_away(self) -> float | None:
        """How far the observed lies from the bound, in units of the smallest fault this n finds."""
        if self.observed is None or self.bound is None or not self.resolution:
            return None
        return abs(self.observed - self.bound) / self.resolution

    @property
    def changed(self) -> bool:
        """Whether another verdict is on record for this subject, data and size."""
        return bool(self.documented) and self.documented != self.verdict

    @property
    def held(self) -> bool:
        return self.verdict == Verdict.HELD

    @property
    def refuted(self) -> bool:
        return self.verdict == Verdict.REFUTED

    @property
    def caught(self) -> bool:
        """Of a control: whether the planted fault was noticed."""
        return self.refuted or self.placeholder

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
        judged = claim.judge(measurement)
        return cls(
            **claim_words(claim),
            verdict=judged.verdict,
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
            effective=None if interval.effective is None else float(interval.effective),
            resolution=None if interval.resolution is None else float(interval.resolution),
            severity=None if measurement.severity is None else float(measurement.severity),
            coverage={"scored": int(measurement.scored), "of": int(measurement.of)},
            excluded={reason: int(rows) for reason, rows in measurement.excluded.items()},
            absent={reason: int(rows) for reason, rows in measurement.absent.items()},
            dataset=measurement.dataset,
            model=measurement.model,
            subject=measurement.subject or measurement.model,
            inputs=dict(measurement.inputs),
            details=dict(measurement.details),
            never_applied=measurement.placeholder,
            counterexample=measurement.counterexample,
            unsettled=interval.unsettled,
            **{"reason": judged.reason, **context},
        )

    @classmethod
    def not_run(cls, claim: Claim, reason: str, **context: Any) -> Evidence:
        """The record of a claim that was not measured; its bound is that of ``dataset``."""
        bound = claim.bound_on(context.get("dataset", ""))
        return cls(
            **claim_words(claim),
            verdict=Verdict.NOT_RUN,
            bound_low=bound.low,
            bound_high=bound.high,
            bound_reason=bound.reason,
            unit=bound.unit,
            reason=reason,
            **context,
        )

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON types, `bound` included."""
        return {**asdict(self), "verdict": str(self.verdict), "bound": self.bound}

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> Evidence:
        """Inverse of `as_dict`.

        Raises:
            DataError: a field is unknown, missing, or of another type, or they disagree.
        """
        import msgspec

        name = record.get("id")
        known = {f.name for f in fields(cls)}
        if unknown := set(record) - known - {"bound"}:
            raise DataError(
                f"evidence record {name!r} has unknown fields {sorted(unknown)}; it "
                "was written by a later version. Read it with that one, or run the session again."
            )
        try:
            found = msgspec.convert(record, cls)
        except msgspec.ValidationError as error:
            raise DataError(f"evidence record {name!r}: {error}") from None
        if record.get("bound", found.bound) != found.bound:
            raise DataError(
                f"evidence record {name!r}: `bound` is {record['bound']}, and the nearer end of "
                f"its bound is {found.bound}"
            )
        return found

    def printable(self) -> Evidence:
        """The same with every text as a reader may meet it, whatever it came from."""
        return replace(self, **{f.name: all_printable(getattr(self, f.name)) for f in fields(self)})


def claim_words(claim: Claim) -> dict[str, Any]:
    """What a record says of its claim, whatever was measured."""
    return {
        "id": claim.id,
        "statement": claim.statement,
        "basis": claim.basis,
        "kind": claim.kind,
        "meaning": claim.meaning,
        "cases": claim.cases,
        "cannot_fail": claim.cannot_fail,
        "least_coverage": float(claim.least_coverage),
        "headline": dict(claim.headline),
    }


@dataclass(frozen=True, kw_only=True)
class Sentence:
    """One claim with all of its cases and folds in a session, and its one verdict."""

    id: str
    verdict: Verdict
    rule: str  # in words
    of: tuple[Evidence, ...]  # the cases, never empty
    left_out: tuple[str, ...] = ()  # keys of cases that the session did not choose

    @property
    def kind(self) -> Kind:
        return self.of[0].kind

    @property
    def meaning(self) -> Meaning | None:
        return self.of[0].meaning

    @property
    def statement(self) -> str:
        return self.of[0].statement

    def count(self) -> dict[Verdict, int]:
        """Verdict -> how many cases have it."""
        return {v: n for v in Verdict if (n := sum(e.verdict == v for e in self.of))}

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON types; the cases by their keys."""
        return {
            "id": self.id,
            "verdict": str(self.verdict),
            "kind": str(self.kind),
            "meaning": None if self.meaning is None else str(self.meaning),
            "rule": self.rule,
            "cases": {e.key: str(e.verdict) for e in self.of},
            "left_out": list(self.left_out),
        }


def sentences(evidence: Iterable[Evidence], left_out: Iterable[str] = ()) -> list[Sentence]:
    """One verdict a claim, made from its cases by the rule it states, and of all its folds.

    A case that the session left out (``left_out`` holds keys) counts as not run: a sentence about
    all cases is not held by those one happened to choose. Folds nobody asked for count for nothing.
    """
    by_id: dict[str, list[Evidence]] = {}
    for found in in_reading_order(evidence):
        if not found.control:
            by_id.setdefault(found.id, []).append(found)
    unchosen = list(left_out)
    made = []
    for claim_id, cases in by_id.items():
        folds = list(dict.fromkeys(e.fold for e in cases))
        missing = tuple(
            key
            for key in unchosen
            if key.split("[")[0].split(" fold")[0] == claim_id
            and any(key.endswith("" if fold is None else f" fold{fold}") for fold in folds)
        )
        of_folds = []
        for fold in folds:
            verdicts = [e.verdict for e in cases if e.fold == fold]
            suffix = "" if fold is None else f" fold{fold}"
            verdicts += [Verdict.NOT_RUN for key in missing if key.endswith(suffix)]
            of_folds.append(sentence(verdicts, cases[0].cases))
        rule = {"all": "every case", "any": "any case"}.get(
            str(cases[0].cases), f"at least {cases[0].cases} cases"
        )
        made.append(
            Sentence(
                id=claim_id,
                verdict=sentence(of_folds, "all"),
                rule=rule if len(folds) == 1 else f"{rule}, in each of {len(folds)} folds",
                of=tuple(cases),
                left_out=missing,
            )
        )
    return made


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
    left_out: tuple[str, ...] = ()  # keys of cases that were collected and not chosen

    @property
    def complete(self) -> bool:
        """Whether every check that was chosen has left its record."""
        return bool(self.session.get("complete", True))

    @property
    def sentences(self) -> list[Sentence]:
        """One verdict a claim."""
        return sentences(self.claims, self.left_out)

    def text(self) -> str:
        """What `evidence.json` holds."""
        record = {
            "schema": SCHEMA,
            "session": self.session,
            "sentences": [made.as_dict() for made in self.sentences],
            "claims": [evidence.as_dict() for evidence in self.claims],
            "errors": list(self.errors),
            "left_out": list(self.left_out),
        }
        text = json.dumps(record, sort_keys=True, allow_nan=False, indent=1, ensure_ascii=False)
        return text + "\n"

    def save(self, folder: Path) -> Path:
        """Write `evidence.json`, whole or not at all.

        Raises:
            OSError: it could not be written; an older one stands as it was.
        """
        path = folder / "evidence.json"
        write_whole(path, self.text())
        return path

    @classmethod
    def load(cls, folder: Path) -> Session:
        """Read what `save` wrote.

        Raises:
            DataError: no evidence there, not JSON, of another schema, or a record contradicts
                itself.
        """
        path = folder / "evidence.json"
        if not path.is_file():
            raise DataError(
                f"{path} does not exist: no session wrote its evidence there. Run "
                "`pytest checks/ -m fold0` first, or name another folder."
            )
        record = read_json(path)
        schema = record.get("schema") if isinstance(record, dict) else None
        if schema not in _READ:
            raise DataError(
                f"{path} has schema {schema}, this version reads {' and '.join(map(str, _READ))}."
            )
        try:
            found = cls.from_dict(record)
        except DataError as error:
            raise DataError(f"{path} is not evidence: {error}. Run the session again.") from None
        for evidence in found.claims if schema == SCHEMA else ():
            if why := evidence.contradiction:
                raise DataError(
                    f"{path} is not what a session wrote: {evidence.key}: {why}. Run the session "
                    "again; `python -m harness verify` says what else was changed."
                )
        return found

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> Session:
        """From the parts of `text`: session, claims, errors, left_out.

        Raises:
            DataError: a part is missing or of another type.
        """
        import msgspec

        try:
            parts = msgspec.convert(record, _Parts)
            msgspec.convert(parts.session, _Said)
        except msgspec.ValidationError as error:
            raise DataError(str(error)) from None
        return cls(
            session=parts.session,
            claims=tuple(Evidence.from_dict(one) for one in parts.claims),
            errors=tuple(parts.errors),
            left_out=tuple(parts.left_out),
        )


@dataclass
class _Parts:
    """What a file of evidence must hold."""

    session: dict[str, Any]
    claims: list[dict[str, Any]]
    errors: list[dict[str, str]] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)


class _Chances(TypedDict):
    decided: int
    by_chance: float
    findings: int
    not_surviving: list[str]


class _Said(TypedDict, total=False):
    """The types of what a session says of itself; it may say more, and need not say all of it."""

    started: str
    seconds: float
    command: str
    dataset: str
    dataset_reason: str
    training_dataset: str
    model: str
    device: str
    size: Size
    sample: int | None
    complete: bool
    incomplete_reason: str
    not_reached: list[str]
    resume: str
    multiplicity: _Chances
    machine: dict[str, str]
    versions: dict[str, str]
