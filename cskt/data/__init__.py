"""Data: the benchmarks in their official layouts, data sets drawn here, and the way from files to
training batches."""
