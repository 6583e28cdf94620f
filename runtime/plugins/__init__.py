"""Kernels as data: what a TensorRT plugin launches, written by the compiler and read where engines are built."""
