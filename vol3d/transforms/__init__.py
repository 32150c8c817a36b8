"""Transforms of volumes, one concept per file; `batch_augment` works on whole batches on their device."""
