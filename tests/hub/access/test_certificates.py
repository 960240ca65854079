import pytest
from msgspec.structs import replace

from emulator.hub.access.certificates import ClientCertificate, check_certificate
from emulator.hub.core.errors import IotHubUnauthorizedAccess
from tests.hub.fakes import certificate

OWN = certificate()
OTHER = certificate("other")
EXPIRED = replace(OWN, in_date=False)


@pytest.mark.parametrize(
    "thumbprints",
    [
        (OWN.sha1, None),
        (OWN.sha256, None),
        (None, OWN.sha1),
        (OTHER.sha256, OWN.sha256.upper()),
        (OWN.sha1.upper(), OTHER.sha256),
    ],
)
def test_a_thumbprint_is_matched_by_either_hash_in_either_place_in_any_case(
    thumbprints: tuple[str | None, str | None],
) -> None:
    assert certificate("own") == OWN
    check_certificate(OWN, thumbprints, name="d")


@pytest.mark.parametrize(
    ("shown", "thumbprints", "reason"),
    [
        (None, (OWN.sha1, None), "no certificate"),
        (None, None, "no certificate"),
        (
            OWN,
            (OTHER.sha1, None),
            "Thumbprint does not match configuration: "
            f"Thumbprint: SHA1Hash={OWN.sha1}, SHA2Hash={OWN.sha256}; "
            f"Configuration: PrimaryThumbprint={OTHER.sha1}, SecondaryThumbprint=None",
        ),
        (OWN, (None, None), "Thumbprint does not match configuration"),
        (OWN, (OTHER.sha1, OTHER.sha256), "Thumbprint does not match configuration"),
        (OWN, (OWN.sha1[:-1], OWN.sha256[:40]), "Thumbprint does not match configuration"),
        (
            certificate(common_name="d", by_authority=True),
            (OTHER.sha1, None),
            "Thumbprint does not match configuration",
        ),
        (EXPIRED, (OWN.sha1, OWN.sha256), "has expired, or is not valid yet"),
        (replace(EXPIRED, common_name="d", by_authority=True), None, "has expired"),
        (replace(EXPIRED, sha1=OTHER.sha1), (OTHER.sha1, None), "has expired"),
        (certificate(common_name="d"), None, "no registered CA that is verified"),
        (certificate(common_name="e", by_authority=True), None, "common name is 'e', not 'd'"),
        (certificate(common_name="D", by_authority=True), None, "common name"),
        (certificate(common_name="d/m", by_authority=True), None, "common name"),
        (certificate(common_name=None, by_authority=True), None, "common name"),
    ],
)
def test_the_cause_of_a_refusal_says_what_is_wrong_with_the_certificate(
    shown: ClientCertificate | None, thumbprints: tuple[str | None, str | None] | None, reason: str
) -> None:
    with pytest.raises(IotHubUnauthorizedAccess) as raised:
        check_certificate(shown, thumbprints, name="d")
    assert reason in str(raised.value.__cause__)
    assert raised.value.text == "Unauthorized"
