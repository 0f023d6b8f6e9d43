"""How well a handful of labelled images per class tells the others apart.

Episodes of prototypical classification on the features of a frozen network:
nothing is trained. The same episodes are used for every network, so that the
difference of two networks is paired by episode.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from medssl_mm.errors import UserError
from medssl_mm.statistics import Interval

METHOD = 'normal approximation over episodes'
POLICY = (
    'In every episode some classes, some labelled images of each and other '
    'images of the same classes to be named are drawn; an image gets the class '
    'whose labelled images have the nearest mean feature (squared Euclidean '
    'distance, nothing standardised). Accuracy is the mean over episodes; the '
    'interval is that of this mean (1.96 standard errors): it tells how well the '
    'episodes measure the accuracy on these images, not how it would vary with '
    'other patients.'
)
# Draws of an episode of patients before it is called impossible.
_TRIES = 100
# Bytes of features looked at at a time.
_CHUNK = 64 * 2**20


@dataclass(frozen=True, eq=False)
class Episodes:
    """Images of every episode, as rows of the features.

    Args:
        support (np.ndarray): The labelled ones of each class.
        query (np.ndarray): Those to be named.
        classes (np.ndarray): Class numbers of an episode.
        by_patient (bool): Whether no patient is on both sides.

    Shape: support ``(episodes, ways, shots)``, query ``(episodes, ways,
        queries)``, classes ``(episodes, ways)``.
    """

    support: np.ndarray
    query: np.ndarray
    classes: np.ndarray
    by_patient: bool

    @property
    def digest(self) -> str:
        """Hash of the images: equal for results that may be compared."""
        content = hashlib.sha256()
        for part in (self.classes, self.support, self.query):
            content.update(repr(part.shape).encode())
            content.update(np.ascontiguousarray(part, '<i8').tobytes())
        return content.hexdigest()[:12]


@dataclass(frozen=True, eq=False)
class FewShot:
    """Result of one network at one place.

    Args:
        checkpoint (str): Name of the network.
        place (str): Where in it.
        shots (int): Labelled images of each class.
        accuracies (np.ndarray): Share of right answers in every episode.
        digest (str): Hash of the episodes.
        number (int): Which of the networks of that name. Defaults to 0.

    Shape: accuracies ``(episodes,)``.
    """

    checkpoint: str
    place: str
    shots: int
    accuracies: np.ndarray
    digest: str
    number: int = 0


def mean_accuracies(results: Sequence[FewShot]) -> np.ndarray:
    """Mean over networks, such as the seeds of a method, in every episode.

    Shape: ``(episodes,)``.

    Raises:
        UserError: When their episodes differ.
    """
    first = results[0]
    for other in results[1:]:
        if other.digest != first.digest:
            raise UserError(
                f'{first.checkpoint} and {other.checkpoint} were measured on '
                f'different episodes ({first.digest}, {other.digest}); use one '
                'data set and one seed'
            )
    return np.mean([result.accuracies for result in results], axis=0)


def accuracy(results: Sequence[FewShot], ddof: int = 1) -> Interval:
    """Accuracy of the networks of one name.

    Args:
        results (Sequence[FewShot]): Of the same episodes.
        ddof (int): What the variance over N episodes is divided by: N less this.
            Published intervals have 0. Defaults to 1, which is without bias.
    """
    return _mean(mean_accuracies(results), ddof)


def difference(
    results: Sequence[FewShot], baseline: Sequence[FewShot], ddof: int = 1
) -> Interval:
    """Difference of the accuracies of two names, paired by episode.

    Args:
        results (Sequence[FewShot]): Of one name.
        baseline (Sequence[FewShot]): Of the other one.
        ddof (int): See :func:`accuracy`. Defaults to 1.

    Raises:
        UserError: When their episodes differ.
    """
    mean_accuracies([results[0], baseline[0]])  # refuses different episodes
    return _mean(mean_accuracies(results) - mean_accuracies(baseline), ddof)


def _mean(values: np.ndarray, ddof: int) -> Interval:
    mean, count = float(values.mean()), len(values)
    if count < 2:
        return Interval(mean, units=count)
    reach = 1.96 * float(values.std(ddof=ddof)) / count**0.5
    return Interval(mean, mean - reach, mean + reach, count)


def draw_episodes(
    labels: Sequence[int],
    patients: Sequence[str] | None = None,
    ways: int = 2,
    shots: int = 20,
    queries: int = 15,
    episodes: int = 600,
    seed: int = 0,
    classes: Sequence[str] | None = None,
) -> Episodes:
    """Draw the images of all episodes.

    Without patients, classes and then images of each are drawn without
    replacement. With patients, images are taken in random order as labelled
    ones until every class has enough, then those of patients that gave none;
    patients with many images are thus more often on the labelled side.

    Args:
        labels (Sequence[int]): Class number of every image.
        patients (Sequence[str], optional): Patient of every image; none is on
            both sides of an episode. Defaults to None: not looked at.
        ways (int): Classes of an episode. Defaults to 2.
        shots (int): Labelled images of each. Defaults to 20.
        queries (int): Images of each to be named. Defaults to 15.
        episodes (int): How many. Defaults to 600.
        seed (int): Of the draw. Defaults to 0.
        classes (Sequence[str], optional): Names, for messages.

    Raises:
        UserError: When there are too few classes, images or patients; names
            the class and the number of shots that is possible.
    """
    members, names = _members(labels, classes, ways, shots, queries)
    groups = None
    if patients is not None:
        groups = np.unique(np.asarray(patients), return_inverse=True)[1]

    def draw(shots: int) -> Episodes | np.ndarray:
        return _drawn(members, groups, ways, shots, queries, episodes, seed)

    smallest = min(members, key=lambda number: len(members[number]))
    possible = len(members[smallest]) - queries
    found: Episodes | np.ndarray = np.array([smallest])
    if possible >= shots:
        found = draw(shots)
    if isinstance(found, Episodes):
        return found
    wanted = f'{shots} labelled and {queries} others'
    if groups is None:
        raise UserError(
            f'class {names[smallest]} has {len(members[smallest])} images: too few '
            f'for {wanted}; {_advice(possible, queries)}'
        )
    counts = ', '.join(
        f'{names[number]} {len(members[number])} images of '
        f'{len(np.unique(groups[members[number]]))} patients'
        for number in found
    )
    raise UserError(
        f'too few patients for {wanted} per class, since no patient is on both sides: '
        f'{counts}; {_advice(_most_shots(draw, min(shots, possible + 1)), queries)}'
    )


def _drawn(
    members: Mapping[int, np.ndarray],
    groups: np.ndarray | None,
    ways: int,
    shots: int,
    queries: int,
    episodes: int,
    seed: int,
) -> Episodes | np.ndarray:
    """Draw all episodes, or tell of which classes none was found."""
    rng = np.random.default_rng(seed)
    shape = (episodes, ways)
    support = np.empty((*shape, shots), np.int64)
    query = np.empty((*shape, queries), np.int64)
    chosen = np.empty(shape, np.int64)
    numbers = np.array(list(members))
    for index in range(episodes):
        chosen[index] = rng.permutation(numbers)[:ways]
        own = [members[number] for number in chosen[index]]
        for _ in range(_TRIES):
            order = [rng.permutation(rows) for rows in own]
            found = (
                [(rows[:shots], rows[shots : shots + queries]) for rows in order]
                if groups is None
                else _apart(order, groups, shots, queries)
            )
            if found is not None:
                break
        else:
            return chosen[index]
        support[index] = [pair[0] for pair in found]
        query[index] = [pair[1] for pair in found]
    return Episodes(support, query, chosen, groups is not None)


def _most_shots(draw: Callable[[int], Episodes | np.ndarray], too_many: int) -> int:
    """The largest number of labelled images of which all episodes are found."""
    possible = 0
    while too_many - possible > 1:
        tried = (possible + too_many) // 2
        if isinstance(draw(tried), Episodes):
            possible = tried
        else:
            too_many = tried
    return possible


def _members(
    labels: Sequence[int],
    classes: Sequence[str] | None,
    ways: int,
    shots: int,
    queries: int,
) -> tuple[dict[int, np.ndarray], dict[int, str]]:
    """Rows and name of every class; refuses what no episode can be made of."""
    for name, value in dict(ways=ways, shots=shots, queries=queries).items():
        if value < (2 if name == 'ways' else 1):
            raise UserError(f'{name}: {value} is too few')
    known = np.asarray(labels)
    members = {number: np.flatnonzero(known == number) for number in np.unique(known)}
    names = {n: str(n) if classes is None else classes[n] for n in members}
    if len(members) < ways:
        raise UserError(
            f'{ways} classes are drawn in an episode, the images have '
            f'{len(members)}: {", ".join(names.values())}'
        )
    return members, names


def _advice(possible: int, queries: int) -> str:
    if possible < 1:
        return 'ask for fewer queries or leave the class out'
    return f'at most {possible} are possible with {queries} others'


def _apart(
    order: list[np.ndarray], groups: np.ndarray, shots: int, queries: int
) -> list[tuple[np.ndarray, np.ndarray]] | None:
    """Labelled images and others without a patient in common, or None."""
    labelled = [rows[:shots] for rows in order]
    taken = np.unique(groups[np.concatenate(labelled)])
    rest = [rows[~np.isin(groups[rows], taken)][:queries] for rows in order]
    if any(len(rows) < queries for rows in rest):
        return None
    return list(zip(labelled, rest))


def episode_accuracies(features: np.ndarray, episodes: Episodes) -> np.ndarray:
    """Share of right answers in every episode.

    Args:
        features (np.ndarray): A row per image.
        episodes (Episodes): Rows to be used.

    Shape: features ``(N, D)`` -> ``(episodes,)``.
    """
    import torch

    from medssl_mm.functional.prototypes import nearest_prototype

    rows = torch.from_numpy(np.ascontiguousarray(features))
    support, query = map(torch.from_numpy, (episodes.support, episodes.query))
    count, ways, queries = query.shape
    truth = torch.arange(ways).repeat_interleave(queries)
    used = ways * (support.shape[2] + queries) * rows.shape[1] * rows.element_size()
    step = max(1, _CHUNK // used)
    shares = [
        (nearest_prototype(rows[support[s]], rows[query[s].flatten(1)]) == truth)
        .double()
        .mean(dim=1)
        for s in torch.arange(count).split(step)
    ]
    return torch.cat(shares).numpy()
