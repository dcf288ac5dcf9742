"""What numbers are stored under: the sources that compute them, on record with their versions."""

import tomllib

import pytest

from harness import engines
from harness.engines import FILES, PINNED, digest_of, engine
from harness.models import alignment, composition
from harness.runners import finetune, relax

VERSIONS = {
    "composition": composition.ENGINE,
    "refit": alignment.ENGINE,
    "relax": relax.ENGINE,
    "training": finetune.ENGINE,
}


@pytest.fixture
def tree(tmp_path, monkeypatch):
    """A copy of the sources that may be edited, with the digests on record."""
    for files in FILES.values():
        for given in files:
            path = engines.HERE / given
            for file in path.glob("*.py") if path.is_dir() else [path]:
                there = tmp_path / file.relative_to(engines.HERE)
                there.parent.mkdir(parents=True, exist_ok=True)
                there.write_text(file.read_text(encoding="utf-8"), encoding="utf-8")
    monkeypatch.setattr(engines, "HERE", tmp_path)
    engine.cache_clear()
    yield tmp_path
    engine.cache_clear()


@pytest.mark.parametrize("name", FILES)
def test_the_sources_on_record_are_those_at_hand(name):
    known = tomllib.loads(PINNED.read_text(encoding="utf-8"))[name]
    assert known["sources"] == digest_of(name), (
        f"the source of {name} changed. If a number moved, raise its ENGINE; then write what it is "
        "now with: python -m harness.engines"
    )
    assert VERSIONS.get(name, known["version"]) == known["version"]


def test_an_edited_source_is_stored_under_another_name(tree):
    path = tree / "models" / "composition.py"
    known = tomllib.loads(PINNED.read_text(encoding="utf-8"))["composition"]["version"]
    assert engine("composition", known) == known
    assert engine("composition", "later") == f"later, sources {digest_of('composition')}"
    engine.cache_clear()
    before = path.read_text(encoding="utf-8")
    path.write_text(before.replace("beta2=0.999", "beta2=0.99"), encoding="utf-8")
    assert before != path.read_text(encoding="utf-8")
    assert engine("composition", known) == f"{known}, sources {digest_of('composition')}"
    assert engine("refit", alignment.ENGINE) == alignment.ENGINE


def test_words_about_a_source_are_no_part_of_it(tree):
    path = tree / "models" / "alignment.py"
    before, text = digest_of("refit"), path.read_text(encoding="utf-8")
    said = text.replace('"""From total', '"""Once more: from total\n\n').replace(
        "QUANTILE = 0.5  # ", "\n# why\nQUANTILE = 0.5  # as said, "
    )
    path.write_text(said, encoding="utf-8")
    assert said != text
    assert digest_of("refit") == before
    path.write_text(text.replace("QUANTILE = 0.5", "QUANTILE = 0.25"), encoding="utf-8")
    assert digest_of("refit") != before


def test_a_new_file_of_a_folder_counts(tree):
    before = digest_of("training")
    (tree / "models" / "training" / "another.py").write_text("X = 1\n", encoding="utf-8")
    assert digest_of("training") != before


def test_what_is_written_is_what_is_at_hand(tree, monkeypatch):
    monkeypatch.setattr(engines, "PINNED", tree / "engines.toml")
    engines.write(dict.fromkeys(FILES, "7"))
    for name in FILES:
        assert engine(name, "7") == "7"
