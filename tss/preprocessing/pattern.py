"""Other patients prepared as those that a checkpoint learned from: another hospital's, or new ones (--like).

In:  what a checkpoint says of its patients: settings of their preprocessing, hashes of their scans.
Out: Pattern; the tools that it asks for; refusals of what would make the new patients incomparable.
Paper: 2.1 (histogram matching to one reference study); decision 20.
See: tests/preprocessing/test_pattern.py
"""

from dataclasses import dataclass
from pathlib import Path

from tss.data.patients_seen import Hashes, find_seen
from tss.data.prepared import Settings
from tss.errors import InputError
from tss.preprocessing.tools import BUILTIN, FSL, LITERAL

NEEDED = ("format", "tools", "grid", "atlas_sha256", "atlas_skull", "reference")
COMPARED = {
    "format": "format",
    "tools": "tools",
    "grid": "grid",
    "atlas_sha256": "atlas (SHA-256)",
    "atlas_skull": "skull of the atlas removed",
}
SHOWN = 40  # characters of a value in a message


@dataclass(frozen=True)
class Pattern:
    """A checkpoint as far as preprocessing needs it."""

    checkpoint: Path
    sha256: str
    preprocessing: Settings  # DATA/settings.json of its training
    seen: Hashes  # its training and validation patients

    def __post_init__(self) -> None:
        missing = [name for name in NEEDED if name not in self.preprocessing]
        if missing or not self.preprocessing["reference"].get("landmarks"):
            raise InputError(
                f"{self.checkpoint} does not say how its patients were preprocessed "
                f"({', '.join(missing) or 'landmarks'} missing). Train it on data of run_preprocess.py."
            )

    @property
    def grid(self) -> tuple[int, int, int]:
        x, y, z = self.preprocessing["grid"]
        return x, y, z

    @property
    def tools(self) -> str:
        """The tools' name, one of tools.NAMES; their version is compared by `check`."""
        said = self.preprocessing["tools"]
        if said.startswith("built-in"):
            return BUILTIN.name
        return LITERAL.name if said.endswith("literal order") else FSL.name

    def check(self, settings: Settings) -> None:
        """Refuse settings by which patients would not be comparable with those of the checkpoint."""
        differing = [
            f"{words} {str(here)[:SHOWN]}, there {str(there)[:SHOWN]}"
            for key, words in COMPARED.items()
            if (here := settings.get(key)) != (there := self.preprocessing.get(key))
        ]
        if differing:
            raise InputError(
                f"--like {self.checkpoint}: these patients would be preprocessed with different settings from its own: "
                f"{'; '.join(differing)}. Give the same atlas with --atlas, and the same tools and version of the "
                "suite."
            )

    def flags(self, patient: str, voxels: dict[str, str]) -> list[str]:
        """Return a sentence where the checkpoint has learned from the patient, whatever it is called there."""
        found = find_seen({patient: list(voxels.values())}, self.seen)
        return [f"{self.checkpoint} has learned from this patient, there {name}" for name in found.values()]
