"""Pictures of one's own in folders: a folder is a class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from medssl_mm.errors import UserError
from medssl_mm.importers.images import ImageDiscovery
from medssl_mm.importers.naming import find_patient, readable
from medssl_mm.importers.options import patient_option, patients_option
from medssl_mm.importers.pictures import SUBSET_NAMES, Picture, PictureImporter


@dataclass(frozen=True)
class ImageFolderImporter(PictureImporter):
    """Pictures in folders, each of which is a class.

    Folders train, val (valid, validation) and test may lie above the classes.
    Pictures beside the class folders have no label and serve pretraining.
    Without a pattern every picture is a patient of its own. Splits:
    'image-folder-patients' (drawn), and 'image-folder-subsets' where there are
    subset folders that share no patient; without one for validation a tenth of
    the training patients, stratified by class, becomes it.
    """

    patient_pattern: str | None = patient_option()
    patients: str | None = patients_option()

    name = 'image-folder'
    guesses_patients = True
    layout = """\
    <src>/CLASS/**/PICTURE, or <src>/{train,val,test}/CLASS/**/PICTURE
(png, jpg, tif or dcm), e.g. <src>/normal/625_left.jpg with
    --patient-pattern '(\\d+)_(left|right)'"""

    def discover(self, src: Path) -> ImageDiscovery:
        """List the pictures."""
        src = Path(src)
        places = self._places(src, self.picture_files(src))
        classes = self.class_names(
            sorted({name for _, _, name in places if name is not None})
        )
        notes = []
        unlabelled = sum(name is None for _, _, name in places)
        if unlabelled:
            notes.append(
                f'{unlabelled} picture(s) lie in no class folder: they have no label '
                'and serve pretraining.'
            )
        if len(classes) == 1:
            notes.append(
                f'one class only ({classes[0]}): there is nothing to tell apart. Is '
                'the class folder below --src?'
            )
        index_of = {name: index for index, name in enumerate(classes)}
        pictures = []
        for path, subset, name in places:
            text = path.relative_to(src).as_posix()
            patient, problem = find_patient(self.patient_pattern, text, '')
            label = None if name is None else index_of[name]
            pictures.append(
                Picture(text, path, label, subset, patient or None, problem)
            )
        return self.describe(pictures, notes, classes=tuple(map(readable, classes)))

    def class_names(self, found: Sequence[str]) -> tuple[str, ...]:
        """Classes of the set, by the names of the folders.

        Raises:
            UserError: Two names differ in their case only.
        """
        folded: dict[str, str] = {}
        for name in found:
            other = folded.setdefault(name.casefold(), name)
            if other != name:
                raise UserError(
                    f'the folders {other!r} and {name!r} would be two classes; give '
                    'them one name.'
                )
        return tuple(found)

    def _places(
        self, src: Path, files: Sequence[Path]
    ) -> list[tuple[Path, str | None, str | None]]:
        """Subset and class folder of every file; None where it lies in none."""
        split = [path.relative_to(src).parts[:-1] for path in files]
        tops = {folders[0] for folders in split if folders}
        others = sorted(name for name in tops if name.lower() not in SUBSET_NAMES)
        subsets = len(others) < len(tops)
        if subsets and others:
            raise UserError(
                f'{src} has folders of subsets ({", ".join(sorted(tops - {*others}))}) '
                f'beside others ({", ".join(others[:8])}), which may be classes or '
                'not. Expected are subsets only, or classes only: move the others '
                'away, or give a class that is called as a subset another name; '
                'pictures without a label lie in a subset, beside its classes.'
            )
        places = []
        for path, folders in zip(files, split):
            subset = None
            if subsets and folders:
                subset, folders = SUBSET_NAMES[folders[0].lower()], folders[1:]
            places.append((path, subset, folders[0] if folders else None))
        return places
