"""Imports point down: no layer knows one above it, and runners do not know each other."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LAYERS = (  # from the bottom; a module may import its own layer's package and those before it
    {"harness.errors"},
    {"harness.engines", "harness.files"},
    {"harness.claims"},
    {"harness.controls", "harness.evidence", "harness.statistics"},
    {"harness.data"},
    {"harness.models"},
    {"harness.execute", "harness.scores"},
    {"harness.store"},
    {"harness.runners", "harness.plots"},
    {"harness.report"},
    {"harness.__main__"},
    {"conftest", "checks"},
)
SEPARATE = {"harness.runners", "harness.plots"}  # their modules do not import one another
HEAVY = {
    "ray",
    "torch",
    "pymatgen",
    "pandas",
    "plotly",
    "sklearn",
    "scipy",
    "chgnet",
    "matminer",
    "matbench",
}


def level(module):
    for i, names in enumerate(LAYERS):
        if any(module == name or module.startswith(f"{name}.") for name in names):
            return i
    return None


def _sources():
    for path in sorted(
        [*ROOT.glob("harness/**/*.py"), *ROOT.glob("checks/*.py"), ROOT / "conftest.py"]
    ):
        yield ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"), path


SOURCES = list(_sources())


def imports(path, *, top_level_only=False):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    typing_only = {
        id(node)
        for branch in ast.walk(tree)
        if isinstance(branch, ast.If) and "TYPE_CHECKING" in ast.unparse(branch.test)
        for node in ast.walk(branch)
    }
    for node in ast.iter_child_nodes(tree) if top_level_only else ast.walk(tree):
        if id(node) in typing_only:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


@pytest.mark.parametrize(("module", "path"), SOURCES, ids=[module for module, _ in SOURCES])
def test_imports_point_down(module, path):
    here = level(module)
    assert here is not None or module == "harness", f"{module} has no layer: give it one"
    for imported in imports(path):
        there = level(imported)
        if there is None:
            continue
        assert there <= here, f"{module} imports {imported}, which is above it"
        package = ".".join(module.split(".")[:2])
        if package in SEPARATE and imported.startswith(package):
            assert module == package or imported.endswith("plots"), (
                f"{module} imports its neighbour {imported}"
            )


@pytest.mark.parametrize(("module", "path"), SOURCES, ids=[module for module, _ in SOURCES])
def test_nothing_heavy_is_imported_to_collect_checks(module, path):
    if module.startswith("harness.models.chgnet."):
        pytest.skip("imported only when CHGNet is loaded, which needs torch anyway")
    heavy = {name.split(".")[0] for name in imports(path, top_level_only=True)} & HEAVY
    assert not heavy, f"{module} imports {heavy} at its top; import it where it is used"
