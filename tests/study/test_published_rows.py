"""What is found for the paper's Table 2 was found by hand too; tables that cannot be used are refused."""

from decimal import Decimal

import numpy as np
import pytest

from tss.study import published_rows
from tss.study.published_rows import Fit, Row

# The paper's Table 2: row, sensitivity, specificity, accuracy, AUC; the positives and negatives of the fewest patients.
TABLE_2 = {
    "stroke": [("1 2D", ".7347 .9286 .8316 .8905", 98, 98), ("1 3D", ".7732 .9579 .8646 .9460", 97, 95)],
    "TSS < 3 h": [
        ("2 2D random", ".2444 .9310 .5135 .6720", 45, 29),
        ("2 2D ImageNet", ".7879 .5510 .6463 .6733", 33, 49),
        ("2 2D medical", ".6970 .7142 .7073 .7297", 33, 49),
        ("2 2D phase 1", ".8222 .6552 .7568 .7648", 45, 29),
        ("2 3D random", ".7143 .4848 .6220 .6129", 49, 33),
        ("2 3D medical", ".5952 .7750 .6829 .7173", 42, 40),
        ("2 3D phase 1", ".8904 .6000 .7724 .7452", 73, 50),
    ],
    "TSS < 4.5 h": [
        ("3 2D random", ".2162 .9189 .5676 .6311", 37, 37),
        ("3 2D ImageNet", ".8789 .4285 .6098 .6054", 33, 49),
        ("3 2D medical", ".6666 .6939 .6829 .6684", 33, 49),
        ("3 2D phase 2", ".5405 .7838 .6622 .7392", 37, 37),
        ("3 3D random", ".3750 .6429 .5122 .5863", 40, 42),
        ("3 3D medical", ".8788 .4489 .6220 .6619", 33, 49),
        ("3 3D phase 2", ".6279 .7895 .7037 .7087", 43, 38),
        ("4 ML", ".6522 .7143 .6363 .7174", None, None),
        ("4 2D", ".7027 .8108 .7568 .7407", 37, 37),
        ("4 3D", ".5405 .8378 .6892 .7370", 37, 37),
    ],
    "readers": [
        ("Rad 1", ".5476 .8500 .6951", 42, 40),
        ("Rad 2", ".4286 .9250 .6707", 42, 40),
        ("Rad 3", ".5714 .6500 .6098", 21, 20),
        ("Agg Rad", ".5730 .8750 .7195", None, None),
    ],
}


@pytest.fixture(scope="module")
def said(tmp_path_factory):
    """What is printed for the paper's Table 2."""
    lines = ["row,sensitivity,specificity,accuracy,auc,group"]
    for group, rows in TABLE_2.items():
        lines += [
            ",".join([name, *figures.split(), *[""] * (figures.count(" ") == 2), group]) for name, figures, _, _ in rows
        ]
    path = tmp_path_factory.mktemp("published") / "table2.csv"
    path.write_text("\n".join(lines))
    return published_rows.explain_table(path)


def line_of(said, name):
    return next(line for line in said.splitlines() if line.startswith(f"{name}  "))


@pytest.mark.parametrize(
    ("name", "positives", "negatives"), [(name, p, n) for rows in TABLE_2.values() for name, _, p, n in rows if p]
)
def test_the_papers_rows_come_from_these_patients(said, name, positives, negatives):
    assert f"  {positives} + {negatives} = {positives + negatives}  " in line_of(said, name)


def test_the_papers_impossible_rows_are_found(said):
    assert "impossible: accuracy 0.6363 is not between 0.6522 and 0.7143" in line_of(said, "4 ML")
    assert "no counts of 2 to 250 patients give these figures" in line_of(said, "Agg Rad")
    assert "none: Agg Rad; nearest on 42 + 40: 24/42 = 0.5714, 35/40 = 0.8750, accuracy 0.7195" in said


def test_how_the_paper_rounded_is_said(said):
    assert "figures taken as truncated" in line_of(said, "3 2D medical")
    assert "figures taken as last digit one off" in line_of(said, "3 2D ImageNet")
    assert "figures taken" not in line_of(said, "4 2D")


def test_the_papers_test_sets_are_not_one(said):
    assert "readers: no test set fits all 4 rows.\n  42 + 40 = 82: Rad 1, Rad 2, Rad 3\n" in said
    assert "TSS < 4.5 h: no test set fits all 10 rows.\n  37 + 37 = 74: 3 2D random, 3 2D phase 2, 4 2D, 4 3D\n" in said


def test_the_counts_behind_the_papers_best_2d_row(said):
    """0.7027 * 37 = 26, 0.8108 * 37 = 30: TP, FN, TN, FP."""
    cells = [cell.strip() for cell in line_of(said, "4 2D").split("  ") if cell.strip()]
    assert cells[2:6] == ["26", "11", "30", "7"]


def test_hanley_and_mcneil_by_hand():
    """AUC 0.8, 20 positives, 40 negatives: Q1 = 2/3, Q2 = 1.28/1.8; variance 0.003967, so 0.8 -+ 1.96 * 0.0630."""
    variance = (0.16 + 19 * (2 / 3 - 0.64) + 39 * (1.28 / 1.8 - 0.64)) / 800
    low, high = published_rows.hanley_mcneil(0.8, 20, 40)
    assert (0.8 - low, high - 0.8) == pytest.approx([1.959964 * variance**0.5] * 2, abs=1e-6)


def test_the_intervals_that_the_paper_leaves_out(said):
    headline = line_of(said, "4 2D")
    for interval in ("0.741 [0.63-0.85]", "0.70 [0.54-0.83]", "0.81 [0.66-0.91]"):
        assert interval in headline
    assert "0.631 [0.50-0.76]" in line_of(said, "3 2D random")


def test_lees_figures_fit_33_and_23_without_an_accuracy(tmp_path, capsys):
    path = tmp_path / "lee.csv"
    path.write_text("row,sensitivity,specificity,group,year\nLR,75.8%,82.6%,Lee,2020\nreaders,48.5 %,91.3 %,Lee,\n")
    assert published_rows.main([str(path)]) == 0
    out = capsys.readouterr().out
    assert "Lee: one test set of 33 + 23 = 56 patients fits all 2 rows." in out and "Columns not used: year." in out


def fits_of(figures, n, positives=None, reading="rounded"):
    row = Row("r", tuple(Decimal(figure) if figure else None for figure in figures.split(",")), n, positives, None, "")
    return list(published_rows.fits_of(row, reading))


def test_every_fit_and_no_other_is_found():
    """Against all counts of up to 30 patients, printed with Python's own rounding (no figure here ends on a 5)."""
    printed = {}
    pairs = [(p, size - p) for size in range(2, 31) for p in range(1, size)]
    for p, n in pairs:
        for tp, tn in np.ndindex(p + 1, n + 1):
            figures = ",".join(f"{share:.2f}" for share in (tp / p, tn / n, (tp + tn) / (p + n)))
            printed.setdefault(figures, {}).setdefault((p, n), []).append((tp, tn))
    for figures in ("0.67,0.75,0.71", "0.70,0.90,0.80", "0.46,1.00,0.76", "0.00,0.33,0.12", "0.96,0.80,0.93"):
        by_hand = [Fit(patients, *ways[0], len(ways)) for patients, ways in printed[figures].items()]
        assert by_hand and fits_of(figures, (2, 30)) == by_hand


def test_edges_of_rounding_belong_to_the_figure():
    one_of_eight = [Fit((8, 8), 1, 8, 1)]
    assert fits_of("0.12,1.00,0.56", (16, 16), 8) == one_of_eight  # 1/8 = 0.125 may be printed 0.12
    assert fits_of("0.13,1.00,0.56", (16, 16), 8) == one_of_eight  # or 0.13
    assert fits_of("0.66,1.00,", (4, 4), 3) == []
    assert fits_of("0.66,1.00,", (4, 4), 3, "truncated") == [Fit((3, 1), 2, 1, 1)]


def test_size_and_positives_narrow_it(tmp_path):
    assert {fit.patients for fit in fits_of("0.57,0.65,", (40, 90))} > {(21, 20), (42, 40)}
    assert {fit.patients for fit in fits_of("0.5714,0.65,0.6098", (82, 82), 42)} == {(42, 40)}
    path = tmp_path / "t.csv"
    path.write_text(
        "row,sensitivity,specificity,accuracy,n,n_positive\na,0.5,0.5,0.5,20,10\nb,,,,,\nc,0.57,0.6500,,70-90,\n"
    )
    text = published_rows.explain_table(path)
    assert "10 + 10 = 20" in text and "Rows without figures: b." in text
    assert "different precision: were trailing zeros lost?" in line_of(text, "c")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("row,sensitivity,accuracy\na,0.5,0.5", "column specificity is missing"),
        ("", "column row, sensitivity, specificity is missing"),
        ("row,sensitivity,specificity\n", "no row with figures"),
        ("row,sensitivity,specificity\na,0.5", "line 2: 2 cells where the header has 3"),
        ("row,sensitivity,specificity\na,70.27,0.81", "line 2: sensitivity is '70.27'; write it with all its digits"),
        ("row,sensitivity,specificity\na,0.7,-", "line 2: specificity is '-'"),
        ("row,sensitivity,specificity\n,0.7,0.8", "line 2: row is empty"),
        ("row,sensitivity,specificity\na,0.7,0.8\na,0.7,0.8", "line 3: row 'a' appears twice"),
        ("row,sensitivity,specificity,n\na,0.7,0.8,about 80", "n is 'about 80'; write how many patients"),
        ("row,sensitivity,specificity,n\na,0.7,0.8,90-70", "n is '90-70'"),
        ("row,sensitivity,specificity,n\na,0.7,0.8,10-900", "a range may be 250 wide"),
        ("row,sensitivity,specificity,n,n_positive\na,0.7,0.8,82,82", "82 of n = 82; there must be negatives too"),
        ("row,sensitivity,specificity,n_positive\na,0.7,0.8,0", "n_positive is '0'"),
        ("row,sensitivity,specificity,auc\na,0.7,0.8,high", "auc is 'high'"),
    ],
)
def test_tables_that_cannot_be_used_are_refused_line_by_line(tmp_path, capsys, text, message):
    path = tmp_path / "t.csv"
    path.write_text(text)
    assert published_rows.main([str(path)]) == 2
    assert message in capsys.readouterr().err
