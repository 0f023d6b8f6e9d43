"""How little the features of an encoder change when its images do.

The measure of `Why Do Self-Supervised Models Transfer? Investigating the
Impact of Invariance on Downstream Tasks <https://arxiv.org/abs/2111.11398>`_:
cosine of the features of an image and of its changed copy, after features of
many images have given the mean and the covariance that whiten both. Of
``strict`` and ``compat`` see :data:`POLICIES`.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from torch import Tensor, nn

from medssl_mm.errors import UserError
from medssl_mm.statistics import Interval

from .frozen import COMPAT, STRICT, Preprocessing, features_of, pixels_of

POLICIES = {
    STRICT: (
        'Whitened cosine of the features of an image and of its changed copy: 1 for '
        'an invariant encoder, 0 for features that have nothing to do with each '
        'other. Mean and covariance (shrunk as Ledoit and Wolf do) of the features '
        'of clean images of other patients whiten both: with those of the image itself '
        'even a small change would look large, as its own noise would count as known. '
        'The images are resized first and changed then; the parameter that changes '
        'nothing is left out. The interval is that of the mean over images (1.96 '
        'standard errors).'
    ),
    COMPAT: (
        'As in the original: the image is changed at its own size and resized then, '
        'the covariance is that of the sample plus 1e-6 on its diagonal, statistics '
        'and images are drawn with replacement, and the unchanged copy is among the '
        'k changed ones, so that features without any invariance get about 1/k.'
    ),
}
# Added to the diagonal of the covariance by the original.
_RIDGE = 1e-6
# Images that give the statistics in strict, at most.
_STATISTICS = 5000
# Size that pixel distances of the original refer to.
_SIZE = 256


# ------------------------------------------------------------------- measure


@dataclass(frozen=True, eq=False)
class Whitening:
    """Mean and whitening of features.

    Args:
        mean (np.ndarray): Of the features.
        root (np.ndarray): A root of the inverse covariance.
        shrinkage (float): Share of the sphere in the covariance, 0-1.

    Shape: mean ``(D,)``, root ``(D, D)``, float64; root root^T is the inverse.
    """

    mean: np.ndarray
    root: np.ndarray
    shrinkage: float = 0.0

    def __call__(self, features: np.ndarray) -> np.ndarray:
        """Whiten features.

        Shape: ``(..., D)``, kept.
        """
        return (np.asarray(features, np.float64) - self.mean) @ self.root


def fit_whitening(features: np.ndarray, mode: str = STRICT) -> Whitening:
    """Estimate mean and covariance, and a root of its inverse by ``eigh``.

    Shape: features ``(N, D)``.

    Raises:
        UserError: There are fewer than two rows, or none differs.
    """
    rows = np.asarray(features, np.float64)
    if len(rows) < 2 or not np.ptp(rows, axis=0).any():
        raise UserError(
            f'the features of the {len(rows)} images that give the covariance do not '
            'differ: the encoder has collapsed, or there are too few images'
        )
    shrinkage = 0.0
    if mode == STRICT:
        from sklearn.covariance import LedoitWolf

        fitted = LedoitWolf().fit(rows)
        mean, covariance, shrinkage = (
            fitted.location_,
            fitted.covariance_,
            float(fitted.shrinkage_),
        )
    else:
        mean = rows.mean(0)
        covariance = np.cov(rows.T) + _RIDGE * np.eye(rows.shape[1])
    values, vectors = np.linalg.eigh(covariance)
    # Rounding may leave the smallest ones a little below 0.
    values = np.maximum(values, np.finfo(float).eps * values[-1])
    return Whitening(mean, vectors / np.sqrt(values), shrinkage)


def cosines(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Cosine of vectors; 0 where one has no length.

    Shape: ``(..., D)`` each -> ``(...)``.
    """
    lengths = np.linalg.norm(one, axis=-1) * np.linalg.norm(other, axis=-1)
    products = (one * other).sum(-1)
    return np.divide(products, lengths, out=np.zeros_like(products), where=lengths > 0)


def similarities(
    clean: np.ndarray, changed: np.ndarray, whitening: Whitening
) -> dict[str, np.ndarray]:
    """Compare features of images and of their changed copies.

    Args:
        clean (np.ndarray): Features of the images.
        changed (np.ndarray): Of the copies of each.
        whitening (Whitening): Of the encoder.

    Shape: clean ``(N, D)``, changed ``(N, k, D)``.

    Returns:
        dict: ``cosine`` and ``mahalanobis`` ``(N, k)``; ``between``, ``(N, k)``,
        the cosine of an image and the copy of the next one: what no invariance
        at all would give.
    """
    own, copies = whitening(clean)[:, None], whitening(changed)
    return dict(
        cosine=cosines(own, copies),
        mahalanobis=np.linalg.norm(own - copies, axis=-1),
        between=cosines(own, np.roll(copies, -1, axis=0)),
    )


@dataclass(frozen=True, eq=False)
class Invariance:
    """Result of one encoder and one transform, or of pairs of images.

    Args:
        encoder (str): Name.
        transform (str): Name.
        mode (str): 'strict' or 'compat'.
        parameters (tuple): Of the transform, one per copy.
        cosine (np.ndarray): Whitened cosine of every image and copy.
        mahalanobis (np.ndarray): Distance of every image and copy.
        between (np.ndarray): Cosine of different images.
        number (int): Which of the encoders of that name. Defaults to 0.

    Shape: arrays ``(images, copies)``.
    """

    encoder: str
    transform: str
    mode: str
    parameters: tuple
    cosine: np.ndarray
    mahalanobis: np.ndarray
    between: np.ndarray
    number: int = 0

    @cached_property
    def mean(self) -> Interval:
        """Mean cosine over copies and images, with that of images varying."""
        return _mean(self.cosine.mean(1))

    @cached_property
    def distance(self) -> Interval:
        """Mean Mahalanobis distance."""
        return _mean(self.mahalanobis.mean(1))


def _mean(values: np.ndarray) -> Interval:
    mean, count = float(values.mean()), len(values)
    if count < 2:
        return Interval(mean, units=count)
    reach = 1.96 * float(values.std(ddof=1)) / count**0.5
    return Interval(mean, mean - reach, mean + reach, count)


# ---------------------------------------------------------------- transforms


@dataclass(frozen=True)
class Transform:
    """A family of changes of a picture.

    Args:
        grid (Callable): From a number of steps to parameters; they are free of
            pixels: shares of the side, degrees, factors.
        apply (Callable): From picture, parameter and mode to the changed
            picture; pictures are uint8 ``(C, H, W)`` or those of PIL.
        same (Any): The parameter that changes nothing. Defaults to None: none.
        steps (int, optional): The only number of steps. Defaults to None.
        needs_colour (bool): Whether it changes nothing in grey pictures.
        power (int): Steps are a number to this power. Defaults to 1.
        unit (str): Of the parameter.
        resizes (bool): Whether in ``compat`` the copy has its final size and is
            not resized again.
    """

    grid: Callable[[int], list]
    apply: Callable[[Any, Any, str], Any]
    same: Any = None
    steps: int | None = None
    needs_colour: bool = False
    power: int = 1
    unit: str = 'factor'
    resizes: bool = False

    def parameters(self, steps: int, mode: str) -> tuple:
        """Parameters of the copies; in ``strict`` none that changes nothing."""
        found = self.grid(self.steps or steps)
        if mode == STRICT:
            found = [p for p in found if not np.array_equal(p, self.same)]
        return tuple(found)


def _line(low: float, high: float, last: bool = True) -> Callable[[int], list]:
    def grid(steps: int) -> list:
        return np.linspace(low, high, steps, endpoint=last).tolist()

    return grid


def _square(low: float, high: float) -> Callable[[int], list]:
    def grid(steps: int) -> list:
        side = np.linspace(low, high, round(steps**0.5), endpoint=False).tolist()
        return list(itertools.product(side, side))

    return grid


def _crops(steps: int) -> list:
    side = round(steps**0.25)
    corner = np.linspace(0, 0.25, side).tolist()
    length = np.linspace(0.75, 0.25, side).tolist()
    return list(itertools.product(corner, corner, length, length))


def _deformations(steps: int) -> list:
    """Smoothness in pixels of a side of 224, and a seed."""
    smooth = np.linspace(10, 50, 8).astype(int).tolist()
    return [(smooth[index % 8], index) for index in range(steps)]


def _functions() -> Any:
    # Late: --help and the tables must not wait for torchvision.
    from torchvision.transforms.v2 import functional

    return functional


def _side(picture: Any) -> int:
    return min(_functions().get_size(picture))


def _interpolation(mode: str) -> Any:
    from torchvision.transforms import InterpolationMode

    # The original leaves it to its library.
    exact = mode == COMPAT
    return InterpolationMode.NEAREST if exact else InterpolationMode.BILINEAR


def _affine(
    picture: Any,
    mode: str,
    move: Sequence[float] = (0, 0),
    scale: float = 1.0,
    shear: Sequence[float] = (0, 0),
) -> Any:
    return _functions().affine(
        picture,
        angle=0.0,
        translate=[int(round(step)) for step in move],
        scale=scale,
        shear=list(shear),
        interpolation=_interpolation(mode),
    )


def _rotate(picture: Any, angle: float, mode: str) -> Any:
    return _functions().rotate(picture, angle, interpolation=_interpolation(mode))


def _translate(picture: Any, shares: Sequence[float], mode: str) -> Any:
    # The original moves by pixels of a resized picture before it resizes, and
    # passes a shear of one degree.
    side = _SIZE if mode == COMPAT else _side(picture)
    shear = (1, 0) if mode == COMPAT else (0, 0)
    return _affine(picture, mode, [share * side for share in shares], shear=shear)


def _scale(picture: Any, scale: float, mode: str) -> Any:
    return _affine(picture, mode, scale=scale, shear=(int(mode == COMPAT), 0))


def _shear(picture: Any, degrees: Sequence[float], mode: str) -> Any:
    return _affine(picture, mode, shear=degrees)


def _crop(picture: Any, part: Sequence[float], mode: str) -> Any:
    size, side = _functions().get_size(picture), _SIZE
    if mode == STRICT:
        side = min(size)
    else:
        size = [224, 224]
    box = [int(share * side) for share in part]
    return _functions().resized_crop(picture, *box, size=size)


def _blur(picture: Any, sigma: float, mode: str) -> Any:
    side = 224 if mode == COMPAT else _side(picture)
    kernel = side // 20 * 2 + 1
    # The kernel is as long, and the blur as wide, as in a picture of 224.
    return _functions().gaussian_blur(picture, [kernel] * 2, [sigma * side / 224] * 2)


def _deform(picture: Any, parameter: tuple[int, int], mode: str) -> Any:
    smooth, seed = parameter
    rng = np.random.default_rng(seed)
    if mode == COMPAT:
        return _affine_of_points(picture, rng)
    import torch
    from scipy.ndimage import gaussian_filter

    height, width = picture.shape[-2:]
    side = min(height, width)
    field = rng.uniform(-1, 1, (height, width, 2))
    field = gaussian_filter(field, (smooth * side / 224,) * 2 + (0,), mode='wrap')
    field -= field.mean((0, 1))
    # A quarter of the smoothness, root mean square of both directions together:
    # as far as may be without folds.
    field *= smooth * side / 224 / 4 / np.sqrt(2 * (field**2).mean((0, 1)))
    # torchvision counts in halves of the picture.
    step = torch.from_numpy(field * 2 / (width, height)).float()
    return _functions().elastic(picture, step[None])


def _affine_of_points(picture: Any, rng: np.random.Generator) -> Any:
    """What is to be seen of the original's elastic transform.

    Its elastic part moves a pixel by less than 0.03, the affine part that its
    library adds moves three points by up to 50.
    """
    import cv2
    from PIL import Image

    image = np.asarray(picture)
    centre = np.array(image.shape[1::-1]) / 2
    reach = min(image.shape[:2]) // 3
    points = centre + reach * np.array([[1, 1], [1, -1], [-1, -1]])
    moved = points + rng.uniform(-50, 50, points.shape)
    matrix = cv2.getAffineTransform(points.astype(np.float32), moved.astype(np.float32))
    size = image.shape[1], image.shape[0]
    return Image.fromarray(
        cv2.warpAffine(image, matrix, size, borderMode=cv2.BORDER_REFLECT_101)
    )


def _factor(name: str) -> Callable[[Any, float, str], Any]:
    return lambda picture, value, mode: getattr(_functions(), f'adjust_{name}')(
        picture, value
    )


def _switch(name: str, **options: Any) -> Transform:
    return Transform(
        _line(0, 1),
        lambda picture, on, mode: (
            getattr(_functions(), name)(picture, **options) if on else picture
        ),
        same=0.0,
        steps=2,
        needs_colour=name == 'rgb_to_grayscale',
    )


#: Of the original, whose grids they have.
TRANSFORMS = {
    'rotation': Transform(_line(0, 360, last=False), _rotate, same=0.0, unit='degrees'),
    'translation': Transform(
        _square(-1 / 16, 1 / 16), _translate, same=(0.0, 0.0), power=2
    ),
    'scale': Transform(_line(0.25, 2), _scale, same=1.0),
    'shear': Transform(_square(-160, 160), _shear, same=(0.0, 0.0), power=2),
    'resized_crop': Transform(_crops, _crop, power=4, resizes=True),
    'h_flip': _switch('horizontal_flip'),
    'v_flip': _switch('vertical_flip'),
    'deform': Transform(_deformations, _deform),
    'grayscale': _switch('rgb_to_grayscale', num_output_channels=3),
    'brightness': Transform(_line(0.25, 5), _factor('brightness'), same=1.0),
    'contrast': Transform(_line(0.25, 5), _factor('contrast'), same=1.0),
    'saturation': Transform(
        _line(0.25, 5), _factor('saturation'), same=1.0, needs_colour=True
    ),
    'hue': Transform(
        _line(-0.5, 0.5), _factor('hue'), same=0.0, needs_colour=True, unit='turns'
    ),
    'blur': Transform(_line(1e-5, 20), _blur, same=1e-5, unit='sigma, pixels of 224'),
    'sharpness': Transform(_line(1, 30), _factor('sharpness'), same=1.0),
    'invert': _switch('invert'),
    'equalize': _switch('equalize'),
    'posterize': Transform(
        lambda steps: list(range(1, 8)),
        lambda picture, bits, mode: _functions().posterize(picture, bits),
        steps=7,
        unit='bits',
    ),
}


def check_steps(names: Sequence[str], steps: int) -> None:
    """Refuse a number of steps that a grid cannot have.

    Args:
        names (Sequence[str]): Of :data:`TRANSFORMS`.
        steps (int): Copies of every image.

    Raises:
        UserError: Names the transform and numbers that would do.
    """
    for name in names:
        power = TRANSFORMS[name].power
        side = round(steps ** (1 / power))
        if TRANSFORMS[name].steps is None and (side < 2 or side**power != steps):
            raise UserError(
                f'{name} has a grid of {power} dimensions, which {steps} steps do not '
                f'fill: choose {2**power}, {3**power}, {4**power}, ... steps'
                if power > 1
                else f'{name} needs 2 steps or more, got {steps}'
            )


def is_grey(images: Sequence[np.ndarray]) -> bool:
    """Whether no picture has a colour.

    Shape: ``(H, W)`` or ``(H, W, C)`` each.
    """
    return all(i.ndim == 2 or not np.ptp(i, axis=2).any() for i in images)


def changed_images(
    image: np.ndarray,
    transform: Transform,
    parameters: Sequence,
    preprocessing: Preprocessing,
    mode: str = STRICT,
) -> Iterator[Tensor]:
    """Yield the copies of an image, resized and changed.

    Args:
        image (np.ndarray): uint8.
        transform (Transform): One of :data:`TRANSFORMS`.
        parameters (Sequence): Of the copies.
        preprocessing (Preprocessing): Of the encoder.
        mode (str): Changed after resizing ('strict') or before ('compat').

    Shape: ``(H, W)`` or ``(H, W, C)``; yields uint8 ``(C, h, w)``.
    """
    if mode == STRICT:
        resized = pixels_of(preprocessing.resize(image))
        for parameter in parameters:
            yield transform.apply(resized, parameter, mode)
        return
    from PIL import Image

    picture = Image.fromarray(image)
    channels = preprocessing.resize(image).shape[2]
    for parameter in parameters:
        changed = np.asarray(transform.apply(picture, parameter, mode))
        if not transform.resizes:
            changed = preprocessing.resize(changed)
        elif changed.ndim == 2:
            changed = np.repeat(changed[..., None], channels, axis=2)
        yield pixels_of(changed)


def measure_invariance(
    encoder: nn.Module,
    preprocessing: Preprocessing,
    images: Sequence[np.ndarray],
    whitening: Whitening,
    name: str,
    parameters: Sequence,
    mode: str = STRICT,
    batch_size: int = 32,
    seen: Callable[[int], object] = lambda count: None,
) -> dict[str, np.ndarray]:
    """Compare images with their copies under one transform.

    Args:
        encoder (nn.Module): In evaluation mode.
        preprocessing (Preprocessing): Of the encoder.
        images (Sequence[np.ndarray]): uint8.
        whitening (Whitening): Of the features of clean images.
        name (str): One of :data:`TRANSFORMS`.
        parameters (Sequence): Of the copies.
        mode (str): 'strict' or 'compat'. Defaults to 'strict'.
        batch_size (int): Copies at a time. Defaults to 32.
        seen (Callable): Called with the number of copies of every batch.

    Shape: images ``(H, W)`` or ``(H, W, C)``.

    Returns:
        dict: See :func:`similarities`.
    """
    resized = (pixels_of(preprocessing.resize(image)) for image in images)
    clean = features_of(encoder, preprocessing, resized, batch_size)
    copies = itertools.chain.from_iterable(
        changed_images(image, TRANSFORMS[name], parameters, preprocessing, mode)
        for image in images
    )
    changed = features_of(encoder, preprocessing, copies, batch_size, seen)
    return similarities(
        clean.numpy(),
        changed.numpy().reshape(len(images), len(parameters), -1),
        whitening,
    )


def draw_images(
    count: int,
    patients: Sequence[str] | None,
    wanted: int,
    seed: int = 0,
    mode: str = STRICT,
) -> tuple[np.ndarray, np.ndarray]:
    """Draw the images that give the statistics and those that are changed.

    In ``strict`` the changed ones are of different patients as far as there
    are, of half of them at most; up to 5000 images of the others give the
    statistics. In ``compat`` all images give them, if there are fewer than 1000,
    or else a tenth, at least 1000, and both are drawn with replacement.

    Args:
        count (int): Images there are.
        patients (Sequence[str], optional): Of the images. Defaults to None: each
            is one.
        wanted (int): Images to be changed.
        seed (int): Defaults to 0.
        mode (str): Defaults to 'strict'.

    Returns:
        tuple: Rows of the statistics, and of the changed images.

    Raises:
        UserError: There are fewer than four images, or two patients.
    """
    if mode == COMPAT:
        draws = np.random.RandomState(seed)
        number = max(1000, count // 10)
        rows = np.arange(count) if count < 1000 else draws.choice(count, number)
        return rows, draws.choice(count, wanted)
    owners = np.arange(count)
    if patients is not None:
        owners = np.unique(np.asarray(patients), return_inverse=True)[1]
    persons = np.unique(owners)
    if count < 4 or len(persons) < 2:
        raise UserError(
            f'{count} images of {len(persons)} patients are too few: statistics and '
            'changed images are of different patients'
        )
    rng = np.random.default_rng(seed)
    changed = rng.permutation(persons)[: min(wanted, len(persons) // 2)]
    order = rng.permutation(count)
    inside = np.isin(owners[order], changed)
    # The first image of every patient, then the second ones.
    turns: dict[int, int] = {}
    chosen: list[tuple[int, int, int]] = []
    for row in order[inside]:
        turn = turns[owners[row]] = turns.get(owners[row], -1) + 1
        chosen.append((turn, len(chosen), row))
    rows = np.array([row for *_, row in sorted(chosen)])
    return np.sort(order[~inside][:_STATISTICS]), rows[:wanted]


def draw_pairs(count: int, seed: int = 0, mode: str = STRICT) -> np.ndarray:
    """Draw pairs: up to 2500, or 100 with replacement in ``compat``."""
    if mode == COMPAT:
        return np.random.RandomState(seed).choice(count, 100)
    return np.random.default_rng(seed).permutation(count)[: _STATISTICS // 2]


def measure_pairs(
    left: np.ndarray,
    right: np.ndarray,
    patients: Sequence[str],
    mode: str = STRICT,
) -> dict[str, np.ndarray]:
    """Compare two images of one person, such as both eyes or two views.

    In ``strict`` the pairs of each half of the persons are whitened by those of
    the other half, in ``compat`` by all.

    Args:
        left (np.ndarray): Features of one image of every pair.
        right (np.ndarray): Those of the other.
        patients (Sequence[str]): Of the pairs.
        mode (str): Defaults to 'strict'.

    Shape: features ``(pairs, D)``.

    Returns:
        dict: See :func:`similarities`; one copy each.

    Raises:
        UserError: There are fewer than four persons.
    """
    persons, owners = np.unique(np.asarray(patients), return_inverse=True)
    if len(persons) < 4:
        raise UserError(
            f'pairs of {len(persons)} persons are too few: 4 or more are needed'
        )
    if mode == COMPAT:
        whitening = fit_whitening(np.concatenate([left, right]), mode)
        return similarities(left, right[:, None], whitening)
    found: dict[str, np.ndarray] = {}
    for half in (0, 1):
        own = owners % 2 == half
        others = np.concatenate([left[~own], right[~own]])
        part = similarities(left[own], right[own][:, None], fit_whitening(others))
        for name, values in part.items():
            found.setdefault(name, np.empty((len(left), 1)))[own] = values
    return found


def only_mode(results: Sequence[Invariance]) -> str:
    """Return the mode that all results have.

    Raises:
        UserError: They are of both modes.
    """
    modes = {result.mode for result in results}
    if len(modes) != 1:
        raise UserError('results of strict and of compat cannot stand in one table')
    return modes.pop()
