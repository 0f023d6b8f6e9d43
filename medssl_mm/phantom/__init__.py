"""A procedural abdominal CT phantom, written as NIfTI files in HU.

The anatomy is a set of implicit surfaces in a patient frame (millimetres;
x to the patient's left, y to posterior, z to superior, origin at the first
lumbar vertebra). Every patient draws organ sizes, positions, contrast phase,
body size, fat, pose, field of view, slice spacing and noise from its own
random generator, so a case depends on ``(seed, index)`` and on nothing else.
"""

from medssl_mm.phantom.case import make_phantom_case
from medssl_mm.phantom.patient import CLASSES, ORGANS
from medssl_mm.phantom.write import write_phantom

__all__ = ['CLASSES', 'ORGANS', 'make_phantom_case', 'write_phantom']
