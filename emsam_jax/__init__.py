"""EMSAM-JAX: dense 3D segmentation of neurons in electron-microscopy volumes, with SAM2's image encoder, in JAX."""
