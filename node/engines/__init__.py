"""Running models: one seam (`node.engines.seam`) and the engines behind it."""
