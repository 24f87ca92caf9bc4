"""How many events a fault is made among: a few in `make test`, 20,000 in `make test-all`."""

from __future__ import annotations

import pytest

FAST, SLOW = 800, 20_000
#: For `pytest.mark.parametrize("count", …)`.
SIZES = [FAST, pytest.param(SLOW, marks=pytest.mark.slow)]
#: The same for what is too slow for `make test` with however few events.
SLOW_SIZES = [pytest.param(SLOW, marks=pytest.mark.slow)]
