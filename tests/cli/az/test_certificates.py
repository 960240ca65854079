"""`certificate` on a running hub."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from tests.cli.az.conftest import Run
from tests.support import Service
from tests.x509 import Credential, issue

NAME = ("-n", "Factory")


@pytest.fixture
def root(service: Service) -> Iterator[Credential]:
    """A CA, which is not registered afterwards."""
    yield issue("Factory", ca=True)
    service.request("DELETE", "/_emulator/certificates/Factory")


def file_of(credential: Credential, folder: Path) -> str:
    return str(credential.certificate_file(folder))


def test_a_ca_from_its_registration_to_its_removal(
    az: Run, root: Credential, tmp_path: Path
) -> None:
    path = ("-p", file_of(root, tmp_path))
    made = az("certificate", "create", *NAME, *path).document
    assert (made["name"], made["properties"]["isVerified"]) == ("Factory", False)
    code = az("certificate", "generate-verification-code", *NAME).document
    code = code["properties"]["verificationCode"]
    for proof, status in ((issue("x", by=root), 1), (issue(code, by=root), 0)):
        done = az("certificate", "verify", *NAME, "-p", file_of(proof, tmp_path))
        assert done.status == status
    assert az("certificate", "show", "-n", "factory").document["properties"]["isVerified"]
    listed = az("certificate", "list", "--query", "value[].name").document
    assert listed == ["Factory"]
    table = az("certificate", "list", "-o", "table").output.splitlines()
    assert (table[0].split(), table[2].split()[0]) == (["Name", "Type", "Etag"], "Factory")
    changed = az("certificate", "update", *NAME, *path, "--verified", "false").document
    assert changed["properties"]["isVerified"] is False
    result = az("certificate", "delete", *NAME, "-e", made["etag"])
    assert (result.status, len(result.errors)) == (1, 1)
    result = az("certificate", "delete", *NAME, "-e", changed["etag"])
    assert (result.status, result.output, result.errors) == (0, "", [])


def test_der_and_no_proof(az: Run, root: Credential, tmp_path: Path) -> None:
    file = tmp_path / "factory.cer"
    file.write_bytes(root.certificate.public_bytes(Encoding.DER))
    made = az("certificate", "create", *NAME, "-p", str(file), "-v").document
    assert made["properties"]["isVerified"] is True
    again = az("certificate", "create", "-n", "FACTORY", "-p", str(file))
    assert again.status == 1
    assert again.errors == ["emulator: The certificate 'FACTORY' exists. Use certificate update."]


@pytest.mark.parametrize("word", ["show", "delete", "generate-verification-code", "update"])
def test_an_unknown_ca_is_missing(az: Run, root: Credential, tmp_path: Path, word: str) -> None:
    path = ("-p", file_of(root, tmp_path)) if word == "update" else ()
    result = az("certificate", word, *NAME, *path)
    assert (result.status, result.output) == (3, "")
    assert result.errors[0].endswith("The certificate Factory is unknown.")


def test_what_is_no_ca_is_refused(az: Run, tmp_path: Path) -> None:
    result = az("certificate", "create", *NAME, "-p", file_of(issue("kitchen"), tmp_path))
    assert (result.status, result.output, len(result.errors)) == (1, "", 1)
    assert "The certificate is not that of a CA" in result.errors[0]
    result = az("certificate", "create", *NAME, "-p", str(tmp_path / "none.pem"))
    assert (result.status, len(result.errors)) == (2, 1)
