"""From files to volumes and data lists.

Guarded readers (NIfTI, NRRD, MetaImage, DICOM series), cases, data lists, phantoms, caches and samplers. Import what
you need from its module, for example ``from vol3d.data.volume_reader import read_volume``: this package itself
imports nothing, so that listing cases does not load torch.
"""
