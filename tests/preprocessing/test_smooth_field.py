"""Smooth fields: polynomials by hand, and a fit that leaves out what no field explains."""

import numpy as np
import pytest

from tss.preprocessing import smooth_field

LATTICE = [np.linspace(-1, 1, n) for n in (5, 3, 4)]


def test_orders():
    orders = smooth_field.all_orders()
    assert len(orders) == 34 and (0, 0, 0) not in orders  # of 35 polynomials; a constant is no field
    assert {(4, 0, 0), (1, 2, 1)} < set(orders) and (3, 1, 1) not in orders
    assert smooth_field.stiffness_of([(1, 0, 0), (0, 1, 1), (1, 2, 1)]).tolist() == [1, 4, 64]


def test_polynomials_by_hand():
    """Legendre's: P1 = x, P2 = (3 x^2 - 1) / 2, P3 = (5 x^3 - 3 x) / 2."""
    blocks = np.array([[1], [2], [0]])  # at -0.5, 1 and -1
    found = smooth_field.at_blocks([(1, 0, 0), (2, 0, 0), (3, 0, 0), (1, 1, 3)], LATTICE, blocks)
    assert found == pytest.approx(np.array([[-0.5, -0.125, 0.4375, -0.5 * 1 * -1]]))


def test_the_lattice_holds_what_the_blocks_hold():
    orders = smooth_field.all_orders()
    coefficients = np.random.default_rng(0).normal(size=len(orders))
    field = smooth_field.on_lattice(orders, coefficients, LATTICE)
    blocks = np.argwhere(np.ones(field.shape, bool)).T
    assert field.ravel() == pytest.approx(smooth_field.at_blocks(orders, LATTICE, blocks) @ coefficients, abs=1e-5)


def test_fit_by_hand():
    """Ten steps of 1 against a stiffness of 10: 10 c = 10 - 10 c. One of 9 more is too far from any to count."""
    slopes, steps = np.ones((10, 1)), np.ones(10)
    assert smooth_field.refit(np.zeros(1), slopes, steps, 1e3, np.array([10.0])) == pytest.approx([0.5], abs=1e-5)
    with_lesion = np.append(steps, 9.0)
    found = smooth_field.refit(np.zeros(1), np.ones((11, 1)), with_lesion, 1.0, np.array([0.0]))
    assert found == pytest.approx([1.0], abs=1e-6)
