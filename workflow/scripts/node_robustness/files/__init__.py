"""Files of a run: atomic writing and the conventions of HDF5."""
