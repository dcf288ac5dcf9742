"""The source of what computes a number is part of what the number is stored under.

A version that is raised by hand is forgotten once, and a warm cache then serves the numbers of code
that is gone. So the files that compute are digested, and the digests of a release stand in
engines.toml beside this file, each with the version that it had. Where a file is as it is there,
the version is the engine's whole name, and what earlier sessions stored is found. Where it is not,
the digest is added, and nothing stored is found until somebody says what changed:

    python -m harness.engines      # writes engines.toml anew; a version that was not raised says
                                   # that no number moved, and the reviewer sees both

Comments, docstrings and blank lines are no part of a digest.

Public: engine, digest_of, FILES.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import io
import re
import tokenize
import tomllib
from pathlib import Path

HERE = Path(__file__).parent
PINNED = HERE / "engines.toml"
# What computes, by engine: files, and folders with all of their files.
FILES = {
    "chgnet": (
        "models/chgnet/build.py",
        "models/chgnet/device_graph.py",
        "models/chgnet/forward.py",
        "models/chgnet/gated.py",
        "models/chgnet/graph.py",
        "models/chgnet/incidence.py",
        "models/chgnet/kernels.py",
        "models/chgnet/messages.py",
    ),
    "composition": ("models/composition.py",),
    "refit": ("models/alignment.py",),
    "relax": ("runners/relax.py",),
    "training": ("models/chgnet/trainable.py", "models/training", "runners/finetune.py"),
}


@functools.cache
def engine(name: str, version: str) -> str:
    """What numbers of an engine are stored under: its version, if its source is the one on record.

    Args:
        name: of FILES.
    """
    digest = digest_of(name)
    known = tomllib.loads(PINNED.read_text(encoding="utf-8")).get(name, {})
    as_known = (known.get("version"), known.get("sources")) == (version, digest)
    return version if as_known else f"{version}, sources {digest}"


def digest_of(name: str) -> str:
    """16 hex digits of all that an engine's files do."""
    total = hashlib.sha256()
    for given in FILES[name]:
        path = HERE / given
        for file in sorted(path.glob("*.py")) if path.is_dir() else [path]:
            total.update(f"{file.relative_to(HERE).as_posix()}\n".encode())
            total.update(_stripped(file.read_text(encoding="utf-8")).encode())
    return total.hexdigest()[:16]


def _stripped(source: str) -> str:
    """A source without comments, docstrings and blank lines, alike on every version of Python."""
    lines = source.splitlines()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            row, column = token.start
            lines[row - 1] = lines[row - 1][:column]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            first = node.body[0] if node.body else None
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
                for row in range(first.lineno, (first.end_lineno or first.lineno) + 1):
                    lines[row - 1] = ""
    return "\n".join(line.rstrip() for line in lines if line.strip())


def write(versions: dict[str, str]) -> None:
    """Put the sources as they are now on record, with these versions."""
    lines = ["# Written by `python -m harness.engines`: which source each version of an engine is."]
    for name in sorted(FILES):
        lines += [
            "",
            f"[{name}]",
            f'version = "{versions[name]}"',
            f'sources = "{digest_of(name)}"',
        ]
    PINNED.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _named() -> dict[str, str]:
    """The version of each engine, as the file says that asks for it."""
    text = "".join(path.read_text(encoding="utf-8") for path in sorted(HERE.rglob("*.py")))
    return dict(re.findall(r'^ENGINE = engine\("(\w+)", "([^"]+)"\)', text, re.MULTILINE))


if __name__ == "__main__":
    write(_named())
    print(PINNED.read_text(encoding="utf-8"))
