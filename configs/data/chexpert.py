# CheXpert, chest X-rays at 224 px: pleural effusion or none, in both views;
# 'uncertain' counts as none.
images = dict(
    type='medssl_mm.CheXpert',
    finding='Pleural Effusion',
    uncertain='zeros',
    data_root='data/chexpert',
    split='chexpert-patients',
)
