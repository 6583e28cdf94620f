"""C of when a stage fires: one by one, in bulk, or spread over the items that follow."""
