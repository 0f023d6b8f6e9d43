"""Importers by name; their modules are loaded when asked for."""

from __future__ import annotations

import importlib

from medssl_mm.errors import UserError

IMPORTERS = {
    'abdomen1k': 'nifti:Abdomen1KImporter',
    'acdc': 'hdf5:ACDCImporter',
    'breakhis': 'histology:BreakHisImporter',
    'btcv': 'nifti:BTCVImporter',
    'curvas': 'png:CurvasImporter',
    'diabetic-retinopathy': 'retina:DiabeticRetinopathyImporter',
    'dicom': 'dicom:DICOMImporter',
    'idc': 'histology:IDCImporter',
    'ircad': 'png:IRCADImporter',
    'kits': 'png:KiTSImporter',
    'medmnist': 'medmnist:MedMNISTImporter',
    'nifti': 'nifti:NIfTIImporter',
    'nih-cxr14': 'chest_xray:NIHChestXray14Importer',
    'nih1000': 'chest_xray:NIH1000Importer',
    'phantom': 'phantom:PhantomImporter',
    'png': 'png:PNGImporter',
    'slice-list': 'png:SliceListImporter',
}


def make_importer(name: str):
    """Make the importer of a source format or published data set.

    Raises:
        UserError: Unknown name.
    """
    if name not in IMPORTERS:
        raise UserError(f'unknown data set {name!r}; known are {", ".join(IMPORTERS)}')
    module, class_name = IMPORTERS[name].split(':')
    module = importlib.import_module(f'{__name__}.{module}')
    return getattr(module, class_name)()
