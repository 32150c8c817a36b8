"""What a result is worth: overlap, surface distance, and how sure the mean of few cases is.

Vocabulary: **label** is the reference, **pred** what a network said, on the same grid. A score that does not
exist (an organ absent from both) is NaN: it is left out of means, and counted. Every mean comes with an
interval from resampling **cases**, because the voxels of one case are not independent of each other.
"""
