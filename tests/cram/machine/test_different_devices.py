from cram.machine.different_devices import describe_different_devices, devices_of_receipt


def test_arms_are_listed_by_the_names_of_their_devices() -> None:
    said = describe_different_devices([("old", ["B"]), ("new", ["A", "B"]), ("old", ["B"])])
    assert said is not None and said.startswith("The runs were trained on different devices: A (new); B (old, new). ")
    assert describe_different_devices([("old", ["A"]), ("new", ["A"])]) is None
    assert describe_different_devices([]) is None


def test_a_run_that_was_resumed_elsewhere_has_both_devices() -> None:
    assert devices_of_receipt({"device": "B", "processes": [{"device": "A"}, {"device": "B"}]}) == {"A", "B"}
    assert devices_of_receipt({"device": "B"}) == {"B"}  # of an earlier version
