"""A NumPy oracle for every kernel: short, slow and plainly right."""
