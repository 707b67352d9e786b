"""A U-NET, FASTER: fp32 on a processor by fewer multiplications, fewer passes over memory and exact normalisation.

transforms   the matrices of Winograd's tiles
fields       channels of one image, laid out for tiles; memory lent again
sources      what a convolution reads: a field, or a coarser one brought up on the way
layers       convolutions and normalisation of fields
pool         pieces of work for threads
unet         a network of hilum's as a function on fields
"""

from hilum.inference.winograd.fields import Store
from hilum.inference.winograd.unet import compiled

__all__ = ["Store", "compiled"]
