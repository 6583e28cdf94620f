"""What runs: event files, front ends, sessions and backends, on numpy and one backend library."""
