"""Slices of a patient's scans: beneath the Grad-CAM, and with the outlines of quality control.

In:  volumes (X, Y, Z) on canonical RAS axes.
Out: PNG files, written whole.
Paper: Fig. 2 (visual check), Fig. 9 (Grad-CAM).
See: tests/display/test_slice_plots.py

Slices are shown in radiological convention: the patient's right is on the left of the picture, front at the top.
"""

import os
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from PIL import Image

from tss.data.files import write_whole
from tss.display.panel import Style, save

MAP_COLOURS = "inferno"
MAP_OPACITY = 0.6  # our choice: at the map's peak; it falls to 0 with the map, so that the scan stays readable
MAP_DPI = 100  # our choice: 0.6 MB a page, so that 16 networks' pages of a patient fit into a report
QC_SLICES = 7
QC_DPI = 100
PIXEL = 72 / QC_DPI  # points
QC_PIXELS_PER_MM = 0.9  # our choice: DWI has voxels of 1.7 mm, so nothing is lost
QC_HISTOGRAM, QC_TITLE = 220, 18  # pixels: width of the panel of histograms, height of the title line
QC_WHITE = {"dwi": 2.5, "t2w": 3.5, "flair": 2.0}  # our choice: medians of healthy brain that are drawn white
QC_COLOURS = {"mask": "#00c8ff", "atlas": "#ff9000", "lesion": "#ff50ff", "midline": "#ffff00"}
QC_RAW = "#ff4040"  # the histogram of the raw scan
GREYS = 48  # our choice: no steps are seen yet, and the file is small
WINDOW = (1.0, 99.5)  # percentiles of the head that become black and white
AIR = 0.04  # our choice: share of a scan's maximum below which there is only noise


def draw_gradcam(
    path: str | os.PathLike,
    scans: dict[str, np.ndarray],
    maps: dict[str, np.ndarray],
    slices: Sequence[int],
    captions: Sequence[str],
    title: str,
    scale: str,
    sizes: Sequence[float],
    lesion: np.ndarray | None = None,
    note: str = "",
) -> None:
    """Draw slices of each scan twice: plain, and beneath the first map; of the first scan beneath the others too.

    scans: name -> (X, Y, Z), all on one grid.
    maps: name -> (X, Y, Z) in [0, 1], one scale for the whole patient; never rescaled.
    slices: which z to show, one column each, with a caption each.
    title: patient, side, probability; `scale`: what the map's 0 and 1 mean.
    sizes: voxel edges (x, y, z) in mm.
    lesion: (X, Y, Z) mask, outlined on every picture.
    note: written beneath.
    """
    # Cropped to the head: the atlas's margins would take half of the page.
    box = _bounding_box([scan[..., list(slices)] for scan in scans.values()])
    width, height = (box[0].stop - box[0].start) * sizes[0], (box[1].stop - box[1].start) * sizes[1]
    column, aspect = 1.75, sizes[1] / sizes[0]
    first, *others = maps
    rows = [(name, shown) for name in scans for shown in ("", first)] + [(next(iter(scans)), name) for name in others]
    layout = ConstrainedLayoutEngine(w_pad=0.01, h_pad=0.01, wspace=0, hspace=0)
    inches = (column * len(slices) + 1.1, column * height / width * len(rows) + 0.9)
    figure = Figure(figsize=inches, layout=layout, facecolor="white")
    figure.suptitle(title, fontsize=10)
    grid = figure.subplots(len(rows), len(slices), squeeze=False)
    for (name, map_name), line in zip(rows, grid, strict=True):
        low, high = window(scans[name])
        line[0].set_ylabel(name + (f" + {map_name}" if map_name else ""), fontsize=9)
        for axes, z in zip(line, slices, strict=True):
            axes.set(xticks=[], yticks=[], facecolor="black")
            axes.imshow(_hang(scans[name], z, box), cmap="gray", vmin=low, vmax=high, aspect=aspect)
            if map_name:
                picture = _hang(maps[map_name], z, box)
                opacity = MAP_OPACITY * picture
                coloured = axes.imshow(picture, cmap=MAP_COLOURS, vmin=0, vmax=1, alpha=opacity, aspect=aspect)
            if lesion is not None and _hang(lesion, z, box).any():
                axes.contour(_hang(lesion, z, box), levels=[0.5], colors="cyan", linewidths=0.8)
    for axes, caption in zip(grid[0], captions, strict=True):
        axes.set_title(caption, fontsize=8)
    for axes, letter, x, align in ((grid[0, 0], "R", 0.03, "left"), (grid[0, -1], "L", 0.97, "right")):
        axes.text(x, 0.97, letter, color="white", fontsize=9, va="top", ha=align, transform=axes.transAxes)
    bar = figure.colorbar(coloured, ax=grid, shrink=0.6, aspect=30, pad=0.01)
    bar.set_label(scale, fontsize=8)
    bar.ax.tick_params(labelsize=7)
    if note:
        figure.supxlabel(note, color="black" if maps[first].any() else "tab:red", fontsize=9)
    save(figure, path, MAP_DPI)


def draw_qc(
    path: str | os.PathLike,
    scans: dict[str, np.ndarray],
    mask: np.ndarray,
    atlas_brain: np.ndarray,
    sizes: Sequence[float],
    title: str,
    lesion: np.ndarray | None = None,
    histograms: dict[str, dict[str, np.ndarray]] | None = None,
) -> None:
    """Draw slices of each scan on the atlas grid with the outlines by which registration is judged, and histograms.

    scans: name -> (X, Y, Z) on the atlas grid in medians of healthy brain, one row each; drawn from black at 0 to white
        at QC_WHITE in every patient, so that patients can be compared.
    mask, atlas_brain, lesion: (X, Y, Z) bool, outlined in QC_COLOURS.
    sizes: voxel edges (x, y, z) in mm.
    histograms: name -> edges (B + 1,) in medians; and shares (B,) raw, matched and, where known, reference.
    """
    inside = np.flatnonzero((mask | atlas_brain).any((0, 1)))
    slices = np.unique(np.linspace(inside[0], inside[-1], QC_SLICES + 2).round().astype(int)[1:-1])
    box = _bounding_box([mask | atlas_brain])

    def row(volume: np.ndarray) -> np.ndarray:
        return np.concatenate([_hang(volume, z, box) for z in slices], axis=1)

    rows, columns = row(mask).shape
    wide, tall = round(columns * sizes[0] * QC_PIXELS_PER_MM), round(rows * sizes[1] * QC_PIXELS_PER_MM)
    width = wide + (QC_HISTOGRAM if histograms else 0)
    height = QC_TITLE + len(scans) * tall
    figure = Figure(figsize=(width / QC_DPI, height / QC_DPI), facecolor="black")
    figure.text(4 / width, 1 - 3 / height, title, color="white", fontsize=8, va="top")
    outlines = {"mask": mask, "atlas": atlas_brain} | ({"lesion": lesion} if lesion is not None else {})
    right = 1 - 8 / width
    for name in reversed(["midline", *outlines]):
        figure.text(right, 1 - 3 / height, name, color=QC_COLOURS[name], fontsize=8, va="top", ha="right")
        right -= (len(name) + 2) * 6 / width
    each = columns // len(slices)
    midline = box[0].stop - mask.shape[0] / 2 - 0.5  # between the two middle columns, seen from the picture's left
    for number, (name, scan) in enumerate(scans.items()):
        bottom = (height - QC_TITLE - (number + 1) * tall) / height
        axes = figure.add_axes((0, bottom, wide / width, tall / height))
        axes.imshow(row(scan), cmap="gray", vmin=0, vmax=QC_WHITE[name], aspect="auto", interpolation="bilinear")
        line: Style = {"color": QC_COLOURS["midline"], "linestyle": (0, (2, 8))}
        for k in range(len(slices)):
            axes.axvline(k * each + midline, linewidth=PIXEL, antialiased=False, **line)
        for part, outlined in outlines.items():
            if row(outlined).any():
                axes.contour(row(outlined), levels=[0.5], colors=QC_COLOURS[part], linewidths=PIXEL, antialiased=False)
        axes.set_axis_off()
        axes.text(3, 3, f"R   {name}\nwhite: {QC_WHITE[name]:g}", color="white", fontsize=8, va="top")
        axes.text(columns - 3, 3, "L", color="white", fontsize=8, va="top", ha="right")
        if histograms:
            place = (wide + 10) / width, bottom + 26 / height, (QC_HISTOGRAM - 24) / width, (tall - 34) / height
            _draw_histogram(figure.add_axes(place, facecolor="black"), histograms[name])
    _save_palette(figure, path)


def _draw_histogram(axes: Axes, histogram: dict[str, np.ndarray]) -> None:
    """Draw the brain's histogram in the raw scan and after matching, over the reference patient's."""
    edges = histogram["edges"]
    if "reference" in histogram:
        axes.stairs(histogram["reference"], edges, color="0.4", fill=True)
    axes.stairs(histogram["raw"], edges, color=QC_RAW, linewidth=PIXEL)
    axes.stairs(histogram["matched"], edges, color="white", linewidth=PIXEL)
    axes.set(xlim=(edges[0], edges[-1]), ylim=(0, None), yticks=[])
    axes.tick_params(colors="0.7", labelsize=7, length=2, pad=1)
    axes.spines[:].set_visible(False)


def window(scan: np.ndarray) -> tuple[float, float]:
    """Return the values that become black and white: percentiles of what is not background."""
    inside = scan[scan > 0]
    if not inside.size:
        return 0.0, 1.0
    low, high = np.percentile(inside, WINDOW)
    return float(low), float(max(high, low + 1e-6))


def _hang(volume: np.ndarray, z: int, box: tuple[slice, slice]) -> np.ndarray:
    """Cut slice z out of (X, Y, Z) as rows and columns of a picture: patient's right on the left, front at the top."""
    return volume[box[0], box[1], z][::-1, ::-1].T


def _bounding_box(scans: Sequence[np.ndarray], margin: int = 3) -> tuple[slice, slice]:
    """Return the x and y range that holds whatever is brighter than air in any scan, with a margin."""
    head = np.any([scan > AIR * max(float(scan.max()), 1e-6) for scan in scans], axis=(0, 3))  # (X, Y)
    if not head.any():
        return slice(0, head.shape[0]), slice(0, head.shape[1])
    ranges = []
    for axis in (0, 1):
        hit = np.flatnonzero(head.any(axis=1 - axis))
        ranges.append(slice(max(0, int(hit[0]) - margin), min(head.shape[axis], int(hit[-1]) + 1 + margin)))
    return ranges[0], ranges[1]


def _save_palette(figure: Figure, path: str | os.PathLike) -> None:
    """Write a grey picture with a few colours as a PNG with a palette: about half the bytes of 4 channels."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    pixels = np.asarray(canvas.buffer_rgba())[..., :3]
    colours = np.array([to_rgb(colour) for colour in (*QC_COLOURS.values(), QC_RAW)])
    greys = np.repeat(np.linspace(0, 1, GREYS)[:, None], 3, 1)
    palette = np.rint(255 * np.concatenate([greys, colours, colours / 2])).astype(np.uint8)  # half: edges of letters
    index = np.rint(pixels[..., 0] * ((GREYS - 1) / 255)).astype(np.uint8)
    coloured = (pixels[..., 0] != pixels[..., 1]) | (pixels[..., 0] != pixels[..., 2])
    distinct, which = np.unique(pixels[coloured] @ np.array([1 << 16, 1 << 8, 1]), return_inverse=True)
    distinct = distinct[:, None, None] >> np.array([16, 8, 0]) & 255  # (N, 1, 3)
    index[coloured] = np.abs(distinct - palette).sum(-1).argmin(1)[which]
    image = Image.fromarray(index)
    image.putpalette(palette.tobytes())  # which turns grey levels into places in the palette
    write_whole(path, lambda beside: image.save(beside, "PNG"))
