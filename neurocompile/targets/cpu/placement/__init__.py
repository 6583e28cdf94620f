"""Where numbers lie and in which format: weights, tables, the session's memory."""
