from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from emulator.hub.identities.identity import IdentityKey
from tests.hub.fakes import (
    ANY,
    CA_SIGNED,
    CREATE,
    DEVICE,
    MODULE,
    HubStore,
    make_hub,
    put,
    self_signed,
)


def test_a_hub_knows_the_thumbprints_in_its_store_in_lower_case() -> None:
    store = HubStore()
    hub = make_hub(store)
    put(hub, DEVICE, authentication=self_signed("A" * 40))
    put(hub, MODULE, authentication=self_signed(None, "B" * 64))
    for each in (hub, make_hub(store)):
        assert sorted(each.thumbprints) == ["a" * 40, "b" * 64]
        assert ("a" * 40 in each.thumbprints, "c" * 40 in each.thumbprints) == (True, False)
        assert len(each.thumbprints) == 2


KEYS = st.sampled_from([DEVICE, MODULE, IdentityKey("e"), IdentityKey("e", "m")])
THUMBPRINTS = st.sampled_from([None, *(character * 40 for character in "abc")])
AUTHENTICATIONS = st.one_of(
    st.just({"type": "sas"}), st.just(CA_SIGNED), st.builds(self_signed, THUMBPRINTS, THUMBPRINTS)
)


@given(st.lists(st.tuples(KEYS, st.none() | AUTHENTICATIONS), max_size=12))
def test_a_hub_knows_the_thumbprints_of_its_identities_and_no_others(
    steps: list[tuple[IdentityKey, dict[str, Any] | None]],
) -> None:
    hub = make_hub()
    named: dict[IdentityKey, set[str | None]] = {}
    for key, authentication in steps:
        device = IdentityKey(key.device_id)
        if authentication is None and key in named:
            hub.identities.delete(key, ANY)
            named = {each: named[each] for each in named if hub.identities.has(each)}
        elif authentication is not None and (key == device or device in named):
            put(hub, key, ANY if key in named else CREATE, authentication=authentication)
            named[key] = set(authentication.get("x509Thumbprint", {}).values())
        assert set(hub.thumbprints) == set().union(*named.values()) - {None}
