"""What is typed after run_eval.py: the options of an evaluation, and those of one new patient.

In:  flags, as run_eval.py reads them.
Out: Options or PatientOptions; each has just the flags that it can use, and their defaults.
Paper: none.
See: tests/evaluation/test_options.py
"""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Options:
    """An evaluation of checkpoints on one split of DATA."""

    checkpoints: Sequence[str]
    data: str = "data"
    split: str | None = None  # None: test; all of them, where DATA was prepared like a checkpoint's (external)
    out: str = "eval"  # of several checkpoints, the results of each go to out/<name>, named after phases' folders
    gradcam: int = 4  # Grad-CAM of so many patients, the table's first ones: chosen before anything is known of them
    gradcam_scores: bool = False  # measure how much of everybody's Grad-CAM lies in the lesion masks
    table: bool = False  # table2.md and table2.csv in `out`, with the older methods beside the checkpoints
    report: bool = False  # report.html with all of it, the table too
    ensemble: bool = False  # the checkpoints are one model: the mean of their logits
    promise: float | None = None  # of PPV and NPV; None: everybody is called
    recalibration: str | None = None  # a site's file of tss.evaluation.recalibration
    study: str | None = None  # study.json: names first weights, lists rows not run, has the paper's claims compared
    device: str = "auto"
    overwrite: bool = False


@dataclass(frozen=True)
class PatientOptions:
    """The reading of one new patient's scans."""

    checkpoints: Sequence[str]
    patient: Sequence[
        str
    ]  # DWI; b0, or the ADC, or "-" where a 4-D DWI holds the b0; FLAIR. Or a folder of DICOM files
    atlas: str
    adc: bool = False  # the second scan is the ADC
    ensemble: bool = False
    promise: float | None = None
    recalibration: str | None = None
    side: str | None = None  # "left" or "right" where the reader knows it; None: phase 1 decides
    tools: str = "auto"  # "auto", "fsl" or "builtin"
    out: str = "eval"
    gradcam: int = 4  # 0: no picture
    device: str = "auto"
    overwrite: bool = False
