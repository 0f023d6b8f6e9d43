# Put on a linear decoder (+stage3): it reads stage 3 alone.
model = dict(decode_head=dict(in_index=2))
