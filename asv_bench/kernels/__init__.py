"""The kernels as machine code: what a launch is given, moves and takes."""
