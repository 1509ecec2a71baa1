"""The price of distance: by hand."""

import pytest

from groundup.errors import SettingsError
from groundup.rollouts.coefficient import Coefficient


def test_by_hand():
    """Target 5: e is 0.1 at 5.5, 0.2 at most and -0.2 at least; half of it is the change."""
    price = Coefficient(0.2, target=5.0)
    assert price.after(5.0).value == 0.2
    assert price.after(5.5).value == pytest.approx(0.2 * 1.05)
    assert price.after(500.0).value == pytest.approx(0.2 * 1.1)
    assert price.after(-3.0).value == pytest.approx(0.2 * 0.9)
    assert price.after(500.0).after(0.0).value == pytest.approx(0.2 * 1.1 * 0.9)


def test_without_a_target_it_stays():
    assert Coefficient(0.2).after(1e9) == Coefficient(0.2)


def test_a_target_needs_a_price():
    with pytest.raises(SettingsError, match="--kl-target 6 cannot be reached from --kl 0"):
        Coefficient(0.0, target=6.0)
