"""The Fit page's tests begin without the fits of other tests, which a page would find on the disk."""

import pytest

from replaceme_core.storage import shelf


@pytest.fixture(autouse=True)
def nothing_fitted_before() -> None:
    shelf.clear()
