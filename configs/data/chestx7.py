# ChestX-7: the images of NIH ChestX-ray14 with one of seven findings, and no other.
_base_ = './nih_cxr14.py'
images = dict(single_label=True, split='nih-cxr14-patients')
