"""Device scopes as values: what a new device gets, what an update makes of them."""

import string
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emulator.hub.core.errors import ArgumentInvalid, HubError, InvalidDeviceScope
from emulator.hub.identities import scopes
from emulator.hub.identities.scopes import NO_SCOPES, Scopes

PARENT = "ms-azure-iot-edge://parent-638316034265745064"
OWN = "ms-azure-iot-edge://d-637121074930370650"
OTHER = "ms-azure-iot-edge://other-1"


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({}, NO_SCOPES),
        ({"deviceScope": None, "parentScopes": None}, NO_SCOPES),
        ({"deviceScope": "", "parentScopes": []}, NO_SCOPES),
        ({"parentScopes": [""]}, NO_SCOPES),
        ({"deviceScope": PARENT}, Scopes(PARENT, ())),
        ({"deviceScope": OWN, "parentScopes": [PARENT]}, Scopes(OWN, (PARENT,))),
    ],
)
def test_the_scopes_of_a_request_are_parsed(body: dict[str, Any], expected: Scopes) -> None:
    assert scopes.asked(body) == expected


@pytest.mark.parametrize(
    "body",
    [
        *({"deviceScope": scope} for scope in (1, [PARENT])),
        *({"parentScopes": scopes} for scopes in (PARENT, {}, [1], [None], [PARENT, OTHER])),
    ],
)
def test_an_invalid_scope_is_refused(body: dict[str, Any]) -> None:
    with pytest.raises(ArgumentInvalid):
        scopes.asked(body)


@pytest.mark.parametrize(
    ("iot_edge", "wish", "expected"),
    [
        (False, NO_SCOPES, NO_SCOPES),
        (False, Scopes(PARENT), Scopes(PARENT, (PARENT,))),
        (False, Scopes(PARENT, (OTHER,)), Scopes(PARENT, (PARENT,))),
        (False, Scopes(None, (PARENT,)), NO_SCOPES),
        (True, NO_SCOPES, Scopes(OWN)),
        (True, Scopes("of my own"), Scopes(OWN)),
        (True, Scopes(None, (PARENT,)), Scopes(OWN, (PARENT,))),
    ],
)
def test_a_new_device_has_scopes(iot_edge: bool, wish: Scopes, expected: Scopes) -> None:
    made = scopes.of_new_device("d", "637121074930370650", wish, iot_edge=iot_edge)
    assert made == expected


LEAF, EDGE = False, True
CHILD, CHILD_OF_OTHER = Scopes(PARENT, (PARENT,)), Scopes(OTHER, (OTHER,))
TOGGLED = "ms-azure-iot-edge://d-"


@pytest.mark.parametrize(
    ("was_edge", "before", "iot_edge", "wish", "expected"),
    [
        # A leaf gets, changes and loses its parent.
        (LEAF, NO_SCOPES, LEAF, Scopes(PARENT), CHILD),
        (LEAF, CHILD_OF_OTHER, LEAF, Scopes(PARENT, (OTHER,)), CHILD),
        (LEAF, CHILD, LEAF, NO_SCOPES, NO_SCOPES),
        # As the Azure CLI detaches it.
        (LEAF, CHILD, LEAF, Scopes(None, (PARENT,)), NO_SCOPES),
        # So does an IoT Edge device, which keeps its own scope.
        (EDGE, Scopes(OWN), EDGE, Scopes(OWN, (PARENT,)), Scopes(OWN, (PARENT,))),
        (EDGE, Scopes(OWN, (PARENT,)), EDGE, Scopes(OWN), Scopes(OWN)),
        # Toggled on: its scope has no generation; toggled off: its parent goes, too.
        (LEAF, NO_SCOPES, EDGE, NO_SCOPES, Scopes(TOGGLED)),
        (LEAF, CHILD, EDGE, Scopes(None, (PARENT,)), Scopes(TOGGLED, (PARENT,))),
        (EDGE, Scopes(OWN, (PARENT,)), LEAF, Scopes(OWN, (PARENT,)), NO_SCOPES),
        (EDGE, Scopes(OWN), LEAF, Scopes(PARENT), NO_SCOPES),
    ],
)
def test_an_update_gives_a_device_its_scopes(
    was_edge: bool, before: Scopes, iot_edge: bool, wish: Scopes, expected: Scopes
) -> None:
    made = scopes.of_updated_device("d", before, wish, was_edge=was_edge, iot_edge=iot_edge)
    assert made == expected


@pytest.mark.parametrize("wish", [NO_SCOPES, Scopes(PARENT), Scopes(None, (PARENT,))])
def test_an_edge_device_repeats_its_own_scope(wish: Scopes) -> None:
    with pytest.raises(ArgumentInvalid) as refusal:
        scopes.of_updated_device("d", Scopes(OWN), wish, was_edge=True, iot_edge=True)
    assert refusal.value.text == "Device scope is immutable"


@pytest.mark.parametrize("wish", [Scopes(PARENT), Scopes("x", (PARENT,))])
def test_a_leaf_that_becomes_an_edge_device_asks_for_no_scope(wish: Scopes) -> None:
    with pytest.raises(InvalidDeviceScope):
        scopes.of_updated_device("d", NO_SCOPES, wish, was_edge=False, iot_edge=True)


IDS = st.text(string.ascii_letters + string.digits + "-.+%_#*?!(),=@$':;", min_size=1, max_size=128)
WISHES = st.builds(Scopes, st.none() | IDS, st.lists(IDS, max_size=1).map(tuple))


@given(IDS, st.integers(10**17, 10**18 - 1).map(str), WISHES)
def test_a_scope_names_its_device(device_id: str, generation_id: str, wish: Scopes) -> None:
    made = scopes.of_new_device(device_id, generation_id, wish, iot_edge=True)
    wish = Scopes(None, wish.parents)
    toggled = scopes.of_updated_device(device_id, NO_SCOPES, wish, was_edge=False, iot_edge=True)
    for each in (made, toggled):
        assert scopes.device_of(each.device or "") == device_id


@given(st.text())
def test_any_text_has_a_device_as_its_scope(text: str) -> None:
    assert scopes.device_of(text) in text


@given(st.booleans(), st.booleans(), WISHES, WISHES)
def test_a_leaf_has_its_parents_scope_and_an_edge_device_one_of_its_own(
    was_edge: bool, iot_edge: bool, first: Scopes, second: Scopes
) -> None:
    before = scopes.of_new_device("d", "1", first, iot_edge=was_edge)
    try:
        after = scopes.of_updated_device("d", before, second, was_edge=was_edge, iot_edge=iot_edge)
    except HubError:
        return
    if iot_edge:
        assert scopes.device_of(after.device or "") == "d"
        assert after.parents == second.parents
    else:
        assert after.parents == (() if after.device is None else (after.device,))
