"""Reading data: from a file, a folder, a GLUE task or the hub to typed splits, and from splits to batches of tokens."""
