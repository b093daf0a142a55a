"""What the reference and the Triton kernels both need: constants, layouts, walks over slices."""
