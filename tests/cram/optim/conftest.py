import pytest


@pytest.fixture(params=["host", "device"])
def where_values_are(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run a test twice, the second time as where the host cannot read a value without waiting for a device."""
    if request.param == "device":
        for module in ("optimizer", "whitening", "ema_nesterov"):
            monkeypatch.setattr(f"cram.optim.{module}.is_readable", lambda tensor: False)
