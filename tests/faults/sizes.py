"""How many events a fault is made among: 20,000 in `make test-all`, a few in the one of `make test`
(the power cut of everything) and where many prove no more."""

from __future__ import annotations

import pytest

FAST, SLOW = 800, 20_000
#: For `pytest.mark.parametrize("count", …)`.
SLOW_SIZES = [pytest.param(SLOW, marks=pytest.mark.slow)]
