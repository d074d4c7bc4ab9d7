"""Sources of text: file formats, folders, data sets, and in which order they are read."""
