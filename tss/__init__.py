"""Time since stroke from MRI: an open implementation of Zhang, Polson et al. 2021.

Read the modules in the order in which data flows; a module imports only from those above it:

files        writing whole files, and the one error that users see
cohort       cohort.csv: checks, labels, split by patient, Table 1
nifti        NIfTI in and out, canonical axes, resampling
"""

__version__ = "0.1.0"
