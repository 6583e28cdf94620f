"""Data modules, one file a data set: `labelled` and `module` have what they share, `source` what they read from."""
