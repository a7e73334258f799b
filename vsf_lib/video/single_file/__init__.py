"""Models in single files, as other programs keep them: what such a file is, and how it becomes a part."""
