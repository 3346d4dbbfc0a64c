"""Other packages, called the way they are meant to be, for benchmarks to stand beside."""
