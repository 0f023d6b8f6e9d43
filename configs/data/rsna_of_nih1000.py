# RSNA's labels (lung opacity or none) of 247 of the images of nih1000 at 64 px; half
# of the patients are tested. How to import it: data/README.md.
images = dict(
    type='medssl_mm.ClassificationImages',
    data_root='data/rsna-of-nih1000',
    split='holdout-50-val-15-seed0-stratified',
)
