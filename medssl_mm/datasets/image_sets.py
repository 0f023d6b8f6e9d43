"""The image sets that are known by name: one table, a row each.

Importers, what is known of a set before it is there, the table of
``data/README.md`` and transfer benchmarks read it. A further set is a row; data
of one's own need none (``image-folder`` and ``image-table`` take any).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from medssl_mm.errors import UserError

FOLDER, TABLE, IMPORTER = 'folder', 'table', 'importer'
SINGLE, MULTI = 'single-label', 'multi-label'
ACCURACY, PER_CLASS = 'accuracy', 'mean per-class accuracy'
REST = '*'  # of a label map: any other text of a table
UNSURE = '?'  # of a label map: the source says that it is uncertain


@dataclass(frozen=True)
class LabelTable:
    """The table that names the pictures of a set.

    Args:
        names (tuple[str]): File names below the source; the first that is there
            counts.
        path (str | int): Column of the picture, by name or place.
        label (str | int | None): Column of the class; None: a column per class.
        header (bool): Whether the first line names the columns.
        needed (bool): Whether the labels are nowhere else.
        test (tuple[str]): File names beside it of a table of published test
            pictures, of the same form. Defaults to (): none.
    """

    names: tuple[str, ...]
    path: str | int
    label: str | int | None = None
    header: bool = True
    needed: bool = False
    test: tuple[str, ...] = ()


@dataclass(frozen=True)
class Views:
    """Two views of one thing: both eyes, two directions of X-rays.

    Args:
        pattern (str): Searched in the image id; its groups ``pair`` and
            ``view`` tell what belongs together, and how it is seen.
        names (tuple[str, str]): The two views, in order.
        same_label (bool): Whether the published comparison paired images of one
            label only. Defaults to False.
    """

    pattern: str
    names: tuple[str, str]
    same_label: bool = False


@dataclass(frozen=True)
class ImageSet:
    """A row of the table.

    Args:
        title (str): What it is.
        classes (tuple[str]): Class names, in order.
        source (str): Layout below the source folder, in Markdown.
        splits (str): Splits that its import writes, in Markdown.
        licence (str): Of the data, as far as known.
        layout (str): 'folder' (of the classes), 'table', or 'importer' (one of
            its own). Defaults to 'folder'.
        domain (str): Kind of picture. Defaults to ''.
        task (str): 'single-label' or 'multi-label'.
        channels (int): 1 (grey) or 3 (RGB). Defaults to 3.
        size (int): Side of the stored images, pixels. Defaults to 224.
        pad (bool): Whether pictures that are not square are padded, else
            cropped. Defaults to False.
        metric (str): Score by which the published comparison chose, and which it
            reported. Defaults to 'accuracy'.
        labels (Mapping): Settings of the data set class by which it labelled the
            images, by protocol ('few_shot', 'linear', ...; '': of all); None
            leaves a setting out. Defaults to {}: labels have no choice.
        prepared (bool): Whether it drew few-shot episodes from a file of prepared
            pictures: the first 10,001, the shorter side scaled to the size,
            bicubic. Else from all, both sides scaled to 1.15 times the size,
            bilinear. Defaults to False.
        official (str): Split whose published test images it tested, all others
            being trained on. Defaults to '': see ``compat``.
        label_maps (Mapping): Name to what a text means: a folder, the group
            ``label`` of a file name, or a cell of the table, in lower case.
            The first is the default.
        files (str | None): Pattern of the names of pictures, without suffix.
        inside (str | None): Folder of the pictures, where there is one.
        table (LabelTable | None): Names and labels of the pictures.
        patient (str | None): Its first group, searched in the path, is the
            patient.
        views (Views | None): Two views of one thing.
        window (tuple | None): Volumes, of which the middle slice is shown; black
            and white in HU.
        shown_as (str): What the classes are, for the README; default: names.
        compat (float | int): Share, or number, of the rows that the published
            comparison trained on; 0: another way. Defaults to 0.8.
        pictures_of (str): Set that the pictures were taken from. Defaults to ''.
    """

    title: str
    classes: tuple[str, ...]
    source: str = ''
    splits: str = ''
    licence: str = ''
    layout: str = FOLDER
    domain: str = ''
    task: str = SINGLE
    channels: int = 3
    size: int = 224
    pad: bool = False
    metric: str = ACCURACY
    labels: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    prepared: bool = False
    official: str = ''
    label_maps: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    files: str | None = None
    inside: str | None = None
    table: LabelTable | None = None
    patient: str | None = None
    views: Views | None = None
    window: tuple[float, float] | None = None
    shown_as: str = ''
    compat: float | int = 0.8
    pictures_of: str = ''

    def labelled_for(self, protocol: str) -> dict[str, Any]:
        """Settings by which the published comparison labelled for a protocol."""
        return {**self.labels.get('', {}), **self.labels.get(protocol, {})}


_EYES = Views(r'(?P<pair>\d+)_(?P<view>left|right)', ('left', 'right'))
_CXR14 = (
    'Atelectasis',
    'Cardiomegaly',
    'Effusion',
    'Infiltration',
    'Mass',
    'Nodule',
    'Pneumonia',
    'Pneumothorax',
    'Consolidation',
    'Edema',
    'Emphysema',
    'Fibrosis',
    'Pleural_Thickening',
    'Hernia',
)
# Images of one of these findings, and of nothing else, are ChestX-7.
CHESTX7 = tuple(name for name in _CXR14[:8] if name != 'Pneumonia')
_CHEXPERT = (
    'No Finding',
    'Enlarged Cardiomediastinum',
    'Cardiomegaly',
    'Lung Opacity',
    'Lung Lesion',
    'Edema',
    'Consolidation',
    'Pneumonia',
    'Atelectasis',
    'Pneumothorax',
    'Pleural Effusion',
    'Pleural Other',
    'Fracture',
    'Support Devices',
)
_CIFAR100 = (
    'apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy '
    'bridge bus butterfly camel can castle caterpillar cattle chair chimpanzee '
    'clock cloud cockroach couch crab crocodile cup dinosaur dolphin elephant '
    'flatfish forest fox girl hamster house kangaroo keyboard lamp lawn_mower '
    'leopard lion lizard lobster man maple_tree motorcycle mountain mouse '
    'mushroom oak_tree orange orchid otter palm_tree pear pickup_truck pine_tree '
    'plain plate poppy porcupine possum rabbit raccoon ray road rocket rose sea '
    'seal shark shrew skunk skyscraper snail snake spider squirrel streetcar '
    'sunflower sweet_pepper table tank telephone television tiger tractor train '
    'trout tulip turtle wardrobe whale willow_tree wolf woman worm '
)
_TB = {
    '': {'0': 'normal', '1': 'tuberculosis', 'normal': 'normal', REST: 'tuberculosis'}
}
_KAGGLE = 'competition rules of its Kaggle page'

# By the NAME of tools/prepare_data.py, or that of a set of MedMNIST.
IMAGE_SETS: dict[str, ImageSet] = {
    'bach': ImageSet(
        title='BACH: breast histology, four classes',
        classes=('Normal', 'Benign', 'InSitu', 'Invasive'),
        source='`**/{Normal,Benign,InSitu,Invasive}/*.tif` (in '
        '`ICIAR2018_BACH_Challenge/Photos`), with or without '
        '`microscopy_ground_truth.csv`',
        licence='see its challenge page: registration, research use',
        domain='histology',
        label_maps={
            '': {
                'normal': 'Normal',
                'benign': 'Benign',
                'insitu': 'InSitu',
                'invasive': 'Invasive',
                'n': 'Normal',
                'b': 'Benign',
                'is': 'InSitu',
                'iv': 'Invasive',
            }
        },
        files=r'(?P<label>n|b|is|iv)\d+',
        table=LabelTable(('microscopy_ground_truth.csv',), 0, 1, header=False),
    ),
    'shenzhen': ImageSet(
        title='Shenzhen: chest X-rays, normal or tuberculosis',
        classes=('normal', 'tuberculosis'),
        source='`**/CHNCXR_0076_0.png` (the last figure is the label; in '
        '`ChinaSet_AllFiles/CXR_png`), with or without `shenzhen_metadata.csv` '
        '(first column: file, fourth: finding)',
        licence='NLM: see its page, citation asked for',
        layout=TABLE,
        domain='chest X-ray',
        channels=1,
        pad=True,
        label_maps=_TB,
        files=r'CHNCXR_\d+_(?P<label>[01])',
        inside='CXR_png',
        table=LabelTable(('shenzhen_metadata.csv', 'shenzhencxr_metadata.csv'), 0, 3),
        patient=r'CHNCXR_(\d+)_',
    ),
    'montgomery': ImageSet(
        title='Montgomery: chest X-rays, normal or tuberculosis',
        classes=('normal', 'tuberculosis'),
        source='`**/MCUCXR_0001_0.png` (the last figure is the label; in '
        '`MontgomerySet/CXR_png`), with or without `montgomery_metadata.csv` '
        '(first column: file, fourth: finding)',
        licence='NLM: see its page, citation asked for',
        layout=TABLE,
        domain='chest X-ray',
        channels=1,
        pad=True,
        label_maps=_TB,
        files=r'MCUCXR_\d+_(?P<label>[01])',
        inside='CXR_png',
        table=LabelTable(
            ('montgomery_metadata.csv', 'montgomerycxr_metadata.csv'), 0, 3
        ),
        patient=r'MCUCXR_(\d+)_',
    ),
    'ichallenge-amd': ImageSet(
        title='iChallenge-AMD: fundus photographs, macular degeneration or none',
        classes=('no AMD', 'AMD'),
        source='`**/{AMD,Non-AMD}/{A,N}0001.jpg` (in `Training400`), with or without '
        '`amd_labels.csv` (first column: name, second: 0 or 1)',
        licence='see its challenge page: registration',
        domain='fundus',
        label_maps={
            '': {
                'a': 'AMD',
                'n': 'no AMD',
                'amd': 'AMD',
                'non-amd': 'no AMD',
                '1': 'AMD',
                '0': 'no AMD',
            }
        },
        files=r'(?P<label>[AN])\d{4}',
        table=LabelTable(('amd_labels.csv',), 0, 1),
    ),
    'ichallenge-pm': ImageSet(
        title='iChallenge-PM: fundus photographs, pathologic myopia or none',
        classes=('no pathologic myopia', 'pathologic myopia'),
        source='`**/{H,N,P}0001.jpg` (in `PALM-Training400`: high myopia, normal, '
        'pathologic myopia), with or without `fovea_location_csv.csv` (second column: '
        'file, fifth: 0, 1 or 2)',
        licence='see its challenge page: registration',
        layout=TABLE,
        domain='fundus',
        # The published comparison changed from the second to the first; what its
        # 0, 1 and 2 mean is said nowhere.
        label_maps={
            'pathologic': {
                'n': 'no pathologic myopia',
                'h': 'no pathologic myopia',
                'p': 'pathologic myopia',
                '0': 'no pathologic myopia',
                '1': 'no pathologic myopia',
                '2': 'pathologic myopia',
            },
            'high-or-pathologic': {
                'n': 'no pathologic myopia',
                'h': 'pathologic myopia',
                'p': 'pathologic myopia',
                '0': 'no pathologic myopia',
                '1': 'pathologic myopia',
                '2': 'pathologic myopia',
            },
        },
        files=r'(?P<label>[HNP])\d{4}',
        table=LabelTable(('fovea_location_csv.csv',), 1, 4),
    ),
    'chexpert': ImageSet(
        title='CheXpert: chest X-rays, fourteen observations at once',
        classes=_CHEXPERT,
        source='`train.csv` (or `.csv.gz`) and the pictures that its column `Path` '
        'names (`CheXpert-v1.0-small/train/patient00001/study1/view1_frontal.jpg`), '
        'with or without `valid.csv`',
        splits='`chexpert-subsets` with `valid.csv`, whose pictures are its test',
        licence='Stanford: registration, research use',
        layout=TABLE,
        domain='chest X-ray',
        task=MULTI,
        channels=1,
        pad=True,
        label_maps={'': {'': '0', '0': '0', '1': '1', '-1': UNSURE}},
        table=LabelTable(
            ('train.csv', 'train.csv.gz', 'chexpert_train.csv.gz'),
            'Path',
            needed=True,
            test=('valid.csv', 'valid.csv.gz'),
        ),
        patient=r'(patient\d+)',
        views=Views(
            r'(?P<pair>patient\d+[/_]study\d+)[/_]view\d+_(?P<view>frontal|lateral)',
            ('frontal', 'lateral'),
        ),
        shown_as='14 observations, several at once, some uncertain; `uncertain=` '
        'at training',
        compat=134049,
        # Its linear and fine-tuned models cut the soft targets of uncertain findings,
        # 0.55 to 0.85, to whole numbers.
        labels={'': {'uncertain': 'zeros'}, 'few_shot': {'uncertain': 'ones'}},
        prepared=True,
    ),
    'stoic': ImageSet(
        title='STOIC: middle slice of chest CT, COVID-19 or not',
        classes=('no COVID-19', 'COVID-19'),
        source='`metadata/reference.csv` (columns `PatientID,probCOVID`) and '
        '`data/mha/<PatientID>.mha`; needs SimpleITK',
        licence='CC BY-NC 4.0',
        layout=TABLE,
        domain='CT',
        channels=1,
        metric=PER_CLASS,
        label_maps={'': {'0': 'no COVID-19', '1': 'COVID-19'}},
        table=LabelTable(('reference.csv',), 0, 1, needed=True),
        patient=r'([^/]+)\.mha',
        window=(-1000.0, 250.0),
        prepared=True,
    ),
    'busi': ImageSet(
        title='BUSI: breast ultrasound, benign, malignant or normal',
        classes=('benign', 'malignant', 'normal'),
        source='`{benign,malignant,normal}/benign (1).png`; masks are passed over',
        licence='see its page',
        domain='ultrasound',
        files=r'(?P<label>benign|malignant|normal) \(\d+\)',
        compat=0,
    ),
    'odir': ImageSet(
        title='ODIR: fundus photographs of both eyes, by diagnosis',
        classes=('normal', 'cataract', 'glaucoma'),
        source='`{normal,cataract,glaucoma}/1083_left.jpg`',
        licence='research use',
        domain='fundus',
        patient=r'(?:^|/)(\d+)_(?:left|right)',
        views=_EYES,
        compat=0,
    ),
    'nih-cxr14': ImageSet(
        title='NIH ChestX-ray14: chest X-rays, fourteen findings at once',
        classes=_CXR14,
        source='`**/00000001_000.png` (one folder, or `images_001/images` ...) with '
        '`Data_Entry_2017.csv` (or `.csv.gz`); or, without it, 14-column lists '
        '`*{train,val,test}_list.txt` (lines `00000001_000.png 0 1 0 ...`)',
        splits='`nih-cxr14-official` with `train_val_list.txt` and `test_list.txt`; '
        '`nih-cxr14-lists` with the 14-column lists',
        licence='NIH: free use with attribution',
        layout=IMPORTER,
        domain='chest X-ray',
        task=MULTI,
        channels=1,
        size=512,
        pad=True,
        shown_as='14 findings, several at once; `single_label=True` at training: one '
        'of seven (ChestX-7)',
        prepared=True,
    ),
    'nih1000': ImageSet(
        title='A thousand reduced chest X-rays of NIH ChestX-ray14',
        classes=_CXR14,
        source='`NIH1000/{train,valid,test}/{0_normal,1_abnormal}/00000002_000.png` '
        'and `labels14_from_CheXNet_lists.csv`',
        licence='not stated',
        layout=IMPORTER,
        domain='chest X-ray',
        task=MULTI,
        channels=1,
        size=64,
        pad=True,
        shown_as='14 findings, several at once',
        compat=0,
        pictures_of='nih-cxr14',
    ),
    'idc': ImageSet(
        title='Patches of breast tissue, with or without ductal carcinoma',
        classes=('negative', 'positive'),
        source='`PATIENT/{0,1}/PATIENT_idx5_x<X>_y<Y>_class{0,1}.png`, also inside '
        '`IDC_regular_ps50_idx5/`',
        splits='`idc-lists` with `{train,val,test}_split.csv` (columns '
        '`img_path,labels`)',
        licence='see its Kaggle page',
        layout=IMPORTER,
        domain='histology',
        size=50,
        compat=0,
    ),
    'diabetic-retinopathy': ImageSet(
        title='EyePACS: fundus photographs, five grades of retinopathy',
        classes=('no retinopathy', 'mild', 'moderate', 'severe', 'proliferative'),
        source='`trainLabels.csv` (columns `image,level`) and '
        '`**/PATIENT_{left,right}.jpeg`; `testLabels.csv` or '
        '`retinopathy_solution.csv` for the test pictures',
        splits='`diabetic-retinopathy-kaggle` with both label files',
        licence=_KAGGLE,
        layout=IMPORTER,
        domain='fundus',
        size=299,
        metric=PER_CLASS,
        labels={'': {'binary': None}},
        prepared=True,
        views=replace(_EYES, same_label=True),
        shown_as="five grades; `binary='referable'` at training",
    ),
    'breakhis': ImageSet(
        title='BreakHis: histology of breast tumours, benign or malignant',
        classes=('benign', 'malignant'),
        source='`**/{benign,malignant}/**/SOB_B_A-14-22549AB-40-001.png` or '
        '`SOB_B_A_14-22549AB_0.png`',
        licence='see its download page',
        layout=IMPORTER,
        domain='histology',
        compat=0,
    ),
    'rsna': ImageSet(
        title='RSNA pneumonia detection: chest X-rays, lung opacity or none',
        classes=('no opacity', 'opacity'),
        source='`**/<subject>.dcm` with `dataset.csv` (columns `subject,label`) or '
        "Kaggle's `stage_2_train_labels.csv`",
        licence=f"{_KAGGLE}; NIH's images",
        layout=IMPORTER,
        domain='chest X-ray',
        channels=1,
        size=256,
        pad=True,
        compat=0,
        pictures_of='nih-cxr14',
    ),
    # By the importer image-table.
    'rsna-of-nih1000': ImageSet(
        title="RSNA's labels of the chest X-rays of nih1000: lung opacity or none",
        classes=('no opacity', 'opacity'),
        layout=IMPORTER,
        domain='chest X-ray',
        channels=1,
        size=64,
        compat=0,
        pictures_of='nih1000',
    ),
    'cifar10': ImageSet(
        title='CIFAR-10: photographs of ten kinds of things',
        classes=(
            'airplane',
            'automobile',
            'bird',
            'cat',
            'deer',
            'dog',
            'frog',
            'horse',
            'ship',
            'truck',
        ),
        source='`cifar-10-batches-py/` or `-bin/`; `--download` fetches it; or class '
        'folders',
        splits='`cifar10-official`',
        official='cifar10-official',
        licence='see its page: citation asked for',
        layout=IMPORTER,
        domain='natural',
        size=32,
        shown_as='ten',
        compat=0,
    ),
    'cifar100': ImageSet(
        title='CIFAR-100: photographs of a hundred kinds of things',
        classes=tuple(_CIFAR100.split()),
        source='`cifar-100-python/` or `-binary/`; `--download` fetches it; or class '
        'folders',
        splits='`cifar100-official`',
        official='cifar100-official',
        licence='see its page: citation asked for',
        layout=IMPORTER,
        domain='natural',
        size=32,
        shown_as='a hundred (the fine ones)',
        compat=0,
    ),
    # By the importer medmnist.
    'pneumoniamnist': ImageSet(
        title='PneumoniaMNIST: chest X-rays of children, pneumonia or not',
        classes=('normal', 'pneumonia'),
        layout=IMPORTER,
        domain='chest X-ray',
        channels=1,
        size=28,
        compat=0,
    ),
}

# Names of one finding; the first is what a shared one is called.
_SAME = (
    ('Effusion', 'Pleural Effusion'),
    ('Pleural Thickening', 'Pleural_Thickening'),
    ('Lung Opacity', 'opacity'),
    ('tuberculosis', 'TB'),
)
# How a class is called that means: none of the findings.
_NOTHING = re.compile('normal|negative|no .+|not .+')


def _key(name: str) -> str:
    return ' '.join(name.replace('_', ' ').lower().split())


_ALIASES = {_key(name): names[0] for names in _SAME for name in names}


def finding_name(name: str) -> str | None:
    """Name of a finding that sets share; None for a class without any.

    Args:
        name (str): A class of a set, e.g. 'Pleural Effusion'.

    Returns:
        str | None: 'Effusion'; a name without an alias stays as it is.
    """
    if _NOTHING.fullmatch(_key(name)):
        return None
    return _ALIASES.get(_key(name), name)


def column_of(name: str, classes: Sequence[str]) -> int:
    """Index of a finding among the classes of a set, whatever it is called there.

    Raises:
        UserError: The set has no such finding; names those it has.
    """
    wanted = _key(finding_name(name) or name)
    for index, other in enumerate(classes):
        if _key(finding_name(other) or other) == wanted:
            return index
    raise UserError(
        f'there is no finding {name!r} among the classes {", ".join(classes)}'
    )


@dataclass(frozen=True)
class SharedFindings:
    """Findings that two sets have in common.

    Args:
        names (tuple[str]): What they are called here.
        first (tuple[int]): Their places among the classes of the first set.
        second (tuple[int]): The same of the second set.
    """

    names: tuple[str, ...]
    first: tuple[int, ...]
    second: tuple[int, ...]


def shared_findings(first: Sequence[str], second: Sequence[str]) -> SharedFindings:
    """Find what a network trained on one set can be tested for on another.

    Classes that mean 'nothing found' do not count: what is negative differs from
    set to set. Data sets take the names as ``findings``.

    Args:
        first (Sequence[str]): Classes of the set to train on; order decides.
        second (Sequence[str]): Classes of the set to test on.

    Raises:
        UserError: They share none.
    """
    places = {
        _key(found): n for n, name in enumerate(second) if (found := finding_name(name))
    }
    shared = [
        (found, n, places[_key(found)])
        for n, name in enumerate(first)
        if (found := finding_name(name)) and _key(found) in places
    ]
    if not shared:
        raise UserError(
            f'no finding is in both sets: {", ".join(first)}; {", ".join(second)}'
        )
    return SharedFindings(*(tuple(column) for column in zip(*shared)))


def known_set(names: Collection[str]) -> ImageSet | None:
    """The row of a set by the names it goes by; None for a set of one's own.

    Args:
        names (Collection[str]): Such as those of its folder and of its header; the
            first that is known counts.
    """
    return next((IMAGE_SETS[name] for name in names if name in IMAGE_SETS), None)


def origins(names: Collection[str]) -> list[str]:
    """The sets, then those that their pictures were taken from, up to the first."""
    found = list(names)
    for name in found:  # grows
        row = IMAGE_SETS.get(name)
        if row is not None and row.pictures_of:
            found.append(row.pictures_of)
    return found


def common_pictures(first: Collection[str], second: Collection[str]) -> str:
    """Set that both sets are, or may have pictures of; '' for unrelated sets.

    Args:
        first (Collection[str]): Names that a set goes by, or of several sets.
        second (Collection[str]): Those of the other.
    """
    others = set(origins(second))
    return next((name for name in origins(first) if name in others), '')


def views_of(views: str | Views) -> Views:
    """The views of a set by its name.

    Raises:
        UserError: The set is unknown, or has no two views of one thing.
    """
    if isinstance(views, Views):
        return views
    row = IMAGE_SETS.get(views)
    if row is None or row.views is None:
        having = ', '.join(name for name, row in IMAGE_SETS.items() if row.views)
        raise UserError(
            f'of {views!r} no two views of one thing are known; they are of {having}. '
            'Give Views(pattern, names) for a set of your own'
        )
    return row.views


def view_of(image_id: str, views: Views) -> tuple[str, str] | None:
    """Pair and view of an image by its id; None where it tells neither."""
    found = re.search(views.pattern, image_id)
    return (found['pair'], found['view']) if found else None


def pairs(
    image_ids: Sequence[str], views: str | Views, labels: Sequence | None = None
) -> list[tuple[int, int]]:
    """Pair the images that show one thing in two views.

    Every image of the second view goes with the first, by name, of the first
    view; one whose partner is not there is left out.

    Args:
        image_ids (Sequence[str]): Ids of the images.
        views (str | Views): Name of the set, or its views.
        labels (Sequence, optional): One per image; only pairs of equal labels are
            kept. Defaults to None: all.

    Returns:
        list[tuple[int, int]]: Places of first and second view, by pair.

    Raises:
        UserError: The set is not known to have views.
    """
    views = views_of(views)
    places: dict[str, dict[str, list[int]]] = {}
    for place in sorted(range(len(image_ids)), key=lambda n: image_ids[n]):
        found = view_of(image_ids[place], views)
        if found:
            seen = places.setdefault(found[0], {})
            seen.setdefault(found[1], []).append(place)
    first, second = views.names
    paired = [
        (seen[first][0], place)
        for _, seen in sorted(places.items())
        if first in seen
        for place in seen.get(second, ())
    ]
    if labels is None:
        return paired
    return [(a, b) for a, b in paired if labels[a] == labels[b]]


def markdown_row(name: str) -> str:
    """The row of a set in the table of ``data/README.md``."""
    row = IMAGE_SETS[name]
    classes = row.shown_as or ', '.join(row.classes)
    drawn = [] if row.domain == 'natural' else [f'`{name}-patients`']
    compat = [f'`{name}-compat`'] if row.compat else []
    splits = '; '.join([*drawn, *filter(None, [row.splits]), *compat])
    return f'| `{name}` | {row.source} | {classes} | {splits} | {row.licence} |'
