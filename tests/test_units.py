"""Numbers as the pages print them."""

from __future__ import annotations

import pytest

from hilum.pages.units import span


@pytest.mark.parametrize(
    ("low", "high", "text"),
    [("0.94", "0.96", "0.94–0.96"), ("−29.2", "−9.2", "−29.2 – −9.2"), ("−0.5", "3.1", "−0.5 – 3.1")],
)
def test_a_minus_sign_never_touches_the_dash(low: str, high: str, text: str) -> None:
    assert span(low, high) == text
