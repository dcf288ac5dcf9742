"""Who is under test: what a name stands for, in which environment, and what reports call it.

A models file (TOML) gives a short name to what would be a long one:

    [my-mace]
    model = "ase:mace.calculators:MACECalculator"       # anything that --model takes
    kwargs = { model_paths = "my.model" }               # of the factory of an ase: name
    python = "../mace-env/bin/python"                   # the environment that computes it
    threads = 1                                         # workers, timeout_seconds: as in a name
    elements = "H-Pu"                                   # theory, training_set, energies,
    theory = "PBE"                                      # dispersion, properties: its card

Paths are looked for where the session starts, as on the command line.

Public: Subject, chosen, called, read_models.
"""

from __future__ import annotations

import json
import math
import re
import tomllib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from harness.errors import ConfigError
from harness.models import MODELS, ase, check_name, load_model, of_ones_own
from harness.models.protocol import Model
from harness.models.remote import interpreter

_RUN = ("threads", "workers", "timeout_seconds")
_CARD = ("elements", "theory", "training_set", "energies", "dispersion", "properties")
_KEYS = ("model", "python", "kwargs", *_RUN, *_CARD)


@dataclass(frozen=True, kw_only=True)
class Subject:
    """What a session puts under test, before anything of it is loaded; it can be pickled."""

    name: str  # what reports, documented verdicts and the history call it
    model: str  # what `load_model` takes
    python: str | None = None  # of another environment

    def check(self) -> None:
        """Refuse what cannot be; imports nothing.

        Raises:
            ConfigError: no such model or interpreter, or a model that cannot be in another one.
        """
        check_name(self.model)
        if self.python is None:
            return
        if not self.model.startswith(ase.PREFIX):
            raise ConfigError(
                f"{self.model} is computed by this environment; another --python is for an ASE "
                f"calculator of its own, {ase.PREFIX}package.module:Factory"
            )
        interpreter(self.python)

    def load(self, device: str = "auto") -> Model:
        """The model, called by this name where that is another than its own.

        Raises:
            HarnessError: as `load_model`.
        """
        self.check()
        alias = None if self.name == called(self.model) else self.name
        return load_model(self.model, device, python=self.python, alias=alias)


def called(model: str) -> str:
    """A name of `load_model` as reports have it: without what moves no number."""
    if (own := of_ones_own(model)) is not None:
        return str(own.parse(model).name)
    return ase.parse(model).name if model.startswith(ase.PREFIX) else model


def chosen(
    name: str,
    *,
    models: Path | None = None,
    python: str | None = None,
    alias: str | None = None,
) -> Subject:
    """The subject that --model names.

    Args:
        name: one that `load_model` takes, or one of the models file.
        models: a models file.
        python: the interpreter of another environment, in place of the file's.
        alias: what reports call it; by default the name.
    Raises:
        ConfigError: no such model, or something in the file makes no sense.
    """
    known = read_models(models) if models is not None else {}
    if known and name not in known:
        try:
            check_name(name)
        except ConfigError as error:
            raise ConfigError(f"{error} {models} has {', '.join(known)}.") from None
    subject = known.get(name) or Subject(name=called(name), model=name)
    if alias is not None and not re.fullmatch(r"\S(.{0,98}\S)?", alias):
        raise ConfigError(f"the name {alias!r}: give up to 100 characters on one line")
    subject = replace(subject, name=alias or subject.name, python=python or subject.python)
    subject.check()
    return subject


def read_models(path: Path) -> dict[str, Subject]:
    """The subjects of a models file, by their names.

    Raises:
        ConfigError: it cannot be read, or an entry is not as it should be; the message says where.
    """
    try:
        entries = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:  # neither TOML nor UTF-8 is a ValueError
        raise ConfigError(f"the models file {path} cannot be read: {error}") from None
    return {name: _subject(f"{path}, [{name}]", name, entry) for name, entry in entries.items()}


def _subject(where: str, name: str, entry: Any) -> Subject:
    if not isinstance(entry, dict) or not re.fullmatch(r"\w[\w.+-]*", name):
        raise ConfigError(f"{where}: write a table under a name of letters, digits, . + and -")
    if name in MODELS:
        raise ConfigError(f"{where}: {name} is a model of the harness; give yours another name")
    if unknown := [key for key in entry if key not in _KEYS]:
        raise ConfigError(f"{where}: no key {', '.join(unknown)}; there are {', '.join(_KEYS)}")
    model, python, kwargs = entry.get("model"), entry.get("python"), entry.get("kwargs", {})
    if not isinstance(model, str) or not isinstance(python, str | None):
        raise ConfigError(f'{where}: write model = "NAME" and python = "PATH", in quotes')
    if not isinstance(kwargs, dict):
        raise ConfigError(f"{where}: write the factory's arguments as kwargs = {{ key = value }}")
    if theirs := [key for key in kwargs if key in _RUN or key.startswith("card.")]:
        raise ConfigError(
            f"{where}: {theirs[0]} among kwargs would be taken for what the harness reads itself. "
            "Write it beside kwargs, or name a function of yours that sets the factory's"
        )
    card = {key: _card(where, key, entry[key]) for key in _CARD if key in entry}
    run = {key: entry[key] for key in _RUN if key in entry}
    if not model.startswith(ase.PREFIX) and (kwargs or run):
        raise ConfigError(f"{where}: kwargs, {', '.join(_RUN)} are for a model {ase.PREFIX}...")
    if not model.startswith(ase.PREFIX) and of_ones_own(model) is None and card:
        raise ConfigError(f"{where}: {model} has a card of its own; leave out {', '.join(card)}")
    query = {**kwargs, **run, **{f"card.{key}": text for key, text in card.items()}}
    for key, value in query.items():
        text = value if key.startswith("card.") else _as_text(where, key, value)
        joint = "&" if "?" in model else "?"
        model += f"{joint}{key}={text.replace('%', '%25').replace('&', '%26')}"
    subject = Subject(name=name, model=model, python=python)
    try:
        subject.check()
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from None
    return subject


def _card(where: str, key: str, value: Any) -> str:
    if isinstance(value, list) and all(isinstance(part, str) for part in value):
        return ",".join(value)
    if not isinstance(value, str) or not value.strip():
        raise ConfigError(f"{where}: {key} = {value!r}; write what it declares, in quotes")
    return value


def _as_text(where: str, key: str, value: Any) -> str:
    """As the query of a name has it."""
    if isinstance(value, str):
        return f'"{value}"'
    if isinstance(value, float) and not math.isfinite(value):
        raise ConfigError(f"{where}: {key} = {value} is not finite")
    try:
        return json.dumps(value, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{where}: {key} = {value!r} cannot be given on ({error})") from None
