"""What places were measured to cost is kept for the process; here each test begins without it."""

import pytest

from ui.session import costs


@pytest.fixture(autouse=True)
def nothing_measured_before(monkeypatch: pytest.MonkeyPatch) -> None:
    shelf = costs._Shelf()
    monkeypatch.setattr(costs, "_shelf", lambda: shelf)
