"""Tables for the screen, by hand."""

from tss.data import cohort
from tss.display import tables


def test_table_1_by_hand():
    def patient(name, age, sex, minutes, split):
        return cohort.Patient(
            {
                "patient": name,
                "age": age,
                "sex": sex,
                "onset_to_mri_min": minutes,
                "stroke_side": "left",
                "split": split,
            },
            None,
        )

    lines = tables.table1(
        [
            patient("a", "60", "F", "100", "train"),
            patient("b", "70", "M", "200", "train"),
            patient("c", "80", "F", "", "test"),
        ]
    ).splitlines()
    cells = {line.split("  ")[0]: [cell for cell in line.split("  ")[1:] if cell] for line in lines}
    cells = {name: [cell.strip() for cell in row] for name, row in cells.items()}
    assert cells["Table 1"] == ["All", "train", "test"]
    assert cells["Age (years)"] == ["70 (65-75)", "65 (62-68)", "80 (80-80)"]
    assert cells["Female"] == ["2 (67%)", "1 (50%)", "1 (100%)"]
    assert cells["Onset to MRI (min)"] == ["150 (125-175), 1 unknown", "150 (125-175)", "-"]
    assert cells["TSS < 3 h"] == ["1 (33%)", "1 (50%)", "0 (0%)"]
    assert cells["NIHSS"] == ["-", "-", "-"]


def test_table_1_at_the_limits_its_sides_words_for_women_and_scanners():
    """Three hours exactly are not less than three; "female" counts as F; the last line is the scanner's field."""
    rows = [
        ("179", "female", "left", "3"),
        ("180", "F", "right", "3"),
        ("269", "m", "right", "1.5"),
        ("270", "", "", ""),
    ]
    patients = [
        cohort.Patient({
            "patient": f"p{number}", "onset_to_mri_min": minutes, "sex": sex, "stroke_side": side, "split": "test",
            "field_strength": tesla, "dwi_te_ms": te,
        }, None)
        for number, ((minutes, sex, side, tesla), te) in enumerate(zip(rows, ("80", "90", "100", ""), strict=True))
    ]  # fmt: skip
    cells = {row[0]: row[1:] for row in tables.table1_rows(patients)}
    assert cells["TSS < 3 h"] == ["1 (25%)"] * 2 and cells["TSS < 4.5 h"] == ["3 (75%)"] * 2
    assert cells["Female"] == ["2 (50%)"] * 2 and cells["Patients"] == ["4", "4"]
    assert cells["Side left/right/both/unknown"] == ["1/2/0/1"] * 2
    assert cells["Field strength (T)"] == ["3 (2), 1.5 (1), unknown (1)"] * 2
    assert cells["DWI, TE (ms)"] == ["90 (85-95), 1 unknown"] * 2


def test_columns_are_as_wide_as_their_widest_cell():
    assert tables.aligned([["a", "bb", "c"], ["long", "b", "c"]]) == "a     bb  c\nlong  b   c"
