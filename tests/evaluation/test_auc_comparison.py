"""Pairs of models on the cases that both have, against the test itself."""

import json
from dataclasses import replace

import numpy as np
import pytest

from tss.display.tables import aligned
from tss.evaluation.auc_comparison import AGAINST, claimed_pairs, compare_models, comparisons_rows, last_networks
from tss.evaluation.inference import Prediction
from tss.evaluation.older_methods import METHODS
from tss.evaluation.results import FLAIR_CLOCK, LEE2020, NETWORK, SOFT_CLOCK, Row, as_json
from tss.evaluation.scores import score
from tss.metrics.roc import delong_test, holm, roc_auc

RNG = np.random.default_rng(0)
Y = np.arange(30) % 2
SCORES = {name: RNG.normal(size=30) + shift * Y for name, shift in (("a", 0.0), ("b", 1.0), ("c", 3.0))}


def lines(p, y=Y, side="left"):
    return [
        Prediction(f"p{number}", side, int(label), float(score))
        for number, (label, score) in enumerate(zip(y, p, strict=True))
    ]


def test_every_pair_is_tested_and_corrected_for_their_number():
    pairs = compare_models({name: lines(p) for name, p in SCORES.items()}, "tss<4.5h")
    assert [(pair.first, pair.second) for pair in pairs] == [("a", "b"), ("a", "c"), ("b", "c")]
    tests = [delong_test(Y, SCORES[pair.second], SCORES[pair.first]) for pair in pairs]
    assert [pair.pvalue for pair in pairs] == [test.pvalue for test in tests]
    assert [pair.pvalue_holm for pair in pairs] == holm([test.pvalue for test in tests])
    assert pairs[1].difference == pytest.approx(roc_auc(Y, SCORES["c"]) - roc_auc(Y, SCORES["a"])) and (
        pairs[1].difference > 0
    )
    json.dumps(as_json(pairs), allow_nan=False)
    text = aligned(comparisons_rows(pairs))
    row = text.splitlines()[2].split()  # the AUCs in the order of the names: what is less what
    assert row[:4] == ["c", "-", "a", "30"] and float(row[4]) - float(row[5]) == pytest.approx(float(row[6]), abs=2e-3)
    assert float(row[4]) == pytest.approx(roc_auc(Y, SCORES["c"]), abs=5e-4) and "<0.001" in text


def test_only_shared_cases_are_compared_and_the_others_counted():
    fewer = lines(SCORES["b"])[6:]
    fewer[0] = fewer[0]._replace(probability=None)
    (pair,) = compare_models({"a": lines(SCORES["a"]), "b": fewer}, "tss<4.5h")
    (turned,) = compare_models({"b": fewer, "a": lines(SCORES["a"])}, "tss<4.5h")
    assert (pair.n, pair.left_out) == (turned.n, turned.left_out) == (23, 7)
    assert pair.pvalue == delong_test(Y[7:], SCORES["b"][7:], SCORES["a"][7:]).pvalue
    assert "7 cases that only one of them has are left out" in aligned(comparisons_rows([pair]))


def test_a_case_is_a_patient_or_a_hemisphere():
    """Two models may look at different sides of a patient whose side is unknown; two hemispheres are two cases."""
    assert compare_models({"a": lines(SCORES["a"]), "b": lines(SCORES["b"], side="right")}, "tss<3h")[0].n == 30
    both = {name: lines(p) + lines(1 - p, 1 - Y, "right") for name, p in SCORES.items()}
    found = compare_models(both, "stroke")
    assert [pair.n for pair in found] == [60] * 3
    labels, whose = np.append(Y, 1 - Y), np.tile(np.arange(30), 2)
    b, a = (np.append(SCORES[name], 1 - SCORES[name]) for name in ("b", "a"))
    assert found[0].difference_ci == pytest.approx(delong_test(labels, b, a, whose).ci)
    assert found[0].difference_ci != pytest.approx(delong_test(labels, b, a).ci, abs=0.01)


def test_what_has_no_answer_is_not_counted_in_the_correction():
    pairs = compare_models({"worst": lines(-Y), "best": lines(Y), "a": lines(SCORES["a"])}, "tss<4.5h")
    assert pairs[0].pvalue is None and "DeLong's test has no answer" in pairs[0].reason
    assert pairs[1].pvalue_holm == holm([pairs[1].pvalue, pairs[2].pvalue])[0]
    text = aligned(comparisons_rows(pairs))
    assert "no answer" in text and "nan" not in text and "None" not in text
    (one_class,) = compare_models({"a": lines([0.1, 0.2], [1, 1]), "b": lines([0.3, 0.1], [1, 1])}, "tss<4.5h")
    assert "2 of 2 cases are positive" in one_class.reason
    (nobody,) = compare_models({"a": [], "b": []}, "tss<4.5h")
    assert "0 of 0 cases are positive" in nobody.reason


def network(name, model, phase, weights):
    return Row(kind=NETWORK, name=name, task="tss<4.5h", model=model, phase=phase, weights=weights)


def test_what_the_paper_claims_is_compared_and_nothing_else():
    """TSS < 4.5 h of Table 2: 14 pairs of 11 networks, where every two would be 55."""
    networks = [
        network(f"{model} {weights}", model, 3, weights)
        for model in ("3d", "2d")
        for weights in ("phase 2", "medical images (a.pt)", "ImageNet", "random")
        if (model, weights) != ("3d", "ImageNet")
    ]
    networks += [network(f"{model} 4", model, 4, "phase 3") for model in ("2d", "3d")]
    older = [FLAIR_CLOCK, "tissue clock, DWI", "tissue clock, ADC", SOFT_CLOCK, LEE2020]
    medical = "medical images (a.pt)"
    assert claimed_pairs(networks, older) == [
        ("2d random", "2d phase 2"), ("2d ImageNet", "2d phase 2"), (f"2d {medical}", "2d phase 2"),
        ("2d phase 2", "2d 4"), ("3d random", "3d phase 2"), (f"3d {medical}", "3d phase 2"), ("3d phase 2", "3d 4"),
        ("3d 4", "2d 4"),
        *((method, f"{one} 4") for one in ("2d", "3d") for method in (FLAIR_CLOCK, SOFT_CLOCK, LEE2020))]  # fmt: skip
    assert set(AGAINST) <= set(METHODS)


def test_the_last_network_of_a_recipe_is_the_one_that_the_schedule_leads_to():
    """From the phase before, though another is of a later phase; of these the latest; 2D and 3D, recipe by recipe."""
    found = score(lines(1 / (1 + np.exp(-SCORES["a"]))), 0.5)
    networks = [
        replace(network(name, model, phase, weights), scores=found, recipe=recipe)
        for name, model, phase, weights, recipe in (
            ("a", "2d", 3, "phase 2", "paper"), ("b", "2d", 4, "random", "paper"), ("c", "2d", 2, "phase 1", "paper"),
            ("d", "3d", 3, "random", "paper"), ("e", "2d", 2, "phase 1", "extended"),
        )
    ]  # fmt: skip
    assert [row.name for row in last_networks(networks, "tss<4.5h")] == ["a", "d", "e"]
    assert last_networks(networks, "stroke") == []


def test_of_phase_1_both_kinds_are_compared_and_one_alone_is_not():
    first = [network("a", "2d", 1, "random"), network("b", "3d", 1, "Models Genesis")]
    assert claimed_pairs(first, []) == [("b", "a")] and claimed_pairs(first[:1], []) == []
    assert claimed_pairs([network("r", "2d", 2, "random")], [LEE2020]) == []  # the paper's own row is not there
