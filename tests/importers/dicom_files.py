"""DICOM series, objects of many frames, and segmentations, made for tests."""

import copy
import warnings

import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

CT_IMAGE = '1.2.840.10008.5.1.4.1.1.2'
AXIAL = (1, 0, 0, 0, 1, 0)
TILTED = (1, 0, 0, 0, np.cos(0.3), np.sin(0.3))
ENHANCED = {
    'CT': '1.2.840.10008.5.1.4.1.1.2.1',
    'MR': '1.2.840.10008.5.1.4.1.1.4.1',
}


def stored_values(count=5, rows=12, columns=10, seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 2500, (count, rows, columns)).astype(np.uint16)


def make_slice(pixels, position, series='1.2.3', **changes):
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = CT_IMAGE
    dataset.SOPClassUID = CT_IMAGE
    dataset.SOPInstanceUID = generate_uid()
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.SeriesInstanceUID, dataset.StudyInstanceUID = series, '1.2'
    dataset.PatientID, dataset.PatientName = 'secret-77', 'Doe^Jane'
    dataset.PatientBirthDate = '19620101'
    dataset.Modality = 'CT'
    dataset.ImageType = ['ORIGINAL', 'PRIMARY', 'AXIAL']
    dataset.Rows, dataset.Columns = pixels.shape
    dataset.PixelSpacing = [0.8, 0.7]
    dataset.ImageOrientationPatient = list(AXIAL)
    dataset.ImagePositionPatient = [float(v) for v in position]
    dataset.RescaleSlope, dataset.RescaleIntercept = 1, -1024
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 12, 11
    dataset.PixelRepresentation, dataset.SamplesPerPixel = 0, 1
    dataset.PhotometricInterpretation = 'MONOCHROME2'
    dataset.PixelData = pixels.astype(np.uint16).tobytes()
    for name, value in changes.items():
        if value is None:
            delattr(dataset, name)
        else:
            setattr(dataset, name, value)
    return dataset


def write_series(folder, volume=None, step=(0, 0, 3.0), order=None, skip=(), **changes):
    """Write a series whose names and instance numbers are shuffled."""
    folder.mkdir(parents=True, exist_ok=True)
    volume = stored_values() if volume is None else volume
    names = np.random.default_rng(1).permutation(len(volume))
    for index, pixels in enumerate(volume):
        if index in skip:
            continue
        position = np.array([-40.0, -60.0, 100.0]) + index * np.array(step)
        dataset = make_slice(pixels, position, **changes)
        dataset.InstanceNumber = int(names[index])
        dataset.save_as(folder / f'image{names[index]}', enforce_file_format=True)
    return volume


def files_of(folder):
    return [str(p) for p in sorted(folder.iterdir())]


def item(**values):
    dataset = Dataset()
    for name, value in values.items():
        setattr(dataset, name, value)
    return dataset


def write_enhanced(path, folder, order=None, per_frame=()):
    """Put the slices of a folder into one file of many frames.

    ``order`` is that of the frames; ``per_frame`` names the functional groups
    that every frame states for itself, the others are shared.
    """
    slices = [pydicom.dcmread(file) for file in files_of(folder)]
    slices.sort(key=lambda s: s.ImagePositionPatient[2])
    slices = [slices[index] for index in order or range(len(slices))]

    def groups(one):
        return dict(
            PixelMeasuresSequence=item(
                PixelSpacing=one.PixelSpacing, SliceThickness=3.0
            ),
            PlaneOrientationSequence=item(
                ImageOrientationPatient=one.ImageOrientationPatient
            ),
            PixelValueTransformationSequence=item(
                RescaleSlope=one.RescaleSlope,
                RescaleIntercept=one.RescaleIntercept,
                RescaleType='HU',
            ),
        )

    whole = copy.deepcopy(slices[0])
    for name in ('PixelSpacing', 'ImageOrientationPatient', 'ImagePositionPatient'):
        delattr(whole, name)
    del whole.RescaleSlope, whole.RescaleIntercept
    whole.SOPClassUID = ENHANCED[whole.Modality]
    whole.SOPInstanceUID = generate_uid()
    whole.file_meta.MediaStorageSOPClassUID = whole.SOPClassUID
    whole.file_meta.MediaStorageSOPInstanceUID = whole.SOPInstanceUID
    whole.NumberOfFrames = len(slices)
    shared = Dataset()
    frames = [
        item(
            PlanePositionSequence=Sequence(
                [item(ImagePositionPatient=one.ImagePositionPatient)]
            )
        )
        for one in slices
    ]
    for name, group in groups(slices[0]).items():
        if name in per_frame:
            for frame, one in zip(frames, slices):
                setattr(frame, name, Sequence([groups(one)[name]]))
        else:
            setattr(shared, name, Sequence([group]))
    whole.SharedFunctionalGroupsSequence = Sequence([shared])
    whole.PerFrameFunctionalGroupsSequence = Sequence(frames)
    whole.PixelData = b''.join(one.PixelData for one in slices)
    path.parent.mkdir(parents=True, exist_ok=True)
    whole.save_as(path, enforce_file_format=True)
    return path


def make_segmentation(folder, mask, labels=('liver', 'kidney'), **settings):
    """A segmentation by highdicom; ``mask`` is ``(Z, rows, columns)``, 0, 1, 2 ...

    Its slices are in the order of the positions of the series.
    """
    import highdicom

    sources = [pydicom.dcmread(file) for file in files_of(folder)]
    sources.sort(key=lambda s: s.ImagePositionPatient[2])
    for source in sources:
        source.FrameOfReferenceUID = '1.2.99'
        for name in (
            'PatientSex',
            'StudyID',
            'StudyDate',
            'StudyTime',
            'AccessionNumber',
            'ReferringPhysicianName',
            'SeriesNumber',
            'SliceThickness',
        ):
            setattr(source, name, source.get(name, None))
    code = highdicom.sr.CodedConcept('T-D0050', 'SRT', 'Tissue')
    descriptions = [
        highdicom.seg.SegmentDescription(
            number,
            label,
            code,
            code,
            highdicom.seg.SegmentAlgorithmTypeValues.MANUAL,
        )
        for number, label in enumerate(labels, 1)
    ]
    settings.setdefault('segmentation_type', 'BINARY')
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        return highdicom.seg.Segmentation(
            source_images=sources,
            pixel_array=np.asarray(mask),
            segment_descriptions=descriptions,
            series_instance_uid=generate_uid(),
            series_number=9,
            sop_instance_uid=generate_uid(),
            instance_number=1,
            manufacturer='made',
            manufacturer_model_name='made',
            software_versions='1',
            device_serial_number='1',
            **settings,
        )


def shuffle_frames(segmentation, seed=0):
    """Put the frames into another order (multi-bit pixels, or bits, alike)."""
    count = int(segmentation.NumberOfFrames)
    order = np.random.default_rng(seed).permutation(count)
    pixels = np.asarray(segmentation.pixel_array).reshape(
        count, segmentation.Rows, segmentation.Columns
    )[order]
    groups = segmentation.PerFrameFunctionalGroupsSequence
    segmentation.PerFrameFunctionalGroupsSequence = Sequence(
        [groups[index] for index in order]
    )
    if segmentation.BitsAllocated == 1:
        content = np.packbits(pixels.ravel(), bitorder='little').tobytes()
    else:
        content = pixels.tobytes()
    segmentation.PixelData = content + b'\0' * (len(content) % 2)
    return segmentation
