"""From raw images to sharded ones: layouts, the shards written from them, and their reader."""
