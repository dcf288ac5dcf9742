"""Changes the core one small fault at a time and asks whether its tests notice.

    python -m tests.mutants                             every file, two processes
    python -m tests.mutants harness/claims.py           one of them
    python -m tests.mutants --again                     only what was not noticed last time
    python -m tests.mutants --document                  runs nothing, writes docs/mutants.md

A mutant lives in memory only: no file is touched, and the tree can be worked on meanwhile. One
process imports what others wrote; each mutant is a fork of it that imports ours, with one node of
one file's syntax tree replaced, and runs those tests of the file that reach the changed line, the
ones that noticed most first. Where all of them pass, the others of the file's tests run too.
The tests pass on the file as it is before, and again after; else nothing is said of its mutants.

Mutants that no test can notice stand in equivalent_mutants.toml with the reason, and so do those
that none is asked to (`equivalent = false`). A line there that is no mutant any more, or that a
test does notice, is an error.

Why no library: docs/mutants.md. Messages of exceptions, help texts, docstrings and annotations are
not mutated, since no verdict depends on them.
"""

from __future__ import annotations

import argparse
import ast
import copy
import gc
import hashlib
import importlib
import importlib.abc
import importlib.util
import json
import os
import resource
import select
import signal
import sys
import tempfile
import time
import tomllib
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "reports" / "mutants.json"
EQUIVALENT = ROOT / "tests" / "equivalent_mutants.toml"
DOCUMENT = ROOT / "docs" / "mutants.md"

# file -> its tests, and nobody else's: a fault in the core is to be noticed by the core's own
TARGETS: dict[str, tuple[str, ...]] = {
    "harness/claims.py": ("test_claims.py",),
    "harness/evidence.py": ("test_evidence.py",),
    "harness/statistics.py": ("test_statistics.py", "test_core_statistics.py"),
    "harness/controls.py": ("test_controls.py",),
    "harness/scores.py": ("test_scores.py", "test_core_scores.py"),
    "harness/store.py": ("test_store.py", "test_core_store.py"),
    "harness/models/alignment.py": ("test_alignment.py",),
    "harness/report/plugin.py": ("test_plugin.py", "test_core_plugin.py"),
    "harness/report/recorder.py": ("test_plugin.py", "test_core_plugin.py"),
    "harness/report/verdicts.py": ("test_verdicts.py",),
    "harness/runners/ensemble.py": ("test_ensemble_runner.py", "test_core_ensemble.py"),
    "harness/runners/softening.py": ("test_softening_runner.py", "test_core_softening.py"),
}


# --- mutants


@dataclass(frozen=True)
class Mutant:
    """One changed node of one file."""

    path: str
    line: int
    where: str  # the function or class it lies in
    before: str  # the statement, or the part of it that changed
    after: str
    tree: ast.Module
    at_import: bool  # runs when the module is imported, whatever test is chosen
    lines: range  # of the statement

    @property
    def key(self) -> str:
        """Says what changed, and stays the same while other lines move."""
        return f"{self.path}::{self.where}: {self.before} -> {self.after}"


_COMPARE: dict[type[ast.cmpop], tuple[type[ast.cmpop], ...]] = {
    ast.Lt: (ast.LtE, ast.GtE),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.LtE),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
}
_ARITHMETIC: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult,
    ast.Pow: ast.Mult,
    ast.BitOr: ast.BitAnd,
    ast.BitAnd: ast.BitOr,
}
_PAIRS = (
    ("min", "max"),
    ("any", "all"),
    ("low", "high"),
    ("lowest", "highest"),
    ("ci_low", "ci_high"),
    ("bound_low", "bound_high"),
    ("excluded", "absent"),
    ("argmin", "argmax"),
    ("removeprefix", "removesuffix"),
    ("startswith", "endswith"),
)
_SWAPPED = {a: b for pair in _PAIRS for a, b in (pair, pair[::-1])} | {"mean": "sum"}
# f(x, y) = f(y, x)
_COMMUTE = ("min", "max", "maximum", "minimum", "array_equal", "isclose", "intersect1d")
_UNWRAPPED = ("abs", "sorted", "set")  # f(x) -> x
_ENUMS = {
    "Verdict": ("HELD", "REFUTED", "INCONCLUSIVE", "PLACEHOLDER", "NOT_RUN"),
    "Kind": ("FINDING", "INTEGRITY", "TOY"),
    "Size": ("QUICK", "NIGHTLY"),
}
_WORDS = ("help", "metavar")  # keyword arguments that hold prose


def _replacements(node: ast.AST) -> Iterator[ast.AST | None]:
    """What a node is changed into, one change each; None removes a statement."""
    match node:
        case ast.Compare():
            for i, op in enumerate(node.ops):
                for other in _COMPARE[type(op)]:
                    yield _with(node, ops=[*node.ops[:i], other(), *node.ops[i + 1 :]])
        case ast.BinOp() | ast.AugAssign() if type(node.op) in _ARITHMETIC:
            yield _with(node, op=_ARITHMETIC[type(node.op)]())
        case ast.BoolOp():
            yield _with(node, op=ast.Or() if isinstance(node.op, ast.And) else ast.And())
            for i in range(len(node.values)):
                kept = [*node.values[:i], *node.values[i + 1 :]]
                yield kept[0] if len(kept) == 1 else _with(node, values=kept)
        case ast.UnaryOp(op=ast.Not() | ast.USub() | ast.Invert()):
            yield node.operand
        case ast.If() | ast.IfExp() | ast.While():
            for value in (True, False):
                if not (isinstance(node, ast.While) and value):
                    yield _with(node, test=ast.Constant(value))
        case ast.comprehension() if node.ifs:
            yield _with(node, ifs=[])
        case ast.Constant(value=bool()):
            yield _with(node, value=not node.value)
        case ast.Constant(value=int()):
            yield _with(node, value=node.value + 1)
            yield _with(node, value=node.value - 1)
        case ast.Constant(value=float()):
            for factor in (1.1, 0.9):
                yield _with(node, value=node.value * factor if node.value else factor)
        case ast.Constant(value=str()):
            yield _with(node, value=f"XX{node.value}")
        case ast.JoinedStr():
            yield _with(node, values=[ast.Constant("XX"), *node.values])
        case ast.Name() | ast.Attribute():
            yield from _other_names(node)
        case ast.Return(value=ast.expr()) if not _is_none(node.value):
            yield _with(node, value=ast.Constant(None))
        case ast.Raise() | ast.Break() | ast.Continue() | ast.Expr():
            yield None
        case ast.Assign(targets=[ast.Attribute() | ast.Subscript()]):
            yield None
        case ast.With() if all(item.optional_vars is None for item in node.items):
            yield _with(
                node,
                items=[
                    ast.withitem(
                        ast.parse("__import__('contextlib').nullcontext()", mode="eval").body
                    )
                ],
            )
        case ast.ExceptHandler(type=ast.Tuple()):
            for i in range(len(node.type.elts)):
                fewer = [*node.type.elts[:i], *node.type.elts[i + 1 :]]
                yield _with(node, type=_with(node.type, elts=fewer))
        case ast.Dict() if node.keys:
            for i in range(len(node.keys)):
                yield _with(
                    node,
                    keys=[*node.keys[:i], *node.keys[i + 1 :]],
                    values=[*node.values[:i], *node.values[i + 1 :]],
                )
        case ast.Call():
            yield from _other_calls(node)


def _other_names(node: ast.Name | ast.Attribute) -> Iterator[ast.AST]:
    if not isinstance(node.ctx, ast.Load):
        return
    if isinstance(node, ast.Name):
        if node.id in ("min", "max", "any", "all"):
            yield _with(node, id=_SWAPPED[node.id])
        return
    if isinstance(node.value, ast.Name) and node.attr in (_ENUMS.get(node.value.id) or ()):
        members = _ENUMS[node.value.id]
        yield _with(node, attr=members[(members.index(node.attr) + 1) % len(members)])
    elif node.attr in _SWAPPED:
        yield _with(node, attr=_SWAPPED[node.attr])


def _other_calls(node: ast.Call) -> Iterator[ast.AST]:
    plain = [a for a in node.args if not isinstance(a, ast.Starred)]
    called = (
        node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
    )
    if len(plain) == len(node.args) >= 2 and called not in _COMMUTE:
        yield _with(node, args=[node.args[1], node.args[0], *node.args[2:]])
    for i in (i for i, keyword in enumerate(node.keywords) if not _is_guard(node, keyword)):
        yield _with(node, keywords=[*node.keywords[:i], *node.keywords[i + 1 :]])
    if called in _UNWRAPPED and len(plain) == 1:
        yield plain[0]


def _is_none(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and node.value is None


def _with(node: ast.AST, **changes: Any) -> Any:
    changed = copy.copy(node)
    for name, value in changes.items():
        setattr(changed, name, value)
    return changed


def mutants_of(path: str, source: str) -> list[Mutant]:
    """Every mutant of a file, in the order of its lines."""
    tree = ast.parse(source)
    found: list[Mutant] = []
    for place in _places(tree):
        for replacement in _replacements(place.node):
            changed = _changed(tree, place.path, replacement)
            before, after = _text(place.shown), _text(_at(changed, place.shown_path))
            if before == after:
                continue
            before, after = _shortened(before, after)
            found.append(
                Mutant(
                    path=path,
                    line=place.shown.lineno if hasattr(place.shown, "lineno") else 0,
                    where=place.where,
                    before=before,
                    after=after,
                    tree=changed,
                    at_import=place.at_import,
                    lines=place.lines,
                )
            )
    seen: Counter[str] = Counter()
    unique = []
    for mutant in found:
        seen[mutant.key] += 1
        if seen[mutant.key] > 1:  # the same change in a line that stands twice in one function
            mutant = Mutant(**{**vars(mutant), "after": f"{mutant.after}  # {seen[mutant.key]}"})
        unique.append(mutant)
    return unique


_Path = tuple[tuple[str, int | None], ...]


@dataclass(frozen=True)
class _Place:
    node: ast.AST
    path: _Path
    shown: ast.AST  # the smallest statement (its head) or expression around it worth showing
    shown_path: _Path
    where: str
    at_import: bool
    lines: range


def _places(tree: ast.Module) -> Iterator[_Place]:
    """Every node that may be changed, with the way to it."""

    def walk(
        node: ast.AST,
        path: _Path,
        stmt: tuple[ast.AST, _Path],
        where: tuple[str, ...],
        in_function: bool,
        in_raise: bool,
    ) -> Iterator[_Place]:
        if isinstance(node, ast.stmt | ast.ExceptHandler):
            stmt = (node, path)
        if _never(node):
            return
        if isinstance(node, ast.Raise):
            in_raise = True
        if in_raise and isinstance(node, ast.JoinedStr | ast.Constant) and _is_text(node):
            return
        lines = range(getattr(stmt[0], "lineno", 1), _head_end(stmt[0]) + 1)
        if path:
            yield _Place(node, path, *stmt, ".".join(where), not in_function, lines)
        inside = where
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            inside = (*where, node.name)
        for name, child in ast.iter_fields(node):
            if name in ("annotation", "returns", "format_spec", "type_comment", "cause"):
                continue
            children = list(enumerate(child)) if isinstance(child, list) else [(None, child)]
            for index, value in children:
                if not isinstance(value, ast.AST):
                    continue
                if name == "decorator_list" and "hookimpl" not in ast.unparse(value):
                    continue
                if isinstance(node, ast.JoinedStr) and isinstance(value, ast.Constant):
                    continue
                if _is_docstring(node, name, index, value) or _is_prose(value):
                    continue
                if _is_guard(node, value):
                    continue
                body = in_function or (
                    isinstance(node, ast.FunctionDef | ast.Lambda) and name == "body"
                )
                yield from walk(value, (*path, (name, index)), stmt, inside, body, in_raise)

    yield from walk(tree, (), (tree, ()), (), False, False)


def _never(node: ast.AST) -> bool:
    """Imports, and what only a type checker reads."""
    if isinstance(node, ast.Import | ast.ImportFrom):
        return True
    return isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"


def _is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.JoinedStr) or isinstance(getattr(node, "value", None), str)


def _is_docstring(parent: ast.AST, name: str, index: int | None, value: ast.AST) -> bool:
    return (
        isinstance(parent, ast.Module | ast.ClassDef | ast.FunctionDef)
        and name == "body"
        and index == 0
        and isinstance(value, ast.Expr)
        and isinstance(value.value, ast.Constant)
    )


def _is_guard(parent: ast.AST, value: ast.AST) -> bool:
    """The `strict` of `zip`: what it guards against, the lines before exclude."""
    return (
        isinstance(parent, ast.Call)
        and ast.unparse(parent.func) == "zip"
        and getattr(value, "arg", None) == "strict"
    )


def _is_prose(value: ast.AST) -> bool:
    return (isinstance(value, ast.keyword) and value.arg in _WORDS) or (
        isinstance(value, ast.Expr)
        and isinstance(value.value, ast.Call)
        and ast.unparse(value.value.func) == "warnings.warn"
    )


def _head_end(node: ast.AST) -> int:
    """Last line of a statement without the block it may hold."""
    body = getattr(node, "body", None)
    if isinstance(body, list) and body and not isinstance(node, ast.Module):
        return max(node.lineno, body[0].lineno - 1)  # type: ignore[attr-defined]
    return int(getattr(node, "end_lineno", None) or 1)


def _at(tree: ast.AST | None, path: _Path) -> ast.AST | None:
    for name, index in path:
        child = getattr(tree, name)
        tree = child if index is None else child[index] if index < len(child) else None
    return tree


def _changed(tree: ast.Module, path: _Path, replacement: ast.AST | None) -> ast.Module:
    """The tree with the node at ``path`` replaced; all but the way to it is shared."""

    def rebuilt(node: Any, rest: _Path) -> Any:
        if not rest:
            return ast.copy_location(ast.Pass(), node) if replacement is None else replacement
        (name, index), *more = rest
        child = getattr(node, name)
        if index is None:
            return _with(node, **{name: rebuilt(child, tuple(more))})
        new = [*child[:index], rebuilt(child[index], tuple(more)), *child[index + 1 :]]
        return _with(node, **{name: new})

    return rebuilt(tree, path)


def _shortened(before: str, after: str, around: int = 30) -> tuple[str, str]:
    """Two texts with little more than what differs."""
    same = _alike(before, after)
    tail = _alike(before[same:][::-1], after[same:][::-1])
    begin, end = max(same - around, 0), max(tail - around, 0)
    return tuple(  # type: ignore[return-value]
        ("…" if begin else "") + text[begin : len(text) - end] + ("…" if end else "")
        for text in (before, after)
    )


def _alike(one: str, other: str) -> int:
    """How many characters two texts begin with in common."""
    return next(
        (i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b),
        min(len(one), len(other)),
    )


def _text(node: ast.AST | None) -> str:
    """A statement's head on one line."""
    if node is None:
        return ""
    if isinstance(node, ast.If | ast.While | ast.For | ast.With | ast.FunctionDef | ast.ClassDef):
        node = _with(node, body=[ast.Expr(ast.Constant(...))])
        if hasattr(node, "orelse"):
            node = _with(node, orelse=[])
    elif isinstance(node, ast.Try):
        node = ast.Pass()
    elif isinstance(node, ast.ExceptHandler):
        return f"except {ast.unparse(node.type)}" if node.type else "except"
    return " ".join(ast.unparse(ast.fix_missing_locations(copy.deepcopy(node))).split())


# --- running tests on them


class _Watch:
    """Which lines of a file each test reaches, how long each takes, and which one failed."""

    def __init__(self, file: str | None) -> None:
        self.file = file
        self.reached: dict[str, set[int]] = {}
        self.seconds: Counter[str] = Counter()
        self.failed = ""
        self._now: set[int] = set()

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self._now = self.reached.setdefault(nodeid, set())
        if self.file is not None:
            sys.settrace(self._trace)

    def pytest_runtest_logfinish(self) -> None:
        sys.settrace(None)

    def pytest_runtest_logreport(self, report: Any) -> None:
        self.seconds[report.nodeid] += report.duration
        if report.failed and not self.failed:
            self.failed = report.nodeid

    def _trace(self, frame: Any, event: str, arg: object) -> Any:
        return self._line if frame.f_code.co_filename == self.file else None

    def _line(self, frame: Any, event: str, arg: object) -> Any:
        self._now.add(frame.f_lineno)
        return self._line


class _Seeded:
    """hypothesis draws the same for every mutant, and remembers none."""

    def pytest_configure(self) -> None:
        from hypothesis import settings

        settings.register_profile("mutants", derandomize=True, database=None, deadline=None)
        settings.load_profile("mutants")


# These are tested by sessions inside a session, which is to be as it always is. The tests of the
# others need no conftest, and no words about what failed.
_AS_ALWAYS = ("harness/report/plugin.py", "harness/report/recorder.py")


def _pytest(path: str, tests: Iterable[str], *plugins: object) -> int:
    """Run tests of a file in this process."""
    import pytest

    off = ["cacheprovider", "unraisableexception", "threadexception", "faulthandler"]
    options = ["-x", "-q", "--rootdir", str(ROOT)]
    options += [] if path in _AS_ALWAYS else ["--assert=plain", "--noconftest"]
    options += [word for name in off for word in ("-p", f"no:{name}")]
    return int(pytest.main([*options, *tests], plugins=[_Seeded(), *plugins]))


def _forked(work: Callable[[], object], seconds: float, log: Path | None = None) -> Any:
    """What ``work`` returns in a process of its own; None where it died or took too long."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.close(read)
            os.setsid()
            out = os.open(log or os.devnull, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
            os.dup2(out, 1)
            os.dup2(out, 2)
            resource.setrlimit(resource.RLIMIT_CPU, (int(seconds) + 1, int(seconds) + 2))
            answer = json.dumps(work()).encode()
            with os.fdopen(write, "wb") as pipe:
                pipe.write(answer)
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(status)
    os.close(write)
    end = time.monotonic() + 20 + 2 * seconds  # of waiting: others may have the processor
    chunks = []
    with os.fdopen(read, "rb", buffering=0) as pipe:
        while (left := end - time.monotonic()) > 0 and select.select([pipe], [], [], left)[0]:
            if not (chunk := pipe.read(1 << 16)):
                break
            chunks.append(chunk)
        else:
            os.killpg(child, signal.SIGKILL)
            chunks = []
    _, status = os.waitpid(child, 0)
    return json.loads(b"".join(chunks)) if status == 0 and chunks else None


def _codes(tree: ast.Module, file: str) -> dict[tuple[str, int], CodeType]:
    """Name and first line -> code, of every function in a module."""
    found: dict[tuple[str, int], CodeType] = {}

    def walk(code: CodeType) -> None:
        for constant in code.co_consts:
            if isinstance(constant, CodeType):
                found[constant.co_qualname, constant.co_firstlineno] = constant
                walk(constant)

    walk(compile(ast.fix_missing_locations(tree), file, "exec"))
    return found


class Suite:
    """The tests of one file, run on its mutants inside one session of pytest.

    A change inside a function is made to the function that is already there: its code is replaced,
    in a fork of a process that has collected the tests. A change that runs when the module is
    imported takes a process that imports it anew.
    """

    def __init__(self, path: str, log: Path | None = None) -> None:
        self.path, self.file, self.log = path, str(ROOT / path), log
        self.tests = [f"tests/{name}" for name in TARGETS[path] if (ROOT / "tests" / name).exists()]
        self.kills: Counter[str] = Counter()
        self.reached: dict[str, set[int]] = {}
        self.seconds: dict[str, float] = {}
        self.items: dict[str, Any] = {}
        self.functions: list[FunctionType] = []

    def judge_all(self, mutants: Sequence[Mutant], tell: Callable[[Outcome], None]) -> None:
        """Run the tests on every mutant, and tell what came of each."""
        inside = [m for m in mutants if not m.at_import]
        outside = [m for m in mutants if m.at_import]

        def in_session() -> dict[str, Any]:
            """In a fork, so that this process does not have our modules."""
            answer: dict[str, Any] = {"outcomes": []}
            plugin = _Loop(self, inside, answer)
            status = _pytest(self.path, self.tests, plugin)
            return {"status": status, **answer}

        log = self.log or Path(tempfile.gettempdir()) / f"mutants.{os.getpid()}.log"
        found = _forked(in_session, 36_000, log)
        if found is None or "modules" not in found:
            raise self._fails_as_it_is(log.read_text()[-3000:])
        for outcome in found["outcomes"]:
            tell(Outcome(**outcome))
        self.reached = {test: set(lines) for test, lines in found["reached"].items()}
        self.seconds = found["seconds"]
        self.kills.update(found["kills"])
        _import(found["modules"])
        gc.freeze()
        if outside:
            self._require_passing()
        for mutant in outside:
            outcome = self.judge(mutant, self._anew)
            if outcome.by == _NO_TEST:  # is it the mutant that cannot be imported?
                self._require_passing()
            tell(outcome)
        if outside:
            self._require_passing()

    def _require_passing(self) -> None:
        """Refuse to judge where the file as it is does not pass, such as in the midst of an edit.

        Raises:
            SystemExit: it does not.
        """
        if (outcome := self.judge(_original(self.path), self._anew)).noticed:
            raise self._fails_as_it_is(outcome.by)

    def _fails_as_it_is(self, why: str) -> SystemExit:
        return SystemExit(f"{self.path}: its tests fail as it is:\n{why}")

    def judge(self, mutant: Mutant, run: Callable[[Mutant, list[str], _Watch], int]) -> Outcome:
        """Run the tests on one mutant in a process of its own."""
        started = time.monotonic()
        tests = self.tests_for(mutant)

        def work() -> list[Any]:
            gc.disable()
            watch = _Watch(None)
            try:
                return [run(mutant, tests, watch), watch.failed or _NO_TEST]
            except BaseException as error:  # whatever a broken core raises
                return [-1, repr(error)]

        limit = 5 + 5 * sum(self.seconds.get(test, 0.0) for test in tests)
        found = _forked(work, limit, self.log)
        status, by = found or (-1, "time or a crash")
        self.kills[by] += status != 0
        seconds = round(time.monotonic() - started, 3)
        return Outcome(mutant.key, mutant.line, status != 0, by if status else "", seconds)

    def tests_for(self, mutant: Mutant) -> list[str]:
        """All of them, those first that reach it and have noticed most for their time."""
        lines = set(mutant.lines)

        def place(test: str) -> tuple[bool, float]:
            reaches = mutant.at_import or not lines.isdisjoint(self.reached[test])
            return not reaches, (self.seconds.get(test, 0) + 0.02) / (self.kills[test] + 0.5)

        return sorted(self.reached, key=place)

    def replaced(self, mutant: Mutant, tests: list[str], watch: _Watch) -> int:
        """Run tests that are collected, on functions whose code is replaced."""
        codes = _codes(mutant.tree, self.file)
        for function in self.functions:
            was = function.__code__
            function.__code__ = codes[was.co_qualname, was.co_firstlineno]
        config = next(iter(self.items.values())).config
        config.pluginmanager.register(watch)
        for test, following in zip(tests, [*tests[1:], None], strict=True):
            item = self.items[test]
            after = None if following is None else self.items[following]
            item.config.hook.pytest_runtest_protocol(item=item, nextitem=after)
            if watch.failed:
                return 1
        return 0

    def _anew(self, mutant: Mutant, tests: list[str], watch: _Watch) -> int:
        """Run tests in a new session, which imports the changed module."""
        return _pytest(self.path, tests, watch, _Loaded(self.path, mutant.tree))


def _import(modules: Iterable[str]) -> None:
    """What others wrote and the tests came to need."""
    for name in modules:
        with suppress(Exception):  # imported later, or not at all
            importlib.import_module(name)


class _Loop:
    """Runs mutants in place of the tests that pytest collected."""

    def __init__(self, suite: Suite, mutants: Sequence[Mutant], answer: dict[str, Any]) -> None:
        self.suite, self.mutants, self.answer = suite, mutants, answer

    def pytest_runtestloop(self, session: Any) -> bool:
        suite = self.suite
        suite.items = {item.nodeid: item for item in session.items}
        suite.functions = [
            found
            for found in gc.get_objects()
            if type(found) is FunctionType and found.__code__.co_filename == suite.file
        ]

        def as_it_is(file: str | None = suite.file) -> dict[str, Any]:
            watch = _Watch(file)
            suite.replaced(_original(suite.path), list(suite.items), watch)
            return {
                "failed": watch.failed,
                "reached": {test: sorted(lines) for test, lines in watch.reached.items()},
                "seconds": dict(watch.seconds),
                "modules": [name for name in sys.modules if name.split(".")[0] not in OURS],
            }

        measured = _forked(as_it_is, 1800, suite.log)
        if measured is None or measured["failed"]:
            print(f"fails without any change: {measured and measured['failed']}")
            return True
        suite.reached = {test: set(lines) for test, lines in measured["reached"].items()}
        suite.seconds = measured["seconds"]
        _import(measured["modules"])  # once, and not in every fork
        gc.collect()
        gc.freeze()
        for mutant in self.mutants:
            outcome = suite.judge(mutant, suite.replaced)
            self.answer["outcomes"].append(vars(outcome))
        after = _forked(lambda: as_it_is(None)["failed"], 1800, suite.log)
        if after != "":
            print(f"fails without any change after its mutants: {after}")
            return True
        self.answer |= measured | {"kills": dict(suite.kills)}
        return True


class _Loaded(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Imports one module of ours from a syntax tree."""

    def __init__(self, path: str, tree: ast.Module) -> None:
        self.name = path.removesuffix(".py").replace("/", ".")
        self.file = str(ROOT / path)
        self.code = compile(ast.fix_missing_locations(tree), self.file, "exec")

    def pytest_load_initial_conftests(self) -> None:
        sys.meta_path.insert(0, self)  # before what pytest put there, which would read the file

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        if name != self.name:
            return None
        spec = importlib.util.spec_from_loader(name, self, origin=self.file)
        assert spec is not None
        spec.has_location = True
        return spec

    def exec_module(self, module: Any) -> None:
        exec(self.code, module.__dict__)  # noqa: S102 - the project's own code, changed


_NO_TEST = "an import"  # or whatever else ends a session before any test

# What each session imports for itself: our own modules, and what pytest imports in its own way
OURS = ("harness", "tests", "conftest", "checks", "__main__")
OURS += ("pytest", "_pytest", "hypothesis", "_hypothesis_pytestplugin", "_hypothesis_globals")
OURS += ("xdist", "pytest_benchmark")


def _original(path: str) -> Mutant:
    """A file as it is, in the place of a mutant."""
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    return Mutant(path, 0, "", "", "", tree, False, range(0))


@dataclass
class Outcome:
    """Whether a mutant was noticed, and by which test."""

    key: str
    line: int
    noticed: bool
    by: str
    seconds: float


# --- all of them


@dataclass(frozen=True)
class Reason:
    """Why no test notices some mutants of a file."""

    text: str
    keys: tuple[str, ...]
    equivalent: bool  # none can; else none is asked to


def reasons(path: str) -> list[Reason]:
    """What equivalent_mutants.toml says of a file."""
    listed = tomllib.loads(EQUIVALENT.read_text(encoding="utf-8")).get(path, [])
    return [
        Reason(
            group["reason"],
            tuple(f"{path}::{change}" for change in group["changes"]),
            group.get("equivalent", True),
        )
        for group in listed
    ]


def _part(path: str, chosen: list[Mutant], log: Path | None = None) -> dict[str, Any]:
    """Judge mutants of a file in this process and its forks."""
    found: dict[str, Any] = {}

    def tell(outcome: Outcome) -> None:
        found[outcome.key] = vars(outcome)

    Suite(path, log).judge_all(chosen, tell)
    return found


def run_file(path: str, chosen: list[Mutant], jobs: int) -> dict[str, Any]:
    """Judge mutants of a file, in so many processes."""
    folder = Path(tempfile.mkdtemp())
    children = []
    for part in range(jobs):
        child = os.fork()
        if child == 0:
            status = 1
            try:
                found = _part(path, chosen[part::jobs])
                (folder / f"{part}.json").write_text(json.dumps(found), encoding="utf-8")
                status = 0
            except BaseException as error:  # told, and seen by the parent
                print(error, file=sys.stderr, flush=True)
            finally:
                os._exit(status)
        children.append(child)
    if any(os.waitpid(child, 0)[1] for child in children):
        raise SystemExit(f"{path}: a process failed")
    found = {}
    for part in range(jobs):
        found |= json.loads((folder / f"{part}.json").read_text(encoding="utf-8"))
    return found


@dataclass(frozen=True)
class Counts:
    """Of the mutants of a file, or of all files."""

    mutants: int
    equivalent: int
    noticed: int
    seconds: float  # of the last time that all of them ran

    @property
    def share(self) -> float:
        """Of those that are not equivalent, how many were noticed."""
        return self.noticed / max(self.mutants - self.equivalent, 1)

    def row(self, name: str) -> str:
        cells = [f"{self.mutants:,}", f"{self.equivalent:,}", f"{self.noticed:,}"]
        cells += [f"{self.share:.1%}".replace("%", " %"), f"{self.seconds:,.0f}"]
        return f"| {name} | {' | '.join(cells)} |"


def counts_of(found: dict[str, Any], path: str) -> Counts:
    """Counts from the results of one file."""
    same = {key for reason in reasons(path) if reason.equivalent for key in reason.keys}
    outcomes = found.get("mutants", {})
    noticed = {key for key, outcome in outcomes.items() if outcome["noticed"]}
    seconds = found.get("seconds", 0.0)
    return Counts(len(outcomes), len(same & outcomes.keys() - noticed), len(noticed), seconds)


def table(results: dict[str, Any]) -> tuple[list[str], float]:
    """Lines of a table, and the smallest share of a file."""
    every = {path: counts_of(found, path) for path, found in results.items()}
    total = Counts(
        *(
            sum(getattr(counts, name) for counts in every.values())
            for name in ("mutants", "equivalent", "noticed", "seconds")
        )
    )
    lines = [
        "| file | mutants | equivalent | noticed | share of the others | seconds |",
        "|---|--:|--:|--:|--:|--:|",
        *(counts.row(f"`{path}`") for path, counts in every.items()),
        total.row("all"),
    ]
    return lines, min((counts.share for counts in every.values()), default=1.0)


_WRITTEN = "<!-- below: python -m tests.mutants --document -->"


def document(results: dict[str, Any]) -> str:
    """docs/mutants.md: its words, then the table and the reasons."""
    words = DOCUMENT.read_text(encoding="utf-8").partition(_WRITTEN)[0]
    lines = [f"{words}{_WRITTEN}", "", *table(results)[0]]
    for title, equivalent in (("Equivalent", True), ("Not noticed", False)):
        lines += ["", f"## {title}"]
        for path, found in results.items():
            listed = [reason for reason in reasons(path) if reason.equivalent == equivalent]
            keys = {key for reason in listed for key in reason.keys}
            unsaid = [
                key
                for key, outcome in found["mutants"].items()
                if not (equivalent or outcome["noticed"] or key in keys | _equivalent(path))
            ]
            if listed or unsaid:
                lines += ["", f"`{path}`", ""]
            for text, those in [
                *((reason.text, reason.keys) for reason in listed),
                *((("no test yet", tuple(unsaid)),) if unsaid else ()),
            ]:
                lines += [f"- {text}", *(f"    - `` {_change(key)} ``" for key in those)]
    return "\n".join(lines) + "\n"


def _equivalent(path: str) -> set[str]:
    return {key for reason in reasons(path) if reason.equivalent for key in reason.keys}


def _change(key: str) -> str:
    """A mutant without its file."""
    return key.split("::", 1)[1]


def wrongly_listed(path: str, keys: Iterable[str], found: dict[str, Any]) -> list[str]:
    """What equivalent_mutants.toml says of a file and is not so."""
    listed = [key for reason in reasons(path) for key in reason.keys]
    return [
        *(f"no mutant any more: {key}" for key in listed if key not in keys),
        *(f"noticed, though listed: {k}" for k in listed if found.get(k, {}).get("noticed")),
        *(f"listed twice: {key}" for key, n in Counter(listed).items() if n > 1),
    ]


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.mutants",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("files", nargs="*", metavar="FILE", help="of the core; default: all")
    parser.add_argument("--again", action="store_true", help="only those not noticed last time")
    parser.add_argument("--match", default="", help="only those whose description holds this text")
    parser.add_argument("--list", action="store_true", help="only list them")
    parser.add_argument("--show", action="store_true", help="run one and show what its tests say")
    parser.add_argument("--jobs", type=int, default=2, help="processes (default: %(default)s)")
    parser.add_argument("--least", type=float, default=0.95, help="score below which this fails")
    parser.add_argument("--document", action="store_true", help="write docs/mutants.md")
    given = parser.parse_args(argv)
    os.chdir(ROOT)
    if given.document:
        DOCUMENT.write_text(document(_results()), encoding="utf-8")
        return 0
    files = given.files or list(TARGETS)
    wrong: list[str] = []
    for path in files:
        before = _results().get(path, {})
        outcomes = before.get("mutants", {})
        listed = {key for reason in reasons(path) for key in reason.keys}
        source = (ROOT / path).read_text(encoding="utf-8")
        every = mutants_of(path, source)
        chosen = [
            m
            for m in every
            if given.match in m.key
            and not (given.again and (outcomes.get(m.key, {}).get("noticed") or m.key in listed))
        ]
        if given.list:
            print(*(f"{m.path}:{m.line} {_change(m.key)}" for m in chosen), sep="\n")
            continue
        if given.show:
            log = Path(tempfile.gettempdir()) / "mutant.log"
            print(_part(path, chosen[:1], log), log.read_text(encoding="utf-8"))
            return 0
        started = time.monotonic()
        found = run_file(path, chosen, given.jobs) if chosen else {}
        seconds = round(time.monotonic() - started, 1)
        keys = {m.key for m in every}
        result = {
            "sha256": hashlib.sha256(source.encode()).hexdigest(),
            "seconds": seconds if len(chosen) == len(every) else before.get("seconds", 0.0),
            "mutants": {k: v for k, v in {**outcomes, **found}.items() if k in keys},
        }
        _write(path, result)
        for key, outcome in found.items():
            if not outcome["noticed"] and key not in listed:
                change = json.dumps(_change(key), ensure_ascii=False)
                print(f"NOT NOTICED, line {outcome['line']}: {change}")
        wrong += wrongly_listed(path, keys, found)
        print(counts_of(result, path).row(path), f"{len(chosen)} in {seconds} s", flush=True)
    if given.list:
        return 0
    lines, least = table({path: found for path, found in _results().items() if path in files})
    print(*wrong, *lines, sep="\n")
    return 1 if wrong or least < given.least else 0


def _results() -> dict[str, Any]:
    """Of every file measured so far, in the order of the files."""
    found = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
    return {path: found[path] for path in TARGETS if path in found}


def _write(path: str, result: dict[str, Any]) -> None:
    """The results of one file among those of the others."""
    RESULTS.parent.mkdir(exist_ok=True)
    scratch = RESULTS.with_suffix(f".{os.getpid()}")
    scratch.write_text(json.dumps({**_results(), path: result}, indent=1), encoding="utf-8")
    scratch.replace(RESULTS)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
