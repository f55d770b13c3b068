"""All other architectures: dense, generative, of pairs, sets, experts and graphs."""
