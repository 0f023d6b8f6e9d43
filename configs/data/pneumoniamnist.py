# PneumoniaMNIST, chest X-rays of children at 28 px, pneumonia or not.
images = dict(
    type='medssl_mm.ClassificationImages',
    data_root='data/pneumoniamnist',
    split='pneumoniamnist-subsets',
)
