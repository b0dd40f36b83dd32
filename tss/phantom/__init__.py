"""Made-up patients whose truth is known, for the demo, the tests, teaching, and TSS-Phantom, the public benchmark.

In:    an empty folder, a number of patients, a seed
Out:   FOLDER/cohort.csv with raw scans as a lab has them; an atlas
Paper: 2.1, Table 1
See:   tests/phantom/test_cohort_phantom.py

    make_cohort("phantom", 12, seed=0)
    write_atlas("phantom/atlas_t2w.nii.gz")
"""

from tss.phantom.cohort_phantom import make_cohort, write_atlas

__all__ = ["make_cohort", "write_atlas"]
