"""Raw images in, sharded images out: layouts, the shards they are written to, and their reader."""
