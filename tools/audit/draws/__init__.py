"""What draws the graphs of each pass: forms that it rewrites, and near misses that it must leave alone."""
