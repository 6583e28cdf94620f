"""Compilers, the processors they compile for, and emulators that run what they made."""
