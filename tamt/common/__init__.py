"""Import paths of ``torch_amt``, kept so that code written for it runs after a change of the package name."""
