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
