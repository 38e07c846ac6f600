"""What can go wrong, by kind, so that a caller can tell a full disk from a bad caption.

Every error is one or two sentences: what is wrong, where (file, record, field), and what to do.
"""

from __future__ import annotations


class CSKTError(ValueError):
    """Something that the caller can mend. Catch this one for all of them."""


class DataError(CSKTError):
    """An annotation, an image or a data set's folder that cannot be used as it is."""


class ConfigurationError(CSKTError):
    """A setting, an option or an argument that is unknown, out of its range or of another type."""


class RunError(CSKTError):
    """A run folder or run file that is damaged, unfinished, of other inputs, or that diverged."""


class RunStopped(CSKTError):
    """A training that ended early because it was asked to, by Ctrl-C or SIGTERM, and can go on."""


class ModelError(CSKTError):
    """Weights, checkpoints or backbones that cannot be read or do not fit each other."""


class GalleryError(CSKTError):
    """A gallery that cannot be opened, does not fit the model, or does not answer."""


class ResourceError(CSKTError):
    """Too little memory or disk, no right to write, no such device, a package that is missing."""
