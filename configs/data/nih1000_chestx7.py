# Of 1000 chest X-rays at 64 px those with one of seven findings, and no other.
_base_ = './nih1000.py'
images = dict(single_label=True)
