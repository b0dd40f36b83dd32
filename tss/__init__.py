"""Time since stroke from MRI: an open implementation of Zhang, Polson et al. 2021.

The modules in reading order, which is the order in which data flows. A module imports only from those above it.

Tables and files
    files         files that appear whole or not at all, and the one error that users see
    table         rows of cells as text in columns
    page          a web page that is one file
    cohort        cohort.csv: checks, labels, the split by patient, Table 1
    nifti         NIfTI in and out, canonical axes, resampling
    diffusion     b1000 and b0 out of a diffusion series
    bidsfiles     BIDS: file names, sidecars, kinds of image, tables
    bids          a BIDS folder as a cohort
    figures       every picture; the only module that knows matplotlib
Phantom: made-up patients with a known answer
    geometry      shapes as signed distances
    skull         scalp, skull, eyes, face and neck
    anatomy       the mean head
    subject       one person's head: folding, ventricles, atrophy
    lesion        infarcts in arterial territories
    clock         the law: what time does to the FLAIR signal
    mismatch      what simulated readers see of it
    contrast      what tissues look like on b0, DWI and FLAIR
    scanner       pose, thick slices, bias field, noise, the file's axes
    phantom       a patient and a cohort, as NIfTI files and cohort.csv
    visible       how bright a made-up infarct is on the raw FLAIR
    phantombids   the same cohort as a BIDS folder
    phantomtumours  heads with brain tumours, to learn medical weights from
    ceiling       the best AUC that can be reached on them
    tssphantom    TSS-Phantom, the public benchmark
Preprocessing (paper 2.1)
    registration  affine registration by mutual information
    builtin       brain and affine by the suite's own tools
    fsl           brain and affine by FSL, the same functions
    literal       FSL in the paper's own order, to compare with
    intensity     bias field, landmarks, matching to the reference, [0, 1]
    hemispheres   from volumes to mirrored hemispheres and back
    quality       figures and flags
    qcpage        the page on which a person looks at every patient and judges
    preprocess    one patient, step by step
    records       one patient's files, and the record that says they are finished
    batch         a whole cohort, on several cores or shards
Model (paper 2.2)
    attention     the soft attention gate
    resnet2d      ResNet-18 on slices, with a trainable weight for each
    unet3d        the 3D U-Net, and its encoder as a classifier
    genesis       Models Genesis: four ways to distort a volume
Training (paper 2.3, 2.4)
    phases        the schedule as one table
    checkpoint    files of weights: written, checked, started from
    foreign       weights of other programs, brought under our names
    metrics       AUC, intervals, threshold, tests and kappa
    moved         training hemispheres moved a little
    loop          batches, one epoch, prediction
    tumourscans   scans of brain tumours, as slices or volumes
    restore       phase 0: distorted batches, and how well they are restored
    frozen        what never changes within a phase, computed once
    plan          what a run is, and what is refused before it begins
    tumours       what medical weights learn, to be compared with
    train         a phase from start to finish
    cost          how long a training takes on this machine
Older methods (paper 3, Table 2)
    roi           the infarct found without a drawn mask
    tissueclock   how bright it is beside its mirror region
    texture       co-occurrence, runs, patterns
    linear        logistic regression and the linear SVM
    forest        the random forest
    lee2020       texture of the infarct, and a classical classifier
Evaluation (paper 3)
    gradcam       where the network looked
    inference     from hemispheres to a patient's probability
    explain       one patient's Grad-CAM on a page
    bootstrap     an interval for a figure that no formula fits
    overlap       how much of the Grad-CAM lies in the lesion
    calibration   do probabilities mean what they say?
    scores        figures with intervals and coverage
    comparisons   is one model's AUC higher than another's?
    readers       radiologists beside the model
    subgroups     the same figures for groups of patients
    baselines     the older methods' predictions and scores
    table2        the paper's Table 2, as CSV and Markdown
    flow          who is behind the figures, and who was lost why
    panels        which rows are drawn together
    report        all of it on one page
    evaluate      a split of a cohort
    newpatient    the scans of one new patient
    audit         which patients can be behind a published row
    study         the plan behind the whole Table 2, and its trainings
    demo          all of it, on phantoms
"""

import os

# Threads that wait for each other sleep instead of spinning: where others share the cores, a step of training took a
# half to a third of the time so, and on a free machine the same. OpenMP reads it when torch is loaded, after this.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

__version__ = "0.1.0"
