"""One new patient: three scans in, and out come side, probability, verdict, what to distrust, and a picture.

In:  checkpoints, which carry grid, reference intensities and atlas hash of their training; DWI, b0 or ADC, FLAIR.
Out: OUT/result.json and OUT/gradcam/patient.png, drawn on the patient's own DWI grid (X, Y, Z); DATA is not needed.
Paper: 2.1 (the same steps as in training), 3 (Grad-CAM); the side where it is unknown is ours (decision 14).
See: tests/evaluation/test_new_patient.py
"""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tss.data.cohort import DICOM, SIDES, Patient
from tss.data.files import alone_in, read_json, sha256, write_json
from tss.data.nifti import Volume, resample, voxel_sizes
from tss.data.patients_seen import find_seen
from tss.data.prepared import Settings, converted_folder, differing_settings
from tss.data.tasks import POSITIVE
from tss.errors import InputError
from tss.evaluation import gradcam_page
from tss.evaluation.ensemble import as_ensemble, picker_of
from tss.evaluation.inference import EACH, Model, Prediction, in_words, open_models, probabilities, side_picker
from tss.evaluation.options import PatientOptions
from tss.evaluation.predictions_table import CUTS, line_of
from tss.evaluation.promise import with_promise
from tss.evaluation.recalibration import recalibrated
from tss.preprocessing import dicom
from tss.preprocessing.atlas import load_atlas
from tss.preprocessing.pipeline import Prepared, prepare
from tss.preprocessing.scans import Scans, load_scans
from tss.preprocessing.tools import find_tools
from tss.training.device import choose_device

BRIGHTEST = 0.01  # our choice: share of a hemisphere's brain; the smallest lesions worth finding fill about so much
REPORT = {"results": [{"name": str}]}  # the shape of result.json, as far as it is read
RESEARCH_NOTE = "Research software: not a medical device, not for treatment decisions."


def read_patient(options: PatientOptions) -> dict[str, Any]:
    """Prepare, predict, print and draw one patient; returns what result.json holds.

    Raises InputError: a file cannot be used, checkpoints of different trainings, or OUT has a patient already.
    """
    with alone_in(options.out):
        return prepare_and_predict(options)


def prepare_and_predict(options: PatientOptions) -> dict[str, Any]:
    """As read_patient(), which keeps others out of the folder meanwhile."""
    opened = open_models(options.checkpoints)
    models = [as_ensemble(opened)] if options.ensemble else opened
    picker = picker_of(opened) if options.ensemble else side_picker(models[0], models)
    if options.recalibration:
        if len(models) > 1 or options.promise is not None:
            raise InputError("--recalibration is of one model, or of an ensemble, and goes without --promise.")
        models = [recalibrated(models[0], options.recalibration)[0]]
    if options.promise is not None:
        models = [with_promise(model, options.promise) for model in models]
    settings = settings_of([*models, picker] if picker else models)
    folder = Path(options.out)
    pictures = pictures_of(folder, [model.name for model in models]) if options.gradcam else {}
    for file in (folder / "result.json", *pictures.values()):
        if file.exists() and not options.overwrite:
            raise InputError(f"{file} exists already. Give another --out, or --overwrite.")
    device, tools = choose_device(options.device), find_tools(options.tools)

    started = time.monotonic()
    print(f"preparing {options.patient[0]} with {tools.describe()}", flush=True)
    patient = dicom.convert(as_patient(options), converted_folder(folder))
    if series := patient.row.get("dicom_series"):
        print(f"DICOM series taken: {series}", flush=True)
    volumes = load_scans(patient)
    atlas = load_atlas(options.atlas, tuple(models[0].checkpoint["grid"]))
    prepared = prepare(volumes, atlas, tools, settings["reference"]["landmarks"])
    # Half precision as in DATA/hemispheres: the same scans give the same probability either way.
    hemispheres = torch.from_numpy(prepared.hemispheres.astype(np.float16))
    print(f"prepared in {time.monotonic() - started:.0f} s", flush=True)

    side, side_from, doubts = choose_side(options.side, picker, hemispheres, device)
    predictions = {model.name: predict_side(model, hemispheres, side, side_from, device) for model in models}
    flags = [*prepared.flags, *unlike_training(settings, options.atlas, atlas.skull, tools.describe()), *doubts]
    flags += [flag for model in models for flag in learned_from(model, prepared)]
    report = {
        "scans": scans_of(patient),
        "side": side,
        "side_from": side_from,
        "flags": flags,
        "results": [result_of(model, predictions[model.name], flags) for model in models],
        "tools": tools.describe(),
        "atlas": str(options.atlas),
        "measures": prepared.measures,
        "b0_to_atlas": prepared.b0_to_atlas.tolist(),
        "flair_to_b0": prepared.flair_to_b0.tolist(),
        "note": RESEARCH_NOTE,
    }
    remove_report(folder)
    write_json(folder / "result.json", report)
    for model in models if options.gradcam else ():
        draw_on_scan(pictures[model.name], model, predictions[model.name], hemispheres, prepared, volumes)
    print(report_text(report, [folder / "result.json", *pictures.values()]), flush=True)
    return report


def as_patient(options: PatientOptions) -> Patient:
    """Return the scans as a row of a cohort."""
    if len(options.patient) == 1:
        return Patient({"patient": "patient", DICOM: options.patient[0]}, Path())
    dwi, second, flair = options.patient
    row = {"patient": "patient", "dwi": dwi, "flair": flair}
    if second != "-":
        row["adc" if options.adc else "b0"] = second
    return Patient(row, Path())


def scans_of(patient: Patient) -> dict[str, str | bool]:
    """Return which files were read; of DICOM files which series they were too."""
    row = patient.row
    second = row.get("b0") or row.get("adc") or "-"
    series = {"dicom_series": row["dicom_series"]} if row.get("dicom_series") else {}
    adc = bool(row.get("adc") and not row.get("b0"))
    return {"dwi": row["dwi"], "second": second, "flair": row["flair"], "second_is_adc": adc, **series}


def unlike_training(settings: Settings, atlas: str, skull: str, tools: str) -> list[str]:
    """Return in what the patient was prepared with other means than the training patients."""
    here, there = sha256(atlas), settings.get("atlas_sha256")
    flags = []
    if there != here:
        flags.append(
            f"{atlas} is not the atlas of the training patients (SHA-256 {here[:12]}, theirs {str(there)[:12]})"
        )
    if settings.get("atlas_skull", skull) != skull:
        flags.append(
            f"the skull of {atlas} was removed in another way than in training ({skull[:20]}, there "
            f"{settings['atlas_skull'][:20]}): keep its brain mask beside it"
        )
    if settings.get("tools") != tools:
        flags.append(f"prepared with {tools}, the training patients with {settings.get('tools')}")
    return flags


def learned_from(model: Model, prepared: Prepared) -> list[str]:
    """Return a sentence where the network has learned from this patient."""
    found = find_seen({"": list(prepared.voxels.values())}, model.checkpoint["patients_seen"])
    return [
        f"{model.path} has learned from this patient, there {name}: its answer says nothing" for name in found.values()
    ]


def pictures_of(folder: Path, names: Sequence[str]) -> dict[str, Path]:
    """Return model's name -> its picture in OUT."""
    return {name: folder / "gradcam" / (f"patient_{name}.png" if len(names) > 1 else "patient.png") for name in names}


def remove_report(folder: Path) -> None:
    """Remove the report of another patient and its pictures: none of them may pass for this patient's."""
    report = folder / "result.json"
    if report.is_file():
        for picture in pictures_of(folder, [line["name"] for line in read_json(report, REPORT)["results"]]).values():
            picture.unlink(missing_ok=True)
        report.unlink()


def settings_of(models: Sequence[Model]) -> Settings:
    """Return how the training patients were prepared; it must be the same for all checkpoints."""
    settings = [model.checkpoint["settings"].get("preprocessing", {}) for model in models]
    if not settings[0].get("reference", {}).get("landmarks"):
        raise InputError(
            f"{models[0].path} does not hold the reference intensities of its training, so a new patient "
            "cannot be made comparable. Train it on data of run_preprocess.py."
        )
    for model, other in zip(models, settings, strict=True):
        if differs := differing_settings(settings[0], other):
            raise InputError(
                f"{models[0].path} and {model.path} were trained on data that was preprocessed with different "
                f"settings: {differs}. Give checkpoints of one training."
            )
    return settings[0]


def choose_side(
    given: str | None, picker: Model | None, hemispheres: torch.Tensor, device: torch.device
) -> tuple[str, str, list[str]]:
    """Return the hemisphere to classify, who chose it, and what makes that choice doubtful."""
    if picker is None:
        if given:
            return given, "--side", []
        asymmetry = brightest_dwi(hemispheres.float().numpy())
        doubt = "SIDE FROM DWI ASYMMETRY, not from phase 1: give phase 1's checkpoint too, or --side"
        return max(SIDES, key=asymmetry.__getitem__), "DWI asymmetry", [doubt]
    chances = probabilities(picker, hemispheres, device)
    likelier = max(SIDES, key=chances.__getitem__)
    words = f"phase 1 ({', '.join(f'{side} {chances[side]:.3f}' for side in SIDES)}; {picker.path})"
    doubts = []
    if chances[likelier] < picker.threshold:
        doubts.append(
            f"phase 1 finds no stroke in either hemisphere (threshold {picker.threshold:.3f}): the time "
            "since stroke may be meaningless"
        )
    elif min(chances.values()) >= picker.threshold:
        doubts.append("phase 1 finds stroke in both hemispheres: look at both, with --side left and --side right")
    if given and likelier != given:
        doubts.append(f"--side {given}, but {words} finds the {likelier} hemisphere likelier")
    return (given, "--side", doubts) if given else (likelier, words, doubts)


def brightest_dwi(hemispheres: np.ndarray) -> dict[str, float]:
    """Return side -> mean DWI of the brightest 1 % of its brain, for (2, C, D, H, W) hemispheres."""
    means = {}
    for side, hemisphere in zip(SIDES, hemispheres, strict=True):
        brain = np.sort(hemisphere[0][hemisphere[0] > 0])
        means[side] = float(brain[-max(1, int(BRIGHTEST * brain.size)) :].mean()) if brain.size else 0.0
    return means


def predict_side(
    model: Model, hemispheres: torch.Tensor, side: str, side_from: str, device: torch.device
) -> Prediction:
    """Predict the chosen hemisphere; for task "stroke" the one where it is likelier."""
    chances = probabilities(model, hemispheres, device)
    side = max(SIDES, key=chances.__getitem__) if model.task == "stroke" else side
    return Prediction("patient", side, -1, chances[side], side_from=EACH if model.task == "stroke" else side_from)


def result_of(model: Model, prediction: Prediction, flags: Sequence[str]) -> dict[str, Any]:
    """Return what a line of predictions.csv has, and of which network it is."""
    return {
        "name": model.name,
        "task": model.task,
        "positive_class": POSITIVE[model.task],
        **line_of(prediction, model, "; ".join(flags)),
        "checkpoint": model.named_files,
        "checkpoint_sha256": model.sha256,
    }


def report_text(report: dict[str, Any], files: Sequence[Path]) -> str:
    """Return the report for the screen."""
    lines = [f"side      {report['side']}, from {report['side_from']}"]
    lines += [
        f"{line['name']:9s} {line['positive_class']}, {line['side']}: probability "
        + in_words(line["probability"], line["threshold"], line["verdict"], [line[cut] for cut in CUTS if cut in line])
        for line in report["results"]
    ]
    lines += [f"FLAG      {flag}" for flag in report["flags"]] or ["flags     none"]
    return "\n".join([*lines, f"written   {', '.join(map(str, files))}", report["note"]])


def draw_on_scan(
    path: Path,
    model: Model,
    prediction: Prediction,
    hemispheres: torch.Tensor,
    prepared: Prepared,
    volumes: Scans,
) -> None:
    """Draw the map on the patient's own DWI slices, and on the FLAIR brought to them.

    The map is made on the atlas grid and comes back through the inverse of b0 -> atlas; a slice of the DWI lies
    oblique to the atlas' slices, so the slices drawn are those through the strongest place of each that weighs most.
    """
    from tss.display import slice_plots

    explanation = gradcam_page.explain(model, prediction, hemispheres)
    dwi = volumes.dwi
    back = np.linalg.inv(prepared.b0_to_atlas)
    maps = {
        name: resample(Volume(heat, prepared.affine), dwi.data.shape, dwi.affine, back)
        for name, heat in explanation.drawn().items()
    }
    flair = resample(volumes.flair, dwi.data.shape, dwi.affine, prepared.flair_to_b0)
    to_voxel = np.linalg.inv(dwi.affine) @ back @ prepared.affine
    captions: dict[int, str] = {}
    for z in explanation.slices:
        weight = explanation.heat[..., z] if explanation.heat[..., z].any() else prepared.mask[..., z]
        x, y = np.unravel_index(np.argmax(weight), weight.shape)
        own = int(np.clip(np.rint((to_voxel @ [x, y, z, 1])[2]), 0, dwi.data.shape[2] - 1))
        captions.setdefault(
            own, f"slice {own + 1} (atlas {z + 1}): {gradcam_page.amount(model, explanation.contributions[z])}"
        )
    shown = sorted(captions)
    slice_plots.draw_gradcam(
        path,
        {"DWI": dwi.data, "FLAIR": flair},
        maps,
        shown,
        [captions[z] for z in shown],
        gradcam_page.title(model, prediction, "new patient", "on the patient's own scans"),
        gradcam_page.scale(model, prediction),
        voxel_sizes(dwi.affine).tolist(),
        note=gradcam_page.note(model, explanation),
    )
