"""`ca create`, `ca issue` and `ca verify`, as processes."""

from __future__ import annotations

import ast
import re
import shlex
import stat
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from tests.cli.test_commands import run_to_end

CODE = "106A5D242AF512B3498BD6098C4941E66C34B268DDB3288F"


def ca(folder: Path, *arguments: str) -> list[str]:
    """Run a command that succeeds; return its lines."""
    status, lines, errors = run_to_end("ca", *arguments, "--dir", folder)
    assert (status, errors) == (0, [])
    return lines


def certificates(file: Path) -> list[x509.Certificate]:
    return x509.load_pem_x509_certificates(file.read_bytes())


def common_name(certificate: x509.Certificate) -> object:
    (found,) = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return found.value


def test_a_chain_from_a_root_to_a_device(tmp_path: Path) -> None:
    folder = tmp_path / "new"
    lines = ca(folder, "create", "factory")
    assert "for tests only" in lines[0]
    assert f"  python -m emulator certificate create -n factory -p {folder}" in lines[2]
    ca(folder, "create", "line-1", "--signed-by", "factory", "--key", "rsa")
    ca(folder, "create", "cell", "--signed-by", "line-1", "--days", "30")
    lines = ca(folder, "issue", "kitchen", "--signed-by", "cell")
    own, *chain = certificates(folder / "kitchen-cert.pem")
    assert [common_name(each) for each in (own, *chain)] == ["kitchen", "cell", "line-1"]
    (root,) = certificates(folder / "factory-cert.pem")
    for signed, by in zip((own, *chain), (*chain, root), strict=True):
        signed.verify_directly_issued_by(by)
    usage = own.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usage) == [ExtendedKeyUsageOID.CLIENT_AUTH]
    assert not own.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert isinstance(chain[1].public_key(), rsa.RSAPublicKey)
    days = own.not_valid_after_utc - datetime.now(UTC)
    assert timedelta(days=364) < days <= timedelta(days=365)
    for each in (own, *chain, root):
        (organization,) = each.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)
        assert organization.value == "local-iot-hub, for tests only"
    key = load_pem_private_key((folder / "kitchen-key.pem").read_bytes(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    assert key.public_key() == own.public_key()
    text = "\n".join(lines)
    assert "device-identity create -d kitchen --am x509_ca\n" in text
    assert f'X509("{folder}/kitchen-cert.pem", "{folder}/kitchen-key.pem")' in text
    if sys.platform != "win32":
        assert {stat.S_IMODE(file.stat().st_mode) for file in folder.iterdir()} == {0o600}


def test_a_self_signed_certificate_shows_its_thumbprint(tmp_path: Path) -> None:
    lines = ca(tmp_path, "issue", "kitchen", "--self-signed", "-m", "heating")
    (own,) = certificates(tmp_path / "kitchen_heating-cert.pem")
    assert (common_name(own), own.subject) == ("kitchen/heating", own.issuer)
    thumbprint = own.fingerprint(hashes.SHA256()).hex().upper()
    text = "\n".join(lines)
    create = "module-identity create -d kitchen -m heating --am x509_thumbprint"
    assert f"{create} --ptp {thumbprint}" in text


@pytest.mark.skipif(sys.platform == "win32", reason="the shell there has other quotes")
def test_the_lines_to_copy_have_quotes(tmp_path: Path) -> None:
    folder, device_id = tmp_path / "a b", "it's;$(x)*"
    ca(folder, "create")
    lines = ca(folder, "issue", device_id, "--signed-by", "test-ca")
    create, simulate = (shlex.split(line) for line in lines if " -d " in line)
    assert device_id == create[create.index("-d") + 1] == simulate[simulate.index("-d") + 1]
    assert Path(simulate[simulate.index("--kp") + 1]).parent == folder


def test_a_certificate_that_has_expired(tmp_path: Path) -> None:
    ca(tmp_path, "issue", "kitchen", "--self-signed", "--days", "-1")
    (own,) = certificates(tmp_path / "kitchen-cert.pem")
    assert own.not_valid_before_utc < own.not_valid_after_utc < datetime.now(UTC)


def test_a_proof_has_the_code_as_its_name(tmp_path: Path) -> None:
    ca(tmp_path, "create")
    ca(tmp_path, "verify", CODE)
    (proof,) = certificates(tmp_path / "test-ca-proof.pem")
    assert common_name(proof) == CODE
    proof.verify_directly_issued_by(*certificates(tmp_path / "test-ca-cert.pem"))


def test_a_file_is_replaced_only_by_force(tmp_path: Path) -> None:
    ca(tmp_path, "create", "factory")
    before = {file: file.read_bytes() for file in tmp_path.iterdir()}
    status, lines, errors = run_to_end("ca", "create", "factory", "--dir", tmp_path)
    file = tmp_path / "factory-cert.pem"
    advice = "Use --force to replace it, or another --dir."
    assert (status, lines) == (1, [])
    assert errors == [f"emulator: {file} is there already. {advice}"]
    assert {file: file.read_bytes() for file in tmp_path.iterdir()} == before
    ca(tmp_path, "create", "factory", "--force")
    assert file.read_bytes() != before[file]
    # The chain of the certificate that was here before does not count.
    ca(tmp_path, "create", "line", "--signed-by", "factory")
    ca(tmp_path, "create", "cell", "--signed-by", "line")
    ca(tmp_path, "create", "cell", "--force")
    ca(tmp_path, "issue", "kitchen", "--signed-by", "cell")
    assert len(certificates(tmp_path / "kitchen-cert.pem")) == 1


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such names, and other quotes")
def test_what_to_do_next_can_be_copied_into_a_shell(tmp_path: Path) -> None:
    folder, device = tmp_path / 'it\'s a "folder"', "a*b?$HOME'"
    lines = ca(folder, "create", "factory")
    (line,) = (each for each in lines if "ca issue" in each)
    words = shlex.split(line)
    assert words[words.index("--dir") + 1] == str(folder)
    lines = ca(folder, "issue", device, "--signed-by", "factory")
    files = [str(folder / f"a_b__HOME_-{part}.pem") for part in ("cert", "key")]
    for line in lines:
        if "device-identity" in line or "simulate" in line:
            words = shlex.split(line)
            assert words[words.index("-d") + 1] == device
        if "simulate" in line:
            assert [words[words.index(option) + 1] for option in ("--cp", "--kp")] == files
        if "X509" in line:
            assert ast.literal_eval(line.strip().removeprefix("X509")) == tuple(files)
    assert len([each for each in lines if "X509" in each or "simulate" in each]) == 2


WRONG: dict[str, tuple[tuple[str, ...], int, str]] = {
    "an empty id": (("issue", ""), 2, r"argument DEVICE_ID: The value is empty\..*"),
    "an empty module": (
        ("issue", "a", "-m", ""),
        2,
        r"argument -m/--module-id: The value is empty\..*",
    ),
    "an empty CA": (
        ("create", "a", "--signed-by", ""),
        2,
        r"argument --signed-by: The value is empty\..*",
    ),
    "no CA": (
        ("issue", "kitchen"),
        1,
        r"No CA 'test-ca' here: .*test-ca-cert\.pem is missing\. Create it: .*create test-ca .*",
    ),
    "a name with a path": (
        ("create", "../x"),
        2,
        r"Invalid name '\.\./x': use up to 64 letters, .*",
    ),
    "no device": (("issue",), 2, r"DEVICE_ID is missing\. .*"),
    "an id that no device can have": (
        ("issue", "a b", "--self-signed"),
        2,
        r"Invalid id 'a b': .*",
    ),
    "a long id": (
        ("issue", "x" * 65, "--self-signed"),
        2,
        r"'x+' has 65 characters\. A certificate can name 64 at most\. .*",
    ),
    "two signers": (
        ("issue", "a", "--self-signed", "--signed-by", "b"),
        2,
        r"--self-signed and --signed-by contradict each other\. .*",
    ),
    "no days": (("create", "--days", "0"), 2, r"argument --days: Invalid number '0': use days, .*"),
    "another kind of key": (("create", "--key", "dsa"), 2, r"argument --key: invalid choice: .*"),
    "a code": (
        ("verify", "a b"),
        2,
        r"Invalid code 'a b': use that of generate-verification-code.*",
    ),
    "a word": (("creat",), 2, r"Unknown command 'ca creat'\. Use path, print, create, .*"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_what_is_wrong_is_one_line(kind: str, tmp_path: Path) -> None:
    arguments, wanted, said = WRONG[kind]
    folder = () if kind == "a word" else ("--dir", str(tmp_path))
    status, lines, errors = run_to_end("ca", *arguments, *folder)
    assert (status, lines, len(errors)) == (wanted, [], 1)
    assert re.fullmatch(f"emulator: {said}", errors[0]), errors
    assert list(tmp_path.iterdir()) == []


def test_damaged_files_are_one_line(tmp_path: Path) -> None:
    ca(tmp_path, "create", "factory")
    ca(tmp_path, "create", "other")
    certificate, key = tmp_path / "factory-cert.pem", tmp_path / "factory-key.pem"
    good = certificate.read_bytes()
    for content, said in (
        (b"nonsense", "Can't use the CA 'factory' in"),
        ((tmp_path / "other-cert.pem").read_bytes(), "the key is not the certificate's."),
    ):
        certificate.write_bytes(content)
        status, _, errors = run_to_end(
            "ca", "issue", "a", "--signed-by", "factory", "--dir", tmp_path
        )
        assert (status, len(errors)) == (1, 1)
        assert said in errors[0]
    certificate.write_bytes(good)
    key.write_bytes(b"")
    status, _, errors = run_to_end(
        "ca", "verify", CODE, "--signed-by", "factory", "--dir", tmp_path
    )
    assert (status, len(errors)) == (1, 1)
    ca(tmp_path, "issue", "kitchen", "--self-signed")
    options = ("--signed-by", "kitchen", "--dir", tmp_path)
    status, _, errors = run_to_end("ca", "issue", "a", *options)
    assert status == 1
    assert re.fullmatch(
        r".*kitchen-cert\.pem is not that of a CA\. Use one of: .* create\.?", *errors
    )


@pytest.mark.parametrize("command", ["ca create", "ca issue", "ca verify"])
def test_each_help_has_an_example_and_says_that_it_is_for_tests(command: str) -> None:
    status, lines, errors = run_to_end(*command.split(), "--help")
    text = "\n".join(lines)
    assert (status, errors) == (0, [])
    assert max(map(len, lines)) < 80
    assert "for tests only" in text
    assert re.search(rf"examples?:\n  python -m emulator {command}", text)
