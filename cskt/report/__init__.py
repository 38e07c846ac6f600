"""Run files to tables and figures, from json, csv and arrays: neither torch nor the model."""
