"""Data modules: one file a data set, what they share in `module`, `batch` and `split`."""
