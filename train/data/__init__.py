"""Data modules: one file a data set; `labelled` and `module` have what they share, `source` what a data set is to them."""
