"""Native layouts of datasets."""
