# Breast histopathology, carcinoma or not, patches of 50 px.
images = dict(
    type='medssl_mm.BreastHistopathologyIDC', data_root='data/idc', split='idc-patients'
)
