"""Files are written whole, read strictly, and no word in them can act on who reads it."""

import os
import threading

import pytest

from harness.errors import ConfigError, DataError
from harness.files import (
    MOST_BYTES,
    all_printable,
    check_writable,
    parse_json,
    printable,
    read_json,
    sha256_of,
    write_whole,
)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain, é, Å³, 中, ≤, 😀", "plain, é, Å³, 中, ≤, 😀"),
        ("two\nlines\tand a tab", "two\nlines\tand a tab"),
        ("1\u202f000\u00a0K", "1\u202f000\u00a0K"),  # spaces of other widths
        ("\x1b[2J", "\\x1b[2J"),
        ("\x00\x07\x08\r\x7f\x9b", "\\x00\\x07\\x08\\r\\x7f\\x9b"),
        ("caf\udce9.json", "caf\\udce9.json"),
        ("\u202egnp.exe", "\\u202egnp.exe"),
        ("a\u2066b\u200fc\ufeffd\u2028e\ufffef", "a\\u2066b\\u200fc\\ufeffd\\u2028e\\ufffef"),
        ("", ""),
    ],
)
def test_words_are_shown_and_none_acts_on_a_terminal(text, shown):
    assert printable(text) == shown
    assert printable(shown) == shown
    shown.encode()


def test_every_word_of_a_value_is_shown():
    odd = {"\x1b": ("\x00", [1, 2.5, None, True]), "k": {"\r": "\udce9"}}
    assert all_printable(odd) == {"\\x1b": ["\\x00", [1, 2.5, None, True]], "k": {"\\r": "\\udce9"}}
    with pytest.raises(ValueError, match="keys that read alike"):
        all_printable({"\x1b": 1, "\\x1b": 2})


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "Expecting value"),
        ("{", "Expecting property name"),
        ('{"a": 1, "b": 2, "a": 1}', "the key 'a' stands twice"),
        ('[{"x": {"a": 1, "a": 2}}]', "the key 'a' stands twice"),
        ("[NaN]", "NaN is no number"),
        ("[-Infinity]", "-Infinity is no number"),
        ("[1e999]", "1e999 is larger than any number"),
        ("[-1e999]", "-1e999 is larger than any number"),
        ("[" * 200_000, "nested too deeply"),
        ('{"a":' * 200_000, "nested too deeply"),
        ("1" * 5000, "digits"),
        (b'"\xe9"', "utf-8"),
        (b"\xff\xfe", "utf-8"),
        ('{"\\u001b": 1, "\\\\x1b": 2}', "keys that read alike"),
        ("\x1b[2J", r"\\x1b|Expecting"),
    ],
    ids=lambda value: str(value)[:12],
)
def test_what_is_no_strict_json_is_refused_in_one_way(text, says):
    with pytest.raises(DataError, match=f"^a thing is not JSON .*{says}.*Run the session again"):
        parse_json(text, "a thing")


def test_json_is_read_as_it_is():
    text = '{"a": [1, -2.5, 1e-300, true, null, "é\\u001b"], "b": {}}'
    read = {"a": [1, -2.5, 1e-300, True, None, "é\\x1b"], "b": {}}
    assert parse_json(text, "it") == parse_json(text.encode(), "it") == read


@pytest.mark.parametrize("seed", range(40))
def test_any_bytes_are_json_or_refused(seed):
    """Valid text with bytes turned, taken out, doubled: a value or a DataError."""
    import random

    draw = random.Random(seed)  # noqa: S311
    good = b'{"a": [1.5, {"b": "c\\u202e"}], "long": "' + b"x" * 40 + b'", "t": [true, null, -1e5]}'
    for _ in range(50):
        raw = bytearray(good)
        for _ in range(draw.randint(1, 4)):
            at = draw.randrange(len(raw))
            match draw.randrange(3):
                case 0:
                    raw[at] ^= 1 << draw.randrange(8)
                case 1:
                    del raw[at : at + draw.randint(1, 9)]
                case _:
                    raw[at:at] = raw[at : at + draw.randint(1, 20)]
            raw = raw or bytearray(b"0")
        try:
            value = parse_json(bytes(raw), "it")
        except DataError:
            continue
        assert all_printable(value) == value


def test_a_file_that_is_too_large_or_absent_is_refused(tmp_path):
    with (tmp_path / "large.json").open("wb") as stream:
        stream.truncate(MOST_BYTES + 1)
    with pytest.raises(DataError, match=r"has 268,435,457 bytes, and no such file has more"):
        read_json(tmp_path / "large.json")
    with pytest.raises(DataError, match=r"absent\.json cannot be read: No such file"):
        read_json(tmp_path / "absent.json")
    with pytest.raises(DataError, match="cannot be read: Is a directory"):
        read_json(tmp_path)


def test_a_file_is_written_with_the_rights_that_others_have(tmp_path):
    write_whole(tmp_path / "a", "é\n")
    assert (tmp_path / "a").read_bytes() == "é\n".encode()
    (tmp_path / "b").touch()
    assert (tmp_path / "a").stat().st_mode == (tmp_path / "b").stat().st_mode
    write_whole(tmp_path / ("n" * 250), b"\x00")  # near the longest name there is
    assert sha256_of(tmp_path / ("n" * 250)) == (
        "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d"
    )


def test_many_writers_of_one_file_disturb_nobody(tmp_path):
    path, failed = tmp_path / "evidence.json", []
    contents = [f"{k}" * 20_000 for k in range(6)]
    write_whole(path, contents[0])

    def work(content):
        for _ in range(20):
            try:
                write_whole(path, content)
                if path.read_text() not in contents:
                    failed.append("half a file")
            except OSError as error:
                failed.append(error)

    threads = [threading.Thread(target=work, args=(content,)) for content in contents]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert [p.name for p in tmp_path.iterdir()] == ["evidence.json"]


def test_a_place_is_tried_before_work(tmp_path):
    check_writable(tmp_path / "new" / "deep", "the report", "Name another.")
    assert list((tmp_path / "new" / "deep").iterdir()) == []
    (tmp_path / "file").touch()
    for place in (tmp_path / "file", tmp_path / "file" / "x", tmp_path / "nul\0"):
        with pytest.raises(
            ConfigError, match=r"the folder of the report, cannot be .*\. Name anot"
        ):
            check_writable(place, "the report", "Name another.")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write all")
def test_a_folder_without_write_permission_is_no_place(tmp_path):
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(ConfigError, match="Permission denied"):
            check_writable(tmp_path, "the report", "Name another.")
    finally:
        tmp_path.chmod(0o700)


def test_a_folder_in_which_nothing_can_be_made_is_no_place(tmp_path, monkeypatch):
    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("harness.files.write_whole", refuse)
    with pytest.raises(ConfigError, match="Permission denied"):
        check_writable(tmp_path, "the report", "Name another.")
