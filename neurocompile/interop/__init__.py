"""Our ops in other people's compilers."""
