"""A NumPy oracle for every compiled kernel: short, slow, plainly right."""
