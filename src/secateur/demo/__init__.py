"""Demonstrations on real models that ship in packages."""
