"""C of what a stage computes: nests, products, rows, attention, and the program around them."""
