# iChallenge-PM, fundus photographs at 224 px, pathologic myopia or none.
images = dict(
    type='medssl_mm.ClassificationImages',
    data_root='data/ichallenge-pm',
    split='ichallenge-pm-patients',
)
