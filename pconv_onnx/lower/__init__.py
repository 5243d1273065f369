"""From a plan to the graph that it tells of."""
