import os
import stat
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.ambient import random_bytes
from app.crypto.sealing import Keyring, generate_line, load_or_create
from app.errors import Broken, GrantServerError, Misconfigured
from tests.crypto.conftest import counting_bytes

NONCE = bytes(range(12))
PURPOSE = "authorities.key west"


def key_file(folder: Path, *lines: str, mode: int = 0o600) -> Path:
    path = folder / "sealing.key"
    path.write_text("\n".join(lines), encoding="ascii")
    path.chmod(mode)
    return path


def keyring(folder: Path, *lines: str) -> Keyring:
    return load_or_create(key_file(folder, *lines), random_bytes)


@pytest.fixture(scope="module")
def ring(tmp_path_factory: pytest.TempPathFactory) -> Keyring:
    return load_or_create(tmp_path_factory.mktemp("keys") / "sealing.key", random_bytes)


@given(plaintext=st.binary(max_size=200), purpose=st.text(st.characters(codec="utf-8")))
def test_what_is_sealed_opens_again_for_its_purpose(
    ring: Keyring, plaintext: bytes, purpose: str
) -> None:
    sealed = ring.seal(plaintext, purpose=purpose, random=NONCE)
    assert ring.open(sealed, purpose=purpose) == plaintext
    assert len(sealed) == 1 + 4 + 12 + len(plaintext) + 16
    with pytest.raises(Broken, match="altered, or belongs elsewhere"):
        ring.open(sealed, purpose=purpose + "x")


@given(data=st.data())
def test_every_change_of_a_sealed_value_is_noticed(ring: Keyring, data: st.DataObject) -> None:
    sealed = bytearray(ring.seal(b"a private key", purpose=PURPOSE, random=NONCE))
    position = data.draw(st.integers(0, len(sealed) - 1))
    sealed[position] ^= data.draw(st.integers(1, 255))
    with pytest.raises((Broken, Misconfigured)):
        ring.open(bytes(sealed), purpose=PURPOSE)


@given(noise=st.binary(max_size=80))
def test_noise_raises_our_own_errors_only(ring: Keyring, noise: bytes) -> None:
    for sealed in (noise, b"\x01" + noise, b"\x01" + bytes.fromhex(next(iter(ring.keys))) + noise):
        with pytest.raises(GrantServerError):
            ring.open(sealed, purpose=PURPOSE)


@given(cut=st.integers(0, 45))
def test_a_value_that_was_cut_is_noticed(ring: Keyring, cut: int) -> None:
    sealed = ring.seal(b"a private key", purpose=PURPOSE, random=NONCE)
    assert len(sealed) == 46
    with pytest.raises(Broken):
        ring.open(sealed[:cut], purpose=PURPOSE)


# Made by the first version of this program. A change that makes these tests fail locks every
# operator out of what is sealed already: add a new version instead.
FIRST_LINE = "1:f051a727:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
FIRST_SEALED = bytes.fromhex(
    "01f051a727000102030405060708090a0b18886fb5133c706875d452545e7ac6b51cd8689c2b5763fa58bb0ee06aa0"
)
FIRST_DERIVED = "929612cb8f21b367ed61075b88b492fd9d47b8dc9cf4060fdaac4e3f904d9988"


def test_what_the_first_version_sealed_opens_for_ever(tmp_path: Path) -> None:
    ring = keyring(tmp_path, FIRST_LINE)
    assert ring.open(FIRST_SEALED, purpose="authorities.key west") == b"attack at dawn"
    assert ring.seal(b"attack at dawn", purpose=PURPOSE, random=NONCE) == FIRST_SEALED


def test_what_the_first_version_derived_stays_the_same(tmp_path: Path) -> None:
    (derived,) = keyring(tmp_path, FIRST_LINE).derive("codes").values()
    assert derived.hex() == FIRST_DERIVED


def test_a_version_that_is_not_known_is_named(ring: Keyring) -> None:
    sealed = ring.seal(b"x", purpose=PURPOSE, random=NONCE)
    with pytest.raises(Broken, match="has version 2"):
        ring.open(b"\x02" + sealed[1:], purpose=PURPOSE)


def test_the_nonce_is_exactly_as_long_as_it_must_be(ring: Keyring) -> None:
    with pytest.raises(Broken, match="12 random bytes"):
        ring.seal(b"x", purpose=PURPOSE, random=bytes(11))


def test_a_rotated_key_still_opens_and_the_new_one_seals(tmp_path: Path) -> None:
    old, new = generate_line(random_bytes), generate_line(random_bytes)
    before = keyring(tmp_path, old).seal(b"x", purpose=PURPOSE, random=NONCE)
    both = keyring(tmp_path, "# rotated", "", f"  {new}  ", old, "")
    after = both.seal(b"x", purpose=PURPOSE, random=NONCE)
    assert both.open(before, purpose=PURPOSE) == both.open(after, purpose=PURPOSE) == b"x"
    assert keyring(tmp_path, new).open(after, purpose=PURPOSE) == b"x"
    with pytest.raises(Misconfigured) as caught:
        keyring(tmp_path, new).open(before, purpose=PURPOSE)
    assert old.split(":")[1] in str(caught.value)
    assert str(tmp_path / "sealing.key") in str(caught.value)


def test_derived_keys_follow_the_order_of_the_file_and_differ_by_purpose(tmp_path: Path) -> None:
    lines = [generate_line(random_bytes) for _ in range(3)]
    ring = keyring(tmp_path, *lines)
    codes, other = ring.derive("codes"), ring.derive("other")
    assert list(codes) == list(other) == [line.split(":")[1] for line in lines]
    secrets = [*codes.values(), *other.values(), *ring.keys.values()]
    assert {len(secret) for secret in secrets} == {32}
    assert len(set(secrets)) == 9


def test_a_keyring_shows_no_key(tmp_path: Path) -> None:
    line = generate_line(random_bytes)
    ring = keyring(tmp_path, line)
    shown = f"{ring!r} {ring}"
    assert line.split(":")[2] not in shown
    assert repr(next(iter(ring.keys.values())))[2:-1] not in shown


def test_a_new_file_is_made_with_one_key_and_for_its_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "sealing.key"
    ring = load_or_create(path, counting_bytes())
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(ring.keys.values()) == [b"\x01" * 32]
    assert load_or_create(path, counting_bytes()).keys == ring.keys
    assert [entry.name for entry in tmp_path.iterdir()] == ["sealing.key"]


def test_many_that_start_at_once_agree_on_one_key(tmp_path: Path) -> None:
    for attempt in range(10):
        path = tmp_path / f"{attempt}.key"
        together = Barrier(8)

        def start(path: Path = path, together: Barrier = together) -> dict[str, bytes]:
            together.wait()
            return dict(load_or_create(path, random_bytes).keys)

        with ThreadPoolExecutor(8) as pool:
            rings = [future.result() for future in [pool.submit(start) for _ in range(8)]]
        assert all(ring == rings[0] for ring in rings)
    assert len(list(tmp_path.iterdir())) == 10


def test_a_file_that_appears_meanwhile_wins(tmp_path: Path) -> None:
    path = tmp_path / "sealing.key"
    theirs = generate_line(random_bytes)

    def overtaken(count: int) -> bytes:
        key_file(tmp_path, theirs)
        return random_bytes(count)

    assert list(load_or_create(path, overtaken).keys) == [theirs.split(":")[1]]
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o660, 0o644, 0o777])
def test_a_file_that_others_may_touch_is_refused_with_the_cure(tmp_path: Path, mode: int) -> None:
    path = key_file(tmp_path, generate_line(random_bytes), mode=mode)
    with pytest.raises(Misconfigured) as caught:
        load_or_create(path, random_bytes)
    assert f"chmod 600 {path}" in str(caught.value)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a file of root's")
@pytest.mark.parametrize("mode", [0o440, 0o640])
def test_a_secret_that_a_pod_is_shown_is_used_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: int
) -> None:
    path = key_file(tmp_path, generate_line(random_bytes), mode=mode)
    monkeypatch.setattr(os, "geteuid", lambda: 65532)
    assert len(load_or_create(path, random_bytes).keys) == 1


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a file of root's")
@pytest.mark.parametrize("mode", [0o444, 0o460, 0o450])
def test_a_file_of_roots_that_more_than_our_group_may_read_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: int
) -> None:
    path = key_file(tmp_path, generate_line(random_bytes), mode=mode)
    monkeypatch.setattr(os, "geteuid", lambda: 65532)
    with pytest.raises(Misconfigured):
        load_or_create(path, random_bytes)


def damaged(line: str) -> str:
    return line[:20] + ("A" if line[20] != "A" else "B") + line[21:]


@pytest.mark.parametrize(
    ("spoil", "text"),
    [
        (lambda _: [], "no sealing key in it"),
        (lambda _: ["# only a remark", ""], "no sealing key in it"),
        (lambda line: [line, line], "line 2: this sealing key occurs twice"),
        (lambda line: [line, damaged(line)], "line 2: no sealing key"),
        (lambda line: [line[:-1]], "line 1: no sealing key"),
        (lambda line: ["2" + line[1:]], "line 1: no sealing key"),
        (lambda line: [line.replace(":", " ")], "line 1: no sealing key"),
        (lambda line: [line + " # mine"], "line 1: no sealing key"),
        (lambda line: ["#" * 70_000, line], "longer than"),
    ],
)
def test_a_malformed_file_is_refused_by_line_and_without_its_content(
    tmp_path: Path, spoil: Callable[[str], list[str]], text: str
) -> None:
    line = generate_line(random_bytes)
    path = key_file(tmp_path, *spoil(line))
    with pytest.raises(Misconfigured) as caught:
        load_or_create(path, random_bytes)
    assert text in str(caught.value)
    assert str(path) in str(caught.value)
    assert line.split(":")[2][4:20] not in repr(caught.value)


def test_all_problems_of_a_file_are_told_at_once(tmp_path: Path) -> None:
    path = key_file(tmp_path, "one", generate_line(random_bytes), "two")
    with pytest.raises(Misconfigured) as caught:
        load_or_create(path, random_bytes)
    assert len(caught.value.problems) == 2


@given(content=st.binary(max_size=200))
@settings(deadline=None)
def test_no_content_raises_anything_but_misconfigured(folder: Path, content: bytes) -> None:
    path = key_file(folder)
    path.write_bytes(content)
    with pytest.raises(Misconfigured):
        load_or_create(path, random_bytes)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("noise")


def test_a_folder_that_is_missing_and_a_file_that_is_none_are_told(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match="No such file"):
        load_or_create(tmp_path / "absent" / "sealing.key", random_bytes)
    with pytest.raises(Misconfigured, match="not a regular file"):
        load_or_create(tmp_path, random_bytes)
    (tmp_path / "link").symlink_to(tmp_path / "absent")
    with pytest.raises(Misconfigured, match="No such file"):
        load_or_create(tmp_path / "link", random_bytes)
