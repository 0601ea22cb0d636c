"""Instrument responses of DL3 files, one file a kind, and their projections onto the sky.

`io.read_irf` reads any of them; which class stands for which HDU is a plain list there.
"""
