"""Running models: one seam (`node.engines.interface`) and the engines behind it."""
