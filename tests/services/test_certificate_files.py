import os
from pathlib import Path

import pytest

from app.crypto.chains import bare
from app.errors import Misconfigured
from app.services.certificate_files import CertificateFiles
from tests.pki import BEGIN, END, Folder, a_root

ROOT = a_root()
MIDDLE = ROOT.certify(name="their intermediate", ca=True)
SERVER = MIDDLE.certify("localhost", "127.0.0.1")
OTHER = a_root("another root")


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    made = Folder(directory=tmp_path / "tls")
    made.write(SERVER, ROOT)
    return made


def without_ca(folder: Folder) -> CertificateFiles:
    return CertificateFiles(certificate=folder.files.certificate, key=folder.files.key)


def problem(files: CertificateFiles) -> str:
    with pytest.raises(Misconfigured) as refusal:
        files.read()
    [told] = refusal.value.problems
    return told


def test_what_belongs_together_is_read_as_it_is(folder: Folder) -> None:
    pair = folder.files.read()
    assert pair.certificate_pem == SERVER.pem + MIDDLE.pem
    assert pair.key_pem == SERVER.key_pem
    assert pair.ca_pem == folder.files.read_ca() == ROOT.pem
    assert pair.fingerprint == SERVER.fingerprint
    assert (pair.not_before, pair.not_after) == (BEGIN.timestamp(), END.timestamp())


def test_tokens_carry_the_self_signed_end_of_the_chain_where_no_file_says_what(
    folder: Folder,
) -> None:
    folder.put("tls.crt", SERVER.pem + MIDDLE.pem + ROOT.pem)
    assert without_ca(folder).read().ca_pem == without_ca(folder).read_ca() == ROOT.pem


def test_a_self_signed_certificate_vouches_for_itself(folder: Folder) -> None:
    alone = a_root("localhost")
    folder.write(alone)
    assert without_ca(folder).read().ca_pem == alone.pem


def test_a_chain_without_its_end_needs_the_file_of_its_ca(folder: Folder) -> None:
    told = problem(without_ca(folder))
    assert told == (
        f"the certificate file {folder.files.certificate}: the chain ends without a self-signed "
        "certificate: name the file of its CA, GRANTSERVER_TLS_CA_FILE"
    )
    with pytest.raises(Misconfigured, match="GRANTSERVER_TLS_CA_FILE"):
        without_ca(folder).read_ca()


def test_a_bundle_may_hold_the_ca_of_yesterday_and_words(folder: Folder) -> None:
    folder.put("ca.crt", "# früher\n".encode("latin-1") + OTHER.pem + b"# now\n" + ROOT.pem)
    assert folder.files.read().ca_pem == bare(OTHER.pem + ROOT.pem)


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        pytest.param(
            "tls.key", OTHER.key_pem, "key file {}/tls.key: it is not the key of", id="another key"
        ),
        pytest.param("tls.key", b"", "key file {}/tls.key: ", id="empty key"),
        pytest.param("tls.key", SERVER.key_pem[:90], "key file {}/tls.key: ", id="half a key"),
        pytest.param("tls.crt", b"", "certificate file {}/tls.crt: ", id="empty certificate"),
        pytest.param(
            "tls.crt", SERVER.pem[:200], "certificate file {}/tls.crt: ", id="half a certificate"
        ),
        pytest.param(
            "tls.crt",
            SERVER.pem + MIDDLE.pem[:200],
            "certificate file {}/tls.crt: ",
            id="half a chain",
        ),
        pytest.param(
            "tls.crt",
            SERVER.pem,
            "certificate file {}/tls.crt: the CA that tokens carry does not vouch for it",
            id="no chain",
        ),
        pytest.param(
            "ca.crt",
            OTHER.pem,
            "certificate file {}/tls.crt: the CA that tokens carry does not vouch for it",
            id="another CA",
        ),
        pytest.param("ca.crt", b"", "CA file {}/ca.crt: ", id="empty CA"),
        pytest.param("ca.crt", ROOT.pem[:200], "CA file {}/ca.crt: ", id="half a CA"),
        pytest.param("ca.crt", ROOT.key_pem, "CA file {}/ca.crt: ", id="a key for the CA"),
        pytest.param("tls.crt", b"x" * 300_000, "certificate file {}/tls.crt has more", id="huge"),
    ],
)
def test_what_does_not_belong_together_is_refused_and_the_file_named(
    folder: Folder, name: str, content: bytes, why: str
) -> None:
    folder.put(name, content)
    told = problem(folder.files)
    assert told.startswith("the " + why.format(folder.directory))
    assert not any(
        line in told for line in SERVER.key_pem.decode().splitlines()[1:-1] if len(line) > 8
    )


@pytest.mark.parametrize("name", ["tls.crt", "tls.key", "ca.crt"])
def test_a_file_that_is_not_there_is_named(folder: Folder, name: str) -> None:
    (folder.directory / name).unlink()
    assert problem(folder.files).endswith(
        f"file {folder.directory / name}: No such file or directory"
    )
    with pytest.raises(Misconfigured, match=name):
        folder.files.contents()


def test_whoever_only_wants_the_ca_need_not_be_able_to_read_the_key(folder: Folder) -> None:
    folder.files.key.unlink()
    assert folder.files.read_ca() == ROOT.pem


def test_a_bad_ca_is_told_to_whoever_only_wants_that(folder: Folder) -> None:
    folder.put("ca.crt", b"nothing")
    with pytest.raises(Misconfigured, match=r"the CA file .*ca\.crt: "):
        folder.files.read_ca()


def test_contents_differ_as_soon_as_a_file_does(folder: Folder) -> None:
    before = folder.files.contents()
    assert folder.files.contents() == before
    status = folder.files.key.stat()
    folder.put("tls.key", SERVER.key_pem.replace(b"A", b"B", 1))
    os.utime(folder.files.key, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert folder.files.contents() != before


def test_no_key_shows(folder: Folder) -> None:
    assert "PRIVATE" not in repr(folder.files.read())
