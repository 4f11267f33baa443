"""Hardware: devices, links, clusters, cost models, collectives, energy, price."""
