"""Do the images' circumstances, rather than their content, carry the scores?

An X-ray of a bed-ridden patient is taken from the other side: a network that sees
the view position knows much of the diagnosis. Shown beside its AUROC are what
the attribute alone reaches, and the AUROC among images of one value each.
"""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from medssl_mm.analysis.probing import Probe, ProbeData, run_probe, score_probe
from medssl_mm.errors import UserError
from medssl_mm.files import delimiter_of, read_text

ALONE = 'alone'


def read_attribute(
    path: str | Path, image_column: str, column: str
) -> tuple[dict[str, str], str]:
    """Read an attribute of images from a table.

    Args:
        path: CSV file.
        image_column: File names of the images; folder and suffix do not count.
        column: The attribute; an empty cell is the value 'unknown'.

    Returns:
        tuple[dict[str, str], str]: Value by stem of the file name; the path.

    Raises:
        UserError: The file or a column is missing, or an image has two values.
    """
    import pandas as pd

    try:
        text = read_text(path, 'table')
        delimiter, start = delimiter_of(text, (image_column, column))
        table = pd.read_csv(
            io.StringIO(text[start:]), sep=delimiter, dtype=str, keep_default_na=False
        )
    except UserError:
        raise
    except ValueError as error:
        raise UserError(f'{path} cannot be read as a CSV table: {error}') from error
    for name in (image_column, column):
        if name not in table:
            raise UserError(
                f'{path} has no column {name!r}; it has {", ".join(table.columns)}'
            )
    values: dict[str, str] = {}
    for image, value in zip(table[image_column], table[column]):
        stem = PurePosixPath(image.replace('\\', '/')).stem
        if values.setdefault(stem, value or 'unknown') != (value or 'unknown'):
            raise UserError(
                f'{path}: image {stem} has {column} {values[stem]} and {value}; '
                'leave one of the rows out'
            )
    return values, str(path)


def attributes_of(image_ids: Sequence[str], table: tuple[dict[str, str], str]) -> Any:
    """Look the attribute of images up. Shape: returns ``(images,)``, str.

    Args:
        image_ids: As in the store.
        table: Of :func:`read_attribute`.

    Raises:
        UserError: When some are not in the table.
    """
    values, path = table
    stems = [PurePosixPath(name).stem for name in image_ids]
    missing = [stem for stem in stems if stem not in values]
    if missing:
        raise UserError(
            f'{len(missing)} of {len(stems)} images are not in {path}, the first is '
            f'{missing[0]}; add their rows, with a value such as unknown'
        )
    return np.array([values[stem] for stem in stems])


def probe_attribute(
    values: Mapping[str, np.ndarray], name: str, data: ProbeData, **settings: Any
) -> Probe:
    """Probe the attribute alone, as a network that saw nothing else would score.

    Args:
        values: Of the images of 'train', 'val' and 'test'.
        name: Of the attribute.
        data: Labels of the same images.
        **settings: Further arguments of :func:`.run_probe`.
    """
    known = sorted(set(values['train']))
    columns = {
        subset: (own[:, None] == np.array(known)[None]).astype(float)
        for subset, own in values.items()
    }
    return run_probe(columns, data, checkpoint=name, place=ALONE, **settings)


def probes_within(
    probe: Probe,
    data: ProbeData,
    values: np.ndarray,
    name: str,
    samples: int = 2000,
    seed: int = 0,
) -> list[Probe]:
    """Score a probe on the test images of each value of an attribute alone.

    A value whose images all have, or lack, each class is left out.

    Args:
        probe: Of :func:`.run_probe`.
        data: Its labels.
        values: Of the test images.
        name: Of the attribute.
        samples: Resamples for the intervals.
        seed: Of the resampling.
    """
    found = []
    patients = np.array(data.patients)
    for value in np.unique(values):
        rows = values == value
        part = dataclasses.replace(
            data,
            targets={**data.targets, 'test': data.targets['test'][rows]},
            patients=patients[rows].tolist(),
        )
        left_out = part.left_out()
        if len(left_out) == len(data.classes):
            continue
        assert probe.probabilities is not None, 'run_probe keeps them'
        found.append(
            dataclasses.replace(
                probe,
                place=f'{probe.place}, {name} {value}',
                **score_probe(probe.probabilities[rows], part, samples, seed),
                left_out=left_out,
            )
        )
    return found
