"""Trust between sites: what lets one hospital run a bundle that another one made.

Words used in this package, each with one meaning:

* **bundle**: a MONAI bundle folder. **Packed bundle**: the same as one file, ``NAME-VERSION.v3b``.
* **lock**: ``vol3d.lock.json``; it names every file of the bundle with its size, SHA-256 and kind. The **lock id** is
  the SHA-256 of the lock itself: that one number stands for the whole bundle, is signed, pinned and approved.
* **audit**: reading of the configs that evaluates nothing and refuses what could run foreign code.
* **level**: how far a bundle is trusted: ``integrity`` < ``signed`` < ``data-only`` < ``scripts``.
* **store**: the bundles installed on this machine. **Remote**: a folder or an OCI registry to exchange through.

Every refusal is a :class:`vol3d.errors.RefusedError` of one line with a code, for example ``[audit.call] ...``.
Nothing here imports torch or MONAI, except where weights are converted or a probe is run.
"""
